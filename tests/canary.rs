//! Secrets are nowhere on a disk and in no log, whatever is logged: real processes at trace level.

#[path = "support/machine.rs"]
mod machine;

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use machine::{Host, Swarm, exchange, gone, sleeper, until};
use serde_json::{Value, json};
use swarm::core::store::Store;
use swarm::identity::UnlockKey;
use swarm::raft::{NoPeers, RaftConfig, RaftStore, SealKey};

/// Forty-two bytes that occur nowhere by chance.
const CANARY: &str = "kanarienvogel/7f3Qz/singt-niemals-im-Walde";
/// The same in base64.
const IN_BASE64: &str = "a2FuYXJpZW52b2dlbC83ZjNRei9zaW5ndC1uaWVtYWxzLWltLVdhbGRl";

const BACK_UP: &[u8] = b"POST /x-swarm/backup HTTP/1.0\r\nHost: swarm\r\nContent-Length: 0\r\n\r\n";

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
    let mut by_first = vec![Vec::new(); 256];
    for form in forms {
        by_first[usize::from(form.as_bytes()[0])].push(form.as_bytes());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(singing(&path, forms));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            for (at, first) in bytes.iter().enumerate() {
                let here = by_first[usize::from(*first)].iter();
                let here = here.filter(|form| bytes[at..].starts_with(form));
                found.extend(
                    here.map(|form| {
                        format!("{}: {}", path.display(), String::from_utf8_lossy(form))
                    }),
                );
            }
        }
    }
    found.sort();
    found.dedup();
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
    // What is replicated lies on the disk of every manager, and went over the network.
    let mut second = Host::new(swarm.dir.path(), "manager", "second");
    second.env.push(("RUST_LOG", "trace".to_owned()));
    let token = swarm.manager.get("/swarm")["JoinTokens"]["Manager"].as_str().unwrap().to_owned();
    second.start(&["--join", &format!("{}:2377", swarm.manager.address), "--token", &token]);
    let canary = forms(CANARY, IN_BASE64);
    let id = swarm.manager.create("secrets", &json!({ "Name": "bird", "Data": IN_BASE64 }));
    let mut service = sleeper("holder", 3);
    service["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([{
        "SecretID": id, "SecretName": "bird",
        "File": { "Name": "bird", "UID": "0", "GID": "0", "Mode": 0o400 },
    }]);
    swarm.manager.create("services", &service);
    let tasks = swarm.manager.running("holder", 3);
    let backup = swarm.dir.path().join("backup");
    fs::write(&backup, exchange(&second.socket, BACK_UP).unwrap()).unwrap();
    assert!(fs::metadata(&backup).unwrap().len() > 1_000, "a backup holds the whole state");
    for host in [&swarm.manager, &swarm.workers[0], &second] {
        let found = singing(&delivered(host), &canary);
        assert_eq!(found.len(), 1, "{} has its task's secret in memory: {found:?}", host.name);
    }
    assert_eq!(singing(swarm.dir.path(), &canary), [""; 0], "while the tasks run");

    // A restart writes snapshots, journals and logs once more.
    swarm.workers[0].kill();
    swarm.manager.kill();
    second.kill();
    second.launch(&[]);
    swarm.manager.start(&[]);
    swarm.workers[0].start(&[]);
    assert_eq!(swarm.manager.running("holder", 3), tasks);
    assert_eq!(swarm.manager.call("DELETE", "/services/holder", "").status, 200);
    tasks.iter().for_each(|task| gone(task.pid));
    for host in [&swarm.manager, &swarm.workers[0], &second] {
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
    for host in [&swarm.manager, &second] {
        let log = fs::metadata(&host.log).unwrap().len();
        assert!(log > 50_000, "{log} bytes are no log at trace level");
    }
}

