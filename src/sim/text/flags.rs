//! Pure: the flags of `docker service create` and `docker service update`, both ways: what a flag
//! does to a specification, and which flags a specification is made of.

use std::sync::Arc;

use swarm_core::model::{
    ConfigReference, ContainerSpec, EndpointSpec, FileTarget, Limits, NetworkAttachmentConfig,
    Placement, PlacementPreference, Platform, PortConfig, PublishMode, ReplicatedJobMode,
    ReplicatedMode, ResourceRequirements, Resources, RestartPolicy, SecretReference, ServiceMode,
    ServiceSpec, SpreadOver, TaskSpec, UpdateConfig,
};
use swarm_core::time::Nanos;

use super::words::{
    bytes, bytes_text, decimal, decimal_text, duration, duration_text, number, pair, quoted,
};

type Set = fn(&mut ServiceSpec, &str) -> Result<(), String>;
type Get = fn(&ServiceSpec) -> Vec<String>;
type Clear = fn(&mut ServiceSpec);

/// A flag. One that can be given several times has a `clear`, and goes by `-add` and `-rm` when a
/// service is updated.
struct Flag {
    name: &'static str,
    set: Set,
    get: Get,
    clear: Option<Clear>,
}

const fn one(name: &'static str, set: Set, get: Get) -> Flag {
    Flag { name, set, get, clear: None }
}

const fn many(name: &'static str, set: Set, get: Get, clear: Clear) -> Flag {
    Flag { name, set, get, clear: Some(clear) }
}

/// The flags of how a change rolls out, for the update and for the rollback.
macro_rules! rollout {
    ($word:literal, $config:ident) => {
        [
            one(
                concat!($word, "-parallelism"),
                |s, v| put(number(v), |n| config(&mut s.$config).parallelism = n),
                |s| s.$config.iter().map(|c| c.parallelism.to_string()).collect(),
            ),
            one(
                concat!($word, "-delay"),
                |s, v| put(nanos(v), |n| config(&mut s.$config).delay = n),
                |s| {
                    let delay = s.$config.iter().map(|c| c.delay);
                    delay.filter(|delay| delay.0 != 0).map(nanos_text).collect()
                },
            ),
            one(
                concat!($word, "-failure-action"),
                |s, v| put(v.parse(), |a| config(&mut s.$config).failure_action = Some(a)),
                |s| s.$config.iter().filter_map(|c| text(c.failure_action)).collect(),
            ),
            one(
                concat!($word, "-monitor"),
                |s, v| put(nanos(v), |n| config(&mut s.$config).monitor = Some(n)),
                |s| s.$config.iter().filter_map(|c| c.monitor).map(nanos_text).collect(),
            ),
            one(
                concat!($word, "-max-failure-ratio"),
                |s, v| put(number(v), |n| config(&mut s.$config).max_failure_ratio = n),
                |s| {
                    let ratio = s.$config.iter().map(|c| c.max_failure_ratio);
                    ratio.filter(|ratio| *ratio != 0.0).map(|ratio| ratio.to_string()).collect()
                },
            ),
            one(
                concat!($word, "-order"),
                |s, v| put(v.parse(), |o| config(&mut s.$config).order = Some(o)),
                |s| s.$config.iter().filter_map(|c| text(c.order)).collect(),
            ),
        ]
    };
}

const FLAGS: [&[Flag]; 5] = [
    &SERVICE,
    &TASK,
    &REACH,
    &rollout!("update", update_config),
    &rollout!("rollback", rollback_config),
];

