//! B13: as many tasks at most as was asked for begin to move together, and none in the time after. At
//! rest nothing moves: what is even stays where it is, whatever else fails again and again. The last move is known from its task: once that is
//! erased, with its service or as history, there was none.

use std::time::Duration;

use swarm_core::model::TaskId;
use swarm_core::time::Timestamp;

use super::{Invariant, steps};
use crate::sim::World;

/// At rest, this is how long nothing has moved.
const STILL: Duration = Duration::from_secs(240);

#[derive(Default)]
pub(super) struct Moves {
    /// The last that were moved, and when that began, by the leader's clock and by the world's.
    last: Option<(Vec<TaskId>, Timestamp, Timestamp)>,
}

impl Invariant for Moves {
    fn name(&self) -> &'static str {
        "B13"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            let begun = step.commit.events.iter().filter(|event| event.old.is_none());
            let begun = begun.filter_map(|event| event.new_task());
            let begun: Vec<_> = begun.filter(|task| task.relieves.is_some()).collect();
            let Some(first) = begun.first() else { continue };
            let Some((moves, interval)) = world.script().rebalance else {
                return Err(format!("{} is moved, unasked", first.name()));
            };
            if begun.len() > moves {
                return Err(format!("{} tasks are moved together", begun.len()));
            }
            // The clock of another leader may differ. What stands in the store counts.
            let soon = self.last.as_ref().is_some_and(|(tasks, last, _)| {
                tasks.iter().any(|task| step.entry.before.tasks.get(*task).is_some())
                    && *last <= first.created_at
                    && first.created_at.since(*last) < interval
            });
            if soon {
                return Err(format!("{} is moved soon after the last", first.name()));
            }
            let tasks = begun.iter().map(|task| task.id).collect();
            self.last = Some((tasks, first.created_at, world.now()));
        }
        Ok(())
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let moved = self.last.as_ref().is_some_and(|(.., at)| world.now().since(*at) < STILL);
        if moved { Err("tasks still move".to_owned()) } else { Ok(()) }
    }
}
