//! The store in memory by itself, in the rows of SwarmKit's `BenchmarkMemoryStore…` and of its watch:
//! 10,000 services, one operation on one of them, and one event that so many watches take.

use divan::Bencher;
use swarm_core::id::IdSource;
use swarm_core::model::{Service, ServiceId};
use swarm_core::store::{Batch, Change, MemoryStore, Store, Watch};
use swarm_core::time::Timestamp;

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

/// Changes a label of the next service in turn.
fn update(store: &MemoryStore, ids: &[ServiceId], turn: &mut usize) {
    *turn += 1;
    let id = ids[turn.wrapping_mul(7_919) % ids.len()];
    let mut service = Service::clone(store.snapshot().services.get(id).expect("it is there"));
    service.spec.labels.insert("turn".to_owned(), turn.to_string());
    write(store, vec![Change::update(service)]);
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

/// One update, and every watch takes it.
#[divan::bench(args = [10, 100, 1_000, 10_000])]
fn one_event_to_watches(bencher: Bencher<'_, '_>, count: usize) {
    let ((store, ids), mut turn) = (store(), 0);
    let version = store.snapshot().version();
    let mut watches: Vec<Watch> = (0..count).map(|_| store.watch(version)).collect();
    bencher.bench_local(|| {
        update(&store, &ids, &mut turn);
        for watch in &mut watches {
            assert!(matches!(watch.try_next(), Ok(Some(_))), "each sees each commit");
        }
    });
}
