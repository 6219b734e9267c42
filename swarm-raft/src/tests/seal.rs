//! The data keys: sealed and opened, renewed, forgotten, and never lost.

use std::path::Path;
use std::sync::Arc;

use swarm_core::id::IdSource;
use swarm_core::store::Store as _;

use super::sim_disk::{Crash, SimDisk};
use super::{config, create, leads, names, open};
use crate::disk::{Disk as _, replace_file};
use crate::{NoPeers, OpenError, RaftConfig, RaftStore, SealKey};

const DIR: &str = "/sim";

fn settings(disk: &SimDisk, seal: Option<&SealKey>) -> RaftConfig {
    let mut settings = config(Path::new(DIR));
    settings.disk = Arc::new(disk.clone());
    settings.snapshot_entries = 16;
    settings.keep_entries = 3;
    settings.segment_bytes = 4 << 10;
    settings.reserve_bytes = 4 << 10;
    settings.seal = seal.cloned();
    settings
}

fn key(byte: u8) -> SealKey {
    SealKey::from_bytes(&[byte; 32]).unwrap()
}

fn key_file(disk: &SimDisk) -> Vec<u8> {
    disk.read(&Path::new(DIR).join("key")).unwrap()
}

/// Waits until no file needs an old data key.
async fn renewed(store: &RaftStore) {
    let done = async {
        while store.keys.has_old() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), done).await.expect("it ends");
}

