//! A manager's process in a simulated cluster: what the shells of the control loop and of the
//! sessions do around [`Controller`] and [`Dispatcher`], with virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_core::control::{Controller, RETRY_AFTER, Retry, SWEEP_EVERY};
use swarm_core::id::IdSource;
use swarm_core::model::{Node, NodeDescription, NodeId, SecretId, TaskId, TaskStatus, Version};
use swarm_core::protocol::{AgentMessage, Item, ItemKey, ManagerMessage, SessionId};
use swarm_core::store::{
    Batch, Change, CommitError, Epoch, MemoryStore, Snapshot, Store as _, Watch,
};
use swarm_core::time::Timestamp;

use super::consensus::{Author, Replica};
use super::link::{Message, StreamId};
use super::world::{MANAGER, World};
use crate::manager::assign::{Affected, affected};
use crate::manager::dispatcher::{self, Dispatcher, Look};
use crate::manager::session::GATHER;
use crate::manager::tell::{Draft, Told};

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
    ids: IdSource,
    pub(super) dispatcher: Dispatcher,
    commits: Watch,
    pub(super) sessions: BTreeMap<NodeId, Session>,
    reports: Vec<(NodeId, Vec<(TaskId, TaskStatus)>)>,
    reporting: bool,
    /// When the deadlines are looked at next, by the monotonic clock, and what was planned for then
    /// by the wall clock.
    look_at: Timestamp,
    look: Look,
}

/// A session, from the manager's side.
pub(super) struct Session {
    pub(super) id: SessionId,
    stream: StreamId,
    told: Told,
    /// Whether the node's state is written, and it was welcomed.
    open: bool,
    /// Whether there may be something to tell it.
    woken: bool,
    /// Changes are gathered until then.
    quiet_until: Timestamp,
}

