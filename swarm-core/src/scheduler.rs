//! The [`Scheduler`]: on which node a task runs.

use std::sync::Arc;

use crate::control::Ctx;
use crate::model::{GenericResource, NodeId, Service, Task, TaskId};
use crate::store::Snapshot;

/// What has to be placed, and in which world.
pub struct PlacementView<'a> {
    /// The state, with everything that was decided in this step so far.
    pub snapshot: &'a Snapshot,
    /// The tasks' service; absent for tasks that have none.
    pub service: Option<&'a Arc<Service>>,
    /// Pending tasks of one service and one version of its specification, in order of slot.
    /// Tasks with a node are global: they are only checked against that node.
    pub tasks: &'a [Arc<Task>],
}

/// One task that found a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// The task.
    pub task: TaskId,
    /// Its node.
    pub node: NodeId,
    /// The generic resources that it claims there.
    pub generic: Vec<GenericResource>,
}

/// One task that found none, and why, in Swarm's words: `no suitable node (insufficient
/// resources on 2 nodes)`. Shown as the task's error; a result, not a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The task.
    pub task: TaskId,
    /// Why.
    pub why: String,
}

/// A scheduler's answer: every task of the view is in one of the two lists, once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placements {
    /// Those that found a node.
    pub placed: Vec<Placed>,
    /// Those that found none.
    pub refused: Vec<Refused>,
}

/// How much of what a node reports is counted as there, in thousandths: 1,000 is all of it, 1,050 is
/// Swarm v1's default (`swarm.overcommit=0.05`), less keeps something back. Swarm mode counts all.
/// Generic resources are never over-committed: a device is there or it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overcommit {
    /// Of the processor time.
    pub cpus: u32,
    /// Of the memory.
    pub memory: u32,
}

impl Default for Overcommit {
    fn default() -> Self {
        Self { cpus: 1_000, memory: 1_000 }
    }
}

impl Overcommit {
    /// What counts as there of the processor time that a node reports.
    #[must_use]
    pub fn cpus_of(self, reported: i64) -> i64 {
        thousandths(reported, self.cpus)
    }

    /// What counts as there of the memory that a node reports.
    #[must_use]
    pub fn memory_of(self, reported: i64) -> i64 {
        thousandths(reported, self.memory)
    }
}

/// So many thousandths of an amount.
fn thousandths(amount: i64, of: u32) -> i64 {
    i64::try_from(i128::from(amount) * i128::from(of) / 1_000).unwrap_or(i64::MAX)
}

/// Decides where tasks run.
///
/// # What is asked
///
/// [`place`](Self::place) is not only asked about what then is done. Preemption asks about clusters
/// without some of their tasks, and rebalancing about a running task as if it were new: about one task
/// each time. Dry runs ask about services that are not written, on a thread of their own, while the
/// leader goes on asking. So a scheduler answers several threads at once, and never takes for done
/// what it answered: what is so is in the next view.
///
/// # The contract
///
/// Checked by `conformance::scheduler`: pure, like every decision (the same view, time and seed
/// give the same answer); every task gets exactly one answer; a task is placed only on a node that
/// is ready, active and passes every filter, counting the tasks that this very call placed before;
/// a task with a node is placed there or refused, never elsewhere.
pub trait Scheduler: Send + Sync + 'static {
    /// Places what can be placed.
    fn place(&self, view: &PlacementView<'_>, ctx: &mut Ctx<'_>) -> Placements;

    /// Says what has become of the cluster, now and then, whether or not there is something to place.
    /// A scheduler that keeps what it derived from one view, to follow it to the next, need not hold on
    /// to tasks as they were long ago, nor catch up with all of it when it is asked again. Answers
    /// must not depend on it.
    fn follow(&self, _view: &Snapshot) {}

    /// How much of what nodes report it counts as there, always: all of it, unless it says otherwise.
    /// Preemption counts the same.
    fn counts(&self) -> Overcommit {
        Overcommit::default()
    }
}
