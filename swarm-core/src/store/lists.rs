//! Pure: the tasks that belong to something else than a service: to a node, to a network.
//!
//! What is committed lies in a persistent map. Ids of nodes are random, as are those of tasks of
//! different services: in a map of a million entries a write may copy a leaf of its own and the branch
//! above it, whose sixteen neighbours it counts up, each in another place of the memory. So what a
//! planner stages lies beside it, by holder, as in [`Layered`](super::layered::Layered), and is put
//! together with the rest only for the holder that somebody asks about.

use std::sync::Arc;

use imbl::OrdMap;

use super::layered::{Layer, overlaid};
use super::tables::range;
use crate::id::{Id, IdMap};
use crate::model::{ServiceId, TaskId};

/// For each holder its tasks, in order of id, each with its service.
#[derive(Clone)]
pub(super) struct Lists<T> {
    base: OrdMap<(Id<T>, TaskId), ServiceId>,
    /// What is staged: that a task is there, or is not, in order of id. Absent in what is committed.
    staged: Option<Arc<IdMap<Id<T>, Staged>>>,
}

type Staged = Vec<(TaskId, Option<ServiceId>)>;

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { base: OrdMap::new(), staged: None }
    }
}

impl<T: Clone> Lists<T> {
    pub(super) fn insert(&mut self, layer: Layer, holder: Id<T>, task: TaskId, service: ServiceId) {
        if layer == Layer::Staged {
            return self.stage(holder, task, Some(service));
        }
        self.uncover(holder, task);
        self.base.insert((holder, task), service);
    }

    pub(super) fn remove(&mut self, layer: Layer, holder: Id<T>, task: TaskId) {
        if layer == Layer::Staged {
            return self.stage(holder, task, None);
        }
        self.uncover(holder, task);
        self.base.remove(&(holder, task));
    }

    fn stage(&mut self, holder: Id<T>, task: TaskId, service: Option<ServiceId>) {
        let staged = Arc::make_mut(self.staged.get_or_insert_default());
        let tasks = staged.entry(holder).or_default();
        match tasks.binary_search_by_key(&task, |(id, _)| *id) {
            Ok(at) => tasks[at].1 = service,
            Err(at) => tasks.insert(at, (task, service)),
        }
    }

    /// What is written below is not hidden by what was staged before.
    fn uncover(&mut self, holder: Id<T>, task: TaskId) {
        if let Some(staged) = &mut self.staged
            && let Some(tasks) = Arc::make_mut(staged).get_mut(&holder)
        {
            tasks.retain(|(id, _)| *id != task);
        }
    }

    pub(super) fn contains(&self, holder: Id<T>, task: TaskId) -> bool {
        let staged = self.staged_of(holder);
        match staged.binary_search_by_key(&task, |(id, _)| *id) {
            Ok(at) => staged[at].1.is_some(),
            Err(_) => self.base.contains_key(&(holder, task)),
        }
    }

    /// The tasks of a holder, in order of id.
    pub(super) fn of(&self, holder: Id<T>) -> impl Iterator<Item = (TaskId, ServiceId)> {
        let base = self.base.range(range(holder)).map(|((_, task), service)| (*task, service));
        let staged = self.staged_of(holder).iter().map(|(task, service)| (*task, service));
        overlaid(base, staged).map(|(task, service)| (task, *service))
    }

    /// Those that have tasks, in order of id: O(log n) for each.
    pub(super) fn holders(&self) -> impl Iterator<Item = Id<T>> {
        let first_after = |holder: Id<T>| {
            // No task has the largest id.
            let rest = (holder, TaskId::MAX)..=(Id::MAX, TaskId::MAX);
            self.base.range(rest).next().map(|((holder, _), _)| *holder)
        };
        let mut holders: Vec<_> =
            std::iter::successors(first_after(Id::MIN), |holder| first_after(*holder)).collect();
        if let Some(staged) = &self.staged {
            holders.extend(staged.keys());
            holders.sort_unstable();
            holders.dedup();
            holders.retain(|holder| self.of(*holder).next().is_some());
        }
        holders.into_iter()
    }

    fn staged_of(&self, holder: Id<T>) -> &[(TaskId, Option<ServiceId>)] {
        let staged = self.staged.as_ref().and_then(|staged| staged.get(&holder));
        staged.map_or(&[], |tasks| tasks)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::id::IdSource;
    use crate::model::{Node, NodeId};

    #[test]
    fn both_layers_read_as_one() {
        let mut ids = IdSource::seeded(1);
        let nodes: Vec<NodeId> = (0..5).map(|_| ids.next()).collect();
        let tasks: Vec<TaskId> = (0..9).map(|_| ids.next()).collect();
        let (mut lists, mut plain) = (Lists::<Node>::default(), BTreeMap::new());
        for _ in 0..2_000 {
            let key = (nodes[ids.below(5) as usize], tasks[ids.below(9) as usize]);
            let layer = if ids.below(4) == 0 { Layer::Base } else { Layer::Staged };
            if ids.below(3) == 0 {
                let service = ids.next();
                lists.insert(layer, key.0, key.1, service);
                plain.insert(key, service);
            } else {
                lists.remove(layer, key.0, key.1);
                plain.remove(&key);
            }
            let mut holders: Vec<_> = plain.keys().map(|(node, _)| *node).collect();
            holders.dedup();
            assert!(lists.holders().eq(holders));
            for node in &nodes {
                let of = plain.iter().filter(|((holder, _), _)| holder == node);
                assert!(lists.of(*node).eq(of.map(|((_, task), service)| (*task, *service))));
            }
            assert_eq!(lists.contains(key.0, key.1), plain.contains_key(&key));
        }
    }
}
