//! The definition of the filters that look at a node and what is on it, from SwarmKit's
//! (`manager/scheduler/filter.go`, `manager/constraint`).

use std::net::IpAddr;
use std::sync::Arc;

use swarm_core::model::*;
use swarm_core::scheduler::Overcommit;

/// A node with the tasks that take something from it.
pub(super) struct At<'a> {
    pub(super) node: &'a Node,
    pub(super) tasks: Vec<&'a Task>,
    pub(super) overcommit: Overcommit,
}

impl At<'_> {
    /// Its tasks that shall run and that something is true of.
    pub(super) fn count(&self, of: impl Fn(&Task) -> bool) -> i128 {
        self.tasks.iter().filter(|task| wanted(task) && of(task)).count() as i128
    }

    pub(super) fn is_ready(&self) -> bool {
        self.node.status.state == NodeState::Ready
            && self.node.spec.availability == Availability::Active
    }

    /// Of processor time or memory: what counts as there, and what is reserved.
    fn amount(&self, of: fn(&Resources) -> i64, thousandths: u32) -> (i128, i128) {
        let reported = self.node.description.as_ref().map_or(0, |node| of(&node.resources));
        let total = i128::from(reported) * i128::from(thousandths) / 1_000;
        let reserved = self.tasks.iter().filter_map(|task| reserved(task));
        (total, reserved.map(|it| i128::from(of(it))).sum())
    }

    pub(super) fn cpus(&self) -> (i128, i128) {
        self.amount(|it| it.nano_cpus, self.overcommit.cpus)
    }

    pub(super) fn memory(&self) -> (i128, i128) {
        self.amount(|it| it.memory_bytes, self.overcommit.memory)
    }

    /// What asks for nothing fits on a node that has less than nothing left, too.
    pub(super) fn fits(&self, task: &Task) -> bool {
        let fits = |(total, used): (i128, i128), wanted: i64| i128::from(wanted) <= total - used;
        reserved(task).is_none_or(|wanted| {
            *wanted == Resources::default()
                || fits(self.cpus(), wanted.nano_cpus)
                    && fits(self.memory(), wanted.memory_bytes)
                    && self.claims(task).is_some()
        })
    }

    /// The generic resources that a task gets: of a kind that has names the first free ones, of
    /// another a number. (SwarmKit gives names in the order in which the node reports them.)
    pub(super) fn claims(&self, task: &Task) -> Option<Vec<GenericResource>> {
        let mut got = Vec::new();
        for wanted in reserved(task).map_or(&[][..], |it| &it.generic) {
            let more = match &wanted.discrete {
                Some(some) => self.claim(some, &got)?,
                None => vec![self.free(&got).find(|it| *it == wanted)?.clone()],
            };
            got.extend(more);
        }
        Some(got)
    }

    fn there(&self) -> &[GenericResource] {
        self.node.description.as_ref().map_or(&[], |node| &node.resources.generic)
    }

    fn held(&self) -> impl Iterator<Item = &GenericResource> {
        self.tasks.iter().flat_map(|task| &task.generic_resources)
    }

    /// What has a name and is held by nobody.
    fn free<'b>(&'b self, got: &'b [GenericResource]) -> impl Iterator<Item = &'b GenericResource> {
        let named = self.there().iter().filter(|it| it.named.is_some());
        named.filter(move |it| self.held().chain(got).all(|held| held != *it))
    }

    fn claim(
        &self,
        wanted: &DiscreteResource,
        got: &[GenericResource],
    ) -> Option<Vec<GenericResource>> {
        let is_named =
            |it: &GenericResource| it.named.as_ref().is_some_and(|it| it.kind == wanted.kind);
        if self.there().iter().any(is_named) {
            let mut names: Vec<_> = self.free(got).filter(|it| is_named(it)).collect();
            names.sort_by_key(|it| it.named.as_ref().map(|it| &it.value));
            let count = usize::try_from(wanted.value).ok()?;
            return Some(names.get(..count)?.iter().map(|name| (*name).clone()).collect());
        }
        let number = |it: &GenericResource| {
            it.discrete.as_ref().filter(|it| it.kind == wanted.kind).map(|it| it.value)
        };
        let there: Vec<_> = self.there().iter().filter_map(number).collect();
        let held: i64 = self.held().chain(got).filter_map(number).sum();
        let enough = !there.is_empty() && wanted.value <= there.iter().sum::<i64>() - held;
        let discrete = Some(wanted.clone());
        enough.then(|| vec![GenericResource { discrete, ..GenericResource::default() }])
    }

    /// Volume drivers must be there; those of networks and logs only where the node has any of the
    /// kind. A node without plugins has no Docker Engine, and is not judged by them.
    pub(super) fn has_plugins(&self, task: &Task, networks: &[Arc<Network>]) -> bool {
        let there = self.node.description.as_ref().map_or(&[][..], |node| &node.engine.plugins);
        let has = |kind: &str, name: &str| {
            let mut of_kind = there.iter().filter(|it| it.kind == kind).peekable();
            let lenient = of_kind.peek().is_none() && kind != "Volume";
            let latest = format!("{name}:latest");
            name.is_empty() || lenient || of_kind.any(|it| it.name == name || it.name == latest)
        };
        let volumes = mounts(task).filter(|mount| mount.kind == MountType::Volume);
        let mut volumes = volumes.filter_map(|mount| mount.volume.as_ref()?.driver_config.as_ref());
        let networks = networks
            .iter()
            .filter(|network| task.networks.iter().any(|place| place.network.id == network.id));
        let mut networks = networks.filter_map(|network| network.driver_state.as_ref());
        there.is_empty()
            || volumes.all(|driver| driver.name == "local" || has("Volume", &driver.name))
                && networks.all(|driver| has("Network", &driver.name))
                && task
                    .spec
                    .log_driver
                    .as_ref()
                    .is_none_or(|driver| driver.name == "none" || has("Log", &driver.name))
    }

    /// Whether constraints hold. Those of which one cannot be read are none (SwarmKit: the API has
    /// refused them).
    pub(super) fn meets(&self, constraints: &[String]) -> bool {
        let read = |text: &String| {
            let (equal, sides) = match text.split_once("==") {
                Some(sides) => (true, sides),
                None => (false, text.split_once("!=")?),
            };
            Some((sides.0.trim().to_owned(), equal, sides.1.trim().to_owned()))
        };
        let read: Option<Vec<_>> = constraints.iter().map(read).collect();
        read.unwrap_or_default().iter().all(|(key, equal, value)| {
            let (node, lower) = (self.node, key.to_lowercase());
            let described = node.description.as_ref();
            let actual = match lower.as_str() {
                "node.id" => node.id.as_str(),
                "node.hostname" => described.map_or("", |it| &it.hostname),
                "node.role" => node.role.as_str(),
                "node.platform.os" => described.map_or("", |it| &it.platform.os),
                "node.platform.arch" => described.map_or("", |it| &it.platform.architecture),
                "node.ip" => return within(&node.status.addr, value) == Some(*equal),
                _ if is_label(&lower) => label(node, key),
                _ => return false,
            };
            (actual.to_lowercase() == value.to_lowercase()) == *equal
        })
    }

    pub(super) fn runs(&self, platforms: &[Platform]) -> bool {
        let arch = |name: &str| name.replace("x86_64", "amd64").replace("aarch64", "arm64");
        let any_or = |wanted: &str, actual: &str| wanted.is_empty() || wanted == actual;
        platforms.is_empty()
            || self.node.description.as_ref().is_some_and(|NodeDescription { platform, .. }| {
                platforms.iter().any(|image| {
                    any_or(&arch(&image.architecture), &arch(&platform.architecture))
                        && any_or(&image.os, &platform.os)
                })
            })
    }

    pub(super) fn has_ports(&self, task: &Task) -> bool {
        let held: Vec<_> = self.tasks.iter().flat_map(|task| host_ports(task)).collect();
        host_ports(task).iter().all(|port| !held.contains(port))
    }
}

