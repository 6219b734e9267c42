//! A manager's process in a simulated cluster: what the shell of the control loop does around
//! a [`Controller`], with virtual time. Its sessions with the nodes are in `sessions`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::{Controller, RETRY_AFTER, Retry, SWEEP_EVERY};
use swarm_core::id::IdSource;
use swarm_core::model::{NodeDescription, NodeId, TaskId, TaskStatus, Version};
use swarm_core::protocol::SessionId;
use swarm_core::store::{
    Batch, Change, CommitError, Epoch, MemoryStore, Snapshot, Store as _, Watch,
};
use swarm_core::time::Timestamp;

use super::consensus::{Author, Replica};
use super::sessions::Session;
use super::world::{MANAGER, World};
use crate::manager::common::Common;
use crate::manager::dispatcher::{self, Dispatcher, Look};

/// A manager's process.
pub struct Manager {
    pub(super) life: u64,
    /// Its copy of the state.
    pub replica: Replica,
    /// What exists while it believes to lead.
    pub(super) leading: Option<Leading>,
}

/// What exists while a manager believes to lead.
pub(super) struct Leading {
    pub(super) epoch: Epoch,
    controller: Controller,
    watch: Watch,
    /// A plan is on its way into the log.
    planning: bool,
    /// No plan before then.
    plan_after: Timestamp,
    swept: Timestamp,
    pub(super) ids: IdSource,
    pub(super) dispatcher: Dispatcher,
    pub(super) commits: Watch,
    pub(super) sessions: BTreeMap<NodeId, Session>,
    pub(super) common: Arc<Common>,
    pub(super) reports: Vec<(NodeId, Vec<(TaskId, TaskStatus)>)>,
    reporting: bool,
    /// When the deadlines are looked at next, and what was planned for then.
    pub(super) look_at: Timestamp,
    pub(super) look: Look,
}

/// Who waits for a proposal's fate.
pub(super) enum Reply {
    Plan,
    Reports,
    Opened(NodeId, SessionId, Box<(NodeDescription, String)>),
    Down(NodeId),
    Client(tokio::sync::oneshot::Sender<Result<Version, CommitError>>),
}

impl Manager {
    /// Whether a node is in session with this manager, as far as it knows.
    #[must_use]
    pub fn has_session(&self, node: NodeId) -> bool {
        let session = self.leading.as_ref().and_then(|leading| leading.sessions.get(&node));
        session.is_some_and(|session| session.open)
    }

    /// The sessions of its dispatcher, with their nodes.
    pub fn sessions(&self) -> impl Iterator<Item = (NodeId, SessionId)> + '_ {
        let sessions = self.leading.iter().flat_map(|leading| &leading.sessions);
        sessions.map(|(node, session)| (*node, session.id))
    }
}

impl Leading {
    fn wake_at(&self, clock: impl Fn(Timestamp) -> Timestamp) -> Option<Timestamp> {
        let tell = self.sessions.values().filter(|session| session.open && session.woken);
        let sessions = tell.map(|session| session.quiet_until).min();
        let plan = (!self.planning).then(|| {
            let next = self.controller.next_at();
            let sweep = self.swept + SWEEP_EVERY;
            clock(next.map_or(sweep, |next| next.min(sweep))).max(self.plan_after)
        });
        [sessions, plan, Some(self.look_at)].into_iter().flatten().min()
    }
}

impl World {
    /// Starts a manager on a host, from what is on its disk.
    pub(super) fn start_manager(&mut self, index: usize, disk: Option<Replica>) {
        let host = &mut self.hosts[index];
        host.lives += 1;
        let replica = disk.unwrap_or_else(Replica::new);
        host.manager = Some(Manager { life: host.lives, replica, leading: None });
        self.note_of(index, format_args!("the manager starts"));
    }

    pub(super) fn start_leading(&mut self, index: usize, epoch: Epoch) {
        let (now, seed) = (self.now, self.dice.below(u64::MAX));
        let (local, uptime) = (self.hosts[index].local(now), self.elapsed());
        let (planners, impatient) = (self.planners.clone(), self.meddle.impatient);
        let Some(manager) = &mut self.hosts[index].manager else { return };
        let store = manager.replica.store.clone();
        let view = store.snapshot();
        // A bug that a test may plant: the patience is nearly over when it begins.
        let planted = if impatient { Duration::from_secs(29) } else { Duration::ZERO };
        let dispatcher = Dispatcher::new(&view, uptime.saturating_sub(planted));
        let look = dispatcher.next_look(&view, uptime);
        manager.leading = Some(Leading {
            epoch,
            controller: Controller::new(planners, epoch, &view),
            watch: store.watch(view.version()),
            planning: false,
            plan_after: now,
            swept: local,
            ids: IdSource::seeded(seed),
            dispatcher,
            commits: store.watch(view.version()),
            sessions: BTreeMap::new(),
            common: Arc::default(),
            reports: Vec::new(),
            reporting: false,
            look_at: now + look.pause,
            look,
        });
        self.manager_turn(index);
    }

