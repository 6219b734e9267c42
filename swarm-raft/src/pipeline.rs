//! Entries on their way to a peer over one ordered stream, several messages at once: the next one does
//! not wait until the peer has the last one on its disk.
//!
//! ```text
//! openraft's requests ─▶ Outbound ─▶ link ─▶ peer: `answer_all` ─▶ link ─▶ Inbound ─▶ openraft
//!                           └───── Flight: what has no answer yet ─────┘
//! ```

use std::collections::VecDeque;
use std::future::ready;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use openraft::errors::{NetworkError, RPCError};
use openraft::network::RPCTypes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
};
use tokio::time::Instant;

use crate::link::{LinkError, Message, MessageKind};
use crate::network::{Client, malformed, refused, rpc_error};
use crate::store::{Heard, hear};
use crate::types::{LogId, Raft, Types};
use crate::wire::{self, Appended};

/// Messages that may be without an answer at once. A few cover what the leader proposes while a peer
/// syncs, and the way there; of 8 MiB each at most, this many are still a modest amount of memory.
pub(crate) const IN_FLIGHT: usize = 8;

type Request = AppendEntriesRequest<Types>;
type Answer = Result<StreamAppendResult<Types>, RPCError<Types>>;

/// What a message says, as far as its answer is about it.
#[derive(Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) term: u64,
    pub(crate) previous: Option<LogId>,
    pub(crate) last: Option<LogId>,
}

impl Sent {
    pub(crate) fn of(rpc: &Request) -> Self {
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        Self { term: rpc.vote.leader_id.term, previous: rpc.prev_log_id, last }
    }

    /// What an answer says of this message, and whether the stream may go on after it: what follows a
    /// message that was not taken as a whole cannot be taken either.
    fn outcome(self, answer: Appended) -> (Answer, bool) {
        match AppendEntriesResponse::from(answer) {
            AppendEntriesResponse::Success => (Ok(Ok(self.last)), true),
            AppendEntriesResponse::PartialSuccess(upto) => (Ok(Ok(upto)), upto == self.last),
            AppendEntriesResponse::HigherVote(vote) => {
                (Ok(Err(StreamAppendError::HigherVote(vote))), false)
            }
            AppendEntriesResponse::Conflict => match self.previous {
                Some(previous) => (Ok(Err(StreamAppendError::Conflict(previous))), false),
                None => (Err(broken("nothing contradicts the beginning of the log")), false),
            },
        }
    }
}

fn broken(what: &str) -> RPCError<Types> {
    RPCError::Network(NetworkError::from_string(what))
}

/// The requests that were sent and have no answer yet, and where the next come from.
struct Flight<S> {
    /// Absent when it has ended, and when one of the two sides was dropped.
    input: Option<S>,
    ended: bool,
    sent: VecDeque<Sent>,
    /// How many more may be sent now.
    permits: usize,
    /// Whether openraft has the first answer.
    open: bool,
    /// Whether the link has asked for a request: it is connected then.
    asked: bool,
    /// Since when the link, or else the first answer, is waited for.
    since: Instant,
    /// Whom to wake when there may be a request again.
    link: Option<Waker>,
}

/// What there is to wait for.
#[derive(Debug, PartialEq, Eq)]
enum Waits {
    /// An answer, or the link.
    Until(Instant),
    /// The next request.
    Idle,
    /// The end: everything was sent and answered.
    End,
    /// Nothing any more: the link has let go of requests that it was to send.
    LetGo,
}

impl<S> Flight<S> {
    /// One request goes first, and others follow once openraft knows its answer: it pauses before every
    /// request that it makes for a peer which it takes for lost.
    fn new(input: S, now: Instant) -> Self {
        Self {
            input: Some(input),
            ended: false,
            sent: VecDeque::new(),
            permits: 1,
            open: false,
            asked: false,
            since: now,
            link: None,
        }
    }

    fn waits(&self, limit: Duration) -> Waits {
        match &self.input {
            _ if !self.sent.is_empty() || !self.asked => Waits::Until(self.since + limit),
            Some(_) => Waits::Idle,
            None if self.ended => Waits::End,
            None => Waits::LetGo,
        }
    }

