//! One manager in a process of its own, as an embedder makes it: a node with a log on disk, mutual
//! TLS to the others and everything that a manager does besides; told what to do in lines on its
//! standard input.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use swarm::core::id::IdSource;
use swarm::core::model::{Blob, Config, ConfigId, NodeRole, Reachability};
use swarm::core::store::{Batch, Change, Snapshot, Store};
use swarm::core::time::Timestamp;
use swarm::http::{InitRequest, JoinRequest, LocalNode as _};
use swarm::node::{MemoryRuntime, Node, NodeConfig};

use crate::load::{self, Achieved};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// Serves until its input ends. Every command is answered with one line.
pub(crate) async fn run(dir: &Path) {
    let mut config = NodeConfig::new(dir, Arc::new(MemoryRuntime::new(|_| Default::default())));
    config.listen = Some(([127, 0, 0, 1], 0).into());
    let node = Node::start(config).await.expect("the directory can be written");
    let (said, mut lines) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).all(|line| said.blocking_send(line).is_ok())
    });
    while let Some(line) = lines.recv().await {
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["init"] => {
                node.init(InitRequest::default()).await.expect("a new swarm");
                let cluster = store(&node).snapshot().cluster().expect("a cluster object").clone();
                let addr = &node.status().remote_managers[0].addr;
                format!("{addr} {}", cluster.join_tokens.manager)
            }
            ["join", addr, token] => {
                let request = JoinRequest {
                    remote_addrs: vec![addr.to_owned()],
                    join_token: token.to_owned(),
                    ..JoinRequest::default()
                };
                node.join(request).await.expect("it is admitted");
                "ok".to_owned()
            }
            ["managers", count] => {
                let count: usize = count.parse().expect("a number");
                until(&*store(&node), |view| managers(view) == count).await;
                "ok".to_owned()
            }
            ["load", clients, millis] => {
                let clients = clients.parse().expect("a number");
                let length = Duration::from_millis(millis.parse().expect("a number"));
                let achieved = load(&store(&node), clients, length).await;
                serde_json::to_string(&achieved).expect("JSON")
            }
            _ => panic!("unknown: {line}"),
        };
        println!("{answer}");
    }
    node.stop().await;
}

fn store(node: &Node) -> Arc<dyn Store> {
    node.control().expect("a manager").store.clone()
}

/// How many managers the leader reaches, itself included.
fn managers(view: &Snapshot) -> usize {
    let reached = view.nodes.iter().filter(|node| {
        let status = node.manager_status.as_ref();
        node.spec.role == NodeRole::Manager
            && status.is_some_and(|status| status.reachability == Reachability::Reachable)
    });
    reached.count()
}

async fn until(store: &dyn Store, done: impl Fn(&Snapshot) -> bool + Send + Sync) {
    let waited = tokio::time::timeout(Duration::from_secs(120), store.until(done)).await;
    assert!(waited.is_ok(), "it takes too long");
}

/// Each client writes a value of its own, again and again.
async fn load(store: &Arc<dyn Store>, clients: usize, length: Duration) -> Achieved {
    let mut ids = IdSource::random();
    let mut configs = Vec::new();
    for _ in 0..clients {
        let mut config = Config { id: ids.next(), ..Config::default() };
        config.spec.name = config.id.to_string();
        config.spec.data = Blob(Arc::from(&crate::value(0)[..]));
        configs.push(config.id);
        store.commit(Batch::new(NOW, vec![Change::create(config)])).await.expect("a legal write");
    }
    load::run(clients, length, |number| {
        let (store, id) = (store.clone(), configs[number]);
        move |turn: usize| write(store.clone(), id, turn)
    })
    .await
}

async fn write(store: Arc<dyn Store>, id: ConfigId, turn: usize) {
    let mut config = Config::clone(store.snapshot().configs.get(id).expect("it is there"));
    config.spec.data = Blob(Arc::from(&crate::value(turn)[..]));
    store.commit(Batch::new(NOW, vec![Change::update(config)])).await.expect("a legal write");
}
