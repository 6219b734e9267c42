//! B9: a roll-out has no more slots in flight, the delay after each included, than its parallelism,
//! changes nothing while it is
//! paused, and going back never makes it go back again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_core::model::{Service, Task, UpdateState};
use swarm_core::store::{Object, Snapshot};
use swarm_core::time::Timestamp;

use super::{Invariant, Place, Step, steps};
use crate::sim::World;
use crate::sim::consensus::Author;

/// The clocks of managers differ by less.
const SKEW: Duration = Duration::from_secs(60);

pub(super) struct RollOuts;

impl Invariant for RollOuts {
    fn name(&self) -> &'static str {
        "B9"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        let steps = steps(world);
        let planned = steps.iter().filter(|step| step.entry.author == Author::Planners);
        planned.into_iter().try_for_each(check)
    }
}

fn check(step: &Step<'_>) -> Result<(), String> {
    let mut looked_at = BTreeSet::new();
    for event in &step.commit.events {
        match (&event.old, &event.new) {
            (Some(Object::Service(old)), Some(Object::Service(new))) => back_once(old, new)?,
            (None, Some(Object::Task(task))) => {
                let Some(service) = step.after.services.get(task.service_id) else { continue };
                let status = service.update_status.as_ref();
                let began = status.and_then(|status| status.started_at);
                if task.rollout.is_none() || task.rollout != began {
                    continue;
                }
                if looked_at.insert(service.id) {
                    let (index, name) = (step.entry.index, &service.spec.name);
                    bounded(step, service, began)
                        .map_err(|why| format!("entry {index}: the roll-out of {name} {why}"))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
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

fn bounded(step: &Step<'_>, service: &Service, began: Option<Timestamp>) -> Result<(), String> {
    let before = &step.entry.before;
    let reached = |view: &Snapshot| -> BTreeSet<Place> {
        let tasks = view.tasks_of(service.id).filter(|task| task.rollout == began);
        tasks.map(|task| Place::of(view, task)).collect()
    };
    // A slot that was reached already gets new tasks for other reasons too.
    if reached(&step.after).is_subset(&reached(before)) {
        return Ok(());
    }
    let state = service.update_status.as_ref().map(|status| status.state);
    let back = state == Some(UpdateState::RollbackStarted);
    let config = if back { &service.spec.rollback_config } else { &service.spec.update_config };
    let most = config.as_ref().map_or(1, |config| config.parallelism);
    let delay = config.as_ref().map_or(Duration::ZERO, |config| config.delay.duration());
    let open = in_flight(&step.after, service, began, (delay, step.entry.batch.at)).len();
    if most > 0 && open as u64 > most {
        return Err(format!("has {open} slots in flight, not {most}"));
    }
    let paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    let was = before.services.get(service.id).and_then(|it| it.update_status.as_ref());
    match paused && was.map(|was| was.state) == state {
        true => Err("goes on while it is paused".to_owned()),
        false => Ok(()),
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
        if (task.created_at, task.id) > (last.created_at, last.id) {
            *last = task;
        }
    }
    let open = |task: &Task| match task.running_since.or(task.ended_at) {
        Some(at) => at + delay > now && at <= now + SKEW,
        None => task.is_wanted(),
    };
    latest.into_iter().filter(|(_, task)| open(task)).map(|(place, _)| place).collect()
}
