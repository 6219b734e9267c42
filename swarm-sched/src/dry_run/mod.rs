//! Pure: what a specification would do, found by doing it to a copy of the state.
//!
//! Nothing is decided here. [`dry_run()`] lets the planners of a manager write into a store of its
//! own, which starts as the given view, through the same controller that drives them for real. In
//! place of the agents there is the simplest that can be: each does at once what its tasks are told
//! (`agents`). Time passes only where a roll-out waits for it.

pub(crate) mod agents;
mod log;
mod report;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::{Controller, Ctx, Planner};
use swarm_core::model::{Service, ServiceId, TaskState, UpdateState};
use swarm_core::store::{
    Batch as Writes, Change, CommitError, MemoryStore, Snapshot, Store as _, Watch,
};
use swarm_core::time::{Nanos, Timestamp};

pub use report::{Batch, Placement, Refused, Report, Stopped};

use log::Log;

/// Steps of the controller after which a dry run is cut short: a roll-out of some 500 slots, one by
/// one. What it found until then is in the report.
const MOST_STEPS: usize = 2_000;

/// A roll-out in which nothing has happened for so long, beside the pauses of its own, waits for
/// something that does not come.
const PATIENCE: Duration = Duration::from_secs(120);

/// What creating a service, or changing one, would do: `proposed` as it would be written. The view
/// stays as it is; `planners` are those of the manager, in their order.
///
/// First the planners finish what they have to do anyway, so that the report holds what comes of
/// the proposal alone. Costs what a new leader's first plan costs, and what the proposal itself does.
///
/// ```
/// # use std::sync::Arc;
/// # use swarm_core::{control::Ctx, id::IdSource, model::Service, time::Timestamp};
/// # use swarm_core::store::{Epoch, MemoryStore, Store as _};
/// # use swarm_sched::place::StrategyScheduler;
/// let store = MemoryStore::default();
/// let planners = swarm_sched::default_planners([], Arc::new(StrategyScheduler::default()));
/// let mut ids = IdSource::seeded(1);
/// let mut web = Service { id: ids.next(), ..Service::default() };
/// web.spec.name = "web".to_owned();
/// let mut ctx = Ctx::new(Timestamp::from_secs(1), &mut ids, Epoch(1));
/// let report = swarm_sched::dry_run(&store.snapshot(), web, &planners, &mut ctx)?;
/// assert_eq!(report.refused[0].why, "no suitable node", "there are no nodes yet");
/// assert!(store.snapshot().services.is_empty());
/// # Ok::<(), swarm_core::store::CommitError>(())
/// ```
///
/// # Errors
/// As the write of the proposal would fail.
pub fn dry_run(
    view: &Snapshot,
    proposed: Service,
    planners: &[Arc<dyn Planner>],
    ctx: &mut Ctx<'_>,
) -> Result<Report, CommitError> {
    let id = proposed.id;
    let change = match view.services.get(id) {
        Some(_) => Change::update(proposed),
        None => Change::create(proposed),
    };
    let mut play = Play::new(view, id, planners, ctx);
    play.settle()?;
    play.propose(change)?;
    let complete = play.forecast()?;
    let view = play.store.snapshot();
    Ok(play.log.report(&view, id, complete))
}

/// A copy of the cluster on which planners and agents take turns.
struct Play<'a, 'b> {
    store: MemoryStore,
    watch: Watch,
    controller: Controller,
    ctx: &'a mut Ctx<'b>,
    service: ServiceId,
    log: Log,
    steps: usize,
    /// When something was written last.
    moved: Timestamp,
}

impl<'a, 'b> Play<'a, 'b> {
    fn new(
        view: &Snapshot,
        service: ServiceId,
        planners: &[Arc<dyn Planner>],
        ctx: &'a mut Ctx<'b>,
    ) -> Self {
        let store = MemoryStore::new(view.clone());
        let watch = store.watch(view.version());
        let controller = Controller::new(planners.to_vec(), ctx.epoch, view);
        let moved = ctx.now;
        Self { store, watch, controller, ctx, service, log: Log::default(), steps: 0, moved }
    }

    /// Writes the proposal, on which the planners and the clock of the report start.
    fn propose(&mut self, change: Change) -> Result<(), CommitError> {
        self.log = Log::new(&self.store.snapshot(), self.ctx.now);
        self.steps = 0;
        self.write(vec![change])
    }

    fn write(&mut self, changes: Vec<Change>) -> Result<(), CommitError> {
        self.apply(&Writes::new(self.ctx.now, changes))
    }

    fn apply(&mut self, batch: &Writes) -> Result<(), CommitError> {
        self.store.apply(batch)?;
        self.moved = self.ctx.now;
        while let Ok(Some(commit)) = self.watch.try_next() {
            self.controller.observe(&commit);
            commit.events.iter().for_each(|event| self.log.note(event));
        }
        Ok(())
    }

    /// Lets the planners write until none has anything left to say at this time; `false` if that
    /// takes too long.
    fn settle(&mut self) -> Result<bool, CommitError> {
        while self.steps < MOST_STEPS {
            let view = self.store.snapshot();
            let step = self.controller.step(&view, self.ctx.now, self.ctx.ids);
            self.steps += 1;
            match step.batch {
                Some(batch) => {
                    self.apply(&batch)?;
                    self.log.commits += 1;
                }
                None if !step.more && !self.is_due() => return Ok(true),
                None => {}
            }
        }
        Ok(false)
    }

    fn is_due(&self) -> bool {
        self.controller.next_at().is_some_and(|at| at <= self.ctx.now)
    }

    /// Planners, agents and the clock take turns until the service is at rest, or waits for what
    /// does not come; `false` if that takes too long.
    fn forecast(&mut self) -> Result<bool, CommitError> {
        loop {
            let complete = self.settle()?;
            self.log.close_batch(self.ctx.now);
            if !complete {
                return Ok(false);
            }
            let view = self.store.snapshot();
            let answers = agents::answers(&view, self.service, self.log.touched(), self.ctx.now);
            if !answers.is_empty() {
                self.write(answers)?;
                continue;
            }
            let Some(service) = view.services.get(self.service) else { return Ok(true) };
            let until = self.moved + PATIENCE + pauses(service);
            match self.controller.next_at().filter(|at| *at <= until) {
                Some(at) if !is_at_rest(&view, service) => self.ctx.now = at,
                _ => return Ok(true),
            }
        }
    }
}

/// Whether nothing of the service waits for time to pass.
fn is_at_rest(view: &Snapshot, service: &Service) -> bool {
    let state = service.update_status.as_ref().map(|status| status.state);
    let rolls = matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted));
    !rolls && view.tasks_of(service.id).all(|task| task.desired_state != TaskState::Ready)
}

/// The pauses that a service asks for itself.
fn pauses(service: &Service) -> Duration {
    let configs = service.spec.update_config.iter().chain(&service.spec.rollback_config);
    let update = configs.map(|config| {
        config.delay.duration() + config.monitor.map_or(Duration::ZERO, Nanos::duration)
    });
    let restart = service.spec.task.restart_policy.as_ref().and_then(|policy| policy.delay);
    update.max().unwrap_or_default() + restart.map_or(Duration::ZERO, Nanos::duration)
}
