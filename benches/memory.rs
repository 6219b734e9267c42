//! The store in memory by itself, in the rows of SwarmKit's `BenchmarkMemoryStore…` and of its watch:
//! 10,000 services, one operation on one of them, many in one transaction, and one event for which so
//! many watches wake up. Then what SwarmKit does not measure: tasks by node and by service, and a
//! commit of the same size in stores of growing size.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use divan::Bencher;
use swarm_core::id::IdSource;
use swarm_core::model::{NodeId, Service, ServiceId, Task, TaskId, TaskState, TaskStatus};
use swarm_core::store::{Batch, Change, MemoryStore, Store};
use swarm_core::time::Timestamp;
use tokio::sync::Notify;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const OBJECTS: usize = 10_000;

fn main() {
    divan::main();
}

fn service(ids: &mut IdSource) -> Service {
    let mut service = Service { id: ids.next(), ..Service::default() };
    service.spec.name = service.id.to_string();
    service
}

fn store() -> (MemoryStore, Vec<ServiceId>) {
    let (store, mut ids) = (MemoryStore::default(), IdSource::seeded(1));
    let services: Vec<_> = (0..OBJECTS).map(|_| service(&mut ids)).collect();
    let created = services.iter().map(|service| service.id).collect();
    write(&store, services.into_iter().map(Change::create).collect());
    (store, created)
}

fn write(store: &MemoryStore, changes: Vec<Change>) {
    store.apply(&Batch::new(NOW, changes)).expect("the change is legal");
}

/// A label of the next service in turn is changed.
fn changed(store: &MemoryStore, ids: &[ServiceId], turn: &mut usize) -> Change {
    *turn += 1;
    let id = ids[turn.wrapping_mul(7_919) % ids.len()];
    let mut service = Service::clone(store.snapshot().services.get(id).expect("it is there"));
    service.spec.labels.insert("turn".to_owned(), turn.to_string());
    Change::update(service)
}

fn update(store: &MemoryStore, ids: &[ServiceId], turn: &mut usize) {
    write(store, vec![changed(store, ids, turn)]);
}

#[divan::bench]
fn create_in_a_commit_of_its_own(bencher: Bencher<'_, '_>) {
    let ((store, _), mut ids) = (store(), IdSource::seeded(2));
    bencher.bench_local(|| write(&store, vec![Change::create(service(&mut ids))]));
}

#[divan::bench]
fn update_in_a_commit_of_its_own(bencher: Bencher<'_, '_>) {
    let ((store, ids), mut turn) = (store(), 0);
    bencher.bench_local(|| update(&store, &ids, &mut turn));
}

/// Reading and changing them included.
#[divan::bench(args = [100, 1_000, 10_000])]
fn updates_in_one_commit(bencher: Bencher<'_, '_>, count: usize) {
    let ((store, ids), mut turn) = (store(), 0);
    bencher.bench_local(|| {
        let changes = (0..count).map(|_| changed(&store, &ids, &mut turn)).collect();
        write(&store, changes);
    });
}

#[divan::bench]
fn snapshot(bencher: Bencher<'_, '_>) {
    let (store, _) = store();
    bencher.bench_local(|| store.snapshot());
}

#[divan::bench]
fn get_by_id(bencher: Bencher<'_, '_>) {
    let ((store, ids), mut turn) = (store(), 0_usize);
    let view = store.snapshot();
    bencher.bench_local(|| {
        turn = turn.wrapping_add(7_919);
        view.services.get(ids[turn % ids.len()]).map(|service| service.revision)
    });
}

#[divan::bench]
fn find_by_name(bencher: Bencher<'_, '_>) {
    let ((store, ids), mut turn) = (store(), 0_usize);
    let view = store.snapshot();
    bencher.bench_local(|| {
        turn = turn.wrapping_add(7_919);
        view.services.named(ids[turn % ids.len()].as_str()).map(|service| service.revision)
    });
}

