//! The machine stops while it recovers from a crash; a sync fails, wherever it is. What was
//! acknowledged is there afterwards. ([`points`](super::points) stops it everywhere else.)

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
    disk.fail_syncs_after(0);
    for name in ["during", "after"] {
        let result = store.commit(create(&mut ids, name)).await;
        let stopped = matches!(result, Err(swarm_core::store::CommitError::Stopped(_)));
        assert!(stopped, "{name}: {result:?}");
    }
    let why = store.why_stopped().await;
    assert!(why.contains("the log cannot be written: cannot sync: input/output error"), "{why}");
    store.shutdown().await;
    assert_eq!(store.why_stopped().await, why, "the first reason stays");
    assert_eq!(disk.failed_syncs(), 1, "after a failed sync nobody knows what is on the disk");
    recover(&disk.after_crash(Crash::Before, 1), &["before".to_owned()], "failed sync").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_sync_fails_nothing_acknowledged_is_lost() {
    let mut stopped = 0;
    for syncs in 0.. {
        let disk = SimDisk::default();
        disk.fail_syncs_after(syncs);
        let acknowledged = script(&disk).await;
        if disk.failed_syncs() == 0 {
            break;
        }
        // One of the log and one of a snapshot may be under way at once; neither is retried.
        assert!(disk.failed_syncs() <= 2, "sync {syncs}: {} were tried", disk.failed_syncs());
        stopped += 1;
        // The pages that could not be written are gone.
        let found = disk.after_crash(Crash::Before, syncs);
        recover(&found, &acknowledged, &format!("sync {syncs} failed")).await;
    }
    assert!(stopped > SCRIPT, "{stopped} syncs failed");
}
