//! Pure: which planner looks at which key next, and what one commit will hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Ctx, Key, Plan, Planner, Reason};
use crate::id::{IdMap, IdSource};
use crate::store::{Batch, Change, Commit, Epoch, Event, ObjectRef, Snapshot};
use crate::time::Timestamp;

/// Changes in one commit beyond which the rest waits for the next one, so that a raft entry
/// stays of a modest size. A single plan may exceed it; plans are never split.
const CHANGES_PER_COMMIT: usize = 2_000;

/// What one step decided.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// What to commit; absent when nothing is to be written.
    pub batch: Option<Batch>,
    /// Why, for the log.
    pub reasons: Vec<Reason>,
    /// Whether dirty keys are left because the commit is full: step again at once.
    pub more: bool,
}

/// Orders the planners' work. Sans-I/O: it is told what was committed and what time it is, and
/// says what to commit and when to call again.
///
/// Each step runs the planners in their fixed order over one working copy of the state: what an
/// earlier one decides, the later ones see, and one commit carries all of it. So a new service
/// goes from specification to assigned tasks in one commit.
pub struct Controller {
    planners: Vec<Arc<dyn Planner>>,
    /// For each planner, the keys that it has to look at.
    dirty: Vec<BTreeSet<Key>>,
    /// When to look at a key again, for each planner and key one time at most.
    timers: BTreeSet<(Timestamp, usize, Key)>,
    timer_of: BTreeMap<(usize, Key), Timestamp>,
    epoch: Epoch,
}

impl Controller {
    /// A controller for one leadership epoch, with everything dirty.
    #[must_use]
    pub fn new(planners: Vec<Arc<dyn Planner>>, epoch: Epoch, view: &Snapshot) -> Self {
        let dirty = vec![BTreeSet::new(); planners.len()];
        let mut controller =
            Self { planners, dirty, timers: BTreeSet::new(), timer_of: BTreeMap::new(), epoch };
        controller.sweep(view);
        controller
    }

    /// Marks every key dirty.
    pub fn sweep(&mut self, view: &Snapshot) {
        for (planner, dirty) in self.planners.iter().zip(&mut self.dirty) {
            let mut keys = Vec::new();
            planner.keys(view, &mut keys);
            dirty.extend(keys);
        }
    }

    /// Marks what a commit touches.
    pub fn observe(&mut self, commit: &Commit) {
        mark(&self.planners, &mut self.dirty, 0, &commit.events);
    }

    /// When to call [`step`](Self::step) next if nothing is observed before: at once if something
    /// is dirty.
    #[must_use]
    pub fn next_at(&self) -> Option<Timestamp> {
        if self.dirty.iter().any(|keys| !keys.is_empty()) {
            return Some(Timestamp::ZERO);
        }
        self.timers.first().map(|(at, ..)| *at)
    }

    /// Looks at every dirty key. The batch that comes back must be committed, or
    /// [`rejected`](Self::rejected) called with it.
    pub fn step(&mut self, view: &Snapshot, now: Timestamp, ids: &mut IdSource) -> Step {
        self.fire_timers(now);
        let mut step = Step::default();
        let mut working = Working::new(view, now);
        for index in 0..self.planners.len() {
            while let Some(key) = self.dirty[index].pop_first() {
                let mut ctx = Ctx { now, ids: &mut *ids, epoch: self.epoch };
                let plan = self.planners[index].plan(&working.view, &key, &mut ctx);
                self.set_timer(index, key, plan.again_at);
                self.stage(index, key, plan, &mut working, &mut step);
                if working.changes.len() >= CHANGES_PER_COMMIT {
                    break;
                }
            }
        }
        step.more = self.dirty.iter().any(|keys| !keys.is_empty());
        let changes = working.into_changes();
        if !changes.is_empty() {
            step.batch = Some(Batch { at: now, epoch: Some(self.epoch), changes });
        }
        step
    }

