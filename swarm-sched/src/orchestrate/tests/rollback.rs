//! Updates that go back.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_core::model::{
    FailureAction, Service, ServiceId, ServiceSpec, Task, TaskState, UpdateConfig, UpdateOrder,
    UpdateState, UpdateStatus, defaults,
};
use swarm_core::store::Change;

use super::world::*;

fn goes_back(replicas: u64, edit: impl FnOnce(&mut UpdateConfig)) -> ServiceSpec {
    let mut spec = replicated("a", replicas);
    let config = spec.update_config.insert(defaults::update_config());
    config.failure_action = Some(FailureAction::Rollback);
    edit(config);
    spec
}

fn status(world: &World, id: ServiceId) -> UpdateStatus {
    world.service(id).update_status.clone().unwrap()
}

fn b_is_broken(task: &Task) -> Behaviour {
    if image(task) == "b" { Behaviour::Rejected } else { Behaviour::Runs }
}

#[test]
fn a_failed_update_goes_back_by_itself() {
    let mut world = World::new(2);
    let id = world.create(goes_back(4, |_| {}));
    world.behaves(b_is_broken);
    world.run_secs(1);
    let before = world.service(id).spec.clone();
    world.update(id, |spec| set_image(spec, "b"));
    world.run(Duration::ZERO);
    let service = world.service(id);
    assert_eq!(service.spec, before);
    assert_eq!(service.previous_spec, None);
    let going = status(&world, id);
    assert_eq!(going.state, UpdateState::RollbackStarted);
    assert!(
        going
            .message
            .starts_with("update rolled back due to failure or early termination of task ")
    );
    world.run_secs(30);
    assert_eq!(status(&world, id).state, UpdateState::RollbackCompleted);
    assert_eq!(status(&world, id).message, "rollback completed");
    assert_eq!(images(&world, id), BTreeMap::from([("a".to_owned(), 4)]));
}

#[test]
fn with_start_first_going_back_disturbs_nobody() {
    let mut world = World::new(2);
    let id = world.create(goes_back(3, |config| config.order = Some(UpdateOrder::StartFirst)));
    world.behaves(b_is_broken);
    world.run_secs(1);
    let before = world.slots(id);
    let tasks: Vec<_> = world.running(id).iter().map(|task| task.id).collect();
    world.update(id, |spec| set_image(spec, "b"));
    world.run_secs(30);
    assert_eq!(status(&world, id).state, UpdateState::RollbackCompleted);
    assert_eq!(world.slots(id), before);
    assert!(world.running(id).iter().all(|task| tasks.contains(&task.id)));
}

#[test]
fn going_back_never_goes_back() {
    let mut world = World::new(2);
    let mut spec = goes_back(3, |_| {});
    spec.rollback_config = spec.update_config.clone();
    let id = world.create(spec);
    world.run_secs(1);
    world.behaves(|_| Behaviour::Rejected);
    world.update(id, |spec| set_image(spec, "b"));
    world.run_secs(120);
    let status = status(&world, id);
    assert_eq!(status.state, UpdateState::RollbackPaused);
    assert!(
        status.message.starts_with("rollback paused due to failure or early termination of task "),
        "{}",
        status.message
    );
}

#[test]
fn without_anything_to_go_back_to_it_pauses() {
    let mut world = World::new(2);
    let id = world.create(goes_back(2, |_| {}));
    world.behaves(b_is_broken);
    world.run_secs(1);
    let mut service = Service::clone(&world.service(id));
    set_image(&mut service.spec, "b");
    world.commit(vec![Change::update(service)]);
    world.run_secs(10);
    assert_eq!(status(&world, id).state, UpdateState::Paused);
}

#[test]
fn one_that_was_asked_for_is_watched_as_well() {
    let mut world = World::new(2);
    let id = world.create(goes_back(2, |_| {}));
    world.run_secs(1);
    world.update(id, |spec| set_image(spec, "b"));
    world.run_secs(60);
    // As the API does it: the specifications change places.
    let mut service = Service::clone(&world.service(id));
    let previous = service.previous_spec.take().unwrap();
    service.previous_spec = Some(Box::new(std::mem::replace(&mut service.spec, *previous)));
    service.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted,
        message: "manually requested rollback".to_owned(),
        started_at: Some(world.now),
        ..Default::default()
    });
    world.commit(vec![Change::update(service)]);
    world.run(Duration::ZERO);
    assert_eq!(status(&world, id).total, 2);
    assert_eq!(status(&world, id).message, "manually requested rollback");
    world.run_secs(60);
    assert_eq!(status(&world, id).state, UpdateState::RollbackCompleted);
    assert_eq!(images(&world, id), BTreeMap::from([("a".to_owned(), 2)]));
}

#[test]
fn a_late_failure_of_the_update_does_not_touch_the_way_back() {
    let mut world = World::new(3);
    let id = world.create(goes_back(3, |config| config.parallelism = 3));
    world.run_secs(1);
    let second = Duration::from_secs(1);
    world.behaves(move |task| match (image(task), task.slot) {
        ("b", 1) => Behaviour::Rejected,
        ("b", 2) => Behaviour::Ends(second, TaskState::Failed),
        _ => Behaviour::Runs,
    });
    world.update(id, |spec| set_image(spec, "b"));
    world.run_secs(60);
    assert_eq!(status(&world, id).state, UpdateState::RollbackCompleted);
    assert_eq!(images(&world, id), BTreeMap::from([("a".to_owned(), 3)]));
}

/// The first way back starts a task beside the one that the update made; the second way back finds
/// two in that slot and counts it as in flight. (The world checks the number of tasks.)
#[test]
fn going_back_from_going_back_counts_what_was_begun() {
    let mut world = World::new(1);
    let mut spec = replicated("a", 5);
    spec.rollback_config = Some(UpdateConfig {
        parallelism: 2,
        order: Some(UpdateOrder::StartFirst),
        ..defaults::update_config()
    });
    let id = world.create(spec);
    world.behaves(|_| Behaviour::Hangs);
    world.run_secs(5);
    world.update(id, |spec| set_image(spec, "b"));
    for _ in 0..3 {
        world.run_secs(20);
        world.roll_back(id);
    }
    world.behaves(|_| Behaviour::Runs);
    world.run_secs(120);
    assert_eq!(status(&world, id).state, UpdateState::RollbackCompleted);
    assert_eq!(images(&world, id), BTreeMap::from([("a".to_owned(), 5)]));
}
