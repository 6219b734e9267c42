//! D1: an epoch has one leader, and no session of any leader is another's or of two nodes; so a node
//! has at most one session in an epoch.
//!
//! Cut off from the others, a former leader keeps its sessions until its lease runs out, and a node
//! that has found the new one may then be in the books of both: in different epochs, of which the
//! store takes the words of one (A7). That an agent at rest is in the session that the leader has is
//! E2's.

use std::collections::BTreeMap;

use swarm_core::model::NodeId;
use swarm_core::protocol::SessionId;

use super::Invariant;
use crate::sim::World;

/// Events between two looks.
const EVERY: u64 = 20;

#[derive(Default)]
pub(super) struct OneSession {
    /// Whose the sessions are that were seen at the last look.
    known: BTreeMap<SessionId, NodeId>,
}

impl Invariant for OneSession {
    fn name(&self) -> &'static str {
        "D1"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        if !world.events().is_multiple_of(EVERY) {
            return Ok(());
        }
        let former = std::mem::take(&mut self.known);
        let mut leaders = BTreeMap::new();
        for host in world.hosts() {
            let Some(manager) = &host.manager else { continue };
            let Some(epoch) = manager.replica.believes else { continue };
            if let Some(other) = leaders.insert(epoch, &host.name) {
                return Err(format!("{} and {other} both lead in epoch {}", host.name, epoch.0));
            }
            for (node, session) in manager.sessions() {
                if self.known.insert(session, node).is_some() {
                    return Err(format!("session {session} of {} is known twice", host.name));
                }
                if former.get(&session).is_some_and(|of| *of != node) {
                    return Err(format!("session {session} of {} changes hands", host.name));
                }
            }
        }
        Ok(())
    }
}
