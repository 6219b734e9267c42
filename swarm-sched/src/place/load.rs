//! Pure: what a node carries and what it has left.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_core::model::{
    DiscreteResource, GenericResource, NamedResource, Node, NodeId, PortConfig, PortProtocol,
    PublishMode, Resources, ServiceId, Task, TaskState,
};
use swarm_core::scheduler::Overcommit;

/// A node with the sum of its tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeLoad {
    /// The node.
    pub node: Arc<Node>,
    /// Its id, without a look at the node, which lies elsewhere in the memory.
    pub(super) id: NodeId,
    /// Its tasks that shall run.
    active: u64,
    /// In order of id; most nodes have tasks of few services.
    active_by_service: Vec<(ServiceId, u64)>,
    /// What is counted as there.
    total_cpus: i64,
    total_memory: i64,
    /// The same minus what its tasks reserve; negative when the node shrank.
    free_cpus: i64,
    free_memory: i64,
    generic: BTreeMap<String, Generic>,
    /// How many tasks hold each host port: one, unless something outside placed them.
    host_ports: BTreeMap<(PortProtocol, u16), u32>,
}

/// What is left of one kind of generic resource.
#[derive(Clone, Debug, Default, PartialEq)]
struct Generic {
    discrete: i64,
    /// How many tasks hold each name that the node reports: none or one.
    named: BTreeMap<String, u32>,
}

impl Generic {
    fn free_names(&self) -> impl Iterator<Item = &String> {
        self.named.iter().filter(|(_, holders)| **holders == 0).map(|(name, _)| name)
    }
}

/// What a task takes from a node beside its place in the counts.
pub(super) struct Share<'a> {
    pub(super) task: &'a Task,
    pub(super) claims: &'a [GenericResource],
}

/// What a change does to whether a service has tasks on a node that shall run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It had none.
    Begins,
    /// It had some and has, or had none and has none.
    Stays,
    /// It has none any more.
    Ends,
}

impl NodeLoad {
    /// The node without tasks.
    pub(super) fn empty(node: Arc<Node>, overcommit: Overcommit) -> Self {
        let total = node.description.as_ref().map(|node| node.resources.clone());
        let Resources { nano_cpus, memory_bytes, generic: reported, .. } =
            total.unwrap_or_default();
        let mut generic: BTreeMap<String, Generic> = BTreeMap::new();
        for resource in reported {
            if let Some(discrete) = resource.discrete {
                let amount = &mut generic.entry(discrete.kind).or_default().discrete;
                *amount = amount.saturating_add(discrete.value);
            }
            if let Some(named) = resource.named {
                generic.entry(named.kind).or_default().named.insert(named.value, 0);
            }
        }
        let total_cpus = overcommit.cpus_of(nano_cpus);
        let total_memory = overcommit.memory_of(memory_bytes);
        Self {
            id: node.id,
            node,
            active: 0,
            active_by_service: Vec::new(),
            total_cpus,
            total_memory,
            free_cpus: total_cpus,
            free_memory: total_memory,
            generic,
            host_ports: BTreeMap::new(),
        }
    }

