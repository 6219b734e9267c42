//! Renews the node's certificate before it expires, at a random point of its life so that nodes
//! that joined together do not renew together (SwarmKit: `ca/renewer.go`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use swarm_core::id::IdSource;
use swarm_core::model::NodeRole;
use swarm_core::protocol::Trust;
use swarm_core::time::{Clock, Timestamp};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Credentials, Identity, IdentityError, IdentityFiles, KeyRequest, NodeCertificate, NodeIdentity,
    TrustRoot,
};
use crate::error::ApiError;

/// The earliest and the latest point, in thousandths of the certificate's life.
const WINDOW: std::ops::RangeInclusive<u64> = 500..=800;
/// The first pause after a failure; it doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_secs(5);
/// The longest pause after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(3600);
/// The pause between attempts while a manager waits for this node: a rotation of the root does not
/// end without it.
const WANTED_BACKOFF: Duration = Duration::from_secs(10);
/// The wall clock is looked at this often: it may jump while a timer sleeps.
const LOOK: Duration = Duration::from_secs(60);

/// When to renew a certificate. `point`, in 0..=300, is where in the window; draw it once for
/// each certificate.
#[must_use]
pub fn renew_at(certificate: &NodeCertificate, point: u64) -> Timestamp {
    let life = certificate.not_after.since(certificate.not_before);
    let permille = (WINDOW.start() + point).min(*WINDOW.end());
    certificate.not_before + life / 1000 * u32::try_from(permille).unwrap_or(u32::MAX)
}

/// Has a key certified for this node once more. Implemented by the link to a manager, and on a
/// manager by its own authority.
#[async_trait]
pub trait Renewal: Send + Sync {
    /// The new certificate in PEM, for this signing request.
    ///
    /// # Errors
    /// Whatever the manager answers; the next attempt comes after a pause.
    async fn renew(&self, csr: String) -> Result<String, ApiError>;
}

/// Why one attempt failed. The old certificate stays in use.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Refused(#[from] ApiError),
    #[error(transparent)]
    Unusable(#[from] IdentityError),
}

/// Keeps one node's certificate fresh.
pub struct Renewer {
    /// The identity in use.
    pub credentials: Arc<Credentials>,
    /// Where it is kept.
    pub files: IdentityFiles,
    /// Who certifies.
    pub renewal: Arc<dyn Renewal>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Renews at once when notified.
    pub now: Arc<Notify>,
    /// Which role managers say that the node has: a certificate for another one is renewed at once.
    pub role: watch::Receiver<Option<NodeRole>>,
    /// What managers say of roots and renewal.
    pub trust: watch::Receiver<Option<Trust>>,
    /// Told after each renewal and each change of the roots: the role may be another one, and so
    /// may what the node says of itself.
    pub renewed: tokio::sync::watch::Sender<Identity>,
}

impl Renewer {
    /// Runs until cancelled.
    ///
    /// # Cancellation
    /// Stopping at any point leaves the old or the new identity in use and on disk.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut ids = IdSource::random();
        let mut backoff = MIN_BACKOFF;
        let mut due = self.next(&mut ids);
        loop {
            let wait = due.since(self.clock.now()).min(LOOK);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.now.notified() => due = Timestamp::ZERO,
                // Looked at when it was said, or else once the certificate has come that was under way
                // then: that one may be for the role before.
                Ok(()) = self.role.changed() => {
                    if self.has_another_role() {
                        due = Timestamp::ZERO;
                    }
                }
                Ok(()) = self.trust.changed() => {
                    self.believe();
                    if self.is_wanted() {
                        due = Timestamp::ZERO;
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
            if self.clock.now() < due {
                continue;
            }
            match self.renew_once().await {
                Ok(identity) => {
                    info!(node = %identity.node, role = ?identity.role, "certificate renewed");
                    backoff = MIN_BACKOFF;
                    due = self.next(&mut ids);
                }
                Err(error) => {
                    let pause = if self.is_wanted() { WANTED_BACKOFF } else { backoff };
                    warn!(%error, retry_in = ?pause, "certificate not renewed");
                    due = self.clock.now() + pause;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
    }

    fn next(&self, ids: &mut IdSource) -> Timestamp {
        let point = ids.below(WINDOW.end() - WINDOW.start() + 1);
        renew_at(self.credentials.node().certificate(), point)
    }

    /// Whether a manager waits for a certificate of another issuer.
    fn is_wanted(&self) -> bool {
        let held = self.credentials.node().tls_info().cert_issuer_public_key.clone();
        let trust = self.trust.borrow();
        trust.as_ref().is_some_and(|told| !told.issuer.is_empty() && told.issuer != held)
    }

    /// Whether the cluster gives the node another role than its certificate does.
    fn has_another_role(&mut self) -> bool {
        let said = *self.role.borrow_and_update();
        said.is_some_and(|role| role != self.credentials.identity().role)
    }

    /// Trusts the roots that a manager named, on disk and in use. Roots without that of the own
    /// certificate are not taken: a manager that follows the protocol names none such.
    fn believe(&mut self) {
        let roots = self.trust.borrow_and_update().as_ref().map(|told| told.roots.clone());
        let node = self.credentials.node();
        let Some(roots) = roots.filter(|roots| node.root().pem() != roots) else { return };
        let believed = TrustRoot::parse(&roots).and_then(|roots| {
            let node = node.trusting(roots)?;
            self.files.save(&node)?;
            self.credentials.replace(node)
        });
        match believed {
            Ok(()) => {
                info!("the cluster trusts other root certificates now");
                self.renewed.send_replace(node.identity());
            }
            Err(error) => warn!(%error, "the cluster's root certificates are not believed"),
        }
    }

    /// A new key, certified, on disk, in use: in this order, so that a crash loses nothing.
    async fn renew_once(&self) -> Result<Identity, Failed> {
        let request = KeyRequest::generate()?;
        let certificate = self.renewal.renew(request.csr).await?;
        let root = self.credentials.node().root().clone();
        let renewed = NodeIdentity::new(root, certificate, request.key)?;
        let identity = renewed.identity();
        self.credentials.check(&renewed)?;
        self.files.save(&renewed)?;
        self.credentials.replace(renewed)?;
        self.renewed.send_replace(identity);
        Ok(identity)
    }
}
