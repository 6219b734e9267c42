//! Tasks that are to complete: how many at a time, which count, and what a run leaves behind.

use std::collections::BTreeSet;
use std::time::Duration;

use swarm_core::conformance::planner;
use swarm_core::model::*;
use swarm_core::store::Change;
use swarm_core::time::{Nanos, Timestamp};

use super::world::*;
use crate::orchestrate::Jobs;

const fn ends(seconds: u64, state: TaskState) -> Behaviour {
    Behaviour::Ends(Duration::from_secs(seconds), state)
}

fn world(nodes: usize) -> World {
    let mut world = World::new(nodes);
    world.behaves(|_| ends(10, TaskState::Complete));
    world
}

/// The slots that have completed in the present run.
fn done(world: &World, id: ServiceId) -> Vec<u64> {
    completed(&world.view(), id).into_iter().map(|(slot, _)| slot).collect()
}

fn available(world: &mut World, node: NodeId, availability: Availability) {
    world.edit_node(node, |node| node.spec.availability = availability);
}

#[test]
fn a_job_runs_so_many_at_a_time_until_enough_have_completed() {
    let mut world = world(2);
    let id = world.create(replicated_job("backup", 5, 2));
    world.run_secs(1);
    assert_eq!(world.slots(id), [0, 1]);
    world.run_secs(10);
    assert_eq!((world.slots(id), done(&world, id)), (vec![2, 3], vec![0, 1]));
    world.run_secs(10);
    assert_eq!(world.slots(id), [4], "no more than there are left");
    world.run_secs(600);
    assert_eq!(done(&world, id), [0, 1, 2, 3, 4]);
    let tasks = world.tasks(id);
    assert_eq!(tasks.len(), 5);
    assert!(tasks.iter().all(|task| task.desired_state == TaskState::Complete));
}

#[test]
fn any_replaces_failures_alone_and_after_the_delay() {
    let mut world = world(1);
    let mut spec = replicated_job("backup", 2, 2);
    policy(&mut spec).condition = Some(RestartCondition::Any);
    let id = world.create(spec);
    world.run_secs(1);
    let failed = world.running(id)[0].clone();
    world.report(failed.id, TaskState::Failed);
    world.run_secs(4);
    let waiting = |task: &&std::sync::Arc<Task>| task.desired_state == TaskState::Ready;
    let tasks = world.tasks(id);
    assert_eq!(tasks.iter().find(waiting).map(|task| task.slot), Some(failed.slot));
    assert_eq!(world.slots(id), [1]);
    world.run_secs(1);
    assert_eq!(world.slots(id), [0, 1]);
    world.run_secs(600);
    assert_eq!((done(&world, id), world.tasks(id).len()), (vec![0, 1], 3));
}

#[test]
fn a_slot_that_its_policy_gives_up_makes_room_for_the_next() {
    let mut world = world(1);
    let mut spec = replicated_job("backup", 3, 1);
    policy(&mut spec).condition = Some(RestartCondition::None);
    let id = world.create(spec);
    world.run_secs(1);
    world.report(world.running(id)[0].id, TaskState::Failed);
    planner::check(&Jobs, &world.view(), world.now);
    world.run_secs(600);
    assert_eq!(done(&world, id), [1, 2], "slot 0 is not tried again");
    world.update(id, |spec| task(spec).force_update += 1);
    world.run_secs(600);
    assert_eq!(done(&world, id), [0, 1, 2], "the next run begins anew");
}

#[test]
fn attempts_are_limited_across_leaders() {
    let mut world = World::new(1);
    world.behaves(|_| ends(1, TaskState::Failed));
    let mut spec = replicated_job("backup", 2, 1);
    policy(&mut spec).max_attempts = Some(3);
    let id = world.create(spec);
    for _ in 0..20 {
        world.run_secs(7);
        world.change_leader();
    }
    assert_eq!(world.tasks(id).len(), 8, "one attempt and three restarts for each slot");
    assert!(world.tasks(id).iter().all(|task| task.desired_state == TaskState::Shutdown));
}

#[test]
fn a_change_begins_a_run_and_gives_the_one_before_up() {
    let mut world = world(2);
    let id = world.create(replicated_job("backup", 3, 2));
    world.run_secs(15);
    assert_eq!((done(&world, id), world.slots(id)), (vec![0, 1], vec![2]));
    world.update(id, |spec| task(spec).force_update += 1);
    world.run_secs(1);
    assert_eq!(world.slots(id), [0, 1]);
    let tasks = world.tasks(id);
    let (new, old): (Vec<_>, Vec<_>) =
        tasks.iter().partition(|task| task.job_iteration == Some(Version(1)));
    assert_eq!(new.len(), 2);
    assert!(old.iter().all(|task| task.status.state == TaskState::Complete), "{old:#?}");
    assert_eq!(old.len(), 2, "what has ended is history, what was at work is gone");
    world.run_secs(600);
    assert_eq!(done(&world, id), [0, 1, 2]);
}

