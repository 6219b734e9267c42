//! The Docker API: lists of large clusters and creations, through the router, without sockets.
//!
//! Docker's own engine takes 234 ms for `GET /services` of 5,000 services.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use divan::Bencher;
use divan::counter::ItemsCount;
use futures_util::stream;
use swarm::core::executor::LogOptions;
use swarm::core::id::IdSource;
use swarm::core::model::{
    NodeDescription, NodeId, Service, ServiceId, ServiceSpec, Task, TaskState, TaskStatus,
};
use swarm::core::store::{Batch, Change, MemoryStore, Store};
use swarm::core::time::{SystemClock, Timestamp};
use swarm::error::{ApiError, Code};
use swarm::http::{
    InitRequest, JoinRequest, LocalNode, LocalState, LocalStatus, UnlockRequest, router,
};
use swarm::manager::control::Control;
use swarm::manager::logs::{LogBroker, LogSelector, TaskLogs};
use tower::ServiceExt as _;

/// What the CLI sends for `docker service create --replicas 2 --publish … --constraint …`.
const SPEC: &str = r#"{"Name":"web","Labels":{"com.docker.stack.namespace":"shop","tier":"front"},
"TaskTemplate":{"ContainerSpec":{"Image":"nginx:1.27@sha256:457bf41989d976b925cd5be5cfd8da7dbc2dcab753315ff3fd27bc3214fd23c4",
"Args":["nginx","-g","daemon off;"],"Env":["A=1","B=2","C=3"],"Init":false,"DNSConfig":{},"Isolation":"default"},
"Resources":{"Limits":{"MemoryBytes":67108864},"Reservations":{}},
"Placement":{"Constraints":["node.role == worker"],"Platforms":[{"Architecture":"amd64","OS":"linux"}]},
"ForceUpdate":0,"Runtime":"container"},"Mode":{"Replicated":{"Replicas":2}},
"UpdateConfig":{"Parallelism":1,"FailureAction":"pause","Monitor":1000000000,"MaxFailureRatio":0,"Order":"stop-first"},
"EndpointSpec":{"Mode":"vip"}}"#;

fn main() {
    divan::main();
}

struct Fixed(Arc<Control>);

struct NoLogs;

impl LogBroker for NoLogs {
    fn logs(&self, _: LogSelector, _: LogOptions) -> TaskLogs {
        Box::pin(stream::empty())
    }
}

fn refused() -> ApiError {
    ApiError::plain(Code::Unimplemented, "not in a benchmark")
}

#[async_trait]
impl LocalNode for Fixed {
    fn status(&self) -> LocalStatus {
        LocalStatus { state: LocalState::Active, control_available: true, ..Default::default() }
    }
    fn control(&self) -> Option<Arc<Control>> {
        Some(self.0.clone())
    }
    async fn description(&self) -> NodeDescription {
        NodeDescription::default()
    }
    async fn init(&self, _: InitRequest) -> Result<NodeId, ApiError> {
        Err(refused())
    }
    async fn join(&self, _: JoinRequest) -> Result<(), ApiError> {
        Err(refused())
    }
    async fn leave(&self, _: bool) -> Result<(), ApiError> {
        Err(refused())
    }
    async fn unlock(&self, _: UnlockRequest) -> Result<(), ApiError> {
        Err(refused())
    }
}

/// A manager with so many services of two running tasks each.
fn node(services: usize) -> Arc<Fixed> {
    let store = Arc::new(MemoryStore::default());
    let mut ids = IdSource::seeded(7);
    let mut changes = Vec::new();
    for number in 0..services {
        let mut spec: ServiceSpec = serde_json::from_str(SPEC).expect("a specification");
        spec.name = format!("web-{number}");
        let id: ServiceId = ids.next();
        for slot in 1..=2 {
            let now = Timestamp::from_secs(1_700_000_000);
            let status = TaskStatus::new(TaskState::Running, now, "started");
            let (spec, desired_state) = (spec.task.clone(), TaskState::Running);
            let task = Task {
                id: ids.next(),
                service_id: id,
                slot,
                spec,
                status,
                desired_state,
                ..Task::default()
            };
            changes.push(Change::create(task));
        }
        changes.push(Change::create(Service { id, spec, ..Service::default() }));
    }
    store.apply(&Batch::new(Timestamp::from_secs(1), changes)).expect("a legal batch");
    let control = Control {
        store: store as Arc<dyn Store>,
        secrets: None,
        logs: Arc::new(NoLogs),
        clock: Arc::new(SystemClock),
        ids: Mutex::new(ids),
        changes_roles: false,
    };
    Arc::new(Fixed(Arc::new(control)))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn call(node: &Arc<Fixed>, request: Request<Body>) -> usize {
    let answer = router(node.clone()).oneshot(request).await.expect("never fails");
    assert!(answer.status().is_success());
    to_bytes(answer.into_body(), usize::MAX).await.expect("a body").len()
}

fn list(bencher: Bencher<'_, '_>, services: usize, path: &str) {
    let (node, runtime) = (node(services), runtime());
    bencher.bench(|| {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        runtime.block_on(call(&node, request))
    });
}

#[divan::bench(args = [1_000, 5_000], sample_count = 20)]
fn get_services(bencher: Bencher<'_, '_>, services: usize) {
    list(bencher, services, "/v1.50/services");
}

#[divan::bench(args = [5_000], sample_count = 20)]
fn get_services_with_status(bencher: Bencher<'_, '_>, services: usize) {
    list(bencher, services, "/v1.50/services?status=true");
}

#[divan::bench(args = [5_000], sample_count = 20)]
fn get_tasks(bencher: Bencher<'_, '_>, services: usize) {
    list(bencher, services, "/v1.50/tasks");
}

/// One client, one after the other, into a store that holds 5,000 services.
#[divan::bench(sample_count = 20)]
fn create_100_services(bencher: Bencher<'_, '_>) {
    let (node, runtime) = (node(5_000), runtime());
    let mut next = 0;
    bencher.counter(ItemsCount::new(100_usize)).bench_local(|| {
        for _ in 0..100 {
            next += 1;
            let body = SPEC.replacen("\"web\"", &format!("\"new-{next}\""), 1);
            let request = Request::post("/v1.50/services/create")
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body))
                .expect("a request");
            runtime.block_on(call(&node, request));
        }
    });
}
