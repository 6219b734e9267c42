//! Pure: which planner looks at which key next, and what one commit will hold.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::dirty::Dirty;
use super::{Ctx, Key, Plan, Planner, Reason, Retry};
use crate::id::{IdMap, IdSource};
use crate::model::Version;
use crate::store::{Batch, Change, Commit, CommitError, Epoch, Event, ObjectRef, Snapshot, Staged};
use crate::time::Timestamp;

/// Objects in one commit at most, so that a raft entry stays of a modest size: of tasks as the Docker
/// CLI makes them it takes some 1,200. What is mostly about objects that are in it already goes in
/// with the little that it adds: a task that is made in one commit is allocated and placed there. Plans
/// are never split: one that is larger though it was told its room ([`Plan::is_full`]) has a commit of
/// its own.
pub const CHANGES_PER_COMMIT: usize = 1_000;

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
    dirty: Vec<Dirty>,
    /// When to look at a key again, for each planner and key one time at most.
    timers: BTreeSet<(Timestamp, usize, Key)>,
    timer_of: BTreeMap<(usize, Key), Timestamp>,
    /// For each planner, what the last step touched, and whether that has to be looked at again once
    /// the step is committed. If it is not, all of it has to.
    touched: Vec<Vec<(Key, bool)>>,
    /// The commit that holds the last step, if that is known.
    own: Option<Version>,
    /// Objects that one commit may have: fewer than usual after one that was too large.
    room: usize,
    epoch: Epoch,
}

impl Controller {
    /// A controller for one leadership epoch, with everything dirty.
    #[must_use]
    pub fn new(planners: Vec<Arc<dyn Planner>>, epoch: Epoch, view: &Snapshot) -> Self {
        let mut controller = Self {
            dirty: planners.iter().map(|_| Dirty::default()).collect(),
            touched: vec![Vec::new(); planners.len()],
            planners,
            timers: BTreeSet::new(),
            timer_of: BTreeMap::new(),
            own: None,
            room: CHANGES_PER_COMMIT,
            epoch,
        };
        controller.sweep(view);
        controller
    }

    /// Marks every key dirty.
    pub fn sweep(&mut self, view: &Snapshot) {
        for (planner, dirty) in self.planners.iter().zip(&mut self.dirty) {
            let mut keys = Vec::new();
            planner.keys(view, &mut keys);
            dirty.sweep(keys);
        }
    }

    /// Marks what a commit touches.
    pub fn observe(&mut self, commit: &Commit) {
        if self.own == Some(commit.version) {
            return;
        }
        let mut keys = Vec::new();
        for (planner, dirty) in self.planners.iter().zip(&mut self.dirty) {
            commit.events.iter().for_each(|event| planner.dirty(event, &mut keys));
            // Events in a row are mostly about the same key: fewer to put in order.
            keys.dedup();
            dirty.mark(keys.drain(..));
        }
    }

    /// The last step's batch became this commit. Call it before that commit is
    /// [observed](Self::observe), which then costs nothing: what it does the planners have seen while
    /// it was decided, and only those look again that ran too early, or asked for it. A shell that
    /// does not learn the version leaves this out: then everything that the commit touches is looked
    /// at.
    pub fn committed(&mut self, version: Version) {
        self.own = Some(version);
        self.room = CHANGES_PER_COMMIT.min(self.room + self.room / 32 + 1);
        self.look_again(|(_, needed)| *needed);
    }

    /// The last step's batch was not committed: who planned it, and who has seen it, looks again. If
    /// it was too large for the store, the next ones are smaller. What is too large by itself waits
    /// for the next [sweep](Self::sweep), so that everything else goes on.
    pub fn rejected(&mut self, error: &CommitError) -> Retry {
        if matches!(error, CommitError::TooLarge { .. }) {
            if self.room == 1 {
                for index in 0..self.touched.len() {
                    for (key, _) in std::mem::take(&mut self.touched[index]) {
                        self.set_timer(index, key, None);
                    }
                }
                return Retry::Later;
            }
            self.room /= 2;
        }
        self.look_again(|_| true);
        Retry::after(error)
    }

