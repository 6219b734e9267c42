//! `docker stack deploy` as library calls: a stack file, a node that runs plain processes, and
//! nothing else on the machine.

use std::error::Error;
use std::sync::Arc;

use swarm::compose::{Environment, Stack};
use swarm::core::model::TaskState;
use swarm::core::store::Snapshot;
use swarm::http::{InitRequest, LocalNode as _};
use swarm::node::{Node, NodeConfig, ProcessRuntime};

const STACK: &str = r#"
services:
  ticker:
    image: busybox
    command: ["sh", "-c", "while :; do date; sleep 1; done"]
    environment: {GREETING: "hello from replica {{.Task.Slot}}"}
    stop_grace_period: 1s
    deploy: {replicas: 2}
  once:
    image: busybox
    command: ["true"]
    deploy: {restart_policy: {condition: none}}
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut config = NodeConfig::new(dir.path(), Arc::new(ProcessRuntime));
    config.listen = Some("127.0.0.1:0".parse()?);
    let node = Node::start(config).await?;
    node.init(InitRequest::default()).await?;
    let control = node.control().ok_or("the first node is a manager")?;

    let files = [("stack.yml".into(), STACK.into())];
    let stack = Stack::parse(&files, "/", Environment::new(), "demo")?;
    control.deploy(&stack.plan()?).await?;

    let reached = |view: &Snapshot, state, many| {
        view.tasks.iter().filter(|task| task.status.state == state).count() == many
    };
    let up = |v: &Snapshot| reached(v, TaskState::Running, 2) && reached(v, TaskState::Complete, 1);
    for task in control.store.until(up).await.tasks.iter() {
        println!("{}: {:?}", task.name(), task.status.state);
    }
    for service in ["demo_ticker", "demo_once"] {
        control.remove_service(service).await?;
    }
    control.store.until(|view| view.tasks.is_empty()).await;
    println!("all gone");
    node.leave(true).await?;
    Ok(())
}
