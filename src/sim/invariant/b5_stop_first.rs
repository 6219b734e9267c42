//! B5: where the old task stops first, one task of a slot at most is released to start, and one
//! container of it at most runs on the nodes in session.
//!
//! Two exceptions are Swarm's: what did not stop within a minute is not waited for any longer, and
//! a task that shall be removed fills no slot; nor does one of an earlier run of a job. Nodes that
//! are down, or were since the new task was made, cannot be waited for. A task that a roll-out made
//! to start first runs beside those before it, and what comes after it waits for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{NodeId, NodeState, Task, TaskId, TaskState};
use swarm_core::store::{Object, Snapshot};
use swarm_core::time::Timestamp;

use super::{Invariant, PLAN_ON_ITS_WAY, Place, StartFirst, Started, Step, steps};
use crate::sim::World;
use crate::sim::consensus::Author;
use crate::sim::machine::Container;

/// As in the orchestrator: how long a replacement waits for its predecessor.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
#[derive(Default)]
pub(super) struct StopFirst {
    start_first: StartFirst,
    /// When each task was made, by the true time.
    made: BTreeMap<TaskId, Timestamp>,
    /// When each node was last seen down, by the true time.
    down: BTreeMap<NodeId, Timestamp>,
    /// Tasks that were released because the time was up.
    timed_out: BTreeSet<TaskId>,
    started: Started,
}

impl Invariant for StopFirst {
    fn name(&self) -> &'static str {
        "B5"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            self.start_first.learn(&step);
            self.released(world, &step)?;
        }
        let started = self.started.since_last(world);
        started.into_iter().try_for_each(|(_, container)| self.runs_alone(world, container))
    }
}

impl StopFirst {
    /// A task is released: nothing of its slot may be left, as far as the store knows.
    fn released(&mut self, world: &World, step: &Step<'_>) -> Result<(), String> {
        for event in &step.commit.events {
            // It was down until now, or is from now on.
            for object in [&event.old, &event.new].into_iter().flatten() {
                if let Object::Node(node) = object
                    && node.status.state == NodeState::Down
                {
                    self.down.insert(node.id, world.now());
                }
            }
            let Some(task) = event.new_task() else {
                event.old_task().into_iter().for_each(|task| {
                    self.made.remove(&task.id);
                });
                continue;
            };
            let held = event.old_task().is_none_or(|old| old.desired_state < TaskState::Running);
            if event.old.is_none() {
                self.made.insert(task.id, world.now());
            }
            let goals = [TaskState::Running, TaskState::Complete];
            if !held
                || !goals.contains(&task.desired_state)
                || step.entry.author != Author::Planners
            {
                continue;
            }
            if step.entry.batch.at.since(task.created_at) >= STOP_TIMEOUT {
                self.timed_out.insert(task.id);
            }
            for other in self.rivals(&step.entry.before, task) {
                let reached = other.status.state >= TaskState::Assigned;
                let open = reached && !other.status.state.is_terminal();
                if open && self.is_up(&step.entry.before, &other, task) {
                    return Err(format!(
                        "entry {} releases {} while {} is {}",
                        step.entry.index,
                        task.name(),
                        other.name(),
                        other.status.state
                    ));
                }
            }
        }
        Ok(())
    }

    /// A container was started: no other of its slot may run.
    fn runs_alone(&self, world: &World, container: &Container) -> Result<(), String> {
        let state = world.state();
        let Some(task) = state.tasks.get(container.task.id) else { return Ok(()) };
        for other in self.rivals(&state, task) {
            let runs = other.node_id.and_then(|node| world.host_of(node));
            let runs = runs.is_some_and(|host| {
                host.machine.runs(other.id)
                    && host.is_running(world.now())
                    && host.agent.as_ref().is_some_and(|agent| agent.in_session())
            });
            // A node that was taken for down has heard neither of the one nor of the other yet.
            let known = self.is_up(&state, &other, task) && self.is_up(&state, task, &other);
            if runs && known {
                let (new, old) = (task.name(), other.name());
                return Err(format!("{new} starts while {old} runs on another node or the same"));
            }
        }
        Ok(())
    }

    /// The other tasks of a task's place that shall not run beside it.
    fn rivals(&self, view: &Snapshot, task: &Task) -> Vec<Arc<Task>> {
        if self.timed_out.contains(&task.id) {
            return Vec::new();
        }
        let age = |task: &Task| (self.made.get(&task.id).copied().unwrap_or_default(), task.id);
        let place = Place::of(view, task);
        let rivals = place.tasks(view).filter(|other| {
            let newer = if age(other) > age(task) { other.id } else { task.id };
            other.id != task.id
                && other.job_iteration == task.job_iteration
                && !self.start_first.contains(newer)
        });
        rivals.cloned().collect()
    }

    /// Whether a task's node could be waited for as long as another task has existed.
    fn is_up(&self, state: &Snapshot, other: &Task, task: &Task) -> bool {
        let Some(node) = other.node_id.and_then(|node| state.nodes.get(node)) else { return false };
        // Whoever planned the task may not have known yet that the node is back.
        let down = self.down.get(&node.id).zip(self.made.get(&task.id));
        let down = down.is_some_and(|(down, made)| *down + PLAN_ON_ITS_WAY >= *made);
        node.status.state == NodeState::Ready && !down
    }
}
