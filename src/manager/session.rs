//! The sessions of agents with the manager that leads: the shell around [`Dispatcher`] and
//! [`AssignmentSet`].
//!
//! Everything held here is about open connections and goes with them: facts are in the store.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use swarm_core::control::RETRY_AFTER;
use swarm_core::id::IdSource;
use swarm_core::model::{Node, NodeDescription, NodeId, NodeState};
use swarm_core::protocol::{AgentMessage, Item, ItemKey, LogChunk, ManagerMessage, SessionId};
use swarm_core::secret::{Reader, SecretStore};
use swarm_core::store::{Batch, Change, CommitError, Epoch, Leadership, Snapshot, Store, Watch};
use swarm_core::time::Clock;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::assign::{Affected, AssignmentSet, affected};
use super::common::Common;
use super::dispatcher::{self, Dispatcher};
use super::log_routes::LogRoutes;
use super::reports::Reports;
use super::tell::{self, Draft, Told};
use crate::error::ApiError;
use crate::identity::Identity;
use crate::rpc::service::SessionService;

/// How long an agent may take for its first message.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// After a set was sent, changes are gathered for this long: a burst becomes a few messages, while
/// a single change goes out at once.
pub(crate) const GATHER: Duration = Duration::from_millis(50);
/// The agents' side of a manager: accepts sessions while its store leads, and redirects agents to
/// the leader while it does not.
pub struct Sessions {
    pub(super) store: Arc<dyn Store>,
    secrets: Arc<dyn SecretStore>,
    clock: Arc<dyn Clock>,
    /// What silence is measured from.
    started: Instant,
    ids: Mutex<IdSource>,
    leading: Mutex<Option<Leading>>,
    common: Mutex<Arc<Common>>,
    reports: Reports,
}

/// What exists while this manager leads.
struct Leading {
    /// What is decided here counts in this epoch alone.
    epoch: Epoch,
    dispatcher: Dispatcher,
    links: BTreeMap<NodeId, Link>,
    logs: LogRoutes,
    /// Wakes the deadline timer when a session was opened.
    deadlines: Arc<Notify>,
}

/// An open session.
struct Link {
    session: SessionId,
    wake: Arc<Notify>,
    outbound: mpsc::Sender<ManagerMessage>,
}

/// Forgets a session that is over or given up. A link that stayed would hold the stream open, and its
/// agent would wait on it for a manager that has stopped.
struct OpenLink<'a> {
    sessions: &'a Sessions,
    node: NodeId,
    session: SessionId,
}

impl Drop for OpenLink<'_> {
    fn drop(&mut self) {
        self.sessions.hang_up(self.node, Some(self.session));
    }
}

