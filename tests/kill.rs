//! A manager that is killed at any moment: what it acknowledged is there afterwards, and what ran
//! still runs.

#[path = "support/machine.rs"]
mod machine;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use machine::{Answer, Swarm, Task, gone, id_of, request, sleeper};
use serde_json::{Value, json};

const ROUNDS: u64 = 10;

/// What clients were told. Whatever was not answered may have happened or not.
#[derive(Default)]
struct Told {
    /// Objects that were created: the path to read each of them.
    created: Vec<String>,
    /// Objects that were removed.
    removed: Vec<String>,
    /// The greatest version seen, by path.
    versions: BTreeMap<String, u64>,
    /// The last count that was written to the counter's label.
    count: u64,
}

/// Clients that write until they are told to stop, whatever answers.
struct Clients<'a> {
    socket: &'a Path,
    told: &'a Mutex<Told>,
    stop: &'a AtomicBool,
}

impl Clients<'_> {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Option<Answer> {
        let answer = request(self.socket, method, path, &body.to_string()).ok()?;
        assert!(answer.status < 400 || answer.status >= 500, "{method} {path}: {answer:?}");
        (answer.status < 300).then_some(answer)
    }

    fn work(&self, round: u64, client: u64) {
        for step in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let name = format!("o{round}-{client}-{step}");
            match client {
                0 => self.create("services", &name, &sleeper(&name, 0)),
                1 => self.create_and_remove(&name),
                _ => self.count(),
            }
        }
    }

    fn create(&self, kind: &str, name: &str, body: &Value) {
        if let Some(answer) = self.call("POST", &format!("/{kind}/create"), body) {
            self.told().created.push(format!("/{kind}/{}", id_of(&answer)));
        } else if !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
            println!("{name} was not answered");
        }
    }

    fn create_and_remove(&self, name: &str) {
        let secret = |name: &str| json!({ "Name": name, "Data": "c2VjcmV0" });
        self.create("secrets", name, &secret(name));
        let doomed = format!("{name}-x");
        let Some(made) = self.call("POST", "/secrets/create", &secret(&doomed)) else { return };
        let path = format!("/secrets/{}", id_of(&made));
        if self.call("DELETE", &path, &Value::Null).is_some() {
            self.told().removed.push(path);
        }
    }

    /// Adds one to a label: read, then write with the version that was read.
    fn count(&self) {
        let Some(read) = self.call("GET", "/services/counter", &Value::Null) else { return };
        let mut service = read.json();
        let version = service["Version"]["Index"].as_u64().unwrap();
        {
            let mut told = self.told();
            let seen = told.versions.entry("/services/counter".to_owned()).or_default();
            assert!(version >= *seen, "version {version} after {seen}");
            *seen = version;
        }
        let next = counted(&service) + 1;
        service["Spec"]["Labels"] = json!({ "count": next.to_string() });
        let path = format!("/services/counter/update?version={version}");
        if self.call("POST", &path, &service["Spec"]).is_some() {
            self.told().count = next;
        }
    }
}

fn counted(service: &Value) -> u64 {
    service["Spec"]["Labels"]["count"].as_str().map_or(0, |count| count.parse().unwrap())
}

/// The next of a row of numbers that the seed decides (splitmix64).
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn what_a_killed_manager_acknowledged_is_there_and_what_ran_still_runs() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let given = std::env::var("SWARM_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut seed: u64 = given.unwrap_or_else(|| now().into());
    println!("SWARM_SEED={seed}");

    let mut swarm = Swarm::start(&[]);
    swarm.manager.create("services", &sleeper("steady", 3));
    swarm.manager.create("services", &sleeper("counter", 0));
    let before = swarm.manager.running("steady", 3);
    let told = Mutex::new(Told::default());
    for round in 0..ROUNDS {
        let stop = AtomicBool::new(false);
        let socket = swarm.manager.socket.clone();
        let clients = Clients { socket: &socket, told: &told, stop: &stop };
        std::thread::scope(|scope| {
            for client in 0..3 {
                let clients = &clients;
                scope.spawn(move || clients.work(round, client));
            }
            std::thread::sleep(Duration::from_millis(next(&mut seed) % 700));
            swarm.manager.kill();
            stop.store(true, Ordering::Relaxed);
        });
        swarm.manager.start(&[]);
        check(&swarm, &mut told.lock().unwrap(), &before);
    }
    let told = told.into_inner().unwrap();
    println!(
        "{} created, {} removed, {} counted",
        told.created.len(),
        told.removed.len(),
        told.count
    );
    assert!(told.created.len() > 50 && told.removed.len() > 10 && told.count > 10, "too little");
    takes_part_again(&swarm, &before);
    swarm.manager.assert_no_panic();
}

/// Everything that was acknowledged is there, and the same processes run.
fn check(swarm: &Swarm, told: &mut Told, before: &[Task]) {
    let manager = &swarm.manager;
    for path in &told.created {
        let index = manager.get(path)["Version"]["Index"].as_u64().unwrap();
        let seen = told.versions.entry(path.clone()).or_insert(index);
        assert!(index >= *seen, "{path}: version {index} after {seen}");
    }
    for path in &told.removed {
        assert_eq!(manager.call("GET", path, "").status, 404, "{path} was removed");
    }
    let counter = manager.get("/services/counter");
    let count = counted(&counter);
    assert!(count == told.count || count == told.count + 1, "{count} after {}", told.count);
    assert!(
        counter["Version"]["Index"].as_u64() >= told.versions.get("/services/counter").copied()
    );
    told.count = count;
    swarm.nodes_are("ready", 1);
    assert_eq!(manager.running("steady", 3), before, "the same tasks in the same processes");
}

/// The agent watches the old processes: one that dies is replaced, and all can be stopped.
fn takes_part_again(swarm: &Swarm, before: &[Task]) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(before[0].pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let replaced = machine::until("the killed task is replaced", || {
        let tasks = swarm.manager.tasks("steady")?;
        let new = tasks.len() == 3 && !tasks.contains(&before[0]);
        if new { Ok(tasks) } else { Err(format!("{tasks:?}")) }
    });
    assert!(before[1..].iter().all(|task| replaced.contains(task)), "the others stay");
    assert_eq!(swarm.manager.call("DELETE", "/services/steady", "").status, 200);
    replaced.iter().chain(before).for_each(|task| gone(task.pid));
}
