//! Pure: how good a placement is, at one moment and over a run. Each figure is defined at its field.

use std::collections::BTreeMap;

use serde::Serialize;
use swarm_core::model::{NodeId, NodeState, ServiceId, Task, TaskState};
use swarm_core::store::Snapshot;

use super::bound::{Item, best_fit_decreasing, unplaceable, volume};
use super::sizes::{Size, part};
use crate::place::constraint::parse_all;
use crate::place::load::NodeLoad;
use crate::place::loads::Loads;

/// A cluster at one moment. Parts are of what the nodes have that are up, from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Seconds since the start.
    pub at: f64,
    /// What all tasks that shall run reserve, placed or not: of CPU and of memory the larger part.
    pub asked: f64,
    /// What the placed ones reserve, likewise.
    pub filled: f64,
    /// Tasks that shall run.
    pub tasks: usize,
    /// Tasks that shall run and have no node.
    pub unplaced: usize,
    /// Nodes that are up and carry a task.
    pub used: usize,
    /// The nodes that best fit decreasing needs for all of these tasks
    /// ([`best_fit_decreasing`]).
    pub packed: usize,
    /// The tasks that no packing can place ([`unplaceable`]).
    pub unplaceable: usize,
    /// The nodes that their volume needs ([`volume`]): no packing needs fewer.
    pub volume: usize,
    /// *Balance of tasks*: the coefficient of variation (standard deviation by mean) of the number
    /// of tasks on the nodes that are up. 0 is even.
    pub task_imbalance: f64,
    /// *Balance of load*: the same of the dominant share that is reserved on each.
    pub load_imbalance: f64,
    /// *Fragmentation*: of the large tasks (the 90th percentile of each of CPU and memory, of all
    /// tasks that shall run) that would fit into the free capacity if it were one node, the part
    /// that does not fit because it is in pieces.
    pub fragmentation: f64,
    /// *Stranded CPU*: the part of all CPU that is free on nodes whose free memory does not take
    /// the median task.
    pub stranded_cpus: f64,
    /// *Stranded memory*: the part of all memory that is free on nodes whose free CPU does not take
    /// the median task.
    pub stranded_memory: f64,
    /// *Spread violations*: over all services, the nodes that have more than ⌈n/m⌉ of its n placed
    /// tasks, where m nodes are up and meet its constraints.
    pub crowded: usize,
    /// The dominant share that is reserved on each node, in percent, in order of the nodes' ids;
    /// none while it is down.
    pub loads: Vec<Option<u8>>,
}

/// Takes samples of one run.
#[derive(Default)]
pub(super) struct Probe {
    loads: Loads,
    seen: Snapshot,
}

impl Probe {
    /// Looks at a cluster.
    pub(super) fn sample(&mut self, at: f64, view: &Snapshot) -> Sample {
        self.follow(view);
        let up: Vec<&NodeLoad> = self.loads.iter().filter(|load| is_up(load)).collect();
        let nodes: Vec<Size> = up.iter().map(|load| total(load)).collect();
        let all: Size = nodes.iter().copied().sum();
        let classes = Classes::of(view, &up);
        let wanted: Vec<_> = view.tasks.iter().filter(|task| shall_run(task)).collect();
        let items: Vec<Item> = wanted.iter().map(|task| classes.item(task)).collect();
        let asked: Size = items.iter().map(|item| item.size).sum();
        let reserved: Size = up.iter().map(|load| total(load).minus(free(load))).sum();
        let packing = best_fit_decreasing(&nodes, &classes.suits, &items);
        let shares: Vec<f64> = up.iter().map(|load| load_of(load)).collect();
        let counts: Vec<f64> = up.iter().map(|load| load.active() as f64).collect();
        let (stranded_cpus, stranded_memory) = stranded(&up, at_rank(&items, 50), all);
        Sample {
            at,
            asked: asked.share(all),
            filled: reserved.share(all),
            tasks: wanted.len(),
            unplaced: wanted.iter().filter(|task| task.node_id.is_none()).count(),
            used: up.iter().filter(|load| load.active() > 0).count(),
            packed: packing.nodes,
            unplaceable: unplaceable(&nodes, &classes.suits, &items),
            volume: volume(&nodes, &items),
            task_imbalance: variation(&counts),
            load_imbalance: variation(&shares),
            fragmentation: fragmentation(&up, at_rank(&items, 90)),
            stranded_cpus,
            stranded_memory,
            crowded: crowded(&up, &classes),
            loads: self.loads.iter().map(|load| is_up(load).then(|| percent(load))).collect(),
        }
    }

