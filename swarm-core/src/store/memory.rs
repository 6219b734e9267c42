//! The store in memory: the default for tests, simulation and single-process embedding, and the
//! state machine inside every other store of ours.

use std::sync::{Mutex, PoisonError, RwLock};

use async_trait::async_trait;

use super::tables::Stamp;
use super::{Batch, Commit, CommitError, Epoch, History, Leadership, Snapshot, Store, Watch};
use crate::model::Version;

/// Events that the history keeps for slow watches. An event is a pair of pointers; the objects
/// behind them are kept alive, so this bounds memory to about twice the live state.
const HISTORY_EVENTS: usize = 65_536;

/// Holds the state in memory alone: "acknowledged" means kept until the process ends. Always
/// leads, in one epoch.
pub struct MemoryStore {
    current: RwLock<Snapshot>,
    /// Serialises writers; readers take `current` for an instant only.
    writer: Mutex<()>,
    history: History,
    leadership: tokio::sync::watch::Sender<Leadership>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Snapshot::default())
    }
}

impl MemoryStore {
    /// A store that starts with this state.
    #[must_use]
    pub fn new(state: Snapshot) -> Self {
        let history = History::new(state.version(), HISTORY_EVENTS);
        let leadership = tokio::sync::watch::Sender::new(Leadership::Leader(Epoch(1)));
        Self { current: RwLock::new(state), writer: Mutex::new(()), history, leadership }
    }

    /// Applies a batch at once, without regard to leadership. Deterministic: the result depends
    /// on the state and the batch alone, so a replicated log may replay it.
    ///
    /// # Errors
    /// As [`Store::commit`]; nothing has changed then.
    pub fn apply(&self, batch: &Batch) -> Result<Version, CommitError> {
        self.apply_owned(batch.clone())
    }

    /// [Applies](Self::apply) a batch that nobody needs any more: objects that nobody shares are
    /// stored as they are, others are copied first.
    ///
    /// # Errors
    /// As [`Store::commit`]; nothing has changed then.
    pub fn apply_owned(&self, batch: Batch) -> Result<Version, CommitError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.snapshot();
        if batch.changes.is_empty() {
            return Ok(state.version());
        }
        let version = Version(state.version().0 + 1);
        let stamp = Stamp { at: batch.at, version: Some(version) };
        let mut events = Vec::with_capacity(batch.changes.len());
        for change in batch.changes {
            events.extend(state.apply(change, stamp)?);
        }
        state.close();
        state.set_version(version);
        super::audit(version, &events, &state)
            .map_err(|wrong| CommitError::Stopped(wrong.to_string()))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.history.push(Commit { version, events });
        Ok(version)
    }

    /// Replaces the whole state, as when a snapshot arrives from another manager. Every watch
    /// lags afterwards.
    pub fn restore(&self, state: Snapshot) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let version = state.version();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.history.reset(version);
    }

    /// Plays a change of leader: for tests and simulation.
    pub fn set_leadership(&self, leadership: Leadership) {
        self.leadership.send_replace(leadership);
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn snapshot(&self) -> Snapshot {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn watch(&self, after: Version) -> Watch {
        self.history.watch(after)
    }

    fn leadership(&self) -> tokio::sync::watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    async fn commit(&self, batch: Batch) -> Result<Version, CommitError> {
        match (&*self.leadership.borrow(), batch.epoch) {
            (Leadership::None, _) => return Err(CommitError::NoLeader),
            (Leadership::Follower { leader }, _) => {
                return Err(CommitError::NotLeader { leader: leader.clone() });
            }
            (Leadership::Leader(now), Some(epoch)) if *now != epoch => {
                return Err(CommitError::StaleEpoch(epoch));
            }
            (Leadership::Leader(_), _) => {}
        }
        self.apply_owned(batch)
    }

    async fn barrier(&self) -> Result<(), CommitError> {
        match *self.leadership.borrow() {
            Leadership::None => Err(CommitError::NoLeader),
            _ => Ok(()),
        }
    }
}
