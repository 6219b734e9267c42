//! A manager is backed up while it works, lost with everything it had, and restored elsewhere from that one
//! file: every object is there, and the nodes go on with their tasks.

#[path = "support/machine.rs"]
mod machine;

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use machine::{Host, Swarm, exchange, request, sleeper, until};
use serde_json::{Value, json};

const TAKE: &[u8] = b"POST /x-swarm/backup HTTP/1.0\r\nHost: swarm\r\nContent-Length: 0\r\n\r\n";

/// Backs a manager up, as an operator does with curl.
fn back_up(manager: &Host, dir: &Path) -> PathBuf {
    let answer = exchange(&manager.socket, TAKE).unwrap();
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&answer[..body]);
    assert!(head.contains(" 200 OK"), "{}", String::from_utf8_lossy(&answer));
    let file = dir.join("backup");
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    created.unwrap().write_all(&answer[body..]).unwrap();
    file
}

/// What clients see of the cluster, without what its nodes report of themselves.
fn objects(host: &Host) -> Vec<Value> {
    let kept = |path: &str| -> Vec<Value> {
        host.get(path).as_array().unwrap().iter().map(|object| object["ID"].clone()).collect()
    };
    let mut objects: Vec<Value> = ["secrets", "configs", "services", "networks"]
        .iter()
        .flat_map(|kind| host.get(&format!("/{kind}")).as_array().unwrap().clone())
        .filter(|object| !object["Spec"]["Name"].as_str().unwrap_or("").starts_with("later"))
        .collect();
    objects.sort_by_key(|object| object.to_string());
    let swarm = host.get("/swarm");
    assert!(!kept("/nodes").is_empty());
    for member in ["ID", "CreatedAt", "Spec", "JoinTokens", "TLSInfo", "DefaultAddrPool"] {
        objects.push(swarm[member].clone());
    }
    objects
}

/// A task that holds a secret and a config, and says what is in the secret.
fn holder(manager: &Host) -> Value {
    let secret = manager.create("secrets", &json!({ "Name": "bird", "Data": "dHdlZXQ=" }));
    let config = manager.create("configs", &json!({ "Name": "nest", "Data": "dHdpZ3M=" }));
    manager.create("networks", &json!({ "Name": "sky", "Driver": "overlay" }));
    let file = json!({ "Name": "file", "UID": "0", "GID": "0", "Mode": 0o400 });
    let mut service = sleeper("holder", 1);
    let container = &mut service["TaskTemplate"]["ContainerSpec"];
    container["Labels"] = json!({ "kept": "as it is" });
    container["Secrets"] = json!([{ "SecretID": secret, "SecretName": "bird", "File": file }]);
    let file = json!({ "Name": "config", "UID": "0", "GID": "0", "Mode": 0o400 });
    container["Configs"] = json!([{ "ConfigID": config, "ConfigName": "nest", "File": file }]);
    service["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.hostname==w1"] });
    service
}

/// Whether the secret's bytes are with the node's tasks.
fn holds_the_secret(host: &Host) -> bool {
    fn any(dir: &Path) -> bool {
        fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
            let path = entry.path();
            if path.is_dir() { any(&path) } else { fs::read(path).is_ok_and(|is| is == b"tweet") }
        })
    }
    any(&Path::new("/dev/shm").join(format!("swarm-{}", host.node_id().unwrap())))
}

