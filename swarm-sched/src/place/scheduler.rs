//! Pure: the default [`Scheduler`]: filters, placement preferences, and a strategy.

use std::sync::{Arc, Mutex, PoisonError};

use swarm_core::control::Ctx;
use swarm_core::model::Task;
use swarm_core::scheduler::{PlacementView, Placements, Refused, Scheduler};
use swarm_core::store::Snapshot;

use super::explain::Refusals;
use super::filter::Demand;
use super::group::Group;
use super::loads::Loads;
use super::spread::Spread;
use super::strategy::Strategy;

/// After so many answers one node is compared with what the view says about it.
const ANSWERS_PER_CHECK: usize = 16;

/// Places tasks on the nodes that pass every filter, evenly over the branches of the placement
/// preferences, and within a branch by a [`Strategy`].
///
/// Of a view it keeps the [`Loads`], so that the next view, which came from it, costs only what
/// changed. They are derived from that view alone: answers do not depend on what was asked before.
/// Every few answers one node's load is added up anew and compared. If it differed, which would be
/// a bug, everything would be added up anew, and an error logged.
#[derive(Default)]
pub struct FilterScheduler<S> {
    strategy: S,
    pub(super) memory: Mutex<Memory>,
}

/// What a scheduler keeps from one answer to the next.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) seen: Snapshot,
    pub(super) loads: Loads,
    answers: usize,
}

/// Swarm's own scheduler.
pub type SpreadScheduler = FilterScheduler<Spread>;

impl<S: Strategy> FilterScheduler<S> {
    /// A scheduler that ranks by this strategy.
    #[must_use]
    pub fn new(strategy: S) -> Self {
        Self { strategy, memory: Mutex::default() }
    }
}

impl<S: Strategy> Scheduler for FilterScheduler<S> {
    fn place(&self, view: &PlacementView<'_>, ctx: &mut Ctx<'_>) -> Placements {
        let mut answer = Placements::default();
        let Some(first) = view.tasks.first() else { return answer };
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.follow(view.snapshot);
        let loads = &mut memory.loads;
        let demand = Demand::of(first, view.snapshot);
        let (bound, free): (Vec<_>, Vec<_>) =
            view.tasks.iter().partition(|task| task.node_id.is_some());
        confirm(&demand, &bound, loads, &mut answer);
        let Some(first) = free.first() else { return answer };
        let failures = loads.failures(first, ctx.now);
        let mut group = Group::new(&self.strategy, &demand, &failures, loads, first);
        let mut tree = Group::<S>::root();
        let mut tasks = free.into_iter();
        let refused = tasks.find(|task| match group.pick(&mut tree, task) {
            Some(placed) => {
                answer.placed.push(placed);
                false
            }
            None => true,
        });
        if let Some(refused) = refused {
            // What found no room once finds none for the rest, which asks for the same.
            let why = why_not(&demand, loads);
            let rest = std::iter::once(refused).chain(tasks);
            answer.refused.extend(rest.map(|task| Refused { task: task.id, why: why.clone() }));
        }
        answer
    }
}

impl Memory {
    fn follow(&mut self, view: &Snapshot) {
        let seen = std::mem::replace(&mut self.seen, view.clone());
        self.loads.follow(&seen, view);
        self.answers += 1;
        let seats = self.loads.seats();
        if seats > 0 && self.answers.is_multiple_of(ANSWERS_PER_CHECK) {
            // Large steps that meet every seat in the end, whatever their number.
            let seat = (self.answers / ANSWERS_PER_CHECK).wrapping_mul(2_654_435_761) % seats;
            if !self.loads.is_right(seat, view) {
                let node = self.loads.at(seat).node.id;
                debug_assert!(false, "the load of node {node} is not what its tasks say");
                tracing::error!(%node, "the remembered load of a node was wrong: a bug; adding up");
                self.loads = Loads::of(view);
            }
        }
    }
}

/// Global tasks: each is checked against its own node.
fn confirm(demand: &Demand<'_>, tasks: &[&Arc<Task>], loads: &mut Loads, answer: &mut Placements) {
    for task in tasks {
        let mut refusals = Refusals::default();
        let Some(seat) = loads.seat(task.node_id.unwrap_or_default()) else {
            answer.refused.push(Refused { task: task.id, why: refusals.no_suitable_node() });
            continue;
        };
        match demand.check(loads.at(seat)) {
            Ok(()) => answer.placed.push(loads.settle(task, seat)),
            Err(filter) => {
                refusals.count(filter);
                answer.refused.push(Refused { task: task.id, why: refusals.reasons() });
            }
        }
    }
}

/// Why no node takes the task: asks every node again, which costs nothing while tasks find one.
fn why_not(demand: &Demand<'_>, loads: &Loads) -> String {
    let mut refusals = Refusals::default();
    loads.iter().filter_map(|load| demand.check(load).err()).for_each(|filter| {
        refusals.count(filter);
    });
    refusals.no_suitable_node()
}
