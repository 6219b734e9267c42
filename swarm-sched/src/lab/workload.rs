//! Pure: which nodes there are, and what happens to the cluster when. All of it from a seed.

use std::time::Duration;

use swarm_core::model::{Node, ServiceSpec};

use super::draft::Draft;
use super::sizes::Family;

/// One thing that happens to a cluster.
#[derive(Clone, Debug)]
pub enum Event {
    /// A service is created.
    Deploy(Box<ServiceSpec>),
    /// The service of this name is removed.
    Remove(String),
    /// The service of this name gets a new image, and rolls it out as its specification says.
    Update(String),
    /// The node of this place in [`Workload::nodes`] is lost with everything on it.
    Lose(usize),
    /// It is back, and reports what it should not run any more as stopped.
    Return(usize),
}

/// A cluster and what happens to it: every strategy gets exactly the same.
///
/// One's own is made from its parts; a node needs an id, the state `ready` and resources.
#[derive(Clone, Debug)]
pub struct Workload {
    /// A short name, for tables and flags.
    pub name: String,
    /// What it is, in a sentence.
    pub about: String,
    /// The nodes, in order of id.
    pub nodes: Vec<Node>,
    /// What happens, in order of time.
    pub events: Vec<(Duration, Event)>,
    /// How long it is looked at.
    pub length: Duration,
}

/// The names of the workloads that come with the lab.
pub const NAMES: [&str; 7] =
    ["uniform", "google", "alibaba", "bursts", "losses", "updates", "labels"];

impl Workload {
    /// Every workload that comes with the lab, for so many nodes (at least 10) and a seed.
    #[must_use]
    pub fn all(nodes: usize, seed: u64) -> Vec<Self> {
        NAMES.iter().filter_map(|name| Self::named(name, nodes, seed)).collect()
    }

    /// One of [`NAMES`], or nothing.
    #[must_use]
    pub fn named(name: &str, nodes: usize, seed: u64) -> Option<Self> {
        let draft = |family| Draft::new(seed, name, family, nodes.max(10));
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
            _ => return None,
        };
        Some(draft.finish(name, about))
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
        assert!(Workload::named("unknown", 20, 1).is_none());
    }

    #[test]
    fn nodes_are_in_order_of_id_and_events_in_order_of_time() {
        for workload in Workload::all(20, 1) {
            assert!(workload.nodes.is_sorted_by(|a, b| a.id < b.id), "{}", workload.name);
            assert!(workload.events.is_sorted_by_key(|(at, _)| *at), "{}", workload.name);
            assert!(workload.events.iter().all(|(at, _)| *at <= workload.length));
        }
    }
}
