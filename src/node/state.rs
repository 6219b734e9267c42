//! The state directory: what a node remembers of its place in a swarm across restarts.
//!
//! | path | what |
//! |---|---|
//! | `swarm.json` | this file's [`Membership`]; absent outside a swarm |
//! | `certificates/` | the node's identity |
//! | `raft/` | a manager's log and snapshots |
//! | `tasks/` | the agent's journal |
//! | `executor/` | what the executor keeps |
//! | `unlock.json` | what a manager's keys are locked with; absent without autolock |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use swarm_core::model::{ClusterId, NodeId};

/// A node's place in a swarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Whether it is a manager.
    pub manager: bool,
    /// Its id among the managers' raft members; 0 for a worker.
    #[serde(default)]
    pub raft_id: u64,
    /// Where it listens, should it be a manager.
    pub listen: String,
    /// What others use: `ADDRESS:PORT`.
    pub advertise: String,
    /// Where managers listen.
    pub managers: Vec<String>,
    /// [`Cluster::recovery`](swarm_core::model::Cluster::recovery), as far as this node has heard.
    #[serde(default)]
    pub recovery: u64,
    /// This manager is to begin the cluster anew with what it has: an order that a crash must not
    /// lose.
    #[serde(default)]
    pub begins_anew: bool,
    /// A manager's present start, as in [`ManagerStatus::start`](swarm_core::model::ManagerStatus::start).
    #[serde(default)]
    pub start: u64,
    /// The last start that its group is known to have heard of.
    #[serde(default)]
    pub heard_start: u64,
}

/// A node's directory. One process at a time may hold it.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    /// Held for the process's life: a second process on the same directory fails at once.
    _lock: File,
}

impl StateDir {
    /// Opens the directory, which is created with mode 0700 if need be.
    ///
    /// # Errors
    /// When it cannot be created or another process holds it.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        let path = root.join("lock");
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let held = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        held.map_err(|_| {
            let text = format!("the state directory {} is in use by another node", root.display());
            io::Error::new(io::ErrorKind::ResourceBusy, text)
        })?;
        Ok(Self { root, _lock: lock })
    }

    /// A path below the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// What the node remembers; absent outside a swarm.
    ///
    /// # Errors
    /// When the file is there and cannot be read: the error says what to do.
    pub fn membership(&self) -> io::Result<Option<Membership>> {
        let path = self.path("swarm.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            let text = format!(
                "{} is damaged ({error}): restore it from a backup, or remove the whole state \
                 directory to start outside of any swarm",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    /// Remembers a membership: whole or not at all, whatever happens meanwhile.
    ///
    /// # Errors
    /// When it cannot be written; what was remembered before is still there.
    pub fn remember(&self, membership: &Membership) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(membership)?;
        write_atomically(&self.path("swarm.json"), &bytes)
    }

    /// Forgets what only a manager knows.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget_store(&self) -> io::Result<()> {
        remove(fs::remove_dir_all(self.path("raft")))
    }

    /// Forgets everything about the swarm.
    ///
    /// # Errors
    /// When something cannot be removed; the membership goes first, so that a node that is
    /// started again is in no swarm.
    pub fn forget(&self) -> io::Result<()> {
        remove(fs::remove_file(self.path("swarm.json")))?;
        for name in ["certificates", "raft", "tasks", "executor"] {
            remove(fs::remove_dir_all(self.path(name)))?;
        }
        remove(fs::remove_file(self.path("unlock.json")))?;
        Ok(())
    }
}

fn remove(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes a file of mode 0600 so that a crash leaves the old one or the new one.
fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        Membership {
            cluster: "abcdefghij0123456789abcde".parse().unwrap(),
            node: "bcdefghij0123456789abcdef".parse().unwrap(),
            manager: true,
            raft_id: 7,
            listen: "127.0.0.1:2377".into(),
            advertise: "127.0.0.1:2377".into(),
            managers: vec!["127.0.0.1:2377".into()],
            recovery: 0,
            begins_anew: false,
            start: 0,
            heard_start: 0,
        }
    }

    #[test]
    fn a_membership_is_remembered_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path().join("node")).unwrap();
        assert_eq!(state.membership().unwrap(), None);
        state.remember(&membership()).unwrap();
        assert_eq!(state.membership().unwrap(), Some(membership()));
        state.forget().unwrap();
        assert_eq!(state.membership().unwrap(), None);
    }

    #[test]
    fn two_processes_cannot_share_a_directory_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let error = StateDir::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("in use by another node"), "{error}");
        fs::write(state.path("swarm.json"), "{").unwrap();
        let error = state.membership().unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
    }
}
