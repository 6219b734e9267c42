//! [`RaftStore`]: a [`Store`] whose acknowledged writes survive crashes of this machine and, with
//! several managers, the loss of a minority of them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use openraft::ServerState;
use openraft_rt::WatchReceiver as _;
use swarm_core::model::Version;
use swarm_core::store::{
    Batch, CommitError, Epoch, Leadership, MemoryStore, Snapshot, Store, Watch,
};
use tokio::sync::{Mutex, Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::info;

use crate::config::RaftConfig;
use crate::error::OpenError;
use crate::link::{LinkError, Message, RaftLink};
use crate::log::{Health, Log};
use crate::machine::Machine;
use crate::network::{self, Network, Receiver};
use crate::propose::{self, ENTRY_BYTES, Pending};
use crate::seal::DataKey;
use crate::snapshot::{Snapshots, is_snapshot};
use crate::types::{Raft, Types, term};
use crate::{link, log, wire};

/// Batches that may wait to be proposed; more wait to wait.
const QUEUE: usize = 4096;
/// How long a writer waits for its outcome. Longer than any election and any slow sync that a
/// store should live with; without a majority of managers, entries wait for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// The durable, replicated store.
///
/// The leadership epoch is the raft term. This store says that it leads only once it has applied
/// the first entry of its own term, and with it everything that was ever acknowledged.
pub struct RaftStore {
    pub(crate) raft: Raft,
    pub(crate) config: RaftConfig,
    state: Arc<MemoryStore>,
    log: Log,
    snapshots: Arc<Snapshots>,
    receiver: Receiver,
    link: Arc<dyn RaftLink>,
    leadership: watch::Receiver<Leadership>,
    proposals: mpsc::Sender<Pending>,
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
        let (log, snapshots) = opened.map_err(|error| OpenError::Raft(error.to_string()))??;

        let (state, snapshot_due) = (Arc::<MemoryStore>::default(), Arc::<Notify>::default());
        let due_after = (config.snapshot_entries, config.snapshot_bytes);
        let machine =
            Machine::new(state.clone(), snapshots.clone(), due_after, snapshot_due.clone());
        let network = Network { raft_id: config.raft_id, link: link.clone() };
        let raft = Raft::new(config.raft_id, settings, network, log.clone(), machine).await;
        let raft = raft.map_err(|error| OpenError::Raft(error.to_string()))?;

        let (proposals, pending) = mpsc::channel(QUEUE);
        let (announce, leadership) = watch::channel(Leadership::None);
        let tasks = vec![
            tokio::spawn(propose::run(raft.clone(), pending)).abort_handle(),
            tokio::spawn(follow_leadership(raft.clone(), log.clone(), announce)).abort_handle(),
            tokio::spawn(take_snapshots(raft.clone(), snapshot_due)).abort_handle(),
        ];
        let receiver = Receiver { raft: raft.clone(), incoming: Mutex::new(None) };
        let store = Self {
            raft,
            config,
            state,
            log,
            snapshots,
            receiver,
            link,
            leadership,
            proposals,
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
        self.receiver.receive(message).await
    }

    /// Stops the store in order; the directory can be opened again afterwards. Writes that are
    /// under way fail with [`CommitError::Stopped`], their outcome unknown.
    pub async fn shutdown(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        let _ = self.raft.shutdown().await;
        self.snapshots.close().await;
        self.log.close().await;
    }

    fn may_commit(&self, epoch: Option<Epoch>) -> Result<(), CommitError> {
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
        full.map_or(Ok(()), |reason| Err(CommitError::ReadOnly(reason)))
    }

    fn stopped(&self) -> CommitError {
        let failed = self.log.health().borrow().failed.clone();
        CommitError::Stopped(failed.unwrap_or_else(|| "it is shutting down".to_owned()))
    }

    /// The index up to which a linearizable read has to see, by the leader's word.
    async fn read_index(&self) -> Result<u64, CommitError> {
        if let Some(index) = network::read_index(&self.raft).await {
            return Ok(index);
        }
        let status = self.status();
        let leader = status.leader.filter(|id| *id != self.raft_id());
        let leader =
            leader.and_then(|id| status.members.into_iter().find(|m| m.peer.raft_id == id));
        let peer = leader.ok_or(CommitError::NoLeader)?.peer;
        let message = Message { kind: link::MessageKind::ReadIndex, body: Bytes::new() };
        let unknown = |reason: String| CommitError::Unknown(reason);
        let call = tokio::time::timeout(self.config.election, self.link.call(&peer, message));
        let answer = call.await.map_err(|_| unknown("the leader does not answer".to_owned()))?;
        let answer = answer.map_err(|error| unknown(error.to_string()))?;
        let answer: wire::ReadIndex =
            wire::decode(&answer).map_err(|bad| unknown(bad.to_string()))?;
        answer.index.ok_or(CommitError::NoLeader)
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
        self.may_commit(batch.epoch)?;
        if batch.changes.is_empty() {
            return Ok(self.state.snapshot().version());
        }
        let encoded = serde_json::to_vec(&batch).expect("the model has a JSON form");
        if encoded.len() > ENTRY_BYTES {
            return Err(CommitError::TooLarge { bytes: encoded.len(), limit: ENTRY_BYTES });
        }
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
            () = tokio::time::sleep(PATIENCE) => {
                Err(CommitError::Unknown("no majority of managers has confirmed it".to_owned()))
            }
        }
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

/// Opens the directory, in the order in which one file needs another. Blocks.
pub(crate) fn open_files(config: &RaftConfig) -> Result<(Log, Arc<Snapshots>), OpenError> {
    let (disk, dir) = (config.disk.clone(), config.dir.as_path());
    disk.create_dir(dir).map_err(OpenError::io("make the directory", dir))?;
    let lock = disk.lock(&dir.join("lock")).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::Locked(dir.to_owned()),
        _ => OpenError::io("lock", dir)(error),
    })?;
    let names = disk.list(dir).map_err(OpenError::io("list", dir))?;
    let sealed = |name: &String| is_snapshot(name) || log::segment::number(name).is_some();
    let key = DataKey::load(&*disk, dir, !names.iter().any(sealed))?;
    let snapshots = Snapshots::open(disk.clone(), dir, key.clone())?;
    let log = Log::open(disk, dir, key, config.raft_id, config.sizes(), lock)?;
    let covered = snapshots.current().and_then(|image| image.meta.last_log_id);
    if let Some(purged) = log.purged().filter(|purged| Some(*purged) > covered) {
        let what = format!(
            "the log begins after entry {}, and the snapshot that held what came before is missing",
            purged.index
        );
        return Err(OpenError::corrupt(dir, 0, what));
    }
    Ok((log, Arc::new(snapshots)))
}

