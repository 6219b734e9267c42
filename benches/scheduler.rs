//! Scheduling: from tasks that wait to tasks that have nodes, committed to the store.
//!
//! The shapes and the work are SwarmKit's (`manager/scheduler`, `benchScheduler`): so many equal nodes,
//! so many tasks for which all has been allocated, of no service; in the constrained ones the tasks are
//! in a network whose driver every third node has. The planner that places is the only one, as the
//! scheduler is there; ours goes through the controller and the store in memory, and the end is the
//! last commit. SwarmKit decides each of those tasks by itself, and our planner asks for all that are
//! alike at once; so beside them are tasks that really share nothing, each of a service of its own:
//! plain, in that network, with placement preferences and with reservations. Then the shape of a
//! cluster that comes up, many services of ten tasks, whose allocation is measured too; and one more
//! decision on a cluster that runs, by its size.

use std::sync::Arc;

use divan::Bencher;
use swarm_core::control::{Controller, Ctx, Planner};
use swarm_core::id::IdSource;
use swarm_core::model::{
    Driver, EnginePlugin, Network, NetworkAttachment, NetworkRef, Node, NodeState,
    PlacementPreference, Resources, Service, ServiceId, SpreadOver, Task, TaskSpec, TaskState,
    TaskStatus,
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

/// What the tasks of a benchmark ask of their nodes.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    /// A plugin that every third node has, by a network that the tasks are in.
    Plugin,
    /// To be spread over sixteen zones, and there over four racks.
    Preferences,
    /// Processor time and memory, in so many sizes.
    Resources(i64),
}

/// Every third node has the driver of the constrained tasks' network. All have room for all.
fn nodes(ids: &mut IdSource, count: usize) -> Vec<Change> {
    let node = |number: usize| {
        let mut node = Node { id: ids.next(), ..Node::default() };
        node.spec.name = format!("name{number}");
        for (label, values) in [("zone", 16), ("rack", 64)] {
            node.spec.labels.insert(label.to_owned(), (number % values).to_string());
        }
        node.status.state = NodeState::Ready;
        let description = node.description.get_or_insert_default();
        description.resources.nano_cpus = 64_000_000_000;
        description.resources.memory_bytes = 256 << 30;
        let name = if number.is_multiple_of(3) { "network" } else { "other" };
        let (kind, name) = ("Network".to_owned(), name.to_owned());
        description.engine.plugins.push(EnginePlugin { kind, name, ..EnginePlugin::default() });
        Change::create(node)
    };
    (0..count).map(node).collect()
}

fn network(ids: &mut IdSource) -> (Change, NetworkAttachment) {
    let mut network = Network { id: ids.next(), ..Network::default() };
    network.driver_state = Some(Driver { name: "network".to_owned(), ..Driver::default() });
    let reference = NetworkRef { id: network.id, ..NetworkRef::default() };
    let attachment = NetworkAttachment { network: reference, ..NetworkAttachment::default() };
    (Change::create(network), attachment)
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
fn pending(node_count: usize, task_count: usize, needs: Needs) -> Snapshot {
    let mut ids = IdSource::seeded(1);
    let mut changes = nodes(&mut ids, node_count);
    let (network, attachment) = network(&mut ids);
    changes.push(network);
    for _ in 0..task_count {
        let mut task = task(&mut ids, ServiceId::NIL, TaskState::Pending);
        if matches!(needs, Needs::Plugin) {
            task.networks.push(attachment.clone());
        }
        changes.push(Change::create(task));
    }
    stored(changes)
}

/// What a planner of every manager does before its tasks are placed.
fn allocator() -> Arc<dyn Planner> {
    Arc::new(Allocate::default())
}

fn placer() -> Arc<dyn Planner> {
    Arc::new(Place::default())
}

/// Pending tasks of many services, so many each, as the allocator leaves them.
fn allocated(nodes: usize, count: usize, each: u64, needs: Needs) -> Snapshot {
    settle(services(nodes, count, each, needs), vec![allocator()])
}

/// New tasks of many services, so many each. Those in the network have been given their addresses.
fn services(node_count: usize, service_count: usize, each: u64, needs: Needs) -> Snapshot {
    let mut ids = IdSource::seeded(2);
    let mut changes = nodes(&mut ids, node_count);
    let (network, attachment) = network(&mut ids);
    changes.push(network);
    for number in 0..service_count {
        let mut service = Service { id: ids.next(), ..Service::default() };
        service.spec.name = format!("service{number}");
        ask(Arc::make_mut(&mut service.spec.task), number, needs);
        let (id, spec) = (service.id, service.spec.task.clone());
        changes.push(Change::create(service));
        changes.extend((0..each).map(|_| {
            let mut task = Task { spec: spec.clone(), ..task(&mut ids, id, TaskState::New) };
            if matches!(needs, Needs::Plugin) {
                task.status.state = TaskState::Pending;
                task.networks.push(attachment.clone());
            }
            Change::create(task)
        }));
    }
    stored(changes)
}

fn ask(spec: &mut TaskSpec, number: usize, needs: Needs) {
    match needs {
        Needs::Nothing | Needs::Plugin => {}
        Needs::Preferences => {
            let over = |label: &str| {
                let descriptor = format!("node.labels.{label}");
                let spread = Some(SpreadOver { descriptor, ..SpreadOver::default() });
                PlacementPreference { spread, ..PlacementPreference::default() }
            };
            let placement = spec.placement.get_or_insert_default();
            placement.preferences = vec![over("zone"), over("rack")];
        }
        Needs::Resources(sizes) => {
            let size = 1 + number as i64 % sizes;
            let (nano_cpus, memory_bytes) = (5_000_000 * (1 + size % 32), (8 << 20) + 1024 * size);
            let amount = Resources { nano_cpus, memory_bytes, ..Resources::default() };
            spec.resources.get_or_insert_default().reservations = Some(amount);
        }
    }
}

fn stored(changes: Vec<Change>) -> Snapshot {
    let store = MemoryStore::default();
    store.apply(&Batch::new(NOW, changes)).expect("the changes are legal");
    store.snapshot()
}

/// What is measured, and nothing else: not inlined, so that a profile tells it from the rest.
#[inline(never)]
fn measured(start: Snapshot, planners: Vec<Arc<dyn Planner>>) -> Snapshot {
    std::hint::black_box(settle(start, planners))
}

/// What a new leader does: steps and commits until nothing is left to do.
fn settle(start: Snapshot, planners: Vec<Arc<dyn Planner>>) -> Snapshot {
    let store = MemoryStore::new(start);
    let mut view = store.snapshot();
    let mut watch = store.watch(view.version());
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
    view
}

fn bench(bencher: Bencher<'_, '_>, start: Snapshot, planners: &[fn() -> Arc<dyn Planner>]) {
    bencher
        .with_inputs(|| (start.clone(), planners.iter().map(|new| new()).collect()))
        .bench_local_values(|(start, planners)| {
            let view = measured(start, planners);
            let assigned = |task: &Arc<Task>| task.status.state == TaskState::Assigned;
            assert!(view.tasks.by_service().all(assigned), "every task must have found a node");
            view
        });
}

#[divan::bench(
    sample_count = 10,
    sample_size = 1,
    args = [(1_000, 1_000), (1_000, 10_000), (1_000, 100_000), (100_000, 1_000)]
)]
fn scheduler(bencher: Bencher<'_, '_>, (nodes, tasks): (usize, usize)) {
    bench(bencher, pending(nodes, tasks, Needs::Nothing), &[placer]);
}

