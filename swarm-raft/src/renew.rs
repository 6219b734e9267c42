//! Decides how an old data key goes out of use: the log goes on in a new segment, a snapshot takes
//! the place of what the old key sealed, and then the key is forgotten.
//!
//! A crash on the way costs nothing: the old key is kept until no file needs it, and the next
//! start goes on from there.

use std::sync::Arc;
use std::time::Duration;

use openraft_rt::WatchReceiver as _;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::keys::DataKeys;
use crate::log::Log;
use crate::snapshot::Snapshots;
use crate::types::{Raft, Types};

/// The pauses between two looks at how far it is.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));

/// Takes old data keys out of use.
pub(crate) struct Renew {
    pub(crate) keys: DataKeys,
    pub(crate) log: Log,
    pub(crate) snapshots: Arc<Snapshots>,
    /// Told when there is a new key.
    pub(crate) rotated: Arc<Notify>,
}

impl Renew {
    /// Works until the store stops.
    pub(crate) async fn run(self, raft: Raft) {
        loop {
            let mut pause = PAUSES.0;
            while self.keys.has_old() {
                if self.step(&raft).await.is_err() {
                    return;
                }
                self.forget_unused().await;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
            self.rotated.notified().await;
        }
    }

    /// Asks for what is missing until nothing on the disk is sealed with an old key.
    async fn step(&self, raft: &Raft) -> Result<(), openraft::errors::Fatal<Types>> {
        let newest = self.keys.newest();
        self.log.take_new_key();
        let covered = self.snapshots.current().and_then(|image| image.meta.last_log_id);
        let applied = raft.metrics().borrow_watched().last_applied;
        let log_is_old = self.log.oldest_generation() < newest;
        match self.snapshots.generation() {
            Some(generation) if generation < newest => raft.trigger().snapshot().await,
            _ if log_is_old && applied > covered => raft.trigger().snapshot().await,
            _ => Ok(()),
        }?;
        if let Some(covered) = covered.filter(|_| log_is_old) {
            raft.trigger().purge_log(covered.index).await?;
        }
        Ok(())
    }

    /// Forgets the keys that no file needs.
    async fn forget_unused(&self) {
        let needed = self.snapshots.generation().unwrap_or(u32::MAX);
        let needed = needed.min(self.log.oldest_generation());
        let keys = self.keys.clone();
        let forget = move || keys.forget_before(needed);
        match tokio::task::spawn_blocking(forget).await {
            Ok(Err(error)) => warn!(%error, "cannot forget an old data key: trying again"),
            _ if !self.keys.has_old() => info!("nothing is sealed with an old data key any more"),
            _ => {}
        }
    }
}
