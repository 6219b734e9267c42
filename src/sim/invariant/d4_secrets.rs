//! D4: a node has the bytes of no secret that none of its tasks refers to; at rest, of none that no
//! task which has not ended refers to.

use std::collections::BTreeSet;

use swarm_core::model::{SecretId, Task};

use super::Invariant;
use crate::sim::World;

/// Events between two looks.
const EVERY: u64 = 50;

/// The news that a task has ended may be on its way for so long.
const ON_ITS_WAY: std::time::Duration = std::time::Duration::from_secs(60);

pub(super) struct Secrets;

impl Invariant for Secrets {
    fn name(&self) -> &'static str {
        "D4"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        match world.events().is_multiple_of(EVERY) {
            true => look(world, |_| true),
            false => Ok(()),
        }
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let state = world.state();
        look(world, |task| {
            let known = state.tasks.get(task.id);
            known.is_none_or(|task| {
                let recent = world.now().since(task.updated_at) < ON_ITS_WAY;
                recent || !task.status.state.is_terminal()
            })
        })
    }
}

fn look(world: &World, counts: impl Fn(&Task) -> bool) -> Result<(), String> {
    for host in world.hosts() {
        let Some(agent) = &host.agent else { continue };
        let runs = agent.state.tasks().filter_map(|task| agent.state.run(task));
        let referred: BTreeSet<SecretId> = runs
            .filter(|run| counts(&run.task))
            .filter_map(|run| run.task.spec.container.as_ref())
            .flat_map(|container| &container.secrets)
            .map(|reference| reference.secret_id)
            .collect();
        if let Some(secret) = agent.state.secrets().find(|secret| !referred.contains(secret)) {
            return Err(format!("{} has secret {secret} for no task", host.name));
        }
    }
    Ok(())
}
