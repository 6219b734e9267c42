//! Pure: whether a specification makes sense, with the texts that SwarmKit gives where it does not
//! (`manager/controlapi/{service,secret,config,network,cluster}.go`).

mod convert;
mod image;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{
    ClusterSpec, ConfigSpec, ContainerSpec, EndpointMode, EndpointSpec, FileTarget, Healthcheck,
    IpamConfig, Mount, NetworkSpec, NodeDescription, NodeId, PublishMode, ResourceRequirements,
    RestartPolicy, SecretReference, SecretSpec, ServiceAnnotations, ServiceMode, ServiceSpec, Task,
    UpdateConfig,
};
use crate::template::Context;
pub use image::is_image_reference;

/// Secrets are smaller than this many bytes.
pub const MAX_SECRET_SIZE: usize = 500 * 1024;
/// Configs are smaller than this many bytes.
pub const MAX_CONFIG_SIZE: usize = 1000 * 1024;
/// A node certificate lives at least this long: one hour, in nanoseconds.
pub const MIN_NODE_CERT_EXPIRY: i64 = 3_600_000_000_000;

/// What kind of refusal; decides the status that a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecErrorKind {
    /// It makes no sense.
    Invalid,
    /// It makes no sense either; SwarmKit lets the parser's bare error through (HTTP 500).
    Unclassified,
    /// It makes sense, but this orchestrator does not do it.
    Unsupported,
    /// Users may not ask for it.
    Denied,
    /// The engine refuses it before SwarmKit sees it.
    Malformed,
    /// The engine does not offer it, which it says as if it had failed (HTTP 500).
    NotOffered,
}

/// Why a specification is refused, in Swarm's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpecError {
    /// What kind of refusal.
    pub kind: SpecErrorKind,
    /// The text.
    pub message: String,
}

fn refuse<T>(kind: SpecErrorKind, message: impl Into<String>) -> Result<T, SpecError> {
    Err(SpecError { kind, message: message.into() })
}

fn invalid<T>(message: impl Into<String>) -> Result<T, SpecError> {
    refuse(SpecErrorKind::Invalid, message)
}

/// Checks a service's specification by itself, without regard to other objects.
///
/// # Errors
/// The first rule that it breaks.
pub fn service(spec: &ServiceSpec) -> Result<(), SpecError> {
    convert::service(spec)?;
    dns_name(&spec.name)?;
    task(spec)?;
    mode(spec)?;
    // As in SwarmKit, a job may have a configuration for rolling back; it says nothing.
    let updates = spec.update_config.iter().chain(&spec.rollback_config);
    updates.filter(|_| !spec.mode.is_job()).try_for_each(update)?;
    spec.endpoint.as_ref().map_or(Ok(()), endpoint)
}

/// Checks the name of a service or network: a DNS label, with underscores.
///
/// # Errors
/// What is wrong with it.
pub fn dns_name(name: &str) -> Result<(), SpecError> {
    if name.is_empty() {
        return invalid("meta: name must be provided");
    }
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if !name.chars().all(inner) || !edge(name.chars().next()) || !edge(name.chars().last()) {
        return invalid("name must be valid as a DNS name component");
    }
    if name.len() > 63 {
        return invalid("name must be 63 characters or fewer");
    }
    Ok(())
}

fn task(service: &ServiceSpec) -> Result<(), SpecError> {
    let spec = &*service.task;
    if let Some(requirements) = &spec.resources {
        resources(requirements)?;
    }
    if let Some(policy) = &spec.restart_policy {
        restart(policy)?;
    }
    spec.constraints().iter().try_for_each(|expression| constraint(expression))?;
    // A task of another kind was refused before.
    let Some(container) = &spec.container else { return Ok(()) };
    secret_references(&container.secrets)?;
    config_references(container)?;
    self::container(&tried(container, service)?)
}

/// A container as a task of the service would have it, with made-up ids: SwarmKit's best effort to
/// find mistakes in templates before they reach a node. It tries them without labels and so
/// refuses `.Service.Labels.NAME` always; ours sees the service's.
fn tried(container: &ContainerSpec, service: &ServiceSpec) -> Result<ContainerSpec, SpecError> {
    let annotations = ServiceAnnotations {
        name: service.name.clone(),
        labels: service.labels.clone(),
        ..Default::default()
    };
    let task = Task { slot: 1, annotations: Arc::new(annotations), ..Default::default() };
    let description = NodeDescription { hostname: "nodeHostname".to_owned(), ..Default::default() };
    let context = Context { task: &task, node: NodeId::NIL, description: &description };
    context.expand(container).or_else(|error| invalid(error.to_string()))
}