#[test]
fn history_is_limited_but_for_what_counts() {
    let mut world = world(1);
    let id = world.create(replicated_job("backup", 2, 2));
    for _ in 0..20 {
        world.update(id, |spec| task(spec).force_update += 1);
        world.run_secs(30);
        assert_eq!(done(&world, id), [0, 1]);
    }
    assert_eq!(world.tasks(id).len(), 10, "five for each slot");

    world.behaves(|_| ends(1, TaskState::Failed));
    world.update(id, |spec| task(spec).force_update += 1);
    world.run_secs(300);
    assert_eq!(world.tasks(id).len(), 10);
}

#[test]
fn what_is_scaled_runs_again_in_its_new_size() {
    let mut world = world(1);
    let id = world.create(replicated_job("backup", 3, 3));
    world.run_secs(30);
    world.update(id, |spec| spec.mode = replicated_job("", 4, 3).mode);
    world.run_secs(1);
    assert_eq!(world.slots(id), [0, 1, 2]);
    world.run_secs(30);
    assert_eq!(done(&world, id), [0, 1, 2, 3]);
}

#[test]
fn nothing_runs_where_nothing_may_run_at_the_same_time() {
    let mut world = world(1);
    let id = world.create(replicated_job("backup", 3, 0));
    world.run_secs(600);
    assert_eq!(world.tasks(id), []);
}

#[test]
fn tasks_of_a_lost_node_run_elsewhere_and_count_once() {
    let mut world = world(2);
    let id = world.create(replicated_job("backup", 2, 2));
    world.run_secs(1);
    let lost = world.running(id)[0].clone();
    world.lose(lost.node_id.unwrap());
    world.run_secs(6);
    let elsewhere = world.running(id).into_iter().filter(|task| task.slot == lost.slot);
    let heir = elsewhere.max_by_key(|task| task.created_at).unwrap();
    assert_ne!((heir.id, heir.node_id), (lost.id, lost.node_id));
    // The node was only cut off, and its task has completed meanwhile.
    world.report(lost.id, TaskState::Complete);
    world.run_secs(60);
    assert_eq!(done(&world, id), [0, 1]);
    assert_eq!(world.view().tasks.get(heir.id), None, "it was not needed and does not count");
    assert_eq!(world.tasks(id).len(), 2);
}

#[test]
fn a_late_completion_outlives_the_failures_after_it() {
    let mut world = world(2);
    let id = world.create(replicated_job("backup", 1, 1));
    world.run_secs(1);
    let lost = world.running(id)[0].clone();
    world.lose(lost.node_id.unwrap());
    world.behaves(|_| ends(1, TaskState::Failed));
    world.run_secs(120);
    assert!(world.tasks(id).len() >= 5);
    world.report(lost.id, TaskState::Complete);
    world.run_secs(600);
    assert_eq!(done(&world, id), [0]);
    assert!(world.running(id).is_empty());
}

#[test]
fn a_completion_is_kept_whatever_the_limit() {
    let mut world = world(2);
    world.limit_history(0);
    let id = world.create(replicated_job("backup", 1, 1));
    world.run_secs(1);
    let lost = world.running(id)[0].clone();
    world.lose(lost.node_id.unwrap());
    world.run_secs(6);
    let heir = world.running(id).into_iter().find(|task| task.id != lost.id).unwrap();
    // Both at once: the newest task of the slot is not the one that counts.
    let reports = [(heir.id, TaskState::Failed), (lost.id, TaskState::Complete)];
    world.commit(Vec::from(reports.map(|(task, state)| {
        Change::Advance(task, Box::new(TaskStatus::new(state, world.now, "reported")))
    })));
    world.run_secs(600);
    assert_eq!(done(&world, id), [0]);
    assert_eq!(
        world.view().tasks.get(lost.id).map(|task| task.status.state),
        Some(TaskState::Complete)
    );
}

#[test]
fn a_drained_node_hands_its_tasks_on_and_keeps_what_is_done() {
    let mut world = world(2);
    let id = world.create(replicated_job("backup", 4, 2));
    world.run_secs(15);
    let node = world.running(id)[0].node_id.unwrap();
    available(&mut world, node, Availability::Drain);
    world.run_secs(1);
    assert_eq!(world.slots(id), [2, 3]);
    assert!(world.running(id).iter().all(|task| task.node_id != Some(node)));
    world.run_secs(60);
    assert_eq!(done(&world, id), [0, 1, 2, 3]);
}

