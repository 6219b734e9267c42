//! Scheduling: from tasks that wait to tasks that have nodes, committed to the store.
//!
//! The shapes are SwarmKit's (`manager/scheduler`, `benchScheduler`): so many equal nodes, so many
//! pending tasks of no service; in the constrained ones the tasks are in a network whose driver
//! every third node has. Ours go through the controller and the store in memory, and their end is
//! the last commit. Beside them: tasks that really share nothing, each of a service of its own; the
//! shape of a cluster that comes up, many services of ten tasks, allocation included; and one more
//! decision on a cluster that runs, by its size.

use std::sync::Arc;

use divan::Bencher;
use swarm_core::control::{Controller, Ctx, Planner};
use swarm_core::id::IdSource;
use swarm_core::model::{
    Driver, EnginePlugin, Network, NetworkAttachment, NetworkRef, Node, NodeState, Service,
    ServiceId, Task, TaskState, TaskStatus,
};
use swarm_core::scheduler::{PlacementView, Scheduler as _};
use swarm_core::store::{Batch, Change, Epoch, MemoryStore, Snapshot, Store};
use swarm_core::time::Timestamp;
use swarm_sched::allocate::Allocate;
use swarm_sched::place::{Place, SpreadScheduler};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn main() {
    divan::main();
}

/// Every third node has the driver of the constrained tasks' network.
fn nodes(ids: &mut IdSource, count: usize) -> Vec<Change> {
    let node = |number: usize| {
        let mut node = Node { id: ids.next(), ..Node::default() };
        node.spec.name = format!("name{number}");
        node.status.state = NodeState::Ready;
        let engine = &mut node.description.get_or_insert_default().engine;
        let name = if number.is_multiple_of(3) { "network" } else { "other" };
        let (kind, name) = ("Network".to_owned(), name.to_owned());
        engine.plugins.push(EnginePlugin { kind, name, ..EnginePlugin::default() });
        Change::create(node)
    };
    (0..count).map(node).collect()
}

fn task(ids: &mut IdSource, service: ServiceId, state: TaskState) -> Task {
    Task {
        // As the planners draw it.
        id: if service.is_nil() { ids.next() } else { ids.beside(service) },
        service_id: service,
        desired_state: TaskState::Running,
        status: TaskStatus::new(state, NOW, "made"),
        ..Task::default()
    }
}

/// Pending tasks of no service, as in SwarmKit's benchmark.
fn pending(node_count: usize, task_count: usize, constrained: bool) -> Snapshot {
    let mut ids = IdSource::seeded(1);
    let mut changes = nodes(&mut ids, node_count);
    let mut network = Network { id: ids.next(), ..Network::default() };
    network.driver_state = Some(Driver { name: "network".to_owned(), ..Driver::default() });
    let reference = NetworkRef { id: network.id, ..NetworkRef::default() };
    changes.push(Change::create(network));
    for _ in 0..task_count {
        let mut task = task(&mut ids, ServiceId::NIL, TaskState::Pending);
        if constrained {
            let network = reference.clone();
            task.networks.push(NetworkAttachment { network, ..NetworkAttachment::default() });
        }
        changes.push(Change::create(task));
    }
    stored(changes)
}

/// New tasks of many services, so many each.
fn services(node_count: usize, service_count: usize, each: u64) -> Snapshot {
    let mut ids = IdSource::seeded(2);
    let mut changes = nodes(&mut ids, node_count);
    for number in 0..service_count {
        let mut service = Service { id: ids.next(), ..Service::default() };
        service.spec.name = format!("service{number}");
        let id = service.id;
        changes.push(Change::create(service));
        changes.extend((0..each).map(|_| Change::create(task(&mut ids, id, TaskState::New))));
    }
    stored(changes)
}

fn stored(changes: Vec<Change>) -> Snapshot {
    let store = MemoryStore::default();
    store.apply(&Batch::new(NOW, changes)).expect("the changes are legal");
    store.snapshot()
}