    /// The load of every node that is up, in percent, as its agent would report it.
    pub(super) fn reported(&mut self, view: &Snapshot) -> BTreeMap<NodeId, String> {
        self.follow(view);
        let up = self.loads.iter().filter(|load| is_up(load));
        up.map(|load| (load.node.id, percent(load).to_string())).collect()
    }

    fn follow(&mut self, view: &Snapshot) {
        self.loads.follow(&self.seen, view);
        self.seen = view.clone();
    }
}

/// Tasks that suit the same nodes, because their services have the same constraints.
struct Classes {
    of_service: BTreeMap<ServiceId, usize>,
    /// For each class, which of the nodes that are up suit.
    suits: Vec<Vec<bool>>,
}

impl Classes {
    fn of(view: &Snapshot, up: &[&NodeLoad]) -> Self {
        let mut known: BTreeMap<&[String], usize> = BTreeMap::new();
        let mut classes = Self { of_service: BTreeMap::new(), suits: Vec::new() };
        for service in view.services.iter() {
            let texts = service.spec.task.constraints();
            let class = *known.entry(texts).or_insert_with(|| {
                let constraints = parse_all(texts).unwrap_or_default();
                let suits = |load: &&NodeLoad| constraints.iter().all(|it| it.matches(&load.node));
                classes.suits.push(up.iter().map(suits).collect());
                classes.suits.len() - 1
            });
            classes.of_service.insert(service.id, class);
        }
        classes
    }

    fn item(&self, task: &Task) -> Item {
        let resources = task.spec.resources.as_ref().and_then(|it| it.reservations.as_ref());
        let size = resources.map_or_else(Size::default, Into::into);
        Item { size, class: self.of_service.get(&task.service_id).copied().unwrap_or(0) }
    }
}

fn shall_run(task: &Task) -> bool {
    task.desired_state <= TaskState::Running && !task.status.state.is_terminal()
}

fn is_up(load: &NodeLoad) -> bool {
    load.node.status.state == NodeState::Ready
}

fn total(load: &NodeLoad) -> Size {
    Size { cpus: load.total_cpus(), memory: load.total_memory() }
}

fn free(load: &NodeLoad) -> Size {
    Size { cpus: load.free_cpus(), memory: load.free_memory() }
}

/// The dominant share that is reserved.
fn load_of(load: &NodeLoad) -> f64 {
    total(load).minus(free(load)).share(total(load))
}

fn percent(load: &NodeLoad) -> u8 {
    (100.0 * load_of(load)).round().clamp(0.0, 100.0) as u8
}

/// The coefficient of variation; 0 of nothing.
fn variation(numbers: &[f64]) -> f64 {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    if numbers.is_empty() || mean <= 0.0 {
        return 0.0;
    }
    let variance = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / count;
    variance.sqrt() / mean
}

/// The size that so many percent of the tasks do not exceed, of CPU and memory separately.
fn at_rank(items: &[Item], percent: usize) -> Size {
    let of = |part: fn(&Size) -> i64| {
        let mut parts: Vec<_> = items.iter().map(|item| part(&item.size)).collect();
        let at = parts.len() * percent / 100;
        if parts.is_empty() { 1 } else { *parts.select_nth_unstable(at).1 }
    };
    Size { cpus: of(|size| size.cpus).max(1), memory: of(|size| size.memory).max(1) }
}

/// How many of a size fit.
fn count_in(room: Size, size: Size) -> i64 {
    (room.cpus / size.cpus).min(room.memory / size.memory).max(0)
}

fn fragmentation(up: &[&NodeLoad], large: Size) -> f64 {
    let whole = count_in(up.iter().map(|load| free(load)).sum(), large);
    let pieces: i64 = up.iter().map(|load| count_in(free(load), large)).sum();
    if whole == 0 { 0.0 } else { 1.0 - part(pieces, whole) }
}

fn stranded(up: &[&NodeLoad], median: Size, all: Size) -> (f64, f64) {
    let (mut cpus, mut memory) = (0, 0);
    for free in up.iter().map(|load| free(load)) {
        if free.memory < median.memory {
            cpus += free.cpus;
        }
        if free.cpus < median.cpus {
            memory += free.memory;
        }
    }
    (part(cpus, all.cpus), part(memory, all.memory))
}

