//! E3: once the faults have ended, every service is as it was asked for and stays so; what is not
//! says why: in a stalled service, in the status of its update, in the error of a task.
//!
//! What an image does counts as a reason too: one that crashes cannot be expected to run. So does a
//! restart policy that gives a slot up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{
    Availability, Node, NodeState, RestartCondition, Service, ServiceMode, Task, TaskState,
    UpdateState,
};
use swarm_core::store::Snapshot;
use swarm_sched::place::constraint;

use super::{Invariant, Place};
use crate::sim::World;
use crate::sim::machine::Behaviour;

/// What changed less long ago may still be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(90);

pub(super) struct AsDesired;

impl Invariant for AsDesired {
    fn name(&self) -> &'static str {
        "E3"
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let state = world.state();
        let look = Look { world, state: &state };
        state.tasks.iter().try_for_each(|task| look.task(task))?;
        let services = state.services.iter().filter(|service| !service.pending_delete);
        services.into_iter().try_for_each(|service| look.service(service))
    }
}

/// How far a place of a service is from what was asked for.
enum Finding {
    Runs,
    Explained,
    Missing(String),
}

struct Look<'a> {
    world: &'a World,
    state: &'a Snapshot,
}

impl Look<'_> {
    /// Whether a task obeys what it is told.
    fn task(&self, task: &Task) -> Result<(), String> {
        let recent = self.world.now().since(task.updated_at) < ON_ITS_WAY;
        if !recent && task.is_wanted() {
            self.is_looked_after(task)?;
        }
        let reached = task.status.state >= TaskState::Assigned;
        let over = task.status.state.is_terminal();
        if recent || over || !reached || !self.is_ready(task) {
            return Ok(());
        }
        if task.desired_state >= TaskState::Shutdown {
            return Err(format!("{} is {} and shall stop", task.name(), task.status.state));
        }
        let waits = task.status.state == TaskState::Ready
            && task.desired_state == TaskState::Ready
            && !self.is_troubled(task);
        match waits {
            true => Err(format!("{} is ready and nobody starts it", task.name())),
            false => Ok(()),
        }
    }

    /// Whether somebody takes notice of what became of a task that shall run, or shall have run.
    fn is_looked_after(&self, task: &Task) -> Result<(), String> {
        let state = task.status.state;
        let service = self.state.services.get(task.service_id);
        let run = service.and_then(|service| service.job_iteration());
        // What earlier runs of a job ended is history as it stands.
        let done = task.job_iteration.is_some()
            && (state == TaskState::Complete || (state.is_terminal() && task.job_iteration != run));
        if state.is_terminal() && !done {
            return Err(format!("{} is {state}, and nothing follows from it", task.name()));
        }
        let node = task.node_id.map(|node| self.state.nodes.get(node));
        let unusable = node.is_some_and(|node| {
            node.is_none_or(|node| {
                node.status.state == NodeState::Down
                    || node.spec.availability == Availability::Drain
            })
        });
        match unusable && !done {
            true => Err(format!("{} is left on a node that is of no use", task.name())),
            false => Ok(()),
        }
    }

    fn is_ready(&self, task: &Task) -> bool {
        let node = task.node_id.and_then(|node| self.state.nodes.get(node));
        node.is_some_and(|node| node.status.state == NodeState::Ready)
    }

    /// Whether its image does not run for good.
    fn is_troubled(&self, task: &Task) -> bool {
        !matches!(Behaviour::of(task), Behaviour::Steady | Behaviour::Slow | Behaviour::Stubborn)
    }

    fn service(&self, service: &Arc<Service>) -> Result<(), String> {
        let name = &service.spec.name;
        let sample = Task { spec: service.spec.task.clone(), ..Task::default() };
        let troubled = self.is_troubled(&sample);
        let update = service.update_status.as_ref();
        let stopped = update.is_some_and(|status| {
            let paused = matches!(status.state, UpdateState::Paused | UpdateState::RollbackPaused);
            let waits = status.message.contains("; waiting for task");
            waits || (paused && !status.message.is_empty())
        });
        if update.is_some_and(|status| {
            matches!(status.state, UpdateState::Updating | UpdateState::RollbackStarted)
                && !troubled
                && !status.message.contains("; waiting for task")
        }) {
            return Err(format!("the update of {name} does not end, and does not say why"));
        }
        let places = match &service.spec.mode {
            ServiceMode::Replicated(mode) => self.slots(service, mode.replicas.unwrap_or(1))?,
            ServiceMode::Global(_) => self.nodes(service)?,
            ServiceMode::ReplicatedJob(_) | ServiceMode::GlobalJob(_) => return self.job(service),
        };
        for (place, tasks) in places {
            let finding = self.place(service, &tasks, stopped, troubled);
            if let Finding::Missing(what) = finding {
                let place = place.node.map_or(place.slot.to_string(), |node| node.to_string());
                return Err(format!("{name}, slot {place}: {what}"));
            }
        }
        Ok(())
    }

    fn places(&self, service: &Service) -> BTreeMap<Place, Vec<Arc<Task>>> {
        let mut places: BTreeMap<Place, Vec<Arc<Task>>> = BTreeMap::new();
        let kept = |task: &&Arc<Task>| task.desired_state != TaskState::Remove;
        for task in self.state.tasks_of(service.id).filter(kept) {
            places.entry(Place::of(self.state, task)).or_default().push(task.clone());
        }
        places
            .values_mut()
            .for_each(|tasks| tasks.sort_by_key(|task| (task.turn, task.created_at, task.id)));
        places
    }

    fn slots(
        &self,
        service: &Service,
        replicas: u64,
    ) -> Result<BTreeMap<Place, Vec<Arc<Task>>>, String> {
        let places = self.places(service);
        match places.len() as u64 == replicas {
            true => Ok(places),
            false => Err(format!(
                "{} has {} slots, and {replicas} replicas are asked for",
                service.spec.name,
                places.len()
            )),
        }
    }

    /// The places of the nodes that a global service is for; nothing shall run on the others.
    fn nodes(&self, service: &Service) -> Result<BTreeMap<Place, Vec<Arc<Task>>>, String> {
        let constraints = constraint::parse_all(service.spec.task.constraints());
        let constraints = constraints.unwrap_or_default();
        let fits = |node: &Node| constraints.iter().all(|constraint| constraint.matches(node));
        let mut places = self.places(service);
        let mut of_node = BTreeMap::new();
        for node in self.state.nodes.iter() {
            let place = Place { service: service.id, slot: 0, node: Some(node.id) };
            let tasks = places.remove(&place).unwrap_or_default();
            let usable = node.status.state == NodeState::Ready
                && node.spec.availability != Availability::Drain;
            if !usable || !fits(node) {
                // A node that joined and was never heard of may still come: its tasks wait.
                let may_come = node.status.state == NodeState::Unknown;
                let runs = |task: &&Arc<Task>| {
                    let waits = may_come && task.status.state < TaskState::Assigned;
                    task.is_wanted() && !task.status.state.is_terminal() && !waits
                };
                if let Some(task) = tasks.iter().find(runs) {
                    return Err(format!("{} shall run on a node that it is not for", task.name()));
                }
            } else if node.spec.availability == Availability::Active {
                of_node.insert(place, tasks);
            }
        }
        Ok(of_node)
    }

    fn place(
        &self,
        service: &Service,
        tasks: &[Arc<Task>],
        stopped: bool,
        troubled: bool,
    ) -> Finding {
        let wanted: Vec<_> = tasks.iter().filter(|task| task.is_wanted()).collect();
        let running = wanted.iter().filter(|task| self.runs(task));
        let current = running.clone().any(|task| is_current(service, task));
        if current && wanted.len() == 1 {
            return Finding::Runs;
        }
        let says = |task: &&&Arc<Task>| {
            task.status.state < TaskState::Running && !task.status.err.is_empty()
        };
        let Some(newest) = tasks.last() else {
            return Finding::Missing("there is no task".to_owned());
        };
        let failed = service.update_status.as_ref().is_some_and(|status| {
            matches!(status.state, UpdateState::Paused | UpdateState::RollbackPaused)
                || !status.failed.is_empty()
        });
        // A failure that a roll-out tolerates is not counted.
        let failed = failed || is_current(service, newest);
        // A move that began just now, from one node to another.
        let moves = |task: &Task| {
            task.relieves.is_some() && self.world.now().since(task.created_at) < ON_ITS_WAY
        };
        let explained = wanted.iter().any(|task| self.is_troubled(task) || moves(task))
            || wanted.iter().find(says).is_some()
            || (wanted.is_empty() && is_given_up(newest))
            || (stopped && running.clone().next().is_some() && wanted.len() == 1)
            || (troubled && !wanted.is_empty())
            || (failed && running.clone().next().is_some() && is_given_up(newest));
        if explained {
            return Finding::Explained;
        }
        let all: Vec<String> = tasks
            .iter()
            .map(|task| {
                format!(
                    "{} {}/{} {}",
                    task.id, task.desired_state, task.status.state, task.status.err
                )
            })
            .collect();
        let what = match (wanted.len(), running.count()) {
            (_, 1) => "runs another specification or has too many tasks",
            (_, 0) => "does not run",
            _ => "has too many tasks",
        };
        Finding::Missing(format!("{what}, without a reason: {}", all.join("; ")))
    }

    fn runs(&self, task: &Task) -> bool {
        let host = task.node_id.and_then(|node| self.world.host_of(node));
        task.status.state == TaskState::Running
            && task.desired_state == TaskState::Running
            && host.is_some_and(|host| host.machine.runs(task.id))
    }

    /// A job: each part has completed, is at work, was given up, or says what it waits for.
    fn job(&self, service: &Service) -> Result<(), String> {
        let run = service.job_iteration();
        let places = match service.spec.mode.is_global() {
            true => self.nodes(service)?,
            false => self.places(service),
        };
        let places: Vec<Vec<Arc<Task>>> = places
            .into_values()
            .map(|tasks| tasks.into_iter().filter(|task| task.job_iteration == run).collect())
            .filter(|tasks: &Vec<Arc<Task>>| !tasks.is_empty())
            .collect();
        let done = |tasks: &&Vec<Arc<Task>>| {
            tasks.iter().any(|task| task.status.state == TaskState::Complete)
        };
        let open = |tasks: &&Vec<Arc<Task>>| tasks.iter().any(|task| task.is_wanted());
        for tasks in places.iter().filter(|tasks| !done(tasks)) {
            let task = tasks.iter().rfind(|task| task.is_wanted());
            let fine = match (task, tasks.last()) {
                (Some(task), _) => {
                    task.status.state == TaskState::Running
                        || !task.status.err.is_empty()
                        || self.is_troubled(task)
                }
                (None, Some(newest)) => is_given_up(newest),
                (None, None) => true,
            };
            if !fine {
                return Err(format!("job {}: {} does not run", service.spec.name, tasks[0].name()));
            }
        }
        if let ServiceMode::ReplicatedJob(job) = &service.spec.mode {
            let at_work = places.iter().filter(|tasks| !done(tasks)).filter(open).count() as u64;
            let all = places.len() as u64;
            if all < job.total_completions() && at_work < job.max_concurrent() {
                return Err(format!("job {} does not go on", service.spec.name));
            }
        }
        Ok(())
    }
}

/// Whether a task runs what its service asks for, wherever that was to be placed.
fn is_current(service: &Service, task: &Task) -> bool {
    let wanted = &service.spec.task;
    let mut spec = (*task.spec).clone();
    spec.placement.clone_from(&wanted.placement);
    spec == **wanted
}

/// Whether the policy of a task asks for no other after it: neither when it ends on its own, nor
/// when it has to leave its node.
fn is_given_up(task: &Task) -> bool {
    let policy = task.spec.restart_policy.clone().unwrap_or_default();
    let attempts = policy.max_attempts.unwrap_or(0);
    match policy.condition.unwrap_or(RestartCondition::Any) {
        RestartCondition::None => true,
        RestartCondition::OnFailure if task.status.state == TaskState::Complete => true,
        _ => attempts > 0 && task.restarts.len() as u64 >= attempts,
    }
}
