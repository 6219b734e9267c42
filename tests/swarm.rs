//! Whole swarms in one process: real nodes, real sockets, real mutual TLS, tasks in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm::core::model::{
    Cluster, ContainerSpec, NodeRole, NodeState, ReplicatedJobMode, ReplicatedMode, Service,
    ServiceMode, ServiceSpec, TaskSpec, TaskState, Version,
};
use swarm::core::store::{Snapshot, Store};
use swarm::core::time::{Clock as _, SystemClock};
use swarm::http::{CERTIFICATES_EXPIRED, InitRequest, JoinRequest, LocalNode as _, LocalState};
use swarm::identity::{Authority, Identity, IdentityFiles, JoinToken, KeyRequest, NodeIdentity};
use swarm::manager::control::{AuthFrom, Control, UpdateService};
use swarm::node::{MemoryRuntime, Node, NodeConfig, Runtime};
use swarm::runtime::memory::Behaviour;
use tempfile::TempDir;

/// How long anything may take on a busy machine before the test gives up; nothing is asserted
/// about less.
const PATIENCE: Duration = Duration::from_secs(60);

struct Swarm {
    dir: TempDir,
    runtime: Arc<MemoryRuntime>,
    manager: Arc<Node>,
    addr: String,
    workers: Vec<Arc<Node>>,
}

fn config(dir: &TempDir, name: &str, runtime: Arc<dyn Runtime>) -> NodeConfig {
    let mut config = NodeConfig::new(dir.path().join(name), runtime);
    config.hostname = Some(name.to_owned());
    config.listen = Some("127.0.0.1:0".parse().unwrap());
    config
}

impl Swarm {
    async fn start(workers: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Arc::new(MemoryRuntime::new(|container| match container.image.as_str() {
            "job:1" => Behaviour::exits(0, Duration::from_millis(20)),
            _ => Behaviour::default(),
        }));
        let manager = Node::start(config(&dir, "manager", runtime.clone())).await.unwrap();
        manager.init(InitRequest::default()).await.unwrap();
        let addr = manager.status().remote_managers[0].addr.clone();
        let mut swarm = Self { dir, runtime, manager, addr, workers: Vec::new() };
        for index in 1..=workers {
            let config = config(&swarm.dir, &format!("worker{index}"), swarm.runtime.clone());
            let worker = Node::start(config).await.unwrap();
            worker.join(swarm.join_request()).await.unwrap();
            swarm.workers.push(worker);
        }
        swarm.until("every node is ready", |view| ready(view) == workers + 1).await;
        swarm
    }

    fn join_request(&self) -> JoinRequest {
        let cluster = self.control().store.snapshot().cluster().unwrap().clone();
        JoinRequest {
            remote_addrs: vec![self.addr.clone()],
            join_token: cluster.join_tokens.worker.clone(),
            ..Default::default()
        }
    }

    fn control(&self) -> Arc<Control> {
        self.manager.control().expect("the first node is a manager")
    }

    async fn until(&self, what: &str, done: impl Fn(&Snapshot) -> bool) -> Snapshot {
        until(&*self.control().store, what, done).await
    }

    async fn stop(self) {
        for worker in &self.workers {
            worker.stop().await;
        }
        self.manager.stop().await;
    }
}

async fn until(store: &dyn Store, what: &str, done: impl Fn(&Snapshot) -> bool) -> Snapshot {
    match tokio::time::timeout(PATIENCE, store.until(done)).await {
        Ok(view) => view,
        Err(_) => {
            let tasks: Vec<_> = store
                .snapshot()
                .tasks
                .iter()
                .map(|t| (t.slot, t.desired_state, t.status.clone()))
                .collect();
            panic!("not within {PATIENCE:?}: {what}; tasks: {tasks:#?}");
        }
    }
}

fn ready(view: &Snapshot) -> usize {
    view.nodes.iter().filter(|node| node.status.state == NodeState::Ready).count()
}

fn running(view: &Snapshot) -> usize {
    let runs = |task: &&Arc<swarm::core::model::Task>| {
        task.status.state == TaskState::Running && task.desired_state == TaskState::Running
    };
    view.tasks.iter().filter(runs).count()
}

