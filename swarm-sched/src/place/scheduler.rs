//! Pure: the default [`Scheduler`]: filters, placement preferences, and a strategy.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use swarm_core::control::Ctx;
use swarm_core::model::{GenericResource, NodeId, Task, TaskState};
use swarm_core::scheduler::{Placed, PlacementView, Placements, Refused, Scheduler};
use swarm_core::store::Snapshot;
use swarm_core::time::Timestamp;

use super::constraint::label_of;
use super::explain::Refusals;
use super::filter::Demand;
use super::load::{Loads, NodeLoad, Share, reservation};
use super::spread::Spread;
use super::strategy::{Candidate, Strategy};

/// How long a failure counts against a node.
const FAILURE_MEMORY: Duration = Duration::from_secs(5 * 60);

/// Places tasks on the nodes that pass every filter, evenly over the branches of the placement
/// preferences, and within a branch by a [`Strategy`].
#[derive(Default)]
pub struct FilterScheduler<S> {
    strategy: S,
    /// The loads of the view that was asked about last, so that the next one, which came from it,
    /// costs only what changed. Derived from that view alone: answers do not depend on it.
    pub(super) last: Mutex<(Snapshot, Loads)>,
}

/// Swarm's own scheduler.
pub type SpreadScheduler = FilterScheduler<Spread>;

impl<S: Strategy> FilterScheduler<S> {
    /// A scheduler that ranks by this strategy.
    #[must_use]
    pub fn new(strategy: S) -> Self {
        Self { strategy, last: Mutex::default() }
    }
}

impl<S: Strategy> Scheduler for FilterScheduler<S> {
    fn place(&self, view: &PlacementView<'_>, ctx: &mut Ctx<'_>) -> Placements {
        let mut answer = Placements::default();
        let Some(first) = view.tasks.first() else { return answer };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, mut loads) = std::mem::take(&mut *last);
        loads.follow(&seen, view.snapshot);
        let demand = Demand::of(first, view.snapshot);
        let (bound, free): (Vec<_>, Vec<_>) =
            view.tasks.iter().partition(|task| task.node_id.is_some());
        confirm(&demand, &bound, &mut loads, &mut answer);
        if !free.is_empty() {
            let failures = recent_failures(first, view.snapshot, ctx.now);
            Group { strategy: &self.strategy, demand: &demand, failures: &failures }.place(
                &free,
                &mut loads,
                &mut answer,
            );
        }
        take_back(view.tasks, &answer, &mut loads);
        *last = (view.snapshot.clone(), loads);
        answer
    }
}

/// What was answered may never come true: makes the loads those of the view again.
fn take_back(tasks: &[Arc<Task>], answer: &Placements, loads: &mut Loads) {
    let by_id: BTreeMap<_, _> = tasks.iter().map(|task| (task.id, task)).collect();
    for placed in &answer.placed {
        if let (Some(task), Some(load)) = (by_id.get(&placed.task), loads.get_mut(placed.node)) {
            load.remove(&Share { task, claims: &placed.generic });
        }
    }
}

/// Global tasks: each is checked against its own node.
fn confirm(demand: &Demand<'_>, tasks: &[&Arc<Task>], loads: &mut Loads, answer: &mut Placements) {
    for task in tasks {
        let node = task.node_id.unwrap_or_default();
        let mut refusals = Refusals::default();
        let Some(load) = loads.get_mut(node) else {
            answer.refused.push(Refused { task: task.id, why: refusals.no_suitable_node() });
            continue;
        };
        match demand.check(load) {
            Ok(()) => answer.placed.push(settle(task, load)),
            Err(filter) => {
                refusals.count(filter);
                answer.refused.push(Refused { task: task.id, why: refusals.reasons() });
            }
        }
    }
}

/// Counts a task on a node that it fits on.
fn settle(task: &Task, load: &mut NodeLoad) -> Placed {
    let wanted: &[GenericResource] = reservation(task).map_or(&[], |reserved| &reserved.generic);
    let generic = load.choose_all(wanted).unwrap_or_default();
    load.add(&Share { task, claims: &generic });
    Placed { task: task.id, node: load.node.id, generic }
}

/// How often tasks of this version of the service failed on each node within the last five
/// minutes. Read from the tasks that the store keeps, so that a new leader knows it too.
fn recent_failures(task: &Task, view: &Snapshot, now: Timestamp) -> BTreeMap<NodeId, u32> {
    let mut failures = BTreeMap::new();
    for other in view.tasks_of(task.service_id) {
        let failed = matches!(other.status.state, TaskState::Failed | TaskState::Rejected);
        let when = other.ended_at.unwrap_or(other.status.timestamp);
        if let Some(node) = other.node_id
            && failed
            && other.spec_version == task.spec_version
            && now.since(when) <= FAILURE_MEMORY
        {
            *failures.entry(node).or_default() += 1;
        }
    }
    failures
}

