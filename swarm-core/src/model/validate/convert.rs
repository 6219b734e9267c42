//! Pure: what the engine refuses before SwarmKit sees it, in its words and its order (moby:
//! `daemon/cluster/convert`).

use serde_json::Value;

use super::{SpecError, SpecErrorKind, refuse};
use crate::model::{
    ConfigReference, ContainerSpec, Mount, MountType, ResourceRequirements, ServiceSpec, TaskSpec,
};

const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];

fn malformed<T>(message: impl Into<String>) -> Result<T, SpecError> {
    refuse(SpecErrorKind::Malformed, message)
}

/// Checks a service's specification as the engine does while it converts it.
pub(super) fn service(spec: &ServiceSpec) -> Result<(), SpecError> {
    let task = &spec.task;
    task.resources.as_ref().map_or(Ok(()), resources)?;
    runtime(task)?;
    task.container.as_ref().map_or(Ok(()), container)
}

fn resources(requirements: &ResourceRequirements) -> Result<(), SpecError> {
    let memory = requirements.limits.as_ref().map_or(0, |limits| limits.memory_bytes);
    match requirements.swap_bytes {
        Some(_) if memory == 0 => malformed("memory swap provided, but no memory-limit was set"),
        _ => Ok(()),
    }
}

fn runtime(task: &TaskSpec) -> Result<(), SpecError> {
    let there = match task.runtime.as_str() {
        "" | "container" => task.container.is_some(),
        "plugin" => task.extra.get("PluginSpec").is_some_and(|spec| !spec.is_null()),
        _ => return malformed("unsupported runtime"),
    };
    if !there {
        return malformed("mismatched Runtime and *Spec fields");
    }
    if task.runtime == "plugin" {
        let text = "runtime type \"plugin\" only supported in experimental";
        return refuse(SpecErrorKind::NotOffered, text);
    }
    Ok(())
}

fn container(spec: &ContainerSpec) -> Result<(), SpecError> {
    let privileges = spec.extra.get("Privileges");
    if let Some(source) = privileges.and_then(|all| all.get("CredentialSpec")) {
        credentials(source)?;
    }
    spec.configs.iter().try_for_each(config)?;
    spec.mounts.iter().try_for_each(mount)
}

/// Where a Windows container finds its credentials: one place.
fn credentials(source: &Value) -> Result<(), SpecError> {
    if source.is_null() {
        return Ok(());
    }
    let given = |name: &&str| member(source, name).is_some();
    let names: Vec<_> = ["Config", "File", "Registry"].into_iter().filter(given).collect();
    let quoted: Vec<_> = names.iter().map(|name| format!("{:?}", name.to_lowercase())).collect();
    let why = match &quoted[..] {
        [] => "must either provide \"file\", \"registry\", or \"config\" for credential spec"
            .to_owned(),
        [_] => return Ok(()),
        [one, other] => format!("cannot specify both {one} and {other} credential specs"),
        [others @ .., last] => {
            format!("cannot specify both {}, and {last} credential specs", others.join(", "))
        }
    };
    malformed(format!("invalid CredentialSpec: {why}"))
}

/// The text of a member that the model does not read, if it is not empty.
pub(super) fn member<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Whether a config configures the runtime (a credential specification) and is no file.
pub(super) fn is_for_runtime(reference: &ConfigReference) -> bool {
    reference.extra.get("Runtime").is_some_and(|runtime| !runtime.is_null())
}

fn config(reference: &ConfigReference) -> Result<(), SpecError> {
    match (reference.file.is_some(), is_for_runtime(reference)) {
        (false, false) => malformed("invalid Config: either File or Runtime should be set"),
        (true, true) => malformed("invalid Config: cannot specify both File and Runtime"),
        _ => Ok(()),
    }
}

fn mount(mount: &Mount) -> Result<(), SpecError> {
    if mount.kind == MountType::Image {
        return malformed(format!("invalid MountType: \"{}\"", mount.kind));
    }
    let propagation = mount.bind.as_ref().map_or("", |bind| &bind.propagation);
    let known = PROPAGATIONS.iter().any(|word| word.eq_ignore_ascii_case(propagation));
    match propagation.is_empty() || known {
        true => Ok(()),
        false => malformed(format!("invalid MountPropagation: {propagation:?}")),
    }
}
