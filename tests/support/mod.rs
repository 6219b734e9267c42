//! A manager inside the test's own process: the real API, control loop and planners over a
//! `MemoryStore`, with agents that make every assigned task run at once.

#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod recordings;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use swarm::core::control::{self, Planner};
use swarm::core::executor::{LogEntry, LogOptions, LogSource};
use swarm::core::id::IdSource;
use swarm::core::model::{
    ContainerStatus, EngineDescription, JoinTokens, Node, NodeDescription, NodeId, NodeState,
    NodeStatus, Resources, RootCa, Task, TaskState, TaskStatus, TlsInfo, Version,
};
use swarm::core::store::{Batch, Change, MemoryStore, Snapshot, Store};
use swarm::core::time::{Clock, SystemClock};
use swarm::error::{ApiError, Code};
use swarm::http::{
    InitRequest, JoinRequest, LocalNode, LocalState, LocalStatus, RemoteManager, UnlockRequest,
};
use swarm::manager::bootstrap::NewCluster;
use swarm::manager::control::Control;
use swarm::manager::logs::{LogBroker, LogSelector, TaskLogs};
use swarm::sched::place::StrategyScheduler;

/// What no response may hold: the bytes of keys and credentials in the store.
pub const CANARY: &str = "canary-that-must-not-sing";

