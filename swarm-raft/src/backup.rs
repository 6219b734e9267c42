//! Decides how a store becomes one sealed file while it works, and how a store begins with one.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use swarm_core::store::{Snapshot, Store as _};

use crate::config::RaftConfig;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::frame::{self, FileKind};
use crate::keys::DataKeys;
use crate::log::AtRest;
use crate::record::Base;
use crate::recover::{EPOCH_BITS, Recovered, alone_in, blocking, peers};
use crate::seal::{FileSalt, SealKey, random};
use crate::snapshot::{self, Image, Snapshots};
use crate::store::{RaftStore, lock_dir};
use crate::types::{LogId, SnapshotMeta, StoredMembership, Vote, term};

/// A backup that was read and found whole.
pub struct Backup(Image);

impl RaftStore {
    /// Writes the present state into one new file, sealed with `key`, with which alone it can be
    /// [restored](Self::restore); durable on return. Writes go on meanwhile. A file of that name
    /// is replaced at the end. Returns its size in bytes.
    ///
    /// The state is this member's own: on a follower it may lag. Await a
    /// [`barrier`](swarm_core::store::Store::barrier) first for one that has everything.
    ///
    /// # Errors
    /// [`OpenError::Io`].
    pub async fn backup(&self, to: &Path, key: &SealKey) -> Result<u64, OpenError> {
        let (image, to, key) = (self.image(), to.to_owned(), key.clone());
        let disk = self.config.disk.clone();
        blocking(move || write_file(&*disk, &to, &key, &image)).await
    }

    /// Writes the present state, as [`backup`](Self::backup) does, to wherever the caller wants it,
    /// on a thread that may block. What was cut off is found out when it is [read](Backup::read).
    ///
    /// # Errors
    /// Those of `to`.
    pub async fn backup_into(
        &self,
        mut to: impl Write + Send + 'static,
        key: &SealKey,
    ) -> io::Result<()> {
        let (image, key) = (self.image(), key.clone());
        let written = tokio::task::spawn_blocking(move || {
            let (header, key) = new_file(&key);
            snapshot::frames(&header, &key, &image).try_for_each(|bytes| to.write_all(&bytes))
        });
        written.await?
    }

    /// Puts a [backup](Self::backup) into the directory of `config`: see [`Backup::restore`].
    ///
    /// # Errors
    /// As for [`Backup::read`] and [`Backup::restore`].
    pub async fn restore(
        config: &RaftConfig,
        from: &Path,
        key: &SealKey,
        address: &str,
    ) -> Result<Recovered, OpenError> {
        let (disk, from, key) = (config.disk.clone(), from.to_owned(), key.clone());
        let read = blocking(move || {
            let bytes = disk.read(&from).map_err(OpenError::io("read the backup", &from))?;
            Backup::read(&bytes, &from, &key)
        });
        read.await?.restore(config, address).await
    }

    /// The state and what it is the state after. The state may be newer than that says, never
    /// older.
    fn image(&self) -> Image {
        use openraft_rt::WatchReceiver as _;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last_membership = metrics.membership_config.as_ref().clone();
        let meta = SnapshotMeta { last_log_id: metrics.last_applied, last_membership };
        Image { meta, state: self.snapshot() }
    }
}

impl Backup {
    /// Reads a whole backup; `from` is for errors. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`OpenError::Sealed`] for another key, [`OpenError::Corrupt`] for what is damaged or not whole.
    pub fn read(bytes: &[u8], from: &Path, key: &SealKey) -> Result<Self, OpenError> {
        let salt = frame::decode_header(FileKind::Backup, 0, bytes)
            .map_err(|what| OpenError::corrupt(from, 0, what))?;
        let key = key.file_key(&salt.random);
        // Whatever damage there may be: the first frame is whole, and does not open with another key.
        let first = frame::scan(bytes).frames.into_iter().next();
        if first.is_some_and(|first| key.open(first.number, &bytes[first.sealed]).is_none()) {
            return Err(OpenError::Sealed(from.to_owned()));
        }
        let image = snapshot::read(from, bytes, &key)?;
        match image.meta.last_log_id {
            Some(_) => Ok(Self(image)),
            None => Err(OpenError::Nothing(from.to_owned())),
        }
    }