#[test]
fn a_manager_that_was_lost_comes_back_elsewhere_from_one_file_with_every_object_and_task() {
    let mut swarm = Swarm::start(&["w1"]);
    let service = holder(&swarm.manager);
    swarm.manager.create("services", &service);
    let tasks = swarm.manager.running("holder", 1);
    let (before, done) = (objects(&swarm.manager), AtomicBool::new(false));
    let file = std::thread::scope(|scope| {
        let socket = &swarm.manager.socket;
        let writing = scope.spawn(|| {
            let mut written = 0;
            while !done.load(Ordering::Relaxed) {
                let body = sleeper(&format!("later{written}"), 0).to_string();
                let answer = request(socket, "POST", "/services/create", &body).unwrap();
                assert_eq!(answer.status, 201, "{answer:?}");
                written += 1;
            }
            written
        });
        let file = back_up(&swarm.manager, swarm.dir.path());
        done.store(true, Ordering::Relaxed);
        assert!(writing.join().unwrap() > 0, "writes went on");
        file
    });
    swarm.manager.kill();
    let former = swarm.manager.state.with_file_name("former");
    fs::rename(&swarm.manager.state, &former).unwrap();

    // On another machine, at another address.
    let mut restored = Host::new(swarm.dir.path(), "manager", "restored");
    assert_ne!(restored.address, swarm.manager.address);
    restored.start(&["--restore", file.to_str().unwrap()]);
    assert_eq!(objects(&restored), before);
    let told = json!({ "RemoteAddrs": [restored.address] });
    let answer = swarm.workers[0].call("POST", "/x-swarm/managers", told);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(restored.running("holder", 1), tasks, "the same task, in the same process");

    // It is a cluster like any other, and has what no answer shows.
    let mut again = service.clone();
    again["Name"] = json!("again");
    restored.create("services", &again);
    restored.running("again", 1);
    assert!(holds_the_secret(&swarm.workers[0]));
    restored.kill();
    restored.start(&["--restore", file.to_str().unwrap()]);
    assert_eq!(restored.running("holder", 1), tasks, "who is a member is not restored again");

    // The directory that was believed to be lost turns up: its group was given up.
    fs::rename(&former, &swarm.manager.state).unwrap();
    swarm.manager.start(&[]);
    let told = json!({ "RemoteAddrs": [swarm.manager.address] });
    assert_eq!(swarm.workers[0].call("POST", "/x-swarm/managers", told).status, 200);
    swarm.workers[0].kill();
    swarm.workers[0].start(&[]);
    until("the worker is with the restored one", || {
        let nodes = restored.try_get("/nodes")?;
        let ready = |node: &Value| {
            node["Description"]["Hostname"] == "w1" && node["Status"]["State"] == "ready"
        };
        let found = nodes.as_array().into_iter().flatten().any(ready);
        if found { Ok(()) } else { Err(format!("{nodes}; {}", swarm.workers[0].tail())) }
    });
    assert_eq!(restored.running("holder", 1), tasks);
    for host in [&swarm.manager, &swarm.workers[0], &restored] {
        host.assert_no_panic();
    }
}

#[test]
fn a_backup_of_a_locked_swarm_opens_with_its_unlock_key_alone_and_a_damaged_one_not_at_all() {
    let swarm = Swarm::start(&[]);
    let manager = &swarm.manager;
    let mut cluster = manager.get("/swarm");
    cluster["Spec"]["EncryptionConfig"] = json!({ "AutoLockManagers": true });
    let version = cluster["Version"]["Index"].as_u64().unwrap();
    let path = format!("/swarm/update?version={version}");
    assert_eq!(manager.call("POST", &path, &cluster["Spec"]).status, 200);
    let key = manager.get("/swarm/unlockkey")["UnlockKey"].as_str().unwrap().to_owned();
    manager.create("services", &sleeper("kept", 0));
    let file = back_up(manager, swarm.dir.path());

    let key_file = swarm.dir.path().join("key");
    fs::write(&key_file, format!("{key}\n")).unwrap();
    let cut_off = swarm.dir.path().join("cut off");
    let bytes = fs::read(&file).unwrap();
    fs::write(&cut_off, &bytes[..bytes.len() - 100]).unwrap();
    let other = swarm.dir.path().join("other key");
    fs::write(&other, "SWMKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").unwrap();
    let flags = |file: &Path, key: &Path| {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        ["--restore".into(), text(file), "--unlock-key-file".into(), text(key)]
    };
    let mut restored = Host::new(swarm.dir.path(), "manager", "restored");
    for (file, key, why) in [
        (&file, &other, "it does not open with this unlock key"),
        (&cut_off, &key_file, "is damaged"),
    ] {
        restored.launch(&flags(file, key).each_ref().map(String::as_str));
        until("it refuses", || match restored.lives() {
            true => Err(restored.tail()),
            false => Ok(()),
        });
        assert!(restored.tail().contains(why), "{why}: {}", restored.tail());
        restored.kill();
    }
    restored.start(&flags(&file, &key_file).each_ref().map(String::as_str));
    restored.get("/services/kept");
    let private = fs::metadata(restored.state.join("swarm.json")).unwrap().permissions();
    assert_eq!(private.mode() & 0o777, Permissions::from_mode(0o600).mode());

    // It is locked as the one before it was.
    restored.kill();
    restored.launch(&[]);
    until("it is locked", || match &restored.try_get("/info")?["Swarm"]["LocalNodeState"] {
        state if state == "locked" => Ok(()),
        state => Err(state.to_string()),
    });
    let unlocked = restored.call("POST", "/swarm/unlock", json!({ "UnlockKey": key }));
    assert_eq!(unlocked.status, 200, "{unlocked:?}");
    until("it leads", || restored.try_get("/services/kept").map(drop));
    restored.assert_no_panic();
}
