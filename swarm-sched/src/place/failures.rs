//! Pure: where a service kept failing lately, which Swarm ranks nodes by (SwarmKit: `recentFailures`
//! in `nodeinfo.go`, which a new leader has forgotten).
//!
//! A slot keeps few of its tasks, and the history limit is about what people see. So a task inherits
//! what is to be remembered of those before it in its slot: of the same version of the service, as
//! another one may not fail. A failure that several tasks tell of counts once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{NodeFailures, NodeId, Task, TaskState, Version};
use swarm_core::time::Timestamp;

/// How long a failure counts against a node.
pub(crate) const MEMORY: Duration = Duration::from_secs(5 * 60);

/// Failures that a task inherits at most, the newest: more than a slot has within [`MEMORY`] where its
/// restarts have the default delay of 5 seconds.
const MOST: usize = 60;

/// When a task failed, and on which node.
fn own(task: &Task) -> Option<(NodeId, Timestamp)> {
    let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
    let when = failed.then(|| task.ended_at.unwrap_or(task.status.timestamp))?;
    task.node_id.map(|node| (node, when))
}

/// The failures that a task tells of: those that it inherited, and its own.
pub(super) fn told(task: &Task) -> impl Iterator<Item = (NodeId, Timestamp)> {
    let inherited = task.failures.iter().flat_map(|of| of.at.iter().map(|at| (of.node_id, *at)));
    inherited.chain(own(task))
}

fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    // One far ahead is of a clock that has been set back since: it would be remembered until then.
    now.since(at) <= MEMORY && at.since(now) <= MEMORY
}

/// What the next task of a slot inherits from those that are left of it.
pub(crate) fn inherited(
    tasks: &[Arc<Task>],
    version: Version,
    now: Timestamp,
) -> Vec<NodeFailures> {
    let same = tasks.iter().filter(|task| task.spec_version == version);
    let mut known: Vec<_> =
        same.flat_map(|task| told(task)).filter(|(_, at)| is_recent(*at, now)).collect();
    known.sort_unstable_by_key(|(node, at)| (*at, *node));
    known.dedup();
    let mut by_node: BTreeMap<NodeId, Vec<Timestamp>> = BTreeMap::new();
    for (node, at) in known.drain(known.len().saturating_sub(MOST)..) {
        by_node.entry(node).or_default().push(at);
    }
    let of = |(node_id, at)| NodeFailures { node_id, at, ..NodeFailures::default() };
    by_node.into_iter().map(of).collect()
}

/// Whether two tasks tell of the same failures.
pub(super) fn same(one: Option<&Task>, other: Option<&Task>) -> bool {
    fn inherited(task: Option<&Task>) -> &[NodeFailures] {
        task.map_or(&[], |task| &task.failures)
    }
    one.and_then(own) == other.and_then(own) && inherited(one) == inherited(other)
}

/// The failures of one service that its tasks tell of, with how many of them do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Failures(BTreeMap<(Version, NodeId, u64, Timestamp), u32>);

impl Failures {
    /// Notes what a task tells.
    pub(super) fn note(&mut self, task: &Task) {
        for (node, at) in told(task) {
            *self.0.entry((task.spec_version, node, task.slot, at)).or_default() += 1;
        }
    }

    /// Takes it back.
    pub(super) fn forget(&mut self, task: &Task) {
        for (node, at) in told(task) {
            let failure = (task.spec_version, node, task.slot, at);
            if let Some(tellers) = self.0.get_mut(&failure) {
                *tellers -= 1;
                if *tellers == 0 {
                    self.0.remove(&failure);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How often this version failed on each node within the last five minutes.
    pub(super) fn recent(&self, version: Version, now: Timestamp) -> BTreeMap<NodeId, u32> {
        let mut recent = BTreeMap::new();
        for (_, node, _, at) in self.0.keys().filter(|(of, ..)| *of == version) {
            if is_recent(*at, now) {
                *recent.entry(*node).or_default() += 1;
            }
        }
        recent
    }
}
