//! Pure: what was derived from the tasks of a service, kept beside them.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use crate::model::{NodeId, Task, TaskId};

/// After so many changes what was derived before them is not kept any more: neither would much of it
/// be left, nor are old versions of many tasks to be kept from being given back.
const CHANGES: usize = 32;

/// At most one value that somebody derived from what this lies in; or, once that has changed, the
/// value from before and the changes, for as long as they are few.
#[derive(Clone, Default)]
pub(super) struct Memo {
    value: OnceLock<Arc<dyn Any + Send + Sync>>,
    before: Option<Arc<dyn Any + Send + Sync>>,
    changes: Vec<Touched>,
}

/// A task that is not as it was: it came, went, or is another version of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The task.
    pub id: TaskId,
    /// Its slot, before or after.
    pub slot: u64,
    /// Its node, before or after.
    pub node: Option<NodeId>,
}

impl Memo {
    /// The value that lies here, if it is one of this type; else one that is derived now, from the
    /// one before and what has changed since if that is known, and left here if nothing was.
    pub(super) fn get<T: Any + Send + Sync>(
        &self,
        derive: impl FnOnce(Option<(&T, &[Touched])>) -> T,
    ) -> Arc<T> {
        if let Some(Ok(known)) = self.value.get().map(|value| value.clone().downcast()) {
            return known;
        }
        let before = self.before.as_ref().and_then(|before| before.downcast_ref());
        let derived = Arc::new(derive(before.map(|before| (before, &self.changes[..]))));
        // Who comes second leaves the first, which is equal.
        let _ = self.value.set(derived.clone());
        derived
    }

    /// Notes that a task changes: both versions, if there are two.
    pub(super) fn touch<'a>(&mut self, versions: impl IntoIterator<Item = &'a Task>) {
        if let Some(value) = self.value.take() {
            self.before = Some(value);
            self.changes.clear();
        }
        if self.before.is_none() {
            return;
        }
        for task in versions {
            let touched = Touched { id: task.id, slot: task.slot, node: task.node_id };
            if self.changes.last() != Some(&touched) {
                self.changes.push(touched);
            }
        }
        if self.changes.len() > CHANGES {
            *self = Self::default();
        }
    }
}