#[test]
fn a_global_job_runs_once_on_every_node_also_on_new_ones() {
    let mut world = world(3);
    let id = world.create(global_job("check"));
    world.run_secs(60);
    let places = |world: &World| -> BTreeSet<_> {
        completed(&world.view(), id).into_iter().filter_map(|(_, node)| node).collect()
    };
    let nodes = |world: &World| world.view().nodes.iter().map(|node| node.id).collect();
    assert_eq!(places(&world), nodes(&world));
    world.add_node();
    world.run_secs(60);
    assert_eq!(places(&world), nodes(&world));
    assert_eq!(world.tasks(id).len(), 4);
    let drained = world.view().nodes.iter().next().unwrap().id;
    available(&mut world, drained, Availability::Drain);
    world.run_secs(60);
    available(&mut world, drained, Availability::Active);
    world.run_secs(60);
    assert_eq!(world.tasks(id).len(), 4, "a node that is done stays so");
    world.update(id, |spec| task(spec).force_update += 1);
    world.run_secs(60);
    assert_eq!(places(&world), nodes(&world));
    assert_eq!(world.tasks(id).len(), 4, "what the run before left is gone");
}

#[test]
fn a_global_job_leaves_nodes_that_are_not_for_it() {
    let mut world = world(2);
    let nodes: Vec<_> = world.view().nodes.iter().map(|node| node.id).collect();
    available(&mut world, nodes[0], Availability::Pause);
    let id = world.create(global_job("check"));
    world.run_secs(1);
    assert_eq!(world.running(id)[0].node_id, Some(nodes[1]));
    available(&mut world, nodes[1], Availability::Drain);
    world.run_secs(60);
    assert_eq!(completed(&world.view(), id), [], "stopped before it was done");
    for node in nodes {
        available(&mut world, node, Availability::Active);
    }
    world.run_secs(60);
    assert_eq!(completed(&world.view(), id).len(), 2);
}

#[test]
fn a_node_that_fits_no_more_loses_what_runs_and_keeps_what_is_done() {
    let mut world = world(2);
    let mut spec = replicated_job("backup", 4, 2);
    constrain(&mut spec, "node.labels.disk != tape");
    let id = world.create(spec);
    world.run_secs(15);
    let node = world.running(id)[0].node_id.unwrap();
    world.edit_node(node, |node| _ = node.spec.labels.insert("disk".into(), "tape".into()));
    world.run_secs(60);
    assert_eq!(done(&world, id), [0, 1, 2, 3]);
    let states = world.tasks(id).into_iter().filter(|task| task.node_id == Some(node));
    let states: BTreeSet<_> = states.map(|task| task.status.state).collect();
    assert_eq!(states, BTreeSet::from([TaskState::Complete, TaskState::Rejected]));
}

#[test]
fn a_removed_job_leaves_nothing() {
    let mut world = world(2);
    let ids = [world.create(replicated_job("backup", 4, 2)), {
        let mut spec = global_job("check");
        spec.name = "check".to_owned();
        world.create(spec)
    }];
    world.run_secs(15);
    for id in ids {
        let mut service = Service::clone(&world.service(id));
        service.pending_delete = true;
        world.commit(vec![Change::update(service)]);
    }
    world.run_secs(1);
    assert_eq!(world.view().tasks.len() + world.view().services.len(), 0);
}

/// The second attempt is over before it was to start, and the last: the next slot has its turn.
#[test]
fn a_task_that_fails_before_its_delay_for_good_frees_its_place() {
    let mut world = World::new(1);
    world.behaves(|task| match task.slot {
        0 => Behaviour::Rejected,
        _ => ends(4, TaskState::Complete),
    });
    let mut spec = replicated_job("backup", 2, 1);
    policy(&mut spec).max_attempts = Some(1);
    policy(&mut spec).delay = Some(Nanos::from_secs(20));
    let id = world.create(spec);
    world.run_secs(3);
    let tasks = world.tasks(id);
    let wanted: Vec<_> = tasks.iter().filter(|task| task.is_wanted()).collect();
    assert_eq!(wanted.iter().map(|task| task.slot).collect::<Vec<_>>(), [1], "{wanted:#?}");
}

/// How a job with failures goes, told without ids: what each task was and when it began.
fn story(leaders: bool) -> Vec<(u64, TaskState, TaskState, Option<Timestamp>)> {
    let mut world = World::new(2);
    world.behaves(|task| match task.slot {
        1 => ends(3, TaskState::Failed),
        _ => ends(4, TaskState::Complete),
    });
    let mut spec = replicated_job("backup", 5, 2);
    policy(&mut spec).max_attempts = Some(2);
    policy(&mut spec).window = Some(Nanos::from_secs(60));
    let id = world.create(spec);
    for _ in 0..60 {
        world.run_secs(1);
        if leaders {
            world.change_leader();
        }
    }
    let tasks = world.tasks(id);
    let mut story: Vec<_> = tasks
        .iter()
        .map(|task| (task.slot, task.status.state, task.desired_state, task.running_since))
        .collect();
    story.sort_unstable();
    story
}

#[test]
fn a_change_of_leaders_changes_nothing() {
    let story = self::story(false);
    assert_eq!(story.iter().filter(|task| task.1 == TaskState::Complete).count(), 4);
    assert_eq!(story, self::story(true));
}
