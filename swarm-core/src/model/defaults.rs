//! Pure: every default of the model in one place (SwarmKit: `api/defaults`, moby: `convert`).

use std::time::Duration;

use super::{
    CaConfig, ClusterSpec, DispatcherConfig, EndpointMode, EndpointSpec, FailureAction,
    OrchestrationConfig, RaftConfig, RestartCondition, RestartPolicy, ServiceSpec, UpdateConfig,
    UpdateOrder,
};
use crate::time::Nanos;

/// Time between the stop signal and the kill.
pub const STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);
/// Time between a task's end and the start of its replacement.
pub const RESTART_DELAY: Duration = Duration::from_secs(5);
/// How long an updated task is watched for failure.
pub const UPDATE_MONITOR: Duration = Duration::from_secs(5);
/// Ended tasks to keep for each slot.
pub const TASK_HISTORY: i64 = 5;
/// Time between two heartbeats of an agent.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_secs(5);
/// An agent that is silent for this many heartbeat periods is down.
pub const HEARTBEAT_GRACE: u32 = 3;
/// The same for agents that a new leader has not heard of yet.
pub const HEARTBEAT_GRACE_NEW_LEADER: u32 = 6;
/// Life of a node's certificate: 90 days.
pub const NODE_CERT_EXPIRY: Duration = Duration::from_secs(90 * 24 * 3600);
/// Where networks without ranges of their own get them from.
pub const ADDR_POOL: &str = "10.0.0.0/8";
/// The mask length of a range taken from the pool.
pub const SUBNET_SIZE: u32 = 24;
/// The UDP port of the data plane.
pub const DATA_PATH_PORT: u32 = 4789;
/// The TCP port of the managers.
pub const LISTEN_PORT: u16 = 2377;

/// The settings of a new cluster, with every number that `docker swarm init` may leave out.
#[must_use]
pub fn cluster_spec() -> ClusterSpec {
    ClusterSpec {
        name: "default".to_owned(),
        orchestration: OrchestrationConfig {
            task_history_retention_limit: Some(TASK_HISTORY),
            ..Default::default()
        },
        raft: RaftConfig {
            snapshot_interval: 10_000,
            keep_old_snapshots: Some(0),
            log_entries_for_slow_followers: 500,
            election_tick: 10,
            heartbeat_tick: 1,
            ..Default::default()
        },
        dispatcher: DispatcherConfig {
            heartbeat_period: HEARTBEAT_PERIOD.into(),
            ..Default::default()
        },
        ca_config: CaConfig { node_cert_expiry: NODE_CERT_EXPIRY.into(), ..Default::default() },
        ..Default::default()
    }
}

/// The update configuration of a service that has none, for updates and rollbacks alike.
#[must_use]
pub fn update_config() -> UpdateConfig {
    UpdateConfig {
        parallelism: 1,
        delay: Nanos(0),
        failure_action: Some(FailureAction::Pause),
        monitor: Some(UPDATE_MONITOR.into()),
        max_failure_ratio: 0.0,
        order: Some(UpdateOrder::StopFirst),
        ..Default::default()
    }
}

/// The restart policy of a service that has none.
#[must_use]
pub fn restart_policy() -> RestartPolicy {
    RestartPolicy {
        condition: Some(RestartCondition::Any),
        delay: Some(RESTART_DELAY.into()),
        max_attempts: Some(0),
        ..Default::default()
    }
}

/// The specification with its defaults written out, as `GET /services/{id}?insertDefaults=true`
/// shows it. Never stored. As in Docker, jobs get update configurations too, which they may not
/// have.
#[must_use]
pub fn inserted(spec: &ServiceSpec) -> ServiceSpec {
    let mut spec = spec.clone();
    let task = std::sync::Arc::make_mut(&mut spec.task);
    if let Some(container) = &mut task.container {
        container.stop_grace_period.get_or_insert(STOP_GRACE_PERIOD.into());
    }
    let restart = task.restart_policy.get_or_insert_default();
    let default = restart_policy();
    restart.condition = restart.condition.or(default.condition);
    restart.delay = restart.delay.or(default.delay);
    restart.max_attempts = restart.max_attempts.or(default.max_attempts);
    for config in [&mut spec.update_config, &mut spec.rollback_config] {
        let config = config.get_or_insert_with(update_config);
        let default = update_config();
        config.failure_action = config.failure_action.or(default.failure_action);
        config.monitor = config.monitor.filter(|monitor| monitor.0 != 0).or(default.monitor);
        config.order = config.order.or(default.order);
    }
    let endpoint = spec.endpoint.get_or_insert_with(EndpointSpec::default);
    endpoint.mode.get_or_insert(EndpointMode::Vip);
    spec
}
