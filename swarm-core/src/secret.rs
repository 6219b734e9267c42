//! The [`SecretStore`]: where the bytes of secrets live.

use async_trait::async_trait;

use crate::model::{NodeId, SecretBytes, SecretId, SecretReference, ServiceId, TaskId};

/// On whose behalf a secret is read: an external store may decide by it, and should log it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The service that references the secret.
    pub service: ServiceId,
    /// The task that will see it.
    pub task: TaskId,
    /// The node that it will be sent to.
    pub node: NodeId,
}

/// Keeps the bytes of secrets. The default keeps them in the cluster's [`Store`](crate::store::Store),
/// sealed on disk; an embedder may keep them in a vault, in which case the store holds names only.
///
/// # The contract
///
/// Checked by `conformance::secret`: what was `put` is what `get` returns until it is `remove`d;
/// `put` of the same bytes succeeds, of other bytes for the same id fails with
/// [`SecretError::Immutable`]; `remove` of an unknown id succeeds; bytes appear in no error, log
/// line or `Debug` output.
#[async_trait]
pub trait SecretStore: Send + Sync + 'static {
    /// The bytes, for one reader.
    ///
    /// # Errors
    /// [`SecretError::NotFound`], [`SecretError::Denied`] or [`SecretError::Unavailable`].
    async fn get(
        &self,
        secret: &SecretReference,
        reader: &Reader,
    ) -> Result<SecretBytes, SecretError>;

    /// Keeps the bytes of a new secret.
    ///
    /// # Errors
    /// [`SecretError::Immutable`] or [`SecretError::Unavailable`].
    async fn put(&self, id: SecretId, bytes: SecretBytes) -> Result<(), SecretError>;

    /// Forgets the bytes.
    ///
    /// # Errors
    /// [`SecretError::Unavailable`].
    async fn remove(&self, id: SecretId) -> Result<(), SecretError>;
}

/// Why a secret could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// There is no such secret. The task cannot start.
    #[error("secret {0} not found")]
    NotFound(SecretId),
    /// This reader may not see it. The task cannot start.
    #[error("secret {0} may not be read by this task: {1}")]
    Denied(SecretId, String),
    /// A secret's bytes never change: make a new secret.
    #[error("secret {0} has other bytes already: secrets do not change, create a new one")]
    Immutable(SecretId),
    /// The store does not answer. Try again.
    #[error("the secret store does not answer: {0}")]
    Unavailable(String),
}
