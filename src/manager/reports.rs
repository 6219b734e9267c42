//! Writes what agents report of their tasks: whatever came while the last commit was on its way goes
//! into the next one.

use swarm_core::control::RETRY_AFTER;
use swarm_core::model::{NodeId, TaskId, TaskStatus};
use swarm_core::store::{Batch, Change, CommitError, Store};
use tokio::sync::{Mutex, mpsc};
use tracing::warn;

use super::dispatcher;

/// Statuses that one commit takes at most.
const STATUSES_PER_COMMIT: usize = 2_000;
/// Reports that may wait; whoever brings more waits, and with it the agent.
const QUEUE: usize = 1_024;

type Report = (NodeId, Vec<(TaskId, TaskStatus)>);

/// The reports that wait to be written.
pub(super) struct Reports {
    sender: mpsc::Sender<Report>,
    queue: Mutex<mpsc::Receiver<Report>>,
}

impl Default for Reports {
    fn default() -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        Self { sender, queue: Mutex::new(queue) }
    }
}

impl Reports {
    /// Takes a node's report.
    pub(super) async fn take(&self, node: NodeId, statuses: Vec<(TaskId, TaskStatus)>) {
        let _ = self.sender.send((node, statuses)).await;
    }

    /// Writes what comes, in batches of this leader. Never returns.
    ///
    /// # Cancellation
    /// What was taken and is not written is lost: the agents report everything again to the next
    /// leader.
    pub(super) async fn write(&self, store: &dyn Store, batch: impl Fn(Vec<Change>) -> Batch) {
        let mut queue = self.queue.lock().await;
        let mut reports: Vec<Report> = Vec::new();
        while queue.recv_many(&mut reports, STATUSES_PER_COMMIT).await > 0 {
            let view = store.snapshot();
            let changes: Vec<Change> = reports
                .drain(..)
                .flat_map(|(node, statuses)| dispatcher::advances(&view, node, statuses))
                .collect();
            // Statuses are facts: they are written again until that works.
            let (mut rest, mut room) = (&changes[..], STATUSES_PER_COMMIT);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(room.min(rest.len()));
                match store.commit(batch(now.to_vec())).await {
                    Ok(_) => rest = later,
                    Err(CommitError::TooLarge { .. }) if now.len() > 1 => room = now.len() / 2,
                    Err(error) => {
                        warn!(%error, "reported statuses were not committed; trying again");
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
            }
        }
    }
}