    /// Takes the request that an answer is for: the first, for answers come in order.
    fn answered(&mut self, now: Instant) -> Option<Sent> {
        self.since = now;
        let sent = self.sent.pop_front()?;
        if self.open {
            self.permit(1);
        }
        Some(sent)
    }

    /// Openraft comes for another answer, and so it has those before.
    fn has_answers(&mut self) {
        if !self.open {
            self.open = true;
            self.permit(IN_FLIGHT);
        }
    }

    fn permit(&mut self, more: usize) {
        if self.permits == 0 {
            self.wake();
        }
        self.permits += more;
    }

    /// Has the link ask again: there may be a request for it now.
    fn wake(&mut self) {
        if let Some(link) = self.link.take() {
            link.wake();
        }
    }

    /// Lets go of the requests, which openraft waits for before it opens another stream.
    fn close(&mut self) {
        self.input = None;
        self.wake();
    }
}

struct Shared<S>(Arc<Mutex<Flight<S>>>);

impl<S> Shared<S> {
    fn flight(&self) -> MutexGuard<'_, Flight<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Either side lets go of the requests; the link may keep its own for as long as it likes.
impl<S> Drop for Shared<S> {
    fn drop(&mut self) {
        self.flight().close();
    }
}

/// The requests as the link takes them: never more than [`IN_FLIGHT`] without an answer.
struct Outbound<S>(Shared<S>);

impl<S: Stream<Item = Request> + Unpin> Stream for Outbound<S> {
    type Item = Message;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let mut flight = self.0.flight();
        flight.asked = true;
        flight.link = Some(context.waker().clone());
        let full = flight.permits == 0;
        let request = match &mut flight.input {
            None => return Poll::Ready(None),
            Some(_) if full => return Poll::Pending,
            Some(input) => std::task::ready!(input.poll_next_unpin(context)),
        };
        let Some(request) = request else {
            (flight.input, flight.ended) = (None, true);
            return Poll::Ready(None);
        };
        if flight.sent.is_empty() {
            flight.since = Instant::now();
        }
        flight.permits -= 1;
        flight.sent.push_back(Sent::of(&request));
        drop(flight);
        let body = wire::encode_append(&request).into();
        Poll::Ready(Some(Message { kind: MessageKind::Append, body }))
    }
}

/// The answers as openraft takes them.
struct Inbound<'a, S> {
    client: &'a Client,
    answers: BoxStream<'a, Result<Bytes, LinkError>>,
    shared: Shared<S>,
    /// How long an answer may take: since the message was sent, or the one before was answered.
    limit: Duration,
}

impl<S> Inbound<'_, S> {
    /// The next answer, and whether there may be another. None is the end.
    async fn next(&mut self) -> Option<(Answer, bool)> {
        loop {
            let waits = self.shared.flight().waits(self.limit);
            let until = match waits {
                Waits::Until(until) => until,
                // Whatever is sent meanwhile may take longer than that. At the end, it is the link's own
                // end that is waited for: it closes in order.
                Waits::Idle | Waits::End | Waits::LetGo => Instant::now() + self.limit,
            };
            match tokio::time::timeout_at(until, self.answers.next()).await {
                Ok(Some(Ok(answer))) => return Some(self.take(&answer)),
                Ok(Some(Err(error))) => return Some((Err(rpc_error(&error)), false)),
                Ok(None) if self.shared.flight().waits(self.limit) == Waits::End => return None,
                Ok(None) => return Some((Err(broken("the peer has ended the stream")), false)),
                Err(_) => match self.shared.flight().waits(self.limit) {
                    Waits::Until(until) if until <= Instant::now() => {
                        let late = self.client.late(RPCTypes::AppendEntries, self.limit);
                        return Some((Err(late), false));
                    }
                    Waits::Until(_) | Waits::Idle => {}
                    Waits::End => return None,
                    Waits::LetGo => {
                        return Some((Err(broken("the link has given the stream up")), false));
                    }
                },
            }
        }
    }

    fn take(&mut self, answer: &[u8]) -> (Answer, bool) {
        let Some(sent) = self.shared.flight().answered(Instant::now()) else {
            return (Err(broken("an answer to nothing")), false);
        };
        let appended: Appended = match wire::decode(answer) {
            Ok(appended) => appended,
            Err(bad) => return (Err(RPCError::Network(NetworkError::new(&bad))), false),
        };
        match self.client.hold_to(sent, &appended) {
            Ok(()) => sent.outcome(appended),
            Err(contradiction) => (Err(contradiction), false),
        }
    }
}

