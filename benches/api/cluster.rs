//! Nodes in this process, as an embedder makes them: a log on disk with `fdatasync`, mutual TLS
//! between the nodes, and the Docker API on a Unix socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm::core::model::{NodeState, TaskState};
use swarm::core::store::{Snapshot, Store};
use swarm::http::{InitRequest, JoinRequest, LocalNode as _};
use swarm::node::{Node, NodeConfig, Runtime};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, service};

/// After this long something is broken rather than slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// A manager, perhaps with workers.
pub(crate) struct Cluster {
    nodes: Vec<Arc<Node>>,
    store: Arc<dyn Store>,
    pub(crate) socket: PathBuf,
    api: CancellationToken,
}

impl Cluster {
    pub(crate) async fn start(dir: &Path, runtime: Arc<dyn Runtime>, workers: usize) -> Self {
        let manager = node(dir, "manager", &runtime).await;
        manager.init(InitRequest::default()).await.expect("a new swarm");
        let store = manager.control().expect("a manager").store.clone();
        let (socket, api) = (dir.join("docker.sock"), CancellationToken::new());
        let listen = format!("unix://{}", socket.display()).parse().expect("an address");
        let listeners = swarm::http::bind(&[listen], None, false).await.expect("a free socket");
        tokio::spawn(swarm::http::serve(listeners, manager.clone(), api.clone()));
        let cluster = store.snapshot().cluster().expect("a cluster object").clone();
        let request = JoinRequest {
            remote_addrs: vec![manager.status().remote_managers[0].addr.clone()],
            join_token: cluster.join_tokens.worker.clone(),
            ..JoinRequest::default()
        };
        let mut nodes = vec![manager];
        for number in 1..=workers {
            let worker = node(dir, &format!("worker{number}"), &runtime).await;
            worker.join(request.clone()).await.expect("it is admitted");
            nodes.push(worker);
        }
        let count = nodes.len();
        let cluster = Self { nodes, store, socket, api };
        let ready = |view: &Snapshot| {
            view.nodes.iter().filter(|node| node.status.state == NodeState::Ready).count() == count
        };
        cluster.until("every node is ready", ready).await;
        cluster
    }

    /// Creates a service of so many tasks: how long until all are assigned, and until all run.
    /// The service is gone again afterwards.
    pub(crate) async fn deploy(&self, replicas: usize) -> [Duration; 2] {
        let mut client = Client::connect(&self.socket).await.expect("the API listens");
        let spec = service("deployed", replicas);
        let reached = |view: &Snapshot, state: TaskState| {
            view.tasks.iter().filter(|task| task.status.state >= state).count() == replicas
        };
        let started = Instant::now();
        client.create(&spec).await;
        self.until("all are assigned", |view| reached(view, TaskState::Assigned)).await;
        let assigned = started.elapsed();
        self.until("all are running", |view| reached(view, TaskState::Running)).await;
        let running = started.elapsed();
        let failed = |view: &Snapshot| {
            view.tasks.iter().filter(|task| task.status.state > TaskState::Running).count()
        };
        assert_eq!(failed(&self.store.snapshot()), 0, "a task that failed is not running");
        let removed = client.ask("DELETE", "/v1.41/services/deployed", "").await;
        assert_eq!(removed.expect("an answer").status, 200);
        self.until("all are gone", |view| view.tasks.is_empty() && view.services.is_empty()).await;
        [assigned, running]
    }

    async fn until(&self, what: &str, done: impl Fn(&Snapshot) -> bool) {
        let waiting = async {
            let mut watch = self.store.watch(self.store.snapshot().version());
            while !done(&self.store.snapshot()) {
                if watch.next().await.is_err() {
                    watch = self.store.watch(self.store.snapshot().version());
                }
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "not within {PATIENCE:?}: {what}");
    }

    pub(crate) async fn stop(self) {
        self.api.cancel();
        for node in self.nodes.iter().rev() {
            node.stop().await;
        }
    }
}

async fn node(dir: &Path, name: &str, runtime: &Arc<dyn Runtime>) -> Arc<Node> {
    let mut config = NodeConfig::new(dir.join(name), runtime.clone());
    config.hostname = Some(name.to_owned());
    config.listen = Some(([127, 0, 0, 1], 0).into());
    Node::start(config).await.expect("the directory can be written")
}
