//! Raft's messages in a stream over real TLS: each is authorised when it comes, and a stream ends with
//! what it hangs on.

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::stream;
use swarm_core::model::BlacklistedCertificate;
use swarm_core::store::{CommitError, Leadership};
use swarm_raft::{
    LinkError, Message, MessageKind, Peer as Member, RaftConfig, RaftLink, RaftStore,
};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;
use crate::identity::NodeCertificate;
use crate::manager::group::{Group, Replicated};
use crate::rpc::message::JoinGroup;
use crate::rpc::service::{GroupService, RaftAnswers, RaftCalls};
use crate::rpc::{RaftCall, RpcLink};

/// Within this, what should happen at once has happened.
const SOON: Duration = Duration::from_secs(20);

/// Answers each message with its own bytes, and says when the stream is over.
#[derive(Default)]
struct EchoGroup(Mutex<Option<mpsc::Sender<()>>>);

#[async_trait]
impl GroupService for EchoGroup {
    async fn receive(&self, _: &NodeCertificate, call: RaftCall) -> Result<Bytes, ApiError> {
        Ok(call.message.body)
    }

    fn stream(&self, _: NodeCertificate, calls: RaftCalls) -> RaftAnswers {
        let open = self.0.lock().unwrap().take();
        let echo = move |call: Result<RaftCall, ApiError>| {
            let _while_open = &open;
            call.map(|call| call.message.body)
        };
        calls.map(echo).boxed()
    }

