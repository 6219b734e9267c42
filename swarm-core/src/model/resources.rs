//! Resources: what a node has, what a task reserves and what it may use at most.

use std::collections::BTreeMap;

crate::object! {
    /// An amount of resources: a node's total, or a reservation.
    pub struct Resources {
        /// Processor time in billionths of a core.
        nano_cpus: i64 = "NanoCPUs" omit,
        /// Memory in bytes.
        memory_bytes: i64 = "MemoryBytes" omit,
        /// Resources of the operator's own kinds, such as GPUs.
        generic: Vec<GenericResource> = "GenericResources" omit,
    }
}

crate::object! {
    /// What a task may use at most.
    pub struct Limits {
        /// Processor time in billionths of a core; 0 is no limit.
        nano_cpus: i64 = "NanoCPUs" omit,
        /// Memory in bytes; 0 is no limit.
        memory_bytes: i64 = "MemoryBytes" omit,
        /// Number of processes; 0 is no limit.
        pids: i64 = "Pids" omit,
    }
}

crate::object! {
    /// A task's limits and reservations.
    pub struct ResourceRequirements {
        /// Enforced by the executor, not considered when placing.
        limits: Option<Limits> = "Limits" omit,
        /// Considered when placing.
        reservations: Option<Resources> = "Reservations" omit,
        /// Swap in bytes (API 1.52).
        swap_bytes: Option<i64> = "SwapBytes" omit,
        /// Swappiness in percent (API 1.52).
        memory_swappiness: Option<i64> = "MemorySwappiness" omit,
    }
}

crate::object! {
    /// A resource of the operator's own kind: exactly one member is set.
    pub struct GenericResource {
        /// A resource with a name, such as one particular GPU.
        named: Option<NamedResource> = "NamedResourceSpec" omit,
        /// A number of interchangeable resources.
        discrete: Option<DiscreteResource> = "DiscreteResourceSpec" omit,
    }
}

crate::object! {
    /// One particular resource.
    pub struct NamedResource {
        /// The kind, such as `gpu`.
        kind: String = "Kind" omit,
        /// Its name.
        value: String = "Value" omit,
    }
}

crate::object! {
    /// A number of interchangeable resources.
    pub struct DiscreteResource {
        /// The kind, such as `gpu`.
        kind: String = "Kind" omit,
        /// How many.
        value: i64 = "Value" omit,
    }
}

crate::object! {
    /// An operating system and processor architecture.
    pub struct Platform {
        /// As `uname -m` says it (`x86_64`) or as registries do (`amd64`).
        architecture: String = "Architecture" omit,
        /// `linux` or `windows`.
        os: String = "OS" omit,
    }
}

/// Claimed generic resources as a task's environment has them: `DOCKER_RESOURCE_GPU=a,b` for named
/// ones, `DOCKER_RESOURCE_SSD=2` for a number (SwarmKit: `genericresource.EnvFormat`).
#[must_use]
pub fn claims_env(claimed: &[GenericResource]) -> Vec<String> {
    let mut values = BTreeMap::<String, Vec<String>>::new();
    for resource in claimed {
        let (kind, value) = match (&resource.named, &resource.discrete) {
            (Some(named), _) => (&named.kind, named.value.clone()),
            (None, Some(discrete)) => (&discrete.kind, discrete.value.to_string()),
            (None, None) => continue,
        };
        values.entry(kind.to_uppercase()).or_default().push(value);
    }
    let entry = |(kind, values): (String, Vec<String>)| {
        format!("DOCKER_RESOURCE_{kind}={}", values.join(","))
    };
    values.into_iter().map(entry).collect()
}
