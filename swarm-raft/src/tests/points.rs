//! A script of more than 500 operations, and the machine stops at every change of the disk: before
//! it, in the middle of it and after it. What was acknowledged is there afterwards, nothing is
//! there that nobody wrote, and every start succeeds.
//!
//! The script runs once; the disk shows at each change what each crash there would leave. Every
//! one of these is opened and read, and a part of them (all, with `SWARM_TEST_THOROUGH`) is started
//! as a whole store that has to lead and go on.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::model::{Service, Version};
use swarm_core::store::{Batch, Change, MemoryStore, Snapshot, Store as _};

use super::sim_disk::{Point, SimDisk};
use super::{NOW, config, create, leads, secret, service};
use crate::store::{Files, open_files};
use crate::types::Payload;
use crate::{NoPeers, RaftConfig, RaftStore};

const OPERATIONS: usize = 520;
/// Of the crashes, one in so many is started as a whole store.
const STARTS: u64 = 17;

fn settings(disk: &SimDisk) -> RaftConfig {
    let mut settings = config(Path::new("/sim"));
    settings.disk = Arc::new(disk.clone());
    settings.heartbeat = Duration::from_millis(20);
    settings.election = Duration::from_millis(150);
    settings.snapshot_entries = 40;
    settings.keep_entries = 5;
    settings.segment_bytes = 8 << 10;
    settings.reserve_bytes = 4 << 10;
    settings
}

/// The names of everything in a state: its fingerprint.
fn content(state: &Snapshot) -> BTreeSet<String> {
    let services = state
        .services
        .iter()
        .map(|service| format!("{} {:?}", service.spec.name, service.spec.labels.get("turn")));
    services.chain(state.secrets.iter().map(|secret| secret.spec.name.clone())).collect()
}

/// The next operation: services come, change and go, alone and many at once; secrets of up to
/// some sectors come.
fn operation(number: usize, ids: &mut IdSource, state: &Snapshot) -> Batch {
    let name = format!("o{number:03}");
    let some: Vec<Arc<Service>> = state.services.iter().take(3).cloned().collect();
    match (number % 9, &some[..]) {
        (2, [first, ..]) => {
            let mut service = Service::clone(first);
            service.spec.labels.insert("turn".to_owned(), name);
            Batch::new(NOW, vec![Change::update(service)])
        }
        (4 | 5 | 7, [first, ..]) => Batch::new(NOW, vec![Change::remove(first.id)]),
        (6, _) => secret(ids, &name, &vec![7; (number * 37) % 1_500]),
        (8, [first, second, ..]) => {
            let new = Change::create(service(ids, &name));
            Batch::new(NOW, vec![Change::remove(first.id), new, Change::remove(second.id)])
        }
        _ => create(ids, &name),
    }
}

/// What the script has done: the content after each acknowledged operation.
type Done = Arc<Mutex<Vec<BTreeSet<String>>>>;

/// Runs the script, with a restart in the middle.
async fn script(disk: &SimDisk, done: &Done) {
    let mut ids = IdSource::seeded(1);
    let mut number = 0;
    for until in [OPERATIONS / 2, OPERATIONS] {
        let store = RaftStore::open(settings(disk), Arc::new(NoPeers)).await.unwrap();
        store.initialize("127.0.0.1:1").await.unwrap();
        leads(&store).await;
        while number < until {
            let batch = operation(number, &mut ids, &store.snapshot());
            let version = store.commit(batch).await.unwrap();
            let now = content(&store.snapshot());
            let mut done = done.lock().unwrap();
            assert_eq!(version.0 as usize, done.len(), "each operation is one version");
            done.push(now);
            number += 1;
        }
        store.shutdown().await;
    }
}

/// The state that a start finds, or nothing if the cluster was not there yet.
fn read(disk: &SimDisk, point: &str) -> Snapshot {
    let opened = open_files(&settings(disk));
    let Files { log, snapshots, .. } =
        opened.unwrap_or_else(|error| panic!("{point}: a start failed: {error}"));
    let state = MemoryStore::default();
    let mut applied = None;
    if let Some(image) = snapshots.current() {
        applied = image.meta.last_log_id;
        state.restore(image.state);
    }
    for entry in log.entries().into_iter().filter(|entry| Some(entry.log_id) > applied) {
        if let Payload::Normal(proposal) = entry.payload {
            proposal.batches.iter().for_each(|batch| drop(state.apply(batch)));
        }
    }
    state.snapshot()
}

