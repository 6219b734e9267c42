//! Bits flip in every file; what was not written is never applied.

use std::path::Path;
use std::sync::Arc;

use swarm_core::id::IdSource;
use swarm_core::store::{Object, Store as _};

use super::sim_disk::SimDisk;
use super::{config, create, names};
use crate::store::{Files, open_files};
use crate::types::Entry;
use crate::{NoPeers, OpenError, RaftConfig, RaftStore};

fn settings(disk: &SimDisk) -> RaftConfig {
    let mut settings = config(Path::new("/sim"));
    settings.disk = Arc::new(disk.clone());
    settings.snapshot_entries = 10;
    settings.keep_entries = 4;
    settings.segment_bytes = 2 << 10;
    settings.reserve_bytes = 1 << 10;
    settings
}

/// A disk with a snapshot, whole segments and one that a crash left open.
async fn disk() -> SimDisk {
    let disk = SimDisk::default();
    let store = RaftStore::open(settings(&disk), Arc::new(NoPeers)).await.unwrap();
    store.initialize("127.0.0.1:1").await.unwrap();
    let mut ids = IdSource::seeded(1);
    for number in 0..24 {
        store.commit(create(&mut ids, &format!("s{number:02}"))).await.unwrap();
    }
    while store.status().purged_index.is_none_or(|index| index < 10) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let left = disk.copy();
    assert_eq!(names(&store).len(), 24);
    store.shutdown().await;
    left
}

/// What a start finds: entries and the snapshot's objects.
fn read(disk: &SimDisk) -> Result<(Vec<Entry>, Vec<Object>), OpenError> {
    let Files { log, snapshots, .. } = open_files(&settings(disk))?;
    let objects = snapshots.current().map(|image| image.state.objects().collect());
    Ok((log.entries(), objects.unwrap_or_default()))
}

#[tokio::test]
async fn a_flipped_bit_is_refused_or_harmless_wherever_it_is() {
    let disk = disk().await;
    let whole = read(&disk.copy()).unwrap();
    assert!(whole.0.len() > 5 && whole.1.len() > 5);
    let (mut refused, mut harmless, mut flips) = (0, 0, 0);
    for (path, len) in disk.files() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let stride = 1 + len / 600;
        for byte in (0..len).step_by(stride) {
            let damaged = disk.copy();
            damaged.flip(&path, byte, (byte % 8) as u8);
            flips += 1;
            match read(&damaged) {
                Ok(found) => {
                    assert!(found == whole, "{name}: damage at {byte} of {len} was applied");
                    harmless += 1;
                }
                Err(OpenError::Corrupt { .. } | OpenError::OtherMember { .. }) => refused += 1,
                Err(error) => panic!("{name}: damage at {byte} of {len}: {error}"),
            }
        }
    }
    println!("{flips} flips: {refused} refused, {harmless} harmless");
    assert!(refused > 500, "{refused} of {flips} were refused");
}

#[tokio::test]
async fn a_missing_file_is_refused() {
    let disk = disk().await;
    let files = disk.files();
    let logs: Vec<_> =
        files.iter().filter(|(path, _)| path.to_str().unwrap().contains("log-")).collect();
    assert!(logs.len() >= 3, "{files:?}");
    let middle = &logs[logs.len() / 2].0;
    let others = files.iter().filter(|(path, _)| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("snapshot") || name == "key"
    });
    for path in others.map(|(path, _)| path).chain([middle]) {
        let damaged = disk.copy();
        crate::Disk::remove(&damaged, path).unwrap();
        let error = read(&damaged).err();
        let refused = matches!(error, Some(OpenError::Corrupt { .. } | OpenError::Io { .. }));
        assert!(refused, "{} is missing: {error:?}", path.display());
    }
}

#[tokio::test]
async fn the_message_says_what_to_do() {
    let disk = disk().await;
    let (path, _) = disk.files().into_iter().find(|(p, _)| p.ends_with("key")).unwrap();
    disk.flip(&path, 9, 0);
    let text = read(&disk).unwrap_err().to_string();
    assert!(text.contains("/sim/key is damaged") && text.contains("let it join again"), "{text}");
}