const SERVICE: [Flag; 9] = [
    one("name", |s, v| put(Ok(v), |v| v.clone_into(&mut s.name)), |s| vec![s.name.clone()]),
    one("mode", set_mode, |s| {
        let name = s.mode.name();
        if name == "replicated" { vec![] } else { vec![name.to_owned()] }
    }),
    one("replicas", set_replicas, |s| match &s.mode {
        ServiceMode::Replicated(mode) => texts(mode.replicas),
        ServiceMode::ReplicatedJob(mode) => texts(mode.total_completions),
        _ => vec![],
    }),
    one("max-concurrent", set_concurrent, |s| match &s.mode {
        ServiceMode::ReplicatedJob(mode) => texts(mode.max_concurrent),
        _ => vec![],
    }),
    many(
        "constraint",
        |s, v| put(Ok(v), |v| placement(s).constraints.push(v.to_owned())),
        |s| s.task.constraints().to_vec(),
        |s| placement(s).constraints.clear(),
    ),
    // The CLI has no such flag: it asks the registry.
    many("platform", add_platform, platforms, |s| placement(s).platforms.clear()),
    many("placement-pref", add_preference, preferences, |s| placement(s).preferences.clear()),
    one(
        "replicas-max-per-node",
        |s, v| put(number(v), |n| placement(s).max_replicas = n),
        |s| {
            let most = s.task.placement.iter().map(|placement| placement.max_replicas);
            most.filter(|most| *most > 0).map(|most| most.to_string()).collect()
        },
    ),
    many(
        "label",
        |s, v| put(pair(v), |(k, v)| drop(s.labels.insert(k.to_owned(), v.to_owned()))),
        |s| s.labels.iter().map(|(k, v)| format!("{k}={v}")).collect(),
        |s| s.labels.clear(),
    ),
];

const TASK: [Flag; 12] = [
    many(
        "env",
        |s, v| put(Ok(v), |v| container(s).env.push(v.to_owned())),
        |s| read(s).map_or_else(Vec::new, |container| container.env.clone()),
        |s| container(s).env.clear(),
    ),
    many("secret", add_secret, secrets, |s| container(s).secrets.clear()),
    many("config", add_config, configs, |s| container(s).configs.clear()),
    one(
        "stop-grace-period",
        |s, v| put(nanos(v), |n| container(s).stop_grace_period = Some(n)),
        |s| read(s).and_then(|c| c.stop_grace_period).map(nanos_text).into_iter().collect(),
    ),
    one(
        "restart-condition",
        |s, v| put(v.parse(), |c| restart(s).condition = Some(c)),
        |s| s.task.restart_policy.iter().filter_map(|policy| text(policy.condition)).collect(),
    ),
    one(
        "restart-delay",
        |s, v| put(nanos(v), |n| restart(s).delay = Some(n)),
        |s| s.task.restart_policy.iter().filter_map(|p| p.delay).map(nanos_text).collect(),
    ),
    one(
        "restart-max-attempts",
        |s, v| put(number(v), |n| restart(s).max_attempts = Some(n)),
        |s| s.task.restart_policy.iter().filter_map(|p| text(p.max_attempts)).collect(),
    ),
    one(
        "restart-window",
        |s, v| put(nanos(v), |n| restart(s).window = Some(n)),
        |s| s.task.restart_policy.iter().filter_map(|p| p.window).map(nanos_text).collect(),
    ),
    one(
        "reserve-cpu",
        |s, v| put(cpus(v), |n| reserve(s).nano_cpus = n),
        |s| {
            reserved(s).map(|r| r.nano_cpus).filter(|n| *n > 0).map(cpus_text).into_iter().collect()
        },
    ),
    one(
        "reserve-memory",
        |s, v| put(bytes(v), |n| reserve(s).memory_bytes = n),
        |s| {
            let memory = reserved(s).map(|r| r.memory_bytes).filter(|n| *n > 0);
            memory.map(bytes_text).into_iter().collect()
        },
    ),
    one(
        "limit-cpu",
        |s, v| put(cpus(v), |n| limit(s).nano_cpus = n),
        |s| limits(s).map(|l| l.nano_cpus).filter(|n| *n > 0).map(cpus_text).into_iter().collect(),
    ),
    one(
        "limit-memory",
        |s, v| put(bytes(v), |n| limit(s).memory_bytes = n),
        |s| {
            let memory = limits(s).map(|l| l.memory_bytes).filter(|n| *n > 0);
            memory.map(bytes_text).into_iter().collect()
        },
    ),
];

