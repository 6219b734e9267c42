//! Pure: keys of services that Swarm does not do: those it ignores, and those it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::{ComposeError, Place};
use crate::stack::Warning;
use crate::value::Node;

const UNSUPPORTED: [&str; 16] = [
    "build",
    "cgroup_parent",
    "cgroupns_mode",
    "devices",
    "domainname",
    "external_links",
    "ipc",
    "links",
    "mac_address",
    "network_mode",
    "pid",
    "privileged",
    "restart",
    "security_opt",
    "shm_size",
    "userns_mode",
];

const DEPRECATED: [(&str, &str); 2] = [
    ("container_name", "Setting the container name is not supported."),
    (
        "expose",
        "Exposing ports is unnecessary - services on the same network can access each other's \
         containers on any port.",
    ),
];

const LIMITS: &str = "Set resource limits using deploy.resources";

const FORBIDDEN: [(&str, &str); 8] = [
    ("cpu_quota", LIMITS),
    ("cpu_shares", LIMITS),
    ("cpuset", LIMITS),
    ("extends", "Support for `extends` is not implemented yet."),
    ("mem_limit", LIMITS),
    ("memswap_limit", LIMITS),
    (
        "volume_driver",
        "Instead of setting the volume driver on the service, define a volume using the top-level \
         `volumes` option and specify the driver there.",
    ),
    (
        "volumes_from",
        "To share a volume between services, define it using the top-level `volumes` option and \
         reference it from each service that shares it using the service-level `volumes` option.",
    ),
];

fn services(root: &Node) -> impl Iterator<Item = (&String, &Node)> {
    root.get("services").and_then(|node| node.value.as_map()).into_iter().flatten()
}

/// Refuses a file with keys that were about resources or other containers in version 2: ignoring
/// them would run a service without the limits that its author set.
pub(crate) fn check(file: &Path, root: &Node) -> Result<(), ComposeError> {
    let mut advice = BTreeMap::new();
    let mut first: Option<(usize, &str, &str)> = None;
    for (service, node) in services(root) {
        for (key, reason) in FORBIDDEN {
            let Some(entry) = node.get(key) else { continue };
            advice.insert(key, reason);
            if first.is_none_or(|(line, ..)| entry.line < line) {
                first = Some((entry.line, service, key));
            }
        }
    }
    let Some((line, service, key)) = first else { return Ok(()) };
    let advice: Vec<_> = advice.iter().map(|(key, reason)| format!("{key}: {reason}")).collect();
    Err(ComposeError::Forbidden {
        place: Place::new(file, line),
        service: service.to_owned(),
        key: key.to_owned(),
        advice: advice.join("\n\n"),
    })
}

/// Warns of keys that are ignored, once for all files.
pub(crate) fn warnings<'a>(roots: impl Iterator<Item = &'a Node> + Clone) -> Vec<Warning> {
    let used = |key: &str| roots.clone().any(|root| services(root).any(|(_, node)| node.has(key)));
    let unsupported: BTreeSet<_> = UNSUPPORTED.into_iter().filter(|key| used(key)).collect();
    let deprecated: BTreeMap<_, _> = DEPRECATED
        .into_iter()
        .filter(|(key, _)| used(key))
        .map(|(key, reason)| (key.to_owned(), reason))
        .collect();
    let mut warnings = Vec::new();
    if !unsupported.is_empty() {
        warnings.push(Warning::Unsupported(unsupported.into_iter().map(str::to_owned).collect()));
    }
    if !deprecated.is_empty() {
        warnings.push(Warning::Deprecated(deprecated));
    }
    warnings
}
