//! Pure: one host of a simulated cluster: its machine, its clock, its disk, and the processes on it.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_core::model::{NodeId, TaskId};
use swarm_core::time::Timestamp;
use swarm_runtime::agent::state::Record;

use super::agent::Agent;
use super::machine::Machine;
use super::manager::Manager;

/// A host.
pub struct Host {
    /// Its number; managers come first.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its identity in the cluster. A node that was removed comes back with another.
    pub id: NodeId,
    /// The containers: what is really there.
    pub machine: Machine,
    /// The agent's journal, on the disk.
    pub journal: BTreeMap<TaskId, Record>,
    /// The agent's process, while it is up.
    pub agent: Option<Agent>,
    /// The manager's process, while it is up; absent on workers.
    pub manager: Option<Manager>,
    /// Its wall clock.
    pub(super) clock: WallClock,
    /// Its processes stand still until then.
    pub(super) paused_until: Option<Timestamp>,
    /// Without power.
    pub(super) off: bool,
    /// Broken for good.
    pub(super) lost: bool,
    /// Lives of processes so far.
    pub(super) lives: u64,
    /// Wake-ups that are on their way: of the agent, of the manager.
    pub(super) wakes: [Option<Timestamp>; 2],
}

impl Host {
    /// Whether its processes run just now.
    #[must_use]
    pub fn is_running(&self, now: Timestamp) -> bool {
        !self.off && self.paused_until.is_none_or(|until| until <= now)
    }

    /// Whether it is broken for good: see [`Script::lost`](super::Script::lost).
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// What its wall clock shows.
    #[must_use]
    pub fn local(&self, now: Timestamp) -> Timestamp {
        self.clock.at(now)
    }
}

/// A wall clock that may be wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct WallClock {
    /// The true time at which it was set last.
    since: Timestamp,
    /// What it showed then.
    shown: Timestamp,
    /// Its speed, in thousandths.
    rate: u64,
}

impl WallClock {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { since: now, shown: now, rate: 1_000 }
    }

    pub(super) fn at(&self, now: Timestamp) -> Timestamp {
        let passed = now.since(self.since).as_nanos() * u128::from(self.rate) / 1_000;
        self.shown + Duration::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// The true time at which it will show `local`, not before `now`.
    pub(super) fn when(&self, local: Timestamp, now: Timestamp) -> Timestamp {
        let left = local.since(self.at(now)).as_nanos() * 1_000;
        let left = left.div_ceil(u128::from(self.rate.max(1)));
        now + Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
    }

    pub(super) fn jump(&mut self, now: Timestamp, millis: i64) {
        let shown = self.at(now).as_nanos().saturating_add(millis.saturating_mul(1_000_000));
        *self = Self { since: now, shown: Timestamp::from_nanos(shown), rate: self.rate };
    }

    pub(super) fn set_rate(&mut self, now: Timestamp, rate: u64) {
        *self = Self { since: now, shown: self.at(now), rate };
    }

    /// Right again.
    pub(super) fn correct(&mut self, now: Timestamp) {
        *self = Self::new(now);
    }
}
