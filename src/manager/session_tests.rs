//! The shell of the sessions: what is left to the order in which commits and agents come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use swarm_core::id::IdSource;
use swarm_core::model::{Cluster, Node, NodeId, NodeState, Version};
use swarm_core::protocol::{AgentMessage, ManagerMessage};
use swarm_core::store::{
    Batch, Change, CommitError, Leadership, MemoryStore, Snapshot, Store, Watch,
};
use swarm_core::time::{Clock as _, SystemClock};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::secrets::StoreSecrets;
use super::session::{GATHER, Sessions};

/// The heartbeat period: a new leader gives nodes that were up six of them.
const PERIOD: Duration = Duration::from_millis(200);

/// A store whose commits wait until they are let through.
struct GatedStore {
    store: MemoryStore,
    came: Notify,
    gate: Semaphore,
}

#[async_trait]
impl Store for GatedStore {
    fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    fn watch(&self, after: Version) -> Watch {
        self.store.watch(after)
    }

    fn leadership(&self) -> tokio::sync::watch::Receiver<Leadership> {
        self.store.leadership()
    }

    async fn commit(&self, batch: Batch) -> Result<Version, CommitError> {
        self.came.notify_one();
        self.gate.acquire().await.expect("it is never closed").forget();
        self.store.commit(batch).await
    }

    async fn barrier(&self) -> Result<(), CommitError> {
        self.store.barrier().await
    }
}

/// Opens a session as an agent that sends heartbeats; what it hears.
fn connect(sessions: &Arc<Sessions>, node: NodeId) -> mpsc::Receiver<ManagerMessage> {
    let (say, inbound) = mpsc::channel(8);
    let (outbound, hear) = mpsc::channel(8);
    let sessions = sessions.clone();
    let remote = SocketAddr::from(([127, 0, 0, 1], 1));
    tokio::spawn(async move {
        sessions.serve(node, remote, ReceiverStream::new(inbound), outbound).await;
    });
    tokio::spawn(async move {
        let hello = AgentMessage::Hello { description: Default::default(), addr: String::new() };
        let mut said = say.send(hello).await;
        while said.is_ok() {
            tokio::time::sleep(PERIOD / 4).await;
            said = say.send(AgentMessage::Heartbeat).await;
        }
    });
    hear
}

/// While the leader writes that one silent node is down, the next one opens a session; then that one
/// is written down too, and has to hear of it.
#[tokio::test]
async fn a_node_that_comes_back_while_it_is_being_written_down_opens_another_session() {
    let (store, came, gate) = (MemoryStore::default(), Notify::new(), Semaphore::new(0));
    let store = Arc::new(GatedStore { store, came, gate });
    let mut ids = IdSource::seeded(1);
    let mut cluster = Cluster { id: ids.next(), ..Cluster::default() };
    cluster.spec.dispatcher.heartbeat_period = PERIOD.into();
    let mut nodes = [ids.next(), ids.next()];
    nodes.sort();
    let [_, second] = nodes;
    let up = nodes.map(|id| {
        let mut node = Node { id, description: Some(Default::default()), ..Node::default() };
        node.status.state = NodeState::Ready;
        "127.0.0.1".clone_into(&mut node.status.addr);
        Change::create(node)
    });
    let create = up.into_iter().chain([Change::create(cluster)]).collect();
    store.store.commit(Batch::new(SystemClock.now(), create)).await.unwrap();
    let secrets = Arc::new(StoreSecrets::new(store.clone(), Arc::new(SystemClock)));
    let sessions = Arc::new(Sessions::new(store.clone(), secrets, Arc::new(SystemClock)));
    let running = sessions.clone();
    tokio::spawn(async move { running.run().await });
    let state = |store: &GatedStore| store.snapshot().nodes.get(second).unwrap().status.state;

    store.came.notified().await;
    let mut heard = connect(&sessions, second);
    let welcome = heard.recv().await;
    assert!(matches!(welcome, Some(ManagerMessage::Welcome { .. })), "{welcome:?}");
    assert_eq!(state(&store), NodeState::Ready, "the first one is being written");

    store.gate.add_permits(1);
    store.came.notified().await;
    // The session has time to look, and finds its node ready still.
    tokio::time::sleep(4 * GATHER).await;
    store.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    let over = async { while heard.recv().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(30), over).await.expect("the session ends");
    assert_eq!(state(&store), NodeState::Down);
    let mut heard = connect(&sessions, second);
    assert!(matches!(heard.recv().await, Some(ManagerMessage::Welcome { .. })));
    assert_eq!(state(&store), NodeState::Ready);
}
