//! Large states: time and peak memory to snapshot and to restore them, and how a leader's writes fare
//! while a new manager gets one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use swarm::core::id::IdSource;
use swarm::core::model::{Blob, Config, Task};
use swarm::core::store::{Batch, Change, Leadership, Store};
use swarm::core::time::Timestamp;
use swarm::raft::{LocalLinks, Peer, RaftConfig, RaftStore};

use crate::load;
use crate::process::memory_of;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const TASKS: usize = 100_000;
/// Tasks in a commit.
const TOGETHER: usize = 500;
/// The size of one config of the large state, and how many have 500 MB in all.
const LARGE: usize = 500_000;
const CONFIGS: usize = 1_000;

/// Writes the tasks and has a snapshot of them taken; says how long that took.
pub(crate) async fn take(dir: &Path) {
    let store = open(dir, &LocalLinks::default(), 1).await;
    store.initialize("a:1").await.expect("it is new");
    let mut ids = IdSource::seeded(1);
    let service = ids.next();
    for first in (0..TASKS).step_by(TOGETHER) {
        let task = |slot| Task {
            id: ids.next(),
            service_id: service,
            slot: slot as u64,
            ..Task::default()
        };
        let changes = (first..first + TOGETHER).map(task).map(Change::create).collect();
        store.commit(Batch::new(NOW, changes)).await.expect("a legal write");
    }
    let before = memory(true)[0];
    let started = Instant::now();
    let size = snapshot(&store, dir).await;
    let (took, peak) = (started.elapsed(), memory(false)[1]);
    println!(
        "snapshot of {TASKS} tasks: {took:.0?}, {} on disk, memory {} with them, {} at the peak",
        mega(size),
        mega(before),
        mega(peak)
    );
    store.shutdown().await;
}

/// Opens what [`take`] left.
pub(crate) async fn restore(dir: &Path) {
    let (before, started) = (memory(true)[0], Instant::now());
    let store = open(dir, &LocalLinks::default(), 1).await;
    let read = started.elapsed();
    let mut leadership = store.leadership();
    let leads = leadership.wait_for(|now| matches!(now, Leadership::Leader(_)));
    drop(leads.await.expect("it leads alone"));
    let took = started.elapsed();
    assert_eq!(store.snapshot().tasks.iter().count(), TASKS);
    let [after, peak] = memory(false);
    println!(
        "restored: {read:.0?}, leads after {took:.0?}; memory {} before, {} after, {} at the peak",
        mega(before),
        mega(after),
        mega(peak)
    );
    store.shutdown().await;
}

/// A new manager gets 500 MB while a client goes on writing.
pub(crate) async fn catch_up(dir: &Path) {
    let links = LocalLinks::default();
    let store = open(&dir.join("1"), &links, 1).await;
    store.initialize("a:1").await.expect("it is new");
    let mut ids = IdSource::seeded(1);
    for number in 0..CONFIGS {
        let bytes: Vec<u8> = (0..LARGE).map(|at| (at * 31 + number) as u8).collect();
        create(&store, &mut ids, &bytes).await;
    }
    let started = Instant::now();
    let size = snapshot(&store, &dir.join("1")).await;
    println!("snapshot of 500 MB: {:.1?}, {} on disk", started.elapsed(), mega(size));

    let joined = open(&dir.join("2"), &links, 2).await;
    let done = Arc::new(AtomicBool::new(false));
    let quiet = write_until(&store, Duration::from_secs(5), &AtomicBool::new(false)).await;
    let writes = {
        let (store, done) = (store.clone(), done.clone());
        tokio::spawn(async move { write_until(&store, Duration::MAX, &done).await })
    };
    memory(true);
    let started = Instant::now();
    let peer = Peer { raft_id: 2, address: "a:2".to_owned() };
    store.add_learner(&peer).await.expect("it is admitted");
    while joined.snapshot().configs.iter().count() < CONFIGS {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = started.elapsed();
    done.store(true, Ordering::Relaxed);
    let busy = writes.await.expect("it ends");
    println!("sent to a new manager: {took:.1?}, {} both at the peak", mega(memory(false)[1]));
    println!(
        "writes before  {:6.0} /s, p50 {:.2} ms, p99 {:.2} ms",
        quiet.rate(),
        quiet.p50,
        quiet.p99
    );
    println!(
        "writes during  {:6.0} /s, p50 {:.2} ms, p99 {:.2} ms",
        busy.rate(),
        busy.p50,
        busy.p99
    );
    joined.shutdown().await;
    store.shutdown().await;
}

async fn open(dir: &Path, links: &LocalLinks, raft_id: u64) -> Arc<RaftStore> {
    let mut config = RaftConfig::new(dir, raft_id);
    // The snapshot is taken when the bench says.
    (config.snapshot_entries, config.snapshot_bytes) = (u64::MAX, u64::MAX);
    let store = RaftStore::open(config, links.link(raft_id)).await.expect("it opens");
    links.join(&store);
    store
}

async fn create(store: &RaftStore, ids: &mut IdSource, bytes: &[u8]) {
    let mut config = Config { id: ids.next(), ..Config::default() };
    config.spec.name = config.id.to_string();
    config.spec.data = Blob(Arc::from(bytes));
    store.commit(Batch::new(NOW, vec![Change::create(config)])).await.expect("a legal write");
}

async fn write_until(store: &RaftStore, length: Duration, done: &AtomicBool) -> load::Achieved {
    let (mut ids, started, mut latencies) = (IdSource::random(), Instant::now(), Vec::new());
    while started.elapsed() < length && !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        create(store, &mut ids, &crate::value(0)).await;
        latencies.push(begun.elapsed());
    }
    load::measure(latencies, started.elapsed())
}

/// Has a snapshot taken, and returns its size.
async fn snapshot(store: &RaftStore, dir: &Path) -> u64 {
    store.take_snapshot().await.expect("it runs");
    let files = std::fs::read_dir(dir).expect("the directory").filter_map(Result::ok);
    let named =
        |file: &std::fs::DirEntry| file.file_name().to_string_lossy().starts_with("snapshot-");
    files.filter(named).map(|file| file.metadata().expect("a file").len()).sum()
}

/// Resident memory of this process now and at its peak; the peak can begin anew.
fn memory(reset: bool) -> [u64; 2] {
    if reset {
        // Where it is refused, the peak is that of the whole life.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
    memory_of(&std::fs::read_to_string("/proc/self/status").expect("/proc"))
}

fn mega(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let mega = bytes as f64 / 1e6;
    format!("{mega:.0} MB")
}
