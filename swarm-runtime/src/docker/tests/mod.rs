//! Tests against a real engine: `scripts/with-dockerd.sh cargo test -p swarm-runtime docker`.

mod conformance;
mod delivery;
mod outage;
mod refusals;

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use swarm_core::executor::{Assignment, ExecError, Executor as _, Exit, LogOptions, Started};
use swarm_core::id::IdSource;
use swarm_core::model::{
    ContainerSpec, Endpoint, PortConfig, ServiceAnnotations, Task, TaskId, TaskSpec,
};

use super::{DockerConfig, DockerExecutor};

/// An executor on the engine of `SWARM_TEST_DOCKER`, with a state directory on disk, so that a
/// tmpfs for secrets has to be mounted.
struct Node {
    executor: DockerExecutor,
    secrets: PathBuf,
    _dir: tempfile::TempDir,
}

impl Node {
    /// Nothing, loudly, where no engine is given.
    async fn open() -> Option<Self> {
        let Ok(host) = std::env::var("SWARM_TEST_DOCKER") else {
            println!("skipped: SWARM_TEST_DOCKER is not set; run under scripts/with-dockerd.sh");
            return None;
        };
        let mut ids = IdSource::random();
        let dir = tempfile::tempdir().expect("a directory");
        let config = DockerConfig {
            prefer_offline_image: true,
            ..DockerConfig::new(host, ids.next(), ids.next(), dir.path())
        };
        let secrets = dir.path().join("secrets");
        let executor = DockerExecutor::connect(config).await.expect("the engine answers");
        Some(Self { executor, secrets, _dir: dir })
    }

    /// A task of a service `web`.
    fn task(&self, spec: ContainerSpec, ports: Vec<PortConfig>) -> Assignment {
        let mut ids = IdSource::random();
        let task = Task {
            id: ids.next(),
            service_id: ids.next(),
            slot: 3,
            node_id: Some(self.executor.config.node),
            spec: Arc::new(TaskSpec { container: Some(spec), ..Default::default() }),
            annotations: Arc::new(ServiceAnnotations { name: "web".into(), ..Default::default() }),
            endpoint: Some(Arc::new(Endpoint { ports, ..Default::default() })),
            ..Default::default()
        };
        Assignment {
            task: Arc::new(task),
            node: self.executor.config.node,
            secrets: Vec::new(),
            configs: Vec::new(),
            attachments: Vec::new(),
        }
    }

    async fn start(&self, assignment: &Assignment) -> Result<Started, ExecError> {
        self.executor.prepare(assignment).await?;
        self.executor.start(assignment.task.id).await
    }

    /// Runs a task to its end: how it ended, and everything that it wrote.
    async fn run(&self, assignment: &Assignment) -> (Exit, String) {
        let task = assignment.task.id;
        self.start(assignment).await.expect("started");
        let exit = self.executor.wait(task).await.expect("ended");
        let output = self.output(task).await;
        self.executor.remove(task).await.expect("removed");
        (exit, output)
    }

    async fn output(&self, task: TaskId) -> String {
        let options = LogOptions { stdout: true, stderr: true, ..Default::default() };
        let logs = self.executor.logs(task, options).await.expect("logs");
        let entries: Vec<_> = logs.try_collect().await.expect("lines");
        entries.iter().map(|entry| String::from_utf8_lossy(&entry.data)).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.executor.files.close();
    }
}

/// `sh -c SCRIPT` in the test image.
fn shell(script: &str) -> ContainerSpec {
    ContainerSpec {
        image: "busybox:latest".into(),
        command: vec!["sh".into(), "-c".into()],
        args: vec![script.into()],
        ..Default::default()
    }
}
