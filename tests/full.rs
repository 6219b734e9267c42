//! A manager whose disk is full: it refuses writes in words, serves reads, loses nothing, and goes
//! on by itself once there is room. Needs root, to mount a small file system.

#[path = "support/machine.rs"]
mod machine;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use machine::{Answer, Host, sleeper, until};
use serde_json::json;

/// A file system in memory, unmounted at the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "swarm-test"]).arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.to_owned()))
    }

    /// Fills it to the last byte with a file that is returned.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn create_secret(manager: &Host, name: &str) -> Answer {
    // As large as a secret may be, so that the reserve is used up soon.
    let data = "QUFB".repeat(500 * 1000 / 3);
    manager.call("POST", "/secrets/create", json!({ "Name": name, "Data": data }))
}

/// Creates secrets until one is refused: how many were not, and the refusal.
fn fill_up(manager: &Host, kind: &str) -> (Vec<String>, Answer) {
    let mut made = Vec::new();
    for index in 0..100 {
        let answer = create_secret(manager, &format!("{kind}{index}"));
        if answer.status != 201 {
            return (made, answer);
        }
        made.push(machine::id_of(&answer));
    }
    panic!("{} secrets of 500 kB fit on a full disk", made.len());
}

fn assert_there(manager: &Host, secrets: &[String]) {
    for id in secrets {
        assert_eq!(manager.call("GET", &format!("/secrets/{id}"), "").status, 200, "{id}");
    }
}

/// Waits until a secret can be created; its id.
fn writes_go_on(manager: &Host, name: &str) -> String {
    let mut attempt = 0;
    until("writes go on", || {
        // A name of its own for each: one that was not confirmed may exist all the same.
        attempt += 1;
        let answer = create_secret(manager, &format!("{name}{attempt}"));
        if answer.status == 201 { Ok(machine::id_of(&answer)) } else { Err(format!("{answer:?}")) }
    })
}

#[test]
fn a_full_disk_refuses_writes_in_words_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Tmpfs::mount(&dir.path().join("manager")) else {
        println!("skipped: a full disk needs root, to mount a tmpfs");
        return;
    };
    let mut manager = Host::new(dir.path(), "manager", "manager");
    manager.start(&["--init"]);
    manager.create("services", &sleeper("steady", 2));
    let steady = manager.running("steady", 2);

    let ballast = disk.fill();
    let (mut made, refused) = fill_up(&manager, "a");
    println!("{} more, then: {refused:?}", made.len());
    assert_eq!(refused.status, 503, "{refused:?}");
    let message = refused.message();
    assert!(message.contains("disk") || message.contains("space"), "{message}");
    assert_there(&manager, &made);
    assert_eq!(manager.running("steady", 2), steady, "tasks go on");

    fs::remove_file(&ballast).unwrap();
    made.push(writes_go_on(&manager, "one"));
    let ballast = disk.fill();

    // A restart needs room. Until there is, the node says so and erases nothing.
    manager.kill();
    manager.launch(&[]);
    until("the node says what is wrong", || {
        let swarm = &manager.try_get("/info")?["Swarm"];
        let error = swarm["Error"].as_str().unwrap_or_default();
        if error.contains("No space left") { Ok(()) } else { Err(swarm.to_string()) }
    });
    let refused = manager.call("GET", "/services", "");
    assert_eq!(refused.status, 503);
    assert!(refused.message().contains("No space left"), "{refused:?}");
    for erasing in ["/swarm/init", "/swarm/leave"] {
        let refused = manager.call("POST", erasing, "{}");
        assert_eq!(refused.status, 503, "{erasing} would erase the swarm: {refused:?}");
    }
    assert!(steady.iter().all(|task| machine::is_alive(task.pid)), "tasks go on");

    fs::remove_file(ballast).unwrap();
    made.push(writes_go_on(&manager, "two"));
    assert_there(&manager, &made);
    assert_eq!(manager.running("steady", 2), steady, "the same tasks in the same processes");
    manager.create("services", &sleeper("new", 1));
    manager.running("new", 1);
    manager.kill();
    manager.start(&[]);
    assert_there(&manager, &made);
    assert_eq!(manager.running("steady", 2), steady);
    manager.assert_no_panic();
}
