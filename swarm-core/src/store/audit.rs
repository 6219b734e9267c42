//! Pure: the invariants that are cheap enough to hold against every commit in production.
//!
//! What writers may do is refused with a [`CommitError`](super::CommitError) of its own. This is about
//! what cannot be: a state that contradicts itself, by a bug of ours or of the memory that it lies
//! in. A store that finds one stops instead of going on from there.

use super::{Event, Object, Snapshot};
use crate::model::Version;

/// The state contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the state contradicts itself after version {version}: {what}. This is a bug or a broken memory: keep the state directory, restart this manager, and report it"
)]
pub struct Wrong {
    /// The commit after which it was seen.
    pub version: Version,
    /// What was seen.
    pub what: String,
}

/// A commit of more events than this is looked up in samples.
const ALL_UP_TO: usize = 64;

/// In a larger commit each object so far from the one before is looked up, beginning at another with
/// each version: every line of the code is held to it many times in each such commit, while four
/// look-ups for each object would be a quarter of the price of writing it.
const STRIDE: usize = 8;

/// Holds the state after a commit against what the commit did: what each event says in itself, and
/// whether the state says the same: O(log n) for each object that is looked up.
///
/// # Errors
/// The first contradiction.
pub fn audit(version: Version, events: &[Event], state: &Snapshot) -> Result<(), Wrong> {
    let stride = if events.len() > ALL_UP_TO { STRIDE } else { 1 };
    let first = version.0 as usize % stride;
    for event in events {
        check_event(version, event).map_err(|what| Wrong { version, what })?;
    }
    for (at, event) in events.iter().enumerate().skip(first).step_by(stride) {
        let (stored, new) = (state.like(event.object()), event.new.as_ref());
        let same = match (&stored, new) {
            (Some(stored), Some(new)) => stored.is(new) || stored == new,
            (stored, new) => stored.is_none() && new.is_none(),
        };
        let id = event.object().id();
        if !same {
            // Written again by a later change of the same commit, which is looked at in its turn.
            if events[at + 1..].iter().any(|later| later.object().id() == id) {
                continue;
            }
            let what = format!("{id} is not what was written");
            return Err(Wrong { version, what });
        }
        if let Some(Object::Task(task)) = new
            && !state.is_indexed(event.old_task().map(AsRef::as_ref), task)
        {
            return Err(Wrong { version, what: format!("{id} is not listed where it belongs") });
        }
    }
    Ok(())
}

fn check_event(version: Version, event: &Event) -> Result<(), String> {
    let id = event.object().id();
    if let Some(old) = &event.old
        && old.revision() > version
    {
        return Err(format!("{id} was of revision {} before it", old.revision()));
    }
    if let Some(new) = &event.new
        && new.revision() != version
    {
        return Err(format!("{id} is of revision {}", new.revision()));
    }
    let (Some(old), Some(new)) = (event.old_task(), event.new_task()) else { return Ok(()) };
    let (was, is) = (old.status.state, new.status.state);
    if was != is && !was.may_become(is) {
        return Err(format!("{id} went from {was} to {is}"));
    }
    let (wanted, wants) = (old.desired_state, new.desired_state);
    if wanted != wants && !wants.may_be_desired_after(wanted) {
        return Err(format!("{id} was wanted {wanted} and is {wants}"));
    }
    if old.node_id.is_some() && old.node_id != new.node_id {
        return Err(format!("{id} moved to another node"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::IdSource;
    use crate::model::{Service, Task, TaskState};
    use crate::store::{Batch, Change, CommitError, MemoryStore, Store as _};
    use crate::time::Timestamp;

    fn task(revision: u64) -> Task {
        let mut ids = IdSource::seeded(1);
        Task { id: ids.next(), revision: Version(revision), ..Task::default() }
    }

    fn event(old: &Task, new: &Task) -> Event {
        Event { old: Some(old.clone().into()), new: Some(new.clone().into()) }
    }

    fn said(old: &Task, new: &Task) -> String {
        let stored = Snapshot::from_objects(Version(5), [Object::from(new.clone())]);
        let event = Event { new: stored.get(new.id.into()), ..event(old, new) };
        audit(Version(5), &[event], &stored).map_or_else(|wrong| wrong.what, |()| String::new())
    }

    #[test]
    fn what_a_commit_does_is_held_against_the_rules() {
        let (old, new) = (task(4), task(5));
        assert_eq!(said(&old, &new), "");
        assert!(said(&task(6), &new).contains("revision 6 before"));
        assert!(said(&old, &task(4)).contains("is of revision 4"));
        let mut running = task(4);
        running.status.state = TaskState::Running;
        assert!(said(&running, &new).contains("went from running to new"));
        let mut stopping = task(4);
        stopping.desired_state = TaskState::Shutdown;
        assert!(said(&stopping, &new).contains("was wanted shutdown"));
        let placed = Task { node_id: Some(IdSource::seeded(9).next()), ..task(4) };
        assert!(said(&placed, &new).contains("another node"));
    }

    #[test]
    fn the_state_is_what_was_written() {
        let (old, new) = (task(4), task(5));
        let other = Task { slot: 7, ..task(5) };
        let stored = Snapshot::from_objects(Version(5), [Object::from(other)]);
        let wrong = audit(Version(5), &[event(&old, &new)], &stored).unwrap_err();
        assert!(wrong.to_string().contains("is not what was written"), "{wrong}");
        let gone = Snapshot::default();
        assert!(audit(Version(5), &[event(&old, &new)], &gone).is_err());
    }

    #[test]
    fn a_store_that_finds_its_state_wrong_takes_nothing_more() {
        // As if a bit had flipped: an object of a revision that has not been yet.
        let service = Service { revision: Version(9), ..Service::default() };
        let state = Snapshot::from_objects(Version(3), [Object::from(service.clone())]);
        let store = MemoryStore::new(state);
        let change = Change::update(Service { pending_delete: true, ..service });
        let refused = store.apply(&Batch::new(Timestamp::ZERO, vec![change]));
        assert!(matches!(refused, Err(CommitError::Stopped(_))), "{refused:?}");
        assert_eq!(store.snapshot().version(), Version(3), "nothing has changed");
    }
}
