//! Pure: lays one file of a stack over another, by the rules of the docker CLI.
//!
//! They come from a generic merge of Go structs, which explains their edges: what is empty, zero
//! or false never overrides (a pointer to zero does, hence `replicas: 0`); lists are appended
//! without looking for repetitions, except ports, volumes, secrets and configs, which are matched
//! by a key and come out sorted by it; commands are replaced.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::model::{
    Build, Config, CredentialSpec, Deploy, Healthcheck, Logging, Placement, Resources,
    RestartPolicy, Service, ServiceNetwork, Table, Update,
};

/// Lays `over` over `base`. Networks, volumes, secrets and configs are replaced as a whole, and
/// the `x-` sections of `over` are dropped.
pub(crate) fn merge(base: &mut Config, over: Config) {
    for (name, service) in over.services {
        match base.services.get_mut(&name) {
            Some(below) => merge_service(below, service),
            None => drop(base.services.insert(name, service)),
        }
    }
    base.networks.extend(over.networks);
    base.volumes.extend(over.volumes);
    base.secrets.extend(over.secrets);
    base.configs.extend(over.configs);
}

/// Overrides unless the new value is empty, zero or false.
fn set<T: Default + PartialEq>(base: &mut T, over: T) {
    if over != T::default() {
        *base = over;
    }
}

fn set_maybe<T>(base: &mut Option<T>, over: Option<T>) {
    if over.is_some() {
        *base = over;
    }
}

/// As [`set`] for values behind a pointer: an absent one is set to anything.
fn set_inside<T: Default + PartialEq>(base: &mut Option<T>, over: Option<T>) {
    merge_inside(base, over, set);
}

/// Merges what both have; what only one has is taken.
fn merge_inside<T>(base: &mut Option<T>, over: Option<T>, merge: impl FnOnce(&mut T, T)) {
    match (base, over) {
        (Some(base), Some(over)) => merge(base, over),
        (base @ None, over) => *base = over,
        (Some(_), None) => {}
    }
}

/// Later entries replace earlier ones of the same key, once there is anything to merge with.
fn by_key<T, K: Ord>(base: &mut Vec<T>, over: Vec<T>, key: impl Fn(&T) -> K) {
    if base.is_empty() {
        *base = over;
        return;
    }
    let entries = base.drain(..).chain(over).map(|entry| (key(&entry), entry));
    let table: BTreeMap<_, _> = entries.collect();
    base.extend(table.into_values());
}

/// A variable cannot be blanked, only given another value.
fn variables(base: &mut Table<Option<String>>, over: Table<Option<String>>) {
    for (name, value) in over {
        let blank = |value: &Option<String>| value.as_deref().unwrap_or_default().is_empty();
        let keep = base.get(&name).is_some_and(|below| !blank(below)) && blank(&value);
        if !keep {
            base.insert(name, value);
        }
    }
}

fn merge_service(base: &mut Service, over: Service) {
    merge_build(&mut base.build, over.build);
    base.cap_add.extend(over.cap_add);
    base.cap_drop.extend(over.cap_drop);
    set(&mut base.cgroupns_mode, over.cgroupns_mode);
    set(&mut base.cgroup_parent, over.cgroup_parent);
    set(&mut base.command, over.command);
    by_key(&mut base.configs, over.configs, |config| config.source.clone());
    set(&mut base.container_name, over.container_name);
    merge_credential_spec(&mut base.credential_spec, over.credential_spec);
    base.depends_on.extend(over.depends_on);
    merge_deploy(&mut base.deploy, over.deploy);
    base.devices.extend(over.devices);
    base.dns.extend(over.dns);
    base.dns_search.extend(over.dns_search);
    set(&mut base.domainname, over.domainname);
    set(&mut base.entrypoint, over.entrypoint);
    variables(&mut base.environment, over.environment);
    base.env_file.extend(over.env_file);
    base.expose.extend(over.expose);
    base.external_links.extend(over.external_links);
    base.extra_hosts.extend(over.extra_hosts);
    set(&mut base.hostname, over.hostname);
    merge_inside(&mut base.healthcheck, over.healthcheck, merge_healthcheck);
    set(&mut base.image, over.image);
    set_inside(&mut base.init, over.init);
    set(&mut base.ipc, over.ipc);
    set(&mut base.isolation, over.isolation);
    base.labels.extend(over.labels);
    base.links.extend(over.links);
    merge_inside(&mut base.logging, over.logging, merge_logging);
    set(&mut base.mac_address, over.mac_address);
    set(&mut base.network_mode, over.network_mode);
    merge_networks(&mut base.networks, over.networks);
    set(&mut base.pid, over.pid);
    by_key(&mut base.ports, over.ports, |port| port.published);
    set(&mut base.privileged, over.privileged);
    set(&mut base.read_only, over.read_only);
    set(&mut base.restart, over.restart);
    by_key(&mut base.secrets, over.secrets, |secret| secret.source.clone());
    base.security_opt.extend(over.security_opt);
    set(&mut base.shm_size, over.shm_size);
    set(&mut base.stdin_open, over.stdin_open);
    set_inside(&mut base.stop_grace_period, over.stop_grace_period);
    set(&mut base.stop_signal, over.stop_signal);
    base.sysctls.extend(over.sysctls);
    base.tmpfs.extend(over.tmpfs);
    set(&mut base.tty, over.tty);
    base.ulimits.extend(over.ulimits);
    set(&mut base.user, over.user);
    set(&mut base.userns_mode, over.userns_mode);
    by_key(&mut base.volumes, over.volumes, |volume| volume.target.clone());
    set(&mut base.working_dir, over.working_dir);
    merge_extensions(&mut base.extensions, over.extensions);
}