fn resources(requirements: &ResourceRequirements) -> Result<(), SpecError> {
    let amounts = [
        requirements.limits.as_ref().map(|limits| (limits.nano_cpus, limits.memory_bytes)),
        requirements.reservations.as_ref().map(|amount| (amount.nano_cpus, amount.memory_bytes)),
    ];
    for (nano_cpus, memory) in amounts.into_iter().flatten() {
        if nano_cpus != 0 && nano_cpus < 1_000_000 {
            let cpus = cores(nano_cpus);
            return invalid(format!("invalid cpu value {cpus}: Must be at least 0.001"));
        }
        if memory != 0 && memory < 4 * 1024 * 1024 {
            return invalid(format!("invalid memory value {memory}: Must be at least 4MiB"));
        }
    }
    let reserved = requirements.reservations.iter().flat_map(|amount| &amount.generic);
    for resource in reserved {
        // SwarmKit finds this too, loses the error, and never places the task.
        if let Some(named) = &resource.named {
            return invalid(format!("invalid argument for resource {}", named.kind));
        }
        if resource.discrete.as_ref().is_some_and(|discrete| discrete.value < 0) {
            return invalid("a generic resource cannot be reserved in a negative number");
        }
    }
    Ok(())
}

/// Billionths of a core as Go prints cores (`%g`): `1e-05` where Rust has `0.00001`.
fn cores(nano_cpus: i64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let cores = nano_cpus as f64 / 1e9;
    if cores.abs() >= 1e-4 {
        return cores.to_string();
    }
    let text = format!("{cores:e}");
    let (digits, exponent) = text.split_once("e-").unwrap_or((&text, "0"));
    format!("{digits}e-{exponent:0>2}")
}

fn restart(policy: &RestartPolicy) -> Result<(), SpecError> {
    if policy.delay.is_some_and(|delay| delay.0 < 0) {
        return invalid("TaskSpec: restart-delay cannot be negative");
    }
    if policy.window.is_some_and(|window| window.0 < 0) {
        return invalid("TaskSpec: restart-window cannot be negative");
    }
    Ok(())
}

/// Checks one placement constraint: `KEY == VALUE` or `KEY != VALUE`. Keys that nothing defines
/// are allowed; they never match.
///
/// # Errors
/// What is wrong with it; SwarmKit gives these without a code.
pub fn constraint(expression: &str) -> Result<(), SpecError> {
    let refuse = |message: String| refuse(SpecErrorKind::Unclassified, message);
    let Some((key, value)) = expression.split_once("==").or_else(|| expression.split_once("!="))
    else {
        return refuse("constraint expected one operator from ==, !=".to_owned());
    };
    let (key, value) = (key.trim(), value.trim());
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if key.len() < 2 || !key.starts_with(first) || !key.chars().all(word) {
        return refuse(format!("key '{key}' is invalid"));
    }
    let in_value = |c: char| {
        c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || r":-_.*()?+[]\^$|/".contains(c)
    };
    if value.is_empty() || !value.chars().all(in_value) {
        return refuse(format!("value '{value}' is invalid"));
    }
    Ok(())
}

fn container(spec: &ContainerSpec) -> Result<(), SpecError> {
    if spec.image.is_empty() {
        return invalid("ContainerSpec: image reference must be provided");
    }
    if !is_image_reference(&spec.image) {
        return invalid(format!("ContainerSpec: {:?} is not a valid repository/tag", spec.image));
    }
    mounts(&spec.mounts)?;
    spec.healthcheck.as_ref().map_or(Ok(()), healthcheck)
}

fn mounts(mounts: &[Mount]) -> Result<(), SpecError> {
    let mut targets = BTreeSet::new();
    for mount in mounts {
        if !targets.insert(&mount.target) {
            return invalid(format!("ContainerSpec: duplicate mount point: {}", mount.target));
        }
    }
    Ok(())
}

