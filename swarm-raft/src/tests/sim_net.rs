//! A network between stores in one process that loses, delays, repeats and cuts, as a seed says.
//! Within a stream nothing is repeated, and what is lost ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use swarm_core::id::IdSource;

use crate::{LinkError, Message, Peer, RaftLink, RaftStore};

/// The network; clones share it.
#[derive(Clone)]
pub(crate) struct SimNet(Arc<Mutex<State>>);

struct State {
    chance: IdSource,
    stores: BTreeMap<u64, Arc<RaftStore>>,
    cut: BTreeSet<(u64, u64)>,
    /// How many of a hundred messages, and of a hundred answers, are lost.
    lost: u64,
    /// Milliseconds that a message takes at most, each way.
    delay: u64,
    counts: Counts,
}

/// What became of messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) cut: u64,
    /// Answers that came over a stream while more messages of it were on their way.
    pub(crate) pipelined: u64,
}

/// After so long a connection without a sign of life is dead.
const KEEPALIVE: Duration = Duration::from_secs(2);

impl SimNet {
    pub(crate) fn new(seed: u64) -> Self {
        let (chance, counts) = (IdSource::seeded(seed), Counts::default());
        let (stores, cut) = (BTreeMap::new(), BTreeSet::new());
        Self(Arc::new(Mutex::new(State { chance, stores, cut, lost: 0, delay: 2, counts })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn link(&self, from: u64) -> Arc<dyn RaftLink> {
        Arc::new(SimLink { from, net: self.clone() })
    }

    pub(crate) fn join(&self, store: &Arc<RaftStore>) {
        self.state().stores.insert(store.raft_id(), store.clone());
    }

    pub(crate) fn leave(&self, id: u64) {
        self.state().stores.remove(&id);
    }

    /// Loses everything from one to the other, whatever is on its way included.
    pub(crate) fn cut(&self, from: u64, to: u64) {
        self.state().cut.insert((from, to));
    }

    pub(crate) fn weather(&self, lost: u64, delay: u64) {
        let mut state = self.state();
        (state.lost, state.delay) = (lost, delay);
    }

    /// Loses nothing any more.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.cut.clear();
        (state.lost, state.delay) = (0, 2);
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }
}

impl State {
    /// How long the way takes.
    fn way(&mut self) -> Duration {
        Duration::from_micros(self.chance.below(self.delay * 1_000 + 1))
    }

    /// Whether something arrives, at the end of its way.
    fn arrives(&mut self, from: u64, to: u64) -> bool {
        if self.cut.contains(&(from, to)) {
            self.counts.cut += 1;
            return false;
        }
        let lost = self.chance.below(100) < self.lost;
        self.counts.lost += u64::from(lost);
        self.counts.delivered += u64::from(!lost);
        !lost
    }
}

struct SimLink {
    from: u64,
    net: SimNet,
}

/// One direction of a stream.
#[derive(Clone)]
struct Direction {
    net: SimNet,
    from: u64,
    to: u64,
    /// The member at the other end of the stream, and its id: it may be gone, or another by now.
    store: (u64, Weak<RaftStore>),
    lost: Arc<AtomicBool>,
}

impl Direction {
    /// Each item takes a time of its own and passes none before it; it ends with the first that is lost.
    fn carry<T: Send>(self, items: impl Stream<Item = T> + Send) -> impl Stream<Item = T> + Send {
        let net = self.net.clone();
        let way = move |item| {
            let way = net.state().way();
            async move {
                tokio::time::sleep(way).await;
                item
            }
        };
        items.map(way).buffered(MANY).scan((), move |(), item| {
            let arrives = self.arrives();
            self.lost.fetch_or(!arrives, Ordering::Relaxed);
            ready(arrives.then_some(item))
        })
    }

    fn arrives(&self) -> bool {
        let mut state = self.net.state();
        let (id, store) = &self.store;
        let there =
            state.stores.get(id).is_some_and(|now| Weak::ptr_eq(&Arc::downgrade(now), store));
        there && state.arrives(self.from, self.to)
    }
}

/// More than a stream has on its way at once.
const MANY: usize = 64;

#[async_trait]
impl RaftLink for SimLink {
    async fn call(&self, peer: &Peer, message: Message) -> Result<Bytes, LinkError> {
        let (net, to) = (&self.net, peer.raft_id);
        let way = net.state().way();
        tokio::time::sleep(way).await;
        if !net.state().arrives(self.from, to) {
            return Err(silence().await);
        }
        let Some(store) = net.state().stores.get(&to).cloned() else {
            let (raft_id, address) = (to, peer.address.clone());
            let reason = "nobody listens there".to_owned();
            return Err(LinkError::Unreachable { raft_id, address, reason });
        };
        let again = {
            let mut state = net.state();
            let again = state.lost > 0 && state.chance.below(20) == 0;
            state.counts.repeated += u64::from(again);
            again
        };
        if again {
            let (store, message, later) = (store.clone(), message.clone(), net.state().way());
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                drop(store.receive(message).await);
            });
        }
        let answer = store.receive(message).await;
        drop(store);
        let way = net.state().way();
        tokio::time::sleep(way).await;
        if !net.state().arrives(to, self.from) {
            return Err(silence().await);
        }
        answer
    }

    fn stream<'a>(
        &'a self,
        peer: &Peer,
        messages: BoxStream<'static, Message>,
    ) -> BoxStream<'a, Result<Bytes, LinkError>> {
        let (net, from, to) = (self.net.clone(), self.from, peer.raft_id);
        let Some(store) = net.state().stores.get(&to).cloned() else {
            let (raft_id, address) = (to, peer.address.clone());
            let reason = "nobody listens there".to_owned();
            let error = LinkError::Unreachable { raft_id, address, reason };
            return stream::once(ready(Err(error))).boxed();
        };
        let (lost, under_way) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let end = (to, Arc::downgrade(&store));
        let there = Direction { net: net.clone(), from, to, store: end, lost: lost.clone() };
        let back = Direction { from: to, to: from, ..there.clone() };
        let sent = under_way.clone();
        let messages = messages.inspect(move |_| {
            sent.fetch_add(1, Ordering::Relaxed);
        });
        let answers = store.receive_stream(there.carry(messages).map(Ok).boxed());
        let answers = back.carry(answers).inspect(move |_| {
            let more = under_way.fetch_sub(1, Ordering::Relaxed) > 1;
            net.state().counts.pipelined += u64::from(more);
        });
        let silence = stream::once(async move {
            if lost.load(Ordering::Relaxed) { Some(Err(silence().await)) } else { None }
        });
        answers.chain(silence.filter_map(ready)).boxed()
    }
}

/// Nobody knows that something is lost until the connection is found dead.
async fn silence() -> LinkError {
    tokio::time::sleep(KEEPALIVE).await;
    LinkError::Unanswered("the connection is dead".to_owned())
}
