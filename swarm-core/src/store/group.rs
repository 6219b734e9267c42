//! Pure: the tasks of one service, in order of id, with those that wait and those that are to go.
//!
//! A group is copied whenever it is written while another view has it: at least once by each step,
//! and once by each commit. Most services have few tasks. Theirs lie in one piece, whose entries say
//! in which lists their tasks are; more of them lie in persistent maps, with what is staged beside them:
//!
//! | | one task | up to [`FEW`] | more |
//! |---|---|---|---|
//! | to copy it and write a task | nothing beside the group itself | one vector, of 40 bytes for each | a path in a map; staged, an entry of a hash map |
//! | to find a task | a comparison | a binary search | a path in a map |
//! | those that wait, or are to go | the entries, passed over | likewise | a set for each |
//!
//! Invariants: entries are in order of id; what they and the sets say of a task is what its fields
//! say. A group that had more than [`FEW`] keeps its maps until its last task goes.

use std::any::Any;
use std::cmp::Ordering;
use std::slice;
use std::sync::Arc;

use imbl::OrdMap;

use super::layered::{Layer, Layered};
use super::memo::{Memo, Touched};
use super::tables::Row;
use crate::model::{Task, TaskId, TaskState};

/// So many entries take as much as one leaf of a map.
const FEW: usize = 16;

/// The tasks of one service: at least one, where it is stored.
#[derive(Clone, Default)]
pub(super) struct Group {
    rows: Rows,
    memo: Memo,
}

#[derive(Clone)]
enum Rows {
    One(Entry),
    Few(Vec<Entry>),
    Many(Box<Many>),
}

#[derive(Clone)]
struct Entry {
    id: TaskId,
    waits: bool,
    is_removed: bool,
    task: Arc<Task>,
}

#[derive(Clone, Default)]
struct Many {
    all: Layered<TaskId, Row<Task>>,
    len: usize,
    waiting: Marked,
    removed: Marked,
}

/// The tasks of many that have a mark. Most of those that lose it lose it together, in a row of writes:
/// at its end the whole set goes at once, for to take one out is to copy what it lies in.
#[derive(Clone, Default)]
struct Marked {
    ids: Layered<TaskId, ()>,
    len: usize,
    /// Those of `ids` that lost it in this row of writes.
    left: Vec<TaskId>,
}

impl Default for Rows {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Rows {
    /// The entries, unless there are many.
    fn few(&self) -> Result<&[Entry], &Many> {
        match self {
            Self::One(one) => Ok(slice::from_ref(one)),
            Self::Few(few) => Ok(few),
            Self::Many(many) => Err(many),
        }
    }

    fn few_mut(&mut self) -> Result<&mut [Entry], &mut Many> {
        match self {
            Self::One(one) => Ok(slice::from_mut(one)),
            Self::Few(few) => Ok(few),
            Self::Many(many) => Err(many),
        }
    }

    /// Adds an entry to few.
    fn insert(self, layer: Layer, at: usize, entry: Entry) -> Self {
        match self {
            Self::Few(few) if few.is_empty() => Self::One(entry),
            Self::One(one) if at == 0 => Self::Few(vec![entry, one]),
            Self::One(one) => Self::Few(vec![one, entry]),
            Self::Few(mut few) if few.len() < FEW => {
                few.insert(at, entry);
                Self::Few(few)
            }
            Self::Few(few) => {
                let mut many = Many::default();
                let all = few.iter().chain([&entry]);
                all.for_each(|entry| many.put(Layer::Base, None, &entry.task));
                Self::Many(Box::new(many))
            }
            Self::Many(mut many) => {
                many.put(layer, None, &entry.task);
                Self::Many(many)
            }
        }
    }

    /// All of them in a map, which is made if they are few.
    fn map(&self) -> Layered<TaskId, Row<Task>> {
        let entry = |entry: &Entry| (entry.id, Row(entry.task.clone()));
        match self.few() {
            Ok(few) => Layered::from(few.iter().map(entry).collect::<OrdMap<_, _>>()),
            Err(many) => many.all.clone(),
        }
    }
}

impl Group {
    /// How many tasks there are, and whether any wait, and any are to be removed.
    pub(super) fn sizes(&self) -> (usize, bool, bool) {
        match self.rows.few() {
            Ok(few) => {
                let waits = few.iter().any(|entry| entry.waits);
                (few.len(), waits, few.iter().any(|entry| entry.is_removed))
            }
            Err(many) => (many.len, many.waiting.len > 0, many.removed.len > 0),
        }
    }

