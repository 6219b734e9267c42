//! B12: in one run of a job no slot beyond its total is filled, no more slots are at work than may
//! be at once, and what has completed is not done again; a global job completes once on each node.
//!
//! Not in the reference's list. Two tasks of a slot may complete all the same: one that was replaced
//! because its node was lost may end well there. Then one completion is left.

use std::collections::{BTreeMap, BTreeSet};

use swarm_core::model::{Service, ServiceId, ServiceMode, Task, TaskState, Version};
use swarm_core::store::Snapshot;
use swarm_core::time::Timestamp;

use super::{Invariant, PLAN_ON_ITS_WAY, Place, Step, steps};
use crate::sim::World;
use crate::sim::consensus::Author;

#[derive(Default)]
pub(super) struct Jobs {
    /// When each part of a run had completed, by the true time.
    done: BTreeMap<(Place, Version), Timestamp>,
}

impl Invariant for Jobs {
    fn name(&self) -> &'static str {
        "B12"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            self.check(world.now(), &step)
                .map_err(|why| format!("entry {}: {why}", step.entry.index))?;
        }
        Ok(())
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let state = world.state();
        let jobs = state.services.iter().filter(|service| service.spec.mode.is_job());
        for service in jobs.filter(|service| !service.pending_delete) {
            let run = Run::of(&state, service);
            run.bounded()?;
            if run.completions > run.completed.len() {
                return Err(format!("{} counts a completion twice", service.spec.name));
            }
        }
        Ok(())
    }
}

impl Jobs {
    fn check(&mut self, now: Timestamp, step: &Step<'_>) -> Result<(), String> {
        let mut grown: BTreeSet<ServiceId> = BTreeSet::new();
        for event in &step.commit.events {
            let Some(task) = event.new_task() else { continue };
            let Some(run) = task.job_iteration else { continue };
            let part = (Place::of(step.after, task), run);
            if task.status.state == TaskState::Complete {
                self.done.entry(part).or_insert(now);
            }
            if event.old.is_none() && step.entry.author == Author::Planners {
                self.is_needed(now, part, task)?;
                grown.insert(task.service_id);
            }
        }
        let services = grown.into_iter().filter_map(|id| step.after.services.get(id));
        services.into_iter().try_for_each(|service| Run::of(step.after, service).bounded())
    }

    fn is_needed(&self, now: Timestamp, part: (Place, Version), task: &Task) -> Result<(), String> {
        match self.done.get(&part).filter(|at| now.since(**at) > PLAN_ON_ITS_WAY) {
            Some(_) => Err(format!("{} is made for a part that has completed", task.name())),
            None => Ok(()),
        }
    }
}

/// The present run of a job.
struct Run<'a> {
    service: &'a Service,
    /// Places with a task that has completed, or shall.
    filled: BTreeSet<Place>,
    completed: BTreeSet<Place>,
    /// Tasks that count as completed.
    completions: usize,
    /// The most tasks of one place that shall complete and have not.
    crowd: usize,
}

impl<'a> Run<'a> {
    fn of(view: &Snapshot, service: &'a Service) -> Self {
        let run = service.job_iteration();
        let mut open: BTreeMap<Place, usize> = BTreeMap::new();
        let (mut completed, mut completions) = (BTreeSet::new(), 0);
        let tasks = view.tasks_of(service.id).filter(|task| task.job_iteration == run);
        for task in tasks.filter(|task| task.desired_state != TaskState::Remove) {
            let place = Place::of(view, task);
            if task.status.state == TaskState::Complete {
                completions += 1;
                completed.insert(place);
            } else if task.is_wanted() {
                *open.entry(place).or_default() += 1;
            }
        }
        let crowd = open.values().copied().max().unwrap_or(0);
        let filled = open.into_keys().chain(completed.iter().copied()).collect();
        Self { service, filled, completed, completions, crowd }
    }

    fn bounded(&self) -> Result<(), String> {
        let name = &self.service.spec.name;
        if self.crowd > 1 {
            return Err(format!("{name} has {} tasks at work on one part", self.crowd));
        }
        let ServiceMode::ReplicatedJob(job) = &self.service.spec.mode else { return Ok(()) };
        let (total, filled) = (job.total_completions(), self.filled.len() as u64);
        if filled > total || self.filled.iter().any(|place| place.slot >= total) {
            return Err(format!("{name} fills {filled} slots, where {total} shall complete"));
        }
        let at_work = self.filled.difference(&self.completed).count() as u64;
        match at_work > job.max_concurrent() {
            true => Err(format!(
                "{name} has {at_work} tasks at work, where {} may be at once",
                job.max_concurrent()
            )),
            false => Ok(()),
        }
    }
}
