//! Pure: the default [`Scheduler`]: filters, placement preferences, and a strategy.

use std::sync::{Arc, Mutex, PoisonError};

use swarm_core::control::Ctx;
use swarm_core::model::{Service, Task};
use swarm_core::scheduler::{Overcommit, PlacementView, Placements, Refused, Scheduler};
use swarm_core::store::{Mark, Snapshot};

use super::bits::Bits;
use super::check::Checks;
use super::explain::Refusals;
use super::filter::Demand;
use super::group::{Group, TOPOLOGY_LABEL, Topology};
use super::loads::Loads;
use super::priority;
use super::standings::Standings;
use super::strategies::Spread;
use super::strategy::Strategy;

/// Places tasks on the nodes that pass every filter, evenly over the branches of the placement
/// preferences, and within a branch by a [`Strategy`].
///
/// Of a view it keeps the [`Loads`], so that the next view, which came from it, costs only what
/// changed. They are derived from that view alone: answers do not depend on what was asked before.
/// Every few answers a node and a service are added up anew and compared.
pub struct FilterScheduler<S: Strategy> {
    ranked: Ranked<S>,
    pub(super) memory: Mutex<Memory>,
}

/// A strategy, with the orders of nodes that it keeps.
pub(super) struct Ranked<S: Strategy> {
    strategy: S,
    standings: Mutex<Standings<S::Score>>,
}

impl<S: Strategy + Default> Default for FilterScheduler<S> {
    fn default() -> Self {
        Self::new(S::default())
    }
}

/// What a scheduler keeps from one answer to the next.
#[derive(Default)]
pub(super) struct Memory {
    /// The nodes and tasks of the view that was followed last. Not the rest: what is kept is
    /// copied when it is written, and services are.
    pub(super) seen: Snapshot,
    pub(super) loads: Loads,
    /// For the next group to fill.
    known: Bits,
    /// The view of the last answer, which came from `seen` by earlier answers alone.
    last: Option<Mark>,
    /// How many tasks were given a node in it.
    given: usize,
    pub(super) checks: Checks,
}

/// Swarm's own scheduler.
pub type SpreadScheduler = FilterScheduler<Spread>;

impl<S: Strategy> FilterScheduler<S> {
    /// A scheduler that ranks by this strategy for every service, whatever its label
    /// `swarm.strategy` says. [`Rebalance`](crate::orchestrate::Rebalance) does not know that: it goes
    /// by the label, and takes services without one for spread.
    #[must_use]
    pub fn new(strategy: S) -> Self {
        Self { ranked: Ranked::new(strategy), memory: Mutex::default() }
    }

    /// Counts more on every node than it reports, or less. See [`Overcommit`].
    #[must_use]
    pub fn overcommit(self, overcommit: Overcommit) -> Self {
        Self { memory: Mutex::new(Memory::new(overcommit)), ..self }
    }
}

impl<S: Strategy> Scheduler for FilterScheduler<S> {
    fn place(&self, view: &PlacementView<'_>, ctx: &mut Ctx<'_>) -> Placements {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        self.ranked.place(&mut memory, view, ctx)
    }

    fn follow(&self, view: &Snapshot) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).catch_up(view);
    }

    fn counts(&self) -> Overcommit {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).loads.overcommit()
    }
}

impl<S: Strategy> Ranked<S> {
    pub(super) fn new(strategy: S) -> Self {
        Self { strategy, standings: Mutex::default() }
    }

    /// Answers by the strategy.
    pub(super) fn place(
        &self,
        memory: &mut Memory,
        view: &PlacementView<'_>,
        ctx: &Ctx<'_>,
    ) -> Placements {
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        memory.place((&self.strategy, &mut standings), view, ctx)
    }

    /// What of the orders is not as it would be worked out anew.
    pub(super) fn wrong(&self, memory: &mut Memory) -> Option<String> {
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        standings.wrong(&self.strategy, &mut memory.loads)
    }
}

impl Memory {
    /// No memory yet.
    pub(super) fn new(overcommit: Overcommit) -> Self {
        Self { loads: Loads::new(overcommit), ..Self::default() }
    }

    fn place<S: Strategy>(
        &mut self,
        ranked: (&S, &mut Standings<S::Score>),
        view: &PlacementView<'_>,
        ctx: &Ctx<'_>,
    ) -> Placements {
        let mut answer = Placements::default();
        let Some(first) = view.tasks.first() else { return answer };
        self.follow(view.snapshot);
        let asked = (first.service_id, view.tasks.len());
        self.checks.sample(&mut self.loads, view.snapshot, asked);
        self.answer(ranked, view, ctx, &mut answer);
        self.given = answer.placed.len();
        answer
    }

