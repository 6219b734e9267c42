//! A4: a manager that has applied as much of the log as another has the same state, however it came
//! by it: entry by entry, by a snapshot, or from its disk.

use super::Invariant;
use crate::sim::World;

/// Commits between two comparisons.
const EVERY: usize = 100;

#[derive(Default)]
pub(super) struct SameState {
    compared: usize,
}

impl Invariant for SameState {
    fn name(&self) -> &'static str {
        "A4"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        match world.log.entries.len() >= self.compared + EVERY {
            true => self.compare(world),
            false => Ok(()),
        }
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        self.compare(world)
    }
}

impl SameState {
    fn compare(&mut self, world: &World) -> Result<(), String> {
        use swarm_core::store::Store as _;
        self.compared = world.log.entries.len();
        let state = world.state();
        for host in world.hosts() {
            let replica = host.manager.as_ref().map(|manager| &manager.replica);
            let Some(replica) = replica.filter(|it| it.applied == self.compared) else { continue };
            let theirs = replica.store.snapshot();
            let differs = state.objects().zip(theirs.objects()).find(|(ours, it)| ours != it);
            if let Some((ours, _)) = differs {
                return Err(format!("{} has another {}", host.name, ours.id()));
            }
            if state.objects().count() != theirs.objects().count()
                || state.version() != theirs.version()
            {
                return Err(format!("{} has other objects, or another version", host.name));
            }
        }
        Ok(())
    }
}
