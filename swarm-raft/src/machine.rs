//! The replicated state machine: a [`MemoryStore`] that applies what the group has agreed on.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use swarm_core::model::Version;
use swarm_core::store::{Batch, CommitError, MemoryStore, Snapshot, Store as _};
use tokio::sync::Notify;

use crate::snapshot::{Image, Snapshots};
use crate::types::{Entry, LogId, Outcome, Payload, SnapshotMeta, StoredMembership, Types, term};

type OpenraftSnapshot = openraft::alias::SnapshotOf<Types, Snapshot>;

/// Applies entries in order. What it does depends on the entries alone, so every manager comes to
/// the same state.
pub(crate) struct Machine {
    state: Arc<MemoryStore>,
    snapshots: Arc<Snapshots>,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Entries since the last snapshot was begun.
    entries: u64,
    /// How many are a reason for the next one, if the cluster's settings do not say.
    max_entries: u64,
    /// Bytes of entries since the last snapshot was begun.
    bytes: u64,
    /// Beyond which `snapshot_due` is notified, or beyond the size of the last snapshot where that
    /// is more: the log is kept in memory and replayed at a start, and must not grow large between
    /// two snapshots, however few its entries are.
    max_bytes: u64,
    snapshot_due: Arc<Notify>,
}

impl Machine {
    pub(crate) fn new(
        state: Arc<MemoryStore>,
        snapshots: Arc<Snapshots>,
        (max_entries, max_bytes): (u64, u64),
        snapshot_due: Arc<Notify>,
    ) -> Self {
        Self {
            state,
            snapshots,
            applied: None,
            membership: StoredMembership::default(),
            entries: 0,
            max_entries,
            bytes: 0,
            max_bytes,
            snapshot_due,
        }
    }

    fn is_snapshot_due(&self) -> bool {
        let view = self.state.snapshot();
        let settings = view.cluster().map(|cluster| cluster.spec.raft.snapshot_interval);
        let max_entries = settings.filter(|entries| *entries > 0).unwrap_or(self.max_entries);
        self.entries >= max_entries || self.bytes > self.max_bytes.max(self.snapshots.bytes())
    }

    /// Applies one entry. An error means that the state contradicts itself, and stops the store.
    fn apply_entry(&mut self, entry: Entry) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        match entry.payload {
            Payload::Blank => {}
            Payload::Normal(proposal) => {
                let term = term(&entry.log_id);
                let apply = |batch| apply_batch(&self.state, term, batch);
                outcome.results = proposal.batches.iter().map(apply).collect();
                if let Some(wrong) = outcome.results.iter().find_map(wrong) {
                    return Err(io::Error::other(wrong.to_owned()));
                }
                self.bytes += proposal.encoded.len() as u64;
            }
            Payload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
        }
        self.applied = Some(entry.log_id);
        self.entries += 1;
        Ok(outcome)
    }
}

/// What the state machine says when it finds its state wrong.
fn wrong(result: &Result<Version, CommitError>) -> Option<&str> {
    match result {
        Err(CommitError::Stopped(wrong)) => Some(wrong),
        _ => None,
    }
}

/// The fence that no race can pass: a batch that was decided in one epoch is refused by the state
/// machine itself when its entry belongs to another.
fn apply_batch(state: &MemoryStore, term: u64, batch: &Batch) -> Result<Version, CommitError> {
    match batch.epoch {
        Some(epoch) if epoch.0 != term => Err(CommitError::StaleEpoch(epoch)),
        _ => state.apply(batch),
    }
}

impl RaftStateMachine<Types> for Machine {
    /// A state is cloned in constant time, so snapshots travel inside the process as they are;
    /// [`link`](crate::link) cuts them into messages.
    type SnapshotData = Snapshot;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let outcome = self.apply_entry(entry)?;
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        if self.is_snapshot_due() {
            self.snapshot_due.notify_one();
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        (self.entries, self.bytes) = (0, 0);
        let meta =
            SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        let image = Image { meta, state: self.state.snapshot() };
        Builder { image, snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Snapshot,
    ) -> Result<(), io::Error> {
        let image = Image { meta: meta.clone(), state: snapshot.clone() };
        let on_disk = self.snapshots.current();
        // At start the snapshot comes from the disk: it need not go back there.
        if on_disk.is_none_or(|current| current.meta != *meta) {
            self.snapshots.save(image).await?;
        }
        self.state.restore(snapshot);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        (self.entries, self.bytes) = (0, 0);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<OpenraftSnapshot>, io::Error> {
        let current = self.snapshots.current();
        Ok(current.map(|Image { meta, state }| OpenraftSnapshot { meta, snapshot: state }))
    }
}

/// Writes the state that it was made with.
pub(crate) struct Builder {
    image: Image,
    snapshots: Arc<Snapshots>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> Result<OpenraftSnapshot, io::Error> {
        self.snapshots.save(self.image.clone()).await?;
        let Image { meta, state } = self.image.clone();
        Ok(OpenraftSnapshot { meta, snapshot: state })
    }
}
