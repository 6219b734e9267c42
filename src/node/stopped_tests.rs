//! A node whose manager cannot write any more: a sync failed.

use std::path::Path;

use swarm_core::id::IdSource;
use swarm_core::model::Service;
use swarm_core::store::{Batch, Change, CommitError, Snapshot};
use swarm_core::time::{Clock as _, SystemClock};
use swarm_runtime::memory::Behaviour;
use tokio::net::TcpStream;

use super::*;
use crate::crash_disk::{CrashDisk, calm};

const PATIENCE: Duration = Duration::from_secs(60);

fn config(dir: &Path, disk: &CrashDisk) -> NodeConfig {
    let mut config = NodeConfig::new(dir, Arc::new(MemoryRuntime::new(|_| Behaviour::default())));
    config.disk = Arc::new(disk.clone());
    config.listen = Some("127.0.0.1:0".parse().unwrap());
    config
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn write(node: &Node, name: &str) -> Result<(), CommitError> {
    let mut service = Service { id: IdSource::random().next(), ..Service::default() };
    service.spec.name = name.to_owned();
    let control = node.control().ok_or(CommitError::NoLeader)?;
    let batch = Batch::new(SystemClock.now(), vec![Change::create(service)]);
    control.store.commit(batch).await.map(drop)
}

fn has(node: &Node, name: &str) -> bool {
    let named = |view: Snapshot| view.services.iter().any(|service| service.spec.name == name);
    node.control().is_some_and(|control| named(control.store.snapshot()))
}

async fn voters(node: &Node) -> usize {
    let member = node.member.lock().await;
    let managing = member.as_ref().and_then(|member| member.managing.as_ref());
    let raft = managing.and_then(|managing| managing.member.as_ref()).map(|member| &member.raft);
    raft.map_or(0, |raft| raft.status().members.iter().filter(|member| member.voter).count())
}

/// Writes until that is confirmed, each time under another name; returns the last one.
async fn writes_go_on(node: &Node) -> String {
    let mut number = 0;
    until("writes go on", async || {
        number += 1;
        write(node, &format!("after-{number}")).await.is_ok()
    })
    .await;
    format!("after-{number}")
}

/// The node shows what is wrong, and takes part in nothing.
async fn is_out(node: &Node, addr: &str) {
    until("the node says what is wrong", async || node.status().state == LocalState::Error).await;
    let error = node.status().error;
    assert!(error.contains("store has stopped: the log cannot be written: cannot sync"), "{error}");
    assert!(error.contains("restart the machine"), "{error}");
    assert!(node.control().is_none() && !node.status().control_available);
    until("its port is closed", async || TcpStream::connect(addr).await.is_err()).await;
    let request = InitRequest::default();
    let refused = node.init(request).await.expect_err("it would erase the store");
    assert!(refused.message.contains("already part of a swarm"), "{refused}");
}

/// Starts the node of a directory once more, as after a restart of the machine.
async fn again(node: Arc<Node>, config: &NodeConfig) -> Arc<Node> {
    node.stop().await;
    drop(node);
    let mut started = None;
    until("the directory is free", async || {
        started = Node::start(config.clone()).await.ok();
        started.is_some()
    })
    .await;
    started.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_cannot_write_stops_its_node_and_says_what_to_do() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), calm());
    let config = config(dir.path(), &disk);
    let node = Node::start(config.clone()).await.unwrap();
    node.init(InitRequest::default()).await.unwrap();
    let addr = node.status().remote_managers[0].addr.clone();
    write(&node, "before").await.unwrap();
    disk.fail_syncs(true);
    let refused = write(&node, "during").await;
    assert!(matches!(refused, Err(CommitError::Stopped(_))), "{refused:?}");
    is_out(&node, &addr).await;

    disk.fail_syncs(false);
    let node = again(node, &config).await;
    assert_eq!(node.status().state, LocalState::Active, "{}", node.status().error);
    writes_go_on(&node).await;
    assert!(has(&node, "before"), "what was acknowledged is there");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_go_on_without_a_leader_that_cannot_write() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), calm());
    let own = config(&dir.path().join("1"), &disk);
    let node = Node::start(own.clone()).await.unwrap();
    node.init(InitRequest::default()).await.unwrap();
    let addr = node.status().remote_managers[0].addr.clone();
    let tokens = node.control().unwrap().store.snapshot().cluster().unwrap().join_tokens.clone();
    let mut others = Vec::new();
    for name in ["2", "3"] {
        let other = Node::start(config(&dir.path().join(name), &calm())).await.unwrap();
        let (remote_addrs, join_token) = (vec![addr.clone()], tokens.manager.clone());
        other.join(JoinRequest { remote_addrs, join_token, ..Default::default() }).await.unwrap();
        until("it manages", async || other.control().is_some()).await;
        others.push(other);
    }
    until("all of them vote", async || voters(&node).await == 3).await;
    write(&node, "before").await.unwrap();

    disk.fail_syncs(true);
    // The others may have confirmed it all the same.
    let _ = write(&node, "during").await;
    is_out(&node, &addr).await;
    let after = writes_go_on(&others[0]).await;
    until("both have it", async || others.iter().all(|other| has(other, &after))).await;
    assert!(others.iter().all(|other| has(other, "before")));

    disk.fail_syncs(false);
    let node = again(node, &own).await;
    until("it follows", async || has(&node, &after)).await;
    for node in others.into_iter().chain([node]) {
        node.stop().await;
    }
}