    /// Its tasks that shall run.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.active
    }

    /// Its tasks of one service that shall run.
    #[must_use]
    pub fn active_of(&self, service: ServiceId) -> u64 {
        let found = self.active_by_service.binary_search_by_key(&service, |(id, _)| *id);
        found.map_or(0, |at| self.active_by_service[at].1)
    }

    /// The services that have tasks here that shall run, in order of id, with the number of them.
    pub fn services(&self) -> impl Iterator<Item = (ServiceId, u64)> {
        self.active_by_service.iter().copied()
    }

    /// The processor time that counts as there, in billionths of a core.
    #[must_use]
    pub fn total_cpus(&self) -> i64 {
        self.total_cpus
    }

    /// The memory that counts as there, in bytes.
    #[must_use]
    pub fn total_memory(&self) -> i64 {
        self.total_memory
    }

    /// The processor time that is not reserved, in billionths of a core.
    #[must_use]
    pub fn free_cpus(&self) -> i64 {
        self.free_cpus
    }

    /// The memory that is not reserved, in bytes.
    #[must_use]
    pub fn free_memory(&self) -> i64 {
        self.free_memory
    }

    /// Whether a reservation fits in what is left.
    #[must_use]
    pub fn fits(&self, wanted: &Resources) -> bool {
        wanted.nano_cpus <= self.free_cpus
            && wanted.memory_bytes <= self.free_memory
            && (wanted.generic.is_empty() || self.choose_all(&wanted.generic).is_some())
    }

    /// Whether no task here holds the host port.
    #[must_use]
    pub fn has_port(&self, protocol: PortProtocol, port: u16) -> bool {
        !self.host_ports.contains_key(&(protocol, port))
    }

    /// The resources that a reservation gets here: some of the named ones, or a part of the
    /// discrete ones. `None` when there is not enough of some kind. No name is given out twice,
    /// even where a reservation asks for one kind twice.
    #[must_use]
    pub fn choose_all(&self, wanted: &[GenericResource]) -> Option<Vec<GenericResource>> {
        let mut chosen = Vec::with_capacity(wanted.len());
        for resource in wanted {
            let more = self.choose(resource, &chosen)?;
            chosen.extend(more);
        }
        Some(chosen)
    }

    /// What one entry of a reservation gets beside what earlier ones got.
    fn choose(
        &self,
        wanted: &GenericResource,
        taken: &[GenericResource],
    ) -> Option<Vec<GenericResource>> {
        let Some(DiscreteResource { kind, value, .. }) = &wanted.discrete else {
            return self.choose_named(wanted).filter(|chosen| !taken.contains(&chosen[0]));
        };
        let free = self.generic.get(kind)?;
        if free.named.is_empty() {
            let earlier = taken.iter().filter_map(|taken| taken.discrete.as_ref());
            let earlier: i64 = earlier.filter(|it| it.kind == *kind).map(|it| it.value).sum();
            return (value.checked_add(earlier)? <= free.discrete).then(|| vec![wanted.clone()]);
        }
        let count = usize::try_from(*value).ok()?;
        let names = free.free_names().map(|name| named(kind, name));
        let names: Vec<_> = names.filter(|name| !taken.contains(name)).take(count).collect();
        (names.len() == count).then_some(names)
    }

    fn choose_named(&self, wanted: &GenericResource) -> Option<Vec<GenericResource>> {
        let NamedResource { kind, value, .. } = wanted.named.as_ref()?;
        let free = self.generic.get(kind)?;
        (free.named.get(value) == Some(&0)).then(|| vec![wanted.clone()])
    }

    /// Counts a task (1) or takes it off again (-1), and says what that means to its service.
    pub(super) fn change(&mut self, share: &Share<'_>, sign: i64) -> Presence {
        let task = share.task;
        let mut presence = Presence::Stays;
        if task.is_wanted() {
            self.active = self.active.saturating_add_signed(sign);
            presence = bump(&mut self.active_by_service, task.service_id, sign);
        }
        if let Some(reserved) = reservation(task) {
            self.free_cpus -= sign * reserved.nano_cpus;
            self.free_memory -= sign * reserved.memory_bytes;
        }
        for claim in share.claims {
            self.claim(claim, sign);
        }
        for (protocol, port) in host_ports(task) {
            let holders = self.host_ports.entry((protocol, port)).or_default();
            *holders = holders.saturating_add_signed(if sign > 0 { 1 } else { -1 });
            if *holders == 0 {
                self.host_ports.remove(&(protocol, port));
            }
        }
        presence
    }

    fn claim(&mut self, claim: &GenericResource, sign: i64) {
        if let Some(discrete) = &claim.discrete
            && let Some(free) = self.generic.get_mut(&discrete.kind)
        {
            free.discrete -= sign * discrete.value;
        }
        if let Some(named) = &claim.named
            && let Some(kind) = self.generic.get_mut(&named.kind)
            && let Some(holders) = kind.named.get_mut(&named.value)
        {
            *holders = holders.saturating_add_signed(if sign > 0 { 1 } else { -1 });
        }
    }
}

/// Whether a task takes something from a node: it was placed and has not ended, or the node is
/// promised to it. Global tasks that wait on their node otherwise take nothing yet.
pub(crate) fn occupies(task: &Task) -> bool {
    let placed = (TaskState::Assigned..=TaskState::Running).contains(&task.status.state);
    task.node_id.is_some() && (placed || task.is_promised())
}

/// What a task reserves, if anything. An empty reservation, which the docker CLI sends, is none: it
/// fits on a node that has less than nothing left, too (SwarmKit).
pub(super) fn reservation(task: &Task) -> Option<&Resources> {
    let reserved = task.spec.resources.as_ref()?.reservations.as_ref()?;
    let empty = reserved.nano_cpus == 0 && reserved.memory_bytes == 0;
    (!empty || !reserved.generic.is_empty()).then_some(reserved)
}

/// The fixed host ports that a task needs on its node.
pub(super) fn host_ports(task: &Task) -> impl Iterator<Item = (PortProtocol, u16)> {
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    let on_host = |port: &&PortConfig| port.publish_mode == PublishMode::Host;
    ports
        .filter(on_host)
        .filter(|port| port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
}

fn named(kind: &str, value: &str) -> GenericResource {
    let resource = NamedResource { kind: kind.into(), value: value.into(), ..Default::default() };
    GenericResource { named: Some(resource), ..Default::default() }
}

fn bump(counts: &mut Vec<(ServiceId, u64)>, service: ServiceId, sign: i64) -> Presence {
    match counts.binary_search_by_key(&service, |(id, _)| *id) {
        Ok(at) => {
            counts[at].1 = counts[at].1.saturating_add_signed(sign);
            if counts[at].1 == 0 {
                counts.remove(at);
                return Presence::Ends;
            }
            Presence::Stays
        }
        Err(at) if sign > 0 => {
            counts.insert(at, (service, 1));
            Presence::Begins
        }
        Err(_) => Presence::Stays,
    }
}
