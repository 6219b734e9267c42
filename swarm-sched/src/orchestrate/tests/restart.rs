//! What becomes of tasks that end or lose their node.

use std::time::Duration;

use swarm_core::model::{
    NodeState, RestartCondition, RestartPolicy, TaskState, UpdateConfig, defaults,
};
use swarm_core::time::Nanos;

use super::world::{Behaviour, World, image, policy, replicated, set_image};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_failed_task_is_replaced_after_the_delay() {
    let mut world = World::new(1);
    let id = world.create(replicated("nginx", 1));
    world.run_secs(1);
    let old = world.running(id)[0].clone();
    world.report(old.id, TaskState::Failed);
    world.run_secs(4);
    let tasks = world.tasks(id);
    let new = tasks.iter().find(|task| task.id != old.id).unwrap();
    assert_eq!(new.slot, old.slot);
    assert_eq!((new.desired_state, new.status.state), (TaskState::Ready, TaskState::Ready));
    assert_eq!(world.view().tasks.get(old.id).unwrap().desired_state, TaskState::Shutdown);
    world.run_secs(1);
    assert_eq!(world.running(id)[0].id, new.id);
}

#[test]
fn an_image_that_cannot_be_pulled_is_tried_once_for_each_delay() {
    let mut world = World::new(1);
    world.behaves(|_| Behaviour::Rejected);
    let mut spec = replicated("typo", 1);
    policy(&mut spec).max_attempts = Some(1_000);
    let id = world.create(spec);
    world.run_secs(50);
    let tasks = world.tasks(id).len();
    assert!((10..=12).contains(&tasks), "{tasks} attempts in 50 seconds with a delay of 5");
}

#[test]
fn without_a_delay_there_are_ten_attempts_a_second_at_most() {
    let mut world = World::new(1);
    world.behaves(|_| Behaviour::Rejected);
    let mut spec = replicated("typo", 1);
    policy(&mut spec).delay = Some(Nanos(0));
    policy(&mut spec).max_attempts = Some(1_000);
    let id = world.create(spec);
    world.run_secs(2);
    let tasks = world.tasks(id).len();
    assert!((20..=22).contains(&tasks), "{tasks}");
}

#[test]
fn attempts_are_limited_across_leaders_and_history() {
    let mut world = World::new(1);
    world.behaves(|_| Behaviour::Ends(SECOND, TaskState::Failed));
    let mut spec = replicated("nginx", 1);
    policy(&mut spec).max_attempts = Some(3);
    let id = world.create(spec);
    for _ in 0..20 {
        world.run_secs(10);
        world.change_leader();
    }
    let tasks = world.tasks(id);
    assert_eq!(tasks.len(), 4, "one attempt and three restarts");
    assert!(tasks.iter().all(|task| task.desired_state == TaskState::Shutdown));
}

