//! Starts containers, watches their health, and waits for their end.

use std::pin::Pin;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, HealthStatusEnum};
use bollard::query_parameters::{EventsOptionsBuilder, StopContainerOptionsBuilder};
use futures_util::{Stream, StreamExt as _, stream};
use swarm_core::executor::{ExecError, ExecErrorKind, Exit, Started};
use swarm_core::model::{ContainerStatus, TaskId, defaults};

use super::create::PORTS_LABEL;
use super::engine::{classify, status};
use super::inventory::{exit, is_unhealthy};
use super::{DockerExecutor, ports};

/// What the engine needs on top of the grace to kill and to answer.
const KILL_MARGIN: Duration = Duration::from_secs(60);

/// How much later than of a container's end the engine may hear that its memory was the reason: the two
/// come to it on different ways.
const MEMORY_NEWS: Duration = Duration::from_millis(500);

impl DockerExecutor {
    /// Starts a container, unless it runs or has run, and returns once it is healthy.
    pub(super) async fn start_healthy(&self, task: TaskId) -> Result<Started, ExecError> {
        let id = self.container_of(task).await?;
        let before = self.inspect(&id).await?;
        if !is_running(&before) && exit(&before).is_none() {
            self.docker.start_container(&id, None).await.map_err(|error| {
                let error = classify(ExecErrorKind::Failed, "starting a container", error);
                let message = format!("starting container failed: {}", error.message);
                ExecError { message, ..error }
            })?;
        }
        let mut changes = self.changes(&id, true);
        loop {
            let container = self.inspect(&id).await?;
            let health = health(&container);
            if is_unhealthy(&container) && health.is_some() {
                self.stop_container(&id, grace(&container)).await?;
                return Err(ExecError::failed("unhealthy container"));
            }
            match (health, exit(&container)) {
                // What has no health check has started, even if it has ended since.
                (None, _) | (Some(HealthStatusEnum::HEALTHY), None) => {
                    return Ok(self.started(id, &container));
                }
                (Some(_), Some(exit)) => return Err(ended_early(exit)),
                (Some(_), None) => changed(&mut changes).await?,
            }
        }
    }

    /// Waits for the end of a container that was started. One that turns unhealthy is stopped.
    pub(super) async fn wait_exit(&self, task: TaskId) -> Result<Exit, ExecError> {
        let id = self.container_of(task).await?;
        let mut container = self.inspect(&id).await?;
        if !is_running(&container) && exit(&container).is_none() {
            return Err(ExecError::failed(format!("task {task} was not started")));
        }
        let mut changes = self.changes(&id, health(&container).is_some());
        loop {
            container = self.inspect(&id).await?;
            if let Some(found) = exit(&container) {
                if !is_killed_at_its_limit(&container, &found) {
                    return Ok(found);
                }
                tokio::time::sleep(MEMORY_NEWS).await;
                return Ok(exit(&self.inspect(&id).await?).unwrap_or(found));
            }
            if is_unhealthy(&container) {
                self.stop_container(&id, grace(&container)).await?;
            } else {
                changed(&mut changes).await?;
            }
        }
    }

    /// Sends the stop signal, waits `grace` (rounded up to a second), kills.
    pub(super) async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), ExecError> {
        let secs = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(secs).build();
        let docker = self.docker.clone().with_timeout(grace.saturating_add(KILL_MARGIN));
        match docker.stop_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) => Err(classify(ExecErrorKind::Temporary, "stopping a container", error)),
        }
    }

    /// An item whenever a container may have ended or changed its health. The first ones may be
    /// old news: inspect after each.
    fn changes(&self, id: &str, health: bool) -> Changes {
        let ended = self.docker.wait_container(id, None).map(|end| match end {
            // A code other than 0 is an end like any other.
            Ok(_) | Err(Error::DockerContainerWaitError { .. }) => Ok(()),
            Err(error) => Err(error),
        });
        if !health {
            return Box::pin(ended);
        }
        let filters = [("container", id), ("event", "health_status")]
            .map(|(key, value)| (key.to_owned(), vec![value.to_owned()]));
        // From the beginning of what the engine remembers: nothing falls between two calls.
        let options = EventsOptionsBuilder::new().since("1").filters(&filters.into()).build();
        let events = self.docker.events(Some(options)).map(|event| event.map(|_| ()));
        Box::pin(stream::select(ended, events))
    }

    fn started(&self, id: String, container: &ContainerInspectResponse) -> Started {
        let label = container.config.as_ref().and_then(|config| config.labels.as_ref());
        let wanted = ports::from_label(label.and_then(|labels| labels.get(PORTS_LABEL)));
        let mode = container.host_config.as_ref().and_then(|host| host.network_mode.as_deref());
        let actual = container.network_settings.as_ref().and_then(|net| net.ports.as_ref());
        let (ports, endpoints) = match (mode, actual) {
            (Some("host"), _) => ports::in_host_network(&wanted, self.config.advertise),
            (_, Some(actual)) => ports::published(&wanted, actual),
            (_, None) => Default::default(),
        };
        let state = container.state.as_ref();
        let container = ContainerStatus {
            container_id: id,
            pid: state.and_then(|state| state.pid).unwrap_or(0),
            ..Default::default()
        };
        Started { container, ports, endpoints }
    }
}

type Changes = Pin<Box<dyn Stream<Item = Result<(), Error>> + Send>>;

async fn changed(changes: &mut Changes) -> Result<(), ExecError> {
    match changes.next().await {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(classify(ExecErrorKind::Temporary, "watching a container", error)),
        None => Err(ExecError::temporary("the engine ended its reports about a container")),
    }
}

fn is_running(container: &ContainerInspectResponse) -> bool {
    container.state.as_ref().and_then(|state| state.running).unwrap_or(false)
}

/// Whether a container with a limit was killed, and nobody has said why yet.
fn is_killed_at_its_limit(container: &ContainerInspectResponse, exit: &Exit) -> bool {
    let limit = container.host_config.as_ref().and_then(|host| host.memory).unwrap_or(0);
    exit.code == 137 && exit.error.is_none() && limit > 0
}

/// The container's health, if it has a health check.
fn health(container: &ContainerInspectResponse) -> Option<HealthStatusEnum> {
    let status = container.state.as_ref()?.health.as_ref()?.status?;
    (!matches!(status, HealthStatusEnum::NONE | HealthStatusEnum::EMPTY)).then_some(status)
}

fn grace(container: &ContainerInspectResponse) -> Duration {
    let secs = container.config.as_ref().and_then(|config| config.stop_timeout);
    let secs = secs.and_then(|secs| u64::try_from(secs).ok());
    secs.map_or(defaults::STOP_GRACE_PERIOD, Duration::from_secs)
}

/// A container with a health check that ended before the check succeeded.
fn ended_early(exit: Exit) -> ExecError {
    let Exit { code, error } = exit;
    let reason = error.map(|error| format!(": {error}")).unwrap_or_default();
    let message = format!("task: non-zero exit ({code}){reason}");
    ExecError { exit_code: Some(code), ..ExecError::failed(message) }
}
