//! Pure: draws a script from a seed: services of every shape, what clients do to them, and a
//! subset of the faults.

use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{
    Availability, EndpointSpec, FailureAction, Labels, NetworkAttachmentConfig, Placement,
    PlacementPreference, Platform, PortConfig, PublishMode, ReplicatedJobMode, ReplicatedMode,
    ResourceRequirements, Resources, RestartCondition, RestartPolicy, SecretReference, ServiceMode,
    ServiceSpec, SpreadOver, TaskSpec, UpdateConfig, UpdateOrder,
};
use swarm_core::time::Nanos;
use swarm_sched::place::PRIORITY_LABEL;

use super::dice::Dice;
use super::script::{Action, Edit, Fault, FaultKind, Request, Script};
use super::situations;

/// How large a drawn scenario is, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Managers: 1, 3 or 5.
    pub managers: usize,
    /// Nodes beside them.
    pub workers: usize,
    /// Services that are created.
    pub services: usize,
    /// What clients ask for after that.
    pub requests: usize,
    /// Faults.
    pub faults: usize,
    /// How long it takes until everything heals.
    pub lasts: Duration,
}

impl Size {
    /// What finds most in the least time: a few of everything.
    #[must_use]
    pub const fn small() -> Self {
        let lasts = Duration::from_secs(600);
        Self { managers: 3, workers: 4, services: 6, requests: 25, faults: 20, lasts }
    }

    /// The size of a real cluster: three managers, twenty nodes, fifty services.
    #[must_use]
    pub const fn large() -> Self {
        let lasts = Duration::from_secs(3_600);
        Self { managers: 3, workers: 17, services: 50, requests: 100, faults: 40, lasts }
    }
}

/// Draws a script. The same seed and size draw the same one.
#[must_use]
pub fn draw(seed: u64, size: &Size) -> Script {
    let mut dice = Dice::new(seed, "script");
    let managers = match size.managers {
        0..=2 => 1,
        most => *dice.pick(&[1, 3, 3, most.min(5)]),
    };
    let workers = dice.between(1, size.workers.max(1) as u64) as usize;
    let mut script = Script::new(seed, managers, workers);
    script.heal_at = size.lasts;
    let mut rebalance = Dice::new(seed, "rebalance");
    script.rebalance = rebalance.percent(25).then(|| {
        (rebalance.between(1, 3) as usize, Duration::from_secs(rebalance.between(10, 60)))
    });
    let platforms = Dice::new(seed, "platforms");
    let strategies = Dice::new(seed, "strategies");
    let mut priorities = Dice::new(seed, "priorities");
    script.preemption = priorities.percent(25).then(|| priorities.between(1, 5) as usize);
    let mut room = Dice::new(seed, "room");
    script.room = room.percent(20).then(|| room.between(4, 20) as usize);
    let lasts = size.lasts;
    let mut drawing = Drawing { script, dice, platforms, strategies, priorities, lasts };
    drawing.clients(size);
    drawing.faults(size);
    let mut script = drawing.script;
    situations::add(&mut script, lasts);
    script.entries.sort_by_key(|entry| entry.at);
    script
}

struct Drawing {
    script: Script,
    dice: Dice,
    /// For what was added later: so nothing else is drawn otherwise.
    platforms: Dice,
    strategies: Dice,
    priorities: Dice,
    lasts: Duration,
}

const NETWORKS: [&str; 3] = ["front", "back", "narrow"];
const SECRETS: [&str; 3] = ["key", "password", "token"];
const LABELS: [&str; 3] = ["red", "green", "blue"];

impl Drawing {
    fn some_time(&mut self) -> Duration {
        let within = self.lasts.as_millis() as u64;
        self.dice.millis(3_000, within.max(3_001))
    }

    fn node(&mut self) -> usize {
        self.dice.below(self.script.nodes() as u64) as usize
    }

    fn manager(&mut self) -> usize {
        self.dice.below(self.script.managers as u64) as usize
    }

    fn ask(&mut self, at: Duration, request: Request) {
        self.script.at(at, Action::Ask(request));
    }