const REACH: [Flag; 3] = [
    many(
        "network",
        |s, v| {
            let network = NetworkAttachmentConfig { target: v.to_owned(), ..Default::default() };
            put(Ok(network), |network| task(s).networks.push(network))
        },
        |s| s.task.networks.iter().map(|network| network.target.clone()).collect(),
        |s| task(s).networks.clear(),
    ),
    one(
        "endpoint-mode",
        |s, v| put(v.parse(), |mode| endpoint(s).mode = Some(mode)),
        |s| s.endpoint.iter().filter_map(|endpoint| text(endpoint.mode)).collect(),
    ),
    many(
        "publish",
        |s, v| put(port(v), |port| endpoint(s).ports.push(port)),
        |s| s.endpoint.iter().flat_map(|e| &e.ports).map(port_text).collect(),
        |s| endpoint(s).ports.clear(),
    ),
];

/// The specification that `docker service create` makes of its words.
pub(super) fn spec(words: &[&str]) -> Result<ServiceSpec, String> {
    let Some((image, flags)) = words.split_last() else {
        return Err("the image is missing".to_owned());
    };
    let mut spec = ServiceSpec::default();
    if image.starts_with("--") {
        return Err(format!("an image is missing after {image}"));
    }
    container(&mut spec).image = (*image).to_owned();
    for (flag, value) in pairs(flags)? {
        set(&mut spec, flag, value)?;
    }
    match spec.name.is_empty() {
        true => Err("--name is missing".to_owned()),
        false => Ok(spec),
    }
}

/// The words that make a specification.
pub(super) fn spec_text(spec: &ServiceSpec) -> String {
    let mut text = String::new();
    for flag in FLAGS.into_iter().flatten() {
        for value in (flag.get)(spec) {
            text += &format!("--{} {} ", flag.name, quoted(&value));
        }
    }
    text + read(spec).map_or("", |container| &container.image)
}

/// Flags with their values.
pub(super) fn pairs<'a>(words: &[&'a str]) -> Result<Vec<(&'a str, &'a str)>, String> {
    let pair = |pair: &[&'a str]| match *pair {
        [flag, value] => match flag.strip_prefix("--") {
            Some(flag) => Ok((flag, value)),
            None => Err(format!("a flag is expected instead of {flag:?}")),
        },
        _ => Err(format!("{} lacks a value", pair[0])),
    };
    words.chunks(2).map(pair).collect()
}

/// Does to a specification what a flag says: one of `docker service create`, or with `-add` or
/// `-rm` after it one of `docker service update`.
pub(in crate::sim) fn set(spec: &mut ServiceSpec, name: &str, value: &str) -> Result<(), String> {
    let find = |name: &str| FLAGS.into_iter().flatten().find(|flag| flag.name == name);
    let list =
        |suffix| Some(name.strip_suffix(suffix).and_then(find)?).filter(|f| f.clear.is_some());
    let says = |wrong: String| format!("--{name}: {wrong}");
    if let Some(flag) = find(name).or_else(|| list("-add")) {
        return (flag.set)(spec, value).map_err(says);
    }
    let Some((flag, clear)) = list("-rm").and_then(|flag| Some((flag, flag.clear?))) else {
        return Err(format!("--{name} is no flag of a service that scripts know"));
    };
    let kept = (flag.get)(spec);
    clear(spec);
    let mut kept = kept.iter().filter(|kept| *kept != value);
    kept.try_for_each(|kept| (flag.set)(spec, kept)).map_err(says)
}

fn put<T>(value: Result<T, String>, into: impl FnOnce(T)) -> Result<(), String> {
    value.map(into)
}

fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn texts(value: Option<impl ToString>) -> Vec<String> {
    text(value).into_iter().collect()
}

fn nanos(word: &str) -> Result<Nanos, String> {
    duration(word).map(Nanos::from)
}

fn nanos_text(nanos: Nanos) -> String {
    duration_text(nanos.duration())
}

fn cpus(word: &str) -> Result<i64, String> {
    let cpus = decimal(word, 1_000_000_000).and_then(|cpus| i64::try_from(cpus).ok());
    cpus.ok_or_else(|| format!("{word:?} is no number of CPUs: write 2 or 0.5"))
}

