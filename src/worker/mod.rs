//! The worker: an agent with its executor, in session with a manager.

use std::path::PathBuf;
use std::sync::Arc;

use swarm_core::executor::Executor;
use swarm_core::model::{GenericResource, Labels};
use swarm_core::network::NetworkDriver;
use swarm_core::time::SystemClock;
use swarm_runtime::agent::{Agent, AgentError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::identity::renew::Renewer;
use crate::identity::{Credentials, Identity, IdentityFiles};
use crate::rpc::{ManagerLink, Whereabouts};

/// The parts of a worker.
pub struct WorkerBuilder {
    credentials: Arc<Credentials>,
    at: Whereabouts,
    executor: Arc<dyn Executor>,
    network: Option<Arc<dyn NetworkDriver>>,
    state_dir: PathBuf,
    certificates: Option<IdentityFiles>,
    renew_when: Option<Arc<Notify>>,
    addr: String,
    hostname: Option<String>,
    labels: Labels,
    resources: Vec<GenericResource>,
}

/// A running worker.
pub struct Worker {
    agent: Arc<Agent>,
    cancel: CancellationToken,
    tasks: TaskTracker,
    link: Arc<ManagerLink>,
    renewed: tokio::sync::watch::Receiver<Identity>,
    ended: tokio::sync::watch::Receiver<Option<String>>,
}

impl Worker {
    /// A worker with an identity, the managers that it may ask, and what runs its tasks.
    pub fn builder(
        credentials: Arc<Credentials>,
        managers: Vec<String>,
        executor: Arc<dyn Executor>,
    ) -> WorkerBuilder {
        WorkerBuilder {
            credentials,
            at: Whereabouts { managers, recovery: 0 },
            executor,
            network: None,
            state_dir: PathBuf::from("swarm-worker"),
            certificates: None,
            renew_when: None,
            addr: String::new(),
            hostname: None,
            labels: Labels::new(),
            resources: Vec::new(),
        }
    }

    /// Stops the agent; its tasks keep running and are taken up again by the next one.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Leaves the swarm: stops the agent and removes every task and network of this node.
    pub async fn leave(self) {
        let agent = self.agent.clone();
        agent.leave();
        self.stop().await;
        if let Err(error) = agent.purge().await {
            warn!(%error, "something of this node's tasks is left");
        }
    }

    /// Who this node is by its certificate, whenever that was renewed: its role may be another one.
    pub fn renewed(&self) -> tokio::sync::watch::Receiver<Identity> {
        self.renewed.clone()
    }

    /// Where the cluster is, as its managers say.
    #[must_use]
    pub fn whereabouts(&self) -> tokio::sync::watch::Receiver<Whereabouts> {
        self.link.whereabouts()
    }

    /// Has the agent look for its cluster at these addresses first: see [`ManagerLink::ask_first`].
    pub fn ask_first(&self, managers: Vec<String>) {
        self.link.ask_first(managers);
    }

    /// Why the agent ended by itself, once it has: the manager refused the node.
    pub fn ended(&self) -> tokio::sync::watch::Receiver<Option<String>> {
        self.ended.clone()
    }
}

impl WorkerBuilder {
    /// How often the cluster was begun anew, when it was last heard: managers that say less are not
    /// followed. Never, by default.
    #[must_use]
    pub fn recovery(mut self, recovery: u64) -> Self {
        self.at.recovery = recovery;
        self
    }

    /// What connects its tasks; nothing by default.
    #[must_use]
    pub fn network(mut self, network: Arc<dyn NetworkDriver>) -> Self {
        self.network = Some(network);
        self
    }

    /// Where the agent keeps its journal; `swarm-worker` in the working directory by default.
    #[must_use]
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.state_dir = dir.into();
        self
    }

    /// The address that the node advertises; by default the one that the manager sees.
    #[must_use]
    pub fn addr(mut self, addr: impl Into<String>) -> Self {
        self.addr = addr.into();
        self
    }

    /// Where the node's identity is kept; with it, the certificate is renewed in time.
    #[must_use]
    pub fn certificates(mut self, files: IdentityFiles) -> Self {
        self.certificates = Some(files);
        self
    }

    /// Has the certificate renewed at once whenever it is notified.
    #[must_use]
    pub fn renew_when(mut self, notified: Arc<Notify>) -> Self {
        self.renew_when = Some(notified);
        self
    }

    /// The host name to describe the node by; the machine's by default.
    #[must_use]
    pub fn hostname(mut self, hostname: Option<String>) -> Self {
        self.hostname = hostname;
        self
    }

    /// Labels for `engine.labels.*` constraints, beside the engine's own.
    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// Generic resources that services can reserve, beside the engine's own; see
    /// [`parse_generic_resources`](swarm_core::model::parse_generic_resources).
    #[must_use]
    pub fn resources(mut self, resources: Vec<GenericResource>) -> Self {
        self.resources = resources;
        self
    }

    /// Starts the agent. It works until [`Worker::stop`] or [`Worker::leave`].
    ///
    /// # Errors
    /// When the journal cannot be opened.
    pub fn start(self) -> Result<Worker, AgentError> {
        let identity = self.credentials.identity();
        let link = Arc::new(ManagerLink::to(self.credentials.clone(), self.at));
        let trusted = self.credentials.clone();
        let mut agent = Agent::builder(identity.node, self.executor, link.clone())
            .describe_with(move |description| {
                if let Some(hostname) = &self.hostname {
                    description.hostname.clone_from(hostname);
                }
                description.engine.labels.extend(self.labels.clone());
                description.resources.generic.extend(self.resources.clone());
                description.tls_info = trusted.node().tls_info().clone();
            })
            .addr(self.addr)
            .journal(self.state_dir);
        if let Some(network) = self.network {
            agent = agent.network(network);
        }
        let agent = Arc::new(agent.build()?);
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let renewed = tokio::sync::watch::Sender::new(identity);
        let told = renewed.subscribe();
        if let Some(files) = self.certificates {
            tasks.spawn(say_so(renewed.subscribe(), agent.clone()));
            let renewer = Renewer {
                credentials: self.credentials,
                files,
                trust: link.told(),
                renewal: link.clone(),
                clock: Arc::new(SystemClock),
                now: self.renew_when.unwrap_or_default(),
                role: link.role(),
                renewed,
            };
            tasks.spawn(renewer.run(cancel.clone()));
        }
        let (tell, ended) = tokio::sync::watch::channel(None);
        let (running, stop) = (agent.clone(), cancel.clone());
        tasks.spawn(async move {
            if let Err(error) = running.run(stop).await {
                warn!(%error, "the agent ended");
                tell.send_replace(Some(error.to_string()));
            }
        });
        Ok(Worker { agent, cancel, tasks, link, renewed: told, ended })
    }
}

/// Has the node described again whenever its certificate or its roots changed: whoever carries a
/// rotation through waits for that.
async fn say_so(mut renewed: tokio::sync::watch::Receiver<Identity>, agent: Arc<Agent>) {
    while renewed.changed().await.is_ok() {
        agent.describe_now();
    }
}
