//! Pure: which nodes there are, and what happens to the cluster when. All of it from a seed.

use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{
    ContainerSpec, Labels, Node, NodeState, ReplicatedMode, ResourceRequirements, ServiceMode,
    ServiceSpec, TaskSpec,
};

use super::check::Invalid;
use super::dice::Dice;
use super::draft::Draft;
use super::sizes::{Family, Size};

/// One thing that happens to a cluster.
#[derive(Clone, Debug)]
pub enum Event {
    /// A service is created.
    Deploy(Box<ServiceSpec>),
    /// The service of this name is removed.
    Remove(String),
    /// The service of this name gets a new image, and rolls it out as its specification says.
    Update(String),
    /// The replicated service of this name gets so many tasks.
    Scale(String, u64),
    /// The node of this place in [`Workload::nodes`] is lost with everything on it.
    Lose(usize),
    /// It is back, and reports what it should not run any more as stopped.
    Return(usize),
}

/// A cluster and what happens to it: every strategy gets exactly the same.
///
/// ```
/// use std::time::Duration;
/// use swarm_sched::lab::{Event, Lab, Workload, no_clock, sizes::Size, workload};
///
/// let web = workload::service("web", 6, Size::of(1.0, 4.0));
/// let mine = Workload {
///     name: "mine".to_owned(),
///     nodes: ["a", "b", "c"].map(|name| workload::node(name, Size::of(8.0, 32.0))).into(),
///     events: vec![
///         (Duration::ZERO, Event::Deploy(Box::new(web))),
///         (Duration::from_secs(60), Event::Scale("web".to_owned(), 20)),
///         (Duration::from_secs(90), Event::Lose(1)),
///     ],
///     length: Duration::from_secs(120),
///     ..Workload::default()
/// };
/// let report = Lab::new(no_clock()).compare(&[mine], 1, |_| {})?;
/// assert!(report.of("mine").all(|run| run.quality.unplaced_end == 4));
/// # Ok::<(), swarm_sched::lab::Invalid>(())
/// ```
///
/// Nodes and specifications may have whatever they have in a cluster, as made by [`node`] and
/// [`service`] or not; but no job, for no task here ends by itself.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// A short name, for tables and flags.
    pub name: String,
    /// What it is, in a sentence.
    pub about: String,
    /// The nodes: `ready`, or `down` until an [`Event::Return`].
    pub nodes: Vec<Node>,
    /// The cluster's labels, `swarm.preemption` for example; but `swarm.strategy` is what is compared.
    pub labels: Labels,
    /// What happens and when, until the end. Of the same time, the first in the list is the first.
    pub events: Vec<(Duration, Event)>,
    /// How long it is looked at.
    pub length: Duration,
}

/// The names of the workloads that come with the lab.
pub const NAMES: [&str; 7] =
    ["uniform", "google", "alibaba", "bursts", "losses", "updates", "labels"];

impl Workload {
    /// One of [`NAMES`], for so many nodes and a seed.
    ///
    /// # Errors
    /// There is no workload of this name, or it does not make sense for so few nodes.
    pub fn named(name: &str, nodes: usize, seed: u64) -> Result<Self, Invalid> {
        if nodes < 10 {
            return Err(Invalid(format!("{name:?} needs 10 nodes at least, not {nodes}")));
        }
        let draft = |family| Draft::new(seed, name, family, nodes);
        let (draft, about) = match name {
            "uniform" => (
                fill(draft(Family::Uniform)),
                "Equal nodes fill up with tasks of every size from ¼ to 2 cores, until 115 % of the \
                 cluster is asked for.",
            ),
            "google" => (
                fill(draft(Family::Google)),
                "Google's mixed machines fill up with jobs whose sizes have a heavy tail, until 115 % \
                 of the cluster is asked for.",
            ),
            "alibaba" => (
                fill(draft(Family::Alibaba)),
                "Alibaba's 96-core machines fill up with large containers and small batch tasks; \
                 memory runs out first.",
            ),
            "bursts" => (
                bursts(draft(Family::Google)),
                "Services come and go around 50 % load; four bursts bring 40 % more within seconds.",
            ),
            "losses" => (
                losses(draft(Family::Alibaba)),
                "At 70 % load a rack of a tenth of all nodes is lost and comes back, then single nodes \
                 are lost one after another.",
            ),
            "updates" => (
                updates(draft(Family::Uniform)),
                "At 70 % load every service rolls a new image out, two tasks at a time; every other \
                 one starts the new task first.",
            ),
            "labels" => (
                labels(draft(Family::Google)),
                "Mixed nodes in three zones; services ask for SSDs or GPUs, spread over zones, keep \
                 their tasks apart or near others, until all is asked for.",
            ),
            _ => return Err(Invalid(format!("there is no workload {name:?}, but {NAMES:?}"))),
        };
        Ok(draft.finish(name, about))
    }

