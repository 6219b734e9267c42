//! A whole cluster in one process: a manager and three workers, with real sockets and mutual TLS
//! between them and tasks in memory. A stack is deployed, scaled, and outlives one of its nodes.

use std::error::Error;
use std::sync::Arc;

use swarm::compose::{Environment, Stack};
use swarm::core::model::{self, NodeState, TaskState};
use swarm::core::store::Snapshot;
use swarm::http::{InitRequest, JoinRequest, LocalNode as _};
use swarm::manager::control::Control;
use swarm::node::{MemoryRuntime, MemoryStores, Node, NodeConfig};

const STACK: &str = "
services:
  web:
    image: web:1
    deploy: {replicas: '${REPLICAS}', restart_policy: {delay: 0s}}";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let runtime = Arc::new(MemoryRuntime::new(|_| Default::default()));
    let mut nodes = Vec::new();
    for name in ["manager", "worker-1", "worker-2", "worker-3"] {
        let mut config = NodeConfig::new(dir.path().join(name), runtime.clone());
        config.hostname = Some(name.to_owned());
        config.listen = Some("127.0.0.1:0".parse()?);
        config.parts.store = Some(Arc::new(MemoryStores));
        nodes.push(Node::start(config).await?);
    }
    nodes[0].init(InitRequest::default()).await?;
    let control = nodes[0].control().ok_or("the first node is a manager")?;
    let cluster = control.store.snapshot().cluster().cloned().ok_or("there is a cluster")?;
    for worker in &nodes[1..] {
        let remote_addrs = vec![nodes[0].status().remote_managers[0].addr.clone()];
        let join_token = cluster.join_tokens.worker.clone();
        worker.join(JoinRequest { remote_addrs, join_token, ..Default::default() }).await?;
    }
    let ready = |view: &Snapshot, many| view.nodes.iter().filter(|n| is_ready(n)).count() == many;
    control.store.until(|view| ready(view, 4)).await;
    scale(&control, 4).await?;
    scale(&control, 8).await?;
    nodes[3].leave(false).await?;
    control.store.until(|view| ready(view, 3)).await;
    println!("worker-3 has left:");
    scale(&control, 8).await
}

fn is_ready(node: &model::Node) -> bool {
    node.status.state == NodeState::Ready
}

/// Deploys the stack with that many replicas, and shows where they run.
async fn scale(control: &Control, replicas: usize) -> Result<(), Box<dyn Error>> {
    let variables = Environment::from([("REPLICAS".into(), replicas.to_string())]);
    let stack = Stack::parse(&[("stack.yml".into(), STACK.into())], "/", variables, "demo")?;
    control.deploy(&stack.plan()?).await?;
    let on = |view: &Snapshot, node: &model::Node| {
        let tasks = view.tasks_on(node.id).filter(|_| is_ready(node));
        tasks.filter(|task| task.status.state == TaskState::Running).count()
    };
    let all = |view: &Snapshot| view.nodes.iter().map(|node| on(view, node)).sum::<usize>();
    let view = control.store.until(|view| all(view) == replicas).await;
    let line =
        view.nodes.iter().map(|node| format!("{}: {}", node.display_name(), on(&view, node)));
    let mut line: Vec<_> = line.collect();
    line.sort();
    println!("{replicas} tasks run  ({})", line.join(", "));
    Ok(())
}
