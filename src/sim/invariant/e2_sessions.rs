//! E2: once everything has healed, every agent is in session with the leader, its node is ready, and
//! sessions last; a node that nothing ever happened to is never taken for down.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_core::model::{NodeId, NodeState};
use swarm_core::protocol::SessionId;
use swarm_core::store::Object;
use swarm_core::time::Timestamp;

use super::{Invariant, steps};
use crate::sim::World;
use crate::sim::script::{Action, FaultKind};

/// The time that agents have to come back.
const RETURN: Duration = Duration::from_secs(180);
/// Events between two looks at the sessions.
const EVERY: u64 = 20;

#[derive(Default)]
pub(super) struct Sessions {
    healed_at: Option<Timestamp>,
    /// The sessions since the agents had time to return.
    lasting: BTreeMap<NodeId, SessionId>,
    /// Whether nothing can have happened to each host; empty until it is asked for.
    spared: Vec<bool>,
}

impl Invariant for Sessions {
    fn name(&self) -> &'static str {
        "E2"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        self.never_down(world)?;
        if world.is_healed() && world.events().is_multiple_of(EVERY) {
            self.lasts(world)?;
        }
        Ok(())
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let state = world.state();
        let leader = world.leader().and_then(|leader| world.hosts()[leader].manager.as_ref());
        let Some(leader) = leader else { return Err("nobody leads".to_owned()) };
        for host in world.hosts().iter().filter(|host| !host.is_lost()) {
            let node = state.nodes.get(host.id);
            let node_state = node.map(|node| node.status.state);
            let agent = host.agent.as_ref().is_some_and(|agent| agent.in_session());
            if !agent || !leader.has_session(host.id) || node_state != Some(NodeState::Ready) {
                return Err(format!(
                    "{}: its agent is in session: {agent}; so says the leader: {}; its node is {}",
                    host.name,
                    leader.has_session(host.id),
                    node_state.map_or("gone".to_owned(), |state| state.to_string())
                ));
            }
        }
        Ok(())
    }
}

impl Sessions {
    fn never_down(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            for event in &step.commit.events {
                let (Some(Object::Node(old)), Some(Object::Node(new))) = (&event.old, &event.new)
                else {
                    continue;
                };
                let falls =
                    old.status.state != NodeState::Down && new.status.state == NodeState::Down;
                let Some(host) = world.host_of(new.id).filter(|_| falls) else { continue };
                if self.spared.is_empty() {
                    self.spared = spared(world);
                }
                if self.spared[host.index] {
                    return Err(format!("{} is taken for down, and is not", host.name));
                }
            }
        }
        Ok(())
    }

    fn lasts(&mut self, world: &World) -> Result<(), String> {
        let healed_at = *self.healed_at.get_or_insert(world.now());
        if world.now().since(healed_at) < RETURN {
            return Ok(());
        }
        let leader = world.leader().and_then(|leader| world.hosts()[leader].manager.as_ref());
        let Some(leader) = leader else { return Err("nobody leads".to_owned()) };
        for (node, session) in leader.sessions() {
            let former = *self.lasting.entry(node).or_insert(session);
            if former != session {
                let name = world.host_of(node).map_or("a node", |host| &host.name);
                return Err(format!("{name} opens a new session although nothing is wrong"));
            }
        }
        Ok(())
    }
}

/// Which hosts no fault can have kept from being heard. What happens to the managers' network can
/// happen to any node's session.
fn spared(world: &World) -> Vec<bool> {
    let script = world.script();
    let mut spared = vec![true; script.nodes()];
    script.lost.iter().for_each(|lost| spared[*lost] = false);
    for entry in &script.entries {
        let Action::Break(fault) = &entry.action else { continue };
        match &fault.kind {
            FaultKind::CrashAgent(host)
            | FaultKind::CrashMachine(host)
            | FaultKind::Pause(host) => spared[*host] = false,
            FaultKind::Partition(_) | FaultKind::OneWay(..) => return vec![false; spared.len()],
            FaultKind::Slow(host, _)
            | FaultKind::Lossy(host, _)
            | FaultKind::Repeating(host, _)
            | FaultKind::Reordering(host, _) => {
                if *host < script.managers {
                    return vec![false; spared.len()];
                }
                spared[*host] = false;
            }
            _ => {}
        }
    }
    spared
}
