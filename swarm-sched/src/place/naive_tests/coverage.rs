//! Whether random clusters reach what is to be compared: each filter, by each strategy, both ways.

use std::collections::{BTreeMap, BTreeSet};

use swarm_core::model::Task;

use super::definition::{Decision, FILTERS, Looks};
use super::ranks::STRATEGIES;

/// In how many clusters something took part in a decision by a strategy, where a task found a node
/// and where one found none; and how many tasks did.
#[derive(Default)]
pub(super) struct Coverage {
    clusters: BTreeMap<(&'static str, String), [usize; 2]>,
    /// What took part in the present cluster, where a task was refused (1) or not (0).
    present: BTreeSet<(&'static str, String, usize)>,
    tasks: [usize; 2],
}

impl Coverage {
    pub(super) fn note(
        &mut self,
        strategy: &str,
        mode: &'static str,
        task: &Task,
        looks: &Looks<'_>,
        decision: &Decision,
    ) {
        let way = usize::from(decision.is_err());
        self.tasks[way] += 1;
        let mut note = |what| {
            self.present.insert((what, strategy.to_owned(), way));
        };
        let Ok((looks, bound)) = looks else { return note("what cannot be read") };
        note(mode);
        let asked = looks.iter().filter(|look| task.node_id.is_none_or(|it| it == look.at.node.id));
        let refused: Vec<_> = asked.filter_map(|look| look.refused()).collect();
        match decision {
            Err(why) if why.contains("a skew of") => return note("skew"),
            Ok(_) if bound.is_some() => note("skew"),
            _ => {}
        }
        refused.into_iter().for_each(|filter| note(FILTERS[filter]));
        if looks.iter().any(|look| look.failures >= 5) {
            note("a node where it keeps failing");
        }
        if decision.as_ref().is_ok_and(|(_, claims)| !claims.is_empty()) {
            note("claims");
        }
    }

    /// The present cluster is done.
    pub(super) fn next(&mut self) {
        for (what, strategy, way) in std::mem::take(&mut self.present) {
            self.clusters.entry((what, strategy)).or_default()[way] += 1;
        }
    }

    /// What was never met.
    pub(super) fn missing(&self) -> Vec<String> {
        let both = FILTERS.into_iter().chain(MODES).chain(["skew"]);
        // Nothing passes that filter and is refused by it: there are no cluster volumes.
        let placed = both.clone().filter(|what| *what != "volume").map(|what| (what, 0));
        let others = [("a node where it keeps failing", 0), ("claims", 0)];
        let all: Vec<_> = placed.chain(both.map(|what| (what, 1))).chain(others).collect();
        let mut missing = Vec::new();
        for strategy in STRATEGIES {
            for (what, way) in &all {
                let counts = self.clusters.get(&(*what, strategy.to_owned()));
                if counts.is_none_or(|counts| counts[*way] == 0) {
                    let way = ["placed", "refused"][*way];
                    missing.push(format!("{what} by {strategy}, {way}"));
                }
            }
        }
        missing
    }
}

const MODES: [&str; 5] = ["none", "replicated", "global", "replicated-job", "global-job"];

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [placed, refused] = self.tasks;
        writeln!(f, "{placed} tasks placed, {refused} refused. In how many of the clusters")?;
        for ((what, strategy), [placed, refused]) in &self.clusters {
            writeln!(f, "{what:>30} by {strategy:12} {placed:6} / {refused}")?;
        }
        Ok(())
    }
}
