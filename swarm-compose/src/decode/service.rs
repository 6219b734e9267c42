//! One service of a stack.

use super::fields::{Faults, Fields};
use super::{Context, env_file, extensions};
use crate::error::ComposeError;
use crate::interpolate::Environment;
use crate::model::{
    BindOptions, Build, ClusterOptions, CredentialSpec, Deploy, DiscreteResource, FileReference,
    GenericResource, Healthcheck, ImageOptions, Limits, Logging, Placement, Port, Preference,
    Reservations, Resources, RestartPolicy, Service, ServiceNetwork, ServiceVolume, Table,
    TmpfsOptions, Ulimit, Update, VolumeOptions,
};
use crate::short::{ports, volume, words};
use crate::stack::Warning;
use crate::value::{Node, Value};

pub(super) fn decode(
    name: &str,
    node: &Node,
    ctx: &mut Context<'_>,
) -> Result<Service, ComposeError> {
    let faults = Faults::default();
    let fields = Fields::new(Some(node), "", &faults);
    let mut service = Service {
        deploy: deploy(fields.section("deploy", "Deploy.")),
        configs: file_references(fields, "configs", "Configs"),
        secrets: file_references(fields, "secrets", "Secrets"),
        healthcheck: fields.optional("healthcheck", "HealthCheck.", healthcheck),
        logging: fields.optional("logging", "Logging.", |fields| Logging {
            driver: fields.text("driver"),
            options: fields.table("options"),
        }),
        networks: networks(fields),
        ports: published_ports(fields, &faults, ctx),
        ulimits: ulimits(fields),
        volumes: volumes(fields, &faults),
        extensions: extensions(node),
        place: ctx.place(node),
        ..plain(fields, &faults)
    };
    let key = format!("services.{name}");
    ctx.judge(node, &key, faults)?;
    environment(name, node, &mut service, ctx)?;
    for volume in service.volumes.iter_mut().filter(|volume| volume.kind == "bind") {
        if volume.source.is_empty() {
            let problem = "invalid mount config for type \"bind\": field Source must not be empty";
            return Err(ctx.conflict(node, format!("{key}.volumes"), problem.to_owned()));
        }
        let source = expand_home(&volume.source, ctx);
        let absolute = volume::is_absolute(&source);
        volume.source = if absolute { source } else { volume::join(ctx.dir, &source) };
    }
    Ok(service)
}

/// The members that are words, lists of words or tables of words.
fn plain(fields: Fields<'_>, faults: &Faults) -> Service {
    Service {
        build: build(fields),
        cap_add: fields.texts("cap_add"),
        cap_drop: fields.texts("cap_drop"),
        cgroupns_mode: fields.text("cgroupns_mode"),
        cgroup_parent: fields.text("cgroup_parent"),
        command: command(fields, "command", "Command", faults),
        container_name: fields.text("container_name"),
        credential_spec: credential_spec(fields.section("credential_spec", "credential_spec.")),
        depends_on: fields.texts("depends_on"),
        devices: fields.texts("devices"),
        dns: fields.texts("dns"),
        dns_search: fields.texts("dns_search"),
        domainname: fields.text("domainname"),
        entrypoint: command(fields, "entrypoint", "Entrypoint", faults),
        environment: fields.pairs("environment"),
        env_file: fields.texts("env_file"),
        expose: fields.texts("expose"),
        external_links: fields.texts("external_links"),
        extra_hosts: hosts(fields),
        hostname: fields.text("hostname"),
        image: fields.text("image"),
        init: fields.maybe_flag("init"),
        ipc: fields.text("ipc"),
        isolation: fields.text("isolation"),
        labels: fields.table("labels"),
        links: fields.texts("links"),
        mac_address: fields.text("mac_address"),
        network_mode: fields.text("network_mode"),
        pid: fields.text("pid"),
        privileged: fields.flag("privileged"),
        read_only: fields.flag("read_only"),
        restart: fields.text("restart"),
        security_opt: fields.texts("security_opt"),
        shm_size: fields.text("shm_size"),
        stdin_open: fields.flag("stdin_open"),
        stop_grace_period: fields.duration("stop_grace_period", "stop_grace_period"),
        stop_signal: fields.text("stop_signal"),
        sysctls: fields.table("sysctls"),
        tmpfs: fields.texts("tmpfs"),
        tty: fields.flag("tty"),
        user: fields.text("user"),
        userns_mode: fields.text("userns_mode"),
        working_dir: fields.text("working_dir"),
        ..Service::default()
    }
}