/// Sends requests to the client's peer where it is now, and gives their answers in order. The stream
/// ends with the requests, or with the first answer that is not a whole success, or an error.
pub(crate) fn send_all<'a, S>(
    client: &'a Client,
    requests: S,
    limit: Duration,
) -> BoxStream<'a, Answer>
where
    S: Stream<Item = Request> + Send + Unpin + 'static,
{
    let flight = Arc::new(Mutex::new(Flight::new(requests, Instant::now())));
    let outbound = Outbound(Shared(flight.clone()));
    let answers = client.link.stream(&client.present(), outbound.boxed());
    let inbound = Inbound { client, answers, shared: Shared(flight), limit };
    let next = |inbound: Option<(Inbound<'a, S>, bool)>| async {
        let (mut inbound, first) = inbound?;
        if !first {
            inbound.shared.flight().has_answers();
        }
        let (answer, more) = inbound.next().await?;
        Some((answer, more.then_some((inbound, false))))
    };
    stream::unfold(Some((inbound, true)), next).boxed()
}

/// Answers a peer's messages with entries in their order; raft takes the next one while the disk still
/// has to do with the last one. An error among the messages ends the stream after the answers to those
/// before it.
pub(crate) fn answer_all<E>(
    raft: &Raft,
    heard: Heard,
    messages: impl Stream<Item = Result<Message, E>> + Send + 'static,
) -> BoxStream<'static, Result<Bytes, E>>
where
    E: From<LinkError> + Send + 'static,
{
    let refusal = Arc::<Mutex<Option<E>>>::default();
    let refuse = refusal.clone();
    let requests = messages.scan((), move |(), message| {
        let request = message.and_then(|message| read(&message).map_err(E::from));
        let keep = |error| *refuse.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        ready(request.map_err(keep).ok())
    });
    let answers = raft.stream_append(requests).map(move |result| {
        let result = result.map_err(|fatal| E::from(refused(fatal)))?;
        let response = AppendEntriesResponse::from(result);
        hear(&heard, &response);
        Ok(wire::encode(&Appended::from(response)).into())
    });
    let refusal = async move { refusal.lock().unwrap_or_else(PoisonError::into_inner).take() };
    let refusal = stream::once(refusal).filter_map(|refusal| ready(refusal.map(Err)));
    answers.chain(refusal).boxed()
}

fn read(message: &Message) -> Result<Request, LinkError> {
    match message.kind {
        MessageKind::Append => wire::decode_append(&message.body).map_err(malformed),
        kind => Err(LinkError::Malformed(format!("a stream has no {} messages", kind.as_str()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn each_answer_has_a_time_of_its_own() {
        let (begun, sent) = (Instant::now(), Sent { term: 1, previous: None, last: None });
        let mut flight = Flight::new((), begun);
        assert_eq!(flight.waits(LIMIT), Waits::Until(begun + LIMIT), "for a connection");
        flight.asked = true;
        assert_eq!(flight.waits(LIMIT), Waits::Idle);
        flight.sent.extend([sent, sent]);
        assert_eq!(flight.waits(LIMIT), Waits::Until(begun + LIMIT), "for the first answer");
        // The peer syncs one after the other.
        let answered = begun + LIMIT / 2;
        assert!(flight.answered(answered).is_some());
        assert_eq!(flight.waits(LIMIT), Waits::Until(answered + LIMIT));
        assert!(flight.answered(answered).is_some() && flight.answered(answered).is_none());
        assert_eq!(flight.waits(LIMIT), Waits::Idle);
        flight.close();
        assert_eq!(flight.waits(LIMIT), Waits::LetGo);
        flight.ended = true;
        assert_eq!(flight.waits(LIMIT), Waits::End);
    }
}