/// What a new leader does: steps and commits until nothing is left to do. Not inlined, so that a
/// profile tells it from the making of what it begins with.
#[inline(never)]
fn settle(start: Snapshot) -> Snapshot {
    let store = MemoryStore::new(start);
    let mut view = store.snapshot();
    let mut watch = store.watch(view.version());
    let planners: Vec<Arc<dyn Planner>> =
        vec![Arc::new(Allocate::default()), Arc::new(Place::default())];
    let mut controller = Controller::new(planners, Epoch(1), &view);
    let mut ids = IdSource::seeded(3);
    loop {
        let step = controller.step(&view, NOW, &mut ids);
        let Some(batch) = step.batch else { break };
        controller.committed(store.apply_owned(batch).expect("a plan can be committed"));
        while let Ok(Some(commit)) = watch.try_next() {
            controller.observe(&commit);
        }
        view = store.snapshot();
    }
    let assigned = |task: &Arc<Task>| task.status.state == TaskState::Assigned;
    assert!(view.tasks.by_service().all(assigned), "every task must have found a node");
    view
}

#[divan::bench(
    sample_count = 10,
    sample_size = 1,
    args = [(1_000, 1_000), (1_000, 10_000), (1_000, 100_000), (100_000, 1_000)]
)]
fn scheduler(bencher: Bencher<'_, '_>, (nodes, tasks): (usize, usize)) {
    let start = pending(nodes, tasks, false);
    bencher.with_inputs(|| start.clone()).bench_local_values(settle);
}

#[divan::bench(
    sample_count = 10,
    sample_size = 1,
    args = [(1_000, 1_000), (1_000, 10_000), (1_000, 100_000)]
)]
fn scheduler_constraints(bencher: Bencher<'_, '_>, (nodes, tasks): (usize, usize)) {
    let start = pending(nodes, tasks, true);
    bencher.with_inputs(|| start.clone()).bench_local_values(settle);
}

#[divan::bench(sample_count = 10, sample_size = 1, args = [(1_000, 100), (1_000, 1_000)])]
fn allocate_and_place_services(bencher: Bencher<'_, '_>, (nodes, count): (usize, usize)) {
    let start = services(nodes, count, 10);
    bencher.with_inputs(|| start.clone()).bench_local_values(settle);
}

#[divan::bench(
    sample_count = 10,
    sample_size = 1,
    args = [(1_000, 1_000), (1_000, 10_000), (1_000, 100_000), (100_000, 1_000)]
)]
fn scheduler_share_nothing(bencher: Bencher<'_, '_>, (nodes, tasks): (usize, usize)) {
    let start = services(nodes, tasks, 1);
    bencher.with_inputs(|| start.clone()).bench_local_values(settle);
}

/// A cluster with ten running tasks on each node, 500 to a service, and one more pending task: of a
/// new service, or of one of those.
fn one_more(nodes: usize, new: bool) -> (Snapshot, Arc<Task>) {
    let mut view = settle(services(nodes, nodes / 50, 500));
    let mut ids = IdSource::seeded(4);
    let known = view.services.iter().next().expect("there are services").id;
    let service = if new { ids.next() } else { known };
    let task = task(&mut ids, service, TaskState::Pending);
    view.stage(Change::create(task.clone()), NOW).expect("it is new");
    (view, Arc::new(task))
}

fn decide(bencher: Bencher<'_, '_>, (view, task): (Snapshot, Arc<Task>)) {
    let scheduler = SpreadScheduler::default();
    let mut ids = IdSource::seeded(5);
    let mut place = || {
        let mut ctx = Ctx { now: NOW, ids: &mut ids, epoch: Epoch(1) };
        let tasks = std::slice::from_ref(&task);
        scheduler.place(&PlacementView { snapshot: &view, service: None, tasks }, &mut ctx)
    };
    // The first answer adds up every node, once in a leader's term.
    assert_eq!(place().placed.len(), 1);
    bencher.bench_local(place);
}

#[divan::bench(args = [1_000, 10_000, 100_000])]
fn one_more_task_of_a_new_service(bencher: Bencher<'_, '_>, nodes: usize) {
    decide(bencher, one_more(nodes, true));
}

#[divan::bench(args = [1_000, 10_000, 100_000])]
fn one_more_task_of_500(bencher: Bencher<'_, '_>, nodes: usize) {
    decide(bencher, one_more(nodes, false));
}
