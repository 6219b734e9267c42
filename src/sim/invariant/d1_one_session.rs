//! D1: the leader has at most one session of a node, and no session is of two. (That an agent at
//! rest is in the one that the leader has is E2's.)

use std::collections::BTreeSet;

use super::Invariant;
use crate::sim::World;

/// Events between two looks.
const EVERY: u64 = 20;

pub(super) struct OneSession;

impl Invariant for OneSession {
    fn name(&self) -> &'static str {
        "D1"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        if !world.events().is_multiple_of(EVERY) {
            return Ok(());
        }
        let leader = world.leader().and_then(|leader| world.hosts()[leader].manager.as_ref());
        let mut nodes = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for (node, session) in leader.into_iter().flat_map(|leader| leader.sessions()) {
            if !nodes.insert(node) || !ids.insert(session) {
                return Err(format!("the leader has two sessions of {node}, or one twice"));
            }
        }
        Ok(())
    }
}
