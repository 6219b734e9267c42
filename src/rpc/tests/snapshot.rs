//! A snapshot of several parts over real TLS.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use swarm_core::model::{Secret, SecretBytes};
use swarm_core::store::Leadership;
use swarm_raft::{MessageKind, Peer as Member, RaftConfig, RaftStore};

use super::stream::serve_group;
use super::*;
use crate::identity::NodeCertificate;
use crate::manager::group::{Group, Replicated};
use crate::rpc::message::JoinGroup;
use crate::rpc::service::{GroupService, RaftAnswers, RaftCalls};
use crate::rpc::{RaftCall, RpcLink};

const PATIENCE: Duration = Duration::from_secs(60);

/// A member of the group, and how many parts of snapshots it was sent.
struct Counting {
    group: Group,
    parts: Arc<AtomicUsize>,
}

#[async_trait]
impl GroupService for Counting {
    async fn receive(&self, peer: &NodeCertificate, call: RaftCall) -> Result<Bytes, ApiError> {
        let part = call.message.kind == MessageKind::Snapshot;
        self.parts.fetch_add(usize::from(part), Ordering::Relaxed);
        self.group.receive(peer, call).await
    }

    fn stream(&self, peer: NodeCertificate, calls: RaftCalls) -> RaftAnswers {
        self.group.stream(peer, calls)
    }

    async fn join(
        &self,
        peer: &NodeCertificate,
        at: SocketAddr,
        who: JoinGroup,
    ) -> Result<(), ApiError> {
        self.group.join(peer, at, who).await
    }
}

/// A manager of a group: its store, and what is behind its port.
struct Manager {
    store: Arc<RaftStore>,
    group: Arc<Counting>,
}

impl Manager {
    async fn open(world: &World, dir: &Path, raft_id: u64) -> Self {
        let own = world.member(NodeRole::Manager, SystemClock.now());
        let mut config = RaftConfig::new(dir.join(raft_id.to_string()), raft_id);
        (config.snapshot_entries, config.keep_entries) = (20, 5);
        let link = Arc::new(RpcLink::new(raft_id, own));
        let store = RaftStore::open(config, link.clone()).await.unwrap();
        let member = Replicated { raft: store.clone(), link };
        let group = Group::new(store.clone(), member, Arc::new(SystemClock));
        let group = Arc::new(Counting { group, parts: Arc::default() });
        Self { store, group }
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

fn secret(size: usize) -> Batch {
    let mut ids = IdSource::random();
    let mut secret = Secret { id: ids.next(), ..Secret::default() };
    secret.spec.name = secret.id.to_string();
    secret.spec.data = Some(SecretBytes::from(vec![7; size]));
    Batch::new(SystemClock.now(), vec![Change::create(secret)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_fell_behind_is_sent_a_snapshot_while_the_leader_goes_on() {
    let (world, dir) = (World::start().await, tempfile::tempdir().unwrap());
    let first = Manager::open(&world, dir.path(), 1).await;
    let (addr, _) = serve_group(&world, first.group.clone()).await;
    first.store.initialize(&addr).await.unwrap();
    let mut leadership = first.store.leadership();
    let leads = leadership.wait_for(|now| matches!(now, Leadership::Leader(_)));
    tokio::time::timeout(PATIENCE, leads).await.unwrap().unwrap();
    let mut others = Vec::new();
    for raft_id in [2, 3] {
        let other = Manager::open(&world, dir.path(), raft_id).await;
        let (address, port) = serve_group(&world, other.group.clone()).await;
        first.store.add_member(&Member { raft_id, address }).await.unwrap();
        others.push((other, port));
    }
    let (third, port) = others.pop().unwrap();

    // Nobody reaches it while the log goes on beyond what it has.
    port.cancel();
    let had = third.store.status().last_log_index;
    for _ in 0..60 {
        first.store.commit(secret(50_000)).await.unwrap();
    }
    // One that has them all: what it was sent is counted below.
    first.store.take_snapshot().await.unwrap();
    until("the log is purged", || first.store.status().purged_index > had).await;

    let over = Arc::<AtomicBool>::default();
    let (store, stop) = (first.store.clone(), over.clone());
    let writing = tokio::spawn(async move {
        let mut written = 0;
        while !stop.load(Ordering::Relaxed) {
            store.commit(secret(10)).await.expect("the leader waits for no slow member");
            written += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        written
    });
    let (address, _) = serve_group(&world, third.group.clone()).await;
    first.store.found(&Member { raft_id: 3, address });
    let large = |store: &RaftStore| {
        let view = store.snapshot();
        view.secrets.iter().filter(|s| s.spec.data.as_ref().is_some_and(|d| d.len() > 10)).count()
    };
    until("it is caught up", || large(&third.store) == 60).await;
    over.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap();
    until("it has the rest too", || third.store.snapshot().secrets.iter().count() == 60 + written)
        .await;
    let parts = third.group.parts.load(Ordering::Relaxed);
    assert!(parts > 5, "3 MB and more in {parts} parts");
    assert!(third.store.snapshot().objects().eq(first.store.snapshot().objects()));
    for store in [&first.store, &others[0].0.store, &third.store] {
        store.shutdown().await;
    }
}
