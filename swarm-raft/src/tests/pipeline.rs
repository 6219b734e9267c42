//! Entries on their way over one stream, against a peer whose answers the test gives.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use openraft::errors::RPCError;
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use openraft::{BasicNode, RaftNetworkFactory as _, RaftNetworkV2 as _};
use tokio::sync::mpsc;

use crate::addresses::Addresses;
use crate::link::{LinkError, Message, NoPeers, Peer, RaftLink};
use crate::network::{Client, Confirmed, Network, Sending};
use crate::pipeline::IN_FLIGHT;
use crate::types::{LogId, Types, Vote};
use crate::wire::{self, Appended};

const TERM: u64 = 3;
const HARD: Duration = Duration::from_millis(400);

type Request = AppendEntriesRequest<Types>;
type Answer = Result<StreamAppendResult<Types>, RPCError<Types>>;

fn at(index: u64) -> LogId {
    LogId::new_term_index(TERM, index)
}

/// A message without entries: its answer confirms `previous`.
fn request(previous: u64) -> Request {
    let prev_log_id = (previous > 0).then(|| at(previous));
    let vote = Vote::new_committed(TERM, 1);
    Request { vote, prev_log_id, entries: Vec::new(), leader_commit: None }
}

/// The peer's end: the messages that came, and where its answers go.
struct Opened {
    peer: Peer,
    messages: BoxStream<'static, Message>,
    answers: mpsc::UnboundedSender<Result<Bytes, LinkError>>,
}

impl Opened {
    /// Which requests have come by now.
    fn came(&mut self) -> Vec<u64> {
        let mut came = Vec::new();
        while let Some(Some(message)) = self.messages.next().now_or_never() {
            let request = wire::decode_append(&message.body).unwrap();
            came.push(request.prev_log_id.map_or(0, |id| id.index));
        }
        came
    }

    fn ended(&mut self) -> bool {
        matches!(self.messages.next().now_or_never(), Some(None))
    }

    fn answer(&self, answer: &Appended) {
        self.answers.send(Ok(wire::encode(answer).into())).unwrap();
    }
}

/// A link that hands the peer's end to the test.
struct Scripted(mpsc::UnboundedSender<Opened>);

#[async_trait]
impl RaftLink for Scripted {
    async fn call(&self, peer: &Peer, message: Message) -> Result<Bytes, LinkError> {
        NoPeers.call(peer, message).await
    }

    fn stream<'a>(
        &'a self,
        peer: &Peer,
        messages: BoxStream<'static, Message>,
    ) -> BoxStream<'a, Result<Bytes, LinkError>> {
        let (answers, given) = mpsc::unbounded_channel();
        self.0.send(Opened { peer: peer.clone(), messages, answers }).unwrap();
        stream::unfold(given, |mut given| async { Some((given.recv().await?, given)) }).boxed()
    }
}

struct World {
    client: Client,
    addresses: Addresses,
    opened: mpsc::UnboundedReceiver<Opened>,
}

impl World {
    async fn start() -> Self {
        let (to, opened) = mpsc::unbounded_channel();
        let addresses = Addresses::default();
        let mut network = Network {
            raft_id: 1,
            link: Arc::new(Scripted(to)),
            addresses: addresses.clone(),
            sending: Sending::default(),
            confirmed: Confirmed::default(),
        };
        let client = network.new_client(2, &BasicNode::new("first")).await;
        Self { client, addresses, opened }
    }

    /// Sends these and then nothing for ever, as openraft does while nobody writes.
    async fn open(&mut self, previous: Vec<u64>) -> (BoxStream<'_, Answer>, Opened) {
        let requests = stream::iter(previous).map(request).chain(stream::pending());
        self.send(requests.boxed()).await
    }

    async fn send(
        &mut self,
        input: BoxStream<'static, Request>,
    ) -> (BoxStream<'_, Answer>, Opened) {
        let answers = self.client.stream_append(input, RPCOption::new(HARD)).await.unwrap();
        (answers, self.opened.try_recv().unwrap())
    }
}

async fn next(answers: &mut BoxStream<'_, Answer>) -> Answer {
    answers.next().await.expect("an answer")
}

fn confirms(answer: Answer) -> u64 {
    answer.unwrap().unwrap().map_or(0, |id| id.index)
}

