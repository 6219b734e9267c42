//! Deploys a stack through the control API, as `docker stack deploy` does through the HTTP one:
//! what is missing is created, services that exist are updated.

use swarm_compose::DeployPlan;
use swarm_core::model::ServiceSpec;

use super::control::{AuthFrom, Control, UpdateService};
use crate::error::{ApiError, Code};

impl Control {
    /// Creates the networks, secrets and configs of a stack that are not there yet, then creates
    /// or updates its services. Returns when everything is accepted, not when it runs.
    ///
    /// # Errors
    /// The first refusal; what came before it stays, and deploying again goes on from there.
    pub async fn deploy(&self, plan: &DeployPlan) -> Result<(), ApiError> {
        for network in &plan.networks {
            if self.view()?.networks.named(&network.name).is_none() {
                self.create_network(network.clone()).await?;
            }
        }
        for secret in &plan.secrets {
            if self.view()?.secrets.named(&secret.name).is_none() {
                self.create_secret(secret.clone()).await?;
            }
        }
        for config in &plan.configs {
            if self.view()?.configs.named(&config.name).is_none() {
                self.create_config(config.clone()).await?;
            }
        }
        let view = self.view()?;
        let mut plan = plan.clone();
        plan.bind(
            |name| view.secrets.named(name).map(|secret| secret.id),
            |name| view.configs.named(name).map(|config| config.id),
        )
        .map_err(|missing| ApiError::plain(Code::NotFound, missing.join("; ")))?;
        for spec in plan.services {
            self.deploy_service(spec).await?;
        }
        Ok(())
    }

    async fn deploy_service(&self, spec: ServiceSpec) -> Result<(), ApiError> {
        let Some(service) = self.view()?.services.named(&spec.name).cloned() else {
            return self.create_service(spec, None).await.map(|_| ());
        };
        let update = UpdateService {
            version: service.version,
            spec,
            rollback: false,
            registry_auth: None,
            auth_from: AuthFrom::Spec,
        };
        self.update_service(service.id.as_str(), update).await
    }
}
