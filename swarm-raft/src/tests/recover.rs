//! A cluster goes on with what one manager has, or with a backup, and is never taken for the one
//! that was lost.

use std::path::Path;
use std::sync::{Arc, Mutex};

use swarm_core::id::IdSource;
use swarm_core::store::Store as _;

use super::group::{join, peer, three, until};
use super::sim_disk::{Point, SimDisk};
use super::{config, create, leads, names};
use crate::{
    LocalLinks, NoPeers, OpenError, RaftConfig, RaftStore, Recovered, SealKey, recovery_epoch,
};

fn on(disk: &SimDisk, raft_id: u64) -> RaftConfig {
    let mut settings = config(Path::new("/sim"));
    settings.disk = Arc::new(disk.clone());
    settings.raft_id = raft_id;
    settings.snapshot_entries = 10;
    settings.keep_entries = 3;
    settings.segment_bytes = 4 << 10;
    settings.reserve_bytes = 1 << 10;
    settings
}

async fn begin_anew(settings: &RaftConfig) -> Recovered {
    RaftStore::force_new_cluster(settings, "10.0.0.9:2377").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_goes_on_alone_and_the_others_are_another_group() {
    let (dir, links) = (tempfile::tempdir().unwrap(), LocalLinks::default());
    let [first, second, third] = three(dir.path(), &links).await;
    let mut ids = IdSource::seeded(1);
    for number in 0..30 {
        first.commit(create(&mut ids, &format!("s{number:02}"))).await.unwrap();
    }
    until("the last one must have it all", || names(&third).len() == 30).await;
    for store in [first, second, third] {
        store.shutdown().await;
    }
    let mut settings = super::group::settings(dir.path(), 3);
    let used = RaftStore::force_new_cluster(&settings, "10.0.0.3:2377").await;
    assert!(matches!(used, Err(OpenError::UsedId(3))), "it is still the id of a voter: {used:?}");
    settings.raft_id = 9;
    let recovered = begin_anew(&settings).await;
    assert_eq!(recovered.former, [peer(1), peer(2), peer(3)]);
    assert_eq!(recovered.epoch, 1);

    let alone = RaftStore::open(settings.clone(), links.link(9)).await.unwrap();
    links.join(&alone);
    leads(&alone).await;
    assert_eq!(names(&alone).len(), 30, "every object is kept");
    let status = alone.status();
    assert_eq!(status.members.len(), 1, "the others are dropped: {status:?}");
    alone.commit(create(&mut ids, "mine")).await.unwrap();

    // The others turn out to live: they are a group of their own, of a lower epoch for ever.
    let (first, second) = (join(dir.path(), &links, 1).await, join(dir.path(), &links, 2).await);
    let epoch = |store: &RaftStore| store.leadership().borrow().epoch();
    until("they can elect", || epoch(&first).or(epoch(&second)).is_some()).await;
    let (old, new) = (epoch(&first).or(epoch(&second)).unwrap(), epoch(&alone).unwrap());
    assert!(recovery_epoch(old) < recovery_epoch(new), "{old:?} and {new:?}");
    let lead = if epoch(&first).is_some() { &first } else { &second };
    lead.commit(create(&mut ids, "theirs")).await.unwrap();
    alone.commit(create(&mut ids, "mine too")).await.unwrap();
    assert!(!names(&alone).contains(&"theirs".to_owned()));
    assert!(!names(lead).contains(&"mine".to_owned()));

    // One that was emptied joins the new group.
    second.shutdown().await;
    drop(second);
    std::fs::remove_dir_all(dir.path().join("2")).unwrap();
    let joined = join(dir.path(), &links, 12).await;
    alone.add_member(&peer(12)).await.unwrap();
    until("it gets everything", || names(&joined) == names(&alone)).await;
    for store in [first, alone, joined] {
        store.shutdown().await;
    }
}

#[tokio::test]
async fn it_can_be_repeated_and_nothing_is_not_recovered() {
    let disk = SimDisk::default();
    let nothing = RaftStore::force_new_cluster(&on(&disk, 1), "a:1").await;
    assert!(nothing.is_err(), "there is nothing to recover");
    let store = RaftStore::open(on(&disk, 1), Arc::new(NoPeers)).await.unwrap();
    store.shutdown().await;
    let nothing = RaftStore::force_new_cluster(&on(&disk, 5), "a:1").await;
    assert!(matches!(nothing, Err(OpenError::Nothing(_))), "{nothing:?}");

    let store = RaftStore::open(on(&disk, 1), Arc::new(NoPeers)).await.unwrap();
    store.initialize("a:1").await.unwrap();
    store.commit(create(&mut IdSource::seeded(1), "kept")).await.unwrap();
    store.shutdown().await;
    for epoch in 1..4 {
        let settings = on(&disk, 100 + epoch);
        for _ in 0..2 {
            assert_eq!(begin_anew(&settings).await.epoch, epoch, "once with each id");
        }
        let store = RaftStore::open(settings, Arc::new(NoPeers)).await.unwrap();
        leads(&store).await;
        assert_eq!(recovery_epoch(store.leadership().borrow().epoch().unwrap()), epoch);
        assert_eq!(names(&store), ["kept"]);
        store.shutdown().await;
    }
    let old = RaftStore::open(on(&disk, 1), Arc::new(NoPeers)).await;
    assert!(matches!(old, Err(OpenError::OtherMember { stored: 103, given: 1 })));
}

/// A disk with a snapshot and entries after it.
async fn grown() -> (SimDisk, Vec<String>) {
    let disk = SimDisk::default();
    let store = RaftStore::open(on(&disk, 1), Arc::new(NoPeers)).await.unwrap();
    store.initialize("a:1").await.unwrap();
    let mut ids = IdSource::seeded(1);
    for number in 0..25 {
        store.commit(create(&mut ids, &format!("s{number:02}"))).await.unwrap();
    }
    let names = names(&store);
    store.shutdown().await;
    (disk, names)
}

#[tokio::test]
async fn a_crash_on_the_way_leaves_the_old_group_or_the_new_one() {
    let (disk, kept) = grown().await;
    let points = Arc::new(Mutex::new(Vec::new()));
    let found = points.clone();
    disk.record(move || {
        let found = found.clone();
        Box::new(move |point| found.lock().unwrap().push(point))
    });
    begin_anew(&on(&disk, 7)).await;
    disk.stop_recording();
    let points = std::mem::take(&mut *points.lock().unwrap());
    assert!(points.len() > 10, "{} crashes", points.len());
    for Point { at, crash, found } in points {
        // Whoever repeats it gets the new group.
        let recovered = begin_anew(&on(&found, 7)).await;
        assert_eq!(recovered.epoch, 1, "{at} {crash:?}");
        let store = RaftStore::open(on(&found, 7), Arc::new(NoPeers)).await.unwrap();
        leads(&store).await;
        assert_eq!(names(&store), kept, "{at} {crash:?}");
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_taken_while_writes_go_on_and_begins_a_group_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = super::open(config(&dir.path().join("old"))).await;
    let mut ids = IdSource::seeded(1);
    for number in 0..50 {
        store.commit(create(&mut ids, &format!("s{number:02}"))).await.unwrap();
    }
    let (file, key) = (dir.path().join("backup"), SealKey::generate());
    let (store_, mut more) = (store.clone(), IdSource::seeded(2));
    let writes = tokio::spawn(async move {
        for number in 0..50 {
            store_.commit(create(&mut more, &format!("t{number:02}"))).await.unwrap();
        }
    });
    let bytes = store.backup(&file, &key).await.unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().len(), bytes);
    writes.await.unwrap();
    store.shutdown().await;

    let mut settings = config(&dir.path().join("new"));
    let used = RaftStore::restore(&settings, &file, &key, "b:1").await;
    assert!(matches!(used, Err(OpenError::UsedId(1))), "{used:?}");
    settings.raft_id = 2;
    let other = RaftStore::restore(&settings, &file, &SealKey::generate(), "b:1").await;
    assert!(matches!(other, Err(OpenError::Sealed(_))), "{other:?}");
    let recovered = RaftStore::restore(&settings, &file, &key, "b:1").await.unwrap();
    assert_eq!(recovered.epoch, 1);
    let again = RaftStore::restore(&settings, &file, &key, "b:1").await;
    assert!(matches!(again, Err(OpenError::NotEmpty(_))), "{again:?}");
    for round in 0..2 {
        let restored = RaftStore::open(settings.clone(), Arc::new(NoPeers)).await.unwrap();
        leads(&restored).await;
        let found = names(&restored);
        assert!(found.len() >= 50 + round && found[49] == "s49", "{found:?}");
        assert_eq!(restored.status().members[0].peer.address, "b:1");
        restored.commit(create(&mut ids, &format!("u{round}"))).await.unwrap();
        restored.shutdown().await;
    }
}

#[tokio::test]
async fn a_backup_that_is_damaged_is_refused() {
    let (disk, _) = grown().await;
    let store = RaftStore::open(on(&disk, 1), Arc::new(NoPeers)).await.unwrap();
    leads(&store).await;
    let (file, key) = (Path::new("/sim/backup"), SealKey::generate());
    let len = store.backup(file, &key).await.unwrap() as usize;
    store.shutdown().await;
    let mut refused = 0;
    for byte in (0..len).step_by(1 + len / 200) {
        let copy = disk.copy();
        copy.flip(file, byte, (byte % 8) as u8);
        let settings = RaftConfig { dir: "/other".into(), ..on(&copy, 2) };
        match RaftStore::restore(&settings, file, &key, "b:1").await {
            Err(OpenError::Corrupt { .. } | OpenError::Sealed(_)) => refused += 1,
            // The simulated disk has one directory for all.
            Err(OpenError::NotEmpty(_)) => {}
            other => panic!("byte {byte} of {len}: {other:?}"),
        }
    }
    assert!(refused > 150, "{refused} were refused");
}
