//! What must be true of a cluster, one file for each sentence.
//!
//! Safety is checked after every event of a simulation, liveness once a healed cluster has had time
//! to settle. An invariant that needs history keeps it itself.

mod a7_epochs;

use std::fmt;
use std::time::Duration;

use super::World;

/// Something that must be true.
pub trait Invariant {
    /// Its name, such as `B4`.
    fn name(&self) -> &'static str;

    /// Checks it after an event. [`World::committed`] holds what the event committed.
    ///
    /// # Errors
    /// What was seen instead.
    fn after_step(&mut self, world: &World) -> Result<(), String> {
        let _ = world;
        Ok(())
    }

    /// Checks it in a healed cluster that has had time to settle.
    ///
    /// # Errors
    /// What was seen instead.
    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let _ = world;
        Ok(())
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// Which.
    pub invariant: String,
    /// When, counted from the start.
    pub at: Duration,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} does not hold at {:.3} s: {}",
            self.invariant,
            self.at.as_secs_f64(),
            self.seen
        )
    }
}

/// Every invariant of this library.
#[must_use]
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![Box::new(a7_epochs::Epochs)]
}