impl Session {
    fn is_due(&self, now: Timestamp) -> bool {
        self.open && self.woken && self.quiet_until <= now
    }
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
        let local = self.hosts[index].local(now);
        let (planners, impatient) = (self.planners.clone(), self.meddle.impatient);
        let Some(manager) = &mut self.hosts[index].manager else { return };
        let store = manager.replica.store.clone();
        let view = store.snapshot();
        // A bug that a test may plant: the patience is nearly over when it begins.
        let since = if impatient { local.before(Duration::from_secs(29)) } else { local };
        let dispatcher = Dispatcher::new(&view, since);
        let look = dispatcher.next_look(&view, local);
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
        result: Result<(), CommitError>,
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
        result: Result<(), CommitError>,
        view: &Snapshot,
    ) {
        match reply {
            Reply::Plan => {
                leading.planning = false;
                let Err(error) = result else { return };
                leading.controller.rejected(batch, view);
                let at_once = Retry::after(&error) == Retry::AtOnce;
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
                Ok(()) => self.welcome(leading, node, session, view),
                Err(CommitError::Conflict { .. }) => {
                    self.describe(index, leading, node, session, hello, view);
                }
                Err(_) => self.hang_up(leading, node, Some(session)),
            },
            Reply::Down(node) => {
                if result.is_err() {
                    let local = self.hosts[index].local(self.now);
                    leading.dispatcher.retry(node, local + RETRY_AFTER);
                    leading.look_at = leading.look_at.min(self.now + RETRY_AFTER);
                }
            }
            Reply::Client(_) => {}
        }
    }

    fn wake_sessions(&mut self, view: &Snapshot, leading: &mut Leading, store: &MemoryStore) {
        let mut woken = BTreeSet::new();
        let mut all = false;
        loop {
            match leading.commits.try_next() {
                Ok(Some(commit)) => match affected(view, &commit) {
                    Affected::All => all = true,
                    Affected::Nodes(nodes) => woken.extend(nodes),
                },
                Ok(None) => break,
                Err(_) => {
                    leading.commits = store.watch(view.version());
                    all = true;
                }
            }
        }
        for (node, session) in &mut leading.sessions {
            session.woken |= all || woken.contains(node);
        }
    }

    /// Sends assignments where they are due.
    fn tell(&mut self, leading: &mut Leading, view: &Snapshot) {
        if !leading.sessions.values().any(|session| session.is_due(self.now)) {
            return;
        }
        let managers = self.managers(view);
        let mut removed = Vec::new();
        for (node, session) in &mut leading.sessions {
            if !session.is_due(self.now) {
                continue;
            }
            session.woken = false;
            if view.nodes.get(*node).is_none() {
                removed.push(*node);
                continue;
            }
            if let Some(message) = session.told.settings(view, managers.clone()) {
                self.send(session.stream, false, Message::Manager(message));
            }
            if let Some(draft) = session.told.assignments(view, *node) {
                let mut items = items(view, &draft);
                if self.meddle.secrets_for_all {
                    items.extend(
                        view.secrets.iter().filter_map(|secret| secret_item(view, secret.id)),
                    );
                }
                let message = draft.message(items);
                self.send(session.stream, false, Message::Manager(message));
                session.quiet_until = self.now + GATHER;
            }
        }
        for node in removed {
            let reason = dispatcher::Refusal::UnknownNode.to_string();
            if let Some(session) = leading.sessions.remove(&node) {
                let refused = ManagerMessage::Refused { reason };
                self.send(session.stream, false, Message::Manager(refused));
            }
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

    /// Marks silent nodes down.
    fn expire(&mut self, index: usize, leading: &mut Leading, view: &Snapshot) {
        if leading.look_at > self.now {
            return;
        }
        let local = self.hosts[index].local(self.now);
        match leading.dispatcher.look(&leading.look, view, local) {
            None => self.covered("dispatcher: a manager that was paused forgives"),
            Some(silent) => {
                silent.into_iter().for_each(|node| self.is_silent(index, leading, node, view));
            }
        }
        self.look_later(leading, local, view);
    }

    fn is_silent(&mut self, index: usize, leading: &mut Leading, node: NodeId, view: &Snapshot) {
        let local = self.hosts[index].local(self.now);
        self.covered("dispatcher: a silent node is down");
        self.hang_up(leading, node, None);
        let down = |node: &Node| dispatcher::down(node, local, "heartbeat failure");
        if let Some(change) = view.nodes.get(node).and_then(|node| down(node)) {
            let (epoch, changes) = (leading.epoch, vec![change]);
            let batch = Batch { at: local, epoch: Some(epoch), changes };
            self.propose(index, epoch, Author::Dispatcher, batch, Reply::Down(node));
        }
    }

    fn look_later(&mut self, leading: &mut Leading, local: Timestamp, view: &Snapshot) {
        leading.look = leading.dispatcher.next_look(view, local);
        leading.look_at = self.now + leading.look.pause.max(Duration::from_millis(1));
    }

    /// A message for a manager.
    pub(super) fn manager_hears(&mut self, index: usize, stream: StreamId, message: Message) {
        let Some(agent) = self.net.streams.get(&stream).map(|stream| stream.agent) else { return };
        let node = self.hosts[agent.host].id;
        let Some(manager) = &mut self.hosts[index].manager else { return };
        let view = manager.replica.store.snapshot();
        let leading = manager.leading.take();
        let Some(mut leading) = leading else {
            let managers = self.managers(&view);
            if matches!(message, Message::Agent(_)) {
                let redirect = ManagerMessage::Redirect { managers };
                self.send(stream, false, Message::Manager(redirect));
            }
            return;
        };
        match message {
            Message::Agent(message) => {
                self.leader_hears(index, &mut leading, (node, stream), message, &view);
            }
            _ => {
                let ended = leading.sessions.get(&node).is_some_and(|s| s.stream == stream);
                if ended {
                    leading.sessions.remove(&node);
                }
                self.net.streams.remove(&stream);
            }
        }
        if let Some(manager) = &mut self.hosts[index].manager {
            manager.leading = Some(leading);
        }
        self.manager_turn(index);
    }

    fn leader_hears(
        &mut self,
        index: usize,
        leading: &mut Leading,
        (node, stream): (NodeId, StreamId),
        message: AgentMessage,
        view: &Snapshot,
    ) {
        let local = self.hosts[index].local(self.now);
        if let AgentMessage::Hello { description, addr } = message {
            return self.open(index, leading, (node, stream), (description, addr), view);
        }
        let session = leading.sessions.get(&node).filter(|session| session.stream == stream);
        let current = session.is_some_and(|s| leading.dispatcher.heard(node, s.id, view, local));
        if !current {
            self.covered("dispatcher: a message of a session that is over");
            return self.close(stream, false);
        }
        if let AgentMessage::Statuses(statuses) = message {
            leading.reports.push((node, statuses));
        }
    }

    fn open(
        &mut self,
        index: usize,
        leading: &mut Leading,
        (node, stream): (NodeId, StreamId),
        hello: (NodeDescription, String),
        view: &Snapshot,
    ) {
        let local = self.hosts[index].local(self.now);
        let opened = leading.dispatcher.open(node, view, local, &mut leading.ids);
        let id = match opened {
            Ok(id) => id,
            Err(dispatcher::Refusal::UnknownNode) => {
                let reason = dispatcher::Refusal::UnknownNode.to_string();
                let refused = ManagerMessage::Refused { reason };
                return self.send(stream, false, Message::Manager(refused));
            }
            Err(dispatcher::Refusal::TooFast) => {
                self.covered("dispatcher: a storm of sessions is refused");
                return self.close(stream, false);
            }
        };
        let told = Told::default();
        let (open, woken, quiet_until) = (false, false, self.now);
        let session = Session { id, stream, told, open, woken, quiet_until };
        if let Some(former) = leading.sessions.insert(node, session) {
            self.covered("dispatcher: a later session of a node takes over");
            self.close(former.stream, false);
        }
        self.look_later(leading, local, view);
        self.describe(index, leading, node, id, Box::new(hello), view);
    }

    fn describe(
        &mut self,
        index: usize,
        leading: &mut Leading,
        node: NodeId,
        session: SessionId,
        hello: Box<(NodeDescription, String)>,
        view: &Snapshot,
    ) {
        let ready = |node: &Node| dispatcher::ready(node, hello.0.clone(), &hello.1);
        match view.nodes.get(node).and_then(|node| ready(node)) {
            None => self.welcome(leading, node, session, view),
            Some(change) => {
                let (epoch, changes) = (leading.epoch, vec![change]);
                let at = self.hosts[index].local(self.now);
                let batch = Batch { at, epoch: Some(epoch), changes };
                let reply = Reply::Opened(node, session, hello);
                self.propose(index, epoch, Author::Dispatcher, batch, reply);
            }
        }
    }

    fn welcome(&mut self, leading: &mut Leading, node: NodeId, id: SessionId, view: &Snapshot) {
        let managers = self.managers(view);
        let Some(session) = leading.sessions.get_mut(&node).filter(|session| session.id == id)
        else {
            return;
        };
        let heartbeat = dispatcher::heartbeat(view).into();
        (session.open, session.woken) = (true, true);
        let stream = session.stream;
        let welcome = ManagerMessage::Welcome { session: id, heartbeat, managers };
        self.send(stream, false, Message::Manager(welcome));
    }

    fn hang_up(&mut self, leading: &mut Leading, node: NodeId, id: Option<SessionId>) {
        let matches = |session: &Session| id.is_none_or(|id| session.id == id);
        if leading.sessions.get(&node).is_some_and(matches)
            && let Some(session) = leading.sessions.remove(&node)
        {
            self.close(session.stream, false);
        }
    }

    /// Where managers are, the leader first.
    fn managers(&self, view: &Snapshot) -> Vec<String> {
        let leader = self.log.leader.map(|(host, _)| self.hosts[host].name.clone());
        let managers = view.nodes.iter().filter_map(|node| node.manager_status.as_ref());
        let mut names: Vec<String> = managers.map(|status| status.addr.clone()).collect();
        names.sort_by_key(|name| (Some(name) != leader.as_ref(), name.clone()));
        names
    }
}

/// The items of a draft, with the bytes of secrets.
fn items(view: &Snapshot, draft: &Draft<'_>) -> Vec<Item> {
    let item = |key: &ItemKey| match key {
        ItemKey::Secret(id) => secret_item(view, *id),
        key => draft.item(view, key),
    };
    draft.put.iter().filter_map(item).collect()
}

fn secret_item(view: &Snapshot, id: SecretId) -> Option<Item> {
    let spec = &view.secrets.get(id)?.spec;
    let (bytes, templating) = (spec.data.clone()?, spec.templating.clone());
    Some(Item::Secret { id, bytes, templating })
}
