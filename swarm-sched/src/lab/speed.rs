//! Pure: how fast a scheduler answers, by a clock that is passed in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use swarm_core::control::Ctx;
use swarm_core::scheduler::{Overcommit, PlacementView, Placements, Scheduler};
use swarm_core::store::Snapshot;

/// Tells the time since some beginning. The lab has no clock of its own; without one
/// ([`no_clock`]) every time is 0, and a report is the same for the same seed to the last digit.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A clock that stands still.
#[must_use]
pub fn no_clock() -> Clock {
    Arc::new(|| Duration::ZERO)
}

/// What it took to answer. A scheduler that prepares itself when it is told of a view
/// ([`Scheduler::follow`]), rather than when it is asked, does so outside of these times.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Speed {
    /// Answers: one for each group of equal tasks of a service that waited.
    pub answers: u64,
    /// The tasks in them, placed or refused.
    pub decisions: u64,
    /// Decisions in each second that the scheduler was at work.
    pub per_second: f64,
    /// Nanoseconds that half of the answers took at most.
    pub p50: u64,
    /// Nanoseconds that 99 of 100 answers took at most.
    pub p99: u64,
    /// Nanoseconds of the slowest.
    pub slowest: u64,
    /// How many answers took how long: ten classes for each power of ten of nanoseconds, the first
    /// beginning at 100 ns.
    pub histogram: Vec<u64>,
}

/// Classes of [`Speed::histogram`]: up to 10 s.
const CLASSES: usize = 80;

/// A scheduler with a stopwatch.
pub(super) struct Timed {
    inner: Arc<dyn Scheduler>,
    clock: Clock,
    laps: Mutex<Vec<Lap>>,
}

struct Lap {
    tasks: u64,
    took: Duration,
}

impl Timed {
    pub(super) fn new(inner: Arc<dyn Scheduler>, clock: Clock) -> Self {
        Self { inner, clock, laps: Mutex::default() }
    }

    /// What was measured so far.
    pub(super) fn speed(&self) -> Speed {
        speed(&self.laps.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Scheduler for Timed {
    fn place(&self, view: &PlacementView<'_>, ctx: &mut Ctx<'_>) -> Placements {
        let started = (self.clock)();
        let answer = self.inner.place(view, ctx);
        let took = (self.clock)().saturating_sub(started);
        let lap = Lap { tasks: view.tasks.len() as u64, took };
        self.laps.lock().unwrap_or_else(PoisonError::into_inner).push(lap);
        answer
    }

    fn follow(&self, view: &Snapshot) {
        self.inner.follow(view);
    }

    fn counts(&self) -> Overcommit {
        self.inner.counts()
    }
}

fn speed(laps: &[Lap]) -> Speed {
    let mut nanos: Vec<u64> = laps.iter().map(|lap| lap.took.as_nanos() as u64).collect();
    nanos.sort_unstable();
    let mut histogram = vec![0; CLASSES];
    for nanos in &nanos {
        histogram[class(*nanos)] += 1;
    }
    let decisions = laps.iter().map(|lap| lap.tasks).sum();
    let seconds = laps.iter().map(|lap| lap.took).sum::<Duration>().as_secs_f64();
    Speed {
        answers: laps.len() as u64,
        decisions,
        per_second: if seconds > 0.0 { decisions as f64 / seconds } else { 0.0 },
        p50: rank(&nanos, 50),
        p99: rank(&nanos, 99),
        slowest: nanos.last().copied().unwrap_or(0),
        histogram,
    }
}

/// The number that so many percent do not exceed; 0 of none.
fn rank(sorted: &[u64], percent: usize) -> u64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or(0)
}

fn class(nanos: u64) -> usize {
    let tenths = (nanos.max(100) as f64 / 100.0).log10() * 10.0;
    (tenths as usize).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_classes() {
        let laps: Vec<_> =
            (1..=100).map(|micros| Lap { tasks: 2, took: Duration::from_micros(micros) }).collect();
        let speed = speed(&laps);
        assert_eq!((speed.answers, speed.decisions), (100, 200));
        assert_eq!((speed.p50, speed.p99, speed.slowest), (50_000, 99_000, 100_000));
        assert_eq!(speed.histogram.iter().sum::<u64>(), 100);
        // 1 µs is the first class of the second power of ten, 100 µs of the fourth.
        assert_eq!((speed.histogram[10], class(100_000), class(0)), (1, 30, 0));
        assert!((speed.per_second - 200.0 / 0.00505).abs() < 1.0, "{}", speed.per_second);
    }
}