    /// The state in it.
    #[must_use]
    pub fn state(&self) -> &Snapshot {
        &self.0.state
    }

    /// Puts it into the directory of `config`, which must hold no store, and begins a group anew with
    /// it, as [`RaftStore::force_new_cluster`] does. After a crash in between, the directory does
    /// not open; empty it and restore again.
    ///
    /// # Errors
    /// [`OpenError`], among them [`NotEmpty`](OpenError::NotEmpty) and [`UsedId`](OpenError::UsedId).
    pub async fn restore(self, config: &RaftConfig, address: &str) -> Result<Recovered, OpenError> {
        let (config, address) = (config.clone(), address.to_owned());
        blocking(move || self.put(&config, &address)).await
    }

    fn put(self, config: &RaftConfig, address: &str) -> Result<Recovered, OpenError> {
        let (disk, dir) = (&config.disk, config.dir.as_path());
        let _lock = lock_dir(config)?;
        let names = disk.list(dir).map_err(OpenError::io("list", dir))?;
        if names.iter().any(|name| name != "lock") {
            return Err(OpenError::NotEmpty(dir.to_owned()));
        }
        let Image { meta, state } = self.0;
        let (own, membership) = (config.raft_id, meta.last_membership.membership());
        if membership.nodes().any(|(id, _)| *id == own) {
            return Err(OpenError::UsedId(own));
        }
        let former = peers(membership);
        let last = meta.last_log_id.ok_or_else(|| OpenError::Nothing(dir.to_owned()))?;
        let epoch = (term(&last) >> EPOCH_BITS) + 1;
        let last = LogId::new_term_index(epoch << EPOCH_BITS, last.index + 1);
        let keys = DataKeys::load(disk.clone(), dir, true, config.seal.clone())?;
        // The log first: without the snapshot that it relies on, the directory does not open.
        let vote = Some(Vote::new(epoch << EPOCH_BITS, own));
        let base = Base { raft_id: own, vote, purged: Some(last) };
        AtRest::read(&**disk, dir, &keys)?.go_on(&**disk, dir, &keys, &base, &[])?;
        let last_membership = StoredMembership::new(Some(last), alone_in(own, address)?);
        let meta = SnapshotMeta { last_log_id: Some(last), last_membership };
        let snapshots = Arc::new(Snapshots::open(disk.clone(), dir, keys)?);
        let saved = snapshots.save_now(Image { meta, state });
        saved.map_err(OpenError::io("write the snapshot in", dir))?;
        Ok(Recovered { epoch, former })
    }
}

/// The header of a new backup, and what seals the rest of it.
fn new_file(key: &SealKey) -> (Vec<u8>, crate::seal::FileKey) {
    let salt = FileSalt { generation: 0, random: random() };
    let header = frame::encode_header(FileKind::Backup, 0, &salt);
    (header.to_vec(), key.file_key(&salt.random))
}

fn write_file(disk: &dyn Disk, to: &Path, key: &SealKey, image: &Image) -> Result<u64, OpenError> {
    let (header, key) = new_file(key);
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = to.with_file_name(name);
    let write = || {
        let bytes = snapshot::write(disk, &temporary, &header, &key, image)?;
        disk.rename(&temporary, to)?;
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty());
        disk.sync_dir(dir.unwrap_or(Path::new(".")))?;
        Ok(bytes)
    };
    let written = write();
    if written.is_err() {
        // What there is of it is of no use, and the disk may be full.
        let _ = disk.remove(&temporary);
    }
    written.map_err(OpenError::io("write the backup", to))
}
