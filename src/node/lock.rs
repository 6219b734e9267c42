//! How a manager's keys are locked (autolock), and what unlocks them: the file `unlock.json`.
//!
//! With autolock a random *node key* seals what else is secret on this node's disk: the data keys
//! of its store and the key of its certificate. The cluster's unlock key seals the node key, here
//! alone. So the rotation of the unlock key replaces one small file, and whatever crashes, one key
//! opens the node: the old one or the new one. (SwarmKit seals each with the unlock key itself.)
//!
//! Locking writes this file first, unlocking removes its key last; every other file says by itself
//! whether it is sealed, and the next start puts right what is not as this file says. Keys that
//! were plain on the disk are renewed when the node is locked, by the store and by the renewer.
//!
//! The file names the revision of the cluster object that it follows: a log that is replayed shows
//! older keys, which must not come back. A manager that was down during a rotation is unlocked
//! with the old key and learns of the new one from the log, by itself.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use swarm_raft::{Disk, SealKey, replace_file};

const FILE: &str = "unlock.json";

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stored {
    /// The revision of the cluster object that said so.
    revision: u64,
    /// The node key, sealed with the unlock key, in base64; absent while the node is not locked.
    sealed: Option<String>,
}

/// What is known once the node is unlocked.
#[derive(Clone, Default)]
struct Known {
    revision: u64,
    keys: Option<Keys>,
}

#[derive(Clone)]
struct Keys {
    unlock: SealKey,
    node: SealKey,
}

/// The lock of one node.
pub(super) struct Lock {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Absent until the file was read, and opened if it is sealed.
    known: Mutex<Option<Known>>,
}

impl Lock {
    /// The lock of the node whose state is in this directory.
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir, known: Mutex::default() }
    }

    /// Whether the node waits for its key.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn is_locked(&self) -> io::Result<bool> {
        if self.known().is_some() {
            return Ok(false);
        }
        let stored = self.read()?;
        let locked = stored.as_ref().is_some_and(|stored| stored.sealed.is_some());
        if !locked {
            let revision = stored.map_or(0, |stored| stored.revision);
            *self.known() = Some(Known { revision, keys: None });
        }
        Ok(locked)
    }

    /// Tries a key; says whether it is the right one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn unlock(&self, unlock: &SealKey) -> io::Result<bool> {
        let Some(Stored { revision, sealed: Some(sealed) }) = self.read()? else { return Ok(true) };
        let sealed = STANDARD.decode(sealed).map_err(|_| self.damaged())?;
        let opened = unlock.open(&purpose(revision), &sealed);
        let Some(node) = opened.and_then(|bytes| SealKey::from_bytes(&bytes)) else {
            return Ok(false);
        };
        let keys = Some(Keys { unlock: unlock.clone(), node });
        *self.known() = Some(Known { revision, keys });
        Ok(true)
    }

    /// What seals this node's other keys; absent while it is not to be locked.
    pub(super) fn node_key(&self) -> Option<SealKey> {
        self.known().as_ref()?.keys.as_ref().map(|keys| keys.node.clone())
    }

    /// Whether the cluster's unlock key, as of a revision, is what this node follows already.
    pub(super) fn follows(&self, revision: u64, unlock: Option<&SealKey>) -> bool {
        let known = self.known();
        let Some(known) = known.as_ref() else { return false };
        revision <= known.revision || known.keys.as_ref().map(|keys| &keys.unlock) == unlock
    }

    /// Takes a key for the node's lock; durable on return. The node key stays if there is one.
    ///
    /// # Errors
    /// The file is as before or as asked for; try again.
    pub(super) fn lock_with(&self, revision: u64, unlock: SealKey) -> io::Result<()> {
        let node = self.node_key().unwrap_or_else(SealKey::generate);
        self.write(Known { revision, keys: Some(Keys { unlock, node }) })
    }

    /// Leaves the node unlocked; durable on return. Nothing may be sealed with the node key now.
    ///
    /// # Errors
    /// The file is as before or as asked for; try again.
    pub(super) fn open_for_good(&self, revision: u64) -> io::Result<()> {
        self.write(Known { revision, keys: None })
    }

    /// The node is in no swarm: it is not locked, whatever a file of an earlier one says.
    pub(super) fn forget(&self) {
        *self.known() = Some(Known::default());
    }

    /// Removes the file: a worker is not locked. Nothing may be sealed with the node key now.
    ///
    /// # Errors
    /// As the operating system says; try again.
    pub(super) fn remove(&self) -> io::Result<()> {
        match self.disk.remove(&self.dir.join(FILE)) {
            Ok(()) => self.disk.sync_dir(&self.dir)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.forget();
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> io::Result<Option<Stored>> {
        match self.disk.read(&self.dir.join(FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| self.damaged()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, known: Known) -> io::Result<()> {
        let sealed = known.keys.as_ref().map(|keys| {
            let sealed = keys.unlock.seal(&purpose(known.revision), keys.node.expose());
            STANDARD.encode(sealed)
        });
        let bytes = serde_json::to_vec(&Stored { revision: known.revision, sealed })?;
        replace_file(&*self.disk, &self.dir, FILE, &bytes)?;
        *self.known() = Some(known);
        Ok(())
    }

    fn damaged(&self) -> io::Error {
        let text = format!(
            "{} is damaged: put it back from a backup, or leave the swarm with \"docker swarm \
             leave --force\" and join again",
            self.dir.join(FILE).display()
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

/// So that nobody can make a node believe that an old file is a new one.
fn purpose(revision: u64) -> String {
    format!("swarm unlock {revision}")
}
