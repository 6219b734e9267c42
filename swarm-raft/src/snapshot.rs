//! Snapshots on disk: the whole state at one entry of the log, so that the log before it can go.
//!
//! A snapshot is a sealed, framed file: what it holds, then objects, then their count. It is
//! written under another name, synced, renamed and the directory synced; a name that ends in the
//! number of an entry is therefore always a whole snapshot. One is kept.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use swarm_core::model::Version;
use swarm_core::store::{Object, Snapshot};
use tracing::{info, warn};

use crate::disk::{Disk, is_full};
use crate::error::OpenError;
use crate::frame::{self, FileKind, Tail};
use crate::keys::DataKeys;
use crate::record::Members;
use crate::seal::FileKey;
use crate::types::{LogId, SnapshotMeta, StoredMembership, term};

const PREFIX: &str = "snapshot-";
const TMP: &str = "snapshot.tmp";
/// Objects of about this many bytes share a frame.
const FRAME_BYTES: usize = 256 << 10;
/// How long to wait before a full disk is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A state and the entry that it is the state after.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) meta: SnapshotMeta,
    pub(crate) state: Snapshot,
}

/// What a snapshot says of itself; also the head of its transfer to another manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Term and index of the last entry in it.
    last: Option<(u64, u64)>,
    /// Term and index of the entry that set the members.
    members_at: Option<(u64, u64)>,
    members: Members,
    version: u64,
}

impl Head {
    pub(crate) fn of(image: &Image) -> Self {
        let pair = |id: &LogId| (term(id), id.index);
        let membership = &image.meta.last_membership;
        Self {
            last: image.meta.last_log_id.as_ref().map(pair),
            members_at: membership.log_id().as_ref().map(pair),
            members: Members::from(membership.membership()),
            version: image.state.version().0,
        }
    }

    /// The image with this head and these objects.
    pub(crate) fn image(self, objects: Vec<Object>) -> Result<Image, String> {
        let id = |(term, index)| LogId::new_term_index(term, index);
        let members = self.members.try_into().map_err(|bad| format!("{bad}"))?;
        let meta = SnapshotMeta {
            last_log_id: self.last.map(id),
            last_membership: StoredMembership::new(self.members_at.map(id), members),
        };
        Ok(Image { meta, state: Snapshot::from_objects(Version(self.version), objects) })
    }
}

/// The objects of a state as JSON arrays of a modest size each.
pub(crate) fn parts(state: &Snapshot) -> impl Iterator<Item = Vec<u8>> + '_ {
    let mut objects = state.objects().peekable();
    std::iter::from_fn(move || {
        objects.peek()?;
        let mut part = vec![b'['];
        while part.len() < FRAME_BYTES
            && let Some(object) = objects.next()
        {
            if part.len() > 1 {
                part.push(b',');
            }
            serde_json::to_writer(&mut part, &object).expect("the model has a JSON form");
        }
        part.push(b']');
        Some(part)
    })
}

/// The snapshots of one manager.
pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    keys: DataKeys,
    /// The one that is on disk. Shares its objects with the present state.
    current: Mutex<Option<Image>>,
    /// How large it is.
    bytes: AtomicU64,
    /// The generation of the data key that seals it.
    generation: AtomicU32,
    /// Held while one is written; says whether the store is closed.
    closed: Mutex<bool>,
}