async fn crashes(disk: &SimDisk) {
    while !disk.crashed() {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

async fn refused(disk: &SimDisk, seal: Option<&SealKey>) -> OpenError {
    let opened = RaftStore::open(settings(&disk.copy(), seal), Arc::new(NoPeers)).await;
    opened.err().expect("it must not open")
}

#[tokio::test]
async fn sealed_keys_open_with_the_key_that_sealed_them_alone() {
    let disk = SimDisk::default();
    let store = open(settings(&disk, Some(&key(1)))).await;
    store.commit(create(&mut IdSource::seeded(1), "kept")).await.unwrap();
    store.shutdown().await;
    for wrong in [None, Some(&key(2))] {
        let error = refused(&disk, wrong).await;
        assert!(matches!(error, OpenError::Sealed(_)), "{error:?}");
        assert!(error.to_string().contains("/sim/key is sealed"), "{error}");
    }
    // The key that seals may change while the data key stays.
    let store = open(settings(&disk, Some(&key(1)))).await;
    let generation = store.keys.newest();
    store.seal_keys(Some(key(2))).await.unwrap();
    assert_eq!(store.keys.newest(), generation);
    store.shutdown().await;
    assert!(matches!(refused(&disk, Some(&key(1))).await, OpenError::Sealed(_)));
    let store = open(settings(&disk, Some(&key(2)))).await;
    assert_eq!(names(&store), ["kept"]);
    store.seal_keys(None).await.unwrap();
    store.shutdown().await;
    let store = open(settings(&disk, None)).await;
    assert_eq!(names(&store), ["kept"]);
    store.shutdown().await;
}

#[tokio::test]
async fn sealing_plain_keys_makes_the_old_one_worthless() {
    let disk = SimDisk::default();
    let store = open(settings(&disk, None)).await;
    let mut ids = IdSource::seeded(1);
    for number in 0..20 {
        store.commit(create(&mut ids, &format!("s{number:02}"))).await.unwrap();
    }
    let stolen = key_file(&disk);
    let old = store.keys.newest();
    store.seal_keys(Some(key(1))).await.unwrap();
    assert_eq!(store.keys.newest(), old + 1);
    renewed(&store).await;
    store.commit(create(&mut ids, "after")).await.unwrap();
    store.shutdown().await;

    let thief = disk.copy();
    replace_file(&thief, Path::new(DIR), "key", &stolen).unwrap();
    let error = refused(&thief, None).await;
    assert!(error.to_string().contains("sealed with a data key that"), "{error}");
    // Not one file of the directory is of use to the thief.
    for (path, _) in thief.files().into_iter().filter(|(path, _)| !path.ends_with("key")) {
        let salt = disk.read(&path).unwrap()[48..52].try_into().map(u32::from_le_bytes).unwrap();
        assert_eq!(salt, old + 1, "{}", path.display());
    }
    let store = open(settings(&disk, Some(&key(1)))).await;
    assert_eq!(names(&store).len(), 21);
    store.shutdown().await;
}

#[tokio::test]
async fn keys_that_a_start_finds_plain_are_sealed_and_renewed() {
    let disk = SimDisk::default();
    let store = open(settings(&disk, None)).await;
    store.commit(create(&mut IdSource::seeded(1), "kept")).await.unwrap();
    store.shutdown().await;
    let store = open(settings(&disk, Some(&key(1)))).await;
    renewed(&store).await;
    store.shutdown().await;
    assert!(matches!(refused(&disk, None).await, OpenError::Sealed(_)));
    let store = open(settings(&disk, Some(&key(1)))).await;
    assert_eq!((names(&store), store.keys.newest()), (vec!["kept".to_owned()], 2));
    store.shutdown().await;
}

#[tokio::test]
async fn the_key_file_of_the_first_version_is_read() {
    let disk = SimDisk::default();
    let mut bytes = [b"swarmkey".as_slice(), &[9; 32]].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    replace_file(&disk, Path::new(DIR), "key", &bytes).unwrap();
    let store = open(settings(&disk, None)).await;
    store.commit(create(&mut IdSource::seeded(1), "kept")).await.unwrap();
    store.shutdown().await;
    assert_eq!(key_file(&disk), bytes);
    let store = open(settings(&disk, Some(&key(1)))).await;
    renewed(&store).await;
    assert_eq!(names(&store), ["kept"]);
    store.shutdown().await;
}

/// What a script came to.
struct Ran {
    acknowledged: Vec<String>,
    /// The keys that the directory may be sealed with: what it was, and what it was to be.
    seals: [Option<SealKey>; 2],
}

/// Locks, changes the key, unlocks and locks again, writing in between.
async fn script(disk: &SimDisk) -> Ran {
    let mut ran = Ran { acknowledged: Vec::new(), seals: [None, None] };
    let Ok(store) = RaftStore::open(settings(disk, None), Arc::new(NoPeers)).await else {
        return ran;
    };
    let mut ids = IdSource::seeded(1);
    if store.initialize("127.0.0.1:1").await.is_ok() {
        'script: for (round, seal) in [Some(1), Some(2), None, Some(3)].into_iter().enumerate() {
            let seal = seal.map(key);
            for number in 0..4 {
                let name = format!("s{round}{number}");
                if store.commit(create(&mut ids, &name)).await.is_err() {
                    break 'script;
                }
                ran.acknowledged.push(name);
            }
            ran.seals[1].clone_from(&seal);
            if store.seal_keys(seal.clone()).await.is_err() {
                break;
            }
            ran.seals[0] = seal;
            // So that the end of the renewal is among the crash points.
            tokio::select! {
                () = renewed(&store) => {}
                () = crashes(disk) => {}
            }
        }
    }
    store.shutdown().await;
    ran
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_leaves_what_the_old_or_the_new_key_opens() {
    let whole = SimDisk::default();
    assert_eq!(script(&whole).await.acknowledged.len(), 16, "without a crash the script ends");
    let points = whole.changes();
    let thorough = std::env::var_os("SWARM_TEST_THOROUGH").is_some();
    let (mut crashes, mut by_old, mut by_new) = (0, 0, 0);
    for at in 1..=points {
        for (number, crash) in Crash::ALL.into_iter().enumerate() {
            if !thorough && at % 3 != number as u64 {
                continue;
            }
            let disk = SimDisk::default();
            disk.crash_at(at, crash);
            let ran = script(&disk).await;
            let found = disk.after_crash(crash, at);
            let point = format!("change {at} of {points}, {crash:?}");
            crashes += usize::from(disk.crashed());
            let [old, new] = &ran.seals;
            // With the key that it has, a locked node knows that the other one is wrong.
            let opened =
                match RaftStore::open(settings(&found, old.as_ref()), Arc::new(NoPeers)).await {
                    Err(OpenError::Sealed(_)) => {
                        by_new += 1;
                        RaftStore::open(settings(&found, new.as_ref()), Arc::new(NoPeers)).await
                    }
                    opened => {
                        by_old += 1;
                        opened
                    }
                };
            let store = opened.unwrap_or_else(|error| panic!("{point}: a start failed: {error}"));
            if store.is_initialized().await.unwrap() {
                leads(&store).await;
            }
            let names = names(&store);
            assert_eq!(names[..ran.acknowledged.len()], ran.acknowledged, "{point}");
            if store.is_initialized().await.unwrap() {
                renewed(&store).await;
            }
            store.shutdown().await;
        }
    }
    println!("{crashes} crashes at {points} points: {by_old} open with the old key, {by_new} not");
    assert!(crashes > 50 && by_new > 0, "{crashes} crashes, {by_new} between the two keys");
}
