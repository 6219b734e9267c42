//! What clients do with secrets and configs (SwarmKit: `controlapi/{secret,config}.go`).

use std::sync::Arc;

use swarm_core::model::{
    Config, ConfigId, ConfigSpec, ContainerSpec, Secret, SecretBytes, SecretId, SecretSpec,
    Service, Version, validate,
};
use swarm_core::secret::SecretError;
use swarm_core::store::{Change, Snapshot};

use super::find::Find as _;
use super::{Control, check_version, invalid};
use crate::error::{ApiError, Code};

const ONLY_LABELS: &str = "only updates to Labels are allowed";

impl Control {
    /// Creates a secret and keeps its bytes.
    ///
    /// # Errors
    /// What is wrong with the specification, or that the name is taken.
    pub async fn create_secret(&self, mut spec: SecretSpec) -> Result<SecretId, ApiError> {
        validate::secret(&spec)?;
        let id = self.new_id();
        if let Some(secrets) = &self.secrets {
            // The bytes go first: a secret that is listed can be read. Those of a secret that
            // could not be listed then are taken back.
            let bytes = spec.data.take().unwrap_or_default();
            secrets.put(id, bytes).await.map_err(secret_error)?;
        }
        let secret = Secret { id, spec, ..Default::default() };
        let created = self.transact(|_| Ok((vec![Change::create(secret.clone())], id))).await;
        if let (Err(_), Some(secrets)) = (&created, &self.secrets) {
            secrets.remove(id).await.map_err(secret_error)?;
        }
        created
    }

    /// Changes a secret's labels; everything else must be as it is.
    ///
    /// # Errors
    /// That it does not exist, that the version is not the present one, or that more than the
    /// labels would change.
    pub async fn update_secret(
        &self,
        word: &str,
        version: Version,
        spec: SecretSpec,
    ) -> Result<(), ApiError> {
        let present = self.look(|view| view.find_secret(word)).await?;
        self.same_bytes(&present, spec.data.as_ref()).await?;
        self.transact(|view| {
            let mut secret = Secret::clone(&*view.find_secret(word)?);
            if secret.id != present.id || secret.spec.name != spec.name {
                return Err(invalid(ONLY_LABELS));
            }
            check_version(secret.version, version)?;
            secret.spec.labels = spec.labels.clone();
            Ok((vec![Change::update(secret)], ()))
        })
        .await
    }

    async fn same_bytes(
        &self,
        secret: &Secret,
        given: Option<&SecretBytes>,
    ) -> Result<(), ApiError> {
        let Some(given) = given.filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        let same = match &self.secrets {
            None => secret.spec.data.as_ref() == Some(given),
            // Writing the same bytes again succeeds, others are refused: no need to read them.
            Some(secrets) => match secrets.put(secret.id, given.clone()).await {
                Ok(()) => true,
                Err(SecretError::Immutable(_)) => false,
                Err(error) => return Err(secret_error(error)),
            },
        };
        if same { Ok(()) } else { Err(invalid(ONLY_LABELS)) }
    }

    /// Removes a secret and forgets its bytes.
    ///
    /// # Errors
    /// That it does not exist or that a service uses it.
    pub async fn remove_secret(&self, word: &str) -> Result<(), ApiError> {
        let removed = self
            .transact(|view| {
                let secret = view.find_secret(word)?;
                unused(view, "secret", &secret.spec.name, |container| {
                    container.secrets.iter().any(|reference| reference.secret_id == secret.id)
                })?;
                Ok((vec![Change::Remove(secret.id.into(), Some(secret.revision))], secret.id))
            })
            .await?;
        match &self.secrets {
            Some(secrets) => secrets.remove(removed).await.map_err(secret_error),
            None => Ok(()),
        }
    }

    /// Creates a config.
    ///
    /// # Errors
    /// What is wrong with the specification, or that the name is taken.
    pub async fn create_config(&self, spec: ConfigSpec) -> Result<ConfigId, ApiError> {
        validate::config(&spec)?;
        let id = self.new_id();
        let config = Config { id, spec, ..Default::default() };
        self.transact(|_| Ok((vec![Change::create(config.clone())], id))).await
    }

    /// Changes a config's labels; everything else must be as it is.
    ///
    /// # Errors
    /// That it does not exist, that the version is not the present one, or that more than the
    /// labels would change.
    pub async fn update_config(
        &self,
        word: &str,
        version: Version,
        spec: ConfigSpec,
    ) -> Result<(), ApiError> {
        self.transact(|view| {
            let mut config = Config::clone(&*view.find_config(word)?);
            let same_data = spec.data.0.is_empty() || spec.data == config.spec.data;
            if config.spec.name != spec.name || !same_data {
                return Err(invalid(ONLY_LABELS));
            }
            check_version(config.version, version)?;
            config.spec.labels = spec.labels.clone();
            Ok((vec![Change::update(config)], ()))
        })
        .await
    }

    /// Removes a config.
    ///
    /// # Errors
    /// That it does not exist or that a service uses it.
    pub async fn remove_config(&self, word: &str) -> Result<(), ApiError> {
        self.transact(|view| {
            let config = view.find_config(word)?;
            unused(view, "config", &config.spec.name, |container| {
                container.configs.iter().any(|reference| reference.config_id == config.id)
            })?;
            Ok((vec![Change::Remove(config.id.into(), Some(config.revision))], ()))
        })
        .await
    }
}

/// Refuses to remove what a service uses.
fn unused(
    view: &Snapshot,
    kind: &str,
    name: &str,
    uses: impl Fn(&ContainerSpec) -> bool,
) -> Result<(), ApiError> {
    let user = |service: &&Arc<Service>| {
        !service.pending_delete && service.spec.task.container.as_ref().is_some_and(&uses)
    };
    let mut users: Vec<_> =
        view.services.iter().filter(user).map(|service| service.spec.name.as_str()).collect();
    users.sort_unstable();
    let plural = if users.len() > 1 { "s" } else { "" };
    match users.is_empty() {
        true => Ok(()),
        false => Err(invalid(format!(
            "{kind} '{name}' is in use by the following service{plural}: {}",
            users.join(", ")
        ))),
    }
}

fn secret_error(error: SecretError) -> ApiError {
    let code = match error {
        SecretError::NotFound(_) => Code::NotFound,
        SecretError::Denied(..) => Code::PermissionDenied,
        SecretError::Immutable(_) => Code::InvalidArgument,
        _ => Code::Unavailable,
    };
    ApiError::rpc(code, error.to_string())
}
