//! Pure: bugs of the shells that a test plants, to see that the invariants find them.
//!
//! Bugs of planners need no switch: a test wraps a [`Planner`](swarm_core::control::Planner) that
//! is shown a false view or whose plan is altered. `examples/planted` does both.

use super::dice::Dice;

/// What a world does wrong on purpose; nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Meddle {
    /// The store takes batches that were decided in another epoch.
    pub no_fence: bool,
    /// Of a hundred commits, so many are not shown to the control loop, which then does not look at
    /// everything once a minute either.
    pub lost_watch_events: u64,
    /// A new leader expects every node within a second.
    pub impatient: bool,
    /// Executors say that they stopped what they did not.
    pub stops_nothing: bool,
    /// Executors say that they attached containers to networks, and did not.
    pub attaches_nothing: bool,
    /// Of a hundred writes of clients, so many are acknowledged and dropped.
    pub dropped_writes: u64,
    /// Of a hundred reports, so many come with one on another node's task.
    pub forged_reports: u64,
    /// Of a hundred entries, followers skip so many.
    pub skipped_entries: u64,
    /// Every node is sent every secret.
    pub secrets_for_all: bool,
    /// Agents keep what is not in a complete set.
    pub never_drops: bool,
}

impl Meddle {
    pub(super) fn loses(&self, dice: &mut Dice) -> bool {
        self.lost_watch_events > 0 && dice.percent(self.lost_watch_events)
    }

    pub(super) fn drops(&self, dice: &mut Dice) -> bool {
        self.dropped_writes > 0 && dice.percent(self.dropped_writes)
    }

    pub(super) fn forges(&self, dice: &mut Dice) -> bool {
        self.forged_reports > 0 && dice.percent(self.forged_reports)
    }

    pub(super) fn skips(&self, dice: &mut Dice) -> bool {
        self.skipped_entries > 0 && dice.percent(self.skipped_entries)
    }
}
