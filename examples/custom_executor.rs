//! An executor of one's own: here one that wraps another and adds a policy, that images must be
//! pinned by digest. A new kind of executor implements the same trait and runs
//! `swarm_core::conformance::executor::suite` on itself.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use swarm::core::executor::{
    Assignment, ExecError, Executor, Exit, LogOptions, LogStream, Observed, Sandbox, Started,
};
use swarm::core::model::{NodeDescription, TaskId, TaskState};
use swarm::core::store::Snapshot;
use swarm::http::{InitRequest, LocalNode as _};
use swarm::node::{Engine, MemoryRuntime, Node, NodeConfig, Place, Runtime};

/// Runs a task only if its image names a digest.
struct Pinned(Arc<dyn Executor>);

#[async_trait]
impl Executor for Pinned {
    async fn prepare(&self, assignment: &Assignment) -> Result<Sandbox, ExecError> {
        let image = assignment.task.spec.container.as_ref().map_or("", |spec| spec.image.as_str());
        if !image.contains("@sha256:") {
            let advice = "deploy it as NAME@sha256:…";
            return Err(ExecError::rejected(format!("image {image} is not pinned: {advice}")));
        }
        self.0.prepare(assignment).await
    }
    async fn describe(&self) -> Result<NodeDescription, ExecError> {
        self.0.describe().await
    }
    async fn inventory(&self) -> Result<Vec<Observed>, ExecError> {
        self.0.inventory().await
    }
    async fn start(&self, task: TaskId) -> Result<Started, ExecError> {
        self.0.start(task).await
    }
    async fn wait(&self, task: TaskId) -> Result<Exit, ExecError> {
        self.0.wait(task).await
    }
    async fn stop(&self, task: TaskId, grace: Duration) -> Result<(), ExecError> {
        self.0.stop(task, grace).await
    }
    async fn remove(&self, task: TaskId) -> Result<(), ExecError> {
        self.0.remove(task).await
    }
    async fn close(&self) -> Result<(), ExecError> {
        self.0.close().await
    }
    async fn logs(&self, task: TaskId, options: LogOptions) -> Result<LogStream, ExecError> {
        self.0.logs(task, options).await
    }
}

/// What a node asks for its engine, once it knows its place in a swarm.
struct PinnedRuntime(Arc<dyn Runtime>);

#[async_trait]
impl Runtime for PinnedRuntime {
    fn name(&self) -> &'static str {
        "pinned"
    }
    async fn describe(&self) -> Result<NodeDescription, ExecError> {
        self.0.describe().await
    }
    async fn open(&self, place: &Place) -> Result<Engine, ExecError> {
        let Engine { executor, network } = self.0.open(place).await?;
        Ok(Engine { executor: Arc::new(Pinned(executor)), network })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let memory = MemoryRuntime::new(|_| Default::default());
    let mut config = NodeConfig::new(dir.path(), Arc::new(PinnedRuntime(Arc::new(memory))));
    config.listen = Some("127.0.0.1:0".parse()?);
    let node = Node::start(config).await?;
    node.init(InitRequest::default()).await?;
    let control = node.control().ok_or("the first node is a manager")?;
    let pinned = format!("web@sha256:{}", "0".repeat(64));
    for (name, image) in [("pinned", pinned.as_str()), ("floating", "web:latest")] {
        let task = json!({"ContainerSpec": {"Image": image}});
        let spec = serde_json::from_value(json!({"Name": name, "TaskTemplate": task}))?;
        control.create_service(spec, None).await?;
    }
    let has = |view: &Snapshot, state| view.tasks.iter().any(|task| task.status.state == state);
    let both = |v: &Snapshot| has(v, TaskState::Running) && has(v, TaskState::Rejected);
    for task in control.store.until(both).await.tasks.iter() {
        println!("{}: {:?} {}", task.name(), task.status.state, task.status.err);
    }
    node.leave(true).await?;
    Ok(())
}