/// A session that was welcomed.
struct Opened<'a> {
    link: OpenLink<'a>,
    wake: Arc<Notify>,
    told: Told,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the agent closed the stream")]
    Closed,
    #[error("the agent said goodbye")]
    Goodbye,
    #[error("a later session of the node took over, or it was silent for too long")]
    Superseded,
    // It opened while that was being written, found the node ready and wrote nothing.
    #[error("the news that the node was silent came after it was heard: it has to open another")]
    Wronged,
    #[error("the first message was not a hello, or did not come in time")]
    NoHello,
    #[error("this manager does not lead")]
    NotLeading,
    #[error("{0}")]
    Refused(#[from] dispatcher::Refusal),
    #[error("the node could not be written to the store: {0}")]
    Store(#[from] CommitError),
}

impl Sessions {
    /// Sessions over a store. Nothing is accepted until [`run`](Self::run) runs.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        secrets: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            store,
            secrets,
            clock,
            started: Instant::now(),
            ids: Mutex::new(IdSource::random()),
            leading: Mutex::new(None),
            common: Mutex::default(),
            reports: Reports::default(),
        }
    }

    /// Keeps the sessions of every term in which this store leads. Never returns; drop it to stop,
    /// which ends every session.
    pub async fn run(&self) {
        let mut leadership = self.store.leadership();
        loop {
            let epoch = leadership.borrow_and_update().epoch();
            if let Some(epoch) = epoch {
                tokio::select! {
                    () = self.lead(epoch) => {}
                    () = lost(&mut leadership, epoch) => {}
                }
                *self.leading() = None;
            } else if leadership.changed().await.is_err() {
                return;
            }
        }
    }

    async fn lead(&self, epoch: Epoch) {
        let view = self.store.snapshot();
        let watch = self.store.watch(view.version());
        let deadlines = Arc::new(Notify::new());
        *self.leading() = Some(Leading {
            epoch,
            dispatcher: Dispatcher::new(&view, self.uptime()),
            links: BTreeMap::new(),
            logs: LogRoutes::default(),
            deadlines: deadlines.clone(),
        });
        tokio::join!(
            self.wake_sessions(watch),
            self.expire_sessions(&deadlines),
            self.reports.write(&*self.store, |changes| self.batch(changes))
        );
    }

    fn leading(&self) -> MutexGuard<'_, Option<Leading>> {
        self.leading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dispatcher's time, which nobody can set.
    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// What this leader decided: it must not be written once it leads no more.
    fn batch(&self, changes: Vec<Change>) -> Batch {
        let epoch = self.leading().as_ref().map(|leading| leading.epoch).unwrap_or_default();
        Batch { at: self.clock.now(), epoch: Some(epoch), changes }
    }

    /// Wakes the sessions whose assignments a commit may have changed.
    async fn wake_sessions(&self, mut watch: Watch) {
        loop {
            let affected = match watch.next().await {
                Ok(commit) => affected(&self.store.snapshot(), &commit),
                Err(_) => {
                    watch = self.store.watch(self.store.snapshot().version());
                    Affected::All
                }
            };
            let leading = self.leading();
            let Some(leading) = &*leading else { return };
            match affected {
                Affected::All => leading.links.values().for_each(|link| link.wake.notify_one()),
                Affected::Nodes(nodes) => {
                    let links = nodes.iter().filter_map(|node| leading.links.get(node));
                    links.for_each(|link| link.wake.notify_one());
                }
            }
        }
    }

    /// Marks silent nodes down.
    async fn expire_sessions(&self, changed: &Notify) {
        loop {
            let view = self.store.snapshot();
            let now = self.uptime();
            let planned = match &*self.leading() {
                Some(leading) => leading.dispatcher.next_look(&view, now),
                None => return,
            };
            tokio::select! {
                () = tokio::time::sleep(planned.pause) => {}
                () = changed.notified() => {}
            }
            let (view, now) = (self.store.snapshot(), self.uptime());
            let silent = match &mut *self.leading() {
                Some(leading) => leading.dispatcher.look(&planned, &view, now),
                None => return,
            };
            let Some(silent) = silent else {
                warn!("this manager was paused: every node is given time to be heard");
                continue;
            };
            for node in silent {
                info!(%node, "silent for too long: down");
                self.hang_up(node, None);
                let at = self.clock.now();
                let down = |node: &Node| dispatcher::down(node, at, "heartbeat failure");
                if let Err(error) = self.change_node(node, down).await {
                    warn!(%node, %error, "could not be marked down; trying again");
                    self.retry_expiry(node);
                }
            }
        }
    }

    fn retry_expiry(&self, node: NodeId) {
        let again = self.uptime() + RETRY_AFTER;
        if let Some(leading) = &mut *self.leading() {
            leading.dispatcher.retry(node, again);
        }
    }

    /// Serves one session to its end. `remote` is where the agent connected from; it stands in for
    /// an advertised address that the agent does not give.
    ///
    /// # Cancellation
    /// Dropping the future ends the session, as a broken connection does.
    pub async fn serve(
        &self,
        node: NodeId,
        remote: SocketAddr,
        mut inbound: impl Stream<Item = AgentMessage> + Send + Unpin,
        outbound: mpsc::Sender<ManagerMessage>,
    ) {
        let ended = match self.open(node, remote, &mut inbound, &outbound).await {
            Ok(opened) => self.converse(node, opened, &mut inbound, &outbound).await,
            Err(refused) => refused,
        };
        info!(%node, %ended, "session over");
        let last_word = match ended {
            Ended::NotLeading => {
                let view = self.store.snapshot();
                ManagerMessage::Redirect(tell::settings(&view, node, self.managers()))
            }
            Ended::Refused(dispatcher::Refusal::UnknownNode) => {
                ManagerMessage::Refused { reason: dispatcher::Refusal::UnknownNode.to_string() }
            }
            _ => return,
        };
        let _ = outbound.send(last_word).await;
    }

    async fn open(
        &self,
        node: NodeId,
        remote: SocketAddr,
        inbound: &mut (impl Stream<Item = AgentMessage> + Send + Unpin),
        outbound: &mpsc::Sender<ManagerMessage>,
    ) -> Result<Opened<'_>, Ended> {
        let hello = tokio::time::timeout(HELLO_WITHIN, inbound.next()).await;
        let Ok(Some(AgentMessage::Hello { description, addr })) = hello else {
            return Err(Ended::NoHello);
        };
        let addr = if addr.is_empty() { remote.ip().to_string() } else { addr };
        let view = self.store.snapshot();
        let wake = Arc::new(Notify::new());
        let session = {
            let mut leading = self.leading();
            let leading = leading.as_mut().ok_or(Ended::NotLeading)?;
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            let session = leading.dispatcher.open(node, &view, self.uptime(), &mut ids)?;
            let link = Link { session, wake: wake.clone(), outbound: outbound.clone() };
            leading.links.insert(node, link);
            leading.deadlines.notify_one();
            session
        };
        let link = OpenLink { sessions: self, node, session };
        self.describe(node, description, &addr).await?;
        let mut told = Told::default();
        let welcome = told.welcome(session, &self.store.snapshot(), node, self.managers());
        outbound.send(welcome).await.map_err(|_| Ended::Closed)?;
        info!(%node, %addr, "session open");
        Ok(Opened { link, wake, told })
    }

    async fn describe(
        &self,
        node: NodeId,
        description: NodeDescription,
        addr: &str,
    ) -> Result<(), CommitError> {
        self.change_node(node, |node| dispatcher::ready(node, description.clone(), addr)).await
    }

    async fn converse(
        &self,
        node: NodeId,
        opened: Opened<'_>,
        inbound: &mut (impl Stream<Item = AgentMessage> + Send + Unpin),
        outbound: &mpsc::Sender<ManagerMessage>,
    ) -> Ended {
        let Opened { link, wake, told } = opened;
        let session = link.session;
        let tell = self.tell(node, session, &wake, told, outbound);
        let listen = async {
            loop {
                let Some(message) = inbound.next().await else { return Ended::Closed };
                if let Err(ended) = self.handle(node, session, message).await {
                    return ended;
                }
            }
        };
        tokio::select! {
            ended = tell => ended,
            ended = listen => ended,
        }
    }

    async fn handle(
        &self,
        node: NodeId,
        session: SessionId,
        message: AgentMessage,
    ) -> Result<(), Ended> {
        let view = self.store.snapshot();
        let current = match &mut *self.leading() {
            Some(leading) => leading.dispatcher.heard(node, session, &view, self.uptime()),
            None => return Err(Ended::NotLeading),
        };
        if !current {
            return Err(Ended::Superseded);
        }
        match message {
            AgentMessage::Heartbeat => {}
            AgentMessage::Hello { .. } => return Err(Ended::NoHello),
            AgentMessage::Description(description) => self.describe(node, description, "").await?,
            AgentMessage::Statuses(statuses) => self.reports.take(node, statuses).await,
            AgentMessage::Logs(chunk) => self.route_logs(chunk).await,
            AgentMessage::Goodbye => {
                if let Some(leading) = &mut *self.leading() {
                    leading.dispatcher.goodbye(node, session, self.uptime());
                    leading.deadlines.notify_one();
                }
                return Err(Ended::Goodbye);
            }
        }
        Ok(())
    }

    /// Sends assignments: a complete set first, then what changes.
    async fn tell(
        &self,
        node: NodeId,
        session: SessionId,
        wake: &Notify,
        mut told: Told,
        outbound: &mpsc::Sender<ManagerMessage>,
    ) -> Ended {
        loop {
            let common = self.common();
            let view = common.view();
            let Some(present) = view.nodes.get(node) else {
                return Ended::Refused(dispatcher::Refusal::UnknownNode);
            };
            if present.status.state == NodeState::Down {
                return Ended::Wronged;
            }
            let trust = told.trust(view, present);
            for message in trust.into_iter().chain(told.settings(view, node, self.managers())) {
                if outbound.send(message).await.is_err() {
                    return Ended::Closed;
                }
            }
            if let Some(draft) = told.assignments(&common, node) {
                let items = self.items(view, &draft, node).await;
                if outbound.send(draft.message(items)).await.is_err() {
                    return Ended::Closed;
                }
                tokio::time::sleep(GATHER).await;
            }
            wake.notified().await;
            if !self.is_current(node, session) {
                return Ended::Superseded;
            }
        }
    }

    /// What all sessions have in common in the latest view.
    fn common(&self) -> Arc<Common> {
        let mut common = self.common.lock().unwrap_or_else(PoisonError::into_inner);
        Common::advance(&mut common, &self.store.snapshot());
        common.clone()
    }

    fn is_current(&self, node: NodeId, session: SessionId) -> bool {
        self.leading().as_ref().is_some_and(|leading| leading.dispatcher.is_current(node, session))
    }

    /// What a draft puts, with the bytes of its secrets.
    async fn items(&self, view: &Snapshot, draft: &Draft<'_>, node: NodeId) -> Vec<Item> {
        let mut items = Vec::with_capacity(draft.put.len());
        for key in &draft.put {
            items.extend(match key {
                ItemKey::Secret(id) => self.secret(view, draft.set, node, *id).await,
                key => draft.item(view, key),
            });
        }
        items
    }

    /// A secret that cannot be read is left out: the agent keeps the task waiting and says which
    /// secret it misses.
    async fn secret(
        &self,
        view: &Snapshot,
        set: &AssignmentSet,
        node: NodeId,
        id: swarm_core::model::SecretId,
    ) -> Option<Item> {
        let task = view.tasks.get(*set.secrets.get(&id)?)?;
        let container = task.spec.container.as_ref()?;
        let reference = container.secrets.iter().find(|reference| reference.secret_id == id)?;
        let reader = Reader { service: task.service_id, task: task.id, node };
        match self.secrets.get(reference, &reader).await {
            Ok(bytes) => {
                let secret = view.secrets.get(id);
                let templating = secret.and_then(|secret| secret.spec.templating.clone());
                Some(Item::Secret { id, bytes, templating })
            }
            Err(error) => {
                warn!(secret = %id, task = %task.id, %error, "a secret cannot be sent");
                None
            }
        }
    }

    /// Where managers listen, the leader first.
    fn managers(&self) -> Vec<String> {
        let view = self.store.snapshot();
        let managers = view.nodes.iter().filter_map(|node| node.manager_status.as_ref());
        let mut managers: Vec<_> = managers.map(|status| (!status.leader, &status.addr)).collect();
        managers.sort();
        let mut addrs: Vec<String> = managers.into_iter().map(|(_, addr)| addr.clone()).collect();
        if let Leadership::Follower { leader } = &*self.store.leadership().borrow() {
            addrs.retain(|addr| addr != leader);
            addrs.insert(0, leader.clone());
        }
        addrs
    }

    /// Forgets a session; whoever waits for output of its node learns that none will come.
    fn hang_up(&self, node: NodeId, session: Option<SessionId>) {
        let mut leading = self.leading();
        let Some(leading) = &mut *leading else { return };
        let is_over = |link: &Link| match session {
            Some(session) => link.session == session,
            // The node may have opened another since: that one hears of its fate by what is written.
            None => !leading.dispatcher.is_current(node, link.session),
        };
        if leading.links.get(&node).is_some_and(is_over)
            && let Some(link) = leading.links.remove(&node)
        {
            link.wake.notify_one();
            leading.logs.close_all_of(node);
        }
    }

    async fn change_node(
        &self,
        id: NodeId,
        change: impl Fn(&Node) -> Option<Change>,
    ) -> Result<(), CommitError> {
        loop {
            let view = self.store.snapshot();
            let Some(change) = view.nodes.get(id).and_then(|node| change(node)) else {
                return Ok(());
            };
            match self.store.commit(self.batch(vec![change])).await {
                Err(CommitError::Conflict { .. }) => {
                    debug!(node = %id, "the node changed meanwhile")
                }
                other => return other.map(|_| ()),
            }
        }
    }

    async fn route_logs(&self, chunk: LogChunk) {
        let id = chunk.id;
        let route = self.leading().as_mut().and_then(|leading| leading.logs.of(&chunk));
        // Waiting here is the back-pressure on an agent whose reader is slow.
        if let Some(route) = route
            && route.send(chunk).await.is_err()
        {
            self.cancel_logs(id);
        }
    }

    /// Asks a node for output. Absent when the node is not in session.
    pub(super) fn request_logs(
        &self,
        node: NodeId,
        request: impl FnOnce(u64) -> swarm_core::protocol::LogRequest,
    ) -> Option<(u64, mpsc::Receiver<LogChunk>)> {
        let mut leading = self.leading();
        let leading = leading.as_mut()?;
        let link = leading.links.get(&node)?;
        let id = leading.logs.next();
        link.outbound.try_send(ManagerMessage::Logs(request(id))).ok()?;
        Some((id, leading.logs.open(node)))
    }

    /// Output is not wanted any more.
    pub(super) fn cancel_logs(&self, id: u64) {
        if let Some(leading) = &mut *self.leading()
            && let Some(node) = leading.logs.close(id)
            && let Some(link) = leading.links.get(&node)
        {
            let _ = link.outbound.try_send(ManagerMessage::CancelLogs(id));
        }
    }
}

#[async_trait]
impl SessionService for Sessions {
    async fn session(
        &self,
        peer: Identity,
        remote: SocketAddr,
        inbound: BoxStream<'static, Result<AgentMessage, ApiError>>,
        outbound: mpsc::Sender<ManagerMessage>,
    ) {
        let inbound =
            inbound.map(Result::ok).take_while(|message| std::future::ready(message.is_some()));
        let inbound = inbound.filter_map(std::future::ready);
        self.serve(peer.node, remote, Box::pin(inbound), outbound).await;
    }
}

async fn lost(leadership: &mut tokio::sync::watch::Receiver<Leadership>, epoch: Epoch) {
    let _ = leadership.wait_for(|now| now.epoch() != Some(epoch)).await;
}