fn cpus_text(nano_cpus: i64) -> String {
    decimal_text(nano_cpus.unsigned_abs().into(), 1_000_000_000)
}

fn task(spec: &mut ServiceSpec) -> &mut TaskSpec {
    Arc::make_mut(&mut spec.task)
}

fn container(spec: &mut ServiceSpec) -> &mut ContainerSpec {
    task(spec).container.get_or_insert_default()
}

fn read(spec: &ServiceSpec) -> Option<&ContainerSpec> {
    spec.task.container.as_ref()
}

fn placement(spec: &mut ServiceSpec) -> &mut Placement {
    task(spec).placement.get_or_insert_default()
}

fn restart(spec: &mut ServiceSpec) -> &mut RestartPolicy {
    task(spec).restart_policy.get_or_insert_default()
}

fn endpoint(spec: &mut ServiceSpec) -> &mut EndpointSpec {
    spec.endpoint.get_or_insert_default()
}

/// Docker's command line says 1 where nobody says how many at a time; the API's 0 is all.
fn config(config: &mut Option<UpdateConfig>) -> &mut UpdateConfig {
    config.get_or_insert_with(|| UpdateConfig { parallelism: 1, ..UpdateConfig::default() })
}

fn resources(spec: &mut ServiceSpec) -> &mut ResourceRequirements {
    task(spec).resources.get_or_insert_default()
}

fn reserve(spec: &mut ServiceSpec) -> &mut Resources {
    resources(spec).reservations.get_or_insert_default()
}

fn reserved(spec: &ServiceSpec) -> Option<&Resources> {
    spec.task.resources.as_ref()?.reservations.as_ref()
}

fn limit(spec: &mut ServiceSpec) -> &mut Limits {
    resources(spec).limits.get_or_insert_default()
}

fn limits(spec: &ServiceSpec) -> Option<&Limits> {
    spec.task.resources.as_ref()?.limits.as_ref()
}

fn set_mode(spec: &mut ServiceSpec, word: &str) -> Result<(), String> {
    let replicas = match &spec.mode {
        ServiceMode::Replicated(mode) => mode.replicas,
        ServiceMode::ReplicatedJob(mode) => mode.total_completions,
        _ => None,
    };
    let job = ReplicatedJobMode { total_completions: replicas, ..Default::default() };
    spec.mode = match word {
        "replicated" => ServiceMode::Replicated(ReplicatedMode { replicas, ..Default::default() }),
        "replicated-job" => ServiceMode::ReplicatedJob(job),
        "global" => ServiceMode::Global(Default::default()),
        "global-job" => ServiceMode::GlobalJob(Default::default()),
        _ => return Err(format!("{word:?} is no mode of a service")),
    };
    Ok(())
}

fn set_replicas(spec: &mut ServiceSpec, word: &str) -> Result<(), String> {
    match &mut spec.mode {
        ServiceMode::Replicated(mode) => mode.replicas = Some(number(word)?),
        ServiceMode::ReplicatedJob(mode) => mode.total_completions = Some(number(word)?),
        mode => return Err(format!("a {} service has none", mode.name())),
    }
    Ok(())
}

fn set_concurrent(spec: &mut ServiceSpec, word: &str) -> Result<(), String> {
    match &mut spec.mode {
        ServiceMode::ReplicatedJob(mode) => mode.max_concurrent = Some(number(word)?),
        _ => return Err("it needs --mode replicated-job before it".to_owned()),
    }
    Ok(())
}

fn add_preference(spec: &mut ServiceSpec, word: &str) -> Result<(), String> {
    let descriptor = word.strip_prefix("spread=").ok_or("write spread=node.labels.zone")?;
    let spread = SpreadOver { descriptor: descriptor.to_owned(), ..Default::default() };
    let preference = PlacementPreference { spread: Some(spread), ..Default::default() };
    placement(spec).preferences.push(preference);
    Ok(())
}