/// Tells who leads, as openraft's metrics show it.
async fn follow_leadership(raft: Raft, log: Log, announce: watch::Sender<Leadership>) {
    let mut metrics = raft.metrics();
    loop {
        let now = leadership(&metrics.borrow_watched());
        if let Err(fatal) = &metrics.borrow_watched().running_state {
            log.fail(fatal);
        }
        announce.send_if_modified(|before| {
            let changed = *before != now;
            if changed {
                info!(?now, "leadership");
                *before = now;
            }
            changed
        });
        if metrics.changed().await.is_err() {
            announce.send_replace(Leadership::None);
            return;
        }
    }
}

fn leadership(metrics: &openraft::RaftMetrics<Types>) -> Leadership {
    if metrics.running_state.is_err() {
        return Leadership::None;
    }
    let applied_own = metrics.last_applied.as_ref().map(term) == Some(metrics.current_term);
    match metrics.current_leader {
        Some(leader) if leader == metrics.id => {
            if metrics.state == ServerState::Leader && applied_own {
                Leadership::Leader(Epoch(metrics.current_term))
            } else {
                Leadership::None
            }
        }
        Some(leader) => match metrics.membership_config.get_node(&leader) {
            Some(node) => Leadership::Follower { leader: node.addr.clone() },
            None => Leadership::None,
        },
        None => Leadership::None,
    }
}

/// Takes a snapshot when the log has grown by many entries or bytes.
async fn take_snapshots(raft: Raft, due: Arc<Notify>) {
    loop {
        due.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}