    pub(super) fn get(&self, id: TaskId) -> Option<&Arc<Task>> {
        match self.rows.few() {
            Ok(few) => find(few, id).ok().map(|at| &few[at].task),
            Err(many) => many.get(id),
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Task>> {
        let (few, many) = self.parts();
        let few = few.iter().map(|entry| &entry.task);
        few.chain(many.into_iter().flat_map(|many| many.all.iter().map(|(_, row)| &row.0)))
    }

    /// Those below `assigned`.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Arc<Task>> {
        let (few, many) = self.parts();
        let few = few.iter().filter(|entry| entry.waits).map(|entry| &entry.task);
        few.chain(many.into_iter().flat_map(|many| many.each(&many.waiting)))
    }

    /// Those that are to be removed.
    pub(super) fn removed(&self) -> impl Iterator<Item = &Arc<Task>> {
        let (few, many) = self.parts();
        let few = few.iter().filter(|entry| entry.is_removed).map(|entry| &entry.task);
        few.chain(many.into_iter().flat_map(|many| many.each(&many.removed)))
    }

    fn parts(&self) -> (&[Entry], Option<&Many>) {
        self.rows.few().map_or_else(|many| (&[][..], Some(many)), |few| (few, None))
    }

    /// Whether a task that is here is listed where it belongs.
    pub(super) fn lists(&self, task: &Task) -> bool {
        let listed = match self.rows.few() {
            Ok(few) => find(few, task.id).map(|at| (few[at].waits, few[at].is_removed)),
            Err(many) => {
                Ok((many.waiting.ids.contains(&task.id), many.removed.ids.contains(&task.id)))
            }
        };
        listed == Ok((waits(task), is_removed(task)))
    }

    /// See [`Snapshot::derived_of`](super::Snapshot::derived_of).
    pub(super) fn derived<T: Any + Send + Sync>(
        &self,
        derive: impl FnOnce(Option<(&T, &[Touched])>) -> T,
    ) -> Arc<T> {
        self.memo.get(derive)
    }

    pub(super) fn put(&mut self, layer: Layer, old: Option<&Task>, new: &Arc<Task>) {
        self.memo.touch(old.into_iter().chain([&**new]));
        match self.rows.few_mut() {
            Ok(few) => match find(few, new.id) {
                Ok(at) => few[at] = Entry::of(new),
                Err(at) => {
                    self.rows = std::mem::take(&mut self.rows).insert(layer, at, Entry::of(new));
                }
            },
            Err(many) => many.put(layer, old, new),
        }
    }

    /// Ends a row of writes: until then, nobody but the writes reads.
    pub(super) fn close(&mut self, layer: Layer) {
        if let Rows::Many(many) = &mut self.rows {
            many.waiting.close(layer);
            many.removed.close(layer);
        }
    }

    pub(super) fn remove(&mut self, layer: Layer, old: &Task) {
        self.memo.touch([old]);
        match &mut self.rows {
            Rows::One(one) if one.id == old.id => self.rows = Rows::default(),
            Rows::One(_) => {}
            Rows::Few(few) => few.retain(|entry| entry.id != old.id),
            Rows::Many(many) => many.remove(layer, old),
        }
    }

    /// Says what was written between another version of this group and this one: each task before
    /// and after, in order of id.
    pub(super) fn for_each_since(
        &self,
        old: &Self,
        each: &mut impl FnMut(Option<&Arc<Task>>, Option<&Arc<Task>>),
    ) {
        if let (Ok(old), Ok(new)) = (old.rows.few(), self.rows.few()) {
            return for_each_between(old, new, each);
        }
        for (old, new) in self.rows.map().since(&old.rows.map()) {
            each(old.map(|row| &row.0), new.map(|row| &row.0));
        }
    }
}

impl Entry {
    fn of(task: &Arc<Task>) -> Self {
        let (waits, is_removed) = (waits(task), is_removed(task));
        Self { id: task.id, waits, is_removed, task: task.clone() }
    }
}

fn find(few: &[Entry], id: TaskId) -> Result<usize, usize> {
    few.binary_search_by_key(&id, |entry| entry.id)
}

impl Many {
    fn get(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.all.get(&id).map(|row| &row.0)
    }

    fn each<'a>(&'a self, marked: &'a Marked) -> impl Iterator<Item = &'a Arc<Task>> {
        marked.ids.iter().filter_map(|(id, ())| self.get(*id))
    }

    fn put(&mut self, layer: Layer, old: Option<&Task>, new: &Arc<Task>) {
        self.all.write(layer, old.is_some(), new.id, Row(new.clone()));
        self.len += usize::from(old.is_none());
        self.waiting.turn(layer, new.id, old.is_some_and(waits), waits(new));
        self.removed.turn(layer, new.id, old.is_some_and(is_removed), is_removed(new));
    }

    fn remove(&mut self, layer: Layer, old: &Task) {
        self.all.remove(layer, &old.id);
        self.len -= 1;
        self.waiting.turn(layer, old.id, waits(old), false);
        self.removed.turn(layer, old.id, is_removed(old), false);
    }
}

impl Marked {
    /// A task had the mark or not, and now has it or not.
    fn turn(&mut self, layer: Layer, id: TaskId, before: bool, after: bool) {
        match (before, after) {
            (false, true) => {
                self.close(layer);
                self.ids.write(layer, false, id, ());
                self.len += 1;
            }
            (true, false) => {
                self.left.push(id);
                self.len -= 1;
            }
            _ => {}
        }
    }

