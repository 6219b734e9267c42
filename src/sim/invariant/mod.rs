//! What must be true of a cluster, one file for each sentence.
//!
//! Safety is checked after every event of a simulation, liveness once a healed cluster has had time
//! to settle. An invariant that needs history keeps it itself.

mod a4_replicas;
mod a5_history;
mod a6_watches;
mod a7_epochs;
mod b10_restarts;
mod b11_records;
mod b12_jobs;
mod b13_moves;
mod b14_preemption;
mod b1_states;
mod b2_reporters;
mod b3_references;
mod b4_replicas;
mod b5_stop_first;
mod b6_global;
mod b7_placement;
mod b8_memory;
mod b9_rollouts;
mod c1_addresses;
mod c2_free;
mod c3_reuse;
mod c4_ports;
mod d1_one_session;
mod d4_secrets;
mod e2_sessions;
mod e3_as_desired;
mod e4_remains;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::executor::Found;
use swarm_core::model::{
    NodeId, Service, ServiceId, Task, TaskId, TaskState, UpdateOrder, Version,
};
use swarm_core::store::{Commit, Object, Snapshot};
use swarm_sched::place::StrategyScheduler;

use super::World;
use super::consensus::Committed;
use super::host::Host;
use super::machine::Container;

/// No plan is on its way to the store for longer: who made it may know nothing of what is newer.
const PLAN_ON_ITS_WAY: Duration = Duration::from_secs(10);

/// Something that must be true.
pub trait Invariant {
    /// Its name, such as `B4`.
    fn name(&self) -> &'static str;

    /// Checks it after an event. [`World::committed`] holds what the event committed.
    ///
    /// # Errors
    /// What was seen instead.
    fn after_step(&mut self, world: &World) -> Result<(), String> {
        let _ = world;
        Ok(())
    }

    /// Checks it in a healed cluster that has had time to settle.
    ///
    /// # Errors
    /// What was seen instead.
    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let _ = world;
        Ok(())
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// Which.
    pub invariant: String,
    /// When, counted from the start.
    pub at: Duration,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} does not hold at {:.3} s: {}",
            self.invariant,
            self.at.as_secs_f64(),
            self.seen
        )
    }
}

/// Every invariant of this library.
#[must_use]
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<a4_replicas::SameState>::default(),
        Box::<a5_history::History>::default(),
        Box::<a6_watches::Watches>::default(),
        Box::new(a7_epochs::Epochs),
        Box::new(b1_states::States),
        Box::<b2_reporters::Reporters>::default(),
        Box::new(b3_references::References),
        Box::<b4_replicas::Replicas>::default(),
        Box::<b5_stop_first::StopFirst>::default(),
        Box::<b6_global::Global>::default(),
        Box::<b7_placement::Placement>::default(),
        Box::<b9_rollouts::RollOuts>::default(),
        Box::<b10_restarts::Restarts>::default(),
        Box::<b11_records::Records>::default(),
        Box::<b12_jobs::Jobs>::default(),
        Box::<b13_moves::Moves>::default(),
        Box::<b14_preemption::Preemption>::default(),
        Box::new(c1_addresses::Addresses),
        Box::new(c2_free::Free::default()),
        Box::new(c3_reuse::Reuse),
        Box::new(c4_ports::Ports),
        Box::<d1_one_session::OneSession>::default(),
        Box::new(d4_secrets::Secrets),
        Box::<e2_sessions::Sessions>::default(),
        Box::new(e3_as_desired::AsDesired),
        Box::<e4_remains::Remains>::default(),
    ]
}

/// That what a scheduler remembers is what the state says. Not one of [`all`]: it needs the scheduler.
#[must_use]
pub fn memory_of(scheduler: Arc<StrategyScheduler>) -> Box<dyn Invariant> {
    Box::new(b8_memory::Memory::of(scheduler))
}

/// One commit, with the state that it made.
struct Step<'a> {
    entry: &'a Committed,
    commit: &'a Commit,
    after: &'a Snapshot,
}

/// What was committed in this event and changed something, in order.
fn steps(world: &World) -> impl Iterator<Item = Step<'_>> {
    world.committed().iter().filter_map(|entry| {
        let commit = entry.result.as_ref().ok()?;
        Some(Step { entry, commit, after: &entry.after })
    })
}

/// What a task stands for: its slot, or in the global modes its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    service: ServiceId,
    slot: u64,
    node: Option<NodeId>,
}

impl Place {
    fn of(view: &Snapshot, task: &Task) -> Self {
        let service = view.services.get(task.service_id);
        let global = service.is_some_and(|service| service.spec.mode.is_global());
        let node = task.node_id.filter(|_| global);
        Self { service: task.service_id, slot: task.slot, node }
    }

    /// The tasks of the place; what shall be removed fills none.
    fn tasks(self, view: &Snapshot) -> impl Iterator<Item = &Arc<Task>> {
        view.tasks_of(self.service).filter(move |task| {
            task.desired_state != TaskState::Remove && Self::of(view, task) == self
        })
    }
}

/// Whether two tasks of a slot may run at the same time, for a while.
fn may_start_first(service: &Service) -> bool {
    let spec = &service.spec;
    [&spec.update_config, &spec.rollback_config]
        .into_iter()
        .flatten()
        .any(|config| config.order == Some(UpdateOrder::StartFirst))
}

/// The tasks that were made to run beside their predecessors for a while: by a roll-out, of a
/// specification that has its tasks start first.
#[derive(Default)]
struct StartFirst {
    specs: BTreeSet<(ServiceId, Version)>,
    tasks: BTreeSet<TaskId>,
}

impl StartFirst {
    fn learn(&mut self, step: &Step<'_>) {
        for event in &step.commit.events {
            match (&event.old, &event.new) {
                (_, Some(Object::Service(service))) if may_start_first(service) => {
                    self.specs.insert((service.id, service.version));
                }
                (None, Some(Object::Task(task)))
                    if (task.rollout.is_some() || task.relieves.is_some())
                        && task.desired_state == TaskState::Running
                        && self.specs.contains(&(task.service_id, task.spec_version)) =>
                {
                    self.tasks.insert(task.id);
                }
                (Some(Object::Task(task)), None) => {
                    self.tasks.remove(&task.id);
                }
                _ => {}
            }
        }
    }

    fn contains(&self, task: TaskId) -> bool {
        self.tasks.contains(&task)
    }
}

/// Sees every start of a container once.
#[derive(Default)]
struct Started {
    /// Starts that were seen, by host.
    lives: Vec<u64>,
}

impl Started {
    /// The containers that were started in this event and run, with their hosts.
    fn since_last<'a>(&mut self, world: &'a World) -> Vec<(&'a Host, &'a Container)> {
        self.lives.resize(world.hosts().len(), 0);
        let mut started = Vec::new();
        for host in world.hosts() {
            let seen = std::mem::replace(&mut self.lives[host.index], host.machine.lives());
            if host.machine.lives() > seen {
                let containers = host.machine.containers.values();
                let fresh = containers
                    .filter(|container| container.life > seen && container.state == Found::Running);
                started.extend(fresh.map(|container| (host, container)));
            }
        }
        started
    }
}

/// Whether the end was the task's own doing.
fn ended_on_its_own(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
}
