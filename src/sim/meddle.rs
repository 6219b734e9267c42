//! Pure: bugs of the shells that a test plants, to see that the invariants find them.
//!
//! Bugs of planners need no switch: a test wraps a [`Planner`](swarm_core::control::Planner) that
//! is shown a false view or whose plan is altered.

use super::dice::Dice;

/// What a world does wrong on purpose; nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Meddle {
    /// The store takes batches that were decided in another epoch.
    pub no_fence: bool,
    /// Of a hundred commits, so many are not shown to the control loop.
    pub lost_watch_events: u64,
}

impl Meddle {
    pub(super) fn loses(&self, dice: &mut Dice) -> bool {
        self.lost_watch_events > 0 && dice.percent(self.lost_watch_events)
    }
}