fn web(replicas: u64) -> ServiceSpec {
    let container = ContainerSpec { image: "web:1".into(), ..Default::default() };
    ServiceSpec {
        name: "web".into(),
        task: Arc::new(TaskSpec { container: Some(container), ..Default::default() }),
        mode: ServiceMode::Replicated(ReplicatedMode {
            replicas: Some(replicas),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn service(view: &Snapshot) -> Arc<Service> {
    view.services.named("web").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_runs_on_every_node_and_is_gone_when_it_is_removed() {
    let swarm = Swarm::start(2).await;
    swarm.control().create_service(web(6), None).await.unwrap();
    let view = swarm.until("six tasks run", |view| running(view) == 6).await;
    for node in view.nodes.iter() {
        assert_eq!(view.tasks_on(node.id).count(), 2, "Swarm spreads six tasks over three nodes");
    }
    swarm.control().remove_service("web").await.unwrap();
    assert!(swarm.control().store.snapshot().services.named("web").is_none());
    let gone = |view: &Snapshot| view.tasks.is_empty() && view.services.is_empty();
    swarm.until("nothing is left", gone).await;
    swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_to_its_end_and_again() {
    let swarm = Swarm::start(2).await;
    let mode = ReplicatedJobMode {
        max_concurrent: Some(2),
        total_completions: Some(7),
        ..Default::default()
    };
    let mut spec = ServiceSpec { mode: ServiceMode::ReplicatedJob(mode), ..web(0) };
    let container = ContainerSpec { image: "job:1".into(), ..Default::default() };
    Arc::make_mut(&mut spec.task).container = Some(container);
    swarm.control().create_service(spec.clone(), None).await.unwrap();
    for run in 0..3 {
        let done = |view: &Snapshot| {
            let run = Some(Version(run));
            let tasks = || view.tasks.iter().filter(|task| task.job_iteration == run);
            let open = tasks().filter(|task| task.is_wanted() && !task.status.state.is_terminal());
            assert!(open.count() <= 2, "two at a time");
            tasks().filter(|task| task.status.state == TaskState::Complete).count() == 7
        };
        let view = swarm.until("seven tasks have completed", done).await;
        let of_run = view.tasks.iter().filter(|task| task.job_iteration == Some(Version(run)));
        let slots: BTreeSet<_> = of_run.map(|task| task.slot).collect();
        assert_eq!(slots, (0..7).collect(), "each slot once");
        Arc::make_mut(&mut spec.task).force_update += 1;
        let update = UpdateService {
            version: service(&view).version,
            spec: spec.clone(),
            rollback: false,
            registry_auth: None,
            auth_from: AuthFrom::Spec,
        };
        swarm.control().update_service("web", update).await.unwrap();
    }
    swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_restarts_takes_its_tasks_up_again() {
    let mut swarm = Swarm::start(1).await;
    swarm.control().create_service(web(4), None).await.unwrap();
    let view = swarm.until("four tasks run", |view| running(view) == 4).await;
    let before: Vec<_> = view.tasks.iter().map(|task| task.id).collect();
    let worker = swarm.workers.pop().unwrap();
    let id = worker.status().node_id;
    worker.stop().await;
    assert_eq!(swarm.runtime.executor(id).running().len(), 2, "tasks run without their agent");
    drop(worker);
    let again = Node::start(config(&swarm.dir, "worker1", swarm.runtime.clone())).await.unwrap();
    assert_eq!(again.status().state, LocalState::Active);
    swarm.workers.push(again);
    swarm
        .control()
        .create_service(ServiceSpec { name: "other".into(), ..web(2) }, None)
        .await
        .unwrap();
    let view = swarm.until("new tasks run on the node again", |view| running(view) == 6).await;
    let same = before
        .iter()
        .all(|id| view.tasks.get(*id).is_some_and(|t| t.status.state == TaskState::Running));
    assert!(same, "no task was replaced");
    assert_eq!(service(&view).spec.mode.replicas(), Some(4));
    swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_slept_past_its_certificate_says_so() {
    let mut swarm = Swarm::start(1).await;
    let worker = swarm.workers.pop().unwrap();
    let node = worker.status().node_id;
    worker.stop().await;
    drop(worker);
    let cluster = swarm.manager.control().unwrap().store.snapshot().cluster().unwrap().clone();
    let identity = Identity { node, role: NodeRole::Worker, cluster: cluster.id };
    let old = expired(&cluster, identity);
    IdentityFiles::new(swarm.dir.path().join("worker1/certificates")).save(&old).unwrap();

    let worker = Node::start(config(&swarm.dir, "worker1", swarm.runtime.clone())).await.unwrap();
    let status = worker.status();
    assert_eq!((status.state, &*status.error), (LocalState::Error, CERTIFICATES_EXPIRED));
    // The way back that the text names: the swarm takes it in as another node.
    worker.leave(false).await.unwrap();
    worker.join(swarm.join_request()).await.unwrap();
    assert_eq!(worker.status().state, LocalState::Active);
    assert_ne!(worker.status().node_id, node);
    worker.stop().await;
    swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_slept_past_its_certificate_says_so_and_loses_nothing() {
    let swarm = Swarm::start(0).await;
    swarm.control().create_service(web(1), None).await.unwrap();
    let Swarm { dir, runtime, manager, .. } = swarm;
    let cluster = manager.control().unwrap().store.snapshot().cluster().unwrap().clone();
    let node = manager.status().node_id;
    manager.stop().await;
    drop(manager);
    let files = IdentityFiles::new(dir.path().join("manager/certificates"));
    let valid = files.load().unwrap().unwrap();
    let identity = Identity { node, role: NodeRole::Manager, cluster: cluster.id };
    files.save(&expired(&cluster, identity)).unwrap();

    let manager = Node::start(config(&dir, "manager", runtime.clone())).await.unwrap();
    let status = manager.status();
    assert_eq!((status.state, &*status.error), (LocalState::Error, CERTIFICATES_EXPIRED));
    assert!(manager.control().is_none(), "it shows nothing of what it holds");
    let refused = manager.leave(false).await.unwrap_err();
    assert!(refused.message.contains("Use `--force`"), "{refused}");
    // As when its clock was wrong and has been set right.
    files.save(&valid).unwrap();
    let again = || manager.control().filter(|_| manager.status().state == LocalState::Active);
    let deadline = Instant::now() + PATIENCE;
    while again().is_none() {
        assert!(Instant::now() < deadline, "{:?}", manager.status());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let control = again().unwrap();
    until(&*control.store, "its service runs", |view| running(view) == 1).await;
    assert_eq!(manager.status().node_id, node);
    manager.stop().await;
}

/// An identity whose certificate held until two hours ago.
fn expired(cluster: &Cluster, identity: Identity) -> NodeIdentity {
    let authority = Authority::load(&cluster.root_ca).unwrap();
    let key = KeyRequest::generate().unwrap();
    let hour = Duration::from_secs(3_600);
    let then = SystemClock.now().before(3 * hour);
    let certificate = authority.issue(&key.csr, &identity, hour, then).unwrap();
    NodeIdentity::new(authority.root().clone(), certificate, key.key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_is_down_at_once_and_its_tasks_move() {
    let swarm = Swarm::start(2).await;
    swarm.control().create_service(web(3), None).await.unwrap();
    swarm.until("three tasks run", |view| running(view) == 3).await;
    let id = swarm.workers[0].status().node_id;
    swarm.workers[0].leave(false).await.unwrap();
    assert_eq!(swarm.workers[0].status().state, LocalState::Inactive);
    assert_eq!(swarm.runtime.executor(id).running(), [], "nothing of the node runs on");
    let moved = |view: &Snapshot| {
        let elsewhere = view
            .tasks
            .iter()
            .filter(|task| task.node_id != Some(id) && task.status.state == TaskState::Running);
        view.nodes.get(id).is_some_and(|n| n.status.state == NodeState::Down)
            && elsewhere.count() == 3
    };
    swarm.until("its task runs elsewhere", moved).await;
    swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_may_not_do_is_refused_with_dockers_texts() {
    let swarm = Swarm::start(1).await;
    let refused = swarm.manager.init(InitRequest::default()).await.unwrap_err();
    assert!(refused.message.starts_with("This node is already part of a swarm."), "{refused}");
    let refused = swarm.manager.leave(false).await.unwrap_err();
    assert!(refused.message.contains("Removing the last manager erases all current state"));
    let outside = Node::start(config(&swarm.dir, "outside", swarm.runtime.clone())).await.unwrap();
    let refused = outside.leave(false).await.unwrap_err();
    assert_eq!(
        (refused.message.as_str(), refused.code.http_status()),
        ("This node is not part of a swarm", 503)
    );
    let garbage = JoinRequest { join_token: "garbage".into(), ..swarm.join_request() };
    let refused = outside.join(garbage).await.unwrap_err();
    assert_eq!(
        (refused.to_string().as_str(), refused.code.http_status()),
        ("invalid join token", 500)
    );
    let mut wrong = swarm.join_request();
    let token: JoinToken = wrong.join_token.parse().unwrap();
    wrong.join_token = JoinToken::generate(token.root(), &mut rand::rng()).expose();
    let refused = outside.join(wrong).await.unwrap_err();
    assert!(
        refused.message.ends_with("A valid join token is necessary to join this cluster"),
        "{refused}"
    );
    assert_eq!(outside.status().state, LocalState::Inactive);
    outside.join(swarm.join_request()).await.unwrap();
    assert_eq!(outside.status().state, LocalState::Active, "a refusal leaves nothing in the way");
    outside.stop().await;
    swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_removed_is_told_so_at_once_and_cannot_come_back() {
    let swarm = Swarm::start(2).await;
    let worker = &swarm.workers[0];
    let id = worker.status().node_id;
    let running = swarm.control().remove_node(id.as_str(), false).await.unwrap_err();
    assert!(running.message.contains("is not down and can't be removed"), "{running}");
    swarm.control().remove_node(id.as_str(), true).await.unwrap();
    let refused = async {
        while worker.status().state != LocalState::Error {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the node's status says what happened");
    assert!(worker.status().error.contains("removed"), "{}", worker.status().error);
    worker.leave(true).await.unwrap();
    worker.join(swarm.join_request()).await.unwrap();
    assert_ne!(worker.status().node_id, id, "a removed node joins again as another one");
    swarm.stop().await;
}
