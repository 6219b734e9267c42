//! B9: a roll-out has no more slots in flight, the delay after each included, than its parallelism; it
//! changes nothing while it is paused, nor after more of its tasks failed than may; and going back
//! never makes it go back again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_core::model::{
    FailureAction, Service, Task, TaskId, TaskState, UpdateConfig, UpdateState, defaults,
};
use swarm_core::store::{Object, Snapshot};
use swarm_core::time::Timestamp;

use super::{Invariant, PLAN_ON_ITS_WAY, Place, Step, ended_on_its_own, steps};
use crate::sim::World;
use crate::sim::consensus::Author;

/// The clocks of managers differ by less.
const SKEW: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct RollOuts {
    /// When the tasks of roll-outs failed, by the true time.
    failed: BTreeMap<TaskId, Timestamp>,
}

impl Invariant for RollOuts {
    fn name(&self) -> &'static str {
        "B9"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            self.learn(world.now(), &step);
            if step.entry.author == Author::Planners {
                self.check(world.now(), &step)?;
            }
        }
        Ok(())
    }
}

impl RollOuts {
    fn learn(&mut self, now: Timestamp, step: &Step<'_>) {
        for event in &step.commit.events {
            match event.new_task() {
                Some(task) if task.rollout.is_some() && ended_on_its_own(task) => {
                    self.failed.entry(task.id).or_insert(now);
                }
                Some(_) => {}
                None => event.old_task().into_iter().for_each(|task| {
                    self.failed.remove(&task.id);
                }),
            }
        }
    }

    fn check(&self, now: Timestamp, step: &Step<'_>) -> Result<(), String> {
        let mut looked_at = BTreeSet::new();
        for event in &step.commit.events {
            match (&event.old, &event.new) {
                (Some(Object::Service(old)), Some(Object::Service(new))) => back_once(old, new)?,
                (None, Some(Object::Task(task))) => {
                    let Some(service) = step.after.services.get(task.service_id) else { continue };
                    let status = service.update_status.as_ref();
                    let began = status.and_then(|status| status.started_at);
                    let of_it = task.rollout.is_some() && task.rollout == began;
                    if of_it && looked_at.insert(service.id) {
                        let (index, name) = (step.entry.index, &service.spec.name);
                        let held = bounded(step, service, began);
                        held.and_then(|goes_on| match goes_on {
                            true => self.may_go_on(now, step, service, began),
                            false => Ok(()),
                        })
                        .map_err(|why| format!("entry {index}: the roll-out of {name} {why}"))?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether fewer tasks of a roll-out have failed, a while ago, than make it stop.
    fn may_go_on(
        &self,
        now: Timestamp,
        step: &Step<'_>,
        service: &Service,
        began: Option<Timestamp>,
    ) -> Result<(), String> {
        let (Some(status), config) = (&service.update_status, config(service)) else {
            return Ok(());
        };
        let monitor = config.monitor.map(|monitor| monitor.duration());
        let monitor = monitor.filter(|it| !it.is_zero()).unwrap_or(defaults::UPDATE_MONITOR);
        let early = |task: &Task| match (task.running_since, task.ended_at) {
            (Some(ran), Some(ended)) => ended.since(ran) <= monitor,
            _ => true,
        };
        let known = |task: &Task| {
            self.failed.get(&task.id).is_some_and(|at| now.since(*at) > PLAN_ON_ITS_WAY)
        };
        let tasks = step.entry.before.tasks_of(service.id).filter(|task| task.rollout == began);
        let kept = tasks.filter(|task| task.desired_state != TaskState::Remove);
        let failed = kept.filter(|task| known(task) && early(task)).count();
        #[allow(clippy::cast_precision_loss)] // a ratio of counts
        let ratio = failed as f32 / status.total.max(1) as f32;
        let stops = config.failure_action != Some(FailureAction::Continue);
        match stops && ratio > config.max_failure_ratio {
            true => Err(format!("goes on after {failed} of {} failed", status.total)),
            false => Ok(()),
        }
    }
}

/// What a roll-out goes by.
fn config(service: &Service) -> UpdateConfig {
    let state = service.update_status.as_ref().map(|status| status.state);
    let back = state == Some(UpdateState::RollbackStarted);
    let config = if back { &service.spec.rollback_config } else { &service.spec.update_config };
    config.clone().unwrap_or_else(defaults::update_config)
}

fn back_once(old: &Service, new: &Service) -> Result<(), String> {
    let state = |service: &Service| service.update_status.as_ref().map(|status| status.state);
    let goes_back =
        |state| matches!(state, Some(UpdateState::RollbackStarted | UpdateState::RollbackPaused));
    let again = goes_back(state(old))
        && state(new) == Some(UpdateState::RollbackStarted)
        && old.spec != new.spec;
    match again {
        true => Err(format!("{} goes back while it goes back", new.spec.name)),
        false => Ok(()),
    }
}

/// Whether a commit changes slots that the roll-out had not reached, within its bounds.
fn bounded(step: &Step<'_>, service: &Service, began: Option<Timestamp>) -> Result<bool, String> {
    let before = &step.entry.before;
    let reached = |view: &Snapshot| -> BTreeSet<Place> {
        let tasks = view.tasks_of(service.id).filter(|task| task.rollout == began);
        tasks.map(|task| Place::of(view, task)).collect()
    };
    // A slot that was reached already gets new tasks for other reasons too.
    if reached(step.after).is_subset(&reached(before)) {
        return Ok(false);
    }
    let state = service.update_status.as_ref().map(|status| status.state);
    let config = config(service);
    let (most, delay) = (config.parallelism, config.delay.duration());
    let open = in_flight(step.after, service, began, (delay, step.entry.batch.at)).len();
    if most > 0 && open as u64 > most {
        return Err(format!("has {open} slots in flight, not {most}"));
    }
    let paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    let was = before.services.get(service.id).and_then(|it| it.update_status.as_ref());
    match paused && was.map(|was| was.state) == state {
        true => Err("goes on while it is paused".to_owned()),
        false => Ok(true),
    }
}

/// The slots whose latest task of the roll-out has neither run nor ended, or has so since less than
/// the delay. A moment that lies far ahead was written down by a clock that has been set right.
fn in_flight(
    view: &Snapshot,
    service: &Service,
    began: Option<Timestamp>,
    (delay, now): (Duration, Timestamp),
) -> BTreeSet<Place> {
    let mut latest: BTreeMap<Place, &Task> = BTreeMap::new();
    for task in view.tasks_of(service.id).filter(|task| task.rollout == began) {
        let last = latest.entry(Place::of(view, task)).or_insert(task);
        if (task.turn, task.created_at, task.id) > (last.turn, last.created_at, last.id) {
            *last = task;
        }
    }
    let open = |task: &Task| match task.running_since.or(task.ended_at) {
        Some(at) => at + delay > now && at <= now + SKEW,
        None => task.is_wanted(),
    };
    latest.into_iter().filter(|(_, task)| open(task)).map(|(place, _)| place).collect()
}
