//! [`RaftStore`]: a [`Store`] whose acknowledged writes survive crashes of this machine and, with
//! several managers, the loss of a minority of them.

use std::any::Any;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use openraft::metrics::WaitError;
use openraft::raft::AppendEntriesResponse;
use openraft::{Instant as _, ServerState};
use openraft_rt::WatchReceiver as _;
use swarm_core::model::Version;
use swarm_core::store::{
    Batch, CommitError, Epoch, Leadership, MemoryStore, Snapshot, Store, Watch,
};
use tokio::sync::{Mutex, Notify, RwLockReadGuard, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::info;

use crate::addresses::Addresses;
use crate::config::RaftConfig;
use crate::error::OpenError;
use crate::forward::LEADER_WITHIN;
use crate::handover::Way;
use crate::keys::DataKeys;
use crate::link::{LinkError, Message, MessageKind, RaftLink};
use crate::log;
use crate::log::{Health, Log};
use crate::machine::Machine;
use crate::network::{Confirmed, Network, Receiver, Sending};
use crate::pipeline;
use crate::propose::{self, Pending};
use crate::renew::Renew;
use crate::seal::SealKey;
use crate::snapshot::{Snapshots, is_snapshot};
use crate::step_down;
use crate::types::{Raft, Types, term};

/// How many election timeouts a leader may be silent, or not hear from a majority, until there is
/// no leader: by then another should have been elected.
const SILENCE: u32 = 2;
/// Batches that may wait to be proposed; more wait to wait.
const QUEUE: usize = 4096;
/// How long a writer waits for its outcome. Longer than any election and any slow sync that a
/// store should live with; without a majority of managers, entries wait for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a snapshot is waited for until it is asked for again.
const RETAKE: Duration = Duration::from_secs(1);

/// How long at most a snapshot waits for one that is on its way to a peer. The log grows meanwhile.
const HOLD: Duration = Duration::from_secs(300);

/// The durable, replicated store.
///
/// The leadership epoch is the raft term. This store says that it leads only once it has applied
/// the first entry of its own term, and with it everything that was ever acknowledged.
pub struct RaftStore {
    pub(crate) raft: Raft,
    pub(crate) config: RaftConfig,
    pub(crate) state: Arc<MemoryStore>,
    pub(crate) keys: DataKeys,
    /// Told when there is a new data key.
    sealed_anew: Arc<Notify>,
    log: Log,
    snapshots: Arc<Snapshots>,
    receiver: Receiver,
    pub(crate) link: Arc<dyn RaftLink>,
    pub(crate) addresses: Addresses,
    leadership: watch::Receiver<Leadership>,
    proposals: mpsc::Sender<Pending>,
    pub(crate) way: Way,
    /// Ends the streams of peers when the store stops or is dropped.
    closing: watch::Sender<()>,
    tasks: Vec<AbortHandle>,
}

impl RaftStore {
    /// Opens the store in a directory, or begins one there. A store that was a member before is
    /// one again, by itself; a new one waits to be [initialised](Self::initialize) or to be
    /// admitted by a leader.
    ///
    /// # Errors
    /// [`OpenError`]; the directory can be opened again once its reason is cured.
    ///
    /// # Cancellation
    /// Safe: the directory is left as a crash would leave it.
    pub async fn open(config: RaftConfig, link: Arc<dyn RaftLink>) -> Result<Arc<Self>, OpenError> {
        let settings = Arc::new(config.openraft()?);
        let files = config.clone();
        let opened = tokio::task::spawn_blocking(move || open_files(&files)).await;
        let Files { keys, log, snapshots } =
            opened.map_err(|error| OpenError::Raft(error.to_string()))??;

        let (state, snapshot_due) = (Arc::<MemoryStore>::default(), Arc::<Notify>::default());
        let due_after = (config.snapshot_entries, config.snapshot_bytes);
        let machine =
            Machine::new(state.clone(), snapshots.clone(), due_after, snapshot_due.clone());
        let (addresses, sending) = (Addresses::default(), Sending::default());
        let network = Network {
            raft_id: config.raft_id,
            link: link.clone(),
            addresses: addresses.clone(),
            sending: sending.clone(),
            confirmed: Confirmed::default(),
        };
        let raft = Raft::new(config.raft_id, settings, network, log.clone(), machine).await;
        let raft = raft.map_err(|error| OpenError::Raft(error.to_string()))?;

        let heard = Heard::new(Instant::now().into());
        let sealed_anew = Arc::<Notify>::default();
        let renew = Renew {
            keys: keys.clone(),
            log: log.clone(),
            snapshots: snapshots.clone(),
            rotated: sealed_anew.clone(),
        };
        let follow = Follow {
            raft: raft.clone(),
            log: log.clone(),
            heard: heard.clone(),
            addresses: addresses.clone(),
            silence: SILENCE * config.election,
        };
        let (proposals, pending) = mpsc::channel(QUEUE);
        let (announce, leadership) = watch::channel(Leadership::None);
        let tasks = vec![
            tokio::spawn(propose::run(raft.clone(), pending)).abort_handle(),
            tokio::spawn(follow.run(announce)).abort_handle(),
            tokio::spawn(take_snapshots(raft.clone(), snapshot_due, sending)).abort_handle(),
            tokio::spawn(renew.run(raft.clone())).abort_handle(),
            tokio::spawn(step_down::run(raft.clone(), log.clone(), config.election)).abort_handle(),
        ];
        let receiver = Receiver { raft: raft.clone(), heard, incoming: Mutex::new(None) };
        let store = Self {
            raft,
            config,
            state,
            keys,
            sealed_anew,
            log,
            snapshots,
            receiver,
            link,
            addresses,
            leadership,
            proposals,
            way: Way::default(),
            closing: watch::Sender::default(),
            tasks,
        };
        info!(raft_id = store.raft_id(), dir = %store.config.dir.display(), "the store is open");
        Ok(Arc::new(store))
    }

    /// This manager's id among the members.
    #[must_use]
    pub fn raft_id(&self) -> u64 {
        self.config.raft_id
    }

    /// Answers a message that another manager sent over its [`RaftLink`]. The caller has made
    /// sure that the sender is a manager of this cluster.
    ///
    /// # Errors
    /// [`LinkError::Refused`] or [`LinkError::Malformed`]; the link hands them back.
    pub async fn receive(&self, message: Message) -> Result<Bytes, LinkError> {
        match message.kind {
            MessageKind::ReadIndex => Ok(self.tell_read_index().await),
            MessageKind::Commit => self.commit_for_another(&message.body).await,
            _ => self.receiver.receive(message).await,
        }
    }

    /// Answers a stream of [`MessageKind::Append`] that came over a [`RaftLink`], in order, and takes the
    /// next message while the disk is still busy with the last one. The caller has made sure for each
    /// message, as for [`receive`](Self::receive), that a manager of this cluster sent it; an error
    /// that takes a message's place ends the stream, after the answers to those before.
    ///
    /// # Errors
    /// As the last item: that error, [`LinkError::Refused`] or [`LinkError::Malformed`]. The stream
    /// also ends after an answer that is no success, and when the store stops.
    ///
    /// # Cancellation
    /// Dropping the messages, or the answers once another message comes, ends it; what was taken stays
    /// taken.
    pub fn receive_stream<E>(
        &self,
        messages: BoxStream<'static, Result<Message, E>>,
    ) -> BoxStream<'static, Result<Bytes, E>>
    where
        E: From<LinkError> + Send + 'static,
    {
        let mut closing = self.closing.subscribe();
        let closed = async move { drop(closing.changed().await) };
        let messages = messages.take_until(Box::pin(closed));
        pipeline::answer_all(&self.raft, self.receiver.heard.clone(), messages)
    }

    /// Seals the data keys on disk with `key`, or leaves them plain; durable on return. Where they
    /// were plain before, a new one is drawn: new files are sealed with it at once, and a snapshot
    /// takes the place of the old ones soon.
    ///
    /// # Errors
    /// [`OpenError::Io`]; the keys on disk are sealed as before or as asked for. Try again.
    ///
    /// # Cancellation
    /// Safe: it happens or not.
    pub async fn seal_keys(&self, key: Option<SealKey>) -> Result<(), OpenError> {
        let (keys, told) = (self.keys.clone(), self.sealed_anew.clone());
        let change = tokio::task::spawn_blocking(move || {
            if keys.seal_with(key)? {
                told.notify_one();
            }
            std::io::Result::Ok(())
        });
        let changed = change.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        changed.map_err(OpenError::io("seal the keys in", &self.config.dir))
    }

    /// Takes a snapshot now, and returns once it is durable. It is taken by itself when it is due.
    ///
    /// # Errors
    /// [`CommitError::Stopped`].
    pub async fn take_snapshot(&self) -> Result<(), CommitError> {
        let applied = self.raft.metrics().borrow_watched().last_applied;
        let taken = |metrics: &openraft::RaftMetrics<Types>| metrics.snapshot >= applied;
        loop {
            let triggered = self.raft.trigger().snapshot().await;
            triggered.map_err(|fatal| CommitError::Stopped(fatal.to_string()))?;
            match self.raft.wait(Some(RETAKE)).metrics(taken, "snapshot").await {
                Ok(_) => return Ok(()),
                // It is not taken while another one, of less, is under way.
                Err(WaitError::Timeout(..)) => {}
                Err(error) => return Err(CommitError::Stopped(error.to_string())),
            }
        }
    }

    /// Every entry of the log that is not covered by a snapshot long ago.
    #[cfg(test)]
    pub(crate) fn log_entries(&self) -> Vec<crate::types::Entry> {
        self.log.entries()
    }

    /// Returns once the store has stopped, by itself or because it was [shut down](Self::shutdown): why.
    /// One that stopped by itself takes no writes any more, whatever else it may still answer. It can be
    /// opened again; but after a failed write or sync the file cache may show what no disk holds.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn why_stopped(&self) -> String {
        let mut health = self.log.health();
        let failed = health.wait_for(|health| health.failed.is_some()).await;
        failed.ok().and_then(|health| health.failed.clone()).unwrap_or_default()
    }

    /// Stops the store in order; the directory can be opened again afterwards. Writes that are
    /// under way fail with [`CommitError::Stopped`], their outcome unknown.
    pub async fn shutdown(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.closing.send_replace(());
        let _ = self.raft.shutdown().await;
        self.snapshots.close().await;
        self.log.close().await;
    }

    /// Lets a write of an epoch in, which counts as under way until the guard is dropped.
    fn let_in(&self, epoch: Option<Epoch>) -> Result<RwLockReadGuard<'_, ()>, CommitError> {
        let passes = self.way.pass()?;
        let Health { full, failed, .. } = self.log.health().borrow().clone();
        if let Some(reason) = failed {
            return Err(CommitError::Stopped(reason));
        }
        match (&*self.leadership.borrow(), epoch) {
            (Leadership::None, _) => return Err(CommitError::NoLeader),
            (Leadership::Follower { leader }, _) => {
                return Err(CommitError::NotLeader { leader: leader.clone() });
            }
            (Leadership::Leader(now), Some(epoch)) if *now != epoch => {
                return Err(CommitError::StaleEpoch(epoch));
            }
            (Leadership::Leader(_), _) => {}
        }
        full.map_or(Ok(passes), |reason| Err(CommitError::ReadOnly(reason)))
    }

    /// Commits as the leader; any other store refuses.
    pub(crate) async fn commit_here(&self, batch: Batch) -> Result<Version, CommitError> {
        let let_in = self.let_in(batch.epoch)?;
        self.commit_let_in(batch, let_in).await
    }

    async fn commit_let_in(
        &self,
        batch: Batch,
        _under_way: RwLockReadGuard<'_, ()>,
    ) -> Result<Version, CommitError> {
        if batch.changes.is_empty() {
            return Ok(self.state.snapshot().version());
        }
        let encoded = propose::encode(&batch)?;
        let (done, result) = oneshot::channel();
        let pending = Pending { batch, encoded, done };
        if self.proposals.send(pending).await.is_err() {
            return Err(self.stopped());
        }
        let mut health = self.log.health();
        tokio::select! {
            biased;
            result = result => result.unwrap_or_else(|_| Err(self.stopped())),
            _ = health.wait_for(|health| health.stuck) => {
                Err(CommitError::Unknown("it waits for room on a full disk".to_owned()))
            }
            () = self.lead_is_lost() => Err(CommitError::Unknown(
                "this manager lost the lead, or the majority of managers, before it was confirmed"
                    .to_owned(),
            )),
            () = tokio::time::sleep(PATIENCE) => {
                Err(CommitError::Unknown("no majority of managers has confirmed it".to_owned()))
            }
        }
    }

    /// Waits until this manager does not lead any more, and for a while longer: what was committed
    /// before is still answered.
    async fn lead_is_lost(&self) {
        let mut leadership = self.leadership.clone();
        let _ = leadership.wait_for(|now| !matches!(now, Leadership::Leader(_))).await;
        tokio::time::sleep(self.config.election).await;
    }

    /// How long an election takes. Whoever asks while nobody leads is kept waiting so long: a change of
    /// leader is nothing that clients have to know of.
    pub(crate) fn election_takes(&self) -> Duration {
        SILENCE * self.config.election
    }

    fn stopped(&self) -> CommitError {
        let failed = self.log.health().borrow().failed.clone();
        CommitError::Stopped(failed.unwrap_or_else(|| "it is shutting down".to_owned()))
    }
}

