//! Keeps a manager's lock as the cluster says: follows the unlock key in the store, and seals or
//! opens what the node keeps on its disk.

use std::sync::Arc;
use std::time::Duration;

use swarm_core::store::{Snapshot, Store};
use swarm_raft::SealKey;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::config::SealStore;
use super::lock::Lock;
use crate::identity::{IdentityFiles, UnlockKey};

/// The pause before a failure is tried again: a full disk may have room by then.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What a manager's lock protects.
#[derive(Clone)]
pub(super) struct Protected {
    /// The certificate's key.
    pub(super) identity: IdentityFiles,
    /// The data keys, where the store has any.
    pub(super) store: Option<Arc<dyn SealStore>>,
    /// Has the certificate renewed at once.
    pub(super) renew: Arc<Notify>,
}

/// The task that follows the cluster.
pub(super) struct Following {
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Following {
    /// Follows the cluster in `store` until it is stopped.
    pub(super) fn start(lock: Arc<Lock>, store: Arc<dyn Store>, protected: Protected) -> Self {
        let cancel = CancellationToken::new();
        let task = tokio::spawn(follow(lock, store, protected, cancel.clone()));
        Self { cancel, task }
    }

    /// Waits for a change that is under way; nothing is written afterwards.
    pub(super) async fn stop(self) {
        self.cancel.cancel();
        let _ = self.task.await;
    }
}

async fn follow(
    lock: Arc<Lock>,
    store: Arc<dyn Store>,
    protected: Protected,
    cancel: CancellationToken,
) {
    let (mut seen, mut unfinished) = (None, false);
    loop {
        let new = |view: &Snapshot| unfinished || revision(view) > seen;
        let view = tokio::select! {
            () = cancel.cancelled() => return,
            view = store.until(new) => view,
        };
        seen = revision(&view);
        let (Some(cluster), Some(revision)) = (view.cluster(), seen) else { continue };
        let unlock = cluster.unlock_key.as_ref().and_then(|key| UnlockKey::of(key).seal_key());
        if !unfinished && lock.follows(revision, unlock.as_ref()) {
            continue;
        }
        let changed = change(&lock, revision, unlock, &protected).await;
        unfinished = changed.is_err();
        if let Err(error) = changed {
            warn!(%error, retry_in = ?RETRY_AFTER, "this node's lock could not be changed");
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }
}

fn revision(view: &Snapshot) -> Option<u64> {
    view.cluster().map(|cluster| cluster.revision.0)
}

/// Locks the node with a key, or opens it; each step may have been done before.
async fn change(
    lock: &Arc<Lock>,
    revision: u64,
    unlock: Option<SealKey>,
    protected: &Protected,
) -> Result<(), String> {
    let file = lock.clone();
    let Some(unlock) = unlock else {
        seal(protected, None).await?;
        blocking(move || file.open_for_good(revision)).await?;
        info!("this manager starts without an unlock key from now on");
        return Ok(());
    };
    let was_open = lock.node_key().is_none();
    blocking(move || file.lock_with(revision, unlock)).await?;
    seal(protected, lock.node_key()).await?;
    info!("this manager starts locked from now on, with the cluster's present unlock key");
    if was_open {
        protected.renew.notify_one();
    }
    Ok(())
}

/// Seals everything with the node key, or leaves it plain; durable on return.
async fn seal(protected: &Protected, key: Option<SealKey>) -> Result<(), String> {
    if let Some(store) = &protected.store {
        store.seal_keys(key.clone()).await?;
    }
    let identity = protected.identity.clone();
    blocking(move || identity.seal_with(key)).await
}

async fn blocking<E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<(), E> + Send + 'static,
) -> Result<(), String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
#[path = "autolock_tests.rs"]
mod tests;
