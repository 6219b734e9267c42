//! A5: a write that names the revision that it read is committed only on that revision; one that a
//! client was told of as committed is in the log, and in the state of every later leader.
//!
//! A write without an answer may be there or not. Of the state it is looked at whether everything
//! that clients wrote is there in that revision or a later one, or was removed since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_core::model::Version;
use swarm_core::store::{Change, Epoch, ObjectRef, Snapshot, Store as _};

use super::{Invariant, Step, steps};
use crate::sim::World;
use crate::sim::consensus::Author;

#[derive(Default)]
pub(super) struct History {
    /// Acknowledged writes that were looked for in the log.
    acknowledged: usize,
    /// What clients wrote and nobody has removed.
    written: BTreeMap<ObjectRef, Version>,
    /// The last epoch whose leader was looked at.
    epoch: Epoch,
}

impl Invariant for History {
    fn name(&self) -> &'static str {
        "A5"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            compare_and_set(&step)?;
            self.learn(&step);
        }
        self.is_logged(world)?;
        self.led_by(world)
    }
}

impl History {
    fn learn(&mut self, step: &Step<'_>) {
        for event in &step.commit.events {
            let id = event.object().id();
            match &event.new {
                None => drop(self.written.remove(&id)),
                Some(object) if step.entry.author == Author::Client => {
                    self.written.insert(id, object.revision());
                }
                Some(_) => {}
            }
        }
    }

    /// Whether what was acknowledged just now is in the log. It was put there just now.
    fn is_logged(&mut self, world: &World) -> Result<(), String> {
        for batch in world.log.acknowledged.iter().skip(self.acknowledged) {
            let entries = world.log.entries.iter().rev();
            if !entries.take(100).any(|(_, logged)| Arc::ptr_eq(logged, batch)) {
                let targets = batch.changes.iter().map(|change| change.target().to_string());
                let targets: Vec<_> = targets.collect();
                return Err(format!(
                    "a write of {} is acknowledged and not in the log",
                    targets.join(", ")
                ));
            }
        }
        self.acknowledged = world.log.acknowledged.len();
        Ok(())
    }

    /// Whether a new leader has everything that clients wrote before.
    fn led_by(&mut self, world: &World) -> Result<(), String> {
        let Some((host, epoch)) = world.log.leader.filter(|(_, epoch)| *epoch > self.epoch) else {
            return Ok(());
        };
        self.epoch = epoch;
        let host = &world.hosts()[host];
        let Some(manager) = &host.manager else { return Ok(()) };
        let has: Snapshot = manager.replica.store.snapshot();
        let lacks = self
            .written
            .iter()
            .find(|(id, written)| has.get(**id).is_none_or(|object| object.revision() < **written));
        match lacks {
            Some((id, _)) => Err(format!("{} leads and lacks what was written to {id}", host.name)),
            None => Ok(()),
        }
    }
}

fn compare_and_set(step: &Step<'_>) -> Result<(), String> {
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
    Ok(())
}
