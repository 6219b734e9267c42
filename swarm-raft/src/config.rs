//! The settings of a store, with their defaults and the reasons for them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use crate::disk::{Disk, FsDisk};
use crate::error::OpenError;
use crate::log::Sizes;
use crate::propose::ENTRY_BYTES;
use crate::seal::SealKey;

/// How a [`RaftStore`](crate::RaftStore) keeps its files and times its elections.
#[derive(Clone)]
#[non_exhaustive]
pub struct RaftConfig {
    /// The directory of the log, the snapshots and the key. Made if it is not there; used by one
    /// store at a time.
    pub dir: PathBuf,
    /// This manager's id among the members. Chosen by whoever admits it; never used again.
    pub raft_id: u64,
    /// Time between two heartbeats of a leader: 200 ms. (SwarmKit: 1 s.)
    pub heartbeat: Duration,
    /// Silence after which a follower asks to be elected: between this, 1 s, and a fifth more.
    /// (SwarmKit: 10 s; etcd: 1 s.) More than half of it is the leader's lease, in which nobody votes for
    /// another; and pre-vote keeps slow members from disturbing a leader that is well.
    pub election: Duration,
    /// Entries between two snapshots where the cluster's settings do not say (`docker swarm update
    /// --snapshot-interval`, which counts at once): 10 000, as SwarmKit.
    pub snapshot_entries: u64,
    /// Bytes of entries after which a snapshot is due whatever their number: 16 MiB, or the size
    /// of the last snapshot where that is more. The log is kept in memory between two snapshots,
    /// and replayed at a start.
    pub snapshot_bytes: u64,
    /// Entries to keep behind a snapshot for slow followers: 500, as SwarmKit.
    pub keep_entries: u64,
    /// The size at which one file of the log is followed by the next: 32 MiB.
    pub segment_bytes: u64,
    /// Space that is reserved ahead on the disk, so that a write that was taken always fits: 5
    /// MiB. Must hold the proposals that may be under way at once.
    pub reserve_bytes: u64,
    /// What the data keys on disk are sealed with; absent leaves them plain beside the files that
    /// they seal. Keys that are plain when the store opens are sealed, and a new one is drawn.
    /// [`RaftStore::seal_keys`](crate::RaftStore::seal_keys) changes it later.
    pub seal: Option<SealKey>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
}

impl RaftConfig {
    /// The defaults, for one member in one directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, raft_id: u64) -> Self {
        Self {
            dir: dir.into(),
            raft_id,
            heartbeat: Duration::from_millis(200),
            election: Duration::from_secs(1),
            snapshot_entries: 10_000,
            snapshot_bytes: 16 << 20,
            keep_entries: 500,
            segment_bytes: 32 << 20,
            reserve_bytes: 5 << 20,
            seal: None,
            disk: Arc::new(FsDisk),
        }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        Sizes { segment: self.segment_bytes, reserve: self.reserve_bytes }
    }

    pub(crate) fn openraft(&self) -> Result<Config, OpenError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = Config {
            cluster_name: "swarm".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            // The lease is as long as the upper one, and the wait for the election comes after it.
            election_timeout_min: millis(self.election) * 2 / 5,
            election_timeout_max: millis(self.election) * 3 / 5,
            enable_pre_vote: Some(true),
            // A leader that restarts is elected anew, so that its epoch is a new one: what it
            // decided before is fenced.
            enable_leader_restore: Some(false),
            // The state machine says when: it knows the cluster's settings and the log's size.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.keep_entries,
            replication_lag_threshold: 2 * self.snapshot_entries,
            // Entries may have 1.5 MiB each; a message must stay of a modest size.
            max_payload_entries: ((8 << 20) / ENTRY_BYTES as u64).max(1),
            install_snapshot_timeout: 600_000,
            ..Config::default()
        };
        config.validate().map_err(|error| OpenError::Settings(error.to_string()))
    }
}
