//! Global services.

use std::collections::BTreeMap;

use swarm_core::model::{
    Availability, NodeState, RestartCondition, ServiceId, TaskState, UpdateState,
};

use super::world::*;

fn nodes(world: &World, id: ServiceId) -> usize {
    let mut nodes: Vec<_> = world.running(id).iter().map(|task| task.node_id.unwrap()).collect();
    let tasks = nodes.len();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), tasks, "one task on each node");
    tasks
}

#[test]
fn every_node_gets_a_task_and_so_does_a_new_one() {
    let mut world = World::new(3);
    let id = world.create(global("agent"));
    world.run_secs(1);
    assert_eq!(nodes(&world, id), 3);
    assert!(world.tasks(id).iter().all(|task| task.slot == 0));
    world.add_node();
    world.run_secs(1);
    assert_eq!(nodes(&world, id), 4);
}

#[test]
fn constraints_choose_the_nodes_as_they_change() {
    let mut world = World::new(3);
    let mut spec = global("agent");
    constrain(&mut spec, "node.labels.disk == ssd");
    let id = world.create(spec);
    world.run_secs(1);
    assert_eq!(nodes(&world, id), 0);
    let node = world.view().nodes.iter().next().unwrap().id;
    let label = |world: &mut World, value: &str| {
        let value = value.to_owned();
        world.edit_node(node, |node| {
            node.spec.labels.insert("disk".to_owned(), value);
        });
        world.run_secs(10);
    };
    label(&mut world, "ssd");
    assert_eq!(nodes(&world, id), 1);
    label(&mut world, "tape");
    assert_eq!(nodes(&world, id), 0);
    label(&mut world, "ssd");
    assert_eq!(nodes(&world, id), 1);
}

#[test]
fn a_drained_node_has_none_and_gets_one_back() {
    for condition in [RestartCondition::Any, RestartCondition::None] {
        let mut world = World::new(2);
        let mut spec = global("agent");
        policy(&mut spec).condition = Some(condition);
        let id = world.create(spec);
        world.run_secs(1);
        let node = world.running(id)[0].node_id.unwrap();
        world.edit_node(node, |node| node.spec.availability = Availability::Drain);
        world.run_secs(10);
        assert_eq!(nodes(&world, id), 1);
        world.edit_node(node, |node| node.spec.availability = Availability::Active);
        world.run_secs(10);
        assert_eq!(nodes(&world, id), 2, "with a restart condition of {condition}");
    }
}

#[test]
fn a_node_that_comes_back_runs_it_again() {
    let mut world = World::new(2);
    let id = world.create(global("agent"));
    world.run_secs(1);
    let node = world.running(id)[0].node_id.unwrap();
    world.lose(node);
    world.run_secs(10);
    world.edit_node(node, |node| node.status.state = NodeState::Ready);
    world.run_secs(10);
    assert_eq!(nodes(&world, id), 2);
}

#[test]
fn a_failed_task_comes_back_on_its_node() {
    let mut world = World::new(2);
    let id = world.create(global("agent"));
    world.run_secs(1);
    let old = world.running(id)[0].clone();
    world.report(old.id, TaskState::Failed);
    world.run_secs(4);
    assert_eq!(nodes(&world, id), 1);
    world.run_secs(1);
    assert_eq!(nodes(&world, id), 2);
}

#[test]
fn a_paused_node_neither_gets_nor_updates_nor_replaces() {
    let mut world = World::new(3);
    let id = world.create(global("a"));
    world.run_secs(1);
    let paused: Vec<_> =
        world.running(id).iter().take(2).map(|task| task.node_id.unwrap()).collect();
    for node in &paused {
        world.edit_node(*node, |node| node.spec.availability = Availability::Pause);
    }
    world.update(id, |spec| set_image(spec, "b"));
    let new = world.add_node();
    world.edit_node(new, |node| node.spec.availability = Availability::Pause);
    world.run_secs(60);
    assert_eq!(images(&world, id), BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
    let status = world.service(id).update_status.clone().unwrap();
    assert_eq!(status.state, UpdateState::Completed);
    let failed = world.running(id).into_iter().find(|task| image(task) == "a").unwrap();
    world.report(failed.id, TaskState::Failed);
    world.run_secs(60);
    assert_eq!(images(&world, id)["a"], 1);
    // Once they are active they catch up.
    for node in [paused[0], paused[1], new] {
        world.edit_node(node, |node| node.spec.availability = Availability::Active);
    }
    world.run_secs(60);
    assert_eq!(images(&world, id), BTreeMap::from([("b".to_owned(), 4)]));
    assert_eq!(world.service(id).update_status.as_ref().unwrap().state, UpdateState::Completed);
}

#[test]
fn an_update_goes_from_node_to_node() {
    let mut world = World::new(4);
    let id = world.create(global("a"));
    world.run_secs(1);
    world.behaves(|task| if image(task) == "b" { Behaviour::Hangs } else { Behaviour::Runs });
    world.update(id, |spec| set_image(spec, "b"));
    world.run_secs(60);
    assert_eq!(images(&world, id)["a"], 3);
    world.behaves(|_| Behaviour::Runs);
    world.run_secs(60);
    assert_eq!(images(&world, id), BTreeMap::from([("b".to_owned(), 4)]));
}
