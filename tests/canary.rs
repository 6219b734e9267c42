//! Secrets are nowhere on a disk and in no log, whatever is logged: real processes at trace level.

#[path = "support/machine.rs"]
mod machine;

use std::fs;
use std::path::Path;

use machine::{Host, Swarm, gone, sleeper, until};
use serde_json::json;

/// Forty-two bytes that occur nowhere by chance.
const CANARY: &str = "kanarienvogel/7f3Qz/singt-niemals-im-Walde";
/// The same in base64.
const IN_BASE64: &str = "a2FuYXJpZW52b2dlbC83ZjNRei9zaW5ndC1uaWVtYWxzLWltLVdhbGRl";

/// The forms in which bytes might leak, among them a list of numbers as `Debug` shows them.
fn forms(secret: &str, base64: &str) -> Vec<String> {
    let numbers = |separator: &str| {
        secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(separator)
    };
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    vec![secret.to_owned(), base64.to_owned(), numbers(", "), numbers(","), hex]
}

/// Every file below a directory that holds one of the forms.
fn singing(dir: &Path, forms: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(singing(&path, forms));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            let holds = |form: &&String| bytes.windows(form.len()).any(|at| at == form.as_bytes());
            found
                .extend(forms.iter().find(holds).map(|form| format!("{}: {form}", path.display())));
        }
    }
    found
}

fn delivered(host: &Host) -> std::path::PathBuf {
    Path::new("/dev/shm").join(format!("swarm-{}", host.node_id().unwrap()))
}

#[test]
fn secrets_are_in_no_log_and_on_no_disk_but_in_the_tasks_memory() {
    if !Path::new("/dev/shm").is_dir() {
        println!("skipped: this machine has no /dev/shm to deliver secrets in");
        return;
    }
    let mut swarm = Swarm::start_with(&["worker1"], &[("RUST_LOG", "trace")]);
    let canary = forms(CANARY, IN_BASE64);
    let id = swarm.manager.create("secrets", &json!({ "Name": "bird", "Data": IN_BASE64 }));
    let mut service = sleeper("holder", 2);
    service["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([{
        "SecretID": id, "SecretName": "bird",
        "File": { "Name": "bird", "UID": "0", "GID": "0", "Mode": 0o400 },
    }]);
    swarm.manager.create("services", &service);
    let tasks = swarm.manager.running("holder", 2);
    for host in [&swarm.manager, &swarm.workers[0]] {
        let found = singing(&delivered(host), &canary);
        assert_eq!(found.len(), 1, "{} has its task's secret in memory: {found:?}", host.name);
    }
    assert_eq!(singing(swarm.dir.path(), &canary), [""; 0], "while the tasks run");

    // A restart writes snapshots, journals and logs once more.
    swarm.workers[0].kill();
    swarm.manager.kill();
    swarm.manager.start(&[]);
    swarm.workers[0].start(&[]);
    assert_eq!(swarm.manager.running("holder", 2), tasks);
    assert_eq!(swarm.manager.call("DELETE", "/services/holder", "").status, 200);
    tasks.iter().for_each(|task| gone(task.pid));
    for host in [&swarm.manager, &swarm.workers[0]] {
        until("the delivered secret is erased", || {
            let found = singing(&delivered(host), &canary);
            if found.is_empty() { Ok(()) } else { Err(found.join(", ")) }
        });
    }
    assert_eq!(singing(swarm.dir.path(), &canary), [""; 0], "after everything");

    // The scan finds what is there, and tokens are no secret bytes but credentials all the same.
    fs::write(swarm.dir.path().join("planted"), format!("...{IN_BASE64}...")).unwrap();
    assert_eq!(singing(swarm.dir.path(), &canary).len(), 1);
    let tokens = swarm.manager.get("/swarm")["JoinTokens"].clone();
    for token in ["Worker", "Manager"].map(|role| tokens[role].as_str().unwrap().to_owned()) {
        let secret = token.rsplit_once('-').unwrap().1.to_owned();
        assert_eq!(singing(swarm.dir.path(), &[secret]), [""; 0], "a join token's secret");
    }
    let log = fs::metadata(&swarm.manager.log).unwrap().len();
    assert!(log > 50_000, "{log} bytes are no log at trace level");
}
