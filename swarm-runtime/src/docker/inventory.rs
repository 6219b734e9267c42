//! Finds this node's containers by their labels, tells how they ended, and removes them.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerState, ContainerStateStatusEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use swarm_core::executor::{ExecError, ExecErrorKind, Exit, Found, Observed};
use swarm_core::model::{Task, TaskId};

use super::engine::{classify, status};
use super::{DockerExecutor, OWNER_LABEL, TASK_LABEL};

/// Failures in a row that make a container unhealthy where its health check does not say.
const DEFAULT_RETRIES: i64 = 3;

impl DockerExecutor {
    /// This node's containers: their ids and tasks, all of them or one task's.
    async fn list(&self, task: Option<TaskId>) -> Result<Vec<(String, TaskId)>, ExecError> {
        let mut labels = vec![format!("{OWNER_LABEL}={}", self.config.owner())];
        labels.extend(task.map(|task| format!("{TASK_LABEL}={task}")));
        let filters = HashMap::from([("label".to_owned(), labels)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = self
            .docker
            .list_containers(Some(options))
            .await
            .map_err(|error| classify(ExecErrorKind::Temporary, "listing containers", error))?;
        Ok(listed
            .into_iter()
            .filter_map(|container| {
                let task = container.labels?.get(TASK_LABEL)?.parse().ok()?;
                Some((container.id?, task))
            })
            .collect())
    }

    /// The container of a task, if there is one.
    pub(super) async fn find(&self, task: TaskId) -> Result<Option<String>, ExecError> {
        Ok(self.list(Some(task)).await?.into_iter().next().map(|(id, _)| id))
    }

    /// The same for a task that must have one.
    pub(super) async fn container_of(&self, task: TaskId) -> Result<String, ExecError> {
        self.find(task).await?.ok_or_else(|| {
            ExecError::failed(format!(
                "task {task} has no container here: it was never prepared, \
                                       or its container was removed behind the agent's back"
            ))
        })
    }

    /// What the engine says of a container.
    pub(super) async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, ExecError> {
        self.docker
            .inspect_container(id, None)
            .await
            .map_err(|error| classify(ExecErrorKind::Failed, "inspecting a container", error))
    }

    /// Everything of this node's that the engine holds.
    pub(super) async fn observe_all(&self) -> Result<Vec<Observed>, ExecError> {
        let observe = |(id, task): (String, TaskId)| async move {
            match self.inspect(&id).await {
                Ok(container) => Ok(found(&container).map(|found| Observed { task, found })),
                // Removed since it was listed.
                Err(error) if error.kind == ExecErrorKind::Failed => Ok(None),
                Err(error) => Err(error),
            }
        };
        stream::iter(self.list(None).await?)
            .map(observe)
            .buffered(8)
            .try_filter_map(|observed| async move { Ok(observed) })
            .try_collect()
            .await
    }

    /// Makes a task's container. One that an interrupted call made is taken over.
    pub(super) async fn create(
        &self,
        task: &Task,
        request: ContainerCreateBody,
    ) -> Result<String, ExecError> {
        let options = CreateContainerOptionsBuilder::new().name(&task.name()).build();
        // The engine goes on making a container whose client went away, and keeps its name
        // before it lists it.
        for attempt in 0..20u64 {
            match self.docker.create_container(Some(options.clone()), request.clone()).await {
                Ok(created) => return Ok(created.id),
                Err(error) if status(&error) == Some(409) => {
                    if let Some(id) = self.find(task.id).await? {
                        return Ok(id);
                    }
                    tracing::debug!(task = %task.id, %error, "waiting for a container's name");
                    tokio::time::sleep(std::time::Duration::from_millis(10 << attempt.min(6)))
                        .await;
                }
                Err(error) => {
                    return Err(classify(ExecErrorKind::Rejected, "creating a container", error));
                }
            }
        }
        let name = task.name();
        Err(ExecError::rejected(format!("the container name {name} is taken by someone else")))
    }

    /// Removes a task's container with its anonymous volumes, running or not.
    pub(super) async fn remove_container(&self, task: TaskId) -> Result<(), ExecError> {
        let Some(id) = self.find(task).await? else { return Ok(()) };
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.docker.remove_container(&id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            // Somebody, perhaps an interrupted call of ours, is removing it.
            Err(error) if status(&error) == Some(409) => {
                let removed = WaitContainerOptionsBuilder::new().condition("removed").build();
                self.docker.wait_container(&id, Some(removed)).next().await;
                match self.find(task).await? {
                    None => Ok(()),
                    Some(_) => Err(classify(ExecErrorKind::Temporary, "removing", error)),
                }
            }
            Err(error) => Err(classify(ExecErrorKind::Temporary, "removing a container", error)),
        }
    }
}

/// What is left of a task; nothing when its container is about to vanish.
fn found(container: &ContainerInspectResponse) -> Option<Found> {
    use ContainerStateStatusEnum as Status;
    let status = container.state.as_ref()?.status?;
    match (exit(container), status) {
        (Some(exit), _) => Some(Found::Exited(exit)),
        (None, Status::REMOVING | Status::DEAD) => None,
        (None, Status::CREATED) => Some(Found::Prepared),
        (None, _) => Some(Found::Running),
    }
}

/// How a container ended, if it did. One that could not be started ended too: the engine leaves
/// it `created` with an exit code.
pub(super) fn exit(container: &ContainerInspectResponse) -> Option<Exit> {
    use ContainerStateStatusEnum as Status;
    let state = container.state.as_ref()?;
    let code = state.exit_code.unwrap_or(0);
    match state.status? {
        Status::EXITED | Status::DEAD => {}
        Status::CREATED if code != 0 => {}
        _ => return None,
    }
    let engine = state.error.clone().filter(|error| !error.is_empty());
    let error = if is_unhealthy(container) {
        Some("unhealthy container".to_owned())
    } else if state.oom_killed == Some(true) && code != 0 {
        Some("out of memory: the container used more than its limit and was killed".to_owned())
    } else {
        engine
    };
    Some(Exit { code, error })
}

/// Whether the health check failed as often in a row as it may. The engine's word for the health
/// will not do: it calls every stopped container unhealthy.
pub(super) fn is_unhealthy(container: &ContainerInspectResponse) -> bool {
    let check = container.config.as_ref().and_then(|config| config.healthcheck.as_ref());
    let retries = check.and_then(|check| check.retries).filter(|retries| *retries > 0);
    let health = container.state.as_ref().and_then(|state: &ContainerState| state.health.as_ref());
    let streak = health.and_then(|health| health.failing_streak).unwrap_or(0);
    streak >= retries.unwrap_or(DEFAULT_RETRIES)
}
