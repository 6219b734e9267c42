//! The runtimes that come with the library: Docker, processes, whichever is there, and memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use swarm_core::executor::{ExecError, Executor as _};
use swarm_core::model::{ClusterId, ContainerSpec, NodeDescription, NodeId};
use swarm_core::network::NetError;
use swarm_net::{Bridge, BridgeConfig, HostNetwork, MemoryNetwork};
use swarm_runtime::docker::{DockerConfig, DockerExecutor};
use swarm_runtime::memory::{Behaviour, Script};
use swarm_runtime::{MemoryExecutor, ProcessExecutor, process};
use tokio::sync::OnceCell;
use tracing::info;

use super::runtime::{Engine, Place, Runtime};

/// Containers of a Docker Engine, connected by bridges of that engine.
#[derive(Clone, Debug)]
pub struct DockerRuntime {
    host: String,
}

impl DockerRuntime {
    /// The engine at `host`: `unix:///var/run/docker.sock` or `tcp://HOST:PORT`.
    pub fn new(host: impl Into<String>) -> Self {
        Self { host: host.into() }
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn name(&self) -> &'static str {
        "docker"
    }

    async fn describe(&self) -> Result<NodeDescription, ExecError> {
        let nowhere = std::env::temp_dir();
        let config = DockerConfig::new(&self.host, ClusterId::NIL, NodeId::NIL, nowhere);
        DockerExecutor::connect(config).await?.describe().await
    }

    async fn open(&self, place: &Place) -> Result<Engine, ExecError> {
        let mut config = DockerConfig::new(&self.host, place.cluster, place.node, &place.state_dir);
        config.advertise = Some(place.advertise);
        let executor = Arc::new(DockerExecutor::connect(config).await?);
        let config = BridgeConfig {
            host: self.host.clone(),
            cluster: place.cluster,
            listen: place.advertise,
        };
        let unreachable = |error: NetError| ExecError::temporary(error.to_string());
        let network = Bridge::connect(config).await.map_err(unreachable)?;
        Ok(Engine { executor, network: Some(Arc::new(network)) })
    }
}

/// Plain processes in the host's network: no root and no daemon.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessRuntime;

#[async_trait]
impl Runtime for ProcessRuntime {
    fn name(&self) -> &'static str {
        "processes"
    }

    async fn describe(&self) -> Result<NodeDescription, ExecError> {
        process::describe(NodeId::NIL)
    }

    async fn open(&self, place: &Place) -> Result<Engine, ExecError> {
        let mut config = process::Config::new(place.node, &place.state_dir);
        config.addr = place.advertise;
        let dir = config.dir.display().to_string();
        let executor = ProcessExecutor::open(config)
            .await
            .map_err(|error| ExecError::rejected(format!("{dir} cannot be used: {error}")))?;
        let executor = Arc::new(executor);
        Ok(Engine { executor, network: Some(Arc::new(HostNetwork::new(place.advertise))) })
    }
}

/// Docker if its engine answers, else processes. Asked once: a node does not change its mind.
pub struct AutoRuntime {
    docker: DockerRuntime,
    chosen: OnceCell<Arc<dyn Runtime>>,
}

impl AutoRuntime {
    /// With the engine to look for.
    pub fn new(docker_host: impl Into<String>) -> Self {
        Self { docker: DockerRuntime::new(docker_host), chosen: OnceCell::new() }
    }

    async fn chosen(&self) -> &Arc<dyn Runtime> {
        let choose = || async {
            let runtime: Arc<dyn Runtime> = match self.docker.describe().await {
                Ok(_) => Arc::new(self.docker.clone()),
                Err(error) => {
                    info!(%error, "no Docker Engine answers: tasks run as processes");
                    Arc::new(ProcessRuntime)
                }
            };
            runtime
        };
        self.chosen.get_or_init(choose).await
    }
}

#[async_trait]
impl Runtime for AutoRuntime {
    fn name(&self) -> &'static str {
        self.chosen.get().map_or("auto", |runtime| runtime.name())
    }

    async fn describe(&self) -> Result<NodeDescription, ExecError> {
        self.chosen().await.describe().await
    }

    async fn open(&self, place: &Place) -> Result<Engine, ExecError> {
        self.chosen().await.open(place).await
    }
}

/// Tasks that do nothing but what a script says, in networks that are tables: whole swarms in one
/// process, for tests. A node that restarts with the same runtime finds its tasks again.
pub struct MemoryRuntime {
    script: Arc<Script>,
    executors: Mutex<BTreeMap<NodeId, MemoryExecutor>>,
}

impl MemoryRuntime {
    /// With a script: what a task does, by its specification.
    pub fn new(script: impl Fn(&ContainerSpec) -> Behaviour + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), executors: Mutex::default() }
    }

    /// The executor of a node.
    pub fn executor(&self, node: NodeId) -> MemoryExecutor {
        let script = self.script.clone();
        let mut executors = self.executors.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || MemoryExecutor::new(node, move |spec| script(spec));
        executors.entry(node).or_insert_with(new).clone()
    }
}

#[async_trait]
impl Runtime for MemoryRuntime {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn describe(&self) -> Result<NodeDescription, ExecError> {
        self.executor(NodeId::NIL).describe().await
    }

    async fn open(&self, place: &Place) -> Result<Engine, ExecError> {
        let network = Arc::new(MemoryNetwork::new());
        Ok(Engine { executor: Arc::new(self.executor(place.node)), network: Some(network) })
    }
}
