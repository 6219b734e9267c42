//! Pure: how a service runs: its mode, restarts, updates, resources, health and ports.

use serde_json::Value as Json;

use super::Body;
use crate::model::{
    Deploy, Duration, Healthcheck, Placement, Port, Resources, RestartPolicy, Update,
};
use crate::units;

/// How many tasks.
pub(super) fn mode(deploy: &Deploy) -> Result<Json, String> {
    let only = |name: &str, body: Body| Ok(Body::default().always(name, body).into());
    let replicas = deploy.replicas;
    match deploy.mode.as_str() {
        "" | "replicated" => only("Replicated", Body::default().maybe("Replicas", replicas)),
        "replicated-job" => {
            let body = Body::default().maybe("MaxConcurrent", replicas);
            only("ReplicatedJob", body.maybe("TotalCompletions", replicas))
        }
        "global" | "global-job" if replicas.is_some() => {
            Err("replicas can only be used with replicated or replicated-job mode".to_owned())
        }
        "global" => only("Global", Body::default()),
        "global-job" => only("GlobalJob", Body::default()),
        other => Err(format!("Unknown mode: {other}")),
    }
}

const fn nanos(duration: Option<Duration>) -> Option<i64> {
    match duration {
        Some(Duration(nanos)) => Some(nanos),
        None => None,
    }
}

/// When ended tasks are replaced: `deploy.restart_policy`, or else the older `restart`, which is
/// reported as unsupported and yet means something.
pub(super) fn restart(
    policy: Option<&RestartPolicy>,
    restart: &str,
) -> Result<Option<Json>, String> {
    if let Some(policy) = policy {
        let body = Body::default()
            .with("Condition", policy.condition.as_str())
            .maybe("Delay", nanos(policy.delay))
            .maybe("MaxAttempts", policy.max_attempts)
            .maybe("Window", nanos(policy.window));
        return Ok(Some(body.into()));
    }
    let invalid = |problem| Err(format!("invalid restart policy format: {problem}"));
    let (name, attempts) = match restart.split_once(':') {
        Some(("", _)) => return invalid("no policy provided before colon"),
        Some((name, "")) => (name, 0),
        Some((name, count)) => match count.parse::<i64>() {
            Ok(count) => (name, count),
            Err(_) => return invalid("maximum retry count must be an integer"),
        },
        None => (restart, 0),
    };
    match name {
        "" | "no" => Ok(None),
        "always" | "unless-stopped" => Ok(Some(Body::default().always("Condition", "any").into())),
        "on-failure" => {
            let body = Body::default().always("Condition", "on-failure");
            Ok(Some(body.always("MaxAttempts", attempts as u64).into()))
        }
        _ => Err(format!("unknown restart policy: {restart}")),
    }
}

/// How changes roll out: one task at a time unless the file says otherwise.
pub(super) fn update(update: &Update) -> Json {
    Body::default()
        .always("Parallelism", update.parallelism.unwrap_or(1))
        .with("Delay", update.delay.0)
        .with("FailureAction", update.failure_action.as_str())
        .with("Monitor", update.monitor.0)
        .always("MaxFailureRatio", shortest(update.max_failure_ratio))
        .with("Order", update.order.as_str())
        .into()
}

/// The shortest decimal that reads back as the same ratio: 0.1, not 0.10000000149011612.
fn shortest(ratio: f32) -> f64 {
    ratio.to_string().parse().unwrap_or_default()
}

/// Limits and reservations.
pub(super) fn resources(resources: &Resources) -> Result<Json, String> {
    let cpus = |text: &str| if text.is_empty() { Ok(0) } else { units::parse_cpus(text) };
    let mut body = Body::default();
    if let Some(limits) = &resources.limits {
        let limits = Body::default()
            .with("NanoCPUs", cpus(&limits.cpus)?)
            .with("MemoryBytes", limits.memory.0)
            .with("Pids", limits.pids);
        body = body.always("Limits", limits);
    }
    if let Some(reserved) = &resources.reservations {
        let generic = reserved.generic_resources.iter().map(|resource| {
            let discrete = resource.discrete_resource_spec.as_ref().map(|resource| {
                Body::default().with("Kind", resource.kind.as_str()).with("Value", resource.value)
            });
            Json::from(Body::default().maybe("DiscreteResourceSpec", discrete))
        });
        let reservations = Body::default()
            .with("NanoCPUs", cpus(&reserved.cpus)?)
            .with("MemoryBytes", reserved.memory.0)
            .with("GenericResources", generic.collect::<Vec<_>>());
        body = body.always("Reservations", reservations);
    }
    Ok(body.into())
}

/// How health is tested.
pub(super) fn healthcheck(check: &Healthcheck) -> Result<Json, String> {
    if check.disable {
        if !check.test.is_empty() {
            return Err("test and disable can't be set at the same time".to_owned());
        }
        return Ok(Body::default().always("Test", vec!["NONE"]).into());
    }
    let span = |duration: Option<Duration>| nanos(duration).unwrap_or_default();
    Ok(Body::default()
        .with("Test", check.test.clone())
        .with("Interval", span(check.interval))
        .with("Timeout", span(check.timeout))
        .with("StartPeriod", span(check.start_period))
        .with("StartInterval", span(check.start_interval))
        .with("Retries", check.retries.unwrap_or_default())
        .into())
}

/// Where tasks may run.
pub(super) fn placement(placement: &Placement) -> Json {
    let preferences = placement.preferences.iter().map(|preference| {
        let spread = Body::default().with("SpreadDescriptor", preference.spread.as_str());
        Json::from(Body::default().always("Spread", spread))
    });
    Body::default()
        .with("Constraints", placement.constraints.clone())
        .with("Preferences", preferences.collect::<Vec<_>>())
        .with("MaxReplicas", placement.max_replicas_per_node)
        .into()
}

/// How a service is reached. Ports are ordered by the number outside.
pub(super) fn endpoint(mode: &str, ports: &[Port]) -> Json {
    let mut ports: Vec<_> = ports.iter().collect();
    ports.sort_by_key(|port| port.published);
    let port = |port: &&Port| {
        let body = Body::default()
            .with("Protocol", port.protocol.as_str())
            .with("TargetPort", port.target)
            .with("PublishedPort", port.published)
            .with("PublishMode", port.mode.as_str());
        Json::from(body)
    };
    Body::default()
        .with("Mode", mode.to_lowercase())
        .with("Ports", ports.iter().map(port).collect::<Vec<_>>())
        .into()
}
