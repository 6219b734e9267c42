//! B8: what the scheduler remembers of the nodes is what the state says.
//!
//! It is derived from whatever view was asked about last, of whichever manager.

use std::sync::Arc;

use swarm_sched::place::StrategyScheduler;

use super::Invariant;
use crate::sim::World;

/// Commits from one comparison to the next. To compare is to show the scheduler a view, and it shall
/// also follow views that are further apart.
const EVERY: usize = 16;

pub(super) struct Memory {
    scheduler: Arc<StrategyScheduler>,
    commits: usize,
}

impl Memory {
    pub(super) fn of(scheduler: Arc<StrategyScheduler>) -> Self {
        Self { scheduler, commits: 0 }
    }

    fn check(&self, world: &World) -> Result<(), String> {
        let wrong = |what| format!("of {what} something else is remembered");
        self.scheduler.check(&world.state()).map_err(wrong)
    }
}

impl Invariant for Memory {
    fn name(&self) -> &'static str {
        "B8"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        let before = self.commits / EVERY;
        self.commits += world.committed().len();
        if self.commits / EVERY == before { Ok(()) } else { self.check(world) }
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        self.check(world)
    }
}