    fn clients(&mut self, size: &Size) {
        let begin = Duration::from_secs(1);
        for name in NETWORKS {
            let subnet = if name == "narrow" { "10.77.0.0/28" } else { "" };
            self.ask(begin, Request::CreateNetwork(name.to_owned(), subnet.to_owned()));
        }
        for name in SECRETS {
            self.ask(begin, Request::CreateSecret(name.to_owned()));
        }
        for node in 0..self.script.nodes() {
            if self.dice.percent(60) {
                let value = Some((*self.dice.pick(&LABELS)).to_owned());
                self.ask(begin, Request::LabelNode(node, "color".to_owned(), value));
            }
        }
        let services = self.dice.between(1, size.services.max(1) as u64);
        // Which of them there are differs from seed to seed, and so does the mixture of modes.
        let first = self.dice.below(10);
        let names: Vec<String> =
            (first..first + services).map(|number| format!("s{number}")).collect();
        for name in &names {
            let spec = self.service(name);
            let at = if self.dice.percent(70) { begin * 2 } else { self.some_time() };
            self.ask(at, Request::CreateService(Box::new(spec)));
        }
        for _ in 0..self.dice.below(size.requests as u64 + 1) {
            let at = self.some_time();
            let request = self.request(&names);
            self.ask(at, request);
        }
    }

    fn request(&mut self, names: &[String]) -> Request {
        let name = self.dice.pick(names).clone();
        match self.dice.below(20) {
            0..=4 => {
                let spec = self.service(&name);
                Request::DeployService(Box::new(spec))
            }
            5..=7 => Request::UpdateService(name, vec![Edit::Replicas(self.dice.below(9))]),
            8..=9 => {
                let image = self.image();
                Request::UpdateService(name, vec![Edit::Image(image)])
            }
            10 => Request::UpdateService(name, vec![Edit::Force]),
            11 => Request::RollBackService(name),
            12 => Request::RemoveService(name),
            13 => {
                let spec = self.service(&name);
                Request::CreateService(Box::new(spec))
            }
            14..=15 => {
                let all = [Availability::Active, Availability::Pause, Availability::Drain];
                Request::SetAvailability(self.node(), *self.dice.pick(&all))
            }
            16 => {
                let value = self.dice.percent(70).then(|| (*self.dice.pick(&LABELS)).to_owned());
                Request::LabelNode(self.node(), "color".to_owned(), value)
            }
            17 => {
                let worker = self.dice.below(self.script.workers as u64) as usize;
                Request::RemoveNode(self.script.managers + worker)
            }
            18 => Request::SetHistory(*self.dice.pick(&[0, 1, 5, 5, -1])),
            _ => Request::RemoveNetwork((*self.dice.pick(&NETWORKS)).to_owned()),
        }
    }

    fn image(&mut self) -> String {
        let kinds = [
            "steady",
            "steady",
            "steady",
            "steady",
            "slow",
            "crash",
            "flaky",
            "unhealthy",
            "missing",
            "stubborn",
            "done",
        ];
        format!("{}:{}", self.dice.pick(&kinds), self.dice.below(100))
    }

    fn nanos(&mut self, of: &[u64]) -> Option<Nanos> {
        let millis = *self.dice.pick(of);
        self.dice.percent(60).then(|| Duration::from_millis(millis).into())
    }

    fn service(&mut self, name: &str) -> ServiceSpec {
        let mut task = TaskSpec::default();
        let container = task.container.get_or_insert_default();
        container.image = self.image();
        if self.dice.percent(30) {
            let secret = SecretReference {
                secret_name: (*self.dice.pick(&SECRETS)).to_owned(),
                file: Some(swarm_core::model::FileTarget {
                    name: "secret".to_owned(),
                    ..Default::default()
                }),
                ..SecretReference::default()
            };
            container.secrets.push(secret);
        }
        if self.dice.percent(50) {
            task.networks = vec![NetworkAttachmentConfig {
                target: (*self.dice.pick(&NETWORKS)).to_owned(),
                ..NetworkAttachmentConfig::default()
            }];
        }
        task.restart_policy = self.restart();
        task.placement = self.placement();
        if self.platforms.percent(10) {
            let architecture = (*self.platforms.pick(&["amd64", "arm64"])).to_owned();
            let platform = Platform { os: "linux".to_owned(), architecture, ..Platform::default() };
            task.placement.get_or_insert_default().platforms.push(platform);
        }
        if self.dice.percent(30) {
            let nano_cpus = *self.dice.pick(&[0, 500_000_000, 2_000_000_000]);
            let memory_bytes = *self.dice.pick(&[0, 64 << 20, 3 << 30]);
            let reservations = Resources { nano_cpus, memory_bytes, ..Resources::default() };
            task.resources = (reservations != Resources::default()).then(|| ResourceRequirements {
                reservations: Some(reservations),
                ..ResourceRequirements::default()
            });
        }
        let mode = self.mode(name);
        let job = mode.is_job();
        if job {
            let image = *self.dice.pick(&["done", "done", "tries", "crash", "steady"]);
            task.container.get_or_insert_default().image = format!("{image}:1");
        }
        let mut spec = ServiceSpec {
            name: name.to_owned(),
            task: Arc::new(task),
            mode,
            update_config: self.update().filter(|_| !job),
            rollback_config: self.update().filter(|_| !job),
            endpoint: self.endpoint(),
            labels: self.strategy(),
            ..ServiceSpec::default()
        };
        self.priority(&mut spec);
        spec
    }

