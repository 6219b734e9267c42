//! Pure: what becomes of a task that ended or lost its node, and when its replacement starts
//! (SwarmKit: `orchestrator/restart`).
//!
//! SwarmKit keeps delays and attempts in the leader's memory and rebuilds them from history. Here
//! they are members of the task: `start_after`, `start_after_stop_of`, `restarts`. So a new leader
//! goes on where the old one stopped, and the history limit does not touch the attempts.

use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::{Ctx, Key, Plan};
use swarm_core::model::{
    Availability, Node, NodeState, RestartCondition, RestartPolicy, Service, Task, TaskState,
    UpdateState, defaults,
};
use swarm_core::store::{Change, Snapshot};
use swarm_core::time::{Nanos, Timestamp};

use super::clean::Clean;
use super::slots::{Maker, Place, Slot, goal, rank};
use crate::place::failures;

/// How long a replacement waits for its predecessor to stop.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// A task's replacement starts no sooner after the task could, even where the policy's delay is
/// zero: what fails at once shall not keep the managers busy with nothing else.
const SHORTEST_LIFE: Duration = Duration::from_millis(100);

/// Clocks of managers differ by less than this. A moment that lies further ahead was written down by
/// a clock that has been set back since: it has passed, whatever it says.
const SKEW: Duration = Duration::from_secs(60);

/// Attempts that a task remembers, so that it stays of bounded size. A policy that allows more
/// within its window never runs out of attempts.
const ATTEMPTS: usize = 1_000;

/// Whether the policy of a task that ended, or that lost its node, asks for a replacement.
pub(super) fn should_restart(task: &Task, now: Timestamp) -> bool {
    let policy = task.spec.restart_policy.as_ref();
    let condition = policy.and_then(|policy| policy.condition);
    match condition.unwrap_or(RestartCondition::Any) {
        RestartCondition::None => return false,
        RestartCondition::OnFailure if task.status.state == TaskState::Complete => return false,
        RestartCondition::OnFailure | RestartCondition::Any => {}
    }
    let Some(policy) = policy.filter(|policy| max_attempts(policy) > 0) else { return true };
    let end = task.ended_at.unwrap_or(now);
    let made = task.restarts.iter().filter(|at| counts(policy, **at, end)).count();
    u64::try_from(made).unwrap_or(u64::MAX) < max_attempts(policy)
}

fn max_attempts(policy: &RestartPolicy) -> u64 {
    policy.max_attempts.unwrap_or(0)
}

/// Whether a restart lies within the window before `end`.
fn counts(policy: &RestartPolicy, restart: Timestamp, end: Timestamp) -> bool {
    let window = policy.window.map_or(Duration::ZERO, Nanos::duration);
    window.is_zero() || restart > end.before(window)
}

fn delay(task: &Task) -> Duration {
    let delay = task.spec.restart_policy.as_ref().and_then(|policy| policy.delay);
    delay.map_or(defaults::RESTART_DELAY, Nanos::duration)
}

/// Whether tasks cannot stay on a node: it is gone, down or drained.
pub(super) fn is_unusable(node: Option<&Node>) -> bool {
    node.is_none_or(|node| {
        node.status.state == NodeState::Down || node.spec.availability == Availability::Drain
    })
}

/// Whether the end was the task's own doing: not asked for, and not its node's.
pub(super) fn ended_on_its_own(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
}

/// Whether nothing of a task runs any more, as far as can be known: it ended, never reached a
/// node and will not, or its node is gone or down.
pub(super) fn has_stopped(view: &Snapshot, task: &Task) -> bool {
    let state = task.status.state;
    state.is_terminal() || (!task.is_wanted() && holds_nothing(view, task))
}

fn holds_nothing(view: &Snapshot, task: &Task) -> bool {
    let down = |node: &Arc<Node>| node.status.state == NodeState::Down;
    task.status.state < TaskState::Assigned
        || task.node_id.is_some_and(|node| view.nodes.get(node).is_none_or(down))
}

