//! A scheduler whose memory of the nodes misses some of what happens.

use std::sync::{Arc, Mutex, PoisonError};

use swarm::core::control::Ctx;
use swarm::core::model::Task;
use swarm::core::scheduler::{Overcommit, PlacementView, Placements, Scheduler};
use swarm::core::store::{Change, Snapshot};
use swarm::core::time::Timestamp;
use swarm::sched::place::StrategyScheduler;

/// Whether it misses what became of a task.
pub(crate) type Missed = fn(&Task, &Task) -> bool;

/// This library's scheduler, which remembers some tasks as they were.
pub(crate) struct Forgetful {
    inner: Arc<StrategyScheduler>,
    missed: Missed,
    /// The view that was asked about last.
    seen: Mutex<Snapshot>,
}

impl Forgetful {
    pub(crate) fn new(inner: Arc<StrategyScheduler>, missed: Missed) -> Self {
        Self { inner, missed, seen: Mutex::default() }
    }

    /// Shows the scheduler a view, and takes back what it was to miss.
    fn show(&self, view: &Snapshot) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut past = view.clone();
        view.tasks.for_each_since(&seen.tasks, |old, new| {
            let Some((old, new)) = old.zip(new).filter(|(old, new)| (self.missed)(old, new)) else {
                return;
            };
            for change in [Change::remove(new.id), Change::create(Task::clone(old))] {
                past.stage(change, Timestamp::ZERO).expect("what was there can be put back");
            }
        });
        *seen = view.clone();
        // It follows the view to compare with it, and remembers something else from then on.
        let _ = self.inner.check(view);
        self.inner.misremember(view, &past);
    }
}

impl Scheduler for Forgetful {
    fn place(&self, view: &PlacementView<'_>, ctx: &mut Ctx<'_>) -> Placements {
        self.show(view.snapshot);
        self.inner.place(view, ctx)
    }

    fn counts(&self) -> Overcommit {
        self.inner.counts()
    }
}
