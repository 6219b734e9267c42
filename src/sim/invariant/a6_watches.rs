//! A6: a watch of a manager's store shows every commit once and in order, or says that it lags.

use std::collections::BTreeMap;

use swarm_core::store::{Store as _, Watch};

use super::Invariant;
use crate::sim::World;
use crate::sim::host::Host;

/// Events between two looks.
const EVERY: u64 = 16;

#[derive(Default)]
pub(super) struct Watches {
    /// The watch of each manager's process, with the process's number.
    of: BTreeMap<usize, (u64, Watch)>,
}

impl Invariant for Watches {
    fn name(&self) -> &'static str {
        "A6"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        if !world.events().is_multiple_of(EVERY) {
            return Ok(());
        }
        world.hosts().iter().try_for_each(|host| self.look(host))
    }
}

impl Watches {
    fn look(&mut self, host: &Host) -> Result<(), String> {
        let Some(manager) = &host.manager else { return Ok(()) };
        let store = &manager.replica.store;
        let begin = || (manager.life, store.watch(store.snapshot().version()));
        let (life, watch) = self.of.entry(host.index).or_insert_with(begin);
        if *life != manager.life {
            (*life, *watch) = begin();
        }
        loop {
            let seen = watch.seen();
            match watch.try_next() {
                Ok(Some(commit)) if commit.version.0 == seen.0 + 1 => {}
                Ok(Some(commit)) => {
                    let name = &host.name;
                    return Err(format!("{name} shows {} after {seen}", commit.version));
                }
                Ok(None) => break,
                Err(_) => {
                    *watch = store.watch(store.snapshot().version());
                    return Ok(());
                }
            }
        }
        let (seen, has) = (watch.seen(), store.snapshot().version());
        match seen == has {
            true => Ok(()),
            false => Err(format!("{} has {has} and shows no more than {seen}", host.name)),
        }
    }
}