fn merge_build(base: &mut Build, over: Build) {
    set(&mut base.context, over.context);
    set(&mut base.dockerfile, over.dockerfile);
    variables(&mut base.args, over.args);
    base.labels.extend(over.labels);
    base.cache_from.extend(over.cache_from);
    base.extra_hosts.extend(over.extra_hosts);
    set(&mut base.network, over.network);
    set(&mut base.target, over.target);
}

fn merge_credential_spec(base: &mut CredentialSpec, over: CredentialSpec) {
    set(&mut base.config, over.config);
    set(&mut base.file, over.file);
    set(&mut base.registry, over.registry);
}

fn merge_deploy(base: &mut Deploy, over: Deploy) {
    set(&mut base.mode, over.mode);
    set_maybe(&mut base.replicas, over.replicas);
    base.labels.extend(over.labels);
    merge_inside(&mut base.update_config, over.update_config, merge_update);
    merge_inside(&mut base.rollback_config, over.rollback_config, merge_update);
    merge_resources(&mut base.resources, over.resources);
    merge_inside(&mut base.restart_policy, over.restart_policy, merge_restart_policy);
    merge_placement(&mut base.placement, over.placement);
    set(&mut base.endpoint_mode, over.endpoint_mode);
}

fn merge_update(base: &mut Update, over: Update) {
    set_maybe(&mut base.parallelism, over.parallelism);
    set(&mut base.delay, over.delay);
    set(&mut base.failure_action, over.failure_action);
    set(&mut base.monitor, over.monitor);
    set(&mut base.max_failure_ratio, over.max_failure_ratio);
    set(&mut base.order, over.order);
}

fn merge_resources(base: &mut Resources, over: Resources) {
    merge_inside(&mut base.limits, over.limits, |base, over| {
        set(&mut base.cpus, over.cpus);
        set(&mut base.memory, over.memory);
        set(&mut base.pids, over.pids);
    });
    merge_inside(&mut base.reservations, over.reservations, |base, over| {
        set(&mut base.cpus, over.cpus);
        set(&mut base.memory, over.memory);
        base.generic_resources.extend(over.generic_resources);
    });
}

fn merge_restart_policy(base: &mut RestartPolicy, over: RestartPolicy) {
    set(&mut base.condition, over.condition);
    set_inside(&mut base.delay, over.delay);
    set_maybe(&mut base.max_attempts, over.max_attempts);
    set_inside(&mut base.window, over.window);
}

fn merge_placement(base: &mut Placement, over: Placement) {
    base.constraints.extend(over.constraints);
    base.preferences.extend(over.preferences);
    set(&mut base.max_replicas_per_node, over.max_replicas_per_node);
}

fn merge_healthcheck(base: &mut Healthcheck, over: Healthcheck) {
    base.test.extend(over.test);
    set_inside(&mut base.timeout, over.timeout);
    set_inside(&mut base.interval, over.interval);
    set_maybe(&mut base.retries, over.retries);
    set_inside(&mut base.start_period, over.start_period);
    set_inside(&mut base.start_interval, over.start_interval);
    set(&mut base.disable, over.disable);
}

/// Another driver drops the old one's options; the same one, or none, adds to them. Options are
/// not added where there were none: an oversight of the docker CLI that we keep.
fn merge_logging(base: &mut Logging, over: Logging) {
    let same = base.driver == over.driver || base.driver.is_empty() || over.driver.is_empty();
    if !same {
        *base = over;
        return;
    }
    if base.driver.is_empty() {
        base.driver = over.driver;
    }
    if !base.options.is_empty() {
        base.options.extend(over.options);
    }
}

/// A service's aliases in a network are replaced, and its driver options stay.
fn merge_networks(base: &mut Table<Option<ServiceNetwork>>, over: Table<Option<ServiceNetwork>>) {
    for (name, network) in over {
        merge_inside(base.entry(name).or_default(), network, |base, over| {
            base.aliases = over.aliases;
            set(&mut base.ipv4_address, over.ipv4_address);
            set(&mut base.ipv6_address, over.ipv6_address);
        });
    }
}

/// Mappings are merged at every depth, lists appended, anything else replaced.
fn merge_extensions(base: &mut Table<Json>, over: Table<Json>) {
    for (key, value) in over {
        match base.get_mut(&key) {
            Some(below) => merge_json(below, value),
            None => drop(base.insert(key, value)),
        }
    }
}

fn merge_json(base: &mut Json, over: Json) {
    match (base, over) {
        (Json::Object(base), Json::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(below) => merge_json(below, value),
                    None => drop(base.insert(key, value)),
                }
            }
        }
        (Json::Array(base), Json::Array(over)) => base.extend(over),
        (base, over) => *base = over,
    }
}

#[cfg(test)]
mod tests;