/// Has the first of the requests answered, and the others come.
async fn first_is_answered(answers: &mut BoxStream<'_, Answer>, peer: &mut Opened) -> Vec<u64> {
    let first = peer.came();
    assert_eq!(first.len(), 1, "one goes first");
    peer.answer(&Appended::All);
    assert_eq!(confirms(next(answers).await), first[0]);
    assert!(peer.came().is_empty(), "until openraft comes for more, it may take the peer for lost");
    assert!(answers.next().now_or_never().is_none());
    peer.came()
}

#[tokio::test]
async fn several_are_on_their_way_at_once_and_answers_belong_to_them_in_order() {
    let mut world = World::start().await;
    let (mut answers, mut peer) = world.open((0..=20).collect()).await;
    let ahead: Vec<u64> = (1..=IN_FLIGHT as u64).collect();
    let came = first_is_answered(&mut answers, &mut peer).await;
    assert_eq!(came, ahead, "as many as may be without an answer, and no more");
    for index in 1..=20 {
        peer.answer(&Appended::All);
        assert_eq!(confirms(next(&mut answers).await), index);
        let more: Vec<u64> =
            (index + IN_FLIGHT as u64..).take(1).filter(|next| *next <= 20).collect();
        assert_eq!(peer.came(), more, "one comes for each that is answered");
    }
    tokio::time::sleep(2 * HARD).await;
    assert!(answers.next().now_or_never().is_none(), "an idle stream stays open");
}

