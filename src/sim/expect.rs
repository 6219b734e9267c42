//! Pure: what a hand-written scenario expects, compared with a world.

use std::collections::BTreeMap;

use swarm_core::executor::Found;
use swarm_core::model::{NodeId, Service, Task, TaskState};
use swarm_core::store::Snapshot;

use super::host::Host;
use super::script::{Count, Wanted};
use super::world::World;

impl World {
    /// Whether something is as a scenario wants it; what is there instead, if not.
    pub(super) fn expect(&self, wanted: &Wanted) -> Result<(), String> {
        let state = self.state();
        let running = |service: &str| self.running(&state, service);
        match wanted {
            Wanted::Running(service, count) => {
                same("running tasks", service, running(service).len(), *count)
            }
            Wanted::RunningImage(service, image, count) => {
                let (these, others): (Vec<&Task>, _) =
                    running(service).into_iter().partition(|task| image_of(task) == image);
                same(&format!("running tasks of {image}"), service, these.len(), *count)?;
                same("running tasks of other images", service, others.len(), 0.into())
            }
            Wanted::RunningOn(service, node, count) => {
                let host = &self.hosts()[*node];
                let there = running(service).into_iter().filter(|t| t.node_id == Some(host.id));
                same(&format!("running tasks on {}", host.name), service, there.count(), *count)
            }
            Wanted::Alive(service, count) => {
                let alive = |task: &&Task| task.is_wanted() && !task.status.state.is_terminal();
                let alive = tasks_of(&state, service).filter(alive);
                same("tasks that run or shall run", service, alive.count(), *count)
            }
            Wanted::Containers(service, count) => {
                let there = self.hosts().iter().flat_map(|host| host.machine.containers.values());
                let run = there.filter(|container| {
                    container.state == Found::Running && container.task.annotations.name == *service
                });
                same("running containers", service, run.count(), *count)
            }
            Wanted::Spread(service, counts) => spread(service, &running(service), counts),
            Wanted::Tasks(service, count, wanted, text) => {
                let all = tasks_of(&state, service);
                let these = all.filter(|t| t.status.state == *wanted && says(t, text));
                same(&format!("tasks {wanted} {text:?}"), service, these.count(), *count)
            }
            Wanted::Completed(service, count) => {
                let service = named(&state, service)?;
                let run = service.job_iteration();
                let completed = state.tasks_of(service.id).filter(|task| {
                    task.status.state == TaskState::Complete && task.job_iteration == run
                });
                same("completed tasks", &service.spec.name, completed.count(), *count)
            }
            Wanted::Update(service, wanted, text) => update(named(&state, service)?, wanted, text),
            Wanted::Waiting(service, text) => waiting(&state, service, text),
            Wanted::Stalled(service, text) => stalled(named(&state, service)?, text),
            Wanted::Port(service, port) => {
                let endpoint = named(&state, service)?.endpoint.as_ref();
                let ports = endpoint.into_iter().flat_map(|endpoint| &endpoint.ports);
                let ports: Vec<u16> = ports.map(|port| port.published_port).collect();
                let has = ports.contains(port);
                has.then_some(()).ok_or_else(|| format!("{service} is published on {ports:?}"))
            }
            Wanted::Gone(service) => self.is_gone(&state, service),
            Wanted::Node(node, wanted) => {
                let host = &self.hosts()[*node];
                let node = state.nodes.get(host.id);
                let seen = node.map_or("removed", |node| node.status.state.as_str());
                let is = seen == wanted;
                is.then_some(()).ok_or_else(|| format!("{} is {seen}, not {wanted}", host.name))
            }
        }
    }

    /// The tasks of a service that run: in the store, and as containers.
    fn running<'a>(&self, state: &'a Snapshot, service: &str) -> Vec<&'a Task> {
        let runs = |task: &&Task| {
            let container = |host: &Host| {
                let container = host.machine.containers.get(&task.id);
                container.is_some_and(|container| container.state == Found::Running)
            };
            task.status.state == TaskState::Running
                && task.is_wanted()
                && task.node_id.and_then(|node| self.host_of(node)).is_some_and(container)
        };
        tasks_of(state, service).filter(runs).collect()
    }

    fn is_gone(&self, state: &Snapshot, service: &str) -> Result<(), String> {
        let there = state.services.named(service).is_some();
        let tasks = tasks_of(state, service).count();
        match (there, tasks) {
            (true, _) => Err(format!("{service} is still there, with {tasks} tasks")),
            (false, 0) => self.expect(&Wanted::Containers(service.to_owned(), 0.into())),
            (false, tasks) => Err(format!("{service} is gone and has {tasks} tasks")),
        }
    }
}

fn tasks_of<'a>(state: &'a Snapshot, service: &str) -> impl Iterator<Item = &'a Task> {
    let all = state.tasks.iter().map(|task| &**task);
    all.filter(move |task| task.annotations.name == service)
}

fn says(task: &Task, text: &str) -> bool {
    task.status.err.contains(text) || task.status.message.contains(text)
}

fn image_of(task: &Task) -> &str {
    task.spec.container.as_ref().map_or("", |container| &container.image)
}

fn named<'a>(state: &'a Snapshot, name: &str) -> Result<&'a Service, String> {
    let service = state.services.named(name);
    service.map(|service| &**service).ok_or_else(|| format!("there is no service {name}"))
}

fn update(service: &Service, wanted: &str, text: &str) -> Result<(), String> {
    let status = service.update_status.as_ref();
    let seen = status.map_or("none", |status| status.state.as_str());
    let message = status.map_or("", |status| &status.message);
    match seen == wanted && message.contains(text) {
        true => Ok(()),
        false => Err(format!(
            "the update of {} is {seen} ({message}), not {wanted} ({text})",
            service.spec.name
        )),
    }
}

fn waiting(state: &Snapshot, service: &str, text: &str) -> Result<(), String> {
    let waiting = tasks_of(state, service)
        .filter(|task| task.is_wanted() && task.status.state < TaskState::Assigned);
    let said: Vec<&str> = waiting.map(|task| task.status.err.as_str()).collect();
    let says = said.iter().any(|said| said.contains(text));
    says.then_some(()).ok_or_else(|| format!("waiting tasks of {service} say {said:?}"))
}

fn stalled(service: &Service, text: &str) -> Result<(), String> {
    let Service { stalled, spec, .. } = service;
    let says = !stalled.is_empty() && stalled.contains(text);
    says.then_some(()).ok_or_else(|| format!("{} is stalled: {stalled:?}", spec.name))
}

fn spread(service: &str, running: &[&Task], wanted: &[u64]) -> Result<(), String> {
    let mut nodes = BTreeMap::<NodeId, u64>::new();
    for node in running.iter().filter_map(|task| task.node_id) {
        *nodes.entry(node).or_default() += 1;
    }
    let mut seen: Vec<u64> = nodes.into_values().collect();
    seen.sort_unstable_by(|a, b| b.cmp(a));
    match seen == wanted {
        true => Ok(()),
        false => Err(format!("{service} is spread as {seen:?}, not {wanted:?}")),
    }
}

fn same(what: &str, service: &str, seen: usize, wanted: Count) -> Result<(), String> {
    let Count { least, most } = wanted;
    match (least..=most).contains(&(seen as u64)) {
        true => Ok(()),
        false if least == most => Err(format!("{service} has {seen} {what}, not {least}")),
        false => Err(format!("{service} has {seen} {what}, not {least} to {most}")),
    }
}