/// The forms of a part of an unlock key or of a key in PEM: of one that is like no other's.
fn forms_of(secret: &str) -> Vec<String> {
    // Keys in PEM begin alike; their second line does not.
    let digits = secret.strip_prefix("SWMKEY-1-").or(secret.lines().nth(2)).unwrap();
    let digits = &digits[8..32];
    let at = secret.find(digits).unwrap().next_multiple_of(3);
    let whole = STANDARD.encode(secret);
    let mut all = forms(digits, &whole[at / 3 * 4..][..24]);
    let raw = STANDARD.decode(digits).unwrap();
    all.push(raw.iter().map(|byte| format!("{byte:02x}")).collect());
    all.push(raw.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    all
}

/// What the unlock key opens in a manager's directory: the cluster's authority and the node's own
/// key, both in PEM.
fn opened(host: &Host, unlock: &str) -> [String; 2] {
    let copy = tempfile::tempdir().unwrap();
    let mut copied = std::process::Command::new("cp");
    copied.arg("-r").arg(&host.state).arg(copy.path());
    assert!(copied.status().unwrap().success());
    let state = copy.path().join(host.state.file_name().unwrap());
    let json =
        |name| -> Value { serde_json::from_slice(&fs::read(state.join(name)).unwrap()).unwrap() };
    let lock = json("unlock.json");
    let sealed = STANDARD.decode(lock["Sealed"].as_str().unwrap()).unwrap();
    let unlock = unlock.parse::<UnlockKey>().unwrap().seal_key().unwrap();
    let node = unlock.open(&format!("swarm unlock {}", lock["Revision"]), &sealed).unwrap();
    let node = SealKey::from_bytes(&node).unwrap();
    let key = fs::read(state.join("certificates/swarm-node.key")).unwrap();
    let key = node.open("swarm node key", &key[8..]).unwrap();
    let raft_id = json("swarm.json")["raft_id"].as_u64().unwrap();
    let mut config = RaftConfig::new(state.join("raft"), raft_id);
    config.seal = Some(node);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let root = runtime.block_on(async {
        let store = RaftStore::open(config, std::sync::Arc::new(NoPeers)).await.unwrap();
        let view = (&*store as &dyn Store).until(|view| view.cluster().is_some()).await;
        store.shutdown().await;
        view.cluster().unwrap().root_ca.key.clone().unwrap()
    });
    [root.expose(), key.as_slice()].map(|pem| String::from_utf8(pem.to_vec()).unwrap())
}

/// What the swarm's API answers, but for the two answers whose purpose is to show a secret.
fn answers(host: &Host) -> String {
    let paths = [
        "/info",
        "/version",
        "/nodes",
        "/services",
        "/tasks",
        "/secrets",
        "/secrets/bird",
        "/configs",
        "/networks",
        "/events?since=0&until=1",
        "/system/df",
        "/volumes",
    ];
    let mut all: String = paths.map(|path| host.call("GET", path, "").body).concat();
    let mut swarm = host.get("/swarm");
    assert!(swarm["JoinTokens"].take().is_object());
    all.push_str(&swarm.to_string());
    all
}

#[test]
fn a_locked_manager_has_no_key_plain_on_its_disk_in_its_log_or_in_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::new(dir.path(), "manager", "manager");
    host.env.push(("RUST_LOG", "trace".to_owned()));
    host.launch(&[]);
    until("the API answers", || host.try_get("/info"));
    let init = json!({ "ListenAddr": "0.0.0.0:2377", "AutoLockManagers": true });
    assert_eq!(host.call("POST", "/swarm/init", init).status, 200);
    let unlock_key =
        |host: &Host| host.get("/swarm/unlockkey")["UnlockKey"].as_str().unwrap().to_owned();
    let tokens = |host: &Host| {
        let tokens = host.get("/swarm")["JoinTokens"].clone();
        ["Worker", "Manager"].map(|role| tokens[role].as_str().unwrap()[60..].to_owned())
    };
    host.create("secrets", &json!({ "Name": "bird", "Data": IN_BASE64 }));
    let mut secrets = vec![unlock_key(&host)];
    let mut singers = forms(CANARY, IN_BASE64);
    singers.extend(tokens(&host));

    // Everything is replaced once, and the manager unlocked: with wrong keys first.
    let version = host.get("/swarm")["Version"]["Index"].clone();
    let rotate = "rotateManagerUnlockKey=true&rotateWorkerToken=true&rotateManagerToken=true";
    let spec = host.get("/swarm")["Spec"].clone();
    let before = fs::read(host.state.join("unlock.json")).unwrap();
    let rotated = host.call("POST", &format!("/swarm/update?version={version}&{rotate}"), spec);
    assert_eq!(rotated.status, 200, "{rotated:?}");
    secrets.push(unlock_key(&host));
    singers.extend(tokens(&host));
    until("the node follows", || {
        let now = fs::read(host.state.join("unlock.json")).unwrap();
        if now == before { Err(host.tail()) } else { Ok(()) }
    });
    let mut seen = answers(&host);
    host.kill();
    let keys = opened(&host, &secrets[1]);
    assert!(keys.iter().all(|key| key.starts_with("-----BEGIN PRIVATE KEY-----")), "true bytes");
    secrets.extend(keys);
    host.launch(&[]);
    until("the API answers", || host.try_get("/info"));
    for (key, status) in [(0, 401), (1, 200)] {
        let answer = host.call("POST", "/swarm/unlock", json!({ "UnlockKey": secrets[key] }));
        assert_eq!(answer.status, status, "{answer:?}");
        seen.push_str(&answer.body);
    }
    until("it leads", || host.try_get("/services"));
    seen.push_str(&answers(&host));
    host.kill();

    singers.extend(secrets.iter().flat_map(|secret| forms_of(secret)));
    assert_eq!(singing(dir.path(), &singers), [""; 0]);
    let told: Vec<_> = singers.iter().filter(|form| seen.contains(form.as_str())).collect();
    assert!(told.is_empty() && seen.contains("bird"), "an answer has {told:?}");
    // The scan finds each of them where it is.
    let planted = tempfile::tempdir().unwrap();
    for secret in &secrets {
        for form in [secret.clone(), STANDARD.encode(secret)] {
            fs::write(planted.path().join("planted"), format!("...{form}...")).unwrap();
            assert!(!singing(planted.path(), &singers).is_empty(), "planted and not found");
        }
    }
    host.assert_no_panic();
}