fn healthcheck(check: &Healthcheck) -> Result<(), SpecError> {
    let durations = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    for (name, duration) in durations {
        if duration.0 != 0 && duration.0 < 1_000_000 {
            let text = format!("ContainerSpec: {name} in HealthConfig cannot be less than 1ms");
            return invalid(text);
        }
    }
    if check.retries < 0 {
        return invalid("ContainerSpec: Retries in HealthConfig cannot be negative");
    }
    Ok(())
}

fn secret_references(references: &[SecretReference]) -> Result<(), SpecError> {
    let uses = references.iter().map(|reference| {
        (reference.secret_id.is_nil(), &reference.secret_name, reference.file.as_ref())
    });
    file_references("secret", uses)
}

fn config_references(container: &ContainerSpec) -> Result<(), SpecError> {
    let (runtime, files): (Vec<_>, Vec<_>) =
        container.configs.iter().partition(|reference| convert::is_for_runtime(reference));
    if runtime.iter().any(|use_| use_.config_id.is_nil() || use_.config_name.is_empty()) {
        return invalid("malformed config reference");
    }
    let files = files.into_iter().map(|reference| {
        (reference.config_id.is_nil(), &reference.config_name, reference.file.as_ref())
    });
    file_references("config", files)?;
    let source = container.extra.get("Privileges").and_then(|all| all.get("CredentialSpec"));
    let Some(id) = source.and_then(|source| convert::member(source, "Config")) else {
        return Ok(());
    };
    match runtime.iter().any(|reference| reference.config_id.as_str() == id) {
        true => Ok(()),
        false => invalid(format!(
            "CredentialSpec references config '{id}', but that config isn't in config references \
             with RuntimeTarget"
        )),
    }
}

fn file_references<'a>(
    kind: &str,
    references: impl Iterator<Item = (bool, &'a String, Option<&'a FileTarget>)>,
) -> Result<(), SpecError> {
    let mut targets = BTreeMap::new();
    for (no_id, name, file) in references {
        if no_id || name.is_empty() {
            return invalid(format!("malformed {kind} reference"));
        }
        let Some(file) = file else {
            return invalid(format!("malformed {kind} reference, no target provided"));
        };
        if file.name.is_empty() {
            return invalid(format!(
                "malformed file {kind} reference, invalid target file name provided"
            ));
        }
        if let Some(previous) = targets.insert(&file.name, name) {
            return invalid(format!(
                "{kind} references '{previous}' and '{name}' have a conflicting target: '{}'",
                file.name
            ));
        }
    }
    Ok(())
}

fn mode(spec: &ServiceSpec) -> Result<(), SpecError> {
    let too_many = |number: Option<u64>| number.is_some_and(|n| i64::try_from(n).is_err());
    match &spec.mode {
        ServiceMode::Replicated(mode) if too_many(mode.replicas) => {
            invalid("Number of replicas must be non-negative")
        }
        ServiceMode::ReplicatedJob(mode) if too_many(mode.max_concurrent) => {
            invalid("Maximum concurrent jobs must not be negative")
        }
        ServiceMode::ReplicatedJob(mode) if too_many(mode.total_completions) => {
            invalid("Total completed jobs must not be negative")
        }
        mode if mode.is_job() && spec.update_config.is_some() => {
            invalid("Jobs may not have an update config")
        }
        _ => Ok(()),
    }
}

fn update(config: &UpdateConfig) -> Result<(), SpecError> {
    if config.delay.0 < 0 {
        return invalid("TaskSpec: update-delay cannot be negative");
    }
    if config.monitor.is_some_and(|monitor| monitor.0 < 0) {
        return invalid("TaskSpec: update-monitor cannot be negative");
    }
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return invalid("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1");
    }
    Ok(())
}

fn endpoint(spec: &EndpointSpec) -> Result<(), SpecError> {
    let mut published = BTreeSet::new();
    for port in &spec.ports {
        if spec.mode == Some(EndpointMode::Dnsrr) && port.publish_mode == PublishMode::Ingress {
            return invalid(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            );
        }
        if port.target_port == 0 {
            return invalid("EndpointSpec: a published port needs a target port from 1 to 65535");
        }
        let key = (port.published_port, port.protocol);
        if port.published_port != 0 && !published.insert(key) {
            return invalid("EndpointSpec: duplicate published ports provided");
        }
    }
    Ok(())
}

