//! Pure: what one session tells its agent next, given what it has told it so far.

use std::time::Duration;

use swarm_core::model::NodeId;
use swarm_core::protocol::{Assignments, Item, ItemKey, ManagerMessage};
use swarm_core::store::Snapshot;

use super::assign::AssignmentSet;
use super::common::Common;
use super::dispatcher::heartbeat;

/// What one session has told its agent so far. A new session has told nothing, so that it begins
/// with a complete set.
#[derive(Debug, Default)]
pub struct Told {
    set: Option<AssignmentSet>,
    number: u64,
    settings: Option<(Duration, Vec<String>)>,
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
    /// The settings to send, if they are not those that the agent has.
    pub fn settings(&mut self, view: &Snapshot, managers: Vec<String>) -> Option<ManagerMessage> {
        let now = (heartbeat(view), managers);
        let before = self.settings.replace(now.clone());
        // The welcome has said the first ones.
        before
            .filter(|before| *before != now)
            .map(|_| ManagerMessage::Settings { heartbeat: now.0.into(), managers: now.1 })
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
