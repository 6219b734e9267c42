//! The agent's [`Link`] to whichever manager answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use swarm_runtime::agent::link::{Connection, Link, LinkError};
use tokio::sync::mpsc;
use tracing::debug;

use super::client::ManagerClient;
use crate::error::{ApiError, Code};
use crate::identity::Credentials;
use crate::identity::renew::Renewal;

/// Messages from a manager that wait for the agent.
const INBOUND: usize = 64;

/// Opens sessions with the managers that it knows, and renews the certificate through them.
pub struct ManagerLink {
    credentials: Arc<Credentials>,
    known: Mutex<Known>,
}

/// Addresses, and which of them comes next.
struct Known {
    managers: Vec<String>,
    next: usize,
}

impl ManagerLink {
    /// A link to these managers, `HOST:PORT`, the one to prefer first.
    #[must_use]
    pub fn new(credentials: Arc<Credentials>, managers: Vec<String>) -> Self {
        Self { credentials, known: Mutex::new(Known { managers, next: 0 }) }
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
    fn candidates(&self) -> Vec<String> {
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
                    if failure.code != Code::PermissionDenied {
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

    fn managers(&self, addresses: &[String]) {
        if !addresses.is_empty() {
            *self.known() = Known { managers: addresses.to_vec(), next: 0 };
        }
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
