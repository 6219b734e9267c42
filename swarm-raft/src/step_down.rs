//! Decides when a leader gives the lead away by itself: its disk is full, or what it has taken does
//! not become applied although a majority answers it. (One that no majority answers says that it
//! does not lead; another one may.)

use std::time::Duration;

use openraft::Instant as _;
use openraft_rt::WatchReceiver as _;
use tokio::time::Instant;
use tracing::warn;

use crate::log::Log;
use crate::types::{Raft, Types};

/// Elections that a leader may be stuck for before it gives the lead away, and that it waits between
/// two attempts: where every disk is full, the lead must not go round and round.
const PATIENCE: u32 = 5;

type Metrics = openraft::RaftMetrics<Types>;

/// Watches a store that may lead, until it stops.
pub(crate) async fn run(raft: Raft, log: Log, election: Duration) {
    let (mut applied, mut moved) = (None, Instant::now());
    loop {
        tokio::time::sleep(election / 2).await;
        let metrics = raft.metrics().borrow_watched().clone();
        if metrics.running_state.is_err() {
            return;
        }
        let now = metrics.last_applied.map(|id| id.index);
        let works = log.health().borrow().full.is_none() && metrics.last_log_index <= now;
        if metrics.current_leader != Some(metrics.id) || works || now > applied && !is_full(&log) {
            (applied, moved) = (now, Instant::now());
            continue;
        }
        let stuck = moved.elapsed();
        if stuck < PATIENCE * election {
            continue;
        }
        moved = Instant::now();
        if let Some(next) = successor(&metrics, election) {
            warn!(next, ?stuck, "this leader cannot write: giving the lead away");
            if raft.trigger().transfer_leader(next).await.is_err() {
                return;
            }
        }
    }
}

fn is_full(log: &Log) -> bool {
    log.health().borrow().full.is_some()
}

/// The voter that has the most of those that answered a moment ago.
fn successor(metrics: &Metrics, election: Duration) -> Option<u64> {
    let (heard, logs) = (metrics.heartbeat.as_ref()?, metrics.replication.as_ref()?);
    let answers = |id: &u64| {
        let last = heard.get(id).and_then(Option::as_ref);
        *id != metrics.id && last.is_some_and(|last| last.elapsed() < election)
    };
    let voters = metrics.membership_config.voter_ids().filter(answers);
    voters.max_by_key(|id| logs.get(id).and_then(Option::as_ref).map(|last| last.index))
}
