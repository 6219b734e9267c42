//! B10: a task that ended on its own, or lost its node, is replaced only as its restart policy says:
//! not more often than the attempts within the window, and not before the delay, whoever leads.
//!
//! Reconstructed from the history of creations, and not from what tasks say of themselves. Times
//! are those of the store, which the planners know. Where a clock was wrong, attempts are too many
//! only if they are so by the true time as well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{
    Availability, NodeState, RestartCondition, Task, TaskId, TaskSpec, TaskState, defaults,
};
use swarm_core::store::Snapshot;
use swarm_core::time::Timestamp;

use super::{Invariant, PLAN_ON_ITS_WAY, Place, Step, ended_on_its_own, steps};
use crate::sim::World;
use crate::sim::consensus::Author;

#[derive(Default)]
pub(super) struct Restarts {
    /// The restarts of each place.
    made: BTreeMap<Place, Vec<Restart>>,
    /// Tasks that may not be released before a time.
    held: BTreeMap<TaskId, Timestamp>,
}

/// A restart: when it was, by the store and in truth, and what it began to run.
struct Restart {
    at: Timestamp,
    truly_at: Timestamp,
    spec: Arc<TaskSpec>,
}

impl Invariant for Restarts {
    fn name(&self) -> &'static str {
        "B10"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        steps(world).try_for_each(|step| self.check(&step, world.now()))
    }
}

impl Restarts {
    fn check(&mut self, step: &Step<'_>, now: Timestamp) -> Result<(), String> {
        for event in &step.commit.events {
            let Some(task) = event.new_task() else {
                event.old_task().into_iter().for_each(|task| {
                    self.held.remove(&task.id);
                });
                continue;
            };
            if event.old.is_none() && step.entry.author == Author::Planners {
                self.created(step, task, now)?;
            }
            let released = task.desired_state == TaskState::Running
                || task.desired_state == TaskState::Complete;
            if released
                && let Some(until) = self.held.remove(&task.id)
                && step.entry.batch.at < until
                && step.entry.batch.at >= task.created_at
            {
                return Err(format!(
                    "entry {} starts {} {:?} before its delay is over",
                    step.entry.index,
                    task.name(),
                    until.since(step.entry.batch.at)
                ));
            }
        }
        Ok(())
    }

    fn created(&mut self, step: &Step<'_>, task: &Arc<Task>, now: Timestamp) -> Result<(), String> {
        let view = &step.entry.before;
        let place = Place::of(step.after, task);
        let same_run = |old: &&Arc<Task>| old.job_iteration == task.job_iteration;
        let former = place.tasks(view).filter(same_run);
        let Some(former) = former.max_by_key(|old| (old.turn, old.created_at, old.id)) else {
            self.made.remove(&place);
            return Ok(());
        };
        let ended = ended_on_its_own(former);
        // A move is no restart: what it relieves ran when it was planned, and may have failed since, or
        // its node may have been lost.
        if task.relieves.is_some() {
            return Ok(());
        }
        // Beside another that goes on, what is lost is left to the roll-out that made it.
        // Whoever planned this may not have known of what has just been lost besides.
        let known = |old: &Task| {
            let node = old.node_id.and_then(|node| view.nodes.get(node));
            let since = node.and_then(|node| node.status.down_since);
            since.is_none_or(|since| step.entry.batch.at.since(since) > PLAN_ON_ITS_WAY)
        };
        let lost = |old: &Task| is_lost(view, old) && (old.id == former.id || known(old));
        let alone = place.tasks(view).filter(|old| old.is_wanted()).all(|old| lost(old));
        let restart = former.is_wanted() && (ended || alone);
        let rolled_out = task.rollout.is_some() && (task.rollout != former.rollout || ended);
        if rolled_out {
            self.made.remove(&place);
            return Ok(());
        }
        if !restart {
            return Ok(());
        }
        self.allowed(step, (place, now), former, task)?;
        let drained = former.node_id.and_then(|node| view.nodes.get(node));
        if drained.is_none_or(|node| node.spec.availability != Availability::Drain) {
            // An end may be dated by a clock that has been set back since.
            let end = former.ended_at.map_or(task.created_at, |end| end.min(task.created_at));
            self.held.insert(task.id, end + delay(former));
        }
        let at = step.entry.batch.at;
        let made = self.made.entry(place).or_default();
        // What did not count any more when another was made does not come back with the clock.
        let window = window(task);
        made.retain(|made| window.is_zero() || made.at > at.before(window));
        made.push(Restart { at, truly_at: now, spec: task.spec.clone() });
        Ok(())
    }

    /// Whether the policy of a task that ended allows the one that replaces it.
    fn allowed(
        &self,
        step: &Step<'_>,
        (place, now): (Place, Timestamp),
        former: &Task,
        task: &Task,
    ) -> Result<(), String> {
        let policy = former.spec.restart_policy.clone().unwrap_or_default();
        let against = |why: String| {
            let (index, new, old) = (step.entry.index, task.name(), former.name());
            Err(format!("entry {index} replaces {old} by {new} {why}"))
        };
        let done = former.status.state == TaskState::Complete;
        match policy.condition.unwrap_or(RestartCondition::Any) {
            RestartCondition::None => return against("although it shall not be restarted".into()),
            RestartCondition::OnFailure if done => {
                return against("although it did not fail".into());
            }
            _ => {}
        }
        let most = policy.max_attempts.unwrap_or(0);
        if most == 0 {
            return Ok(());
        }
        let window = window(former);
        let end = former.ended_at.unwrap_or(task.created_at);
        let made = self.made.get(&place).map_or(&[][..], Vec::as_slice);
        let same = made.iter().rev().take_while(|made| *made.spec == *former.spec);
        let recent = same.filter(|made| {
            window.is_zero() || (made.at > end.before(window) && made.truly_at > now.before(window))
        });
        let recent = recent.count() as u64;
        match recent < most {
            true => Ok(()),
            false => against(format!("after {recent} attempts, where {most} are allowed")),
        }
    }
}

/// Whether a task was kept from running by its node: what comes after it counts as an attempt too,
/// as in SwarmKit.
fn is_lost(view: &Snapshot, task: &Task) -> bool {
    let node = task.node_id.map(|node| view.nodes.get(node));
    let unusable = node.is_some_and(|node| {
        node.is_none_or(|node| {
            node.status.state == NodeState::Down || node.spec.availability == Availability::Drain
        })
    });
    unusable || task.status.state.is_terminal()
}

fn window(task: &Task) -> Duration {
    let window = task.spec.restart_policy.as_ref().and_then(|policy| policy.window);
    window.map_or(Duration::ZERO, |window| window.duration())
}

fn delay(task: &Task) -> Duration {
    let delay = task.spec.restart_policy.as_ref().and_then(|policy| policy.delay);
    delay.map_or(defaults::RESTART_DELAY, |delay| delay.duration())
}
