//! Rolling updates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{
    Availability, FailureAction, Service, ServiceId, ServiceMode, ServiceSpec, Task, TaskState,
    TaskStatus, UpdateConfig, UpdateOrder, UpdateState, defaults,
};
use swarm_core::store::Change;
use swarm_core::time::Nanos;

use super::world::*;

const SECOND: Duration = Duration::from_secs(1);

/// A service of `replicas` tasks of image `a`, running, whose updates are configured so.
fn running(world: &mut World, replicas: u64, edit: impl FnOnce(&mut UpdateConfig)) -> ServiceId {
    let mut spec = replicated("a", replicas);
    edit(spec.update_config.insert(swarm_core::model::defaults::update_config()));
    let id = world.create(spec);
    world.run_secs(1);
    assert_eq!(images(world, id), BTreeMap::from([("a".to_owned(), replicas as usize)]));
    id
}

fn to_b(spec: &mut ServiceSpec) {
    set_image(spec, "b");
}

fn state(world: &World, id: ServiceId) -> Option<UpdateState> {
    world.service(id).update_status.as_ref().map(|status| status.state)
}

fn message(world: &World, id: ServiceId) -> String {
    world.service(id).update_status.as_ref().unwrap().message.clone()
}

/// In a global service: the delay is there to look at what was updated last, wherever that is now.
#[test]
fn the_delay_counts_on_a_node_that_was_drained_too() {
    let mut world = World::new(3);
    let mut spec = replicated("a", 1);
    spec.mode = ServiceMode::Global(Default::default());
    let delay = Nanos::from_secs(10);
    spec.update_config = Some(UpdateConfig { delay, ..defaults::update_config() });
    let id = world.create(spec);
    world.run_secs(1);
    world.update(id, to_b);
    world.run_secs(1);
    let tasks = world.running(id);
    let new = tasks.iter().find(|task| image(task) == "b").unwrap();
    world.edit_node(new.node_id.unwrap(), |node| node.spec.availability = Availability::Drain);
    world.run_secs(5);
    assert_eq!(images(&world, id), BTreeMap::from([("a".to_owned(), 2)]));
    world.run_secs(5);
    assert_eq!(images(&world, id)["b"], 1);
}

