//! Pure: what one session tells its agent next, given what it has told it so far.

use swarm_core::model::{Node, NodeId};
use swarm_core::protocol::{
    Assignments, Item, ItemKey, ManagerMessage, SessionId, Settings, Trust,
};
use swarm_core::store::Snapshot;

use super::assign::AssignmentSet;
use super::common::Common;
use super::dispatcher::heartbeat;
use super::rotation;

/// What one session has told its agent so far. A new session has told nothing, so that it begins
/// with a complete set.
#[derive(Debug, Default)]
pub struct Told {
    set: Option<AssignmentSet>,
    number: u64,
    settings: Option<Settings>,
    trust: Option<Trust>,
}

/// A set of assignments, or the changes to one, before the bytes of secrets are fetched.
#[derive(Debug)]
pub struct Draft<'a> {
    applies_to: Option<u64>,
    results_in: u64,
    drop: Vec<ItemKey>,
    /// What is new or changed.
    pub put: Vec<ItemKey>,
    /// The whole set, in which the items of `put` are.
    pub set: &'a AssignmentSet,
}

impl Told {
    /// What opens the session.
    pub fn welcome(
        &mut self,
        session: SessionId,
        view: &Snapshot,
        node: NodeId,
        managers: Vec<String>,
    ) -> ManagerMessage {
        let settings = settings(view, node, managers);
        self.settings = Some(settings.clone());
        ManagerMessage::Welcome { session, settings }
    }

    /// The settings to send, if they are not those that the agent was told.
    pub fn settings(
        &mut self,
        view: &Snapshot,
        node: NodeId,
        managers: Vec<String>,
    ) -> Option<ManagerMessage> {
        let now = settings(view, node, managers);
        let before = self.settings.replace(now.clone());
        (before.as_ref() != Some(&now)).then_some(ManagerMessage::Settings(now))
    }

    /// The roots to trust and whether to renew, if the agent does not say that it has done so and
    /// was not told the same before.
    pub fn trust(&mut self, view: &Snapshot, node: &Node) -> Option<ManagerMessage> {
        let now = rotation::trust(view, node);
        let before = std::mem::replace(&mut self.trust, now.clone());
        now.filter(|now| before.as_ref() != Some(now)).map(ManagerMessage::Trust)
    }

    /// What to send so that the agent has what `node` shall have, if it has not.
    pub fn assignments(&mut self, common: &Common, node: NodeId) -> Option<Draft<'_>> {
        let set = AssignmentSet::of(common, node);
        let complete = self.set.is_none();
        let (put, drop) = set.changes_since(&self.set.take().unwrap_or_default());
        let set = &*self.set.insert(set);
        if !complete && put.is_empty() && drop.is_empty() {
            return None;
        }
        let applies_to = (!complete).then_some(self.number);
        self.number += 1;
        Some(Draft { applies_to, results_in: self.number, drop, put, set })
    }
}

/// What a node has to know of its cluster and of itself.
#[must_use]
pub fn settings(view: &Snapshot, node: NodeId, managers: Vec<String>) -> Settings {
    let role = view.nodes.get(node).map(|node| node.role).unwrap_or_default();
    let recovery = view.cluster().map_or(0, |cluster| cluster.recovery);
    Settings { heartbeat: heartbeat(view).into(), managers, recovery, role }
}

impl Draft<'_> {
    /// The item behind a key of `put`. Absent for a secret, whose bytes the caller fetches.
    #[must_use]
    pub fn item(&self, view: &Snapshot, key: &ItemKey) -> Option<Item> {
        match key {
            ItemKey::Task(id) => self.set.tasks.get(id).cloned().map(Item::Task),
            ItemKey::Network(id) => self.set.networks.get(id).cloned().map(Item::Network),
            ItemKey::Port(..) => self.set.ports.get(key).cloned().map(Item::Port),
            ItemKey::Config(id) => {
                let config = view.configs.get(*id);
                config.map(|config| Item::Config {
                    id: *id,
                    bytes: config.spec.data.clone(),
                    templating: config.spec.templating.clone(),
                })
            }
            ItemKey::Secret(_) => None,
        }
    }

    /// The message, with the items of `put`.
    #[must_use]
    pub fn message(self, mut put: Vec<Item>) -> ManagerMessage {
        // Dependencies first, so that an agent that acts as it reads finds them there.
        put.sort_by_key(|item| matches!(item, Item::Task(_)));
        let Self { applies_to, results_in, drop, .. } = self;
        ManagerMessage::Assignments(Assignments { applies_to, results_in, put, drop })
    }
}
