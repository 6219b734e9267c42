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

use std::any::Any;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use swarm_core::model::{ClusterId, NodeId};
use swarm_raft::{Disk, replace_file};

const FILE: &str = "swarm.json";

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

/// A node's directory. One node at a time may hold it.
pub struct StateDir {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    /// There while the directory is held: a second node on it fails at once.
    lock: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

impl StateDir {
    /// Opens the directory, which is created with mode 0700 if need be.
    ///
    /// # Errors
    /// When it cannot be created or another process holds it.
    pub fn open(disk: Arc<dyn Disk>, root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        disk.create_dir(&root)?;
        let dir = Self { disk, root, lock: Mutex::default() };
        dir.hold()?;
        Ok(dir)
    }

    /// Holds the directory, again where it was released.
    ///
    /// # Errors
    /// When another node holds it.
    pub fn hold(&self) -> io::Result<()> {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_some() {
            return Ok(());
        }
        let lock = self.disk.lock(&self.path("lock")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                let dir = self.root.display();
                let text = format!("the state directory {dir} is in use by another node");
                io::Error::new(io::ErrorKind::ResourceBusy, text)
            }
            _ => error,
        })?;
        *held = Some(lock);
        Ok(())
    }

    /// Lets another node have the directory.
    pub fn release(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
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
        let path = self.path(FILE);
        let bytes = match self.disk.read(&path) {
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
        replace_file(&*self.disk, &self.root, FILE, &bytes)
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
        remove(self.disk.remove(&self.path(FILE)))?;
        // Before the rest: a membership that came back with a crash would have lost what it needs.
        self.disk.sync_dir(&self.root)?;
        for name in ["certificates", "raft", "tasks", "executor"] {
            remove(fs::remove_dir_all(self.path(name)))?;
        }
        remove(self.disk.remove(&self.path("unlock.json")))
    }
}

fn remove(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use swarm_raft::FsDisk;

    use super::*;
    use crate::crash_disk::{CrashDisk, calm, crash_points};

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

    fn open(disk: &CrashDisk, dir: &Path) -> StateDir {
        StateDir::open(Arc::new(disk.clone()), dir).unwrap()
    }

    #[test]
    fn a_membership_is_remembered_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(Arc::new(FsDisk), dir.path().join("node")).unwrap();
        assert_eq!(state.membership().unwrap(), None);
        state.remember(&membership()).unwrap();
        assert_eq!(state.membership().unwrap(), Some(membership()));
        state.forget().unwrap();
        assert_eq!(state.membership().unwrap(), None);
    }

    #[test]
    fn a_crash_anywhere_leaves_the_old_membership_or_the_new_one_with_all_that_it_needs() {
        let old = membership();
        let new = Membership { managers: vec!["10.0.0.2:2377".into()], start: 7, ..old.clone() };
        let points = crash_points(|disk| {
            let dir = tempfile::tempdir().unwrap();
            open(&calm(), dir.path()).remember(&old).unwrap();
            let written = StateDir::open(Arc::new(disk.clone()), dir.path())
                .and_then(|state| state.remember(&new));
            let found = open(&calm(), dir.path());
            let there = found.membership().unwrap().unwrap();
            assert!(there == new || there == old && written.is_err(), "{there:?}, {written:?}");
            found.remember(&old).unwrap();
            assert_eq!(found.membership().unwrap(), Some(old.clone()), "the next start goes on");
        });
        assert!(points > 4, "{points}");
        let points = crash_points(|disk| {
            let dir = tempfile::tempdir().unwrap();
            open(&calm(), dir.path()).remember(&old).unwrap();
            fs::create_dir(dir.path().join("raft")).unwrap();
            let forgotten =
                StateDir::open(Arc::new(disk.clone()), dir.path()).and_then(|state| state.forget());
            let found = open(&calm(), dir.path());
            match found.membership().unwrap() {
                Some(there) => {
                    assert!(forgotten.is_err() && there == old, "{there:?}, {forgotten:?}");
                    assert!(found.path("raft").exists(), "a member without its store");
                }
                None => found.forget().unwrap(),
            }
        });
        assert!(points > 2, "{points}");
    }

    #[test]
    fn two_processes_cannot_share_a_directory_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = open(&calm(), dir.path());
        let error = StateDir::open(Arc::new(FsDisk), dir.path()).err().unwrap();
        assert!(error.to_string().contains("in use by another node"), "{error}");
        state.release();
        let second = open(&calm(), dir.path());
        assert!(state.hold().is_err(), "another one has it now");
        second.release();
        state.hold().unwrap();
        state.hold().unwrap();
        fs::write(state.path("swarm.json"), "{").unwrap();
        let error = state.membership().unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
    }
}