#[tokio::test]
async fn it_ends_with_the_requests_once_they_are_answered() {
    let mut world = World::start().await;
    let (mut answers, mut peer) = world.send(stream::iter([request(0)]).boxed()).await;
    assert_eq!(peer.came(), [0]);
    peer.answer(&Appended::All);
    assert_eq!(confirms(next(&mut answers).await), 0);
    assert!(answers.next().now_or_never().is_none());
    assert!(peer.ended());
    // The link has not ended it: it is not waited for without end.
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_lost_answer_ends_the_stream_in_time_and_the_requests_are_let_go() {
    let mut world = World::start().await;
    let (mut answers, mut peer) = world.open(vec![1, 2, 3]).await;
    assert_eq!(first_is_answered(&mut answers, &mut peer).await, [2, 3]);
    let late = next(&mut answers).await;
    assert!(matches!(late, Err(RPCError::Timeout(_))), "{late:?}");
    assert!(answers.next().await.is_none());
    assert!(peer.ended(), "the peer's side ends too");
}

#[tokio::test]
async fn a_link_that_never_connects_or_gives_up_is_not_waited_for() {
    let mut world = World::start().await;
    let (mut answers, _peer) = world.open(vec![1]).await;
    let late = next(&mut answers).await;
    assert!(matches!(late, Err(RPCError::Timeout(_))), "{late:?}");
    drop(answers);

    let (mut answers, mut peer) = world.open(vec![]).await;
    assert!(peer.came().is_empty());
    peer.messages = stream::empty().boxed();
    let given_up = next(&mut answers).await;
    assert!(matches!(given_up, Err(RPCError::Network(_))), "{given_up:?}");
    drop(answers);

    let (mut answers, Opened { answers: end, mut messages, .. }) = world.open(vec![1]).await;
    assert!(messages.next().await.is_some());
    drop(end);
    let ended = next(&mut answers).await;
    assert!(matches!(ended, Err(RPCError::Network(_))), "{ended:?}");
}

#[tokio::test]
async fn failures_of_the_link_keep_their_kind() {
    let mut world = World::start().await;
    for unreachable in [true, false] {
        let (mut answers, peer) = world.open(vec![1, 2]).await;
        let (raft_id, address, reason) = (2, "first".to_owned(), "dead".to_owned());
        let error = match unreachable {
            true => LinkError::Unreachable { raft_id, address, reason },
            false => LinkError::Refused(reason),
        };
        peer.answers.send(Err(error)).unwrap();
        match next(&mut answers).await {
            Err(RPCError::Unreachable(_)) => assert!(unreachable),
            Err(RPCError::Network(_)) => assert!(!unreachable),
            other => panic!("{other:?}"),
        }
        assert!(answers.next().await.is_none());
    }
}

#[tokio::test]
async fn nothing_follows_an_answer_that_is_no_whole_success() {
    let mut world = World::start().await;
    let higher = Vote::new(TERM + 1, 3);
    let cases = [
        (Appended::Conflict, Ok(Err(StreamAppendError::Conflict(at(5))))),
        (Appended::HigherVote(higher.into()), Ok(Err(StreamAppendError::HigherVote(higher)))),
        (Appended::UpTo(Some(at(4).into())), Ok(Ok(Some(at(4))))),
    ];
    for (answer, expected) in cases {
        let (mut answers, mut peer) = world.open(vec![1, 5, 6, 7]).await;
        assert_eq!(first_is_answered(&mut answers, &mut peer).await, [5, 6, 7]);
        peer.answer(&answer);
        // What the peer says of the others is of no interest.
        peer.answer(&Appended::All);
        let expected: Answer = expected;
        assert_eq!(format!("{:?}", next(&mut answers).await), format!("{expected:?}"));
        assert!(answers.next().await.is_none());
        assert!(peer.ended());
    }
    let (mut answers, mut peer) = world.open(vec![1, 5, 6]).await;
    assert_eq!(first_is_answered(&mut answers, &mut peer).await, [5, 6]);
    peer.answer(&Appended::UpTo(Some(at(5).into())));
    peer.answer(&Appended::All);
    assert_eq!(confirms(next(&mut answers).await), 5);
    assert_eq!(confirms(next(&mut answers).await), 6, "all of it is a whole success");
}

#[tokio::test]
async fn answers_that_make_no_sense_are_errors() {
    let mut world = World::start().await;
    let (mut answers, mut peer) = world.open(vec![0]).await;
    assert_eq!(peer.came(), [0]);
    peer.answer(&Appended::Conflict);
    assert!(next(&mut answers).await.is_err(), "nothing contradicts an empty log");
    drop(answers);
    let (mut answers, peer) = world.open(vec![]).await;
    peer.answer(&Appended::All);
    assert!(next(&mut answers).await.is_err(), "an answer to nothing");
    drop(answers);
    let (mut answers, mut peer) = world.open(vec![1]).await;
    assert_eq!(peer.came(), [1]);
    peer.answers.send(Ok(Bytes::from_static(b"{"))).unwrap();
    assert!(next(&mut answers).await.is_err(), "damage");
}

#[tokio::test]
async fn an_old_copy_of_a_directory_is_refused() {
    let mut world = World::start().await;
    let (mut answers, mut peer) = world.open(vec![4, 5, 6]).await;
    assert_eq!(first_is_answered(&mut answers, &mut peer).await, [5, 6]);
    peer.answer(&Appended::All);
    assert_eq!(confirms(next(&mut answers).await), 5);
    // It has never confirmed 6.
    peer.answer(&Appended::Conflict);
    assert!(matches!(next(&mut answers).await, Ok(Err(StreamAppendError::Conflict(_)))));
    drop(answers);
    let (mut answers, mut peer) = world.open(vec![5]).await;
    assert_eq!(peer.came(), [5]);
    peer.answer(&Appended::Conflict);
    match next(&mut answers).await {
        Err(RPCError::Unreachable(why)) => assert!(why.to_string().contains("is an old copy")),
        other => panic!("{other:?}"),
    }
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_dropped_stream_lets_go_of_its_requests_at_once() {
    let mut world = World::start().await;
    let held = Arc::new(Mutex::new(()));
    let own = held.clone();
    let input =
        stream::iter([request(1)]).chain(stream::pending()).inspect(move |_| drop(own.lock()));
    let (answers, mut peer) = world.send(input.boxed()).await;
    assert_eq!(peer.came(), [1]);
    assert_eq!(Arc::strong_count(&held), 2);
    drop(answers);
    assert_eq!(Arc::strong_count(&held), 1, "whatever the link still holds");
    assert!(peer.ended());
}

#[tokio::test]
async fn a_member_is_called_where_it_was_found() {
    let mut world = World::start().await;
    let (answers, peer) = world.open(vec![]).await;
    assert_eq!(peer.peer.address, "first");
    drop(answers);
    world.addresses.agree([(2, "first")].into_iter());
    world.addresses.found(&Peer { raft_id: 2, address: "elsewhere".to_owned() });
    let (_answers, peer) = world.open(vec![]).await;
    assert_eq!(peer.peer.address, "elsewhere");
}
