//! What can go wrong with a store's files and members, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a store could not be opened. Nothing was applied and nothing was changed, except that a
/// write that a crash had cut off may have been removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The operating system refused. Cure its reason and open again.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Another process, or another store in this one, uses the directory. Stop it first.
    #[error("{path} is in use by another manager: stop it first", path = .0.display())]
    Locked(PathBuf),
    /// A file does not hold what was written to it.
    #[error(
        "{path} is damaged at byte {offset}: {what}. The store does not guess. If other managers \
         are up, remove this one from the cluster, empty its directory and let it join again; if \
         it is the only one, put the directory back from a backup",
        path = path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// The data keys are sealed, with another key than the one that was given, if one was. Open
    /// the store again with the right one: see [`RaftConfig::seal`](crate::RaftConfig::seal).
    #[error("{path} is sealed with a key that was not given", path = .0.display())]
    Sealed(PathBuf),
    /// The directory belongs to another member. Open it with that member's id, or use another
    /// directory.
    #[error("the directory belongs to raft member {stored}, not {given}")]
    OtherMember {
        /// The member that wrote it.
        stored: u64,
        /// The id in the configuration.
        given: u64,
    },
    /// There is nothing to begin a new group with: the directory was never part of one.
    #[error("{path} holds no cluster: there is nothing to recover", path = .0.display())]
    Nothing(PathBuf),
    /// A backup is only put into a directory without a store. Empty it first, or take another one.
    #[error("{path} holds a store already: put the backup into an empty directory", path = .0.display())]
    NotEmpty(PathBuf),
    /// A raft id is never used twice. Draw another one.
    #[error("the raft id {0} was used before: a member that begins anew needs another one")]
    UsedId(u64),
    /// The settings are not usable.
    #[error("the raft settings are not usable: {0}")]
    Settings(String),
    /// The replicated log did not start.
    #[error("the replicated log did not start: {0}")]
    Raft(String),
}

impl OpenError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(path: &Path, offset: usize, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), offset: offset as u64, what: what.into() }
    }
}

/// Why the members of the group could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemberError {
    /// The group exists already. Join it instead of making a new one.
    #[error("this manager is part of a cluster already")]
    Initialized,
    /// Another manager leads. Ask it.
    #[error("this manager does not lead: the leader is {0}")]
    NotLeader(String),
    /// No manager leads. Try again later.
    #[error("the managers have no leader at the moment: try again later")]
    NoLeader,
    /// The change is not legal as things stand; the words say why.
    #[error("the managers cannot be changed so: {0}")]
    Refused(String),
    /// It took too long; the change may still happen. Look at the members before trying again.
    #[error("the change of managers was not confirmed in time: look before you try again")]
    Timeout,
    /// The store has stopped.
    #[error("the store has stopped: {0}")]
    Stopped(String),
}
