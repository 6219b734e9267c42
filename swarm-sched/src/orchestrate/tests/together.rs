//! The orchestrators with the real allocator and scheduler behind them.

use std::sync::Arc;
use std::time::Duration;

use swarm_core::conformance::planner;
use swarm_core::control::{Controller, Planner};
use swarm_core::id::IdSource;
use swarm_core::model::*;
use swarm_core::store::{Batch, Change, Epoch, MemoryStore, Store as _};
use swarm_core::time::{Nanos, Timestamp};

use super::world::{
    Behaviour, World, global, global_job, policy, replicated, replicated_job, set_image, task,
};
use crate::place::SpreadScheduler;

const NOW: Timestamp = Timestamp::from_secs(1_000);

/// A store with nodes that take tasks.
fn cluster(nodes: usize, ids: &mut IdSource) -> MemoryStore {
    let store = MemoryStore::default();
    let node = |_| {
        let status = NodeStatus { state: NodeState::Ready, ..Default::default() };
        let description = Some(NodeDescription::default());
        Change::create(Node { id: ids.next(), status, description, ..Default::default() })
    };
    store.apply(&Batch::new(NOW, (0..nodes).map(node).collect())).unwrap();
    store
}

fn planners() -> Vec<Arc<dyn Planner>> {
    crate::default_planners([], Arc::new(SpreadScheduler::default()))
}

/// Lets a leader work until it has nothing left to do now.
fn settle(store: &MemoryStore, ids: &mut IdSource) {
    let planners = planners();
    for _ in 0..10 {
        let view = store.snapshot();
        let step = Controller::new(planners.clone(), Epoch(1), &view).step(&view, NOW, ids);
        match step.batch {
            Some(batch) => store.apply(&batch).unwrap(),
            None => return,
        };
    }
    panic!("the plans never come to an end");
}

#[test]
fn an_update_without_room_for_two_says_so() {
    let mut ids = IdSource::seeded(3);
    let store = cluster(1, &mut ids);
    let mut spec = replicated("a", 1);
    task(&mut spec).placement = Some(Placement { max_replicas: 1, ..Default::default() });
    spec.update_config =
        Some(UpdateConfig { order: Some(UpdateOrder::StartFirst), ..Default::default() });
    let id = ids.next();
    let service = Service { id, spec, ..Default::default() };
    store.apply(&Batch::new(NOW, vec![Change::create(service)])).unwrap();
    settle(&store, &mut ids);
    let old = store.snapshot().tasks_of(id).next().unwrap().id;
    let runs = TaskStatus::new(TaskState::Running, NOW, "started");
    store.apply(&Batch::new(NOW, vec![Change::Advance(old, Box::new(runs))])).unwrap();

    let mut service = Service::clone(store.snapshot().services.get(id).unwrap());
    set_image(&mut service.spec, "b");
    store.apply(&Batch::new(NOW, vec![Change::update(service)])).unwrap();
    settle(&store, &mut ids);
    let view = store.snapshot();
    let new = view.tasks_of(id).find(|task| task.id != old).unwrap();
    let why = "no suitable node (max replicas per node limit exceed)";
    assert_eq!((new.status.state, &*new.status.err), (TaskState::Pending, why));
    let status = view.services.get(id).unwrap().update_status.clone().unwrap();
    assert_eq!(status.state, UpdateState::Updating);
    assert_eq!(status.message, format!("update in progress; waiting for task {}: {why}", new.id));
    assert!(view.tasks.get(old).unwrap().is_wanted(), "the old one serves meanwhile");
}

#[test]
fn one_commit_takes_a_service_from_its_specification_to_its_nodes() {
    let mut ids = IdSource::seeded(3);
    let (store, now) = (cluster(2, &mut ids), NOW);
    let mut everywhere = global("agent");
    everywhere.name = "agent".to_owned();
    let mut job = replicated_job("backup", 5, 2);
    job.name = "backup".to_owned();
    let mut check = global_job("check");
    check.name = "check".to_owned();
    let services = [replicated("nginx", 5), everywhere, job, check];
    let services = services.map(|spec| Service { id: ids.next(), spec, ..Default::default() });
    let changes = services.into_iter().map(Change::create);
    store.apply(&Batch::new(now, changes.collect())).unwrap();

    let planners = planners();
    let mut controller = Controller::new(planners.clone(), Epoch(1), &store.snapshot());
    let step = controller.step(&store.snapshot(), now, &mut ids);
    store.apply(&step.batch.expect("there is much to do")).unwrap();

    let view = store.snapshot();
    assert_eq!(view.tasks.len(), 7 + 2 + 2);
    assert!(view.tasks.iter().all(|task| task.status.state == TaskState::Assigned));
    for planner in planners {
        planner::check(&*planner, &view, now);
    }
}

/// A service of one task, which fails after a second wherever it comes first; how many tasks failed
/// there before one of them ran elsewhere, if one did in half an hour.
fn attempts_on_a_bad_node(
    history: Option<i64>,
    delay: Duration,
    lead: impl Fn(&mut World),
) -> Option<u64> {
    let mut world = World::with(4, planners());
    history.into_iter().for_each(|limit| world.limit_history(limit));
    let bad = world.view().nodes.iter().map(|node| node.id).min();
    world.behaves(move |task| match task.node_id == bad {
        true => Behaviour::Ends(Duration::from_secs(1), TaskState::Failed),
        false => Behaviour::Runs,
    });
    let mut spec = replicated("crashing", 1);
    policy(&mut spec).delay = Some(Nanos::from(delay));
    let id = world.create(spec);
    for _ in 0..360 {
        world.run_secs(5);
        lead(&mut world);
        let kept = world.tasks(id).len();
        assert!(kept <= history.unwrap_or(5).max(1) as usize + 1, "{kept} tasks are kept");
    }
    let ran = world.running(id).into_iter().find(|task| task.node_id != bad);
    ran.map(|task| task.turn)
}

#[test]
fn one_task_that_keeps_failing_on_a_node_goes_elsewhere_whatever_the_history_limit() {
    let (delay, stay) = (Duration::from_secs(5), |_: &mut World| ());
    for history in [None, Some(0), Some(1), Some(3), Some(20)] {
        assert_eq!(attempts_on_a_bad_node(history, delay, stay), Some(5), "{history:?}");
    }
}

#[test]
fn so_it_does_where_every_attempt_has_another_leader() {
    let change = |world: &mut World| world.change_leader_to(planners());
    for history in [None, Some(1)] {
        assert_eq!(attempts_on_a_bad_node(history, Duration::from_secs(5), change), Some(5));
    }
}

#[test]
fn failures_that_are_five_minutes_apart_are_no_reason_to_leave() {
    let delay = Duration::from_secs(80);
    assert_eq!(attempts_on_a_bad_node(Some(1), delay, |_| ()), None);
}