/// As when the image of an update is missing from a node on which the one before was, too.
#[test]
fn of_two_that_fail_at_once_the_newer_has_a_successor_and_the_older_goes() {
    let mut world = World::new(1);
    world.behaves(|task| match task.turn {
        0 => Behaviour::Ends(SECOND, TaskState::Failed),
        _ => Behaviour::Hangs,
    });
    let mut spec = replicated("a", 1);
    policy(&mut spec).delay = Some(Nanos::from_secs(60));
    let config = UpdateConfig { order: Some(UpdateOrder::StartFirst), ..defaults::update_config() };
    spec.update_config = Some(config);
    let id = world.create(spec);
    world.run_secs(3);
    world.update(id, to_b);
    world.run_secs(1);
    let both: Vec<_> = world.tasks(id).into_iter().filter(|task| task.is_wanted()).collect();
    assert_eq!(both.len(), 2, "one waits for its delay, one is of the update");
    let rejected = TaskStatus::new(TaskState::Rejected, world.now, "no such image");
    let fail = |task: &Arc<Task>| Change::Advance(task.id, Box::new(rejected.clone()));
    world.commit(both.iter().map(fail).collect());
    world.step();
    let tasks = world.tasks(id);
    let wanted: Vec<_> = tasks.iter().filter(|task| task.is_wanted()).collect();
    assert_eq!(wanted.iter().map(|task| task.turn).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_new_service_is_not_an_update() {
    let mut world = World::new(1);
    let id = running(&mut world, 3, |_| {});
    world.run_secs(100);
    assert_eq!(state(&world, id), None);
}

#[test]
fn one_slot_after_the_other_with_the_delay_between_them() {
    let mut world = World::new(2);
    let id = running(&mut world, 3, |config| config.delay = Nanos::from_secs(10));
    world.update(id, to_b);
    world.run(Duration::ZERO);
    let started = world.now;
    for updated in 1..=3 {
        assert_eq!(images(&world, id)["b"], updated);
        assert_eq!(state(&world, id), Some(UpdateState::Updating));
        assert_eq!(message(&world, id), "update in progress");
        world.run_secs(10);
    }
    // After the last delay it is watched for the delay and one second.
    world.run_secs(10);
    assert_eq!(state(&world, id), Some(UpdateState::Updating));
    world.run_secs(1);
    let status = world.service(id).update_status.clone().unwrap();
    assert_eq!(status.state, UpdateState::Completed);
    assert_eq!(status.message, "update completed");
    assert_eq!(status.started_at, Some(started));
    assert_eq!(status.completed_at, Some(started + Duration::from_secs(41)));
    assert_eq!(images(&world, id), BTreeMap::from([("b".to_owned(), 3)]));
}

#[test]
fn without_a_delay_it_is_watched_for_the_monitor_time() {
    let mut world = World::new(1);
    let id = running(&mut world, 2, |_| {});
    world.update(id, to_b);
    world.run(Duration::from_millis(4_999));
    assert_eq!(images(&world, id)["b"], 2);
    assert_eq!(state(&world, id), Some(UpdateState::Updating));
    world.run(Duration::from_millis(1));
    assert_eq!(state(&world, id), Some(UpdateState::Completed));
}

#[test]
fn no_more_slots_are_in_flight_than_parallelism_allows() {
    let mut world = World::new(2);
    let id = running(&mut world, 5, |config| config.parallelism = 2);
    world.behaves(|task| if image(task) == "b" { Behaviour::Hangs } else { Behaviour::Runs });
    world.update(id, to_b);
    world.run_secs(600);
    assert_eq!(images(&world, id)["a"], 3, "two slots wait for their new task for ever");
    assert_eq!(state(&world, id), Some(UpdateState::Updating));
    // What was stuck comes to life: the update goes on by itself.
    world.behaves(|_| Behaviour::Runs);
    world.run_secs(10);
    assert_eq!(images(&world, id), BTreeMap::from([("b".to_owned(), 5)]));
}

#[test]
fn parallelism_of_zero_is_all_at_once() {
    let mut world = World::new(2);
    let id = running(&mut world, 5, |config| config.parallelism = 0);
    world.behaves(|task| if image(task) == "b" { Behaviour::Hangs } else { Behaviour::Runs });
    world.update(id, to_b);
    world.run_secs(1);
    assert!(world.running(id).is_empty());
}

#[test]
fn stop_first_waits_for_the_old_task() {
    let mut world = World::new(1);
    let id = running(&mut world, 1, |_| {});
    world.behaves(|_| Behaviour::SlowStop(SECOND * 7));
    world.update(id, to_b);
    world.run(Duration::from_millis(6_999));
    assert_eq!(images(&world, id), BTreeMap::from([("a".to_owned(), 1)]));
    world.run(Duration::from_millis(1));
    assert_eq!(images(&world, id), BTreeMap::from([("b".to_owned(), 1)]));
}

#[test]
fn start_first_keeps_the_old_task_until_the_new_one_runs() {
    let mut world = World::new(1);
    let id = running(&mut world, 2, |config| config.order = Some(UpdateOrder::StartFirst));
    world.behaves(|task| if image(task) == "b" { Behaviour::Hangs } else { Behaviour::Runs });
    world.update(id, to_b);
    world.run_secs(30);
    assert_eq!(images(&world, id)["a"], 2);
    assert_eq!(world.tasks(id).len(), 3);
    world.behaves(|_| Behaviour::Runs);
    world.run_secs(10);
    assert_eq!(images(&world, id), BTreeMap::from([("b".to_owned(), 2)]));
    assert_eq!(state(&world, id), Some(UpdateState::Completed));
}

#[test]
fn a_failure_pauses_and_nothing_more_is_touched() {
    let mut world = World::new(2);
    let id = running(&mut world, 4, |config| config.delay = Nanos::from_secs(1));
    world.behaves(|task| match image(task) {
        "b" => Behaviour::Ends(Duration::from_millis(1_500), TaskState::Complete),
        _ => Behaviour::Runs,
    });
    world.update(id, to_b);
    world.run_secs(600);
    let failed = world.service(id).update_status.clone().unwrap().failed;
    assert_eq!(failed.len(), 1);
    assert_eq!(state(&world, id), Some(UpdateState::Paused));
    let expected =
        format!("update paused due to failure or early termination of task {}", failed[0]);
    assert_eq!(message(&world, id), expected);
    assert_eq!(images(&world, id)["a"], 2, "the second slot was done before the first failed");
}

#[test]
fn while_paused_a_task_that_was_not_updated_is_replaced_as_it_was() {
    let mut world = World::new(2);
    let id = running(&mut world, 3, |config| config.delay = Nanos::from_secs(60));
    world.behaves(|task| match image(task) {
        "b" => Behaviour::Rejected,
        _ => Behaviour::Runs,
    });
    world.update(id, to_b);
    world.run_secs(10);
    assert_eq!(state(&world, id), Some(UpdateState::Paused));
    let old = world.running(id)[0].clone();
    world.report(old.id, TaskState::Failed);
    world.run_secs(10);
    assert_eq!(images(&world, id), BTreeMap::from([("a".to_owned(), 2)]));
}

#[test]
fn a_failure_after_the_monitor_time_is_none_of_the_update() {
    let mut world = World::new(2);
    let id = running(&mut world, 3, |config| config.delay = Nanos::from_secs(10));
    world.behaves(|task| match image(task) {
        "b" => Behaviour::Ends(SECOND * 6, TaskState::Failed),
        _ => Behaviour::Runs,
    });
    world.update(id, to_b);
    world.run_secs(60);
    assert_eq!(state(&world, id), Some(UpdateState::Completed));
}

#[test]
fn as_many_failures_are_tolerated_as_the_ratio_says() {
    for (ratio, expected) in [(0.5, UpdateState::Completed), (0.4, UpdateState::Paused)] {
        let mut world = World::new(2);
        let id = running(&mut world, 4, |config| config.max_failure_ratio = ratio);
        world.behaves(|task| match (image(task), task.slot) {
            ("b", 1 | 2) if task.restarts.is_empty() => Behaviour::Rejected,
            _ => Behaviour::Runs,
        });
        world.update(id, to_b);
        world.run_secs(60);
        assert_eq!(state(&world, id), Some(expected), "with a ratio of {ratio}");
    }
}

#[test]
fn continue_goes_on_whatever_fails() {
    let mut world = World::new(2);
    let id = running(&mut world, 3, |config| {
        config.failure_action = Some(FailureAction::Continue);
    });
    world.behaves(|task| match image(task) {
        "b" => Behaviour::Rejected,
        _ => Behaviour::Runs,
    });
    world.update(id, to_b);
    world.run_secs(60);
    assert_eq!(state(&world, id), Some(UpdateState::Completed));
    assert!(world.running(id).is_empty());
}

#[test]
fn a_tolerated_failure_ends_the_old_task_as_well() {
    let mut world = World::new(2);
    let id = running(&mut world, 3, |config| {
        config.failure_action = Some(FailureAction::Continue);
        config.order = Some(UpdateOrder::StartFirst);
    });
    world.behaves(|task| match (image(task), task.slot) {
        ("b", 2) => Behaviour::Rejected,
        _ => Behaviour::Runs,
    });
    world.update(id, to_b);
    world.run_secs(60);
    assert_eq!(images(&world, id), BTreeMap::from([("b".to_owned(), 2)]));
    assert_eq!(state(&world, id), Some(UpdateState::Completed));
    world.behaves(|_| Behaviour::Runs);
    world.run_secs(10);
    assert_eq!(images(&world, id), BTreeMap::from([("b".to_owned(), 3)]));
}

#[test]
fn a_failure_with_start_first_leaves_the_old_task_when_it_pauses() {
    let mut world = World::new(2);
    let id = running(&mut world, 3, |config| config.order = Some(UpdateOrder::StartFirst));
    let before: Vec<_> = world.running(id).iter().map(|task| task.id).collect();
    world.behaves(|task| match image(task) {
        "b" => Behaviour::Rejected,
        _ => Behaviour::Runs,
    });
    world.update(id, to_b);
    world.run_secs(60);
    assert_eq!(state(&world, id), Some(UpdateState::Paused));
    let after: Vec<_> = world.running(id).iter().map(|task| task.id).collect();
    assert_eq!(after, before);
    assert_eq!(world.tasks(id).len(), 4, "nothing else is tried");
}

#[test]
fn a_lost_node_is_no_failure_of_the_update() {
    let mut world = World::new(3);
    let id = running(&mut world, 3, |config| config.delay = Nanos::from_secs(2));
    world.update(id, to_b);
    world.run(Duration::ZERO);
    let updated = world.running(id).into_iter().find(|task| image(task) == "b").unwrap();
    world.lose(updated.node_id.unwrap());
    world.run_secs(60);
    assert_eq!(state(&world, id), Some(UpdateState::Completed));
}

#[test]
fn the_successor_of_a_task_that_lost_its_node_counts_for_it() {
    let mut world = World::new(3);
    let id = running(&mut world, 3, |_| {});
    world.behaves(|task| if image(task) == "b" { Behaviour::Hangs } else { Behaviour::Runs });
    world.update(id, to_b);
    world.run_secs(1);
    let updated = world.tasks(id).into_iter().find(|task| image(task) == "b").unwrap();
    world.lose(updated.node_id.unwrap());
    let slot = updated.slot;
    world.behaves(move |task| match image(task) {
        "b" if task.slot == slot => Behaviour::Rejected,
        _ => Behaviour::Runs,
    });
    world.run_secs(60);
    assert_eq!(state(&world, id), Some(UpdateState::Paused));
}

#[test]
fn a_drained_node_with_the_old_and_the_new_task_gets_one_successor() {
    let mut world = World::new(1);
    let id = running(&mut world, 1, |config| config.order = Some(UpdateOrder::StartFirst));
    world.behaves(|task| if image(task) == "b" { Behaviour::Hangs } else { Behaviour::Runs });
    world.update(id, to_b);
    world.run_secs(1);
    assert_eq!(world.tasks(id).iter().filter(|task| task.is_wanted()).count(), 2);
    let node = world.tasks(id)[0].node_id.unwrap();
    world.edit_node(node, |node| {
        node.spec.availability = swarm_core::model::Availability::Drain;
    });
    world.run_secs(1);
    assert_eq!(world.tasks(id).iter().filter(|task| task.is_wanted()).count(), 1);
}

#[test]
fn scaling_replaces_nothing() {
    let mut world = World::new(2);
    let id = running(&mut world, 3, |_| {});
    let before: Vec<_> = world.running(id).iter().map(|task| task.id).collect();
    world.update(id, |spec| scale(spec, 5));
    world.run_secs(60);
    let after: Vec<_> = world.running(id).iter().map(|task| task.id).collect();
    assert!(before.iter().all(|task| after.contains(task)));
    assert_eq!((after.len(), state(&world, id)), (5, None));
}

#[test]
fn the_counter_forces() {
    let mut world = World::new(2);
    let id = running(&mut world, 2, |_| {});
    let before: Vec<_> = world.running(id).iter().map(|task| task.id).collect();
    world.update(id, |spec| task(spec).force_update += 1);
    world.run_secs(60);
    assert!(world.running(id).iter().all(|task| !before.contains(&task.id)));
    assert_eq!(state(&world, id), Some(UpdateState::Completed));
}

#[test]
fn new_credentials_replace_what_has_no_image_yet_and_nothing_else() {
    let mut world = World::new(2);
    let id = running(&mut world, 1, |_| {});
    world.behaves(|task| if task.slot == 1 { Behaviour::Runs } else { Behaviour::Hangs });
    world.update(id, |spec| scale(spec, 2));
    world.run_secs(1);
    let stuck = world.tasks(id).into_iter().find(|task| task.slot == 2).unwrap();
    let first = world.running(id)[0].id;
    assert_eq!(stuck.status.state, TaskState::Preparing);
    let mut service = Service::clone(&world.service(id));
    service.registry_auth = Some(b"secret".to_vec().into());
    world.commit(vec![Change::update(service)]);
    world.behaves(|_| Behaviour::Runs);
    world.run_secs(60);
    let running = world.running(id);
    assert_eq!(running.len(), 2);
    assert_eq!(running[0].id, first, "what runs has its image");
    assert_ne!(running[1].id, stuck.id);
    assert_eq!(running[1].registry_auth, world.service(id).registry_auth);
}

#[test]
fn new_constraints_move_only_what_they_do_not_fit() {
    let mut world = World::new(2);
    let id = running(&mut world, 4, |_| {});
    let here = world.running(id)[0].node_id.unwrap();
    let stays = |world: &World| {
        let tasks = world.running(id).into_iter().filter(|task| task.node_id == Some(here));
        tasks.map(|task| task.id).collect::<Vec<_>>()
    };
    let before = stays(&world);
    assert_eq!(before.len(), 2);
    world.update(id, |spec| constrain(spec, &format!("node.id == {here}")));
    world.run_secs(60);
    let after = stays(&world);
    assert_eq!(after.len(), 4);
    assert!(before.iter().all(|task| after.contains(task)), "they were not replaced");
    assert_eq!(state(&world, id), Some(UpdateState::Completed));
}

#[test]
fn a_new_update_cancels_the_running_one() {
    let mut world = World::new(2);
    let id = running(&mut world, 4, |config| config.delay = Nanos::from_secs(30));
    world.update(id, to_b);
    world.run_secs(31);
    assert_eq!(images(&world, id)["b"], 2);
    world.update(id, |spec| set_image(spec, "c"));
    world.run_secs(300);
    assert_eq!(images(&world, id), BTreeMap::from([("c".to_owned(), 4)]));
    assert_eq!(state(&world, id), Some(UpdateState::Completed));
}

#[test]
fn slots_that_do_not_run_are_updated_first() {
    let mut world = World::new(2);
    let id = running(&mut world, 3, |_| {});
    world.behaves(|task| match (image(task), task.slot) {
        ("a", 3) => Behaviour::Ends(SECOND, TaskState::Failed),
        ("b", _) => Behaviour::Hangs,
        _ => Behaviour::Runs,
    });
    world.run_secs(3);
    world.update(id, |spec| set_image(spec, "b"));
    world.run_secs(30);
    assert_eq!(world.slots(id), [1, 2], "the broken slot is the one that is tried");
}

#[test]
fn what_a_stuck_update_waits_for_is_in_its_message() {
    let mut world = World::new(2);
    let id = running(&mut world, 2, |_| {});
    world.behaves(|task| if image(task) == "b" { Behaviour::Hangs } else { Behaviour::Runs });
    world.update(id, to_b);
    world.run_secs(1);
    let stuck = world.tasks(id).into_iter().find(|task| image(task) == "b").unwrap();
    let mut status = stuck.status.clone();
    status.err = "no suitable node (insufficient resources on 2 nodes)".to_owned();
    world.commit(vec![Change::Advance(stuck.id, Box::new(status))]);
    world.run_secs(1);
    let expected = format!(
        "update in progress; waiting for task {}: no suitable node (insufficient resources on 2 nodes)",
        stuck.id
    );
    assert_eq!(message(&world, id), expected);
    world.behaves(|_| Behaviour::Runs);
    world.run_secs(1);
    assert_eq!(message(&world, id), "update in progress");
}

#[test]
fn a_task_that_never_starts_is_named_after_a_minute_across_leaders() {
    let mut world = World::new(2);
    let id = running(&mut world, 2, |_| {});
    world.behaves(|task| if image(task) == "b" { Behaviour::Hangs } else { Behaviour::Runs });
    world.update(id, to_b);
    world.run_secs(30);
    assert_eq!(message(&world, id), "update in progress");
    world.change_leader();
    world.run_secs(30);
    let stuck = world.tasks(id).into_iter().find(|task| image(task) == "b").unwrap();
    let waits = "update in progress; waiting for task";
    let expected = format!("{waits} {}, which does not run after 60 seconds", stuck.id);
    assert_eq!(message(&world, id), expected);
    world.run_secs(3_600);
    assert_eq!((message(&world, id), state(&world, id)), (expected, Some(UpdateState::Updating)));
    world.behaves(|_| Behaviour::Runs);
    world.run_secs(120);
    assert_eq!(message(&world, id), "update completed");
}

#[test]
fn a_new_leader_in_the_middle_makes_no_difference() {
    let outcome = |changes: &[u64]| {
        let mut world = World::new(3);
        let id = running(&mut world, 6, |config| {
            config.delay = Nanos::from_secs(7);
            config.parallelism = 2;
            config.max_failure_ratio = 0.2;
            config.monitor = Some(Nanos::from_secs(20));
        });
        world.behaves(|task| match (image(task), task.slot) {
            ("b", 2) if task.restarts.is_empty() => Behaviour::Ends(SECOND * 3, TaskState::Failed),
            ("b", 5) => Behaviour::Ends(SECOND * 15, TaskState::Complete),
            _ => Behaviour::Runs,
        });
        world.update(id, |spec| {
            policy(spec).max_attempts = Some(5);
            to_b(spec);
        });
        for second in 0..80 {
            if changes.contains(&second) {
                world.change_leader();
            }
            world.run_secs(1);
        }
        world.view().objects().map(|it| serde_json::to_string(&it).unwrap()).collect::<Vec<_>>()
    };
    let undisturbed = outcome(&[]);
    assert!(undisturbed.iter().any(|object| object.contains("update paused")));
    for changes in [&[0][..], &[3], &[7], &[8, 9, 10, 11], &[1, 15, 22, 29]] {
        assert_eq!(outcome(changes), undisturbed, "with new leaders at {changes:?}");
    }
}

/// A task that was replaced before it was allowed to start stops at once. Its successor waits for
/// the one before it, too, which takes its time to stop.
#[test]
fn the_successor_of_a_task_that_waits_waits_for_the_same() {
    let mut world = World::new(1);
    let id = world.create(replicated("a", 1));
    world.behaves(|_| Behaviour::SlowStop(Duration::from_secs(20)));
    world.run_secs(5);
    let first = world.running(id)[0].id;
    for image in ["b", "c"] {
        world.update(id, |spec| set_image(spec, image));
        world.run_secs(2);
    }
    let newest = world.tasks(id).into_iter().find(|task| image(task) == "c").unwrap();
    assert!(!world.view().tasks.get(first).unwrap().status.state.is_terminal());
    assert_eq!(newest.desired_state, TaskState::Ready);
    world.run_secs(30);
    assert_eq!(images(&world, id), BTreeMap::from([("c".to_owned(), 1)]));
}

/// An update that starts first and never gets anywhere is made to stop first: what it began goes on,
/// and what that was to relieve makes room.
#[test]
fn stopping_first_after_all_makes_room() {
    let mut world = World::new(1);
    let id = running(&mut world, 2, |config| config.order = Some(UpdateOrder::StartFirst));
    world.behaves(|task| if image(task) == "b" { Behaviour::Hangs } else { Behaviour::Runs });
    world.update(id, to_b);
    world.run_secs(5);
    assert_eq!(images(&world, id), BTreeMap::from([("a".to_owned(), 2)]));
    world.update(id, |spec| {
        spec.update_config.as_mut().unwrap().order = Some(UpdateOrder::StopFirst);
    });
    world.run_secs(5);
    let wanted = world.tasks(id).into_iter().filter(|task| task.is_wanted());
    let mut wanted: Vec<_> = wanted.map(|task| (task.slot, image(&task).to_owned())).collect();
    wanted.sort();
    assert_eq!(wanted, [(1, "b".to_owned()), (2, "a".to_owned())]);
}

#[test]
fn what_was_begun_on_a_node_that_pauses_is_still_in_flight() {
    let mut world = World::new(3);
    let id = world.create(global("a"));
    world.run_secs(1);
    world.behaves(|task| if image(task) == "b" { Behaviour::Hangs } else { Behaviour::Runs });
    world.update(id, to_b);
    world.run_secs(5);
    let begun = |world: &World| {
        let tasks = world.tasks(id).into_iter();
        tasks.filter(|task| image(task) == "b").map(|task| task.node_id).collect::<Vec<_>>()
    };
    let nodes = begun(&world);
    assert_eq!(nodes.len(), 1);
    world.edit_node(nodes[0].unwrap(), |node| node.spec.availability = Availability::Pause);
    world.run_secs(60);
    assert_eq!(begun(&world), nodes);
}

#[test]
fn a_roll_out_goes_on_when_the_clock_is_set_back() {
    const AHEAD: Duration = Duration::from_secs(3_600);
    let mut world = World::new(2);
    let id = world.create(replicated("nginx:1", 3));
    world.run_secs(1);
    world.now = world.now + AHEAD;
    world.update(id, |spec| set_image(spec, "nginx:2"));
    world.run_secs(1);
    world.now = world.now.before(AHEAD);
    world.change_leader();
    world.run_secs(60);
    assert_eq!(images(&world, id), BTreeMap::from([("nginx:2".to_owned(), 3)]));
    let status = world.service(id).update_status.clone().unwrap();
    assert_eq!(status.state, UpdateState::Completed);
}

#[test]
fn going_back_waits_for_the_task_that_the_failed_one_was_waiting_for() {
    let mut world = World::new(1);
    world.behaves(|task| match image(task) {
        "b" => Behaviour::Rejected,
        _ => Behaviour::SlowStop(Duration::from_secs(20)),
    });
    let id = running(&mut world, 1, |config| {
        config.failure_action = Some(FailureAction::Rollback);
    });
    world.update(id, to_b);
    for _ in 0..60 {
        world.run_secs(1);
        assert!(world.running(id).len() <= 1, "two tasks of one slot run");
    }
    assert_eq!(images(&world, id), BTreeMap::from([("a".to_owned(), 1)]));
}
