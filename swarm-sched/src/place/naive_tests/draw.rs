//! Random nodes and services, drawn from rows of bytes: each choice takes the next byte of its row,
//! and 0 chooses what is plainest, so that a history that fails becomes short and plain.

use std::sync::Arc;

use swarm_core::model::*;

use super::ranks::STRATEGIES;
use crate::world::port;

/// What one thing is drawn from.
pub(super) type Row = [u8; 32];

/// The bytes of a row that are left.
pub(super) struct Dice<'a>(std::slice::Iter<'a, u8>);

/// A service, as far as placement looks at it.
pub(super) struct Drawn {
    pub(super) labels: Labels,
    pub(super) spec: Arc<TaskSpec>,
    pub(super) mode: ServiceMode,
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// Which of the networks its tasks are attached to.
    pub(super) network: Option<usize>,
}

/// Conditions on nodes, most of which some nodes meet. `@` is the id of one of them.
const CONSTRAINTS: [&str; 28] = [
    "node.labels.zone!=3",
    "node.labels.zone==1",
    "node.labels.zone==2",
    "NODE.labels.zone != 2",
    "node.labels.Zone==1",
    "node.labels.none!=x",
    "node.labels.disk==SSD",
    "node.labels.disk!=ssd",
    "node.hostname!=H1",
    "node.hostname==h2",
    "node.role==worker",
    "node.role == MANAGER",
    "node.role != Manager",
    "node.platform.os==linux",
    "node.platform.os!=windows",
    "node.platform.arch==x86_64",
    "node.platform.arch!=amd64",
    "node.ip==10.0.0.0/15",
    "node.ip!=10.1.0.0/16",
    "node.ip==10.0.0.1",
    "node.ip==fd00::/8",
    "node.ip!=nonsense",
    "engine.labels.storage==fast",
    "engine.labels.storage!=fast",
    "node.id==@",
    "node.id != @",
    "node.colour!=red",
    "node.role",
];

/// What a service's label says about neighbours. Services are `s0` to `s3`.
const NEAR: [&str; 16] = [
    "service!=s0",
    "service!=s1; node!=h1",
    "service!=s*",
    "service==s1",
    "service==~s2",
    "image==redis*",
    "image!=redis:7",
    "tier!=back",
    "tier==~b*k",
    "node.labels.disk!=ssd",
    "node.labels.zone!=~1",
    "engine.labels.storage!=s*w",
    "node!=h2",
    "container!=s0.*",
    "container!=s2.1.*; service!=s3",
    "container==~s*",
];

/// Over which labels a service may be spread within bounds.
const BOUNDS: [&str; 8] = [
    "node.labels.zone:1",
    "node.labels.zone",
    "node.labels.disk:1",
    "node.labels.host",
    "node.labels.zone:1",
    "node.labels.zone:2",
    "engine.labels.storage:1",
    "engine.labels.storage:2",
];

/// The same in the environment of a container.
const ENV: [&str; 6] = [
    "PLAIN=1",
    "affinity:container!=s1.*",
    "constraint:storage==~fast",
    "affinity:service!=~s2",
    "constraint:node!=h0",
    "constraint:storage!=slow",
];

const IMAGES: [&str; 4] = ["nginx", "redis:7@sha256:ab", "redis", "group/redis:6"];

const PLUGINS: [(&str, &str); 8] = [
    ("Volume", "nfs:latest"),
    ("Network", "weave"),
    ("Log", "gelf:latest"),
    ("Volume", "ceph"),
    ("Network", "overlay"),
    ("Log", "json-file"),
    ("Volume", "local"),
    ("Network", "weave:latest"),
];

impl<'a> Dice<'a> {
    pub(super) fn new(row: &'a Row) -> Self {
        Self(row.iter())
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        usize::from(*self.0.next().unwrap_or(&0)) % count
    }

