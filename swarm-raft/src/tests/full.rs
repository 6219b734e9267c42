//! A disk that fills up refuses writes, and takes them again once there is room.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::store::{CommitError, Store as _};

use super::sim_disk::{Crash, SimDisk};
use super::{config, leads, names, secret};
use crate::{NoPeers, RaftConfig, RaftStore};

fn settings(disk: &SimDisk) -> RaftConfig {
    let mut settings = config(Path::new("/sim"));
    settings.disk = Arc::new(disk.clone());
    settings.segment_bytes = 64 << 10;
    settings.reserve_bytes = 32 << 10;
    settings
}

async fn open(disk: &SimDisk) -> Arc<RaftStore> {
    let store = RaftStore::open(settings(disk), Arc::new(NoPeers)).await.unwrap();
    store.initialize("127.0.0.1:1").await.unwrap();
    leads(&store).await;
    store
}

/// Writes until a write fails; returns how many did not, and the failure.
async fn fill(store: &RaftStore, ids: &mut IdSource) -> (usize, CommitError) {
    for written in 0..1000 {
        let name = format!("f{}", ids.below(u64::MAX));
        if let Err(error) = store.commit(secret(ids, &name, &[7; 2000])).await {
            return (written, error);
        }
    }
    panic!("the disk must fill up");
}

async fn recovers(store: &RaftStore, ids: &mut IdSource) {
    for _ in 0..500 {
        if store.commit(secret(ids, "after", b"x")).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("writes must go on once there is room");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_recovers_by_itself() {
    let disk = SimDisk::default();
    let store = open(&disk).await;
    let mut ids = IdSource::seeded(1);
    disk.set_room(Some(disk.used() + 200_000));
    let (written, error) = fill(&store, &mut ids).await;
    assert!(written > 10, "there was room for {written}");
    assert!(matches!(error, CommitError::ReadOnly(_)), "{error:?}");
    assert_eq!(store.snapshot().secrets.len(), written, "reads go on, nothing half is there");
    assert!(store.leadership().borrow().epoch().is_some(), "it still leads");
    disk.set_room(None);
    recovers(&store, &mut ids).await;
    store.shutdown().await;
    let store = open(&disk.after_crash(Crash::Before, 1)).await;
    assert_eq!(store.snapshot().secrets.len(), written + 1);
    store.shutdown().await;
}

#[tokio::test]
async fn a_write_that_runs_out_of_space_is_taken_back_and_tried_again() {
    let disk = SimDisk::default().without_reservations();
    let store = open(&disk).await;
    let mut ids = IdSource::seeded(1);
    disk.set_room(Some(disk.used() + 20_000));
    let (written, error) = fill(&store, &mut ids).await;
    assert!(matches!(error, CommitError::Unknown(_)), "it may still happen: {error:?}");
    let (none, error) = fill(&store, &mut ids).await;
    assert!(none == 0 && matches!(error, CommitError::ReadOnly(_)), "{error:?}");
    let crashed = disk.after_crash(Crash::After, 1);
    disk.set_room(None);
    recovers(&store, &mut ids).await;
    assert_eq!(store.snapshot().secrets.len(), written + 2, "what waited for room happened");
    store.shutdown().await;
    let store = open(&crashed).await;
    assert_eq!(store.snapshot().secrets.len(), written, "a crash while full loses nothing");
    store.shutdown().await;
    assert!(names(&store).is_empty());
}

#[tokio::test]
async fn a_full_disk_can_be_shut_down_and_opened() {
    let disk = SimDisk::default().without_reservations();
    let store = open(&disk).await;
    let mut ids = IdSource::seeded(1);
    disk.set_room(Some(disk.used() + 20_000));
    let (written, _) = fill(&store, &mut ids).await;
    store.shutdown().await;
    disk.set_room(None);
    let store = open(&disk).await;
    let found = store.snapshot().secrets.len();
    assert!(found == written || found == written + 1, "{found} of {written}");
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_gives_the_lead_away() {
    let links = crate::LocalLinks::default();
    let (mut disks, mut stores) = (Vec::new(), Vec::<Arc<RaftStore>>::new());
    for raft_id in 1..=3 {
        let disk = SimDisk::default();
        let mut settings = settings(&disk);
        settings.raft_id = raft_id;
        settings.heartbeat = Duration::from_millis(50);
        settings.election = Duration::from_millis(700);
        let store = RaftStore::open(settings, links.link(raft_id)).await.unwrap();
        links.join(&store);
        let peer = crate::Peer { raft_id, address: format!("m:{raft_id}") };
        match stores.first() {
            None => store.initialize(&peer.address).await.unwrap(),
            Some(first) => first.add_member(&peer).await.unwrap(),
        }
        disks.push(disk);
        stores.push(store);
    }
    let mut ids = IdSource::seeded(1);
    disks[0].set_room(Some(disks[0].used() + 100_000));
    let (written, error) = fill(&stores[0], &mut ids).await;
    assert!(written > 10 && matches!(error, CommitError::ReadOnly(_)), "{written}: {error:?}");
    let leads = |store: &Arc<RaftStore>| store.leadership().borrow().epoch().is_some();
    super::group::until("one with room must lead", || leads(&stores[1]) || leads(&stores[2])).await;
    recovers(&stores[0], &mut ids).await;
    disks[0].set_room(None);
    let all = |store: &Arc<RaftStore>| store.snapshot().secrets.len() == written + 1;
    super::group::until("it catches up once there is room", || stores.iter().all(all)).await;
    for store in stores {
        store.shutdown().await;
    }
}