    fn look_again(&mut self, which: impl Fn(&(Key, bool)) -> bool) {
        for (touched, dirty) in self.touched.iter_mut().zip(&mut self.dirty) {
            dirty.mark(touched.drain(..).filter(&which).map(|(key, _)| key));
        }
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
        self.touched.iter_mut().for_each(Vec::clear);
        let mut step = Step::default();
        let mut working = Working::new(view, now);
        for index in 0..self.planners.len() {
            while let Some(key) = self.dirty[index].pop_first() {
                let mut ctx = Ctx { now, ids: &mut *ids, epoch: self.epoch, room: self.room };
                let plan = self.planners[index].plan(&working.view, &key, &mut ctx);
                if !working.has_room(&plan.changes, self.room) {
                    self.dirty[index].mark([key]);
                    break;
                }
                self.set_timer(index, key, plan.again_at);
                let (planned, before) = (plan.changes.len(), working.changes.len());
                self.stage(index, key, plan, &mut working, &mut step);
                let added = working.changes.len() - before;
                // Most plans of this planner would be made in vain now.
                if working.changes.len() >= self.room && 2 * added > planned {
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

    fn stage(
        &mut self,
        index: usize,
        key: Key,
        plan: Plan,
        working: &mut Working,
        step: &mut Step,
    ) {
        step.reasons.extend(plan.reasons);
        if plan.changes.is_empty() {
            return;
        }
        let staged = working.stage(plan.changes);
        for error in staged.iter().filter_map(|staged| staged.as_ref().err()) {
            let planner = self.planners[index].name();
            let text = format!("planner {planner} made a change that cannot be: {error}");
            debug_assert!(false, "{text}");
            step.reasons.push(Reason { key, text });
        }
        self.touched[index].push((key, false));
        let mut keys = Vec::new();
        for (number, planner) in self.planners.iter().enumerate() {
            let events = staged.iter().flatten().flatten();
            events.for_each(|event| planner.dirty(event, &mut keys));
            keys.dedup();
            // What this planner decided, the later ones look at in this very step. Earlier ones,
            // and this one unless it sees no need, see it when it is committed.
            let later = number > index;
            let again = !later && (number < index || !plan.settled);
            self.touched[number].extend(keys.iter().map(|key| (*key, again)));
            if later {
                self.dirty[number].mark(keys.iter().copied());
            }
            keys.clear();
        }
    }

    fn fire_timers(&mut self, now: Timestamp) {
        while let Some(&(at, index, key)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            self.timer_of.remove(&(index, key));
            self.dirty[index].mark([key]);
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
        let view = view.working_copy();
        Self { view, now, changes: Vec::new(), position: IdMap::default() }
    }

    /// Whether the commit may have these changes too: an empty one any, and any one those that are
    /// mostly about what is in it already.
    fn has_room(&self, changes: &[Change], room: usize) -> bool {
        let there = self.changes.len();
        if there == 0 || there + changes.len() <= room {
            return true;
        }
        let is_new = |change: &&Change| !self.position.contains_key(&change.target());
        let new = changes.iter().filter(is_new).count();
        there + new <= room || 2 * new <= changes.len()
    }

    /// Shows a plan to whoever looks next; for each of its changes what it does.
    fn stage(&mut self, changes: Vec<Change>) -> Arc<Vec<Staged>> {
        let staged = self.view.stage_all(changes.iter().cloned(), self.now);
        self.position.reserve(changes.len());
        self.changes.reserve(changes.len());
        for (change, staged) in changes.into_iter().zip(&*staged) {
            if let Ok(event) = staged {
                self.merge(change, event.as_ref());
            }
        }
        staged
    }

    /// Adds a change to those of the step.
    fn merge(&mut self, change: Change, event: Option<&Event>) {
        let position = match self.position.entry(change.target()) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                entry.insert(self.changes.len());
                return self.changes.push(Some(change));
            }
        };
        let written = || event.and_then(|event| event.new.clone());
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
    }

    fn into_changes(self) -> Vec<Change> {
        self.changes.into_iter().flatten().collect()
    }
}
