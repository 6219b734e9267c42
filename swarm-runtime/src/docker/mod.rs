//! Runs tasks as containers of a Docker Engine, over its HTTP API.
//!
//! One engine may serve several nodes, and people: whatever this executor makes carries
//! [`OWNER_LABEL`] with its cluster's and node's ids, and it lists, stops and removes nothing else.
//! Nothing is remembered between calls: the engine is the only record of what runs, so that a
//! restarted agent carries on where the old one stopped.
//!
//! | file | what it does |
//! |---|---|
//! | `create` | a task's specification as the engine's create request |
//! | `ports` | published ports, and what became of them |
//! | `image` | pulls, with the client's credentials |
//! | `secrets` | secrets and configs as files in memory |
//! | `security` | privileges as security options |
//! | `start` | start, health, end |
//! | `logs` | output, line by line |
//! | `inventory` | finds containers by task, tells how they ended, removes them |
//! | `describe` | what the node is and has |
//! | `engine` | requests that pass through, and what errors mean |

mod create;
mod describe;
mod engine;
mod image;
mod inventory;
mod logs;
mod ports;
mod secrets;
mod security;
mod start;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error;
use swarm_core::executor::{
    Assignment, ExecError, Executor, Exit, LogOptions, LogStream, Observed, Sandbox, Started,
};
use swarm_core::model::{ClusterId, Labels, NodeDescription, NodeId, TaskId};

pub use engine::RawResponse;
use secrets::Files;

/// The label that says whose a container is: `CLUSTER.NODE`.
pub const OWNER_LABEL: &str = "swarm.owner";
/// The label with a container's task, under the name that Docker Swarm gives it.
pub const TASK_LABEL: &str = "com.docker.swarm.task.id";

/// Which engine to use, and as whom.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    /// Where the engine listens: `unix:///var/run/docker.sock` or `tcp://HOST:PORT`. An engine on
    /// another machine cannot be given secrets, configs or bind mounts: they are local files.
    pub host: String,
    /// The cluster that the node belongs to.
    pub cluster: ClusterId,
    /// The node whose tasks run here.
    pub node: NodeId,
    /// A directory for what this executor keeps; the engine must see the same path.
    pub state_dir: PathBuf,
    /// The address that published ports are bound to. Absent: host ports on every address of the
    /// machine, and ingress ports reachable from this machine alone.
    pub advertise: Option<IpAddr>,
    /// The node's host name; absent takes the engine's.
    pub hostname: Option<String>,
    /// Labels for `engine.labels.*` constraints, beside those that the engine has.
    pub labels: Labels,
    /// Whether an image that is present is used without asking its registry for a newer one
    /// (Docker: `DOCKER_SERVICE_PREFER_OFFLINE_IMAGE`).
    pub prefer_offline_image: bool,
}

impl DockerConfig {
    /// The engine at `host` for one node, with everything else at its default.
    #[must_use]
    pub fn new(
        host: impl Into<String>,
        cluster: ClusterId,
        node: NodeId,
        state_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            host: host.into(),
            cluster,
            node,
            state_dir: state_dir.into(),
            advertise: None,
            hostname: None,
            labels: Labels::new(),
            prefer_offline_image: false,
        }
    }

    /// The value of [`OWNER_LABEL`].
    fn owner(&self) -> String {
        format!("{}.{}", self.cluster, self.node)
    }
}

/// Runs tasks as containers of a Docker Engine (20.10 or later).
#[derive(Clone, Debug)]
pub struct DockerExecutor {
    config: DockerConfig,
    docker: Docker,
    files: Files,
}

impl DockerExecutor {
    /// Connects to an engine and agrees on a version of the API with it.
    ///
    /// # Errors
    /// `Rejected` for a host that is not understood, `Temporary` when no engine answers there.
    pub async fn connect(config: DockerConfig) -> Result<Self, ExecError> {
        let host = &config.host;
        let absent =
            |error| ExecError::temporary(format!("no Docker Engine answers at {host}: {error}"));
        let docker = Docker::connect_with_host(host).map_err(|error| match error {
            Error::SocketNotFoundError(_) => absent(error),
            _ => ExecError::rejected(format!(
                "{host} is not the address of an engine (unix:///… or tcp://…): {error}"
            )),
        })?;
        let docker = docker.negotiate_version().await.map_err(absent)?;
        let files = Files::new(&config.state_dir, &config.owner());
        Ok(Self { config, docker, files })
    }
}

#[async_trait]
impl Executor for DockerExecutor {
    async fn describe(&self) -> Result<NodeDescription, ExecError> {
        self.description().await
    }

    async fn inventory(&self) -> Result<Vec<Observed>, ExecError> {
        self.observe_all().await
    }

    async fn prepare(&self, assignment: &Assignment) -> Result<Sandbox, ExecError> {
        let task = &assignment.task;
        let files = self.files.write(task.id, &assignment.secrets, &assignment.configs)?;
        if let Some(id) = self.find(task.id).await? {
            return Ok(Sandbox { id, netns: None });
        }
        let request = create::request(&self.config, assignment, &files)?;
        let image = request.image.as_deref().unwrap_or_default();
        self.pull(image, task.registry_auth.as_ref()).await?;
        let id = self.create(task, request).await?;
        Ok(Sandbox { id, netns: None })
    }

    async fn start(&self, task: TaskId) -> Result<Started, ExecError> {
        self.start_healthy(task).await
    }

    async fn wait(&self, task: TaskId) -> Result<Exit, ExecError> {
        self.wait_exit(task).await
    }

    async fn stop(&self, task: TaskId, grace: Duration) -> Result<(), ExecError> {
        match self.find(task).await? {
            Some(id) => self.stop_container(&id, grace).await,
            None => Ok(()),
        }
    }

    async fn remove(&self, task: TaskId) -> Result<(), ExecError> {
        self.remove_container(task).await?;
        self.files.remove(task)
    }

    async fn close(&self) -> Result<(), ExecError> {
        self.files.close()
    }

    async fn logs(&self, task: TaskId, options: LogOptions) -> Result<LogStream, ExecError> {
        self.log_stream(task, options).await
    }
}