    async fn join(&self, _: &NodeCertificate, _: SocketAddr, _: JoinGroup) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Serves a group's calls behind a port of its own.
pub(super) async fn serve_group(
    world: &World,
    group: Arc<dyn GroupService>,
) -> (String, CancellationToken) {
    let stored =
        StoreAuthority::new(world.store.clone(), Arc::new(SystemClock), IdSource::random());
    let stored = Arc::new(stored);
    let services = Services {
        ca: stored.clone(),
        sessions: Arc::new(Echo),
        control: stored.clone(),
        group,
        logs: Arc::new(Silent),
        membership: stored,
        clock: Arc::new(SystemClock),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let own = world.member(NodeRole::Manager, SystemClock.now());
    let cancel = world.cancel.child_token();
    tokio::spawn(serve(listener, own, services, cancel.clone()));
    (addr, cancel)
}

fn append(body: &'static [u8]) -> Message {
    Message { kind: MessageKind::Append, body: Bytes::from_static(body) }
}

type Answers<'a> = BoxStream<'a, Result<Bytes, LinkError>>;

async fn next(answers: &mut Answers<'_>) -> Option<Result<Bytes, LinkError>> {
    tokio::time::timeout(SOON, answers.next()).await.expect("nothing may hang")
}

/// An open stream over which one message was answered.
async fn opened<'a>(
    link: &'a RpcLink,
    addr: &str,
) -> (mpsc::UnboundedSender<Message>, Answers<'a>) {
    let (to, messages) = mpsc::unbounded_channel();
    let peer = Member { raft_id: 2, address: addr.to_owned() };
    let mut answers = link.stream(&peer, UnboundedReceiverStream::new(messages).boxed());
    to.send(append(b"first")).unwrap();
    assert_eq!(next(&mut answers).await, Some(Ok(Bytes::from_static(b"first"))));
    (to, answers)
}

#[tokio::test]
async fn answers_come_in_order_and_the_stream_ends_with_its_messages() {
    let world = World::start().await;
    let (addr, _) = serve_group(&world, Arc::new(EchoGroup::default())).await;
    let link = RpcLink::new(1, world.member(NodeRole::Manager, SystemClock.now()));
    let peer = Member { raft_id: 2, address: addr };
    let sizes = [0, 1, 100_000, 3, 5 << 20, 7];
    let messages = sizes.map(|size| Message {
        kind: MessageKind::Append,
        body: vec![u8::try_from(size % 251).unwrap(); size].into(),
    });
    let sent: Vec<Bytes> = messages.iter().map(|message| message.body.clone()).collect();
    let mut answers = link.stream(&peer, stream::iter(messages).boxed());
    for body in sent {
        assert!(next(&mut answers).await == Some(Ok(body)));
    }
    assert_eq!(next(&mut answers).await, None);
}

#[tokio::test]
async fn an_open_stream_opens_nothing_to_a_node_that_was_removed() {
    let world = World::start().await;
    let (addr, _) = serve_group(&world, Arc::new(EchoGroup::default())).await;
    let member = world.member(NodeRole::Manager, SystemClock.now());
    let (node_id, link) = (member.identity().node, RpcLink::new(1, member));
    let (to, mut answers) = opened(&link, &addr).await;
    let until = SystemClock.now() + HOUR;
    let entry = BlacklistedCertificate { node_id, until, ..Default::default() };
    world.update_cluster(|cluster| cluster.blacklist.push(entry)).await;
    to.send(append(b"second")).unwrap();
    match next(&mut answers).await {
        Some(Err(LinkError::Refused(why))) => assert!(why.contains("was removed"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(next(&mut answers).await, None);
}

#[tokio::test]
async fn a_stream_ends_with_its_connections_certificate_and_another_one_takes_its_place() {
    let world = World::start().await;
    let now = SystemClock.now();
    let (addr, _) = serve_group(&world, Arc::new(EchoGroup::default())).await;
    let identity = world.member(NodeRole::Manager, now).identity();
    let ends = certified(&world.authority, identity, now.before(HOUR - Duration::from_secs(4)));
    let credentials = Credentials::new(ends).unwrap();
    let link = RpcLink::new(1, credentials.clone());
    let (_to, mut answers) = opened(&link, &addr).await;
    assert_eq!(next(&mut answers).await, None, "without a message");
    credentials.replace(certified(&world.authority, identity, now)).unwrap();
    // The connection of then is given up when it is refused.
    let peer = Member { raft_id: 2, address: addr.clone() };
    let mut refused = link.stream(&peer, stream::pending().boxed());
    assert!(matches!(next(&mut refused).await, Some(Err(LinkError::Unreachable { .. }))));
    drop(opened(&link, &addr).await);
}

#[tokio::test]
async fn a_stream_ends_with_either_side() {
    let world = World::start().await;
    let group = Arc::new(EchoGroup::default());
    let (addr, cancel) = serve_group(&world, group.clone()).await;
    let link = RpcLink::new(1, world.member(NodeRole::Manager, SystemClock.now()));
    let (while_open, mut over) = mpsc::channel(1);
    *group.0.lock().unwrap() = Some(while_open);
    let (to, answers) = opened(&link, &addr).await;
    drop((to, answers));
    let ended = tokio::time::timeout(SOON, over.recv()).await;
    assert_eq!(ended.expect("the manager's side ends when the other's is dropped"), None);

    let (_to, mut answers) = opened(&link, &addr).await;
    cancel.cancel();
    assert_eq!(next(&mut answers).await, None, "a manager that stops waits for no stream");
    let peer = Member { raft_id: 2, address: addr };
    let mut gone = link.stream(&peer, stream::iter([append(b"")]).boxed());
    assert!(matches!(next(&mut gone).await, Some(Err(_))));
}

/// A member of raft on a directory of its own.
async fn store(dir: &std::path::Path, raft_id: u64, link: Arc<dyn RaftLink>) -> Arc<RaftStore> {
    let config = RaftConfig::new(dir.join(raft_id.to_string()), raft_id);
    RaftStore::open(config, link).await.unwrap()
}

fn named(id: swarm_core::model::NodeId, former: &[u64]) -> Batch {
    let node = Node { id, former_raft_ids: former.to_vec(), ..Node::default() };
    Batch::new(SystemClock.now(), vec![Change::create(node)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_was_put_out_is_refused_on_the_stream_that_it_has_open() {
    let (world, dir) = (World::start().await, tempfile::tempdir().unwrap());
    let of = |role| world.member(role, SystemClock.now().before(Duration::from_secs(60)));
    let (one, two) = (of(NodeRole::Manager), of(NodeRole::Manager));
    let me = one.identity().node;
    let link: Arc<dyn RaftLink> = Arc::new(RpcLink::new(2, two));
    let follower = store(dir.path(), 2, link.clone()).await;
    let member = Replicated { raft: follower.clone(), link };
    let group = Group::new(follower.clone(), member, Arc::new(SystemClock));
    let (addr, _) = serve_group(&world, Arc::new(group)).await;

    let leader = store(dir.path(), 1, Arc::new(RpcLink::new(1, one.clone()))).await;
    leader.initialize("127.0.0.1:1").await.unwrap();
    let leads = |now: &Leadership| now.epoch().is_some();
    let mut leadership = leader.leadership();
    tokio::time::timeout(SOON, leadership.wait_for(leads)).await.unwrap().unwrap();
    leader.add_member(&Member { raft_id: 2, address: addr.clone() }).await.unwrap();
    for _ in 0..50 {
        leader.commit(named(IdSource::random().next(), &[])).await.unwrap();
    }
    leader.commit(named(me, &[1])).await.unwrap();
    let applied = async {
        while follower.snapshot().nodes.get(me).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, applied).await.expect("the stream brings it");

    let after = IdSource::random().next();
    let had = follower.status().last_log_index;
    let lonely = tokio::time::timeout(SOON, leader.commit(named(after, &[]))).await.unwrap();
    assert!(matches!(lonely, Err(CommitError::Unknown(_) | CommitError::NoLeader)), "{lonely:?}");
    // Nor under a raft id that nobody has had.
    let posing = RpcLink::new(7, one);
    let to = Member { raft_id: 2, address: addr };
    for kind in [MessageKind::Append, MessageKind::Vote, MessageKind::Commit] {
        let message = Message { kind, body: Bytes::new() };
        match posing.call(&to, message).await {
            Err(LinkError::Refused(why)) => assert!(why.contains("was taken out"), "{why}"),
            other => panic!("{kind:?}: {other:?}"),
        }
    }
    assert_eq!(follower.status().last_log_index, had, "not one message more");
    leader.shutdown().await;
    follower.shutdown().await;
}