impl Snapshots {
    /// Reads the newest snapshot and removes every other. Blocks.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, keys: DataKeys) -> Result<Self, OpenError> {
        let names = disk.list(dir).map_err(OpenError::io("list", dir))?;
        let newest = names.iter().filter(|name| is_snapshot(name)).max().cloned();
        let (mut current, mut bytes, mut generation) = (None, 0, 0);
        if let Some(name) = &newest {
            let path = dir.join(name);
            let content = disk.read(&path).map_err(OpenError::io("read", &path))?;
            bytes = content.len() as u64;
            let index = name.strip_prefix(PREFIX).and_then(|index| index.parse().ok()).unwrap_or(0);
            let salt = frame::decode_header(FileKind::Snapshot, index, &content)
                .map_err(|what| OpenError::corrupt(&path, 0, what))?;
            let key = keys.file_key(&salt);
            let key = key.ok_or_else(|| OpenError::corrupt(&path, 0, frame::NO_KEY))?;
            (current, generation) = (Some(read(&path, &content, &key)?), salt.generation);
        }
        let (current, closed) = (Mutex::new(current), Mutex::new(false));
        let (bytes, generation) = (AtomicU64::new(bytes), AtomicU32::new(generation));
        let snapshots =
            Self { disk, dir: dir.to_owned(), keys, current, bytes, generation, closed };
        snapshots.remove_others(newest.as_deref());
        Ok(snapshots)
    }

    /// The snapshot that is on disk.
    pub(crate) fn current(&self) -> Option<Image> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How large the snapshot on disk is, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The generation of the data key that seals the snapshot on disk, if there is one.
    pub(crate) fn generation(&self) -> Option<u32> {
        self.current().map(|_| self.generation.load(Ordering::Relaxed))
    }

    /// Writes a snapshot; durable on return. Waits for room on a full disk: the log still has
    /// everything, so a store without a new snapshot is whole.
    pub(crate) async fn save(self: &Arc<Self>, image: Image) -> io::Result<()> {
        loop {
            let (snapshots, image) = (self.clone(), image.clone());
            match tokio::task::spawn_blocking(move || snapshots.save_now(image)).await? {
                Err(error) if is_full(&error) => {
                    warn!(%error, "no room for a snapshot: trying again");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                result => return result,
            }
        }
    }

    /// Waits for a snapshot that is being written; none is written afterwards.
    pub(crate) async fn close(self: &Arc<Self>) {
        let snapshots = self.clone();
        let close = move || *snapshots.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let _ = tokio::task::spawn_blocking(close).await;
    }

    pub(crate) fn save_now(&self, image: Image) -> io::Result<()> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(io::Error::other("the store is closed"));
        }
        let index = image.meta.last_log_id.map_or(0, |id| id.index);
        let (tmp, name) = (self.dir.join(TMP), file_name(index));
        let (salt, key) = self.keys.new_file();
        let header = frame::encode_header(FileKind::Snapshot, index, &salt);
        let written = write(&*self.disk, &tmp, &header, &key, &image);
        if written.is_err() {
            // A full disk needs the room, and nothing else uses the name.
            let _ = self.disk.remove(&tmp);
        }
        let bytes = written?;
        self.disk.rename(&tmp, &self.dir.join(&name))?;
        self.disk.sync_dir(&self.dir)?;
        info!(index, bytes, objects = image.state.objects().count(), "wrote a snapshot");
        self.bytes.store(bytes, Ordering::Relaxed);
        self.generation.store(salt.generation, Ordering::Relaxed);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(image);
        self.remove_others(Some(&name));
        Ok(())
    }

    /// A failure costs space only, and the next snapshot tries again.
    fn remove_others(&self, keep: Option<&str>) {
        for name in self.disk.list(&self.dir).unwrap_or_default() {
            if (name == TMP || is_snapshot(&name)) && Some(name.as_str()) != keep {
                let path = self.dir.join(name);
                if let Err(error) = self.disk.remove(&path) {
                    warn!(path = %path.display(), %error, "cannot remove an old snapshot");
                }
            }
        }
    }
}

fn file_name(index: u64) -> String {
    format!("{PREFIX}{index:020}")
}

/// Whether a file of this name is a whole snapshot.
pub(crate) fn is_snapshot(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|index| index.parse::<u64>().is_ok())
}

/// Writes an image to a new file behind this header; durable on return. Returns its size.
pub(crate) fn write(
    disk: &dyn Disk,
    path: &Path,
    header: &[u8],
    key: &FileKey,
    image: &Image,
) -> io::Result<u64> {
    let mut file = disk.create(path)?;
    let mut end = 0;
    for bytes in frames(header, key, image) {
        file.write_at(end, &bytes)?;
        end += bytes.len() as u64;
    }
    file.sync()?;
    Ok(end)
}

/// The bytes of a file with this header, one frame after the other.
pub(crate) fn frames(header: &[u8], key: &FileKey, image: &Image) -> impl Iterator<Item = Vec<u8>> {
    let json = "the model has a JSON form";
    let head = serde_json::to_vec(&Head::of(image)).expect(json);
    let count = serde_json::to_vec(&image.state.objects().count()).expect(json);
    let plain = std::iter::once(head).chain(parts(&image.state)).chain([count]);
    let sealed = plain.enumerate().map(|(at, plain)| frame::encode_frame(key, at as u64, &plain));
    std::iter::once(header.to_vec()).chain(sealed)
}

/// Reads an image from a whole file whose header has been read.
pub(crate) fn read(path: &Path, bytes: &[u8], key: &FileKey) -> Result<Image, OpenError> {
    let corrupt = |offset, what: String| OpenError::corrupt(path, offset, what);
    let scan = frame::scan(bytes);
    if let Tail::Rotten(what) = scan.tail {
        return Err(corrupt(scan.end, what.to_owned()));
    }
    let [head, parts @ .., count] = scan.frames.as_slice() else {
        return Err(corrupt(scan.end, "its end is missing".to_owned()));
    };
    // One frame in the clear at a time.
    let open = |frame: &frame::Frame| {
        let what = "its seal was not made with this key".to_owned();
        let opened = key.open(frame.number, &bytes[frame.sealed.clone()]);
        opened.ok_or_else(|| corrupt(frame.sealed.start, what))
    };
    let bad = |error: serde_json::Error| corrupt(0, format!("it cannot be read: {error}"));
    let head: Head = serde_json::from_slice(&open(head)?).map_err(bad)?;
    let mut objects = Vec::new();
    for part in parts {
        objects.extend(serde_json::from_slice::<Vec<Object>>(&open(part)?).map_err(bad)?);
    }
    if serde_json::from_slice::<usize>(&open(count)?).ok() != Some(objects.len()) {
        return Err(corrupt(scan.end, "its end is missing".to_owned()));
    }
    head.image(objects).map_err(|what| corrupt(0, what))
}