/// Starts what the crash left as a whole store; it must lead, know the same, and go on.
async fn start(disk: &SimDisk, expected: Snapshot, point: &str) {
    let opened = RaftStore::open(settings(disk), Arc::new(NoPeers)).await;
    let store = opened.unwrap_or_else(|error| panic!("{point}: a start failed: {error}"));
    if !store.is_initialized().await.unwrap() {
        assert_eq!(expected.version(), Version(0), "{point}: the cluster is gone");
        store.initialize("127.0.0.1:1").await.unwrap();
    }
    leads(&store).await;
    assert_eq!(content(&store.snapshot()), content(&expected), "{point}: reading and starting");
    let more = store.commit(create(&mut IdSource::seeded(2), "after")).await;
    assert!(more.is_ok(), "{point}: it must go on, but: {more:?}");
    store.shutdown().await;
}

/// How many operations were acknowledged before a crash, and how many after it.
type Acknowledged = (usize, usize);

/// What a start found after one of the crashes.
struct Found {
    point: String,
    acknowledged: Acknowledged,
    version: usize,
    content: BTreeSet<String>,
}

/// Reads what crashes left, and starts some of it, until there are no more.
fn check(points: &Mutex<Receiver<(Point, Acknowledged)>>, starts: &AtomicUsize) -> Vec<Found> {
    let thorough = std::env::var_os("SWARM_TEST_THOROUGH").is_some();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut all = Vec::new();
    loop {
        let next = points.lock().unwrap().recv();
        let Ok((Point { at, crash, found }, acknowledged)) = next else { return all };
        let point = format!("change {at}, {crash:?}");
        let state = read(&found.copy(), &point);
        let (version, content) = (state.version().0 as usize, content(&state));
        if thorough || (at + crash as u64).is_multiple_of(STARTS) {
            runtime.block_on(start(&found, state, &point));
            starts.fetch_add(1, Ordering::Relaxed);
        }
        all.push(Found { point, acknowledged, version, content });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_crash_loses_what_was_acknowledged() {
    let done: Done = Arc::new(Mutex::new(vec![BTreeSet::new()]));
    let (points, waiting) = sync_channel(16);
    let (waiting, starts) = (Arc::new(Mutex::new(waiting)), Arc::<AtomicUsize>::default());
    let checkers: Vec<_> = (0..4)
        .map(|_| {
            let (waiting, starts) = (waiting.clone(), starts.clone());
            std::thread::spawn(move || check(&waiting, &starts))
        })
        .collect();
    let (disk, acknowledged) = (SimDisk::default(), done.clone());
    disk.record(move || {
        let (points, done) = (points.clone(), acknowledged.clone());
        let acknowledged = move || done.lock().unwrap().len() - 1;
        let before = acknowledged();
        Box::new(move |point| {
            points.send((point, (before, acknowledged()))).expect("a check failed");
        })
    });
    script(&disk, &done).await;
    disk.stop_recording();
    let join = move || checkers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let all: Vec<Found> = tokio::task::spawn_blocking(join).await.unwrap();

    let (done, mut in_doubt) = (done.lock().unwrap(), 0);
    for Found { point, acknowledged: (before, after), version, content } in &all {
        assert!(version >= before, "{point}: {before} acknowledged, {version} there");
        assert!(*version <= after + 1, "{point}: one operation at a time");
        assert_eq!(content, &done[*version], "{point}: what {version} operations made");
        in_doubt += version.saturating_sub(*after);
    }
    let (crashes, starts) = (all.len(), starts.load(Ordering::Relaxed));
    assert_eq!(crashes as u64, 3 * disk.changes(), "three crashes at each change");
    assert!(crashes > 6 * OPERATIONS, "each operation writes and syncs");
    assert!(starts > 200 && in_doubt > OPERATIONS, "{starts} starts, {in_doubt} in doubt");
    println!(
        "{OPERATIONS} operations, {crashes} crashes, {starts} started: none lost a write, \
         {in_doubt} kept one that nobody was told of"
    );
}