impl Drop for RaftStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

#[async_trait]
impl Store for RaftStore {
    fn snapshot(&self) -> Snapshot {
        self.state.snapshot()
    }

    fn watch(&self, after: Version) -> Watch {
        self.state.watch(after)
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    async fn commit(&self, batch: Batch) -> Result<Version, CommitError> {
        let patience = match self.let_in(batch.epoch) {
            Ok(let_in) => return self.commit_let_in(batch, let_in).await,
            Err(CommitError::NotLeader { .. }) if batch.epoch.is_none() => LEADER_WITHIN,
            Err(CommitError::NoLeader) if batch.epoch.is_none() => self.election_takes(),
            Err(refused) => return Err(refused),
        };
        self.forward(batch, patience).await
    }

    async fn barrier(&self) -> Result<(), CommitError> {
        let index = self.read_index().await?;
        let applied = self.raft.wait(Some(2 * self.config.election));
        match applied.applied_index_at_least(Some(index), "barrier").await {
            Ok(_) => Ok(()),
            Err(error) => Err(CommitError::Unknown(error.to_string())),
        }
    }
}

/// What the directory holds.
pub(crate) struct Files {
    pub(crate) keys: DataKeys,
    pub(crate) log: Log,
    pub(crate) snapshots: Arc<Snapshots>,
}

/// Makes the directory if it is not there, and takes its lock. Blocks.
pub(crate) fn lock_dir(config: &RaftConfig) -> Result<Box<dyn Any + Send + Sync>, OpenError> {
    let (disk, dir) = (&config.disk, config.dir.as_path());
    disk.create_dir(dir).map_err(OpenError::io("make the directory", dir))?;
    disk.lock(&dir.join("lock")).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::Locked(dir.to_owned()),
        _ => OpenError::io("lock", dir)(error),
    })
}