    /// Whether something rare happens.
    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    pub(super) fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// A strategy's name, sometimes one that there is not.
    pub(super) fn strategy(&mut self) -> Option<&'static str> {
        match self.below(64) {
            63 => Some("best"),
            drawn => STRATEGIES.get(drawn % 8).copied(),
        }
    }

    fn amount(&mut self, unit: i64, below: usize) -> i64 {
        unit * i64::try_from(self.below(below)).unwrap()
    }

    /// Gives a node everything that it is and has.
    pub(super) fn node(&mut self, node: &mut Node, host: &str) {
        let labels = &mut node.spec.labels;
        labels.clear();
        let mut label = |name: &str, value: &str| {
            if !value.is_empty() {
                labels.insert(name.to_owned(), value.to_owned());
            }
        };
        label("zone", self.one_of(&["1", "2", "2", "3", "1", "2", ""]));
        label("disk", self.one_of(&["", "ssd", "SSD"]));
        // More values than there are sets of seats for in tests.
        label("host", host);
        node.role = if self.one_in(3) { NodeRole::Manager } else { NodeRole::Worker };
        node.spec.availability = match self.below(16) {
            15 => Availability::Drain,
            14 => Availability::Pause,
            _ => Availability::Active,
        };
        node.status.state = match self.below(24) {
            23 => NodeState::Down,
            22 => NodeState::Disconnected,
            21 => NodeState::Unknown,
            _ => NodeState::Ready,
        };
        node.status.addr = self.one_of(&["10.0.0.1", "10.0.9.2", "10.1.0.1", "fd00::1", ""]).into();
        node.description = None;
        if !self.one_in(16) {
            let description = self.description();
            node.description = Some(NodeDescription { hostname: host.to_owned(), ..description });
        }
    }

    fn description(&mut self) -> NodeDescription {
        let mut description = NodeDescription::default();
        let resources = &mut description.resources;
        resources.nano_cpus = 900 + self.amount(500, 8);
        resources.memory_bytes = 12 + self.amount(3, 16);
        // Not in the order of the names.
        resources.generic =
            (0..self.below(4)).map(|nth| named("gpu", &format!("G{}", 3 - nth))).collect();
        resources.generic.extend((0..self.below(3)).map(|value| discrete("disk", value as i64)));
        let (os, arch) = self.one_of(&[
            ("linux", "x86_64"),
            ("linux", "amd64"),
            ("linux", "aarch64"),
            ("windows", "amd64"),
        ]);
        (description.platform.os, description.platform.architecture) = (os.into(), arch.into());
        let some = if self.one_in(3) { 0 } else { self.below(256) };
        let engine = &mut description.engine;
        let has = PLUGINS.iter().enumerate().filter(|(bit, _)| some >> bit & 1 == 1);
        let plugin = |(kind, name): (&str, &str)| EnginePlugin {
            kind: kind.to_owned(),
            name: name.to_owned(),
            ..EnginePlugin::default()
        };
        engine.plugins = has.map(|(_, it)| plugin(*it)).collect();
        for (name, value) in [
            ("storage", self.one_of(&["", "fast", "slow"])),
            ("load", self.one_of(&["0", "1", "2", "3", "high", ""])),
        ] {
            if !value.is_empty() {
                engine.labels.insert(name.to_owned(), value.to_owned());
            }
        }
        description
    }

    /// A service: each filter, preference and label is asked for or not, whatever the others are.
    pub(super) fn service(&mut self, number: usize, node: Option<NodeId>) -> Drawn {
        let mut labels = Labels::default();
        let strategy = self.strategy();
        labels.extend(strategy.map(|name| ("swarm.strategy".to_owned(), name.to_owned())));
        let mode = match self.below(8) {
            7 => ServiceMode::GlobalJob(Default::default()),
            6 => ServiceMode::ReplicatedJob(ReplicatedJobMode::default()),
            5 => ServiceMode::Global(Default::default()),
            _ => ServiceMode::default(),
        };
        let mut spec = TaskSpec::default();
        let reserved = spec.resources.get_or_insert_default().reservations.get_or_insert_default();
        reserved.nano_cpus = self.one_of(&[0, 0, 0, 0, 300, 700]);
        reserved.memory_bytes = self.one_of(&[0, 0, 0, 4, 9, 17]);
        reserved.generic = self.generic();
        let placement = spec.placement.get_or_insert_default();
        self.placement(placement, node);
        let container = spec.container.insert(ContainerSpec::default());
        container.image = IMAGES[number % IMAGES.len()].to_owned();
        self.container(container);
        let log = self.one_of(&["", "", "", "", "", "", "", "none", "json-file", "gelf"]);
        let driver = Driver { name: log.to_owned(), ..Driver::default() };
        spec.log_driver = (!log.is_empty()).then_some(driver);
        let network = self.below(9).checked_sub(6);
        let endpoint = self.endpoint();
        let mut label = |one_in, name: &str, good: &[&'static str], bad: &[&'static str]| {
            if self.one_in(one_in) {
                let values = if !bad.is_empty() && self.one_in(16) { bad } else { good };
                labels.insert(name.to_owned(), self.one_of(values).to_owned());
            }
        };
        label(3, "swarm.affinity", &NEAR, &["service", "image==/r.*/"]);
        label(2, "swarm.topology", &BOUNDS, &["zone", "node.labels.zone:0"]);
        label(6, "swarm.priority", &["1", "-1", "2", "7"], &["high"]);
        label(3, "tier", &["back", "front"], &[]);
        Drawn { labels, spec: spec.into(), mode, endpoint, network }
    }

    fn generic(&mut self) -> Vec<GenericResource> {
        match self.below(24) {
            6 => vec![discrete("disk", 1)],
            7 => vec![discrete("gpu", 1)],
            8 => vec![discrete("gpu", 2)],
            9 => vec![discrete("gpu", 1), discrete("disk", 1)],
            10 => vec![discrete("disk", 1), discrete("disk", 2)],
            11 => vec![named("gpu", "G2"), discrete("gpu", 1)],
            _ => Vec::new(),
        }
    }

    fn placement(&mut self, placement: &mut Placement, node: Option<NodeId>) {
        let node = node.unwrap_or_default();
        let count = self.one_of(&[0, 0, 0, 0, 0, 0, 1, 2]);
        let constraints = (0..count).map(|_| self.one_of(&CONSTRAINTS));
        placement.constraints = constraints.map(|it| it.replace('@', node.as_str())).collect();
        placement.max_replicas = self.one_of(&[0, 0, 0, 0, 1, 2]);
        if self.one_in(6) {
            let (os, arch) = self.one_of(&[("linux", "amd64"), ("linux", ""), ("", "arm64")]);
            let platform = |os: &str, arch: &str| Platform {
                os: os.to_owned(),
                architecture: arch.to_owned(),
                ..Platform::default()
            };
            placement.platforms = vec![platform("plan9", "mips"), platform(os, arch)];
        }
        let count = self.one_of(&[0, 0, 0, 1, 2]);
        placement.preferences = (0..count).map(|_| self.preference()).collect();
    }

    fn preference(&mut self) -> PlacementPreference {
        let over = self.one_of(&[
            "node.labels.zone",
            "node.labels.host",
            "engine.labels.storage",
            "Node.Labels.disk",
            "zone",
            "",
        ]);
        let spread = SpreadOver { descriptor: over.to_owned(), ..SpreadOver::default() };
        let spread = (!over.is_empty()).then_some(spread);
        PlacementPreference { spread, ..PlacementPreference::default() }
    }

    fn container(&mut self, container: &mut ContainerSpec) {
        let driver = self.one_of(&["", "", "", "", "", "", "", "local", "nfs", "ceph"]);
        if !driver.is_empty() {
            let mut mount = Mount { kind: MountType::Volume, ..Mount::default() };
            let config = Driver { name: driver.to_owned(), ..Driver::default() };
            mount.volume.get_or_insert_default().driver_config = Some(config);
            container.mounts.push(mount);
        }
        if self.one_in(16) {
            container.mounts.push(Mount { kind: MountType::Cluster, ..Mount::default() });
        }
        if self.one_in(8) {
            container.env.push(self.one_of(&ENV).to_owned());
        }
    }

    fn endpoint(&mut self) -> Option<Arc<Endpoint>> {
        let host = PublishMode::Host;
        let ports = match self.below(16) {
            9 => vec![port(80, 8080, host), port(53, 5353, host)],
            8 => vec![PortConfig { protocol: PortProtocol::Udp, ..port(53, 5353, host) }],
            7 => vec![port(80, 8080, host)],
            6 => vec![port(80, 8080, PublishMode::Ingress), port(80, 0, host)],
            _ => return None,
        };
        Some(Arc::new(Endpoint { ports, ..Endpoint::default() }))
    }
}

fn named(kind: &str, value: &str) -> GenericResource {
    let (kind, value) = (kind.to_owned(), value.to_owned());
    let named = NamedResource { kind, value, ..NamedResource::default() };
    GenericResource { named: Some(named), ..GenericResource::default() }
}

fn discrete(kind: &str, value: i64) -> GenericResource {
    let discrete = DiscreteResource { kind: kind.to_owned(), value, ..DiscreteResource::default() };
    GenericResource { discrete: Some(discrete), ..GenericResource::default() }
}
