//! B4: a replicated service never gets more tasks that shall run than replicas, and while a
//! roll-out starts new tasks first, as many more as that does at a time.
//!
//! A client may ask for fewer while a plan is on its way. So a plan counts that *adds* tasks, and is
//! measured by the specification that it was made for as well.

use std::collections::BTreeMap;

use swarm_core::model::{Service, ServiceId, ServiceMode, UpdateOrder, Version};
use swarm_core::store::{Object, Snapshot};

use super::{Invariant, Step, steps};
use crate::sim::World;
use crate::sim::consensus::Author;

#[derive(Default)]
pub(super) struct Replicas {
    bounds: BTreeMap<(ServiceId, Version), u64>,
}

impl Invariant for Replicas {
    fn name(&self) -> &'static str {
        "B4"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        steps(world).try_for_each(|step| self.check(&step))
    }
}

impl Replicas {
    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        let mut made: BTreeMap<ServiceId, Version> = BTreeMap::new();
        for event in &step.commit.events {
            match (&event.old, &event.new) {
                (_, Some(Object::Service(service))) => {
                    if let Some(bound) = bound(service) {
                        self.bounds.insert((service.id, service.version), bound);
                    }
                }
                (None, Some(Object::Task(task))) if step.entry.author == Author::Planners => {
                    made.insert(task.service_id, task.spec_version);
                }
                _ => {}
            }
        }
        for (id, planned) in made {
            let Some(service) = step.after.services.get(id) else { continue };
            let Some(now) = bound(service) else { continue };
            let planned = self.bounds.get(&(id, planned)).copied().unwrap_or_default();
            let (before, after) = (wanted(&step.entry.before, id), wanted(step.after, id));
            if after > before && after > now.max(planned) {
                return Err(format!(
                    "entry {} leaves {} with {after} tasks that shall run, where {} are allowed",
                    step.entry.index,
                    service.spec.name,
                    now.max(planned)
                ));
            }
        }
        Ok(())
    }
}

fn wanted(view: &Snapshot, service: ServiceId) -> u64 {
    view.tasks_of(service).filter(|task| task.is_wanted()).count() as u64
}

/// The most tasks that shall run; absent for what is not replicated.
fn bound(service: &Service) -> Option<u64> {
    let ServiceMode::Replicated(mode) = &service.spec.mode else { return None };
    let replicas = mode.replicas.unwrap_or(1);
    let more = |config: &swarm_core::model::UpdateConfig| match config.order {
        Some(UpdateOrder::StartFirst) if config.parallelism == 0 => replicas,
        Some(UpdateOrder::StartFirst) => config.parallelism.min(replicas),
        _ => 0,
    };
    let configs = [&service.spec.update_config, &service.spec.rollback_config];
    Some(replicas + configs.into_iter().flatten().map(more).max().unwrap_or(0))
}
