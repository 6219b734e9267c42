//! The agent's [`Link`] to whichever manager answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use swarm_core::model::NodeRole;
use swarm_core::protocol::{Settings, Trust};
use swarm_runtime::agent::link::{Connection, Link, LinkError};
use tokio::sync::{mpsc, watch};
use tracing::debug;

use super::client::ManagerClient;
use super::message::JoinGroup;
use crate::error::{ApiError, Code};
use crate::identity::Credentials;
use crate::identity::renew::Renewal;

/// Messages from a manager that wait for the agent.
const INBOUND: usize = 64;

/// Opens sessions with the managers that it knows, and renews the certificate through them.
pub struct ManagerLink {
    credentials: Arc<Credentials>,
    known: Mutex<Known>,
    trust: watch::Sender<Option<Trust>>,
    whereabouts: watch::Sender<Whereabouts>,
    role: watch::Sender<Option<NodeRole>>,
}

/// What managers said of the cluster.
struct Known {
    /// Addresses, and which of them comes next.
    managers: Vec<String>,
    next: usize,
    /// [`Settings::recovery`].
    recovery: u64,
}

/// What a node has to remember to find its cluster again, and no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// Where managers listen.
    pub managers: Vec<String>,
    /// Which of the clusters that were begun anew it is: see [`Settings::recovery`].
    pub recovery: u64,
}

impl ManagerLink {
    /// A link to these managers, `HOST:PORT`, the one to prefer first.
    #[must_use]
    pub fn new(credentials: Arc<Credentials>, managers: Vec<String>) -> Self {
        Self::to(credentials, Whereabouts { managers, recovery: 0 })
    }

    /// A link to a cluster as it was when it was last heard.
    #[must_use]
    pub fn to(credentials: Arc<Credentials>, at: Whereabouts) -> Self {
        let managers = at.managers.clone();
        Self {
            credentials,
            known: Mutex::new(Known { managers, next: 0, recovery: at.recovery }),
            trust: watch::Sender::default(),
            whereabouts: watch::Sender::new(at),
            role: watch::Sender::default(),
        }
    }

    /// Where the cluster is: the latest word.
    #[must_use]
    pub fn whereabouts(&self) -> watch::Receiver<Whereabouts> {
        self.whereabouts.subscribe()
    }

    /// Asks these first from now on, beside those that it knows: an operator's word, until a manager of
    /// this cluster says where managers listen.
    pub fn ask_first(&self, mut managers: Vec<String>) {
        let now = {
            let mut known = self.known();
            known.managers.retain(|addr| !managers.contains(addr));
            managers.append(&mut known.managers);
            (known.managers, known.next) = (managers.clone(), 0);
            Whereabouts { managers, recovery: known.recovery }
        };
        self.whereabouts.send_replace(now);
    }

    /// What managers say of roots and renewal: the latest word.
    #[must_use]
    pub fn told(&self) -> watch::Receiver<Option<Trust>> {
        self.trust.subscribe()
    }

    /// Which role the cluster gives this node: the latest word, told again whenever it is said again.
    #[must_use]
    pub fn role(&self) -> watch::Receiver<Option<NodeRole>> {
        self.role.subscribe()
    }

    /// Asks for a place in the managers' group, or says where this manager listens now.
    ///
    /// # Errors
    /// A manager's refusal, or [`Code::Unavailable`] when none could do it.
    pub async fn join_group(&self, request: JoinGroup) -> Result<(), ApiError> {
        let join = |client: ManagerClient| {
            let request = request.clone();
            async move { client.join_group(request).await }
        };
        self.first(join).await
    }

    /// The managers that it knows.
    #[must_use]
    pub fn known_managers(&self) -> Vec<String> {
        self.known().managers.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every manager once, starting with another one than the last time.
    pub(super) fn candidates(&self) -> Vec<String> {
        let mut known = self.known();
        let mut candidates = known.managers.clone();
        if !candidates.is_empty() {
            candidates.rotate_left(known.next % known.managers.len());
            known.next = (known.next + 1) % known.managers.len();
        }
        candidates
    }

    /// The first success; otherwise a refusal if there was one, for that is an answer, or the
    /// last failure.
    async fn first<T, F>(&self, attempt: impl Fn(ManagerClient) -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let mut failure = ApiError::rpc(Code::Unavailable, "no manager's address is known");
        for addr in self.candidates() {
            let tried = match ManagerClient::connect(&addr, &self.credentials).await {
                Ok(client) => attempt(client).await,
                Err(error) => Err(error),
            };
            match tried {
                Ok(done) => return Ok(done),
                Err(error) => {
                    debug!(%addr, %error, "manager not usable");
                    if failure.code == Code::Unavailable {
                        failure = error;
                    }
                }
            }
        }
        Err(failure)
    }
}

#[async_trait]
impl Link for ManagerLink {
    async fn connect(&self) -> Result<Connection, LinkError> {
        let opened = self.first(|client| async move { client.session().await }).await;
        let (sender, mut inbound) = opened.map_err(|error| match error.code {
            Code::PermissionDenied => LinkError::Refused(error.message),
            // An expired certificate too: it is the clock that may be wrong, on either side.
            _ => LinkError::Unavailable(error.to_string()),
        })?;
        let (to, receiver) = mpsc::channel(INBOUND);
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = inbound.next() => message,
                    () = to.closed() => return,
                };
                match message {
                    Some(Ok(message)) => drop(to.send(message).await),
                    Some(Err(error)) => return debug!(%error, "session broken"),
                    None => return,
                }
            }
        });
        Ok(Connection { sender, receiver })
    }

    fn trust(&self, trust: &Trust) {
        self.trust.send_replace(Some(trust.clone()));
    }

    fn settings(&self, settings: &Settings) -> Result<(), LinkError> {
        let Settings { managers, recovery, role, .. } = settings;
        let now = {
            let mut known = self.known();
            if *recovery < known.recovery {
                let text = "it is of a group of managers that was given up";
                return Err(LinkError::Unavailable(text.to_owned()));
            }
            known.recovery = *recovery;
            // The same word again is no reason to ask the same manager again: it may be one that has
            // lost touch, and names itself.
            if !managers.is_empty() && known.managers != *managers {
                (known.managers, known.next) = (managers.clone(), 0);
            }
            Whereabouts { managers: known.managers.clone(), recovery: *recovery }
        };
        self.whereabouts.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        self.role.send_replace(Some(*role));
        Ok(())
    }
}

#[async_trait]
impl Renewal for ManagerLink {
    async fn renew(&self, csr: String) -> Result<String, ApiError> {
        let issued = self.first(|client| {
            let csr = csr.clone();
            async move { client.renew(csr).await }
        });
        issued.await.map(|issued| issued.certificate)
    }
}