/// Opens the directory, in the order in which one file needs another. Blocks.
pub(crate) fn open_files(config: &RaftConfig) -> Result<Files, OpenError> {
    let (disk, dir) = (config.disk.clone(), config.dir.as_path());
    let lock = lock_dir(config)?;
    let names = disk.list(dir).map_err(OpenError::io("list", dir))?;
    let sealed = |name: &String| is_snapshot(name) || log::segment::number(name).is_some();
    let fresh = !names.iter().any(sealed);
    let keys = DataKeys::load(disk.clone(), dir, fresh, config.seal.clone())?;
    let snapshots = Snapshots::open(disk.clone(), dir, keys.clone())?;
    let log = Log::open(disk, dir, keys.clone(), config.raft_id, config.sizes(), lock)?;
    let covered = snapshots.current().and_then(|image| image.meta.last_log_id);
    if let Some(purged) = log.purged().filter(|purged| Some(*purged) > covered) {
        let what = format!(
            "the log begins after entry {}, and the snapshot that held what came before is missing",
            purged.index
        );
        return Err(OpenError::corrupt(dir, 0, what));
    }
    Ok(Files { keys, log, snapshots: Arc::new(snapshots) })
}

/// When a leader was last heard.
pub(crate) type Heard = Arc<std::sync::Mutex<Instant>>;