fn build(fields: Fields<'_>) -> Build {
    if let Some(Value::Str(context)) = fields.get("build").map(|node| &node.value) {
        return Build { context: context.clone(), ..Build::default() };
    }
    let fields = fields.section("build", "Build.");
    Build {
        context: fields.text("context"),
        dockerfile: fields.text("dockerfile"),
        args: fields.pairs("args"),
        labels: fields.table("labels"),
        cache_from: fields.texts("cache_from"),
        extra_hosts: hosts(fields),
        network: fields.text("network"),
        target: fields.text("target"),
    }
}

/// A text is split into words; a list is taken as it is.
fn command(fields: Fields<'_>, key: &str, field: &str, faults: &Faults) -> Vec<String> {
    match fields.get(key).map(|node| &node.value) {
        Some(Value::Str(text)) => faults.keep(field, words::split(text).map_err(str::to_owned)),
        _ => fields.texts(key),
    }
}

/// `HOST:IP` from a mapping or a list, where `=` may stand for the first colon.
fn hosts(fields: Fields<'_>) -> Vec<String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    match fields.get("extra_hosts").map(|node| &node.value) {
        Some(Value::Map(map)) => {
            for (host, node) in map {
                if node.value != Value::Null {
                    pairs.push((host.clone(), node.value.to_text()));
                }
            }
        }
        Some(Value::List(items)) => {
            for item in items {
                let text = item.value.to_text();
                if let Some((host, ip)) = text.split_once('=').or_else(|| text.split_once(':')) {
                    pairs.push((host.to_owned(), ip.to_owned()));
                }
            }
        }
        _ => {}
    }
    let unbracketed = |ip: &str| {
        let inner = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
        inner.filter(|inner| !inner.is_empty()).unwrap_or(ip).to_owned()
    };
    pairs.iter().map(|(host, ip)| format!("{host}:{}", unbracketed(ip))).collect()
}

fn credential_spec(fields: Fields<'_>) -> CredentialSpec {
    CredentialSpec {
        config: fields.text("config"),
        file: fields.text("file"),
        registry: fields.text("registry"),
    }
}

