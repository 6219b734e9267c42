//! Pure: the cluster as it will be once everything that is stopping has stopped.

use std::collections::BTreeSet;

use swarm_core::model::{NodeState, Task, TaskId};
use swarm_core::scheduler::Overcommit;
use swarm_core::store::{Change, Snapshot};
use swarm_core::time::Timestamp;

use super::check::Checks;
use super::load::occupies;
use super::loads::Loads;

/// That cluster, followed from one view to the next: derived from the last view alone, at the price of
/// what changed in it.
#[derive(Default)]
pub(super) struct Future {
    seen: Snapshot,
    /// The tasks of `seen` that were told to leave their node and are still there.
    stopping: BTreeSet<TaskId>,
    /// `seen` without them.
    pub(super) world: Snapshot,
    pub(super) loads: Loads,
    checks: Checks,
}

impl Future {
    /// Of no cluster yet; what nodes report will be counted so.
    pub(super) fn new(overcommit: Overcommit) -> Self {
        Self { loads: Loads::new(overcommit), ..Self::default() }
    }

    /// Turns to another view. What was tried on the last one is forgotten.
    pub(super) fn follow(&mut self, view: &Snapshot) {
        view.tasks.for_each_since(&self.seen.tasks, |old, new| {
            old.map(|old| self.stopping.remove(&old.id));
            self.stopping.extend(new.filter(|new| is_stopping(new)).map(|new| new.id));
        });
        self.seen = view.clone();
        let mut world = view.clone();
        // A removal leaves nothing that bears its time.
        let removals = self.stopping.iter().map(|id| Change::remove(*id));
        removals.for_each(|removal| stage(&mut world, removal, Timestamp::ZERO));
        self.turn_to(world);
        if let Some(waits) = view.tasks_unassigned().next() {
            self.checks.sample(&mut self.loads, &self.world, (waits.service_id, 1));
        }
    }

    /// Tries a change.
    pub(super) fn write(&mut self, change: Change, now: Timestamp) {
        let mut world = self.world.clone();
        stage(&mut world, change, now);
        self.turn_to(world);
    }

    /// How many tasks are on their way out to make room for others. Those on a node that is down do
    /// not count: nobody waits for its room, and they may be there for as long as that is.
    pub(super) fn leaving(&self) -> usize {
        let is_up =
            |id| self.seen.nodes.get(id).is_some_and(|node| node.status.state != NodeState::Down);
        let tasks = self.stopping.iter().filter_map(|id| self.seen.tasks.get(*id));
        tasks.filter(|task| task.preempted.is_some() && task.node_id.is_some_and(is_up)).count()
    }

    /// What of it is not as it would be added up.
    #[cfg(test)]
    pub(super) fn wrong(&self) -> Option<String> {
        self.loads.wrong(&self.world)
    }

    fn turn_to(&mut self, world: Snapshot) {
        self.loads.follow(&self.world, &world);
        self.world = world;
    }
}

/// Whether a task was told to leave its node and is still there.
pub(super) fn is_stopping(task: &Task) -> bool {
    occupies(task) && !task.is_wanted()
}

/// Writes to a copy.
pub(super) fn stage(view: &mut Snapshot, change: Change, now: Timestamp) {
    let staged = view.stage(change, now);
    debug_assert!(staged.is_ok(), "a trial on a copy is legal: {staged:?}");
}
