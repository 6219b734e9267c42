//! Pure: plays a world to its end: faults, healing, rest, and what was found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::invariant::Violation;
use super::world::World;

/// The time that a healed cluster has to come to rest.
const REST: Duration = Duration::from_secs(900);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// Equal for runs in which the same happened.
    pub digest: u64,
    /// Events that happened.
    pub events: u64,
    /// The virtual time that passed.
    pub elapsed: Duration,
    /// How often each thing happened that a run shall cover.
    pub coverage: BTreeMap<&'static str, u64>,
    /// The end of the timeline, or all of it where that was asked for.
    pub timeline: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.violation {
            None => write!(f, "seed {}: everything held", self.seed),
            Some(violation) => {
                for line in &self.timeline {
                    writeln!(f, "{line}")?;
                }
                write!(f, "seed {}: {violation}", self.seed)
            }
        }
    }
}

/// Plays a world until its faults have ended and it has come to rest, or until something does not
/// hold.
#[must_use]
pub fn play(mut world: World) -> Outcome {
    let end = world.script().heal_at + REST;
    let ran = world.run_until(end).and_then(|()| world.check_at_rest());
    Outcome {
        seed: world.script().seed,
        violation: ran.err(),
        digest: world.trace().digest(),
        events: world.events(),
        elapsed: world.elapsed(),
        coverage: world.coverage().clone(),
        timeline: world.trace().lines().map(str::to_owned).collect(),
    }
}