    /// Lets a manager do what is due.
    pub(super) fn manager_turn(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        if !host.is_running(now) {
            return;
        }
        let Some(manager) = &mut host.manager else { return };
        let store = manager.replica.store.clone();
        let Some(mut leading) = manager.leading.take() else { return };
        // Nothing commits within a turn: proposals only set out.
        let view = store.snapshot();
        self.wake_sessions(&view, &mut leading, &store);
        self.plan(index, &mut leading, &store, &view);
        self.write_reports(index, &mut leading, &view);
        self.expire(index, &mut leading, &view);
        self.tell(&mut leading, &view);
        let host = &mut self.hosts[index];
        let wake = leading.wake_at(|local| host.clock.when(local, now));
        if let Some(manager) = &mut host.manager {
            manager.leading = Some(leading);
        }
        self.wake(index, MANAGER, wake);
    }

    /// The control loop.
    fn plan(&mut self, index: usize, leading: &mut Leading, store: &MemoryStore, view: &Snapshot) {
        if leading.planning || self.now < leading.plan_after {
            return;
        }
        loop {
            match leading.watch.try_next() {
                Ok(Some(commit)) if self.meddle.loses(&mut self.dice) => drop(commit),
                Ok(Some(commit)) => leading.controller.observe(&commit),
                Ok(None) => break,
                Err(_) => {
                    self.covered("store: a watch lags and everything is looked at");
                    leading.watch = store.watch(view.version());
                    leading.controller.sweep(view);
                }
            }
        }
        let local = self.hosts[index].local(self.now);
        let due = local.since(leading.swept) >= SWEEP_EVERY || local < leading.swept;
        if due && self.meddle.lost_watch_events == 0 {
            leading.controller.sweep(view);
            leading.swept = local;
        }
        if leading.controller.next_at().is_none_or(|at| at > local) {
            return;
        }
        let step = leading.controller.step(view, local, &mut leading.ids);
        for reason in &step.reasons {
            self.note_of(index, format_args!("{:?}: {}", reason.key, reason.text));
        }
        if let Some(batch) = step.batch {
            leading.planning = true;
            self.propose(index, leading.epoch, Author::Planners, batch, Reply::Plan);
        }
    }

    /// A proposal's fate.
    pub(super) fn manager_learns(
        &mut self,
        index: usize,
        decided_in: Epoch,
        batch: &Batch,
        reply: Reply,
        result: Result<Version, CommitError>,
    ) {
        let Some(manager) = &mut self.hosts[index].manager else { return };
        let store = manager.replica.store.clone();
        let Some(mut leading) = manager.leading.take() else { return };
        if leading.epoch == decided_in {
            self.leader_learns(index, &mut leading, batch, reply, result, &store.snapshot());
        }
        if let Some(manager) = &mut self.hosts[index].manager {
            manager.leading = Some(leading);
        }
        self.manager_turn(index);
    }

    fn leader_learns(
        &mut self,
        index: usize,
        leading: &mut Leading,
        batch: &Batch,
        reply: Reply,
        result: Result<Version, CommitError>,
        view: &Snapshot,
    ) {
        match reply {
            Reply::Plan => {
                leading.planning = false;
                let error = match result {
                    Ok(version) => return leading.controller.committed(version),
                    Err(error) => error,
                };
                let at_once = leading.controller.rejected(&error) == Retry::AtOnce;
                let pause = if at_once { Duration::ZERO } else { RETRY_AFTER };
                leading.plan_after = self.now + pause;
            }
            // Facts are written until that works; sessions that end report them again.
            Reply::Reports if result.is_err() => {
                let (epoch, batch) = (leading.epoch, batch.clone());
                self.propose(index, epoch, Author::Dispatcher, batch, Reply::Reports);
            }
            Reply::Reports => leading.reporting = false,
            Reply::Opened(node, session, hello) => match result {
                Ok(_) => self.welcome(leading, node, session, view),
                Err(CommitError::Conflict { .. }) => {
                    self.describe(index, leading, node, session, hello, view);
                }
                Err(_) => self.hang_up(leading, node, Some(session)),
            },
            Reply::Down(node) => {
                if result.is_err() {
                    leading.dispatcher.retry(node, self.elapsed() + RETRY_AFTER);
                    leading.look_at = leading.look_at.min(self.now + RETRY_AFTER);
                }
            }
            Reply::Client(_) => {}
        }
    }

    fn write_reports(&mut self, index: usize, leading: &mut Leading, view: &Snapshot) {
        if leading.reporting || leading.reports.is_empty() {
            return;
        }
        let changes: Vec<Change> = std::mem::take(&mut leading.reports)
            .into_iter()
            .flat_map(|(node, statuses)| dispatcher::advances(view, node, statuses))
            .collect();
        if changes.is_empty() {
            return;
        }
        leading.reporting = true;
        let epoch = leading.epoch;
        let batch = Batch { at: self.hosts[index].local(self.now), epoch: Some(epoch), changes };
        self.propose(index, epoch, Author::Dispatcher, batch, Reply::Reports);
    }
}