#[divan::bench(
    sample_count = 10,
    sample_size = 1,
    args = [(1_000, 1_000), (1_000, 10_000), (1_000, 100_000)]
)]
fn scheduler_constraints(bencher: Bencher<'_, '_>, (nodes, tasks): (usize, usize)) {
    bench(bencher, pending(nodes, tasks, Needs::Plugin), &[placer]);
}

#[divan::bench(
    sample_count = 10,
    sample_size = 1,
    args = [(1_000, 1_000), (1_000, 10_000), (1_000, 100_000), (100_000, 1_000)]
)]
fn scheduler_share_nothing(bencher: Bencher<'_, '_>, (nodes, tasks): (usize, usize)) {
    bench(bencher, allocated(nodes, tasks, 1, Needs::Nothing), &[placer]);
}

#[divan::bench(
    sample_count = 10,
    sample_size = 1,
    args = [(1_000, 1_000), (1_000, 10_000), (1_000, 100_000)]
)]
fn constraints_share_nothing(bencher: Bencher<'_, '_>, (nodes, tasks): (usize, usize)) {
    bench(bencher, allocated(nodes, tasks, 1, Needs::Plugin), &[placer]);
}

#[divan::bench(
    sample_count = 10,
    sample_size = 1,
    args = [(1_000, 1_000), (1_000, 10_000), (1_000, 100_000)]
)]
fn preferences_share_nothing(bencher: Bencher<'_, '_>, (nodes, tasks): (usize, usize)) {
    bench(bencher, allocated(nodes, tasks, 1, Needs::Preferences), &[placer]);
}

#[divan::bench(sample_count = 10, sample_size = 1, args = [(1_000, 100), (10_000, 100)])]
fn preferences_of_services_of_1000(bencher: Bencher<'_, '_>, (nodes, count): (usize, usize)) {
    bench(bencher, allocated(nodes, count, 1_000, Needs::Preferences), &[placer]);
}

/// Of 32 sizes, which the scheduler knows after the first of each.
#[divan::bench(
    sample_count = 10,
    sample_size = 1,
    args = [(1_000, 1_000), (1_000, 10_000), (1_000, 100_000)]
)]
fn resources_share_nothing(bencher: Bencher<'_, '_>, (nodes, tasks): (usize, usize)) {
    bench(bencher, allocated(nodes, tasks, 1, Needs::Resources(32)), &[placer]);
}

/// Each of a size that no other has.
#[divan::bench(
    sample_count = 10,
    sample_size = 1,
    args = [(1_000, 1_000), (1_000, 10_000), (1_000, 100_000)]
)]
fn resources_of_any_size(bencher: Bencher<'_, '_>, (nodes, tasks): (usize, usize)) {
    bench(bencher, allocated(nodes, tasks, 1, Needs::Resources(i64::MAX)), &[placer]);
}

#[divan::bench(sample_count = 10, sample_size = 1, args = [(1_000, 100), (10_000, 100)])]
fn resources_of_services_of_1000(bencher: Bencher<'_, '_>, (nodes, count): (usize, usize)) {
    bench(bencher, allocated(nodes, count, 1_000, Needs::Resources(32)), &[placer]);
}

#[divan::bench(sample_count = 10, sample_size = 1, args = [(1_000, 100), (1_000, 1_000)])]
fn allocate_and_place_services(bencher: Bencher<'_, '_>, (nodes, count): (usize, usize)) {
    bench(bencher, services(nodes, count, 10, Needs::Nothing), &[allocator, placer]);
}

/// A cluster with ten running tasks on each node, 500 to a service, and one more pending task: of a
/// new service, or of one of those.
fn one_more(nodes: usize, new: bool) -> (Snapshot, Arc<Task>) {
    let start = services(nodes, nodes / 50, 500, Needs::Nothing);
    let mut view = settle(start, vec![allocator(), placer()]);
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
        let mut ctx = Ctx::new(NOW, &mut ids, Epoch(1));
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
