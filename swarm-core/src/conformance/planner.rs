//! The suite of [`Planner`]: what its contract promises, checked on states of the caller's making.
//!
//! A planner's promises are about every state, so a suite with a few states of its own would
//! prove little. Call [`check`] on the states that a planner is made for, best of all after every
//! step of a random history, and [`notices`] on changes that it has to react to.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::control::{Ctx, Key, Plan, Planner};
use crate::id::IdSource;
use crate::store::{Batch, Change, Commit, Epoch, Event, MemoryStore, Snapshot, Store as _};
use crate::time::Timestamp;

/// Plans in a row after which a planner is said never to come to rest.
const ENOUGH: usize = 10_000;
/// Far from the seeds that tests choose, so that no id is made twice.
const SEED: u64 = 0x5eed_0f1d;

/// Checks every promise that can be seen on one state: that the planner is pure, that what it
/// plans can be written, that it has nothing to add to its own plan, least of all where it says that
/// it is settled, and that it leaves alone what does not exist.
///
/// # Panics
/// With a sentence that names the promise that the planner broke.
pub fn check(planner: &dyn Planner, view: &Snapshot, now: Timestamp) {
    for key in keys(planner, view) {
        let plan = plan_once(planner, view, &key, now);
        let again = plan_once(planner, view, &key, now);
        let name = planner.name();
        assert_eq!(plan, again, "{name} is not pure: two plans for {key:?} differ");
        check_targets(planner, &key, &plan);
        let mut ids = IdSource::seeded(SEED);
        let (_, more) = carry_out(planner, view, &key, now, &mut ids);
        assert!(
            more.is_empty(),
            "{name} is not idempotent: to its own plan for {key:?} it adds {more:?}"
        );
        let gone = plan_once(planner, &Snapshot::default(), &key, now).changes;
        assert!(gone.is_empty(), "{name} plans {gone:?} for {key:?}, which is gone");
    }
    for key in strangers() {
        let changes = plan_once(planner, view, &key, now).changes;
        assert!(
            changes.is_empty(),
            "{} plans {changes:?} for {key:?}, which never existed",
            planner.name()
        );
    }
}

/// Checks that the planner's `dirty` is complete for one change: once it has planned every key
/// that the change (and each consequence of it) made dirty, no key has anything left to plan.
///
/// # Panics
/// With a sentence that names the key that was missed, or when the change cannot be applied.
pub fn notices(planner: &dyn Planner, before: &Snapshot, change: Change, now: Timestamp) {
    let mut view = before.clone();
    let mut ids = IdSource::seeded(SEED);
    for key in keys(planner, before) {
        view = carry_out(planner, &view, &key, now, &mut ids).0;
    }
    let (mut view, commit) = commit(view, change.clone(), now);
    let mut dirty = BTreeSet::new();
    mark(planner, commit.events.iter(), &mut dirty);
    for _ in 0..ENOUGH {
        let Some(key) = dirty.pop_first() else {
            return nothing_left(planner, &view, &change, now);
        };
        let plan = plan(planner, &view, &key, now, &mut ids);
        if plan.again_at.is_some_and(|at| at <= now) {
            dirty.insert(key);
        }
        let events = stage(planner, &mut view, &plan, now);
        mark(planner, events.iter(), &mut dirty);
    }
    panic!("{} does not come to rest after {change:?}", planner.name());
}

/// The state after a real commit, with its stamps.
fn commit(view: Snapshot, change: Change, now: Timestamp) -> (Snapshot, Arc<Commit>) {
    let before = view.version();
    let store = MemoryStore::new(view);
    store.apply(&Batch::new(now, vec![change])).expect("the change applies");
    let commit = store.watch(before).try_next().expect("the history is whole");
    (store.snapshot(), commit.expect("there was a commit"))
}

fn nothing_left(planner: &dyn Planner, view: &Snapshot, change: &Change, now: Timestamp) {
    for key in keys(planner, view) {
        let missed = plan_once(planner, view, &key, now).changes;
        assert!(
            missed.is_empty(),
            "{}: dirty is not complete: {change:?} does not lead to {key:?}, for which it plans {missed:?}",
            planner.name()
        );
    }
}

fn keys(planner: &dyn Planner, view: &Snapshot) -> BTreeSet<Key> {
    let mut keys = Vec::new();
    planner.keys(view, &mut keys);
    keys.into_iter().collect()
}

fn mark<'a>(
    planner: &dyn Planner,
    events: impl Iterator<Item = &'a Event>,
    dirty: &mut BTreeSet<Key>,
) {
    let mut keys = Vec::new();
    events.for_each(|event| planner.dirty(event, &mut keys));
    dirty.extend(keys);
}

fn plan(
    planner: &dyn Planner,
    view: &Snapshot,
    key: &Key,
    now: Timestamp,
    ids: &mut IdSource,
) -> Plan {
    planner.plan(view, key, &mut Ctx::new(now, ids, Epoch(1)))
}

/// A plan for which nothing but its arguments is known.
fn plan_once(planner: &dyn Planner, view: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    plan(planner, view, key, now, &mut IdSource::seeded(SEED))
}

fn stage(planner: &dyn Planner, view: &mut Snapshot, plan: &Plan, now: Timestamp) -> Vec<Event> {
    let mut events = Vec::new();
    for change in &plan.changes {
        match view.stage(change.clone(), now) {
            Ok(event) => events.extend(event),
            Err(error) => {
                panic!("{} plans what cannot be written: {change:?}: {error}", planner.name())
            }
        }
    }
    events
}

/// The state after a plan and after those that it asked to be continued with at once, and what
/// the planner would add to it.
fn carry_out(
    planner: &dyn Planner,
    view: &Snapshot,
    key: &Key,
    now: Timestamp,
    ids: &mut IdSource,
) -> (Snapshot, Vec<Change>) {
    let mut view = view.clone();
    for _ in 0..ENOUGH {
        let decided = plan(planner, &view, key, now, ids);
        stage(planner, &mut view, &decided, now);
        if decided.again_at.is_none_or(|at| at > now) {
            let more = plan(planner, &view, key, now, ids);
            assert!(
                !decided.settled || more.again_at == decided.again_at,
                "{} says that its plan for {key:?} is settled, and then wants another time: {:?}, {:?}",
                planner.name(),
                decided.again_at,
                more.again_at,
            );
            return (view, more.changes);
        }
    }
    panic!("{} asks to be called again for {key:?} without end", planner.name());
}

fn check_targets(planner: &dyn Planner, key: &Key, plan: &Plan) {
    let mut targets = BTreeSet::new();
    for change in &plan.changes {
        let target = change.target();
        assert!(
            targets.insert(target),
            "{} plans two changes of {target} for {key:?}",
            planner.name()
        );
    }
}

/// Keys of objects that nobody made.
fn strangers() -> [Key; 4] {
    let mut ids = IdSource::seeded(u64::MAX);
    [
        Key::Node(ids.next()),
        Key::Network(ids.next()),
        Key::Service(ids.next()),
        Key::Task(ids.next()),
    ]
}
