//! Pure: what a hand-written scenario expects, compared with a world.

use swarm_core::executor::Found;
use swarm_core::model::{Service, Task, TaskState};
use swarm_core::store::Snapshot;

use super::script::Wanted;
use super::world::World;

impl World {
    /// Whether something is as a scenario wants it; what is there instead, if not.
    pub(super) fn expect(&self, wanted: &Wanted) -> Result<(), String> {
        let state = self.state();
        match wanted {
            Wanted::Running(service, count) => {
                let running = self.running(&state, service, |_| true);
                same("running tasks", service, running, *count)
            }
            Wanted::RunningImage(service, image, count) => {
                let of = |task: &Task| image_of(task) == image;
                let running = self.running(&state, service, of);
                same(&format!("running tasks of {image}"), service, running, *count)?;
                let others = self.running(&state, service, |task| !of(task));
                same("running tasks of other images", service, others, 0)
            }
            Wanted::RunningOn(service, node, count) => {
                let id = self.hosts()[*node].id;
                let running = self.running(&state, service, |task| task.node_id == Some(id));
                same(&format!("running tasks on node {node}"), service, running, *count)
            }
            Wanted::Update(service, wanted) => {
                let status = named(&state, service)?.update_status.as_ref();
                let seen = status.map_or("none".to_owned(), |status| status.state.to_string());
                if seen == *wanted {
                    return Ok(());
                }
                let message = status.map_or("", |status| &status.message);
                Err(format!("the update of {service} is {seen} ({message}), not {wanted}"))
            }
            Wanted::Completed(service, count) => {
                let service = named(&state, service)?;
                let iteration = service.job_status.as_ref().map(|job| job.job_iteration);
                let completed = state.tasks_of(service.id).filter(|task| {
                    task.status.state == TaskState::Complete && task.job_iteration == iteration
                });
                same("completed tasks", &service.spec.name, completed.count() as u64, *count)
            }
            Wanted::Waiting(service, text) => {
                let service = named(&state, service)?;
                let mut waiting = state
                    .tasks_of(service.id)
                    .filter(|task| task.is_wanted() && task.status.state < TaskState::Assigned);
                let said: Vec<&str> =
                    waiting.by_ref().map(|task| task.status.err.as_str()).collect();
                match said.iter().any(|said| said.contains(text)) {
                    true => Ok(()),
                    false => Err(format!("waiting tasks of {} say {said:?}", service.spec.name)),
                }
            }
            Wanted::Gone(service) => {
                let left = state.services.iter().find(|left| left.spec.name == *service);
                let tasks =
                    state.tasks.iter().filter(|task| task.annotations.name == *service).count();
                match (left, tasks) {
                    (None, 0) => Ok(()),
                    (left, tasks) => Err(format!(
                        "{service} is {}, with {tasks} tasks",
                        if left.is_some() { "still there" } else { "gone" }
                    )),
                }
            }
        }
    }

    /// The tasks of a service that run: in the store, and as containers.
    fn running(&self, state: &Snapshot, service: &str, of: impl Fn(&Task) -> bool) -> u64 {
        let tasks = state.tasks.iter().filter(|task| {
            let container = |host: &super::host::Host| {
                let container = host.machine.containers.get(&task.id);
                container.is_some_and(|container| container.state == Found::Running)
            };
            task.annotations.name == service
                && task.status.state == TaskState::Running
                && task.desired_state <= TaskState::Complete
                && of(task)
                && task.node_id.and_then(|node| self.host_of(node)).is_some_and(container)
        });
        tasks.count() as u64
    }
}

fn image_of(task: &Task) -> &str {
    task.spec.container.as_ref().map_or("", |container| &container.image)
}

fn named<'a>(state: &'a Snapshot, name: &str) -> Result<&'a Service, String> {
    let service = state.services.named(name);
    service.map(|service| &**service).ok_or_else(|| format!("there is no service {name}"))
}

fn same(what: &str, service: &str, seen: u64, wanted: u64) -> Result<(), String> {
    match seen == wanted {
        true => Ok(()),
        false => Err(format!("{service} has {seen} {what}, not {wanted}")),
    }
}
