//! Autolock, with the docker CLI and real processes: a manager restarts locked, answers nothing of
//! the swarm, and is unlocked; keys are rotated, autolock comes and goes.

#[path = "support/machine.rs"]
mod machine;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use machine::{Host, gone, sleeper, until};

const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";

/// The CLI, pointed at one node.
struct Cli<'a>(&'a Host);

impl Cli<'_> {
    fn run(&self, words: &str, input: &str) -> Output {
        let mut docker = Command::new("docker");
        docker
            .args(words.split(' '))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("DOCKER_CONFIG", self.0.state.parent().unwrap())
            .env("DOCKER_HOST", format!("unix://{}", self.0.socket.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = docker.spawn().expect("docker starts");
        child.stdin.take().unwrap().write_all(input.as_bytes()).expect("docker reads");
        child.wait_with_output().expect("docker ends")
    }

    fn ok(&self, words: &str) -> String {
        let ran = self.run(words, "");
        let (out, err) =
            (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "docker {words}: {out}{err}; log: {}", self.0.tail());
        out.into_owned()
    }

    fn fails(&self, words: &str, input: &str, with: &str) {
        let ran = self.run(words, input);
        let err = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "docker {words}: {ran:?}");
        assert!(err.contains(with), "docker {words}: {with:?} is not in {err:?}");
    }

    fn unlock(&self, key: &str) {
        let ran = self.run("swarm unlock", &format!("{key}\n"));
        assert!(ran.status.success(), "unlock: {ran:?}; log: {}", self.0.tail());
    }

    fn key(&self) -> String {
        let key = self.ok("swarm unlock-key -q").trim().to_owned();
        assert!(key.starts_with("SWMKEY-1-"), "{key:?}");
        key
    }

    fn state(&self) -> String {
        self.ok("info --format {{.Swarm.LocalNodeState}}").trim().to_owned()
    }
}

/// Kills the process and starts it again; it has a place in a swarm or waits for its key.
fn restart(host: &mut Host) -> String {
    host.kill();
    host.launch(&[]);
    until("the node says what it is", || {
        match host.try_get("/info")?["Swarm"]["LocalNodeState"].as_str() {
            Some(state) if state != "inactive" => Ok(state.to_owned()),
            other => Err(format!("{other:?}; log: {}", host.tail())),
        }
    })
}

/// Waits until the lock's file is another one than before.
fn changed(host: &Host, before: &[u8]) -> Vec<u8> {
    until("the node's lock is changed", || {
        let now = fs::read(host.state.join("unlock.json")).unwrap_or_default();
        if now == before { Err(host.tail()) } else { Ok(now) }
    })
}

/// Whether a certificate's key lies plain in the state directory.
fn key_is_plain(host: &Host) -> bool {
    let key = fs::read(host.state.join("certificates/swarm-node.key")).unwrap();
    key.starts_with(b"-----BEGIN PRIVATE KEY-----")
}

/// Which of these, and what is directly below them, others than the owner can look into.
fn open_files(state: &Path, names: &[&str]) -> Vec<PathBuf> {
    let roots = names.iter().map(|name| state.join(name));
    let all = roots.flat_map(|root| {
        let below = fs::read_dir(&root).into_iter().flatten().map(|entry| entry.unwrap().path());
        below.filter(|path| !path.ends_with("executor")).chain([root.clone()]).collect::<Vec<_>>()
    });
    all.filter(|path| fs::metadata(path).unwrap().permissions().mode() & 0o077 != 0).collect()
}

fn has_cli() -> bool {
    let found = Command::new("docker").arg("--version").output().is_ok();
    if !found {
        println!("skipped: no docker CLI on this machine");
    }
    found
}

fn node(dir: &Path) -> Host {
    let host = Host::new(dir, "manager", "manager");
    assert!(!host.state.exists());
    host
}

