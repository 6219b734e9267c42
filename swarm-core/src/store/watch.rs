//! The recent history of a store and the watches that follow it: exactly once, in order, or
//! [`Lagged`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::Event;
use crate::model::Version;

/// One commit: what changed at a version.
#[derive(Debug)]
pub struct Commit {
    /// The version that it became.
    pub version: Version,
    /// What it did, in the order of its batch.
    pub events: Vec<Event>,
}

/// The watcher fell behind further than the history reaches, or the store was restored from a
/// snapshot. Take a snapshot, treat everything as changed, and watch from its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the history after version {wanted} is gone, it starts after {oldest}: take a snapshot and watch from there"
)]
pub struct Lagged {
    /// The version that the watcher had seen.
    pub wanted: Version,
    /// The earliest version that can be watched from.
    pub oldest: Version,
}

/// A bounded history of commits, shared by a store and its watches. Public so that other
/// implementations of [`Store`](super::Store) need not build their own.
#[derive(Clone)]
pub struct History {
    shared: Arc<Shared>,
}

struct Shared {
    ring: Mutex<Ring>,
    head: tokio::sync::watch::Sender<Version>,
    max_events: usize,
}

struct Ring {
    /// Commits with consecutive versions.
    commits: VecDeque<Arc<Commit>>,
    /// The version before the first commit of the ring.
    base: Version,
    events: usize,
}

impl History {
    /// A history that starts after `base` and keeps at least the last commit and at most
    /// `max_events` events beyond it.
    #[must_use]
    pub fn new(base: Version, max_events: usize) -> Self {
        let ring = Mutex::new(Ring { commits: VecDeque::new(), base, events: 0 });
        let head = tokio::sync::watch::Sender::new(base);
        Self { shared: Arc::new(Shared { ring, head, max_events }) }
    }

    /// Appends a commit, whose version must be the next one, and wakes every watch.
    ///
    /// # Panics
    /// When the version is not the next one: the store would have broken its promise of order.
    pub fn push(&self, commit: Commit) {
        let version = commit.version;
        {
            let mut ring = self.ring();
            let last = ring.commits.back().map_or(ring.base, |last| last.version);
            assert_eq!(version.0, last.0 + 1, "commits have consecutive versions");
            ring.events += commit.events.len();
            ring.commits.push_back(Arc::new(commit));
            while ring.events > self.shared.max_events && ring.commits.len() > 1 {
                let dropped = ring.commits.pop_front().expect("more than one commit");
                ring.events -= dropped.events.len();
                ring.base = dropped.version;
            }
        }
        self.shared.head.send_replace(version);
    }

    /// Forgets everything and starts after `base`: every watch that has not seen `base` lags.
    pub fn reset(&self, base: Version) {
        *self.ring() = Ring { commits: VecDeque::new(), base, events: 0 };
        self.shared.head.send_replace(base);
    }

    /// A watch of every commit after `after`.
    #[must_use]
    pub fn watch(&self, after: Version) -> Watch {
        Watch { history: self.clone(), seen: after, head: self.shared.head.subscribe() }
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn after(&self, seen: Version) -> Result<Option<Arc<Commit>>, Lagged> {
        let ring = self.ring();
        let last = ring.commits.back().map_or(ring.base, |last| last.version);
        if seen < ring.base || seen > last {
            return Err(Lagged { wanted: seen, oldest: ring.base });
        }
        let offset = usize::try_from(seen.0 - ring.base.0).expect("the ring fits in memory");
        Ok(ring.commits.get(offset).cloned())
    }
}

/// Follows a store's commits. Costs nothing while it is not polled, except that a slow watch
/// may find that it has [`Lagged`].
pub struct Watch {
    history: History,
    seen: Version,
    head: tokio::sync::watch::Receiver<Version>,
}

impl Watch {
    /// The next commit; waits for it. After [`Lagged`] the watch stays lagged.
    ///
    /// # Errors
    /// [`Lagged`] when commits were missed.
    ///
    /// # Cancellation
    /// Safe: no commit is lost.
    pub async fn next(&mut self) -> Result<Arc<Commit>, Lagged> {
        loop {
            self.head.borrow_and_update();
            if let Some(commit) = self.try_next()? {
                return Ok(commit);
            }
            // The sender lives as long as the history that this watch holds.
            let _ = self.head.changed().await;
        }
    }

    /// The next commit if there is one already.
    ///
    /// # Errors
    /// [`Lagged`] when commits were missed.
    pub fn try_next(&mut self) -> Result<Option<Arc<Commit>>, Lagged> {
        let next = self.history.after(self.seen)?;
        if let Some(commit) = &next {
            self.seen = commit.version;
        }
        Ok(next)
    }

    /// The version of the last commit that was returned.
    #[must_use]
    pub fn seen(&self) -> Version {
        self.seen
    }
}
