//! What goes wrong in what is remembered of the nodes is noticed, in whichever structure it does.

use std::sync::Arc;

use swarm_core::control::Ctx;
use swarm_core::model::{Task, TaskState};
use swarm_core::scheduler::PlacementView;
use swarm_core::store::{Change, Epoch};

use super::{Loads, NodeLoad, Overcommit, ServiceLoad, Snapshot, Timestamp};
use crate::place::check::Checks;
use crate::place::scheduler::Memory;
use crate::place::scheduler::Ranked;
use crate::place::tests::{label, prefer};
use crate::place::{Spread, failures};
use crate::world::World;

/// A cluster of three nodes whose service runs on the first two, failed on the third, and prefers a
/// label; the memory of a scheduler that placed it, and the view that it is of.
fn cluster() -> (World, Memory, Snapshot) {
    let mut world = World::new();
    let zones = ["east", "west", "west"];
    let nodes = zones.map(|zone| world.node(zone, |node| label(node, "zone", zone)));
    let service = world.service("web", 0, |spec| prefer(spec, "node.labels.zone"));
    for (slot, node) in (1..).zip(nodes) {
        let task = world.task(service, slot, |task| {
            task.node_id = Some(node);
            task.status.state = TaskState::Running;
        });
        if slot == 3 {
            world.observe(task, TaskState::Failed);
        }
    }
    let mut memory = Memory::default();
    ask(&mut world, &mut memory, 1);
    let view = world.view();
    assert_eq!(memory.check(&view), Ok(()));
    (world, memory, view)
}

/// Asks where a task would go, so many times.
fn ask(world: &mut World, memory: &mut Memory, times: usize) {
    let mut view = world.view();
    let service = view.services.iter().next().unwrap().clone();
    let mut task = Task { id: world.ids.next(), service_id: service.id, ..Task::default() };
    (task.spec, task.spec_version) = (service.spec.task.clone(), service.version);
    (task.desired_state, task.status.state) = (TaskState::Running, TaskState::Pending);
    view.stage(Change::create(task.clone()), world.now).unwrap();
    let tasks = [Arc::new(task)];
    for _ in 0..times {
        let asked = PlacementView { snapshot: &view, service: Some(&service), tasks: &tasks };
        let ctx = Ctx::new(world.now, &mut world.ids, Epoch(1));
        assert_eq!(Ranked::new(Spread).place(memory, &asked, &ctx).placed.len(), 1);
    }
}

/// What is remembered of the only service.
fn of_service(loads: &mut Loads) -> &mut ServiceLoad {
    let service = loads.nodes[0].services().next().unwrap().0;
    loads.services.get_mut(&service).unwrap()
}

type Fault = fn(&mut Loads);

const FAULTS: &[(&str, Fault)] = &[
    ("a task is counted on no node", |loads| {
        let node = loads.nodes[0].node.clone();
        loads.nodes[0] = NodeLoad::empty(node, Overcommit::default());
    }),
    ("a node is as it was", |loads| {
        let mut old = (*loads.nodes[2].node).clone();
        old.spec.name = "old".to_owned();
        loads.nodes[2].node = Arc::new(old);
    }),
    ("a node is on a rung too high", |loads| loads.ladder.climb(0, 1, 2)),
    ("a node is on two rungs", |loads| loads.ladder.climb(0, 7, 8)),
    ("a service lists a seat that it left", |loads| {
        of_service(loads).seats.push(2);
    }),
    ("a service lists a seat twice", |loads| {
        of_service(loads).seats.push(0);
    }),
    ("a service does not list its seat", |loads| {
        of_service(loads).seats.clear();
    }),
    ("a failure is forgotten", |loads| {
        of_service(loads).failed = failures::Failures::default();
    }),
    ("a failure is remembered that was none", |loads| {
        let mut failed = Task { node_id: Some(loads.nodes[0].id), ..Task::default() };
        failed.status.state = TaskState::Failed;
        of_service(loads).failed.note(&failed);
    }),
    ("a seat has the label of others", |loads| {
        let values = ["east", "east", "west"];
        loads.labels = Default::default();
        loads.labels.find("node.labels.zone", values.into_iter());
    }),
    ("values are not in order", |loads| {
        let values = ["west", "east", "east"];
        loads.labels = Default::default();
        loads.labels.find("node.labels.zone", values.into_iter());
    }),
    ("a node with room is closed", |loads| loads.shapes.close(2)),
    ("a node has another's seat", |loads| {
        let id = loads.nodes[0].id;
        loads.seats.insert(id, 1);
    }),
];

#[test]
fn every_structure_is_compared() {
    for (what, fault) in FAULTS {
        let (_, mut memory, view) = cluster();
        fault(&mut memory.loads);
        assert!(memory.loads.wrong(&view).is_some(), "{what}");
    }
    // Nobody asks about a service that there is not, so no sample meets it.
    let (_, mut memory, view) = cluster();
    let stale = ServiceLoad { seats: vec![0], ..Default::default() };
    memory.loads.services.insert(Default::default(), stale);
    assert!(memory.loads.wrong(&view).is_some());
}

/// As in a release: there is no panic then, but what was wrong is added up anew.
#[test]
fn a_sample_of_all_answers_finds_it_too() {
    for (what, fault) in FAULTS {
        let (mut world, mut memory, view) = cluster();
        memory.checks = Checks::default();
        fault(&mut memory.loads);
        // Three nodes in turn, one after every sixteenth answer.
        let asked = std::panic::AssertUnwindSafe(|| ask(&mut world, &mut memory, 16 * 4));
        let noticed = std::panic::catch_unwind(asked).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map_or("", String::as_str);
            assert!(text.starts_with("what is remembered of"), "{what}: {text}");
        });
        assert_eq!(noticed.is_err(), cfg!(debug_assertions), "{what}");
        if noticed.is_ok() {
            memory.check(&view).expect(what);
        }
    }
}

/// The same view twice costs nothing and changes nothing.
#[test]
fn what_is_right_stays_so() {
    let (mut world, mut memory, view) = cluster();
    ask(&mut world, &mut memory, 100);
    assert_eq!(memory.check(&view), Ok(()));
    assert!(memory.loads.failures(&Task::default(), Timestamp::ZERO).is_empty());
}
