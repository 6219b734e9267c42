//! Pure: a workload in the making: nodes, services of a family of sizes, and when things happen.

use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{
    Labels, Node, NodeId, Placement, PlacementPreference, ServiceSpec, SpreadOver, UpdateConfig,
    UpdateOrder,
};

use super::dice::Dice;
use super::sizes::{Family, Size};
use super::workload::{self, Event, Workload};
use crate::place::{AFFINITY_LABEL, TOPOLOGY_LABEL};

/// What becomes a [`Workload`].
pub(super) struct Draft {
    pub(super) dice: Dice,
    /// Whether services ask for labels, zones and neighbours.
    pub(super) choosy: bool,
    pub(super) length: Duration,
    family: Family,
    nodes: Vec<Node>,
    services: usize,
    events: Vec<(Duration, Event)>,
}

impl Draft {
    /// Nodes of the family, and nothing that happens yet.
    pub(super) fn new(seed: u64, purpose: &str, family: Family, nodes: usize) -> Self {
        let mut dice = Dice::new(seed, purpose);
        let drawn = |_| (dice.id(), family.machine(&mut dice));
        let mut drawn: Vec<(NodeId, Size)> = (0..nodes).map(drawn).collect();
        drawn.sort_unstable_by_key(|(id, _)| *id);
        let node =
            |(number, (id, size))| Node { id, ..workload::node(&format!("node-{number}"), size) };
        let nodes = drawn.into_iter().enumerate().map(node).collect();
        let (length, events) = (Duration::ZERO, Vec::new());
        Self { dice, choosy: false, length, family, nodes, services: 0, events }
    }

    pub(super) fn finish(mut self, name: &str, about: &str) -> Workload {
        let length = self.length;
        self.events.retain(|(at, _)| *at <= length);
        let (name, about, labels) = (name.to_owned(), about.to_owned(), Labels::new());
        Workload { name, about, nodes: self.nodes, labels, events: self.events, length }
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn services(&self) -> usize {
        self.services
    }

    /// Something happens after so many seconds.
    pub(super) fn at(&mut self, seconds: f64, event: Event) {
        self.events.push((Duration::from_secs_f64(seconds), event));
    }

    /// Zones in turn; a third of the nodes with an SSD, a tenth with a GPU.
    pub(super) fn label_nodes(&mut self) {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let labels = &mut node.spec.labels;
            labels.insert("zone".to_owned(), format!("zone-{}", number % 3));
            let disk = if number % 3 == number / 3 % 3 { "ssd" } else { "hdd" };
            labels.insert("disk".to_owned(), disk.to_owned());
            if number.is_multiple_of(10) {
                labels.insert("gpu".to_owned(), "yes".to_owned());
            }
        }
    }

    /// Services come so that what is asked for grows evenly from one part of the cluster to
    /// another, over the whole length.
    pub(super) fn fill_over(&mut self, from: f64, to: f64) {
        let (all, length) = (self.capacity(), self.length.as_secs_f64());
        let mut asked = Size::default();
        while asked.share(all) < to - from {
            let seconds = length * asked.share(all) / (to - from);
            asked = asked.plus(self.deploy(seconds));
        }
    }

    /// Services that are there from the start, up to a part of the cluster.
    pub(super) fn fill_at_start(&mut self, to: f64) {
        let all = self.capacity();
        let mut asked = Size::default();
        while asked.share(all) < to {
            asked = asked.plus(self.deploy(0.0));
        }
    }

    /// A service that comes and, after a random time of this mean, goes.
    pub(super) fn visit(&mut self, seconds: f64, mean: f64) {
        self.deploy(seconds);
        let end = seconds + self.dice.exponential(mean);
        self.remove(end, self.services - 1);
    }

    pub(super) fn remove(&mut self, seconds: f64, service: usize) {
        self.at(seconds, Event::Remove(name(service)));
    }

    pub(super) fn update(&mut self, seconds: f64, service: usize) {
        self.at(seconds, Event::Update(name(service)));
    }

    fn capacity(&self) -> Size {
        let description = |node: &Node| node.description.as_ref().map(|it| (&it.resources).into());
        self.nodes.iter().filter_map(description).sum()
    }

    /// One more service; what its tasks reserve together.
    fn deploy(&mut self, seconds: f64) -> Size {
        let (tasks, size) = self.family.service(&mut self.dice);
        let mut spec = spec(self.services, tasks, size);
        if self.choosy {
            self.choose(&mut spec);
        }
        self.services += 1;
        self.at(seconds, Event::Deploy(Box::new(spec)));
        size.times(tasks)
    }

    /// What a service asks for beyond resources, for about two thirds of them.
    fn choose(&mut self, spec: &mut ServiceSpec) {
        let placement = Arc::make_mut(&mut spec.task).placement.get_or_insert_default();
        let label = |key: &str, value: String| (key.to_owned(), value);
        match self.dice.below(12) {
            0..=2 => placement.constraints.push("node.labels.disk==ssd".to_owned()),
            3 => placement.constraints.push("node.labels.gpu==yes".to_owned()),
            4 | 5 => *placement = over_zones(),
            6 => spec.labels.extend([label(TOPOLOGY_LABEL, "node.labels.zone:1".to_owned())]),
            // One task for each node, as far as there are nodes.
            7 => spec.labels.extend([label(AFFINITY_LABEL, format!("service!=~{}", spec.name))]),
            8 if self.services > 0 => {
                let other = name(self.dice.below(self.services as u64) as usize);
                spec.labels.extend([label(AFFINITY_LABEL, format!("service==~{other}"))]);
            }
            _ => {}
        }
    }
}

fn name(service: usize) -> String {
    format!("service-{service}")
}

fn spec(number: usize, tasks: u64, size: Size) -> ServiceSpec {
    let order =
        if number.is_multiple_of(2) { UpdateOrder::StopFirst } else { UpdateOrder::StartFirst };
    let update = UpdateConfig { parallelism: 2, order: Some(order), ..UpdateConfig::default() };
    ServiceSpec { update_config: Some(update), ..workload::service(&name(number), tasks, size) }
}

fn over_zones() -> Placement {
    let spread = SpreadOver { descriptor: "node.labels.zone".to_owned(), ..SpreadOver::default() };
    let preference = PlacementPreference { spread: Some(spread), ..PlacementPreference::default() };
    Placement { preferences: vec![preference], ..Placement::default() }
}
