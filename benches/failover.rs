//! How long a cluster of three managers takes no writes when its leader goes: killed, and stopped on
//! purpose. Real processes on one machine, mutual TLS, logs on disk; a client writes through the managers
//! that are left.
//!
//! ```text
//! cargo build --release --example manager
//! cargo bench --bench failover              # 100 of each; or: -- 10
//! ```

#[path = "../tests/support/machine.rs"]
mod machine;

use std::time::{Duration, Instant};

use machine::{Host, Task, leader, request, sleeper, start_managers, until};
use rustix::process::Signal;
use serde_json::Value;

const NAMES: [&str; 3] = ["m1", "m2", "m3"];

fn main() {
    let count = std::env::args().filter_map(|argument| argument.parse().ok()).next();
    let count: usize = count.unwrap_or(100);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut managers =
        start_managers(NAMES.map(|name| Host::new(dir.path(), "manager", name)).into());
    managers[0].create("services", &sleeper("kept", 3));
    let kept = managers[0].running("kept", 3);
    println!(
        "{count} of each, from the signal to the first write that another manager acknowledged"
    );
    let mut number = 0;
    for (what, signal) in [("killed", Signal::KILL), ("stopped", Signal::TERM)] {
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..count {
            number += 1;
            times.push(lose_leader(&mut managers, signal, number));
        }
        times.sort();
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
        println!(
            "{what:8} p50 {:?}, p90 {:?}, p99 {:?}, most {:?}",
            at(50),
            at(90),
            at(99),
            at(100)
        );
    }
    check(&managers, &kept);
    println!("no node was taken for down, and no task was replaced");
}

fn lose_leader(managers: &mut [Host], signal: Signal, number: usize) -> Duration {
    let lost = leader(managers);
    let other = (lost + 1) % managers.len();
    // A name for each attempt: one that was not answered may have been written.
    let mut attempts = 0;
    let began = Instant::now();
    managers[lost].signal(signal);
    until("a write", || {
        attempts += 1;
        let body = sleeper(&format!("s{number}-{attempts}"), 0).to_string();
        let answer = request(&managers[other].socket, "POST", "/services/create", &body);
        match answer.map_err(|error| error.to_string())? {
            answer if answer.status == 201 => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    });
    let took = began.elapsed();
    if signal == Signal::TERM {
        until("it stops", || if managers[lost].lives() { Err("it lives".into()) } else { Ok(()) });
    }
    managers[lost].kill();
    managers[lost].start(&[]);
    took
}

fn check(managers: &[Host], kept: &[Task]) {
    leader(managers);
    assert_eq!(managers[0].running("kept", kept.len()), kept, "a task was replaced");
    for manager in managers {
        let log = std::fs::read_to_string(&manager.log).expect("it has a log");
        assert!(!log.contains("silent for too long"), "{} took a node for down", manager.name);
    }
    let nodes = managers[0].get("/nodes");
    let ready = |node: &&Value| node["Status"]["State"] == "ready";
    assert_eq!(nodes.as_array().unwrap().iter().filter(ready).count(), managers.len());
}
