//! The store: commits per second and their latency, by the number of concurrent writers.
//!
//! Each writer updates a service of its own, again and again, and waits for each acknowledgement;
//! in the last rows a commit creates 200 objects. Percentiles matter here, so the harness is our
//! own: `cargo bench --bench store`, with `SWARM_BENCH_DIR` for the disk to measure and
//! `SWARM_BENCH_SECONDS` for the length of a row.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm_core::id::IdSource;
use swarm_core::model::Service;
use swarm_core::store::{Batch, Change, Leadership, MemoryStore, Store};
use swarm_core::time::Timestamp;
use swarm_raft::{LocalLinks, Peer, RaftConfig, RaftStore};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const WRITERS: [usize; 4] = [1, 8, 64, 256];
const BATCH: usize = 200;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(run());
}

async fn run() {
    let base = std::env::var_os("SWARM_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(base).expect("the directory can be written");
    println!("{:28} {:>8} {:>12} {:>10} {:>10}", "store", "writers", "commits/s", "p50", "p99");
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::default());
    for writers in WRITERS {
        row("memory", &memory, writers).await;
    }
    for members in [1, 3] {
        let group = group(&dir.path().join(members.to_string()), members).await;
        let leader: Arc<dyn Store> = group[0].clone();
        let name = format!("raft, fsync, {members} member(s)");
        for writers in WRITERS {
            row(&name, &leader, writers).await;
        }
        batches(&name, &leader).await;
        for store in &group {
            store.shutdown().await;
        }
    }
    restart(&dir.path().join("1")).await;
}

/// How long a single member takes from the start to leading with everything replayed.
async fn restart(dir: &Path) {
    let started = Instant::now();
    let group = group(dir, 1).await;
    let (elapsed, status) = (started.elapsed(), group[0].status());
    let entries = status.last_log_index.unwrap_or(0) - status.purged_index.unwrap_or(0);
    let objects = group[0].snapshot().objects().count();
    println!("restart: {objects} objects, {entries} entries of log: {elapsed:.0?} until it leads");
    group[0].shutdown().await;
}

/// A group in this process; the first member leads.
async fn group(dir: &Path, members: u64) -> Vec<Arc<RaftStore>> {
    let links = LocalLinks::default();
    let mut group: Vec<Arc<RaftStore>> = Vec::new();
    for raft_id in 1..=members {
        let config = RaftConfig::new(dir.join(raft_id.to_string()), raft_id);
        let store = RaftStore::open(config, links.link(raft_id)).await.expect("it opens");
        links.join(&store);
        let address = format!("member-{raft_id}");
        match group.first() {
            None => store.initialize(&address).await.expect("it is new"),
            Some(first) => {
                first.add_member(&Peer { raft_id, address }).await.expect("it is admitted");
            }
        }
        group.push(store);
    }
    let mut leadership = group[0].leadership();
    let leads = leadership.wait_for(|now| matches!(now, Leadership::Leader(_))).await;
    drop(leads.expect("the first member leads"));
    group
}

fn service(ids: &mut IdSource) -> Service {
    let mut service = Service { id: ids.next(), ..Service::default() };
    service.spec.name = service.id.to_string();
    service
}

fn seconds() -> Duration {
    let seconds = std::env::var("SWARM_BENCH_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

async fn row(name: &str, store: &Arc<dyn Store>, writers: usize) {
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..writers {
        tasks.spawn(write(store.clone(), started + seconds()));
    }
    let mut latencies = Vec::new();
    while let Some(written) = tasks.join_next().await {
        latencies.extend(written.expect("a writer ends"));
    }
    report(name, writers, 1, latencies, started.elapsed());
}

async fn write(store: Arc<dyn Store>, until: Instant) -> Vec<Duration> {
    let mut ids = IdSource::random();
    let mut service = service(&mut ids);
    let id = service.id;
    let mut change = Change::create(service);
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        store.commit(Batch::new(NOW, vec![change])).await.expect("a legal write");
        latencies.push(started.elapsed());
        let snapshot = store.snapshot();
        service = Service::clone(snapshot.services.get(id).expect("it is there"));
        service.spec.labels.insert("n".to_owned(), latencies.len().to_string());
        change = Change::update(service);
    }
    latencies
}

/// One writer that creates many objects in each commit, and removes them in the next.
async fn batches(name: &str, store: &Arc<dyn Store>) {
    let (started, mut ids) = (Instant::now(), IdSource::random());
    let mut latencies = Vec::new();
    let mut before: Vec<Change> = Vec::new();
    while started.elapsed() < seconds() {
        let created: Vec<Service> = (0..BATCH).map(|_| service(&mut ids)).collect();
        let removals = created.iter().map(|service| Change::remove(service.id)).collect();
        let mut changes = std::mem::replace(&mut before, removals);
        changes.extend(created.into_iter().map(Change::create));
        let committed = Instant::now();
        store.commit(Batch::new(NOW, changes)).await.expect("a legal write");
        latencies.push(committed.elapsed());
    }
    report(&format!("{name}, {BATCH} each"), 1, BATCH, latencies, started.elapsed());
}

fn report(
    name: &str,
    writers: usize,
    each: usize,
    mut latencies: Vec<Duration>,
    elapsed: Duration,
) {
    latencies.sort_unstable();
    let at = |percent: usize| {
        let index = (latencies.len() * percent / 100).min(latencies.len() - 1);
        format!("{:.2} ms", latencies[index].as_secs_f64() * 1e3)
    };
    #[allow(clippy::cast_precision_loss)]
    let rate = (latencies.len() * each) as f64 / elapsed.as_secs_f64();
    println!("{name:28} {writers:>8} {rate:>12.0} {:>10} {:>10}", at(50), at(99));
}
