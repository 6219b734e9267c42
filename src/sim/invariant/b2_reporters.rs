//! B2: the node of a task never changes, and only that node says what became of the task past
//! `assigned`: what is said to run, or to have completed, was started on that very machine.
//!
//! (That the node never changes, and that a task without one never ran, is looked at with B1.)

use std::collections::BTreeSet;

use swarm_core::model::{TaskId, TaskState};

use super::{Invariant, Started, steps};
use crate::sim::World;
use crate::sim::consensus::Author;

#[derive(Default)]
pub(super) struct Reporters {
    started: Started,
    /// The tasks whose containers were started, with the hosts.
    ran: BTreeSet<(TaskId, usize)>,
}

impl Invariant for Reporters {
    fn name(&self) -> &'static str {
        "B2"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        let started = self.started.since_last(world);
        self.ran.extend(started.iter().map(|(host, container)| (container.task.id, host.index)));
        for step in steps(world) {
            for event in &step.commit.events {
                if step.entry.author != Author::Dispatcher {
                    continue;
                }
                let (Some(old), Some(task)) = (event.old_task(), event.new_task()) else {
                    continue;
                };
                let ran = [TaskState::Running, TaskState::Complete].contains(&task.status.state);
                if !ran || task.status.state == old.status.state {
                    continue;
                }
                let host = task.node_id.and_then(|node| world.host_of(node));
                if let Some(host) = host.filter(|host| !self.ran.contains(&(task.id, host.index))) {
                    let (name, state) = (task.name(), task.status.state);
                    return Err(format!(
                        "{name} is {state} and was never started on {}",
                        host.name
                    ));
                }
            }
        }
        Ok(())
    }
}
