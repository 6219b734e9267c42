//! Managers and workers that lose each other: tasks go on, and both sides agree again afterwards.

#[path = "support/machine.rs"]
mod machine;

use std::time::Duration;

use machine::{Swarm, Task, gone, is_alive, sleeper, until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Sleepers that run on workers alone.
fn on_workers(name: &str, replicas: u64) -> Value {
    let mut service = sleeper(name, replicas);
    service["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.role==worker"] });
    service
}

fn alive(tasks: &[Task]) -> bool {
    tasks.iter().all(|task| is_alive(task.pid))
}

#[test]
fn tasks_go_on_while_their_manager_is_gone_and_follow_it_when_it_is_back() {
    let mut swarm = Swarm::start(&["worker1"]);
    swarm.manager.create("services", &on_workers("kept", 1));
    swarm.manager.create("services", &on_workers("doomed", 2));
    let kept = swarm.manager.running("kept", 1);
    let doomed = swarm.manager.running("doomed", 2);
    swarm.manager.kill();
    until("the worker notices", || match swarm.workers[0].tail().contains("session") {
        true => Ok(()),
        false => Err(swarm.workers[0].tail()),
    });
    assert!(alive(&kept) && alive(&doomed), "tasks run without a manager");
    swarm.manager.start(&[]);
    assert_eq!(swarm.manager.call("DELETE", "/services/doomed", "").status, 200);
    doomed.iter().for_each(|task| gone(task.pid));
    assert_eq!(swarm.manager.running("kept", 1), kept, "nothing else was touched");
    swarm.manager.create("services", &on_workers("new", 1));
    swarm.manager.running("new", 1);
    swarm.manager.assert_no_panic();
    swarm.workers[0].assert_no_panic();
}

#[test]
fn a_manager_that_was_paused_takes_no_healthy_node_for_dead() {
    let heartbeat = Duration::from_millis(500);
    let mut swarm = Swarm::start(&["worker1"]);
    swarm.manager.create("services", &on_workers("kept", 2));
    swarm.set_heartbeat(heartbeat);
    swarm.manager.running("kept", 2);
    // Every patience is a short one from here on.
    swarm.manager.kill();
    swarm.manager.start(&[]);
    let kept = swarm.manager.running("kept", 2);
    for _ in 0..3 {
        swarm.manager.signal(Signal::STOP);
        // Longer than the patience with a silent node; nothing can be polled meanwhile.
        std::thread::sleep(10 * heartbeat);
        assert!(alive(&kept), "tasks run while the manager does not");
        swarm.manager.signal(Signal::CONT);
        swarm.nodes_are("ready", 2);
        assert_eq!(swarm.manager.running("kept", 2), kept, "no task was replaced");
    }
    assert!(swarm.manager.tail().contains("was paused"), "{}", swarm.manager.tail());
    assert!(!swarm.manager.tail().contains("silent for too long"), "{}", swarm.manager.tail());
    assert_eq!(swarm.manager.call("DELETE", "/services/kept", "").status, 200);
    kept.iter().for_each(|task| gone(task.pid));
    swarm.manager.assert_no_panic();
}

#[test]
fn a_killed_worker_takes_the_same_processes_up_again() {
    let mut swarm = Swarm::start(&["worker1"]);
    swarm.manager.create("services", &on_workers("kept", 2));
    let kept = swarm.manager.running("kept", 2);
    swarm.workers[0].kill();
    assert!(alive(&kept), "tasks outlive their agent");
    swarm.workers[0].start(&[]);
    // Only an agent that is in session again starts a new task on its node.
    swarm.manager.create("services", &on_workers("new", 1));
    swarm.manager.running("new", 1);
    assert_eq!(swarm.manager.running("kept", 2), kept, "the same tasks in the same processes");
    assert_eq!(swarm.manager.call("DELETE", "/services/kept", "").status, 200);
    kept.iter().for_each(|task| gone(task.pid));
    swarm.workers[0].assert_no_panic();
}

#[test]
fn tasks_of_a_lost_worker_move_and_its_strays_end_when_it_returns() {
    let mut swarm = Swarm::start(&["worker1", "worker2"]);
    swarm.set_heartbeat(Duration::from_millis(500));
    swarm.manager.create("services", &on_workers("web", 2));
    let before = swarm.manager.running("web", 2);
    let lost = swarm.workers[0].node_id().unwrap();
    let (strays, rest): (Vec<_>, Vec<_>) = before.into_iter().partition(|t| t.node == lost);
    assert_eq!((strays.len(), rest.len()), (1, 1), "tasks are spread");

    swarm.workers[0].kill();
    swarm.nodes_are("down", 1);
    let moved = until("the lost task runs elsewhere", || {
        let tasks = swarm.manager.tasks("web")?;
        let elsewhere = tasks.len() == 2 && tasks.iter().all(|task| task.node != lost);
        if elsewhere { Ok(tasks) } else { Err(format!("{tasks:?}")) }
    });
    assert!(moved.contains(&rest[0]), "what ran well was left alone");
    assert!(alive(&strays), "nobody was there to stop it");

    swarm.workers[0].start(&[]);
    swarm.nodes_are("ready", 3);
    strays.iter().for_each(|task| gone(task.pid));
    assert_eq!(swarm.manager.running("web", 2), moved, "its return moved nothing back");
    swarm.manager.assert_no_panic();
    swarm.workers.iter().for_each(machine::Host::assert_no_panic);
}
