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

/// A node's own resources as its operator writes them, `KIND=NUMBER` or `KIND=NAME`, of which names
/// may repeat the kind (dockerd's `--node-generic-resource`).
///
/// ```
/// let words = ["ssd=2", "gpu=UUID-1", "gpu=UUID-2"].map(String::from);
/// assert_eq!(swarm_core::model::parse_generic_resources(&words).unwrap().len(), 3);
/// ```
///
/// # Errors
/// What cannot be read, in SwarmKit's words (`genericresource.Parse`).
pub fn parse_generic_resources(words: &[String]) -> Result<Vec<GenericResource>, String> {
    let failed = |text: String| format!("could not parse GenericResource: {text}");
    let mut kinds = BTreeMap::<&str, Vec<&str>>::new();
    for word in words {
        let pair = word.split_once('=').filter(|(_, value)| !value.contains('='));
        let (kind, value) = pair.ok_or_else(|| {
            failed(format!("incorrect term {word}, missing '=' or malformed expression"))
        })?;
        kinds.entry(kind.trim()).or_default().push(value.trim());
    }
    let mut resources = Vec::new();
    for (kind, values) in kinds {
        match &values[..] {
            [number] if number.parse::<i64>().is_ok_and(|number| number < 0) => {
                return Err(failed(format!("cannot ask for negative resource {kind}")));
            }
            [number] if number.parse::<i64>().is_ok() => {
                let value = number.parse().unwrap_or_default();
                let discrete = DiscreteResource { kind: kind.into(), value, ..Default::default() };
                resources.push(GenericResource { discrete: Some(discrete), ..Default::default() });
            }
            names if names.iter().all(|name| name.parse::<i64>().is_err()) => {
                resources.extend(names.iter().map(|name| {
                    let (kind, value) = (kind.to_owned(), (*name).to_owned());
                    let named = NamedResource { kind, value, ..Default::default() };
                    GenericResource { named: Some(named), ..Default::default() }
                }));
            }
            mixed => {
                return Err(failed(format!(
                    "mixed discrete and named resources in expression '{kind}={mixed:?}'"
                )));
            }
        }
    }
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_resources_are_read_as_dockerd_reads_them() {
        let read = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            parse_generic_resources(&words)
        };
        let resources = read(&["gpu=b", " ssd = 3", "gpu=a"]).unwrap();
        assert_eq!(claims_env(&resources), ["DOCKER_RESOURCE_GPU=b,a", "DOCKER_RESOURCE_SSD=3"]);
        let table = [
            ("ssd", "incorrect term ssd, missing '=' or malformed expression"),
            ("a=b=c", "incorrect term a=b=c, missing '=' or malformed expression"),
            ("ssd=-1", "cannot ask for negative resource ssd"),
        ];
        for (word, text) in table {
            let expected = format!("could not parse GenericResource: {text}");
            assert_eq!(read(&[word]), Err(expected));
        }
        assert!(read(&["a=1", "a=b"]).unwrap_err().contains("mixed discrete and named"));
        assert!(read(&["a=1", "a=2"]).is_err(), "two numbers of one kind");
    }
}