/// Tasks of one specification that may go anywhere.
struct Group<'a, S> {
    strategy: &'a S,
    demand: &'a Demand<'a>,
    failures: &'a BTreeMap<NodeId, u32>,
}

/// A tree of nodes by the values of the placement preferences: one level for each preference,
/// nodes at its leaves.
struct Branch<K> {
    /// Tasks of the service on all nodes of the branch, suitable or not.
    tasks: u64,
    branches: Vec<Branch<K>>,
    /// The branches that may have room, those with the fewest tasks first.
    order: BinaryHeap<Reverse<(u64, usize)>>,
    /// The suitable nodes of a leaf, the best first.
    nodes: BinaryHeap<Reverse<(K, usize)>>,
}

impl<S: Strategy> Group<'_, S> {
    fn place(&self, tasks: &[&Arc<Task>], loads: &mut Loads, answer: &mut Placements) {
        let mut nodes: Vec<&mut NodeLoad> = loads.iter_mut().collect();
        let preferences = tasks[0].spec.placement.iter().flat_map(|wish| &wish.preferences);
        let descriptors: Vec<&str> = preferences
            .filter_map(|preference| Some(preference.spread.as_ref()?.descriptor.as_str()))
            .collect();
        let mut tree = self.grow(&nodes, (0..nodes.len()).collect(), &descriptors);
        let mut tasks = tasks.iter();
        let refused = tasks.find(|task| match self.pick(&mut tree, &mut nodes, task) {
            Some(placed) => {
                answer.placed.push(placed);
                false
            }
            None => true,
        });
        let Some(refused) = refused else { return };
        let mut refusals = Refusals::default();
        nodes.iter().filter_map(|load| self.demand.check(load).err()).for_each(|filter| {
            refusals.count(filter);
        });
        let why = refusals.no_suitable_node();
        let rest = std::iter::once(refused).chain(tasks);
        answer.refused.extend(rest.map(|task| Refused { task: task.id, why: why.clone() }));
    }

    fn grow(
        &self,
        loads: &[&mut NodeLoad],
        members: Vec<usize>,
        descriptors: &[&str],
    ) -> Branch<S::Score> {
        let tasks = members.iter().map(|index| loads[*index].active_of(self.demand.service)).sum();
        let mut branch = Branch {
            tasks,
            branches: Vec::new(),
            order: BinaryHeap::new(),
            nodes: BinaryHeap::new(),
        };
        let Some((descriptor, rest)) = descriptors.split_first() else {
            let suitable =
                members.into_iter().filter(|index| self.demand.check(loads[*index]).is_ok());
            branch.nodes =
                suitable.map(|index| Reverse((self.score(loads[index]), index))).collect();
            return branch;
        };
        let mut values: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for index in members {
            // Nodes without the label share a branch of their own, the one of the empty value; a
            // descriptor that is no label leaves all of them together.
            let value = label_of(&loads[index].node, descriptor).unwrap_or("");
            values.entry(value).or_default().push(index);
        }
        branch.branches =
            values.into_values().map(|members| self.grow(loads, members, rest)).collect();
        let counts = branch.branches.iter().enumerate();
        branch.order = counts.map(|(index, branch)| Reverse((branch.tasks, index))).collect();
        branch
    }

    /// Puts one task on the best node of the branch that has the fewest tasks of its service;
    /// `None` when no node of the tree has room. What has no room is dropped: loads only grow.
    fn pick(
        &self,
        tree: &mut Branch<S::Score>,
        loads: &mut [&mut NodeLoad],
        task: &Task,
    ) -> Option<Placed> {
        while let Some(Reverse((tasks, index))) = tree.order.pop() {
            if let Some(placed) = self.pick(&mut tree.branches[index], loads, task) {
                tree.order.push(Reverse((tasks + 1, index)));
                return Some(placed);
            }
        }
        while let Some(Reverse((_, index))) = tree.nodes.pop() {
            let load = &mut *loads[index];
            if self.demand.still_fits(load) {
                let placed = settle(task, load);
                tree.nodes.push(Reverse((self.score(load), index)));
                return Some(placed);
            }
        }
        None
    }

    fn score(&self, load: &NodeLoad) -> S::Score {
        let failures = self.failures.get(&load.node.id).copied().unwrap_or(0);
        self.strategy.score(&Candidate { load, service: self.demand.service, failures })
    }
}
