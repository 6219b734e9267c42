//! Pure: a scheduler with several strategies, of which each service may choose.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use swarm_core::control::Ctx;
use swarm_core::scheduler::{Overcommit, PlacementView, Placements, Refused, Scheduler};
use swarm_core::store::Snapshot;

use super::scheduler::{Memory, Ranked};
use super::strategies::{BinPack, LeastLoaded, Random, Spread};
use super::strategy::Strategy;

/// The label of a service that names its strategy, or of the cluster, that names the one of services
/// without the label: a name that [`StrategyScheduler::with`] was given, or one of `spread`, `binpack`,
/// `random` and `least-loaded`.
pub const STRATEGY_LABEL: &str = "swarm.strategy";

/// A strategy without its type of score.
trait Placer: Send + Sync {
    fn place(&self, memory: &mut Memory, view: &PlacementView<'_>, ctx: &Ctx<'_>) -> Placements;

    fn wrong(&self, memory: &mut Memory) -> Option<String>;
}

impl<S: Strategy> Placer for Ranked<S> {
    fn place(&self, memory: &mut Memory, view: &PlacementView<'_>, ctx: &Ctx<'_>) -> Placements {
        self.place(memory, view, ctx)
    }

    fn wrong(&self, memory: &mut Memory) -> Option<String> {
        self.wrong(memory)
    }
}

/// Places each service by the strategy that its label `swarm.strategy` names, else by the one that
/// the cluster's label of that name does, else by spread. A name that there is not is a refusal
/// that says so: a task that lies elsewhere than asked for would be worse.
///
/// Without labels it decides exactly as [`SpreadScheduler`](super::SpreadScheduler). What it
/// remembers of the nodes is shared by all strategies.
pub struct StrategyScheduler {
    strategies: BTreeMap<String, Box<dyn Placer>>,
    memory: Mutex<Memory>,
}

impl Default for StrategyScheduler {
    /// With `spread`, `binpack`, `random` and `least-loaded`.
    fn default() -> Self {
        Self { strategies: BTreeMap::new(), memory: Mutex::default() }
            .with("spread", Spread)
            .with("binpack", BinPack)
            .with("random", Random::default())
            .with("least-loaded", LeastLoaded::default())
    }
}

impl StrategyScheduler {
    /// Adds a strategy, in the place of one of the same name: as `spread` it is that of services that
    /// name none. Every manager needs the same ones, as a leader refuses tasks of a strategy that it
    /// does not have.
    #[must_use]
    pub fn with(mut self, name: &str, strategy: impl Strategy) -> Self {
        self.strategies.insert(name.to_owned(), Box::new(Ranked::new(strategy)));
        self
    }

    /// Counts more on every node than it reports, or less. See [`Overcommit`].
    #[must_use]
    pub fn overcommit(self, overcommit: Overcommit) -> Self {
        Self { memory: Mutex::new(Memory::new(overcommit)), ..self }
    }

    /// Compares what is remembered of every node and service with what a view says, for tests of
    /// whatever changes views: a scheduler does so itself for one of each after every sixteenth
    /// answer. Answers do not change by it. O(nodes and tasks).
    ///
    /// # Errors
    /// The node, or the service, of which something else is remembered.
    pub fn check(&self, view: &Snapshot) -> Result<(), String> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.check(view)?;
        let wrong = self.strategies.values().find_map(|strategy| strategy.wrong(&mut memory));
        wrong.map_or(Ok(()), Err)
    }

    /// Remembers what it would if what leads from one view to another had happened, without there being
    /// a view in which it has: plants the bug that [`check`](Self::check) is to find, for tests of
    /// whatever calls that. O(what differs).
    pub fn misremember(&self, from: &Snapshot, to: &Snapshot) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.loads.follow(from, to);
    }
}

impl Scheduler for StrategyScheduler {
    fn place(&self, view: &PlacementView<'_>, ctx: &mut Ctx<'_>) -> Placements {
        let of_service = view.service.and_then(|service| service.spec.labels.get(STRATEGY_LABEL));
        let cluster = view.snapshot.cluster();
        let name = of_service.or_else(|| cluster?.spec.labels.get(STRATEGY_LABEL));
        let name = name.map_or("spread", String::as_str);
        let Some(strategy) = self.strategies.get(name) else {
            let why = format!("there is no placement strategy {name:?}");
            let refuse = |task: &std::sync::Arc<swarm_core::model::Task>| Refused {
                task: task.id,
                why: why.clone(),
            };
            let refused = view.tasks.iter().map(refuse).collect();
            return Placements { placed: Vec::new(), refused };
        };
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        strategy.place(&mut memory, view, ctx)
    }

    fn follow(&self, view: &Snapshot) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).catch_up(view);
    }

    fn counts(&self) -> Overcommit {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).loads.overcommit()
    }
}