    /// How much the service matters, where some may make room for others; and more of what a node
    /// has, so that there is little of it.
    fn priority(&mut self, spec: &mut ServiceSpec) {
        if self.script.preemption.is_none() {
            return;
        }
        if self.priorities.percent(70) {
            let priority = self.priorities.pick(&[-5, 0, 1, 2, 3, 5, 10]).to_string();
            spec.labels.insert(PRIORITY_LABEL.to_owned(), priority);
        }
        if self.priorities.percent(80) {
            let nano_cpus = *self.priorities.pick(&[1, 2, 3, 4, 6]) * 1_000_000_000;
            let memory_bytes = *self.priorities.pick(&[0, 0, 3, 6]) << 30;
            let reservations = Resources { nano_cpus, memory_bytes, ..Resources::default() };
            let resources = &mut Arc::make_mut(&mut spec.task).resources;
            resources.get_or_insert_default().reservations = Some(reservations);
        }
    }

    /// How the service chooses its nodes, if not as Swarm does.
    fn strategy(&mut self) -> Labels {
        let wishes = [
            ("swarm.strategy", "binpack"),
            ("swarm.strategy", "random"),
            ("swarm.strategy", "least-loaded"),
            ("swarm.topology", "node.labels.color:1"),
            ("swarm.affinity", "service!=s1"),
            ("swarm.affinity", "service==~s2"),
        ];
        let mut labels = Labels::new();
        while self.strategies.percent(30) {
            let (name, value) = *self.strategies.pick(&wishes);
            labels.insert(name.to_owned(), value.to_owned());
        }
        labels
    }

    /// Names decide modes, so that a service that is changed keeps its own.
    fn mode(&mut self, name: &str) -> ServiceMode {
        match name.bytes().last() {
            Some(b'3' | b'7') => ServiceMode::Global(Default::default()),
            Some(b'5') => ServiceMode::ReplicatedJob(ReplicatedJobMode {
                max_concurrent: self.dice.percent(70).then(|| self.dice.between(1, 3)),
                total_completions: self.dice.percent(70).then(|| self.dice.below(7)),
                ..ReplicatedJobMode::default()
            }),
            Some(b'9') => ServiceMode::GlobalJob(Default::default()),
            _ => ServiceMode::Replicated(ReplicatedMode {
                replicas: Some(self.dice.below(7)),
                ..ReplicatedMode::default()
            }),
        }
    }

    fn restart(&mut self) -> Option<RestartPolicy> {
        let conditions =
            [RestartCondition::Any, RestartCondition::OnFailure, RestartCondition::None];
        self.dice.percent(60).then(|| RestartPolicy {
            condition: Some(*self.dice.pick(&conditions)),
            delay: self.nanos(&[0, 500, 5_000, 20_000]),
            max_attempts: self.dice.percent(50).then(|| self.dice.below(5)),
            window: self.nanos(&[0, 10_000, 60_000]),
            ..RestartPolicy::default()
        })
    }

    fn update(&mut self) -> Option<UpdateConfig> {
        let actions = [FailureAction::Pause, FailureAction::Continue, FailureAction::Rollback];
        let orders = [UpdateOrder::StopFirst, UpdateOrder::StartFirst];
        self.dice.percent(70).then(|| UpdateConfig {
            parallelism: self.dice.below(4),
            delay: self.nanos(&[0, 1_000, 10_000]).unwrap_or_default(),
            failure_action: Some(*self.dice.pick(&actions)),
            monitor: self.nanos(&[0, 1_000, 10_000, 30_000]),
            max_failure_ratio: *self.dice.pick(&[0.0, 0.0, 0.3, 1.0]),
            order: Some(*self.dice.pick(&orders)),
            ..UpdateConfig::default()
        })
    }