/// Makes a new task of a slot start at `at` and not before `old` has stopped, and whatever else of
/// the slot was told to: at once, if nothing is to be waited for. `old` was told to stop, or is so in
/// the same plan. Where there is a delay, what is out of reach now may be back at its end, and
/// running still: then that is waited for. (SwarmKit looks at the old task and its node when it
/// makes the new one, and not again.)
pub(super) fn start(
    view: &Snapshot,
    task: &mut Task,
    at: Timestamp,
    (slot, old): (Slot<'_>, &Task),
    now: Timestamp,
) {
    let stopped = old.status.state.is_terminal() || holds_nothing(view, old);
    let may_return = at > now && !old.status.state.is_terminal();
    let older = still_stopping(view, slot).find(|older| older.id != old.id);
    task.start_after = (at > now).then_some(at);
    task.start_after_stop_of =
        (!stopped || may_return).then_some(old.id).or(older.map(|older| older.id));
    if task.start_after.is_some() || task.start_after_stop_of.is_some() {
        task.desired_state = TaskState::Ready;
    }
    task.displaced = is_displaced(view, slot, task);
}

/// Whether nobody leaves for the next task of a slot: the last had to leave itself and has had no node
/// since; or others left for it, or for one before it, in vain: it did not last, or the node did not suit
/// it then. They would leave again and again. A new specification may be what mends that.
pub(super) fn is_displaced(view: &Snapshot, slot: Slot<'_>, new: &Task) -> bool {
    let old = slot.newest();
    let had_no_node = old.status.state < TaskState::Assigned;
    let failed = ended_on_its_own(old) && !has_lasted(old);
    let node = || old.node_id.and_then(|node| view.nodes.get(node));
    let takes_tasks = |node: &Arc<Node>| {
        node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
    };
    let in_vain = failed || (had_no_node && node().is_some_and(takes_tasks));
    let still = old.displaced && (had_no_node || failed);
    let made_room = !old.room_from.is_empty();
    old.preempted.is_some()
        || (old.spec_version == new.spec_version && (still || (made_room && in_vain)))
}

/// Whether a task ran for so long that its failures before are forgotten.
fn has_lasted(task: &Task) -> bool {
    let ran = task.running_since.zip(task.ended_at);
    ran.is_some_and(|(since, end)| end.since(since) >= failures::MEMORY)
}

/// The tasks of a slot that were told to stop and have not. One that never reached its node stops at
/// once, although it was waiting for another itself: so looking at the newest alone is not enough.
fn still_stopping<'a>(view: &Snapshot, slot: Slot<'a>) -> impl Iterator<Item = &'a Arc<Task>> {
    let stopping = move |task: &&Arc<Task>| !task.is_wanted() && !has_stopped(view, task);
    slot.tasks.iter().filter(stopping)
}

/// Whether a moment that has passed was written down by a clock that was far ahead. Nothing waits
/// until the clock is there again: that may take an hour, or a year.
pub(super) fn is_misdated(at: Timestamp, now: Timestamp) -> bool {
    at > now + SKEW
}

/// Until when a task is not to be started.
pub(super) fn held_until(task: &Task, now: Timestamp) -> Option<Timestamp> {
    task.start_after.filter(|at| *at > now && !is_misdated(task.created_at, now))
}

/// Starts a task that is desired `ready` if it has waited for everything.
fn release(view: &Snapshot, slot: Slot<'_>, task: &Task, now: Timestamp, plan: &mut Plan) {
    if let Some(at) = held_until(task, now) {
        return plan.look_again(at);
    }
    let old = task.start_after_stop_of.and_then(|old| view.tasks.get(old));
    let deadline = task.created_at + STOP_TIMEOUT;
    let waits = old.is_some_and(|old| !has_stopped(view, old))
        || still_stopping(view, slot).next().is_some();
    if waits && now < deadline {
        return plan.look_again(deadline);
    }
    plan.changes.push(Change::Desire(task.id, goal(task.job_iteration)));
}

/// Keeps the places of one service in order. Lives for one plan.
pub(super) struct Repair<'a> {
    pub(super) view: &'a Snapshot,
    pub(super) maker: Maker,
    pub(super) clean: Clean<'a>,
    /// Whether a roll-out has stopped after failures: from then on it changes nothing more.
    paused: bool,
    /// Whether tasks that ended may be replaced.
    pub(super) replace: bool,
}

impl<'a> Repair<'a> {
    pub(super) fn new(view: &'a Snapshot, service: &'a Service) -> Self {
        let state = service.update_status.as_ref().map(|status| status.state);
        let paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
        let (maker, clean) = (Maker::new(view, service), Clean::new(view, service));
        Self { view, maker, clean, paused, replace: true }
    }

    /// Looks after one place: replaces what ended, starts what has waited long enough, and leaves
    /// one task where two have taken turns.
    pub(super) fn slot(&mut self, slot: Slot<'_>, ctx: &mut Ctx<'_>, plan: &mut Plan) {
        if slot.is_calm(self.view) {
            return;
        }
        let (failing, mut sound): (Vec<_>, Vec<_>) =
            slot.wanted().partition(|task| self.is_failing(task));
        if sound.len() > 1 {
            self.leave_one(&mut sound, plan);
        }
        for task in sound.iter().filter(|task| task.desired_state == TaskState::Ready) {
            release(self.view, slot, task, ctx.now, plan);
        }
        for task in failing {
            self.failing(slot, task, !sound.is_empty(), ctx, plan);
        }
    }

    /// Whether a task that shall run cannot any more: it ended, it may not stay on its node, or
    /// that is of no use.
    pub(super) fn is_failing(&self, task: &Task) -> bool {
        let lost = |node| self.view.is_lost(node);
        task.status.state.is_terminal() || task.eviction.is_some() || task.node_id.is_some_and(lost)
    }