/// What is made then looks older than what was there before.
#[test]
fn a_leader_whose_clock_is_set_back_forgets_no_attempt() {
    let mut world = World::new(1);
    world.behaves(|_| Behaviour::Ends(SECOND, TaskState::Failed));
    let mut spec = replicated("nginx", 1);
    policy(&mut spec).max_attempts = Some(3);
    let id = world.create(spec);
    world.run_secs(3);
    world.now = world.now.before(SECOND * 3_600);
    world.change_leader();
    world.run_secs(60);
    world.now = world.now + SECOND * 3_600;
    world.run_secs(60);
    let mut tasks = world.tasks(id);
    tasks.sort_by_key(|task| task.turn);
    assert_eq!(tasks.iter().map(|task| task.turn).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(tasks.iter().all(|task| !task.is_wanted()));
}

/// It is the new policy that limits the attempts: a task that is restarted into a changed
/// specification, before the roll-out comes to it, uses one up.
#[test]
fn a_restart_into_a_changed_specification_is_an_attempt() {
    let mut world = World::new(1);
    let mut spec = replicated("a", 2);
    let delay = Nanos::from_secs(100);
    spec.update_config = Some(UpdateConfig { delay, ..defaults::update_config() });
    let id = world.create(spec);
    world.behaves(|task| match (image(task), task.slot) {
        ("a", 2) => Behaviour::Ends(SECOND * 10, TaskState::Failed),
        ("b", 2) => Behaviour::Ends(SECOND, TaskState::Failed),
        _ => Behaviour::Runs,
    });
    world.run_secs(5);
    world.update(id, |spec| {
        set_image(spec, "b");
        policy(spec).max_attempts = Some(1);
    });
    world.run_secs(60);
    let tasks = world.tasks(id);
    let second: Vec<_> = tasks.iter().filter(|task| task.slot == 2).collect();
    assert_eq!(second.iter().filter(|task| image(task) == "b").count(), 1, "{second:#?}");
    assert!(second.iter().all(|task| !task.is_wanted()));
}

#[test]
fn attempts_outside_the_window_do_not_count() {
    let mut world = World::new(1);
    world.behaves(|_| Behaviour::Ends(Duration::from_secs(20), TaskState::Failed));
    let mut spec = replicated("nginx", 1);
    policy(&mut spec).max_attempts = Some(2);
    policy(&mut spec).window = Some(Nanos::from_secs(30));
    let id = world.create(spec);
    world.run_secs(3_600);
    assert_eq!(world.tasks(id).iter().filter(|task| task.is_wanted()).count(), 1);
    let newest = world.tasks(id).into_iter().max_by_key(|task| task.created_at).unwrap();
    assert!(newest.restarts.len() <= 2, "what does not count is forgotten");
}

#[test]
fn a_window_means_the_same_to_every_leader() {
    // Two quick failures use the attempts up; had the first been ten seconds older, it would not
    // count any more.
    let outcome = |life: u64, leaders: bool| {
        let mut world = World::new(1);
        world.behaves(move |_| Behaviour::Ends(Duration::from_secs(life), TaskState::Failed));
        let mut spec = replicated("nginx", 1);
        *policy(&mut spec) = RestartPolicy {
            max_attempts: Some(2),
            window: Some(Nanos::from_secs(30)),
            delay: Some(Nanos::from_secs(5)),
            ..Default::default()
        };
        let id = world.create(spec);
        for _ in 0..100 {
            world.run_secs(3);
            if leaders {
                world.change_leader();
            }
        }
        let mut made: Vec<_> = world.tasks(id).iter().map(|task| task.created_at).collect();
        made.sort();
        let wanted = world.tasks(id).iter().filter(|task| task.is_wanted()).count();
        (made, wanted)
    };
    for life in [1, 14, 20] {
        let (made, wanted) = outcome(life, false);
        assert_eq!(wanted, usize::from(life >= 14), "{life} seconds, then: {made:?}");
        assert_eq!(outcome(life, true), (made, wanted), "{life} seconds");
    }
}

#[test]
fn a_policy_of_none_leaves_the_slot_as_it_is() {
    let mut world = World::new(1);
    let mut spec = replicated("nginx", 2);
    policy(&mut spec).condition = Some(RestartCondition::None);
    let id = world.create(spec);
    world.run_secs(1);
    world.report(world.running(id)[0].id, TaskState::Failed);
    world.run_secs(600);
    assert_eq!(world.slots(id), [2]);
    assert_eq!(world.tasks(id).len(), 2);
}

#[test]
fn on_failure_means_not_after_success() {
    let mut world = World::new(1);
    let mut spec = replicated("nginx", 2);
    policy(&mut spec).condition = Some(RestartCondition::OnFailure);
    let id = world.create(spec);
    world.run_secs(1);
    let running = world.running(id);
    world.report(running[0].id, TaskState::Complete);
    world.report(running[1].id, TaskState::Failed);
    world.run_secs(600);
    assert_eq!(world.slots(id), [2]);
}

#[test]
fn tasks_of_a_lost_node_start_elsewhere_after_the_delay() {
    let mut world = World::new(2);
    let id = world.create(replicated("nginx", 4));
    world.run_secs(1);
    let lost = world.running(id)[0].node_id.unwrap();
    world.lose(lost);
    world.run_secs(4);
    let elsewhere =
        |world: &World| world.running(id).iter().filter(|task| task.node_id != Some(lost)).count();
    assert_eq!(elsewhere(&world), 2);
    world.run_secs(1);
    assert_eq!(elsewhere(&world), 4);
}

#[test]
fn a_replacement_waits_for_its_predecessor_but_not_for_ever() {
    let mut world = World::new(2);
    world.behaves(|_| Behaviour::SlowStop(Duration::from_secs(30)));
    let id = world.create(replicated("nginx", 1));
    world.run_secs(1);
    let node = world.running(id)[0].node_id.unwrap();
    world.edit_node(node, |node| {
        node.spec.availability = swarm_core::model::Availability::Drain;
    });
    world.run_secs(29);
    assert_eq!(world.running(id)[0].node_id, Some(node), "the old one stops for 30 seconds");
    world.run_secs(1);
    assert_ne!(world.running(id)[0].node_id, Some(node));

    world.behaves(|_| Behaviour::SlowStop(Duration::from_secs(3_600)));
    let node = world.running(id)[0].node_id.unwrap();
    let other = world.add_node();
    world.edit_node(node, |node| {
        node.spec.availability = swarm_core::model::Availability::Drain;
    });
    world.run_secs(59);
    assert_eq!(world.running(id).len(), 1);
    world.run_secs(1);
    assert_eq!(world.running(id).len(), 2, "after a minute it waits no longer");
    assert!(world.running(id).iter().any(|task| task.node_id == Some(other)));
}

#[test]
fn a_new_leader_keeps_to_the_delay() {
    let mut world = World::new(1);
    let mut spec = replicated("nginx", 1);
    policy(&mut spec).delay = Some(Nanos::from_secs(100));
    let id = world.create(spec);
    world.run_secs(1);
    world.report(world.running(id)[0].id, TaskState::Failed);
    world.run_secs(60);
    world.change_leader();
    world.run_secs(39);
    assert!(world.running(id).is_empty());
    world.run_secs(1);
    assert_eq!(world.slots(id), [1]);
}

#[test]
fn a_node_that_is_back_before_the_delay_is_over_is_waited_for() {
    let mut world = World::new(2);
    world.behaves(|_| Behaviour::SlowStop(Duration::from_secs(30)));
    let id = world.create(replicated("nginx", 1));
    world.run_secs(1);
    let old = world.running(id)[0].clone();
    world.lose(old.node_id.unwrap());
    world.run_secs(2);
    world.edit_node(old.node_id.unwrap(), |node| node.status.state = NodeState::Ready);
    world.run_secs(20);
    assert_eq!(world.running(id).iter().map(|task| task.id).collect::<Vec<_>>(), [old.id]);
    world.run_secs(20);
    assert!(world.running(id).iter().all(|task| task.id != old.id));
    assert_eq!(world.running(id).len(), 1);
}

#[test]
fn a_clock_that_is_set_back_keeps_nothing_waiting() {
    const AHEAD: Duration = Duration::from_secs(3_600);
    // Whether the wrong clock saw the replacement made, or the end alone.
    for seen in [SECOND, Duration::ZERO] {
        let mut world = World::new(1);
        let id = world.create(replicated("nginx", 1));
        world.run_secs(1);
        world.now = world.now + AHEAD;
        world.report(world.running(id)[0].id, TaskState::Failed);
        if !seen.is_zero() {
            world.run(seen);
        }
        world.now = world.now.before(AHEAD);
        world.change_leader();
        world.run_secs(6);
        assert_eq!(world.running(id).len(), 1, "it had {seen:?} to make a replacement");
    }
}