fn crowded(up: &[&NodeLoad], classes: &Classes) -> usize {
    let mut placed: BTreeMap<ServiceId, Vec<u64>> = BTreeMap::new();
    for (service, tasks) in up.iter().flat_map(|load| load.services()) {
        placed.entry(service).or_default().push(tasks);
    }
    let over = |(service, counts): (ServiceId, Vec<u64>)| {
        let class = classes.of_service.get(&service).copied()?;
        let suitable = classes.suits[class].iter().filter(|suits| **suits).count() as u64;
        let fair = counts.iter().sum::<u64>().div_ceil(suitable.max(1));
        Some(counts.iter().filter(|count| **count > fair).count())
    };
    placed.into_iter().filter_map(over).sum()
}

/// How good a run was. Means are over its samples. Equal for equal seeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quality {
    /// Mean of [`Sample::task_imbalance`].
    pub task_imbalance: f64,
    /// Mean of [`Sample::load_imbalance`].
    pub load_imbalance: f64,
    /// Mean of [`Sample::fragmentation`].
    pub fragmentation: f64,
    /// Mean of [`Sample::stranded_cpus`].
    pub stranded_cpus: f64,
    /// Mean of [`Sample::stranded_memory`].
    pub stranded_memory: f64,
    /// The most tasks that were without a node at a sample.
    pub unplaced_most: usize,
    /// Those without one at the end.
    pub unplaced_end: usize,
    /// The smallest part of the cluster that was asked for when a task was without a node; none
    /// if all always had one.
    pub full_at: Option<f64>,
    /// Mean of [`Sample::crowded`].
    pub crowded: f64,
    /// *Tasks moved*: tasks that were placed on another node than the one before them in their
    /// slot, after a loss or in a roll-out.
    pub moved: u64,
    /// *Packing*: the nodes in use, added up over the samples, by those that best fit decreasing
    /// needs. 1 is as tight as that.
    pub packing: f64,
    /// The same by the volume bound: how far from what no packing can be below.
    pub over_volume: f64,
    /// The largest [`Sample::filled`].
    pub filled: f64,
}

impl Quality {
    /// Sums a run up.
    pub(super) fn of(samples: &[Sample], moved: u64) -> Self {
        let mean = |of: fn(&Sample) -> f64| {
            samples.iter().map(of).sum::<f64>() / samples.len().max(1) as f64
        };
        let most = |of: fn(&Sample) -> f64| samples.iter().map(of).fold(0.0, f64::max);
        let used_by =
            |of: fn(&Sample) -> f64| mean(|it| it.used as f64) / mean(of).max(f64::MIN_POSITIVE);
        let lacking = samples.iter().filter(|sample| sample.unplaced > 0);
        Self {
            task_imbalance: mean(|it| it.task_imbalance),
            load_imbalance: mean(|it| it.load_imbalance),
            fragmentation: mean(|it| it.fragmentation),
            stranded_cpus: mean(|it| it.stranded_cpus),
            stranded_memory: mean(|it| it.stranded_memory),
            unplaced_most: samples.iter().map(|it| it.unplaced).max().unwrap_or(0),
            unplaced_end: samples.last().map_or(0, |it| it.unplaced),
            full_at: lacking.map(|it| it.asked).min_by(f64::total_cmp),
            crowded: mean(|it| it.crowded as f64),
            moved,
            packing: used_by(|it| it.packed as f64),
            over_volume: used_by(|it| it.volume as f64),
            filled: most(|it| it.filled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_loads_do_not_vary() {
        assert_eq!(variation(&[3.0, 3.0, 3.0]), 0.0);
        assert_eq!(variation(&[0.0, 2.0]), 1.0);
        assert_eq!(variation(&[]), 0.0);
    }

    #[test]
    fn the_rank_of_sizes_is_of_each_part() {
        let item = |cpus, memory| Item { size: Size { cpus, memory }, class: 0 };
        let items = [item(1, 9), item(2, 8), item(3, 7)];
        assert_eq!(at_rank(&items, 50), Size { cpus: 2, memory: 8 });
        assert_eq!(at_rank(&items, 90), Size { cpus: 3, memory: 9 });
        assert_eq!(at_rank(&[], 50), Size { cpus: 1, memory: 1 });
        assert_eq!(count_in(Size { cpus: 7, memory: 100 }, Size { cpus: 2, memory: 8 }), 3);
        assert_eq!(count_in(Size { cpus: -7, memory: 100 }, Size { cpus: 2, memory: 8 }), 0);
    }
}