#[test]
fn a_manager_of_a_locked_swarm_restarts_locked_and_is_unlocked_with_its_tasks() {
    if !has_cli() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut host = node(dir.path());
    // Inherited by the manager, which must keep its files to itself nevertheless.
    let before = rustix::process::umask(rustix::fs::Mode::empty());
    host.launch(&[]);
    rustix::process::umask(before);
    until("the API answers", || host.try_get("/info"));
    let init = Cli(&host).ok("swarm init --autolock");
    let key = Cli(&host).key();
    assert!(init.contains("To unlock a swarm manager after it restarts") && init.contains(&key));
    assert!(!key_is_plain(&host), "not even for a moment");
    let names = ["unlock.json", "swarm.json", "certificates", "raft", "tasks", ""];
    assert_eq!(open_files(&host.state, &names), Vec::<PathBuf>::new());
    host.create("services", &sleeper("steady", 2));
    let tasks = host.running("steady", 2);

    assert_eq!(restart(&mut host), "locked");
    let cli = Cli(&host);
    assert!(cli.ok("info").contains("Swarm: locked"));
    assert_eq!(cli.ok("info --format {{.Swarm.Error}}").trim(), LOCKED);
    cli.ok("version");
    assert_eq!(host.call("GET", "/_ping", "").status, 200);
    for words in [
        "node ls",
        "service ls",
        "secret ls",
        "swarm unlock-key",
        "swarm update --autolock=false",
        "stack ls",
    ] {
        cli.fails(words, "", LOCKED);
    }
    cli.fails("swarm init", "", "This node is already part of a swarm.");
    cli.fails("swarm leave", "", "Swarm is encrypted and locked. Please unlock it first or use");
    cli.fails("swarm unlock", "nonsense\n", "invalid key string");
    let wrong = "SWMKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";
    cli.fails("swarm unlock", wrong, "swarm could not be unlocked: invalid key provided");
    let answer = |key: &str| {
        let body = format!(r#"{{"UnlockKey":"{key}"}}"#);
        host.call("POST", "/swarm/unlock", body).status
    };
    assert_eq!((answer(wrong.trim()), answer("x"), cli.state().as_str()), (401, 400, "locked"));

    cli.unlock(&key);
    assert_eq!(cli.state(), "active");
    cli.fails("swarm unlock", &key, "swarm is not locked");
    assert_eq!(answer(&key), 409);
    assert_eq!(host.running("steady", 2), tasks, "the same tasks in the same processes");
    assert_eq!(Cli(&host).key(), key);

    assert_eq!(restart(&mut host), "locked");
    assert_eq!(Cli(&host).ok("swarm leave --force").trim(), "Node left the swarm.");
    assert_eq!(Cli(&host).state(), "inactive");
    for name in ["unlock.json", "swarm.json", "raft", "certificates"] {
        assert!(!host.state.join(name).exists(), "{name} is left");
    }
    assert!(Cli(&host).ok("swarm init").contains("Swarm initialized"));
    tasks.iter().for_each(|task| gone(task.pid));
    host.assert_no_panic();
}

#[test]
fn autolock_comes_and_goes_and_the_old_key_opens_until_the_new_one_does() {
    if !has_cli() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut host = node(dir.path());
    host.start(&["--init"]);
    assert!(key_is_plain(&host));
    let plain = fs::read(host.state.join("raft/key")).unwrap();
    assert!(Cli(&host).ok("swarm update --autolock=true").contains("SWMKEY-1-"));
    let first = Cli(&host).key();
    let file = changed(&host, b"");
    until("the keys on disk are sealed", || match key_is_plain(&host) {
        true => Err(host.tail()),
        false => Ok(()),
    });
    until("the data key is another one", || {
        let key = fs::read(host.state.join("raft/key")).unwrap();
        if key == plain { Err(host.tail()) } else { Ok(()) }
    });
    assert_eq!(restart(&mut host), "locked");
    Cli(&host).unlock(&first);

    until("it leads", || host.try_get("/services"));
    let second = until("a leader rotates the key", || {
        let ran = Cli(&host).run("swarm unlock-key --rotate -q", "");
        let text = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
        if ran.status.success() { Ok(text) } else { Err(format!("{ran:?}")) }
    });
    assert_ne!(first, second);
    changed(&host, &file);
    assert_eq!(restart(&mut host), "locked");
    Cli(&host).fails("swarm unlock", &first, "invalid key provided");
    Cli(&host).unlock(&second);
    until("it leads", || host.try_get("/services"));

    Cli(&host).ok("swarm update --autolock=false");
    until("the keys on disk are plain", || match key_is_plain(&host) {
        true => Ok(()),
        false => Err(host.tail()),
    });
    until("the lock is open", || {
        let file = fs::read_to_string(host.state.join("unlock.json")).unwrap();
        if file.contains("null") { Ok(()) } else { Err(file) }
    });
    assert_eq!(restart(&mut host), "active");
    host.assert_no_panic();
}

#[test]
fn a_manager_that_was_down_during_a_rotation_needs_the_old_key_and_learns_the_new_one() {
    if !has_cli() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut first = Host::new(dir.path(), "manager", "first");
    first.start(&["--init"]);
    let token = first.get("/swarm")["JoinTokens"]["Manager"].as_str().unwrap().to_owned();
    let join = ["--join", &format!("{}:2377", first.address), "--token", &token];
    let [mut second, mut third] = ["second", "third"].map(|name| {
        let mut host = Host::new(dir.path(), "manager", name);
        host.start(&join);
        host
    });
    Cli(&first).ok("swarm update --autolock=true");
    let old = Cli(&first).key();
    for host in [&first, &second, &third] {
        until("every manager is locked", || match key_is_plain(host) {
            true => Err(host.tail()),
            false => Ok(()),
        });
    }
    assert_eq!(Cli(&third).key(), old, "any manager shows it");
    third.kill();

    let before = [&first, &second].map(|host| fs::read(host.state.join("unlock.json")).unwrap());
    let new = Cli(&first).ok("swarm unlock-key --rotate -q").trim().to_owned();
    changed(&first, &before[0]);
    changed(&second, &before[1]);
    let stale = fs::read(third.state.join("unlock.json")).unwrap();
    assert_eq!(restart(&mut third), "locked");
    Cli(&third).fails("swarm unlock", &new, "invalid key provided");
    Cli(&third).unlock(&old);
    changed(&third, &stale);
    assert_eq!(restart(&mut third), "locked");
    Cli(&third).fails("swarm unlock", &old, "invalid key provided");
    Cli(&third).unlock(&new);
    until("the manager is back", || third.try_get("/services"));

    // A worker is not locked; a node that becomes a manager is.
    Cli(&first).ok("node demote third");
    until("the worker's keys are plain", || {
        match key_is_plain(&third) && !third.state.join("unlock.json").exists() {
            true => Ok(()),
            false => Err(third.tail()),
        }
    });
    assert_eq!(restart(&mut third), "active");
    Cli(&first).ok("node promote third");
    until("the manager is locked", || {
        match third.state.join("unlock.json").exists() && !key_is_plain(&third) {
            true => Ok(()),
            false => Err(third.tail()),
        }
    });
    assert_eq!(restart(&mut second), "locked");
    Cli(&second).unlock(&new);
    [&first, &second, &third].into_iter().for_each(Host::assert_no_panic);
}