    /// What happens, in order of time.
    pub(super) fn in_order(&self) -> Vec<(Duration, &Event)> {
        let mut events: Vec<_> = self.events.iter().map(|(at, event)| (*at, event)).collect();
        events.sort_by_key(|(at, _)| *at);
        events
    }
}

/// A node that is ready, with an id that goes by its name.
#[must_use]
pub fn node(name: &str, size: Size) -> Node {
    let mut node = Node { id: Dice::new(0, name).id(), ..Node::default() };
    node.status.state = NodeState::Ready;
    node.spec.name = name.to_owned();
    let description = node.description.get_or_insert_default();
    (description.hostname, description.resources) = (name.to_owned(), size.resources());
    node
}

/// A service of so many tasks, each of which reserves so much.
#[must_use]
pub fn service(name: &str, tasks: u64, each: Size) -> ServiceSpec {
    let resources = ResourceRequirements {
        reservations: Some(each.resources()),
        ..ResourceRequirements::default()
    };
    let container = ContainerSpec { image: format!("{name}:1"), ..ContainerSpec::default() };
    let task =
        TaskSpec { container: Some(container), resources: Some(resources), ..TaskSpec::default() };
    let mode = ReplicatedMode { replicas: Some(tasks), ..ReplicatedMode::default() };
    ServiceSpec {
        name: name.to_owned(),
        task: Arc::new(task),
        mode: ServiceMode::Replicated(mode),
        ..ServiceSpec::default()
    }
}

/// The load grows evenly from nothing to 115 % of what there is.
fn fill(mut draft: Draft) -> Draft {
    draft.length = Duration::from_secs(600);
    draft.fill_over(0.0, 1.15);
    draft
}

/// Arrivals without memory, and bursts.
fn bursts(mut draft: Draft) -> Draft {
    const LIFE: f64 = 240.0;
    draft.length = Duration::from_secs(1200);
    draft.fill_at_start(0.5);
    let there = draft.services() as f64;
    // What was there at the start goes as it comes: the load stays where it is (Little's law).
    for number in 0..draft.services() {
        let end = draft.dice.exponential(LIFE);
        draft.remove(end, number);
    }
    let mut at = 0.0;
    loop {
        at += draft.dice.exponential(LIFE / there);
        if at >= draft.length.as_secs_f64() {
            break;
        }
        draft.visit(at, LIFE);
    }
    for burst in 1..=4 {
        let start = 240.0 * f64::from(burst) - 90.0;
        let services = (there * 0.8) as usize;
        for _ in 0..services {
            let at = start + 15.0 * draft.dice.unit();
            draft.visit(at, 60.0);
        }
    }
    draft
}

fn losses(mut draft: Draft) -> Draft {
    draft.length = Duration::from_secs(1200);
    draft.fill_at_start(0.7);
    let nodes = draft.nodes();
    let rack = nodes / 10;
    for node in 0..rack {
        // Nodes of a rack are anywhere in the order of ids.
        let node = node * 10 + 3;
        draft.at(400.0, Event::Lose(node));
        draft.at(520.0, Event::Return(node));
    }
    for number in 0..8.min(nodes / 2) {
        draft.at(700.0 + 25.0 * number as f64, Event::Lose((number * 13 + 7) % nodes));
    }
    draft
}

fn updates(mut draft: Draft) -> Draft {
    draft.length = Duration::from_secs(600);
    draft.fill_at_start(0.7);
    let services = draft.services();
    for number in 0..services {
        draft.update(60.0 + 420.0 * number as f64 / services as f64, number);
    }
    draft
}

fn labels(mut draft: Draft) -> Draft {
    draft.length = Duration::from_secs(600);
    draft.label_nodes();
    draft.choosy = true;
    draft.fill_over(0.0, 1.0);
    draft
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_a_workload_and_another_changes_it() {
        for name in NAMES {
            let text =
                |seed| format!("{:?}", Workload::named(name, 20, seed).expect("it is known"));
            assert_eq!(text(1), text(1), "{name}");
            assert_ne!(text(1), text(2), "{name}");
        }
        for (name, nodes) in [("unknown", 20), ("losses", 9)] {
            assert!(Workload::named(name, nodes, 1).is_err(), "{name} of {nodes}");
        }
    }

    #[test]
    fn what_comes_with_the_lab_can_be_played() {
        for (name, nodes) in NAMES.iter().flat_map(|name| [(name, 10), (name, 26)]) {
            let workload = Workload::named(name, nodes, 1).expect("it is known");
            assert_eq!(workload.check(), Ok(()), "{name}");
            assert!(workload.nodes.is_sorted_by(|a, b| a.id < b.id), "{name}");
        }
    }
}
