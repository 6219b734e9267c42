//! The machine stops at every change of the disk of a script, before it, in the middle of it and
//! after it; what was acknowledged is there afterwards, and every start succeeds.

use std::path::Path;
use std::sync::Arc;

use swarm_core::id::IdSource;
use swarm_core::store::Store as _;

use super::sim_disk::{Crash, SimDisk};
use super::{config, create, leads, names};
use crate::{NoPeers, RaftConfig, RaftStore};

/// Commits of the script: enough for several segments, two snapshots and their purges.
const SCRIPT: usize = 48;

fn settings(disk: &SimDisk) -> RaftConfig {
    let mut settings = config(Path::new("/sim"));
    settings.disk = Arc::new(disk.clone());
    settings.snapshot_entries = 16;
    settings.keep_entries = 3;
    settings.segment_bytes = 4 << 10;
    settings.reserve_bytes = 4 << 10;
    settings
}

/// Runs the script until it ends or the machine stops; returns what was acknowledged.
async fn script(disk: &SimDisk) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let Ok(store) = RaftStore::open(settings(disk), Arc::new(NoPeers)).await else {
        return acknowledged;
    };
    let mut ids = IdSource::seeded(1);
    if store.initialize("127.0.0.1:1").await.is_ok() {
        for number in 0..SCRIPT {
            let name = format!("s{number:02}");
            if store.commit(create(&mut ids, &name)).await.is_err() {
                break;
            }
            acknowledged.push(name);
        }
    }
    store.shutdown().await;
    acknowledged
}

/// Opens what the crash left and checks it; returns how many writes were there that nobody was
/// told of.
async fn recover(disk: &SimDisk, acknowledged: &[String], point: &str) -> usize {
    let opened = RaftStore::open(settings(disk), Arc::new(NoPeers)).await;
    let store = opened.unwrap_or_else(|error| panic!("{point}: a start failed: {error}"));
    if !store.is_initialized().await.unwrap() {
        assert!(acknowledged.is_empty(), "{point}: the cluster is gone");
        store.initialize("127.0.0.1:1").await.unwrap();
    }
    leads(&store).await;
    let found = names(&store);
    let expected = &found[..acknowledged.len().min(found.len())];
    assert_eq!(expected, acknowledged, "{point}: an acknowledged write is lost");
    let more = store.commit(create(&mut IdSource::seeded(2), "after")).await;
    assert!(more.is_ok(), "{point}: it must go on, but: {more:?}");
    store.shutdown().await;
    found.len() - acknowledged.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_crash_loses_what_was_acknowledged() {
    let whole = SimDisk::default();
    assert_eq!(script(&whole).await.len(), SCRIPT, "without a crash the script ends");
    let points = whole.changes();
    assert!(points > 2 * SCRIPT as u64, "each commit writes and syncs");
    // One kind of crash at each point, or all of them where there is time.
    let thorough = std::env::var_os("SWARM_TEST_THOROUGH").is_some();
    let mut runs = 0;
    let mut in_doubt = 0;
    for at in 1..=points {
        for (number, crash) in Crash::ALL.into_iter().enumerate() {
            if !thorough && at % 3 != number as u64 {
                continue;
            }
            let disk = SimDisk::default();
            disk.crash_at(at, crash);
            let acknowledged = script(&disk).await;
            let point = format!("change {at} of {points}, {crash:?}");
            let found = disk.after_crash(crash, at);
            in_doubt += recover(&found, &acknowledged, &point).await;
            runs += usize::from(disk.crashed());
        }
    }
    assert!(runs > 100, "the crashes must happen: {runs} did");
    assert!(in_doubt > 0, "some writes must have been cut off between disk and answer");
    println!("{runs} crashes at {points} points, {in_doubt} writes in doubt were kept");
}

#[tokio::test]
async fn a_crash_during_recovery_loses_nothing_either() {
    let disk = SimDisk::default();
    disk.crash_at(120, Crash::Torn);
    let acknowledged = script(&disk).await;
    assert!(acknowledged.len() > 10);
    let mut disk = disk.after_crash(Crash::Torn, 7);
    for at in 1..12 {
        disk.crash_at(at, Crash::ALL[at as usize % 3]);
        if let Ok(store) = RaftStore::open(settings(&disk), Arc::new(NoPeers)).await {
            store.shutdown().await;
        }
        disk = disk.after_crash(Crash::ALL[at as usize % 3], at);
    }
    recover(&disk, &acknowledged, "after many crashes").await;
}

#[tokio::test]
async fn a_failed_sync_stops_the_store_and_is_never_tried_again() {
    let disk = SimDisk::default();
    let store = RaftStore::open(settings(&disk), Arc::new(NoPeers)).await.unwrap();
    store.initialize("127.0.0.1:1").await.unwrap();
    let mut ids = IdSource::seeded(1);
    store.commit(create(&mut ids, "before")).await.unwrap();
    disk.fail_syncs();
    for name in ["during", "after"] {
        let result = store.commit(create(&mut ids, name)).await;
        let stopped = matches!(result, Err(swarm_core::store::CommitError::Stopped(_)));
        assert!(stopped, "{name}: {result:?}");
    }
    store.shutdown().await;
    assert_eq!(disk.failed_syncs(), 1, "after a failed sync nobody knows what is on the disk");
    recover(&disk.after_crash(Crash::Before, 1), &["before".to_owned()], "failed sync").await;
}