    fn failing(
        &mut self,
        slot: Slot<'_>,
        task: &Task,
        relieved: bool,
        ctx: &mut Ctx<'_>,
        plan: &mut Plan,
    ) {
        let heir = slot.wanted().next_back().is_some_and(|newest| newest.id == task.id);
        let again = heir && !relieved && should_restart(task, ctx.now);
        if let Some(at) = held_until(task, ctx.now)
            && (task.status.state.is_terminal() || task.eviction.is_some())
            && again
        {
            // It failed while it was being made ready, or has to leave. One attempt for each
            // delay, no more.
            return plan.look_again(at);
        }
        plan.changes.push(Change::Desire(task.id, TaskState::Shutdown));
        if self.replace && again {
            let new = self.replacement(slot, task, ctx);
            plan.because(
                Key::Task(new.id),
                format!("replaces {}, which is {}", task.id, task.status.state),
            );
            plan.changes.push(Change::create(new));
        }
    }

    /// A task for a place that none shall run in. It goes on from the one that was there last.
    pub(super) fn fresh(&self, place: Place, slot: Option<Slot<'_>>, ctx: &mut Ctx<'_>) -> Task {
        let mut new = self.maker.task(place, slot, ctx);
        if let Some(slot) = slot {
            let old = slot.newest();
            start(self.view, &mut new, ctx.now, (slot, old), ctx.now);
            new.restarts.clone_from(&old.restarts);
        }
        new
    }

    /// The task that comes after one that ended or has to leave its node. It runs what the
    /// service asks for now; while a roll-out is paused, what its predecessor ran.
    pub(super) fn replacement(&mut self, slot: Slot<'_>, old: &Task, ctx: &mut Ctx<'_>) -> Task {
        let mut new = self.maker.task(slot.place, Some(slot), ctx);
        if self.paused && !self.clean.is_clean(old) {
            new.spec = old.spec.clone();
            new.spec_version = old.spec_version;
            new.failures = slot.failures(old.spec_version, ctx.now);
            new.annotations = old.annotations.clone();
            new.log_driver = old.log_driver.clone();
            new.registry_auth = old.registry_auth.clone();
        }
        let ended = old.ended_at.filter(|_| old.status.state.is_terminal());
        let since = ended.map_or(ctx.now, |ended| ended.max(old.start_after.unwrap_or_default()));
        let node = old.node_id.and_then(|node| self.view.nodes.get(node));
        let drained = node.is_some_and(|node| node.spec.availability == Availability::Drain);
        let began = old.start_after.unwrap_or(old.created_at);
        let at = (since + delay(old)).max(began + SHORTEST_LIFE);
        let at = at.min(ctx.now + delay(old).max(SHORTEST_LIFE));
        let at = if drained { ctx.now } else { at };
        start(self.view, &mut new, at, (slot, old), ctx.now);
        new.restarts = self.attempts(old, &new);
        if !ended_on_its_own(old) {
            new.rollout = old.rollout;
        }
        new
    }

    /// What the new task knows of the restarts before it: those of its specification that still
    /// count by its policy, its own included.
    fn attempts(&mut self, old: &Task, new: &Task) -> Vec<Timestamp> {
        let policy = new.spec.restart_policy.as_ref();
        let Some(policy) = policy.filter(|policy| max_attempts(policy) > 0) else {
            return Vec::new();
        };
        let same = Arc::ptr_eq(&old.spec, &new.spec) || self.clean.is_same(old);
        let mut made = if same { old.restarts.clone() } else { Vec::new() };
        made.retain(|at| counts(policy, *at, new.created_at));
        made.push(new.created_at);
        made.drain(..made.len().saturating_sub(ATTEMPTS));
        made
    }

    /// Of several sound tasks in one place: the up-to-date one alone once it runs; until then
    /// also the one that it will take over from. One that is to relieve another up-to-date one may
    /// prepare for that.
    fn leave_one(&mut self, sound: &mut Vec<&Arc<Task>>, plan: &mut Plan) {
        let (clean, dirty): (Vec<&Arc<Task>>, Vec<_>) =
            sound.iter().copied().partition(|task| self.clean.is_clean(task));
        let best = clean.iter().copied().max_by_key(|task| rank(task));
        let relief = clean
            .into_iter()
            .find(|task| task.relieves.is_some() && task.relieves == best.map(|best| best.id));
        let takes_over = best.is_some_and(|task| task.status.state == TaskState::Running);
        let dirty = dirty.into_iter().filter(|_| !takes_over).max_by_key(|task| rank(task));
        let kept = [best, relief, dirty].map(|task| task.map(|task| task.id));
        sound.retain(|task| {
            let keep = kept.contains(&Some(task.id));
            if !keep {
                plan.changes.push(Change::Desire(task.id, TaskState::Shutdown));
            }
            keep
        });
    }
}
