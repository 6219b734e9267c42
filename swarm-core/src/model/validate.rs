//! Pure: whether a specification makes sense, with the texts that SwarmKit gives where it does not
//! (`manager/controlapi/{service,secret,config,network,cluster}.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{
    ClusterSpec, ConfigReference, ConfigSpec, ContainerSpec, EndpointMode, EndpointSpec,
    FileTarget, Healthcheck, IpamConfig, Mount, MountType, NetworkSpec, NodeDescription, NodeId,
    PublishMode, ResourceRequirements, RestartPolicy, SecretReference, SecretSpec,
    ServiceAnnotations, ServiceMode, ServiceSpec, Task, UpdateConfig,
};
use crate::template::Context;

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
    let is_container = spec.runtime.is_empty() || spec.runtime == "container";
    if is_container != spec.container.is_some() {
        return refuse(SpecErrorKind::Malformed, "mismatched Runtime and *Spec fields");
    }
    if let Some(requirements) = &spec.resources {
        resources(requirements)?;
    }
    if let Some(policy) = &spec.restart_policy {
        restart(policy)?;
    }
    spec.constraints().iter().try_for_each(|expression| constraint(expression))?;
    let Some(container) = &spec.container else {
        return refuse(
            SpecErrorKind::Unsupported,
            format!("RuntimeSpec: unimplemented runtime {:?} in service spec", spec.runtime),
        );
    };
    secret_references(&container.secrets)?;
    config_references(&container.configs)?;
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
            #[allow(clippy::cast_precision_loss)]
            let cpus = nano_cpus as f64 / 1e9;
            return invalid(format!("invalid cpu value {cpus}: Must be at least 0.001"));
        }
        if memory != 0 && memory < 4 * 1024 * 1024 {
            return invalid(format!("invalid memory value {memory}: Must be at least 4MiB"));
        }
    }
    let reserved = requirements.reservations.iter().flat_map(|amount| &amount.generic);
    for resource in reserved {
        if resource.named.is_some() {
            return invalid(
                "named generic resources cannot be reserved, ask for a discrete number",
            );
        }
        if resource.discrete.as_ref().is_some_and(|discrete| discrete.value < 0) {
            return invalid("a generic resource cannot be reserved in a negative number");
        }
    }
    Ok(())
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
        if mount.kind == MountType::Image {
            return refuse(
                SpecErrorKind::Malformed,
                format!("invalid MountType: \"{}\"", mount.kind),
            );
        }
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

fn config_references(references: &[ConfigReference]) -> Result<(), SpecError> {
    let uses = references.iter().map(|reference| {
        let runtime = reference.file.is_none() && reference.extra.get("Runtime").is_some();
        (reference.config_id.is_nil(), &reference.config_name, reference.file.as_ref(), runtime)
    });
    // A config that configures the runtime (a credential specification) is no file.
    let files = uses.filter(|(.., runtime)| !runtime).map(|(nil, name, file, _)| (nil, name, file));
    file_references("config", files)
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
    if config.subnet.is_empty() {
        return invalid("ipam configuration: invalid subnet ");
    }
    for (word, text) in [("subnet", &config.subnet), ("range", &config.range)] {
        if !text.is_empty() && !is_cidr(text) {
            return invalid(format!("ipam configuration: invalid {word} {text}"));
        }
    }
    if !config.gateway.is_empty() && config.gateway.parse::<IpAddr>().is_err() {
        return invalid(format!("ipam configuration: invalid gateway {}", config.gateway));
    }
    Ok(())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let widest = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= widest)
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

/// Whether a text names an image as `docker run` takes it: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`
/// (distribution/reference: `ParseNormalizedNamed`).
///
/// ```
/// use swarm_core::model::validate::is_image_reference;
/// assert!(is_image_reference("nginx") && is_image_reference("10.99.0.1:5000/a/b:v2"));
/// assert!(!is_image_reference("BAD//image") && !is_image_reference("nginx:"));
/// ```
#[must_use]
pub fn is_image_reference(text: &str) -> bool {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let last_slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[last_slash..].find(':') {
        Some(colon) => (&rest[..last_slash + colon], Some(&rest[last_slash + colon + 1..])),
        None => (rest, None),
    };
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if is_host_like(host) => (Some(host), path),
        _ => (None, name),
    };
    let anonymous = host.is_none() && path.len() == 64 && path.chars().all(is_lower_hex);
    !anonymous
        && host.is_none_or(is_host)
        && path.len() <= 255
        && path.split('/').all(is_path_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

fn is_host_like(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':']) || text.chars().any(|c| c.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_ok = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    host_ok && port.is_none_or(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_digit()))
}

/// `[a-z0-9]+` runs, separated by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = text.split(alnum).filter(|separator| !separator.is_empty());
    text.starts_with(alnum)
        && text.ends_with(alnum)
        && separators
            .into_iter()
            .all(|s| matches!(s, "." | "_" | "__") || s.chars().all(|c| c == '-'))
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(word)
        && text.len() <= 128
        && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_digest(text: &str) -> bool {
    let hex_length = |algorithm| match algorithm {
        "sha256" => Some(64),
        "sha384" => Some(96),
        "sha512" => Some(128),
        _ => None,
    };
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        hex_length(algorithm) == Some(hex.len()) && hex.chars().all(is_lower_hex)
    })
}

fn is_lower_hex(c: char) -> bool {
    c.is_ascii_digit() || ('a'..='f').contains(&c)
}

#[cfg(test)]
mod tests;