    fn close(&mut self, layer: Layer) {
        if self.len == 0 {
            *self = Self::default();
        }
        self.left.drain(..).for_each(|id| self.ids.remove(layer, &id));
    }
}

/// Walks two versions side by side.
fn for_each_between(
    mut old: &[Entry],
    mut new: &[Entry],
    each: &mut impl FnMut(Option<&Arc<Task>>, Option<&Arc<Task>>),
) {
    loop {
        let order = match (old.first(), new.first()) {
            (Some(old), Some(new)) => old.id.cmp(&new.id),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let before = if order.is_le() { old.split_off_first() } else { None };
        let after = if order.is_ge() { new.split_off_first() } else { None };
        let (before, after) = (before.map(|it| &it.task), after.map(|it| &it.task));
        if before.map(Arc::as_ptr) != after.map(Arc::as_ptr) {
            each(before, after);
        }
    }
}

pub(super) fn waits(task: &Task) -> bool {
    task.status.state < TaskState::Assigned
}

pub(super) fn is_removed(task: &Task) -> bool {
    task.desired_state == TaskState::Remove
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::id::IdSource;
    use crate::model::TaskStatus;
    use crate::time::Timestamp;

    /// What a group shall say, from its tasks alone.
    fn check(group: &Group, tasks: &[Arc<Task>]) {
        let is = |found: Vec<&Arc<Task>>, holds: fn(&Task) -> bool| {
            found == tasks.iter().filter(|task| holds(task)).collect::<Vec<_>>()
        };
        assert!(is(group.values().collect(), |_| true));
        assert!(is(group.waiting().collect(), waits));
        assert!(is(group.removed().collect(), is_removed));
        let any = |holds: fn(&Task) -> bool| tasks.iter().any(|task| holds(task));
        assert_eq!(group.sizes(), (tasks.len(), any(waits), any(is_removed)));
        assert!(tasks.iter().all(|task| group.lists(task)));
        assert!(tasks.iter().all(|task| group.get(task.id) == Some(task)));
    }

    fn differences(old: &Group, new: &Group) -> Vec<[Option<Arc<Task>>; 2]> {
        let mut found = Vec::new();
        new.for_each_since(old, &mut |old, new| found.push([old.cloned(), new.cloned()]));
        found
    }

    /// The same, from the tasks alone.
    fn expected(old: &[Arc<Task>], new: &[Arc<Task>]) -> Vec<[Option<Arc<Task>>; 2]> {
        let by_id = |tasks: &[Arc<Task>]| -> BTreeMap<TaskId, Arc<Task>> {
            tasks.iter().map(|task| (task.id, task.clone())).collect()
        };
        let (old, new) = (by_id(old), by_id(new));
        let ids: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let both = ids.into_iter().map(|id| [old.get(id).cloned(), new.get(id).cloned()]);
        both.filter(|[old, new]| old.as_ref().map(Arc::as_ptr) != new.as_ref().map(Arc::as_ptr))
            .collect()
    }

    #[test]
    fn few_and_many_say_the_same() {
        let mut ids = IdSource::seeded(1);
        let (mut group, mut tasks) = (Group::default(), Vec::<Arc<Task>>::new());
        let mut versions = vec![(group.clone(), tasks.clone())];
        let states = [TaskState::Pending, TaskState::Running, TaskState::Failed];
        let wishes = [TaskState::Running, TaskState::Remove];
        for round in 0..400 {
            // It grows past the bound, shrinks to nothing, and grows again.
            let shrinks = round % 200 > 80;
            let layer = if ids.below(2) == 0 { Layer::Base } else { Layer::Staged };
            let mut task = match ids.below(4) {
                0 | 1 if !shrinks => Task { id: ids.next(), ..Task::default() },
                _ if tasks.is_empty() => continue,
                _ => Task::clone(&tasks[ids.below(tasks.len() as u64) as usize]),
            };
            let at = tasks.binary_search_by_key(&task.id, |task| task.id);
            if let (true, Ok(at)) = (shrinks, at) {
                group.remove(layer, &tasks.remove(at));
            } else {
                let state = states[ids.below(3) as usize];
                task.status = TaskStatus::new(state, Timestamp::ZERO, "");
                task.desired_state = wishes[ids.below(2) as usize];
                let task = Arc::new(task);
                group.put(layer, at.ok().map(|at| &*tasks[at]), &task);
                match at {
                    Ok(at) => tasks[at] = task,
                    Err(at) => tasks.insert(at, task),
                }
            }
            group.close(layer);
            check(&group, &tasks);
            versions.push((group.clone(), tasks.clone()));
        }
        assert!(versions.iter().any(|(group, _)| group.parts().1.is_some()));
        for (old, new) in [(3, 9), (3, 70), (70, 75), (70, 180), (180, 3), (75, 75)] {
            let ((old, before), (new, after)) = (&versions[old], &versions[new]);
            assert_eq!(differences(old, new), expected(before, after));
        }
    }
}