/// A node of which the test decides everything.
pub struct FakeNode {
    pub store: Arc<MemoryStore>,
    pub control: Arc<Control>,
    pub status: Mutex<LocalStatus>,
    running: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl FakeNode {
    /// A node in no swarm.
    pub fn outside() -> Arc<Self> {
        let store = Arc::new(MemoryStore::default());
        let control = Control {
            store: store.clone(),
            secrets: None,
            logs: Arc::new(FakeLogs(store.clone())),
            clock: Arc::new(SystemClock),
            ids: Mutex::new(IdSource::seeded(1)),
            external: None,
            changes_roles: false,
            planners: planners(),
        };
        Arc::new(Self {
            store,
            control: Arc::new(control),
            status: Mutex::default(),
            running: Mutex::default(),
        })
    }

    /// The manager of a new swarm in which nothing plans and nothing runs.
    pub async fn still() -> Arc<Self> {
        let node = Self::outside();
        node.found(InitRequest::default()).await;
        node
    }

    /// The manager of a new swarm of `nodes` nodes in which everything runs.
    pub async fn alive(nodes: usize) -> Arc<Self> {
        let node = Self::outside();
        node.found(InitRequest::default()).await;
        node.add_workers(nodes - 1).await;
        node.start();
        node
    }

    pub async fn commit(&self, changes: Vec<Change>) -> Version {
        self.store.commit(Batch::new(SystemClock.now(), changes)).await.expect("a legal batch")
    }

    async fn found(&self, request: InitRequest) -> NodeId {
        let mut ids = IdSource::seeded(2);
        let id: NodeId = ids.next();
        let locks = request.auto_lock_managers || request.spec.encryption_config.auto_lock_managers;
        let cluster = NewCluster {
            id: ids.next(),
            spec: request.spec,
            addr_pool: request.default_addr_pool,
            subnet_size: request.subnet_size,
            data_path_port: request.data_path_port,
            root_ca: RootCa {
                certificate: "root".into(),
                key: Some(CANARY.as_bytes().to_vec().into()),
                ..Default::default()
            },
            tls_info: TlsInfo { trust_root: "root".into(), ..Default::default() },
            join_tokens: JoinTokens {
                worker: format!("SWMTKN-1-{}-{}", "1".repeat(50), "2".repeat(25)),
                manager: format!("SWMTKN-1-{}-{}", "1".repeat(50), "3".repeat(25)),
                ..Default::default()
            },
            unlock_key: locks.then(|| swarm::identity::UnlockKey::generate().stored()),
            node: id,
            raft_id: 1,
            advertise: "10.0.0.9:2377".into(),
            availability: request.availability,
        };
        self.commit(cluster.changes(&mut ids)).await;
        let mut node = Node::clone(self.store.snapshot().nodes.get(id).expect("just made"));
        node.description = Some(describe("manager-1"));
        node.status.state = NodeState::Ready;
        self.commit(vec![Change::update(node)]).await;
        *self.status.lock().unwrap() = LocalStatus {
            node_id: id,
            node_addr: "10.0.0.9".into(),
            state: LocalState::Active,
            control_available: true,
            remote_managers: vec![RemoteManager {
                node_id: id,
                addr: "10.0.0.9:2377".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        id
    }

    async fn add_workers(&self, number: usize) {
        let mut ids = IdSource::seeded(3);
        for index in 1..=number {
            let status = NodeStatus {
                state: NodeState::Ready,
                addr: format!("10.0.0.{}", 10 + index),
                ..Default::default()
            };
            let description = Some(describe(&format!("worker-{index}")));
            let node = Node { id: ids.next(), description, status, ..Default::default() };
            self.commit(vec![Change::create(node)]).await;
        }
    }

    /// Starts the control loop and the agents.
    fn start(&self) {
        let store: Arc<dyn Store> = self.store.clone();
        let planners = self.control.planners.clone();
        let looping = control::run(store, Arc::new(SystemClock), planners, IdSource::seeded(4));
        let mut running = self.running.lock().unwrap();
        running.push(tokio::spawn(looping));
        running.push(tokio::spawn(agents(self.store.clone())));
    }

    pub fn view(&self) -> Snapshot {
        self.store.snapshot()
    }

    /// Waits until the state is as wanted.
    pub async fn until(&self, what: &str, holds: impl Fn(&Snapshot) -> bool) {
        let mut watch = self.store.watch(self.view().version());
        let waiting = async {
            while !holds(&self.view()) {
                watch.next().await.expect("the history reaches back");
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting)
            .await
            .unwrap_or_else(|_| panic!("never came true: {what}"));
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        for task in self.running.lock().unwrap().drain(..) {
            task.abort();
        }
    }
}

fn planners() -> Vec<Arc<dyn Planner>> {
    swarm::sched::default_planners([], Arc::new(StrategyScheduler::default()))
}

fn describe(hostname: &str) -> NodeDescription {
    NodeDescription {
        hostname: hostname.into(),
        platform: swarm::core::model::Platform {
            architecture: "x86_64".into(),
            os: "linux".into(),
            ..Default::default()
        },
        resources: Resources {
            nano_cpus: 4_000_000_000,
            memory_bytes: 8 << 30,
            ..Default::default()
        },
        engine: EngineDescription { engine_version: "28.2.2".into(), ..Default::default() },
        tls_info: TlsInfo { trust_root: "root".into(), ..Default::default() },
        ..Default::default()
    }
}

/// Makes what is assigned run, and stops what shall stop.
async fn agents(store: Arc<MemoryStore>) {
    let mut watch = store.watch(store.snapshot().version());
    loop {
        let changes: Vec<_> = store.snapshot().tasks.iter().filter_map(|task| obey(task)).collect();
        if changes.is_empty() {
            let _ = watch.next().await;
        } else {
            let batch = Batch::new(SystemClock.now(), changes);
            store.commit(batch).await.expect("advances never conflict");
        }
    }
}

fn obey(task: &Task) -> Option<Change> {
    if task.status.state < TaskState::Assigned || task.status.state.is_terminal() {
        return None;
    }
    let next = match task.desired_state {
        TaskState::Ready => TaskState::Ready,
        TaskState::Running => TaskState::Running,
        TaskState::Complete => TaskState::Complete,
        TaskState::Shutdown | TaskState::Remove => TaskState::Shutdown,
        _ => return None,
    };
    if next == task.status.state {
        return None;
    }
    let container = ContainerStatus { container_id: "c0ffee".into(), pid: 7, ..Default::default() };
    let status = TaskStatus {
        container: Some(Box::new(container)),
        ..TaskStatus::new(next, SystemClock.now(), "started")
    };
    Some(Change::Advance(task.id, Box::new(status)))
}

/// Two lines for every task; with `follow`, no end.
struct FakeLogs(Arc<MemoryStore>);

impl LogBroker for FakeLogs {
    fn logs(&self, selector: LogSelector, options: LogOptions) -> TaskLogs {
        let view = self.0.snapshot();
        let tasks: Vec<Arc<Task>> = match selector {
            LogSelector::Service(id) => view.tasks_of(id).cloned().collect(),
            LogSelector::Task(id) => view.tasks.get(id).cloned().into_iter().collect(),
        };
        let line = |source, text: &str| LogEntry {
            source,
            time: swarm::core::time::Timestamp::from_secs(1_700_000_000),
            data: text.as_bytes().to_vec(),
        };
        let lines = tasks.into_iter().flat_map(move |task| {
            let out = Ok((task.clone(), line(LogSource::Stdout, "out\n")));
            [out, Ok((task, line(LogSource::Stderr, "err\n")))]
        });
        let lines = stream::iter(lines);
        match options.follow {
            true => Box::pin(lines.chain(stream::pending())),
            false => Box::pin(lines),
        }
    }
}

#[async_trait]
impl LocalNode for FakeNode {
    fn status(&self) -> LocalStatus {
        self.status.lock().unwrap().clone()
    }

    fn control(&self) -> Option<Arc<Control>> {
        self.status().control_available.then(|| self.control.clone())
    }

    async fn description(&self) -> NodeDescription {
        describe("manager-1")
    }

    async fn init(&self, request: InitRequest) -> Result<NodeId, ApiError> {
        let id = self.found(request).await;
        self.add_workers(2).await;
        self.start();
        Ok(id)
    }

    async fn join(&self, request: JoinRequest) -> Result<(), ApiError> {
        match request.join_token.starts_with("SWMTKN-1-") {
            true => Ok(()),
            false => Err(ApiError::plain(Code::Unknown, "invalid join token")),
        }
    }

    async fn leave(&self, _: bool) -> Result<(), ApiError> {
        *self.status.lock().unwrap() = LocalStatus::default();
        Ok(())
    }

    async fn unlock(&self, _: UnlockRequest) -> Result<(), ApiError> {
        Ok(())
    }
}
