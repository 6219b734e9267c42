//! Pure: what older clients cannot mean: members of a service's specification that are newer than
//! the request's version are dropped (moby: `adjustForAPIVersion`).

use std::sync::Arc;

use swarm_core::json::Extra;
use swarm_core::model::{ContainerSpec, ServiceMode, ServiceSpec};

use super::ApiVersion;

/// Drops what the version does not know.
pub(super) fn adjust(spec: &mut ServiceSpec, version: ApiVersion) {
    let before = |minor| version < ApiVersion(1, minor);
    if !before(46) {
        return;
    }
    let task = Arc::make_mut(&mut spec.task);
    if let Some(container) = &mut task.container {
        adjust_container(container, before);
    }
    if before(41) {
        if let Some(limits) = task.resources.as_mut().and_then(|it| it.limits.as_mut()) {
            limits.pids = 0;
        }
        if spec.mode.is_job() {
            spec.mode = ServiceMode::default();
        }
    }
    if before(40)
        && let Some(placement) = &mut task.placement
    {
        placement.max_replicas = 0;
    }
}

fn adjust_container(container: &mut ContainerSpec, before: impl Fn(u32) -> bool) {
    container.oom_score_adj = 0;
    for tmpfs in container.mounts.iter_mut().filter_map(|mount| mount.tmpfs.as_mut()) {
        without(&mut tmpfs.extra, &["Options"]);
    }
    if before(44) {
        if let Some(check) = &mut container.healthcheck {
            check.start_interval = swarm_core::time::Nanos(0);
        }
        without_privileges(&mut container.extra);
    }
    if before(41) {
        container.capability_add.clear();
        container.capability_drop.clear();
        container.ulimits.clear();
    }
    if before(40) {
        container.sysctls.clear();
    }
}

fn without(extra: &mut Extra, names: &[&str]) {
    let known = |key: &str| names.iter().any(|name| key.eq_ignore_ascii_case(name));
    if extra.iter().any(|(key, _)| known(key)) {
        let kept = extra.iter().filter(|(key, _)| !known(key));
        let mut rest = Extra::default();
        for (key, value) in kept {
            rest.insert(key.clone(), value.clone());
        }
        *extra = rest;
    }
}

/// `Privileges` is a member that the model keeps as it comes.
fn without_privileges(extra: &mut Extra) {
    let Some(privileges) = extra.get("Privileges").and_then(|value| value.as_object()) else {
        return;
    };
    let mut privileges = privileges.clone();
    for name in ["Seccomp", "AppArmor", "NoNewPrivileges"] {
        privileges.remove(name);
    }
    extra.insert("Privileges".to_owned(), privileges.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_cannot_ask_for_new_things() {
        let json = r#"{"Name":"a","Mode":{"GlobalJob":{}},"TaskTemplate":{"ContainerSpec":{
            "Image":"a","CapabilityAdd":["CAP_KILL"],"OomScoreAdj":5,"Sysctls":{"a":"b"},
            "Privileges":{"NoNewPrivileges":true,"SELinuxContext":{}}},
            "Placement":{"MaxReplicas":1}}}"#;
        let at = |minor| {
            let mut spec: ServiceSpec = serde_json::from_str(json).expect("test JSON");
            adjust(&mut spec, ApiVersion(1, minor));
            serde_json::to_string(&spec).expect("JSON")
        };
        let latest = at(50);
        for member in ["GlobalJob", "CAP_KILL", "OomScoreAdj", "Sysctls", "MaxReplicas", "NoNew"] {
            assert!(latest.contains(member), "{member} in {latest}");
            assert!(!at(24).contains(member), "{member} at 1.24");
        }
        assert!(at(41).contains("CAP_KILL") && at(41).contains("SELinux"));
        assert!(at(40).contains("Sysctls") && !at(40).contains("CAP_KILL"));
    }
}