    fn answer<S: Strategy>(
        &mut self,
        (strategy, standings): (&S, &mut Standings<S::Score>),
        view: &PlacementView<'_>,
        ctx: &Ctx<'_>,
        answer: &mut Placements,
    ) {
        let Some(first) = view.tasks.first() else { return };
        let loads = &mut self.loads;
        let (bound, free): (Vec<_>, Vec<_>) =
            view.tasks.iter().partition(|task| task.node_id.is_some());
        let service = view.service.or_else(|| view.snapshot.services.get(first.service_id));
        let (mut demand, topology) = match wishes(first, service, view.snapshot) {
            Ok(wishes) => wishes,
            Err(why) => {
                let refuse = |task: &Arc<Task>| Refused { task: task.id, why: why.clone() };
                answer.refused = view.tasks.iter().map(refuse).collect();
                return;
            }
        };
        confirm(&mut demand, &bound, loads, answer);
        let Some(first) = free.first() else { return };
        let failures = loads.failures(first, ctx.now);
        let topology = topology.as_ref();
        loads.expect(free.len());
        answer.placed.reserve(free.len());
        loads.prepare(&demand);
        let standing = standings.find(strategy, &demand, loads);
        let among = (&mut self.known, standing);
        let mut group =
            Group::new(strategy, &mut demand, &failures, loads, among, (first, topology));
        group.know_if_few(free.len());
        let mut tree = Group::<S>::root();
        let mut tasks = free.into_iter();
        let refused = tasks.find(|task| match group.pick(&mut tree, task) {
            Some(placed) => {
                answer.placed.push(placed);
                false
            }
            None => true,
        });
        let Some(refused) = refused else { return };
        // What found no room once finds none for the rest, which asks for the same.
        let why = why_not(&demand, topology, loads);
        let rest = std::iter::once(refused).chain(tasks);
        answer.refused.extend(rest.map(|task| Refused { task: task.id, why: why.clone() }));
    }

    /// Whether all that is kept is what a view says, after following it there.
    pub(super) fn check(&mut self, view: &Snapshot) -> Result<(), String> {
        self.follow(view);
        self.loads.wrong(view).map_or(Ok(()), Err)
    }

    /// Follows a view that nothing is placed in, if there is something to follow it from: what is
    /// remembered of no view is added up when it is first needed.
    pub(super) fn catch_up(&mut self, view: &Snapshot) {
        if !self.seen.nodes.is_empty() {
            self.follow(view);
        }
    }

    fn follow(&mut self, view: &Snapshot) {
        if !self.knows(view) {
            self.loads.follow(&self.seen, view);
            (self.seen.nodes, self.seen.tasks) = (view.nodes.clone(), view.tasks.clone());
        }
        self.last = view.mark();
        self.given = 0;
    }
}

impl Memory {
    /// Whether a view differs from the last by nothing but the answer to it: then all of it is
    /// counted. So it is within a step, as a rule. The view is not kept then: while it is, each
    /// further change of it would copy what it touches.
    fn knows(&self, view: &Snapshot) -> bool {
        let staged = self.last.as_ref().and_then(|last| view.staged_since(last));
        staged.is_some_and(|written| self.loads.came_true(self.given, written))
    }
}

/// What a task of a service asks for, and how skewed that may be; or what of it cannot be read.
pub(super) fn wishes<'a>(
    task: &'a Task,
    service: Option<&'a Arc<Service>>,
    view: &'a Snapshot,
) -> Result<(Demand<'a>, Option<Topology<'a>>), String> {
    let demand = Demand::of(task, service, view).map_err(|error| error.to_string())?;
    service.map_or(Ok(0), |service| priority::of(service))?;
    let text = service.and_then(|service| service.spec.labels.get(TOPOLOGY_LABEL));
    let topology = text.map(|text| {
        let unreadable =
            || format!("{TOPOLOGY_LABEL}={text} cannot be read: LABEL:SKEW is expected");
        Topology::read(text).ok_or_else(unreadable)
    });
    Ok((demand, topology.transpose()?))
}

/// Global tasks: each is checked against its own node.
fn confirm(
    demand: &mut Demand<'_>,
    tasks: &[&Arc<Task>],
    loads: &mut Loads,
    answer: &mut Placements,
) {
    for task in tasks {
        let mut refusals = Refusals::default();
        let Some(seat) = loads.seat(task.node_id.unwrap_or_default()) else {
            answer.refused.push(Refused { task: task.id, why: refusals.no_suitable_node() });
            continue;
        };
        match demand.check(loads.at(seat)) {
            Ok(()) => {
                answer.placed.push(demand.settle_at(task, seat, loads));
            }
            Err(filter) => {
                refusals.count(filter);
                answer.refused.push(Refused { task: task.id, why: refusals.reasons() });
            }
        }
    }
}

/// Why no node takes the task: asks every node again, which costs nothing while tasks find one. What
/// keeps it from a node that would take it is the bound on the skew.
fn why_not(demand: &Demand<'_>, topology: Option<&Topology<'_>>, loads: &Loads) -> String {
    let mut refusals = Refusals::default();
    let mut would = false;
    for load in loads.iter() {
        match demand.check(load) {
            Ok(()) => would = true,
            Err(filter) => refusals.count(filter),
        }
    }
    match topology.filter(|_| would) {
        Some(topology) => format!("no suitable node ({})", topology.why()),
        None => refusals.no_suitable_node(),
    }
}
