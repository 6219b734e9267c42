//! Pure: a service's specification as the store keeps it: names resolved, the engine's own
//! defaults filled in, references and ports checked against the other objects.

use std::sync::Arc;

use swarm_core::model::{
    EndpointMode, FailureAction, NetworkAttachmentConfig, PublishMode, RestartCondition, ServiceId,
    ServiceMode, ServiceSpec, UpdateOrder, validate,
};
use swarm_core::store::Snapshot;
use swarm_sched::allocate::port_conflict;

use super::find::Find as _;
use super::{invalid, precondition};
use crate::error::ApiError;

/// Bytes of JSON that a service's specification has at most.
const LARGEST_SPEC: usize = 384 << 10;

/// Brings a client's specification into the stored form (moby: `convert.ServiceSpecToGRPC` and
/// `populateNetworkID`): what the engine adds, and network ids for names.
pub(super) fn normalise(spec: &mut ServiceSpec, view: &Snapshot) -> Result<(), ApiError> {
    let deprecated = std::mem::take(&mut spec.networks);
    let task = Arc::make_mut(&mut spec.task);
    if task.networks.is_empty() {
        task.networks = deprecated;
    }
    for attachment in &mut task.networks {
        resolve(attachment, view)?;
    }
    if let Some(policy) = &mut task.restart_policy {
        policy.condition.get_or_insert(RestartCondition::Any);
    }
    if let Some(container) = &mut task.container {
        if task.runtime.is_empty() {
            "container".clone_into(&mut task.runtime);
        }
        if container.isolation.is_empty() {
            "default".clone_into(&mut container.isolation);
        }
        let binds = container.mounts.iter_mut().filter_map(|mount| mount.bind.as_mut());
        for bind in binds.filter(|bind| bind.non_recursive && bind.propagation.is_empty()) {
            "rprivate".clone_into(&mut bind.propagation);
        }
    }
    match &mut spec.mode {
        ServiceMode::Replicated(mode) => _ = mode.replicas.get_or_insert(1),
        ServiceMode::ReplicatedJob(mode) => {
            mode.max_concurrent = Some(mode.max_concurrent());
            mode.total_completions = Some(mode.total_completions());
        }
        ServiceMode::Global(_) | ServiceMode::GlobalJob(_) => {}
    }
    for config in spec.update_config.iter_mut().chain(&mut spec.rollback_config) {
        config.failure_action.get_or_insert(FailureAction::Pause);
        config.order.get_or_insert(UpdateOrder::StopFirst);
    }
    if let Some(endpoint) = &mut spec.endpoint {
        endpoint.mode.get_or_insert(EndpointMode::Vip);
    }
    Ok(())
}

fn resolve(attachment: &mut NetworkAttachmentConfig, view: &Snapshot) -> Result<(), ApiError> {
    let network = view.find_network(&attachment.target)?;
    if network.spec.ingress {
        return Err(invalid(format!(
            "Service cannot be explicitly attached to the ingress network {:?}",
            network.spec.name
        )));
    }
    network.id.as_str().clone_into(&mut attachment.target);
    Ok(())
}

/// Checks a normalised specification: by itself, then its ports, then its secrets and configs.
/// `service` is the one that has it already, [`NIL`](ServiceId::NIL) for a new one.
pub(super) fn check(
    spec: &ServiceSpec,
    view: &Snapshot,
    service: ServiceId,
) -> Result<(), ApiError> {
    validate::service(spec)?;
    small_enough(spec)?;
    let old = view.services.get(service).map(|service| &service.spec.endpoint);
    if old != Some(&spec.endpoint)
        && let Some(endpoint) = &spec.endpoint
        && let Some(conflict) = port_conflict(view, service, endpoint)
    {
        return Err(invalid(conflict.to_string()));
    }
    let mut ports = spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    let mut ingress = view.networks.iter().filter(|it| it.spec.ingress && !it.pending_delete);
    if ports.any(|port| port.publish_mode == PublishMode::Ingress) && ingress.next().is_none() {
        let text = "service needs ingress network, but no ingress network is present";
        return Err(precondition(text));
    }
    references(spec, view)
}

/// A service has two specifications, and each of its tasks has one; what managers add to them must
/// fit into the same entry of the log.
fn small_enough(spec: &ServiceSpec) -> Result<(), ApiError> {
    let bytes = serde_json::to_vec(spec).map_or(usize::MAX, |json| json.len());
    if bytes <= LARGEST_SPEC {
        return Ok(());
    }
    Err(invalid(format!(
        "the service's specification takes {bytes} bytes, {LARGEST_SPEC} are the most: give large \
         values to its tasks as configs or secrets"
    )))
}

/// Every secret and config must exist and still have the name that the reference gives.
fn references(spec: &ServiceSpec, view: &Snapshot) -> Result<(), ApiError> {
    let Some(container) = &spec.task.container else { return Ok(()) };
    let secrets = container.secrets.iter().filter_map(|reference| {
        let stored = view.secrets.get(reference.secret_id).map(|secret| &secret.spec.name);
        (stored != Some(&reference.secret_name)).then_some(reference.secret_name.as_str())
    });
    missing("secret", secrets.collect())?;
    let configs = container.configs.iter().filter_map(|reference| {
        let stored = view.configs.get(reference.config_id).map(|config| &config.spec.name);
        (stored != Some(&reference.config_name)).then_some(reference.config_name.as_str())
    });
    missing("config", configs.collect())
}

fn missing(kind: &str, names: Vec<&str>) -> Result<(), ApiError> {
    let plural = if names.len() > 1 { "s" } else { "" };
    match names.is_empty() {
        true => Ok(()),
        false => Err(invalid(format!("{kind}{plural} not found: {}", names.join(", ")))),
    }
}