    /// The batch was not committed: everything that it touches is looked at again.
    pub fn rejected(&mut self, batch: &Batch, view: &Snapshot) {
        let mut events = Vec::with_capacity(batch.changes.len());
        for change in &batch.changes {
            let stored = view.get(change.target());
            events.push(match change {
                Change::Create(new) => Event { old: None, new: Some(new.clone()) },
                Change::Update(new) => Event { old: stored, new: Some(new.clone()) },
                _ if stored.is_some() => Event { old: stored.clone(), new: stored },
                _ => continue,
            });
        }
        mark(&self.planners, &mut self.dirty, 0, &events);
    }

    fn stage(
        &mut self,
        index: usize,
        key: Key,
        plan: Plan,
        working: &mut Working,
        step: &mut Step,
    ) {
        step.reasons.extend(plan.reasons);
        let mut events = Vec::with_capacity(plan.changes.len());
        for change in plan.changes {
            match working.stage(change) {
                Ok(event) => events.extend(event),
                Err(error) => {
                    let planner = self.planners[index].name();
                    let text = format!("planner {planner} made a change that cannot be: {error}");
                    debug_assert!(false, "{text}");
                    step.reasons.push(Reason { key, text });
                }
            }
        }
        // What this planner decided, the later ones look at in this very step. Earlier ones (and
        // this one) see it when the commit comes back.
        mark(&self.planners, &mut self.dirty, index + 1, &events);
    }

    fn fire_timers(&mut self, now: Timestamp) {
        while let Some(&(at, index, key)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            self.timer_of.remove(&(index, key));
            self.dirty[index].insert(key);
        }
    }

    fn set_timer(&mut self, index: usize, key: Key, at: Option<Timestamp>) {
        if let Some(old) = self.timer_of.remove(&(index, key)) {
            self.timers.remove(&(old, index, key));
        }
        if let Some(at) = at {
            self.timers.insert((at, index, key));
            self.timer_of.insert((index, key), at);
        }
    }
}

/// Marks what events make dirty, for the planners from one on. Events in a row are mostly about the
/// same key, so keys in a row are compared before the set is asked.
fn mark(planners: &[Arc<dyn Planner>], dirty: &mut [BTreeSet<Key>], from: usize, events: &[Event]) {
    let mut keys = Vec::new();
    for (planner, dirty) in planners.iter().zip(dirty).skip(from) {
        events.iter().for_each(|event| planner.dirty(event, &mut keys));
        keys.dedup();
        dirty.extend(keys.drain(..));
    }
}

/// The state as it will be after this step, and the changes that lead there: for each object the
/// last word only, so that a task that is created, allocated and placed is one change.
struct Working {
    view: Snapshot,
    now: Timestamp,
    changes: Vec<Option<Change>>,
    position: IdMap<ObjectRef, usize>,
}

impl Working {
    fn new(view: &Snapshot, now: Timestamp) -> Self {
        Self { view: view.clone(), now, changes: Vec::new(), position: IdMap::default() }
    }

    fn stage(&mut self, change: Change) -> Result<Option<Event>, crate::store::CommitError> {
        let target = change.target();
        let event = self.view.stage(change.clone(), self.now)?;
        let Some(&position) = self.position.get(&target) else {
            self.position.insert(target, self.changes.len());
            self.changes.push(Some(change));
            return Ok(event);
        };
        let written = || event.as_ref().and_then(|event| event.new.clone());
        let merged = match (self.changes[position].take(), change) {
            (Some(Change::Create(_)), Change::Remove(..)) => None,
            (Some(first @ Change::Create(_)), _) => Some(written().map_or(first, Change::Create)),
            (Some(first @ Change::Update(_)), Change::Advance(..) | Change::Desire(..)) => {
                Some(written().map_or(first, Change::Update))
            }
            // Two writers, two fields: neither replaces the other.
            (Some(first @ Change::Advance(..)), second @ Change::Desire(..))
            | (Some(first @ Change::Desire(..)), second @ Change::Advance(..)) => {
                self.changes.push(Some(second));
                Some(first)
            }
            (_, change) => Some(change),
        };
        self.changes[position] = merged;
        Ok(event)
    }

    fn into_changes(self) -> Vec<Change> {
        self.changes.into_iter().flatten().collect()
    }
}
