//! Pure: one service as the engine's create request has it.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::objects::{self, Lookup};
use super::{Body, LABEL_IMAGE, Namespace, networks, policy, table, volumes};
use crate::model::{Config, Service, Table, Ulimit};
use crate::short::image;
use crate::stack::ObjectKind;

/// The body of the request that creates a service, or why there is none.
pub(crate) fn create_service(
    key: &str,
    service: &Service,
    config: &Config,
    namespace: Namespace<'_>,
    lookup: Lookup<'_>,
) -> Result<Json, String> {
    let deploy = &service.deploy;
    let mut labels = namespace.label(&deploy.labels);
    labels[LABEL_IMAGE] = service.image.as_str().into();
    let container = container(service, config, namespace, lookup)?;
    let mode = policy::mode(deploy)?;
    let restart = policy::restart(deploy.restart_policy.as_ref(), &service.restart)?;
    let logging = service.logging.as_ref().map(|logging| {
        Body::default()
            .with("Name", logging.driver.as_str())
            .with("Options", table(&logging.options))
    });
    let task = Body::default()
        .always("ContainerSpec", container)
        .always("Resources", policy::resources(&deploy.resources)?)
        .maybe("RestartPolicy", restart)
        .always("Placement", policy::placement(&deploy.placement))
        .with("Networks", networks::attach(key, service, config, namespace)?)
        .maybe("LogDriver", logging)
        .always("ForceUpdate", 0);
    Ok(Body::default()
        .always("Name", namespace.scope(key, ""))
        .always("Labels", labels)
        .always("TaskTemplate", task)
        .always("Mode", mode)
        .maybe("UpdateConfig", deploy.update_config.as_ref().map(policy::update))
        .maybe("RollbackConfig", deploy.rollback_config.as_ref().map(policy::update))
        .always("EndpointSpec", policy::endpoint(&deploy.endpoint_mode, &service.ports))
        .into())
}

fn container(
    service: &Service,
    config: &Config,
    namespace: Namespace<'_>,
    lookup: Lookup<'_>,
) -> Result<Body, String> {
    let uses = &service.secrets;
    let secrets = objects::refer(ObjectKind::Secret, uses, &config.secrets, namespace, lookup)?;
    let configs = objects::refer_configs(service, &config.configs, namespace, lookup)?;
    let mounts = volumes::mounts(&service.volumes, &config.volumes, namespace)?;
    let health = service.healthcheck.as_ref().map(policy::healthcheck).transpose()?;
    let credentials = objects::credential_spec(&service.credential_spec, &configs, namespace)?;
    let bodies = |list: Vec<(String, Json)>| list.into_iter().map(|(_, body)| body).collect();
    let (secrets, configs): (Vec<Json>, Vec<Json>) = (bodies(secrets), bodies(configs));
    let dns = Body::default()
        .with("Nameservers", service.dns.clone())
        .with("Search", service.dns_search.clone());
    let (add, drop) = capabilities(&service.cap_add, &service.cap_drop);
    Ok(Body::default()
        .with("Image", image::tagged(&service.image))
        .always("Labels", namespace.label(&service.labels))
        .with("Command", service.entrypoint.clone())
        .with("Args", service.command.clone())
        .with("Hostname", service.hostname.as_str())
        .with("Env", environment(&service.environment))
        .with("Dir", service.working_dir.as_str())
        .with("User", service.user.as_str())
        .maybe("Init", service.init)
        .with("StopSignal", service.stop_signal.as_str())
        .with("TTY", service.tty)
        .with("OpenStdin", service.stdin_open)
        .with("ReadOnly", service.read_only)
        .with("Mounts", mounts)
        .maybe("StopGracePeriod", service.stop_grace_period.map(|period| period.0))
        .maybe("Healthcheck", health)
        .with("Hosts", hosts(&service.extra_hosts))
        .with("DNSConfig", dns)
        .with("Secrets", secrets)
        .with("Configs", configs)
        .with("Privileges", Body::default().maybe("CredentialSpec", credentials))
        .with("Isolation", service.isolation.as_str())
        .with("Sysctls", table(&service.sysctls))
        .with("CapabilityAdd", add)
        .with("CapabilityDrop", drop)
        .with("Ulimits", ulimits(&service.ulimits)))
}

/// `NAME=VALUE`, or a bare name, sorted as a whole: `O2=x` comes before `O=y`.
fn environment(variables: &Table<Option<String>>) -> Vec<String> {
    let line = |(name, value): (&String, &Option<String>)| match value {
        Some(value) => format!("{name}={value}"),
        None => name.clone(),
    };
    let mut lines: Vec<_> = variables.iter().map(line).collect();
    lines.sort();
    lines
}

/// Lines of `/etc/hosts`.
fn hosts(hosts: &[String]) -> Vec<String> {
    let pairs = hosts.iter().filter_map(|host| host.split_once(':'));
    pairs.map(|(name, ip)| format!("{ip} {name}")).collect()
}

/// Capabilities to add and to drop, with the kernel's prefix, sorted. Adding wins over dropping,
/// `ALL` over any other.
fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let normal = |names: &[String]| -> BTreeSet<String> {
        let names = names.iter().map(|name| name.trim().to_uppercase()).map(|name| {
            let whole = matches!(name.as_str(), "ALL" | "RESET") || name.starts_with("CAP_");
            if whole { name } else { format!("CAP_{name}") }
        });
        let names: BTreeSet<_> = names.collect();
        if names.contains("ALL") { BTreeSet::from(["ALL".to_owned()]) } else { names }
    };
    let (add, drop) = (normal(add), normal(drop));
    // `RESET` means something in updates alone.
    let real = |name: &&String| *name != "RESET";
    (
        add.iter().filter(real).cloned().collect(),
        drop.difference(&add).filter(real).cloned().collect(),
    )
}

fn ulimits(limits: &Table<Ulimit>) -> Vec<Json> {
    let limit = |(name, limit): (&String, &Ulimit)| {
        let (soft, hard) = match limit.single {
            0 => (limit.soft, limit.hard),
            single => (single, single),
        };
        let body = Body::default().with("Name", name.as_str());
        Json::from(body.always("Hard", hard).always("Soft", soft))
    };
    limits.iter().map(limit).collect()
}
