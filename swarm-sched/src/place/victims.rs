//! Pure: which tasks of one node would have to stop to make room for another.
//!
//! The cheapest set: the fewest tasks; among these the lowest priorities; then what leaves the least
//! unused. One task that is enough is always found. Where it takes several, tasks are let off while
//! the rest is enough, the smallest first, and exchanged for ones that matter less: so no task stops
//! that need not, and where one resource is short no fewer would do.

use std::sync::Arc;

use swarm_core::model::{NodeId, Task, TaskId};

use super::filter::Demand;
use super::load::{NodeLoad, Share, reservation};

/// A task that may be stopped.
#[derive(Clone)]
pub(super) struct Victim {
    pub(super) task: Arc<Task>,
    pub(super) priority: i32,
}

/// Some tasks of one node, and what it costs to stop them.
pub(super) struct Sacrifice {
    pub(super) node: NodeId,
    pub(super) victims: Vec<Victim>,
    /// What is left of the node with the new task on it, in thousandths of its processors and its
    /// memory.
    waste: i64,
}

impl Sacrifice {
    /// In order: how many, how much they matter, what is wasted; the ids are for ties.
    pub(super) fn cost(&self) -> (usize, i64, i64, NodeId, Vec<TaskId>) {
        let ids = self.victims.iter().map(|victim| victim.task.id).collect();
        (self.victims.len(), weight(&self.victims), self.waste, self.node, ids)
    }
}

/// How much tasks matter together.
fn weight(victims: &[Victim]) -> i64 {
    victims.iter().map(|victim| i64::from(victim.priority)).sum()
}

/// The cheapest set of at most `most` of these tasks, mattering no more than `worth` together, without
/// which the node takes the new task.
pub(super) fn cheapest(
    mut load: NodeLoad,
    demand: &Demand<'_>,
    mut lower: Vec<Victim>,
    most: usize,
    worth: i64,
) -> Option<Sacrifice> {
    lower.sort_by_key(|victim| (victim.priority, size(&load, &victim.task), victim.task.id));
    let node = load.node.id;
    let mut bench = Bench { load: &mut load, demand };
    let one = lower.iter().find(|victim| bench.is_enough(&[(*victim).clone()]));
    let victims = match one {
        Some(victim) => vec![victim.clone()],
        None => bench.several(&lower)?,
    };
    if victims.len() > most || weight(&victims) > worth {
        return None;
    }
    let waste = bench.waste(&victims);
    Some(Sacrifice { node, victims, waste })
}

/// A node on which tasks are taken away by way of trial.
struct Bench<'a> {
    load: &'a mut NodeLoad,
    demand: &'a Demand<'a>,
}

impl Bench<'_> {
    fn is_enough(&mut self, without: &[Victim]) -> bool {
        self.change(without, -1);
        let enough = self.demand.check(self.load).is_ok();
        self.change(without, 1);
        enough
    }

    fn change(&mut self, victims: &[Victim], sign: i64) {
        for Victim { task, .. } in victims {
            self.load.change(&Share { task, claims: &task.generic_resources }, sign);
        }
    }

    fn several(&mut self, lower: &[Victim]) -> Option<Vec<Victim>> {
        let mut chosen = lower.to_vec();
        if !self.is_enough(&chosen) {
            return None;
        }
        let load = &*self.load;
        chosen.sort_by_cached_key(|victim| {
            (size(load, &victim.task), std::cmp::Reverse(victim.priority), victim.task.id)
        });
        for victim in chosen.clone() {
            let rest = without(&chosen, &victim);
            if self.is_enough(&rest) {
                chosen = rest;
            }
        }
        // The ones that matter most are exchanged first, for the ones that matter least.
        let mut dear = chosen.clone();
        dear.sort_by_key(|victim| (std::cmp::Reverse(victim.priority), victim.task.id));
        for victim in dear {
            let taken = |other: &&Victim| chosen.iter().any(|it| it.task.id == other.task.id);
            let cheaper = lower.iter().take_while(|other| other.priority < victim.priority);
            let candidates: Vec<_> = cheaper.filter(|other| !taken(other)).cloned().collect();
            for other in candidates {
                let mut exchanged = without(&chosen, &victim);
                exchanged.push(other);
                if self.is_enough(&exchanged) {
                    chosen = exchanged;
                    break;
                }
            }
        }
        chosen.sort_by_key(|victim| (victim.priority, victim.task.id));
        Some(chosen)
    }

    fn waste(&mut self, victims: &[Victim]) -> i64 {
        self.change(victims, -1);
        let free = share(self.load, self.load.free_cpus(), self.load.free_memory());
        self.change(victims, 1);
        free
    }
}

fn without(victims: &[Victim], victim: &Victim) -> Vec<Victim> {
    victims.iter().filter(|other| other.task.id != victim.task.id).cloned().collect()
}

/// What a task reserves of a node.
fn size(load: &NodeLoad, task: &Task) -> i64 {
    reservation(task).map_or(0, |it| share(load, it.nano_cpus, it.memory_bytes))
}

/// An amount of processors and memory in thousandths of a node's, added up.
fn share(load: &NodeLoad, cpus: i64, memory: i64) -> i64 {
    let of = |part: i64, whole: i64| match whole {
        1.. => i64::try_from(i128::from(part) * 1_000 / i128::from(whole)).unwrap_or(i64::MAX / 2),
        _ => 0,
    };
    of(cpus, load.total_cpus()).saturating_add(of(memory, load.total_memory()))
}
