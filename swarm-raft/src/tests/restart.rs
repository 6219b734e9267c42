//! What a restart finds.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use swarm_core::id::IdSource;
use swarm_core::model::{Cluster, Version};
use swarm_core::store::{Batch, Change, Leadership, Store as _};

use super::{NOW, config, create, leads, names, open, secret};
use crate::{MemberError, NoPeers, OpenError, RaftStore};

#[tokio::test]
async fn a_restart_finds_everything_and_leads_in_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let mut ids = IdSource::seeded(1);
    let store = open(config(dir.path())).await;
    let first = store.leadership().borrow().epoch().unwrap();
    for name in ["a", "b", "c"] {
        store.commit(create(&mut ids, name)).await.unwrap();
    }
    let before: Vec<_> = store.snapshot().objects().collect();
    store.shutdown().await;
    let stopped = store.commit(create(&mut ids, "late")).await;
    assert!(matches!(stopped, Err(swarm_core::store::CommitError::Stopped(_))), "{stopped:?}");

    let store = RaftStore::open(config(dir.path()), Arc::new(NoPeers)).await.unwrap();
    assert!(store.is_initialized().await.unwrap());
    leads(&store).await;
    assert!(store.snapshot().objects().eq(before), "a restart must change nothing");
    assert_eq!(store.snapshot().version(), Version(3));
    assert!(store.leadership().borrow().epoch().unwrap() > first, "an epoch never repeats");
    assert_eq!(store.commit(create(&mut ids, "d")).await, Ok(Version(4)));
    store.shutdown().await;
}

#[tokio::test]
async fn whoever_sees_it_lead_sees_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut ids = IdSource::seeded(1);
    for round in 0..5 {
        let store = RaftStore::open(config(dir.path()), Arc::new(NoPeers)).await.unwrap();
        let mut leadership = store.leadership();
        if round == 0 {
            store.initialize("127.0.0.1:1").await.unwrap();
        }
        leadership.wait_for(|now| matches!(now, Leadership::Leader(_))).await.unwrap();
        assert_eq!(names(&store).len(), round, "to lead means to know everything");
        store.commit(create(&mut ids, &format!("s{round}"))).await.unwrap();
        store.shutdown().await;
    }
}

#[tokio::test]
async fn a_new_store_waits_and_an_old_one_is_not_initialised_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = RaftStore::open(config(dir.path()), Arc::new(NoPeers)).await.unwrap();
    assert!(!store.is_initialized().await.unwrap());
    assert_eq!(*store.leadership().borrow(), Leadership::None);
    let commit = store.commit(create(&mut IdSource::seeded(1), "a")).await;
    assert_eq!(commit, Err(swarm_core::store::CommitError::NoLeader));
    store.initialize("10.0.0.1:2377").await.unwrap();
    store.initialize("10.0.0.1:2377").await.unwrap();
    let other = store.initialize("10.0.0.2:2377").await;
    assert_eq!(other, Err(MemberError::Initialized));
    let status = store.status();
    assert_eq!((status.leader, status.members.len()), (Some(1), 1));
    assert_eq!(status.members[0].peer.address, "10.0.0.1:2377");
    store.shutdown().await;
}

#[tokio::test]
async fn a_directory_is_used_once_and_by_its_member() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(config(dir.path())).await;
    let again = RaftStore::open(config(dir.path()), Arc::new(NoPeers)).await;
    assert!(matches!(again, Err(OpenError::Locked(_))), "a directory has one user");
    store.shutdown().await;
    let mut other = config(dir.path());
    other.raft_id = 2;
    let other = RaftStore::open(other, Arc::new(NoPeers)).await.err().unwrap();
    assert!(matches!(other, OpenError::OtherMember { stored: 1, given: 2 }), "{other}");
}

#[tokio::test]
async fn a_snapshot_takes_the_place_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = config(dir.path());
    settings.snapshot_entries = 50;
    settings.keep_entries = 5;
    settings.segment_bytes = 8 << 10;
    let mut ids = IdSource::seeded(1);
    let store = open(settings.clone()).await;
    for number in 0..200 {
        store.commit(create(&mut ids, &format!("s{number:03}"))).await.unwrap();
    }
    let purged = || store.status().purged_index.is_some_and(|index| index > 100);
    for _ in 0..1000 {
        if purged() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(purged(), "the log must be purged behind a snapshot");
    let before: Vec<_> = store.snapshot().objects().collect();
    store.shutdown().await;
    let mut files: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let count = |prefix: &str| files.iter().filter(|name| name.starts_with(prefix)).count();
    assert_eq!(count("snapshot-"), 1, "one snapshot is kept: {files:?}");
    assert!(!files.contains(&"log-00000000000000000001".to_owned()), "old segments go: {files:?}");

    let store = open(settings).await;
    assert!(store.snapshot().objects().eq(before), "snapshot and log must give the same state");
    assert_eq!(store.snapshot().version(), Version(200));
    assert_eq!(store.commit(create(&mut ids, "next")).await, Ok(Version(201)));
    store.shutdown().await;
}

#[tokio::test]
async fn the_clusters_settings_say_how_often_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = config(dir.path());
    settings.keep_entries = 1;
    let mut ids = IdSource::seeded(1);
    let store = open(settings).await;
    let mut cluster = Cluster { id: ids.next(), ..Default::default() };
    cluster.spec.raft.snapshot_interval = 1_000;
    store.commit(Batch::new(NOW, vec![Change::create(cluster.clone())])).await.unwrap();
    for number in 0..30 {
        store.commit(create(&mut ids, &format!("a{number}"))).await.unwrap();
    }
    assert_eq!(store.status().snapshot_index, None, "the interval is long");
    let mut cluster = Cluster::clone(store.snapshot().clusters.get(cluster.id).unwrap());
    cluster.spec.raft.snapshot_interval = 10;
    store.commit(Batch::new(NOW, vec![Change::update(cluster)])).await.unwrap();
    while store.status().snapshot_index.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    store.shutdown().await;
}

#[tokio::test]
async fn many_bytes_are_a_reason_for_a_snapshot_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = config(dir.path());
    settings.snapshot_bytes = 20_000;
    let mut ids = IdSource::seeded(1);
    let store = open(settings).await;
    store.commit(secret(&mut ids, "large", &[7; 20_000])).await.unwrap();
    while store.status().snapshot_index.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    store.shutdown().await;
}

#[tokio::test]
async fn secrets_are_never_plain_on_disk_and_files_are_private() {
    let canary = b"canary-2f9c51d0-never-on-disk";
    let dir = tempfile::tempdir().unwrap();
    let mut settings = config(dir.path());
    settings.snapshot_entries = 10;
    settings.keep_entries = 2;
    let mut ids = IdSource::seeded(1);
    let store = open(settings).await;
    store.commit(secret(&mut ids, "key", canary)).await.unwrap();
    for number in 0..30 {
        let name = format!("canary-2f9c51d0-{number}");
        store.commit(create(&mut ids, &name)).await.unwrap();
    }
    while store.status().snapshot_index.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    store.shutdown().await;
    let base64 = "Y2FuYXJ5LTJmOWM1MWQwLW5ldmVy";
    let mut files = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        for plain in [&canary[..15], base64.as_bytes(), b"ServiceID", b"\"Spec\""] {
            let found = bytes.windows(plain.len()).any(|window| window == plain);
            assert!(!found, "{} holds plain text", path.display());
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{} is for its owner alone", path.display());
        files += 1;
    }
    assert!(files >= 4, "key, lock, log and snapshot are there");
}
