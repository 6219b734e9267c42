//! Tasks whose node no longer fits, is gone, or was gone for too long.

use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{
    Availability, GenericResource, NamedResource, Node, NodeDescription, NodeRole, NodeState,
    ResourceRequirements, Resources, RestartCondition, Task, TaskState,
};
use swarm_core::store::Change;

use super::world::*;

const DAY: u64 = 24 * 3600;

#[test]
fn a_label_that_goes_takes_its_tasks_along() {
    let mut world = World::new(2);
    let nodes: Vec<_> = world.view().nodes.iter().map(|node| node.id).collect();
    for node in &nodes {
        world.edit_node(*node, |node| {
            node.spec.labels.insert("disk".to_owned(), "ssd".to_owned());
        });
    }
    let mut spec = replicated("db", 2);
    constrain(&mut spec, "node.labels.disk == ssd");
    let id = world.create(spec);
    world.run_secs(1);
    world.edit_node(nodes[0], |node| node.spec.labels.clear());
    world.run_secs(10);
    let rejected: Vec<_> = world
        .tasks(id)
        .into_iter()
        .filter(|task| task.status.state == TaskState::Rejected)
        .collect();
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].node_id, Some(nodes[0]));
    assert_eq!(rejected[0].status.err, "assigned node no longer meets constraints");
    assert_eq!(rejected[0].desired_state, TaskState::Shutdown);
    assert!(world.running(id).iter().all(|task| task.node_id == Some(nodes[1])));
    assert_eq!(world.slots(id), [1, 2]);
}

/// Its slot and its addresses are free once it has stopped, and not before.
#[test]
fn an_evicted_task_that_takes_its_time_to_stop_is_waited_for() {
    let mut world = World::new(1);
    let node = world.view().nodes.iter().next().unwrap().id;
    let mut spec = replicated("db", 1);
    constrain(&mut spec, "node.labels.old != yes");
    let id = world.create(spec);
    world.behaves(|_| Behaviour::SlowStop(Duration::from_secs(20)));
    world.run_secs(1);
    let old = world.running(id)[0].id;
    world.edit_node(node, |node| {
        node.spec.labels.insert("old".to_owned(), "yes".to_owned());
    });
    world.add_node();
    world.run_secs(15);
    let old = || world.view().tasks.get(old).unwrap().clone();
    assert_eq!(
        (old().status.state, old().desired_state),
        (TaskState::Running, TaskState::Shutdown)
    );
    let heir = world.tasks(id).into_iter().find(|task| task.is_wanted()).unwrap();
    assert_eq!(heir.desired_state, TaskState::Ready);
    world.run_secs(10);
    assert_eq!(world.view().tasks.get(heir.id).unwrap().status.state, TaskState::Running);
}

#[test]
fn the_services_present_constraints_count() {
    let mut world = World::new(1);
    let node = world.view().nodes.iter().next().unwrap().id;
    let label = |node: &mut Node| {
        node.spec.labels.insert("disk".to_owned(), "ssd".to_owned());
    };
    world.edit_node(node, label);
    let id = world.create(replicated("db", 1));
    world.run_secs(1);
    // This leaves the task where it is, with its old specification…
    world.update(id, |spec| {
        constrain(spec, "node.labels.disk == ssd");
        task(spec).force_update = 1;
    });
    world.run_secs(60);
    let task = world.running(id)[0].clone();
    world.edit_node(node, |node| node.spec.labels.clear());
    world.run_secs(60);
    assert_eq!(world.view().tasks.get(task.id).unwrap().status.state, TaskState::Rejected);
    assert!(world.running(id).is_empty());
}

#[test]
fn new_constraints_do_not_reject_what_the_update_will_replace() {
    let mut world = World::new(3);
    let id = world.create(replicated("web", 3));
    world.run_secs(1);
    let here = world.running(id)[0].node_id.unwrap();
    world.behaves(
        move |task| {
            if task.rollout.is_some() { Behaviour::Hangs } else { Behaviour::Runs }
        },
    );
    world.update(id, |spec| constrain(spec, &format!("node.id == {here}")));
    world.run_secs(1);
    // A new leader and a change of the nodes look at every task again.
    world.change_leader();
    world.run_secs(60);
    assert!(world.tasks(id).iter().all(|task| task.status.state != TaskState::Rejected));
    assert_eq!(world.running(id).len(), 2, "one at a time");
}

#[test]
fn a_node_that_shrinks_keeps_the_oldest_tasks_that_fit() {
    let mut world = World::new(1);
    let node = world.view().nodes.iter().next().unwrap().id;
    let resize = |world: &mut World, memory_bytes: i64| {
        world.edit_node(node, |node| {
            let resources = Resources { memory_bytes, ..Default::default() };
            node.description = Some(NodeDescription { resources, ..Default::default() });
        });
    };
    resize(&mut world, 300);
    let mut spec = replicated("db", 1);
    let reserved = Resources { memory_bytes: 100, ..Default::default() };
    task(&mut spec).resources =
        Some(ResourceRequirements { reservations: Some(reserved), ..Default::default() });
    let id = world.create(spec);
    for replicas in 1..=3 {
        world.update(id, |spec| scale(spec, replicas));
        world.run_secs(1);
    }
    resize(&mut world, 250);
    world.run(std::time::Duration::ZERO);
    assert_eq!(world.slots(id), [1, 2]);
}

