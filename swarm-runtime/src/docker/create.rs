//! Turns a task's specification into the engine's create request (moby:
//! `daemon/cluster/executor/container/container.go`).

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigIsolationEnum, HostConfigLogConfig, Mount,
    MountType, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use swarm_core::executor::{Assignment, ExecError};
use swarm_core::model::{ContainerSpec, Labels, ResourceRequirements, Task, defaults};

use super::secrets::FileMount;
use super::{DockerConfig, OWNER_LABEL, TASK_LABEL, ports, security};

/// The label with a task's published ports, for an agent that adopts the container.
pub(super) const PORTS_LABEL: &str = "swarm.ports";

/// The request that makes a task's container. `files` are its secrets and configs.
///
/// # Errors
/// `Rejected` for a task without a container, or with members that the engine has no place for.
pub(super) fn request(
    config: &DockerConfig,
    assignment: &Assignment,
    files: &[FileMount],
) -> Result<ContainerCreateBody, ExecError> {
    let task = &assignment.task;
    let spec = task.spec.container.as_ref().ok_or_else(|| {
        let runtime = &task.spec.runtime;
        ExecError::rejected(format!("a task of runtime {runtime:?} has no container to run"))
    })?;
    let bindings = ports::bindings(task, config.advertise);
    let security = security::options(spec.extra.get("Privileges"), &assignment.configs)?;
    let mut host = host_config(task, spec, &security)?;
    host.network_mode = network_mode(assignment);
    let binds = files.iter().map(|file| Mount {
        typ: Some(MountType::BIND),
        source: Some(file.source.to_string_lossy().into_owned()),
        target: Some(file.target.clone()),
        read_only: Some(true),
        ..Default::default()
    });
    host.mounts.get_or_insert_default().extend(binds);
    let (entrypoint, cmd) = match spec.command.is_empty() {
        true => (None, some(&spec.args)),
        false => (some(&spec.command), some(&spec.args)),
    };
    let grace =
        spec.stop_grace_period.map_or(defaults::STOP_GRACE_PERIOD, |grace| grace.duration());
    Ok(ContainerCreateBody {
        hostname: text(&spec.hostname),
        user: text(&spec.user),
        exposed_ports: Some(bindings.keys().cloned().collect()),
        tty: Some(spec.tty),
        open_stdin: Some(spec.open_stdin),
        env: some(&spec.env),
        cmd,
        entrypoint,
        healthcheck: spec
            .healthcheck
            .as_ref()
            .map(|check| same("Healthcheck", check))
            .transpose()?,
        image: Some(spec.image.clone()),
        working_dir: text(&spec.dir),
        labels: Some(labels(config, task, spec)),
        stop_signal: text(&spec.stop_signal),
        stop_timeout: Some(i64::try_from(grace.as_secs()).unwrap_or(i64::MAX)),
        host_config: Some(HostConfig { port_bindings: Some(bindings), ..host }),
        ..Default::default()
    })
}

/// The labels of real Swarm, and ours. What the operator set cannot change them.
fn labels(config: &DockerConfig, task: &Task, spec: &ContainerSpec) -> HashMap<String, String> {
    let name = task.name();
    let node = config.node.to_string();
    let mut labels: HashMap<_, _> = spec.labels.clone().into_iter().collect();
    let swarm = [
        (TASK_LABEL, task.id.to_string()),
        ("com.docker.swarm.task", String::new()),
        ("com.docker.swarm.task.name", name),
        ("com.docker.swarm.node.id", node),
        ("com.docker.swarm.service.id", task.service_id.to_string()),
        ("com.docker.swarm.service.name", task.annotations.name.clone()),
        (OWNER_LABEL, config.owner()),
    ];
    labels.extend(swarm.map(|(key, value)| (key.to_owned(), value)));
    labels.extend(ports::to_label(task).map(|ports| (PORTS_LABEL.to_owned(), ports)));
    labels
}