/// Notes that the leader was heard, unless it is one no more.
pub(crate) fn hear(heard: &Heard, response: &AppendEntriesResponse<Types>) {
    if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
        note_heard(heard);
    }
}

pub(crate) fn note_heard(heard: &Heard) {
    *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
}

/// Follows openraft's metrics.
struct Follow {
    raft: Raft,
    log: Log,
    heard: Heard,
    addresses: Addresses,
    silence: Duration,
}

impl Follow {
    /// Tells who leads, as the metrics show it, but nobody who has been silent for `silence`: openraft
    /// keeps a leader until there is another, even where there will be none.
    async fn run(self, announce: watch::Sender<Leadership>) {
        let mut metrics = self.raft.metrics();
        loop {
            let now = self.look(&metrics.borrow_watched());
            announce.send_if_modified(|before| {
                let changed = *before != now;
                if changed {
                    info!(?now, "leadership");
                    *before = now;
                }
                changed
            });
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() {
                    announce.send_replace(Leadership::None);
                    return;
                },
                () = tokio::time::sleep(self.silence / 4) => {}
            }
        }
    }

    fn look(&self, metrics: &openraft::RaftMetrics<Types>) -> Leadership {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        if let Err(fatal) = &metrics.running_state {
            self.log.fail(fatal);
        }
        let members = metrics.membership_config.nodes();
        self.addresses.agree(members.map(|(id, node)| (*id, node.addr.as_str())));
        leadership(metrics, heard, self.silence)
    }
}