#[test]
fn a_role_that_changes_takes_its_tasks_along() {
    let mut world = World::new(2);
    let nodes: Vec<_> = world.view().nodes.iter().map(|node| node.id).collect();
    world.edit_node(nodes[0], |node| node.role = NodeRole::Manager);
    let mut spec = replicated("db", 1);
    constrain(&mut spec, "node.role == manager");
    let id = world.create(spec);
    world.run_secs(1);
    let old = world.running(id)[0].clone();
    // What was asked for does not count, only what the node has become.
    world.edit_node(nodes[0], |node| node.spec.role = NodeRole::Worker);
    world.run_secs(10);
    assert_eq!(world.running(id)[0].id, old.id);
    world.edit_node(nodes[1], |node| node.role = NodeRole::Manager);
    world.edit_node(nodes[0], |node| node.role = NodeRole::Worker);
    world.run_secs(10);
    let old = world.view().tasks.get(old.id).unwrap().clone();
    assert_eq!(old.status.state, TaskState::Rejected);
    assert_eq!(old.status.err, "assigned node no longer meets constraints");
    assert_eq!(world.running(id)[0].node_id, Some(nodes[1]));
}

#[test]
fn a_generic_resource_that_goes_takes_its_holder_along() {
    let gpu = |value: &str| GenericResource {
        named: Some(NamedResource {
            kind: "gpu".into(),
            value: value.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut world = World::new(1);
    let node = world.view().nodes.iter().next().unwrap().id;
    let report = |world: &mut World, generic: Vec<GenericResource>| {
        world.edit_node(node, |node| {
            let resources = Resources { generic, ..Default::default() };
            node.description = Some(NodeDescription { resources, ..Default::default() });
        });
    };
    report(&mut world, vec![gpu("G0"), gpu("G1")]);
    let id = world.create(replicated("train", 2));
    world.run_secs(1);
    // The scheduler of these tests claims nothing itself.
    let held: Vec<_> = world.running(id).iter().map(|task| task.id).collect();
    for (id, name) in held.iter().zip(["G0", "G1"]) {
        let mut task = Task::clone(world.view().tasks.get(*id).unwrap());
        task.generic_resources = vec![gpu(name)];
        world.commit(vec![Change::update(task)]);
    }
    report(&mut world, vec![gpu("G1")]);
    world.run(std::time::Duration::ZERO);
    let states = held.iter().map(|id| world.view().tasks.get(*id).unwrap().status.state);
    assert_eq!(states.collect::<Vec<_>>(), [TaskState::Rejected, TaskState::Running]);
}

#[test]
fn only_tasks_that_run_on_active_nodes_are_rejected() {
    let mut world = World::new(1);
    let node = world.view().nodes.iter().next().unwrap().id;
    world.edit_node(node, |node| _ = node.spec.labels.insert("a".into(), "b".into()));
    let mut spec = replicated("db", 1);
    constrain(&mut spec, "node.labels.a == b");
    policy(&mut spec).condition = Some(RestartCondition::None);
    let id = world.create(spec);
    world.behaves(|_| Behaviour::Ends(std::time::Duration::from_secs(1), TaskState::Complete));
    world.run_secs(5);
    world.edit_node(node, |node| node.spec.labels.clear());
    world.run_secs(5);
    assert_eq!(world.tasks(id)[0].status.state, TaskState::Complete, "what ended stays so");

    world.behaves(|_| Behaviour::Runs);
    world.edit_node(node, |node| _ = node.spec.labels.insert("a".into(), "b".into()));
    world.update(id, |spec| task(spec).force_update = 1);
    world.run_secs(5);
    world.edit_node(node, |node| {
        node.spec.availability = Availability::Pause;
        node.spec.labels.clear();
    });
    world.run_secs(5);
    assert_eq!(world.running(id).len(), 1, "a paused node keeps what it has");
}

#[test]
fn tasks_of_a_node_that_is_down_for_a_day_are_orphaned_across_leaders() {
    let mut world = World::new(2);
    let id = world.create(replicated("web", 2));
    world.run_secs(1);
    let lost = world.running(id)[0].clone();
    world.lose(lost.node_id.unwrap());
    world.run_secs(DAY / 2);
    world.change_leader();
    world.run_secs(DAY / 2 - 1);
    let state = |world: &World| world.view().tasks.get(lost.id).unwrap().status.state;
    assert_eq!(state(&world), TaskState::Running);
    world.run_secs(1);
    assert_eq!(state(&world), TaskState::Orphaned);
    assert_eq!(world.running(id).len(), 2);
}

#[test]
fn a_node_that_returns_in_time_keeps_nothing_that_was_replaced() {
    let mut world = World::new(2);
    let id = world.create(replicated("web", 2));
    world.run_secs(1);
    let lost = world.running(id)[0].clone();
    world.lose(lost.node_id.unwrap());
    world.run_secs(60);
    world.edit_node(lost.node_id.unwrap(), |node| node.status.state = NodeState::Ready);
    world.run_secs(1);
    let state = world.view().tasks.get(lost.id).unwrap().status.state;
    assert_eq!(state, TaskState::Shutdown);
    assert_eq!(world.running(id).len(), 2);
}

#[test]
fn a_removed_node_leaves_no_ghosts() {
    let mut world = World::new(2);
    let everywhere = world.create(global("agent"));
    let mut spec = replicated("web", 2);
    spec.name = "other".to_owned();
    let id = world.create(spec);
    world.run_secs(1);
    let node = world.running(id)[0].node_id.unwrap();
    world.commit(vec![Change::remove(node)]);
    world.run_secs(10);
    let view = world.view();
    let on_node: Vec<_> = view.tasks_on(node).collect();
    assert!(on_node.iter().all(|task| task.status.state == TaskState::Orphaned));
    assert!(on_node.iter().all(|task: &&Arc<_>| task.service_id == id), "no history of it");
    assert_eq!((world.running(id).len(), world.running(everywhere).len()), (2, 1));
}