/// Predefined networks of the node are modes of a container; networks of the cluster are attached
/// by their driver later, and take the engine's default bridge away then.
fn network_mode(assignment: &Assignment) -> Option<String> {
    let drivers = assignment.attachments.iter().map(|at| at.network.spec.driver.name.as_str());
    drivers
        .filter_map(|driver| match driver {
            "host" => Some("host".to_owned()),
            "null" => Some("none".to_owned()),
            _ => None,
        })
        .next()
}

fn host_config(
    task: &Task,
    spec: &ContainerSpec,
    security: &[String],
) -> Result<HostConfig, ExecError> {
    let dns = spec.dns_config.clone().unwrap_or_default();
    let mounts = spec.mounts.iter().map(|mount| same("Mounts", mount));
    let isolation = match spec.isolation.as_str() {
        "" | "default" => None,
        "process" => Some(HostConfigIsolationEnum::PROCESS),
        "hyperv" => Some(HostConfigIsolationEnum::HYPERV),
        other => return Err(ExecError::rejected(format!("invalid isolation: {other:?}"))),
    };
    let host = HostConfig {
        mounts: Some(mounts.collect::<Result<_, _>>()?),
        readonly_rootfs: Some(spec.read_only),
        init: spec.init,
        group_add: some(&spec.groups),
        sysctls: map(&spec.sysctls),
        cap_add: some(&spec.capability_add),
        cap_drop: some(&spec.capability_drop),
        oom_score_adj: Some(spec.oom_score_adj),
        dns: some(&dns.nameservers),
        dns_search: some(&dns.search),
        dns_options: some(&dns.options),
        extra_hosts: some(&extra_hosts(&spec.hosts)),
        security_opt: some(security),
        ulimits: (!spec.ulimits.is_empty()).then(|| ulimits(spec)),
        log_config: task.spec.log_driver.as_ref().filter(|log| !log.name.is_empty()).map(|log| {
            HostConfigLogConfig { typ: Some(log.name.clone()), config: map(&log.options) }
        }),
        isolation,
        // Restarting is the orchestrator's decision.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        ..Default::default()
    };
    Ok(match &task.spec.resources {
        Some(resources) => limited(host, resources),
        None => host,
    })
}

fn limited(mut host: HostConfig, resources: &ResourceRequirements) -> HostConfig {
    let positive = |amount: i64| (amount > 0).then_some(amount);
    if let Some(limits) = &resources.limits {
        host.memory = positive(limits.memory_bytes);
        host.nano_cpus = positive(limits.nano_cpus);
        host.pids_limit = positive(limits.pids);
    }
    if let Some(reserved) = &resources.reservations {
        host.memory_reservation = positive(reserved.memory_bytes);
    }
    // The engine counts memory and swap together; -1 is no limit.
    host.memory_swap = resources.swap_bytes.map(|swap| match swap {
        -1 => -1,
        swap => host.memory.unwrap_or(0).saturating_add(swap),
    });
    host.memory_swappiness = resources.memory_swappiness;
    host
}

fn ulimits(spec: &ContainerSpec) -> Vec<ResourcesUlimits> {
    let limit = |limit: &swarm_core::model::Ulimit| ResourcesUlimits {
        name: Some(limit.name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    };
    spec.ulimits.iter().map(limit).collect()
}

/// `ADDRESS NAME…` of a hosts file as the engine's `NAME:ADDRESS`.
fn extra_hosts(hosts: &[String]) -> Vec<String> {
    let line = |line: &String| {
        let mut words = line.split_whitespace();
        let address = words.next().unwrap_or_default().to_owned();
        words.map(move |name| format!("{name}:{address}")).collect::<Vec<_>>()
    };
    hosts.iter().flat_map(line).collect()
}

/// One of our objects as the client library's: both have Docker's JSON.
fn same<T: DeserializeOwned>(what: &str, object: &impl Serialize) -> Result<T, ExecError> {
    serde_json::to_value(object).and_then(serde_json::from_value).map_err(|error| {
        ExecError::rejected(format!("the engine cannot take these {what}: {error}"))
    })
}

fn some(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn map(map: &Labels) -> Option<HashMap<String, String>> {
    (!map.is_empty()).then(|| map.clone().into_iter().collect())
}