#[divan::bench]
fn list_all(bencher: Bencher<'_, '_>) {
    let (store, _) = store();
    let view = store.snapshot();
    bencher.bench_local(|| view.services.iter().filter(|service| service.pending_delete).count());
}

/// One update. Each watch sleeps in a task of its own, on this thread, and wakes up to take it.
#[divan::bench(args = [10, 100, 1_000, 10_000])]
fn one_event_wakes_watches(bencher: Bencher<'_, '_>, count: usize) {
    let ((store, ids), mut turn) = (store(), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it can be made");
    let (left, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    for _ in 0..count {
        let mut watch = store.watch(store.snapshot().version());
        let (left, done) = (left.clone(), done.clone());
        runtime.spawn(async move {
            while watch.next().await.is_ok() {
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    done.notify_one();
                }
            }
        });
    }
    bencher.bench_local(|| {
        left.store(count, Ordering::Relaxed);
        update(&store, &ids, &mut turn);
        runtime.block_on(done.notified());
    });
}

/// Running tasks, ten on each node, a hundred to a service.
struct Running {
    store: MemoryStore,
    nodes: Vec<NodeId>,
    services: Vec<ServiceId>,
    tasks: Vec<TaskId>,
}

fn running(count: usize) -> Running {
    let (store, mut ids) = (MemoryStore::default(), IdSource::seeded(3));
    let nodes: Vec<NodeId> = (0..count / 10).map(|_| ids.next()).collect();
    let services: Vec<ServiceId> = (0..count / 100).map(|_| ids.next()).collect();
    let mut tasks = Vec::with_capacity(count);
    for service in &services {
        let task = |_| {
            let task = Task {
                id: ids.beside(*service),
                service_id: *service,
                node_id: Some(nodes[tasks.len() * 7_919 % nodes.len()]),
                desired_state: TaskState::Running,
                status: TaskStatus::new(TaskState::Running, NOW, "started"),
                ..Task::default()
            };
            tasks.push(task.id);
            Change::create(task)
        };
        let changes = (0..100).map(task).collect();
        write(&store, changes);
    }
    Running { store, nodes, services, tasks }
}

#[divan::bench]
fn ten_tasks_of_a_node(bencher: Bencher<'_, '_>) {
    let (cluster, mut turn) = (running(100_000), 0_usize);
    let view = cluster.store.snapshot();
    bencher.bench_local(|| {
        turn = turn.wrapping_add(7_919);
        let tasks = view.tasks_on(cluster.nodes[turn % cluster.nodes.len()]);
        assert_eq!(tasks.filter(|task| task.status.state == TaskState::Running).count(), 10);
    });
}

#[divan::bench]
fn hundred_tasks_of_a_service(bencher: Bencher<'_, '_>) {
    let (cluster, mut turn) = (running(100_000), 0_usize);
    let view = cluster.store.snapshot();
    bencher.bench_local(|| {
        turn = turn.wrapping_add(7_919);
        let tasks = view.tasks_of(cluster.services[turn % cluster.services.len()]);
        assert_eq!(tasks.filter(|task| task.status.state == TaskState::Running).count(), 100);
    });
}

/// A hundred tasks, each of another service and on another node, in a store of so many.
#[divan::bench(sample_count = 200, sample_size = 1, args = [10_000, 100_000, 1_000_000])]
fn commit_of_100_among(bencher: Bencher<'_, '_>, count: usize) {
    let (cluster, mut turn) = (running(count), 0_usize);
    let batch = || {
        let view = cluster.store.snapshot();
        let changes = (0..100).map(|_| {
            turn += 101;
            let id = cluster.tasks[turn % count];
            let mut task = Task::clone(view.tasks.get(id).expect("it is there"));
            task.status.message = format!("looked at {turn}").into();
            Change::update(task)
        });
        Batch::new(NOW, changes.collect())
    };
    bencher.with_inputs(batch).bench_local_values(|batch| {
        cluster.store.apply_owned(batch).expect("the changes are legal")
    });
}
