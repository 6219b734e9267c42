//! B11: an agent in session knows every container of its node, and a container whose task was
//! reported as ended does not run.

use std::collections::BTreeSet;

use swarm_core::executor::Found;
use swarm_core::model::TaskId;

use super::{Invariant, steps};
use crate::sim::World;
use crate::sim::consensus::Author;

/// Events between two looks at every machine: what is wrong there stays wrong.
const EVERY: u64 = 50;

#[derive(Default)]
pub(super) struct Records {
    /// Tasks that their agents have reported as ended.
    ended: BTreeSet<TaskId>,
}

impl Invariant for Records {
    fn name(&self) -> &'static str {
        "B11"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            let events = step.commit.events.iter();
            for event in events.filter(|_| step.entry.author == Author::Dispatcher) {
                let Some(task) = event.new_task() else { continue };
                if !task.status.state.is_terminal() || !self.ended.insert(task.id) {
                    continue;
                }
                let host = task.node_id.and_then(|node| world.host_of(node));
                if host.is_some_and(|host| host.machine.runs(task.id)) {
                    return Err(format!(
                        "{} is reported as {} and runs",
                        task.name(),
                        task.status.state
                    ));
                }
            }
        }
        match world.events().is_multiple_of(EVERY) {
            true => self.look(world),
            false => Ok(()),
        }
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        self.look(world)
    }
}

impl Records {
    fn look(&self, world: &World) -> Result<(), String> {
        for host in world.hosts() {
            for (task, container) in &host.machine.containers {
                if container.state == Found::Running && self.ended.contains(task) {
                    return Err(format!("{task} runs on {} after its end", host.name));
                }
                let agent = host.agent.as_ref().filter(|agent| agent.in_session());
                if agent.is_some_and(|agent| !agent.state.holds(*task)) {
                    return Err(format!("the agent of {} knows nothing of {task}", host.name));
                }
            }
        }
        Ok(())
    }
}