/// Whether an address is in a range, if that is one.
fn within(addr: &str, range: &str) -> Option<bool> {
    let bits = |text: &str| -> Option<String> {
        let bytes = match text.parse().ok()? {
            IpAddr::V4(addr) => addr.octets().to_vec(),
            IpAddr::V6(addr) => addr.octets().to_vec(),
        };
        Some(bytes.iter().map(|byte| format!("{byte:08b}")).collect())
    };
    let (base, length) = range.split_once('/').unwrap_or((range, "128"));
    let base = bits(base)?;
    let length = length.parse::<usize>().ok()?.min(base.len());
    let addr = bits(addr).filter(|addr| addr.len() == base.len());
    Some(addr.is_some_and(|addr| addr.starts_with(&base[..length])))
}

pub(super) fn is_label(descriptor: &str) -> bool {
    descriptor.starts_with("node.labels.") || descriptor.starts_with("engine.labels.")
}

/// The value of a label by its descriptor; empty where there is none.
pub(super) fn label<'a>(node: &'a Node, descriptor: &str) -> &'a str {
    let lower = descriptor.to_lowercase();
    let found = if lower.starts_with("node.labels.") {
        node.spec.labels.get(&descriptor["node.labels.".len()..])
    } else if lower.starts_with("engine.labels.") {
        let described = node.description.as_ref();
        described.and_then(|it| it.engine.labels.get(&descriptor["engine.labels.".len()..]))
    } else {
        None
    };
    found.map_or("", String::as_str)
}

pub(super) fn wanted(task: &Task) -> bool {
    task.desired_state <= TaskState::Complete
}

pub(super) fn reserved(task: &Task) -> Option<&Resources> {
    task.spec.resources.as_ref()?.reservations.as_ref()
}

fn host_ports(task: &Task) -> Vec<(PortProtocol, u16)> {
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    let ports = ports.filter(|it| it.publish_mode == PublishMode::Host && it.published_port != 0);
    ports.map(|it| (it.protocol, it.published_port)).collect()
}

pub(super) fn mounts(task: &Task) -> impl Iterator<Item = &Mount> {
    task.spec.container.iter().flat_map(|container| &container.mounts)
}