/// Checks a secret's specification.
///
/// # Errors
/// What is wrong with it.
pub fn secret(spec: &SecretSpec) -> Result<(), SpecError> {
    file_name(&spec.name)?;
    if let Some(driver) = &spec.driver {
        if driver.name.is_empty() {
            return invalid("secret driver must have a name");
        }
        // No process of ours hosts Docker's secret plugins.
        let text = format!("plugin {:?} not found", driver.name);
        return refuse(SpecErrorKind::Unclassified, text);
    }
    payload("secret", spec.data.as_ref().map_or(0, super::SecretBytes::len), MAX_SECRET_SIZE)
}

/// Checks a config's specification.
///
/// # Errors
/// What is wrong with it.
pub fn config(spec: &ConfigSpec) -> Result<(), SpecError> {
    file_name(&spec.name)?;
    payload("config", spec.data.0.len(), MAX_CONFIG_SIZE)
}

fn payload(kind: &str, size: usize, limit: usize) -> Result<(), SpecError> {
    if size == 0 || size >= limit {
        return invalid(format!("{kind} data must be larger than 0 and less than {limit} bytes"));
    }
    Ok(())
}

fn file_name(name: &str) -> Result<(), SpecError> {
    if name.is_empty() {
        return invalid("name must be provided");
    }
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let ends = edge(name.chars().next()) && edge(name.chars().last());
    if name.len() > 64 || !ends || !name.chars().all(inner) {
        return invalid(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
        );
    }
    Ok(())
}

/// Checks a network's specification.
///
/// # Errors
/// What is wrong with it.
pub fn network(spec: &NetworkSpec) -> Result<(), SpecError> {
    if spec.ingress && !matches!(spec.driver.name.as_str(), "" | "overlay") {
        let text = "only overlay driver is currently supported for ingress network";
        return refuse(SpecErrorKind::Unsupported, text);
    }
    if spec.attachable && spec.ingress {
        return invalid("ingress network cannot be attachable");
    }
    dns_name(&spec.name)?;
    if spec.labels.contains_key("com.docker.swarm.internal") {
        let text = "label com.docker.swarm.internal is for internally created predefined networks and cannot be applied by users";
        return refuse(SpecErrorKind::Denied, text);
    }
    spec.ipam.iter().flat_map(|ipam| &ipam.configs).try_for_each(ipam_config)
}

fn ipam_config(config: &IpamConfig) -> Result<(), SpecError> {
    let IpamConfig { subnet, range, gateway, .. } = config;
    let Some((network, bits)) = cidr(subnet) else {
        return invalid(format!("ipam configuration: invalid subnet {subnet}"));
    };
    let contains = |address: IpAddr| masked(address, bits) == masked(network, bits);
    if !range.is_empty() {
        let Some((address, _)) = cidr(range) else {
            return invalid(format!("ipam configuration: invalid range {range}"));
        };
        if !contains(address) {
            let text = format!("subnet {subnet} does not contain range {range}");
            return invalid(format!("ipam configuration: {text}"));
        }
    }
    if !gateway.is_empty() {
        let Ok(address) = gateway.parse() else {
            return invalid(format!("ipam configuration: invalid gateway {gateway}"));
        };
        if !contains(address) {
            let text = format!("subnet {subnet} does not contain gateway {gateway}");
            return invalid(format!("ipam configuration: {text}"));
        }
    }
    Ok(())
}

/// An address and the length of its mask.
fn cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse().ok()?);
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

/// The first bits of an address; addresses of different families never have the same.
fn masked(address: IpAddr, bits: u32) -> (bool, u128) {
    match address {
        IpAddr::V4(v4) => {
            (true, u128::from(u32::from(v4).checked_shr(32_u32.saturating_sub(bits)).unwrap_or(0)))
        }
        IpAddr::V6(v6) => {
            (false, u128::from(v6).checked_shr(128_u32.saturating_sub(bits)).unwrap_or(0))
        }
    }
}

/// Checks a cluster's specification.
///
/// # Errors
/// What is wrong with it.
pub fn cluster(spec: &ClusterSpec) -> Result<(), SpecError> {
    if spec.name != "default" {
        return invalid("modification of cluster name is not allowed");
    }
    if spec.ca_config.node_cert_expiry.0 < MIN_NODE_CERT_EXPIRY {
        return invalid("minimum certificate expiry time is: 1h0m0s");
    }
    if spec.dispatcher.heartbeat_period.0 < 0 {
        return invalid("heartbeat time period cannot be a negative duration");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