fn leadership(
    metrics: &openraft::RaftMetrics<Types>,
    heard: Duration,
    silence: Duration,
) -> Leadership {
    if metrics.running_state.is_err() {
        return Leadership::None;
    }
    let alone = metrics.membership_config.voter_ids().count() <= 1;
    let confirmed = metrics.last_quorum_acked.as_ref().is_some_and(|at| at.elapsed() < silence);
    let applied_own = metrics.last_applied.as_ref().map(term) == Some(metrics.current_term);
    match metrics.current_leader {
        Some(leader) if leader == metrics.id => {
            if metrics.state == ServerState::Leader && applied_own && (alone || confirmed) {
                Leadership::Leader(Epoch(metrics.current_term))
            } else {
                Leadership::None
            }
        }
        Some(_) if heard > silence => Leadership::None,
        Some(leader) => match metrics.membership_config.get_node(&leader) {
            Some(node) => Leadership::Follower { leader: node.addr.clone() },
            None => Leadership::None,
        },
        None => Leadership::None,
    }
}

/// Takes a snapshot when the log has grown by many entries or bytes; but not while one is on its way
/// to a peer, for the log that goes with the next one is what that peer has to go on with.
async fn take_snapshots(raft: Raft, due: Arc<Notify>, sending: Sending) {
    loop {
        due.notified().await;
        let since = Instant::now();
        while sending.any() && since.elapsed() < HOLD {
            tokio::time::sleep(HOLD / 1_000).await;
        }
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}
