//! A5: a write that names the revision that it read is committed only on that revision.

use std::collections::BTreeSet;

use swarm_core::store::Change;

use super::{Invariant, steps};
use crate::sim::World;

pub(super) struct CompareAndSet;

impl Invariant for CompareAndSet {
    fn name(&self) -> &'static str {
        "A5"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            let mut written = BTreeSet::new();
            for change in &step.entry.batch.changes {
                let read = match change {
                    Change::Update(object) => Some(object.revision()),
                    Change::Remove(_, revision) => *revision,
                    _ => None,
                };
                let first = written.insert(change.target());
                let Some(read) = read.filter(|_| first) else { continue };
                let stored = step.entry.before.get(change.target()).map(|it| it.revision());
                if stored != Some(read) {
                    return Err(format!(
                        "entry {} writes {} as read at {read} over {stored:?}",
                        step.entry.index,
                        change.target()
                    ));
                }
            }
        }
        Ok(())
    }
}
