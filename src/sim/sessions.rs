//! Pure: the sessions of a simulated leader with the nodes: what the shell in `manager/session` does
//! around a [`Dispatcher`](crate::manager::dispatcher::Dispatcher).

use std::collections::BTreeSet;
use std::time::Duration;

use swarm_core::model::{
    Node, NodeDescription, NodeId, NodeState, SecretId, TaskId, TaskState, TaskStatus,
};
use swarm_core::protocol::{AgentMessage, Item, ItemKey, ManagerMessage, SessionId};
use swarm_core::store::{Batch, MemoryStore, Snapshot, Store as _};
use swarm_core::time::Timestamp;

use super::consensus::Author;
use super::link::{Message, StreamId};
use super::manager::{Leading, Reply};
use super::world::World;
use crate::manager::assign::{Affected, affected};
use crate::manager::common::Common;
use crate::manager::dispatcher;
use crate::manager::session::GATHER;
use crate::manager::tell::{self, Draft, Told};

/// A session, from the manager's side.
pub(super) struct Session {
    pub(super) id: SessionId,
    stream: StreamId,
    told: Told,
    /// Whether the node's state is written, and it was welcomed.
    pub(super) open: bool,
    /// Whether there may be something to tell it.
    pub(super) woken: bool,
    /// Changes are gathered until then.
    pub(super) quiet_until: Timestamp,
}

impl Session {
    fn is_due(&self, now: Timestamp) -> bool {
        self.open && self.woken && self.quiet_until <= now
    }
}

impl World {
    pub(super) fn wake_sessions(
        &mut self,
        view: &Snapshot,
        leading: &mut Leading,
        store: &MemoryStore,
    ) {
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
    pub(super) fn tell(&mut self, leading: &mut Leading, view: &Snapshot) {
        if !leading.sessions.values().any(|session| session.is_due(self.now)) {
            return;
        }
        Common::advance(&mut leading.common, view);
        let managers = self.managers(view);
        let (mut removed, mut wronged) = (Vec::new(), Vec::new());
        for (node, session) in &mut leading.sessions {
            if !session.is_due(self.now) {
                continue;
            }
            session.woken = false;
            let Some(present) = view.nodes.get(*node) else {
                removed.push(*node);
                continue;
            };
            if present.status.state == NodeState::Down {
                wronged.push(*node);
                continue;
            }
            if let Some(message) = session.told.settings(view, *node, managers.clone()) {
                self.send(session.stream, false, Message::Manager(message));
            }
            if let Some(draft) = session.told.assignments(&leading.common, *node) {
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
        for node in wronged {
            self.hang_up(leading, node, None);
        }
        for node in removed {
            let reason = dispatcher::Refusal::UnknownNode.to_string();
            if let Some(session) = leading.sessions.remove(&node) {
                let refused = ManagerMessage::Refused { reason };
                self.send(session.stream, false, Message::Manager(refused));
            }
        }
    }

    /// Marks silent nodes down.
    pub(super) fn expire(&mut self, index: usize, leading: &mut Leading, view: &Snapshot) {
        if leading.look_at > self.now {
            return;
        }
        match leading.dispatcher.look(&leading.look, view, self.elapsed()) {
            None => self.covered("dispatcher: a manager that was paused forgives"),
            Some(silent) => {
                silent.into_iter().for_each(|node| self.is_silent(index, leading, node, view));
            }
        }
        self.look_later(leading, view);
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

    fn look_later(&mut self, leading: &mut Leading, view: &Snapshot) {
        leading.look = leading.dispatcher.next_look(view, self.elapsed());
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
                let redirect = ManagerMessage::Redirect(tell::settings(&view, node, managers));
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
        let now = self.elapsed();
        let current = session.is_some_and(|s| leading.dispatcher.heard(node, s.id, view, now));
        if !current {
            self.covered("dispatcher: a message of a session that is over");
            return self.close(stream, false);
        }
        if let AgentMessage::Statuses(statuses) = message {
            leading.reports.push((node, statuses));
            if self.meddle.forges(&mut self.dice) {
                leading.reports.extend(forged(view, node, local));
            }
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
        let opened = leading.dispatcher.open(node, view, self.elapsed(), &mut leading.ids);
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
        self.look_later(leading, view);
        self.describe(index, leading, node, id, Box::new(hello), view);
    }

    pub(super) fn describe(
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

    pub(super) fn welcome(
        &mut self,
        leading: &mut Leading,
        node: NodeId,
        id: SessionId,
        view: &Snapshot,
    ) {
        let managers = self.managers(view);
        let Some(session) = leading.sessions.get_mut(&node).filter(|session| session.id == id)
        else {
            return;
        };
        (session.open, session.woken) = (true, true);
        let stream = session.stream;
        let welcome = session.told.welcome(id, view, node, managers);
        self.send(stream, false, Message::Manager(welcome));
    }

    pub(super) fn hang_up(&mut self, leading: &mut Leading, node: NodeId, id: Option<SessionId>) {
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

/// A bug that a test may plant: what a node says of another's task is believed.
fn forged(
    view: &Snapshot,
    by: NodeId,
    now: Timestamp,
) -> Option<(NodeId, Vec<(TaskId, TaskStatus)>)> {
    let early = |state| (TaskState::Assigned..TaskState::Running).contains(&state);
    let mut others = view.tasks.iter().filter(|task| early(task.status.state));
    let task = others.find(|task| task.node_id.is_some_and(|node| node != by))?;
    let status = TaskStatus::new(TaskState::Running, now, "started");
    Some((task.node_id?, vec![(task.id, status)]))
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