fn preferences(spec: &ServiceSpec) -> Vec<String> {
    let all = spec.task.placement.iter().flat_map(|placement| &placement.preferences);
    let spread = all.filter_map(|preference| preference.spread.as_ref());
    spread.map(|spread| format!("spread={}", spread.descriptor)).collect()
}

fn add_platform(spec: &mut ServiceSpec, word: &str) -> Result<(), String> {
    let (os, architecture) = word.split_once('/').ok_or("write linux/amd64")?;
    let (os, architecture) = (os.to_owned(), architecture.to_owned());
    placement(spec).platforms.push(Platform { os, architecture, ..Platform::default() });
    Ok(())
}

fn platforms(spec: &ServiceSpec) -> Vec<String> {
    let all = spec.task.placement.iter().flat_map(|placement| &placement.platforms);
    all.map(|platform| format!("{}/{}", platform.os, platform.architecture)).collect()
}

/// `key`, or `source=key,target=file`.
fn file(word: &str) -> Result<(String, Option<FileTarget>), String> {
    let (mut source, mut target) = (word, word);
    if word.contains('=') {
        for part in word.split(',') {
            match pair(part)? {
                ("source", value) => source = value,
                ("target", value) => target = value,
                (key, _) => return Err(format!("{key:?} is neither source nor target")),
            }
        }
    }
    let target = FileTarget { name: target.to_owned(), ..FileTarget::default() };
    Ok((source.to_owned(), Some(target)))
}

fn file_text(source: &str, file: Option<&FileTarget>) -> String {
    match file {
        Some(file) if file.name != source => format!("source={source},target={}", file.name),
        _ => source.to_owned(),
    }
}

fn add_secret(spec: &mut ServiceSpec, word: &str) -> Result<(), String> {
    let (secret_name, file) = file(word)?;
    let secret = SecretReference { secret_name, file, ..SecretReference::default() };
    container(spec).secrets.push(secret);
    Ok(())
}

fn secrets(spec: &ServiceSpec) -> Vec<String> {
    let secrets = read(spec).into_iter().flat_map(|container| &container.secrets);
    secrets.map(|secret| file_text(&secret.secret_name, secret.file.as_ref())).collect()
}

fn add_config(spec: &mut ServiceSpec, word: &str) -> Result<(), String> {
    let (config_name, file) = file(word)?;
    let config = ConfigReference { config_name, file, ..ConfigReference::default() };
    container(spec).configs.push(config);
    Ok(())
}

fn configs(spec: &ServiceSpec) -> Vec<String> {
    let configs = read(spec).into_iter().flat_map(|container| &container.configs);
    configs.map(|config| file_text(&config.config_name, config.file.as_ref())).collect()
}

/// `8080:80`, `80`, or `published=8080,target=80,protocol=udp,mode=host`.
fn port(word: &str) -> Result<PortConfig, String> {
    let mut port = PortConfig::default();
    if !word.contains('=') {
        let (published, target) = word.split_once(':').unwrap_or(("0", word));
        (port.published_port, port.target_port) = (number(published)?, number(target)?);
        return Ok(port);
    }
    for part in word.split(',') {
        match pair(part)? {
            ("published", value) => port.published_port = number(value)?,
            ("target", value) => port.target_port = number(value)?,
            ("protocol", value) => port.protocol = value.parse()?,
            ("mode", value) => port.publish_mode = value.parse()?,
            (key, _) => return Err(format!("a published port has no {key:?}")),
        }
    }
    Ok(port)
}

fn port_text(port: &PortConfig) -> String {
    let protocol = port.protocol != Default::default();
    let host = port.publish_mode == PublishMode::Host;
    let (published, target) = (port.published_port, port.target_port);
    match (protocol || host, published) {
        (false, 0) => target.to_string(),
        (false, published) => format!("{published}:{target}"),
        (true, _) => {
            let mut text = format!("target={target}");
            if published != 0 {
                text = format!("published={published},{text}");
            }
            if protocol {
                text += &format!(",protocol={}", port.protocol);
            }
            if host {
                text += ",mode=host";
            }
            text
        }
    }
}
