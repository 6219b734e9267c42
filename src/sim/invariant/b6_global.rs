//! B6: a global service has at most one task that shall run on each node (two while a new one
//! starts first), and gets none on a node that is down or drained.

use std::collections::BTreeMap;

use swarm_core::model::{Availability, NodeId, NodeState, ServiceMode};
use swarm_core::store::Object;
use swarm_core::time::Timestamp;

use super::{Invariant, PLAN_ON_ITS_WAY, Place, StartFirst, Step, steps};
use crate::sim::World;
use crate::sim::consensus::Author;

#[derive(Default)]
pub(super) struct Global {
    start_first: StartFirst,
    /// When each node last changed.
    changed: BTreeMap<NodeId, Timestamp>,
}

impl Invariant for Global {
    fn name(&self) -> &'static str {
        "B6"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            self.start_first.learn(&step);
            self.check(world.now(), &step)?;
        }
        Ok(())
    }
}

impl Global {
    fn check(&mut self, now: Timestamp, step: &Step<'_>) -> Result<(), String> {
        for event in &step.commit.events {
            let task = match (&event.old, &event.new) {
                (_, Some(Object::Node(node))) => {
                    self.changed.insert(node.id, now);
                    continue;
                }
                (None, Some(Object::Task(task))) => task,
                _ => continue,
            };
            let service = step.after.services.get(task.service_id);
            let Some(service) =
                service.filter(|service| matches!(service.spec.mode, ServiceMode::Global(_)))
            else {
                continue;
            };
            if step.entry.author != Author::Planners {
                continue;
            }
            let tasks = Place::of(step.after, task).tasks(step.after);
            let wanted = tasks.filter(|task| task.is_wanted()).count();
            let allowed = if self.start_first.contains(task.id) { 2 } else { 1 };
            if wanted > allowed {
                return Err(format!(
                    "entry {} gives {} {wanted} tasks on one node",
                    step.entry.index, service.spec.name
                ));
            }
            let Some(node) = task.node_id.and_then(|id| step.after.nodes.get(id)) else { continue };
            let settled =
                self.changed.get(&node.id).is_none_or(|at| now.since(*at) > PLAN_ON_ITS_WAY);
            let unusable = node.spec.availability != Availability::Active
                || node.status.state == NodeState::Down;
            if settled && unusable {
                return Err(format!(
                    "entry {} makes {} for a node that is {} and {}",
                    step.entry.index,
                    task.name(),
                    node.status.state,
                    node.spec.availability
                ));
            }
        }
        Ok(())
    }
}