    fn placement(&mut self) -> Option<Placement> {
        let constraints = [
            "node.role==worker",
            "node.labels.color==red",
            "node.labels.color!=blue",
            "node.platform.os==linux",
        ];
        let drawn = self.dice.percent(50).then(|| {
            let mut placement = Placement::default();
            if self.dice.percent(60) {
                placement.constraints.push((*self.dice.pick(&constraints)).to_owned());
            }
            if self.dice.percent(30) {
                let descriptor = "node.labels.color".to_owned();
                let spread = Some(SpreadOver { descriptor, ..SpreadOver::default() });
                let preference = PlacementPreference { spread, ..PlacementPreference::default() };
                placement.preferences.push(preference);
            }
            if self.dice.percent(30) {
                placement.max_replicas = self.dice.between(1, 3);
            }
            placement
        });
        drawn.filter(|placement| *placement != Placement::default())
    }

    fn endpoint(&mut self) -> Option<EndpointSpec> {
        self.dice.percent(40).then(|| {
            let host = self.dice.percent(30);
            let published = *self.dice.pick(&[0, 0, 8_080, 8_081, 8_082]);
            EndpointSpec {
                ports: vec![PortConfig {
                    target_port: 80,
                    published_port: published,
                    publish_mode: if host { PublishMode::Host } else { PublishMode::Ingress },
                    ..PortConfig::default()
                }],
                ..EndpointSpec::default()
            }
        })
    }

    /// Each seed has its own subset of the kinds of faults: what a mixture hides, some subset shows.
    fn faults(&mut self, size: &Size) {
        let kinds: Vec<u64> = (0..20).filter(|_| self.dice.percent(40)).collect();
        if kinds.is_empty() {
            return;
        }
        for _ in 0..self.dice.below(size.faults as u64 + 1) {
            let kind = *self.dice.pick(&kinds);
            let kind = self.fault(kind);
            let lasts = match self.dice.below(3) {
                0 => self.dice.millis(100, 5_000),
                1 => self.dice.millis(5_000, 40_000),
                _ => self.dice.millis(20_000, 200_000),
            };
            let at = self.some_time();
            self.script.at(at, Action::Break(Fault { kind, lasts }));
        }
        if self.dice.percent(30) {
            let minority = (self.script.managers - 1) / 2;
            for _ in 0..self.dice.below(3) {
                let node = self.node();
                let managers = self.script.lost.iter().filter(|n| **n < self.script.managers);
                let allowed = node >= self.script.managers || managers.count() < minority;
                if allowed && !self.script.lost.contains(&node) {
                    self.script.lost.push(node);
                }
            }
        }
    }

    fn fault(&mut self, kind: u64) -> FaultKind {
        let node = self.node();
        match kind {
            0 => FaultKind::CrashManager(self.manager()),
            1 => FaultKind::CrashAgent(node),
            2 => FaultKind::CrashMachine(node),
            3 => FaultKind::Pause(node),
            4 => {
                let group = (0..self.script.nodes()).filter(|_| self.dice.percent(35)).collect();
                FaultKind::Partition(group)
            }
            5 => FaultKind::OneWay(node, self.node()),
            6 => FaultKind::Slow(node, self.dice.millis(20, 3_000)),
            7 => FaultKind::Lossy(node, self.dice.between(1, 30)),
            8 => FaultKind::Repeating(node, self.dice.between(1, 50)),
            9 => FaultKind::Reordering(node, self.dice.between(1, 50)),
            10 => {
                let jump = self.dice.between(1_000, 3_600_000) as i64;
                FaultKind::ClockJump(node, if self.dice.percent(50) { jump } else { -jump })
            }
            11 => FaultKind::ClockRate(node, self.dice.between(500, 2_000)),
            12 => FaultKind::HangExecutor(node),
            13 => FaultKind::ExecutorErrors(node, self.dice.between(5, 80)),
            14 => FaultKind::ExecutorLies(node, self.dice.between(5, 50)),
            15 => FaultKind::PullFailure(node),
            16 => FaultKind::OutOfMemory(node),
            17 => FaultKind::LeaderChange,
            18 => FaultKind::MassReconnect,
            _ => FaultKind::InstallSnapshot(self.manager()),
        }
    }
}
