//! A7: what a leader decided in one epoch commits in that epoch alone.

use super::Invariant;
use crate::sim::World;
use crate::sim::consensus::Author;

pub(super) struct Epochs;

impl Invariant for Epochs {
    fn name(&self) -> &'static str {
        "A7"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for entry in world.committed() {
            if entry.author != Author::Client && entry.decided_in != entry.epoch {
                return Err(format!(
                    "entry {} of {:?} was decided in epoch {} and committed in epoch {}",
                    entry.index, entry.author, entry.decided_in.0, entry.epoch.0
                ));
            }
        }
        Ok(())
    }
}
