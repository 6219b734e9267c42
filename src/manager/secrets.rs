//! The default secret store: bytes stay in the secret's own object, which the log seals on disk.

use std::sync::Arc;

use async_trait::async_trait;
use swarm_core::model::{Secret, SecretBytes, SecretId, SecretReference};
use swarm_core::secret::{Reader, SecretError, SecretStore};
use swarm_core::store::{Batch, Change, CommitError, Store};
use swarm_core::time::Clock;

/// Keeps the bytes of secrets in the cluster's store.
pub struct StoreSecrets {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl StoreSecrets {
    /// Over a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    fn find(&self, id: SecretId) -> Option<Arc<Secret>> {
        self.store.snapshot().secrets.get(id).cloned()
    }
}

#[async_trait]
impl SecretStore for StoreSecrets {
    async fn get(&self, secret: &SecretReference, _: &Reader) -> Result<SecretBytes, SecretError> {
        let id = secret.secret_id;
        // Swarm compares both: a reference to a secret that was renamed away is a mistake.
        let object = self.find(id).filter(|object| {
            secret.secret_name.is_empty() || object.spec.name == secret.secret_name
        });
        object.and_then(|object| object.spec.data.clone()).ok_or(SecretError::NotFound(id))
    }

    async fn put(&self, id: SecretId, bytes: SecretBytes) -> Result<(), SecretError> {
        loop {
            let object = self.find(id);
            let mut secret = match object.as_deref() {
                Some(Secret { spec, .. }) if spec.data.as_ref() == Some(&bytes) => return Ok(()),
                Some(Secret { spec, .. }) if spec.data.is_some() => {
                    return Err(SecretError::Immutable(id));
                }
                Some(secret) => secret.clone(),
                // Bytes that come before their object: one without a name, which the API's
                // create fills in.
                None => Secret { id, ..Secret::default() },
            };
            secret.spec.data = Some(bytes.clone());
            let change = match object {
                Some(_) => Change::update(secret),
                None => {
                    secret.spec.name = id.to_string();
                    Change::create(secret)
                }
            };
            match self.store.commit(Batch::new(self.clock.now(), vec![change])).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. } | CommitError::Exists(_)) => {}
                Err(error) => return Err(SecretError::Unavailable(error.to_string())),
            }
        }
    }

    async fn remove(&self, id: SecretId) -> Result<(), SecretError> {
        let batch = Batch::new(self.clock.now(), vec![Change::remove(id)]);
        match self.store.commit(batch).await {
            Ok(_) | Err(CommitError::Missing(_)) => Ok(()),
            Err(error) => Err(SecretError::Unavailable(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_core::conformance;
    use swarm_core::store::MemoryStore;
    use swarm_core::time::SystemClock;

    use super::*;

    #[tokio::test]
    async fn the_store_keeps_what_the_contract_promises() {
        let store = Arc::new(MemoryStore::default());
        let secrets = StoreSecrets::new(store, Arc::new(SystemClock));
        conformance::secret::suite(&secrets).await;
    }
}