fn healthcheck(fields: Fields<'_>) -> Healthcheck {
    let test = match fields.get("test").map(|node| &node.value) {
        Some(Value::Str(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
        _ => fields.texts("test"),
    };
    Healthcheck {
        test,
        timeout: fields.duration("timeout", "Timeout"),
        interval: fields.duration("interval", "Interval"),
        retries: fields.count("retries", "Retries"),
        start_period: fields.duration("start_period", "start_period"),
        start_interval: fields.duration("start_interval", "start_interval"),
        disable: fields.flag("disable"),
    }
}

fn deploy(fields: Fields<'_>) -> Deploy {
    let placement = fields.section("placement", "Deploy.Placement.");
    let preference = |item: &Node| Preference {
        spread: item.get("spread").map(|node| node.value.to_text()).unwrap_or_default(),
    };
    Deploy {
        mode: fields.text("mode"),
        replicas: fields.count("replicas", "Replicas"),
        labels: fields.table("labels"),
        update_config: fields.optional("update_config", "Deploy.update_config.", update),
        rollback_config: fields.optional("rollback_config", "Deploy.rollback_config.", update),
        resources: resources(fields.section("resources", "Deploy.Resources.")),
        restart_policy: fields.optional("restart_policy", "Deploy.restart_policy.", |fields| {
            RestartPolicy {
                condition: fields.text("condition"),
                delay: fields.duration("delay", "Delay"),
                max_attempts: fields.count("max_attempts", "max_attempts"),
                window: fields.duration("window", "Window"),
            }
        }),
        placement: Placement {
            constraints: placement.texts("constraints"),
            preferences: placement.items("preferences").iter().map(preference).collect(),
            max_replicas_per_node: placement
                .count("max_replicas_per_node", "max_replicas_per_node")
                .unwrap_or_default(),
        },
        endpoint_mode: fields.text("endpoint_mode"),
    }
}

fn update(fields: Fields<'_>) -> Update {
    Update {
        parallelism: fields.count("parallelism", "Parallelism"),
        delay: fields.duration("delay", "Delay").unwrap_or_default(),
        failure_action: fields.text("failure_action"),
        monitor: fields.duration("monitor", "Monitor").unwrap_or_default(),
        max_failure_ratio: fields.ratio("max_failure_ratio"),
        order: fields.text("order"),
    }
}

fn resources(fields: Fields<'_>) -> Resources {
    let discrete = |fields: Fields<'_>| DiscreteResource {
        kind: fields.text("kind"),
        value: fields.number("value"),
    };
    Resources {
        limits: fields.optional("limits", "Deploy.Resources.Limits.", |fields| Limits {
            cpus: fields.text("cpus"),
            memory: fields.bytes("memory"),
            pids: fields.number("pids"),
        }),
        reservations: fields.optional("reservations", "Deploy.Resources.Reservations.", |fields| {
            let generic = |item| GenericResource {
                discrete_resource_spec: fields.within(item).optional(
                    "discrete_resource_spec",
                    "",
                    discrete,
                ),
            };
            Reservations {
                cpus: fields.text("cpus"),
                memory: fields.bytes("memory"),
                generic_resources: fields.items("generic_resources").iter().map(generic).collect(),
            }
        }),
    }
}

fn file_references(fields: Fields<'_>, key: &str, field: &str) -> Vec<FileReference> {
    let reference = |(index, item): (usize, &Node)| {
        if let Value::Str(source) = &item.value {
            return FileReference { source: source.clone(), ..FileReference::default() };
        }
        let path = format!("{field}[{index}].");
        let item = fields.within(item);
        FileReference {
            source: item.text("source"),
            target: item.text("target"),
            uid: item.text("uid"),
            gid: item.text("gid"),
            mode: item.at(&path).count("mode", "Mode").map(|mode| mode as u32),
        }
    };
    fields.items(key).iter().enumerate().map(reference).collect()
}

fn networks(fields: Fields<'_>) -> Table<Option<ServiceNetwork>> {
    let attachment = |node: &Node| {
        let fields = fields.within(node);
        (node.value != Value::Null).then(|| ServiceNetwork {
            aliases: fields.texts("aliases"),
            driver_opts: fields.table("driver_opts"),
            ipv4_address: fields.text("ipv4_address"),
            ipv6_address: fields.text("ipv6_address"),
        })
    };
    match fields.get("networks").map(|node| &node.value) {
        Some(Value::Map(map)) => {
            map.iter().map(|(name, node)| (name.clone(), attachment(node))).collect()
        }
        Some(Value::List(items)) => items.iter().map(|item| (item.value.to_text(), None)).collect(),
        _ => Table::new(),
    }
}

fn published_ports(fields: Fields<'_>, faults: &Faults, ctx: &mut Context<'_>) -> Vec<Port> {
    let mut list = Vec::new();
    for (index, item) in fields.items("ports").iter().enumerate() {
        if item.value.as_map().is_some() {
            let path = format!("Ports[{index}].");
            let item = fields.within(item);
            let number = |key, field| item.at(&path).count(key, field).unwrap_or_default() as u32;
            list.push(Port {
                mode: item.text("mode"),
                target: number("target", "Target"),
                published: number("published", "Published"),
                protocol: item.text("protocol"),
            });
            continue;
        }
        let read = faults.keep("Ports", ports::parse(&item.value.to_text()));
        ctx.warnings.extend(read.ignored.into_iter().map(Warning::Note));
        list.extend(read.ports.into_iter().map(|port| Port {
            mode: "ingress".to_owned(),
            target: port.target,
            published: port.published,
            protocol: port.protocol,
        }));
    }
    list
}

fn ulimits(fields: Fields<'_>) -> Table<Ulimit> {
    let map = fields.get("ulimits").and_then(|node| node.value.as_map());
    let limit = |(name, node): (&String, &Node)| {
        let limit = match node.value {
            Value::Int(single) => Ulimit { single: single as i64, ..Ulimit::default() },
            _ => {
                let fields = fields.within(node);
                Ulimit { single: 0, soft: fields.number("soft"), hard: fields.number("hard") }
            }
        };
        (name.clone(), limit)
    };
    // A name that the schema does not know passes it unchecked.
    let is_limit = |node: &Node| matches!(node.value, Value::Int(_) | Value::Map(_));
    map.into_iter().flatten().filter(|(_, node)| is_limit(node)).map(limit).collect()
}

fn volumes(fields: Fields<'_>, faults: &Faults) -> Vec<ServiceVolume> {
    let mount = |(index, item): (usize, &Node)| {
        if let Value::Str(text) = &item.value {
            return faults.keep(&format!("Volumes[{index}]"), volume::parse(text));
        }
        let item = fields.within(item);
        ServiceVolume {
            kind: item.text("type"),
            source: item.text("source"),
            target: item.text("target"),
            read_only: item.flag("read_only"),
            consistency: item.text("consistency"),
            bind: item.optional("bind", "", |fields| BindOptions {
                propagation: fields.text("propagation"),
            }),
            volume: item.optional("volume", "", |fields| VolumeOptions {
                nocopy: fields.flag("nocopy"),
                subpath: fields.text("subpath"),
            }),
            image: item
                .optional("image", "", |fields| ImageOptions { subpath: fields.text("subpath") }),
            tmpfs: item
                .optional("tmpfs", "", |fields| TmpfsOptions { size: fields.number("size") }),
            cluster: item.optional("cluster", "", |_| ClusterOptions {}),
        }
    };
    fields.items("volumes").iter().enumerate().map(mount).collect()
}

/// Puts environment files below the variables that the service names. The deployer's variable of
/// the same name fills in a value that is missing or empty.
fn environment(
    name: &str,
    node: &Node,
    service: &mut Service,
    ctx: &Context<'_>,
) -> Result<(), ComposeError> {
    let place = ctx.place(node.get("env_file").unwrap_or(node));
    let mut files = Table::new();
    for file in &service.env_file {
        let path = volume::join(ctx.dir, file);
        files.extend(env_file::read(&path, ctx.env, &place, name)?);
    }
    let named = std::mem::take(&mut service.environment);
    for (name, value) in files.into_iter().chain(named) {
        let value = fill(&name, value, ctx.env);
        service.environment.insert(name, value);
    }
    Ok(())
}

fn fill(name: &str, value: Option<String>, env: &Environment) -> Option<String> {
    match value {
        Some(value) if !value.is_empty() => Some(value),
        value => env.get(name).cloned().or(value),
    }
}

/// A `~` at the beginning is the deployer's home; `~user` is not understood.
fn expand_home(path: &str, ctx: &mut Context<'_>) -> String {
    let Some(rest) = path.strip_prefix('~') else { return path.to_owned() };
    match ctx.env.get("HOME") {
        Some(home) => format!("{home}{rest}"),
        None => {
            let note = "cannot expand '~', because the environment lacks HOME";
            ctx.warnings.push(Warning::Note(note.to_owned()));
            path.to_owned()
        }
    }
}
