//! Pure: which of the suitable nodes is the best.

use swarm_core::model::ServiceId;

use super::filter::Demand;
use super::load::NodeLoad;

/// From this many recent failures on, Swarm puts a node after all others.
pub const FAULTY_AFTER: u32 = 5;

/// A suitable node, and all that a strategy may judge it by:
///
/// - the node itself ([`NodeLoad::node`]), and its labels by name
///   ([`label_of`](super::constraint::label_of)): what is measured outside comes to a strategy in a
///   label, as to [`LeastLoaded`](super::LeastLoaded);
/// - what it has, what of it is free, and how many tasks of which services it has ([`NodeLoad`]);
/// - what the task reserves ([`Demand::reservation`]), and the id of its service;
/// - where the service failed.
///
/// There is no clock, no other node, and nothing else of the service, such as its labels.
pub struct Candidate<'a> {
    /// The node with its tasks: those that the same decision gave it before are counted, the one
    /// that is being placed is not. What will be left is what is free less what the task reserves.
    pub load: &'a NodeLoad,
    /// What the task asks for.
    pub demand: &'a Demand<'a>,
    /// How often tasks of this version of the service failed on the node within the last five
    /// minutes.
    pub failures: u32,
}

impl Candidate<'_> {
    /// The service that is placed.
    #[must_use]
    pub fn service(&self) -> ServiceId {
        self.demand.service
    }

    /// The recent failures once there are [`FAULTY_AFTER`] of them, before that none: what Swarm
    /// ranks by before anything else.
    #[must_use]
    pub fn faults(&self) -> u32 {
        if self.failures < FAULTY_AFTER { 0 } else { self.failures }
    }

    /// How many tasks of that service shall run on the node.
    #[must_use]
    pub fn tasks_of_service(&self) -> u64 {
        self.load.active_of(self.demand.service)
    }
}

/// Ranks suitable nodes. Behind [`FilterScheduler`](super::FilterScheduler), which filters and
/// follows placement preferences, a strategy is all that a new scheduler needs.
///
/// ```
/// use swarm_sched::place::{Candidate, FilterScheduler, Strategy};
/// /// Fills the fullest node that still has room.
/// struct Pack;
/// impl Strategy for Pack {
///     type Score = i64;
///     fn score(&self, candidate: &Candidate<'_>) -> i64 {
///         candidate.load.free_memory()
///     }
/// }
/// let scheduler = FilterScheduler::new(Pack);
/// ```
///
/// # Testing one
///
/// [`conformance::strategy::suite`](crate::conformance::strategy::suite) says whether it keeps what is
/// asked of every strategy, its promises above all. What it prefers can be asked of it directly:
///
/// ```
/// # use swarm_sched::place::{Candidate, Strategy};
/// # struct Pack;
/// # impl Strategy for Pack {
/// #     type Score = i64;
/// #     fn score(&self, candidate: &Candidate<'_>) -> i64 {
/// #         candidate.load.free_memory()
/// #     }
/// # }
/// use swarm_core::id::IdSource;
/// use swarm_core::model::{Node, Task, Version};
/// use swarm_core::store::{Object, Snapshot};
/// use swarm_sched::place::{filter::Demand, loads::Loads};
///
/// let mut ids = IdSource::seeded(1);
/// let [small, large] = [1_u8, 16].map(|gib| {
///     let mut node = Node { id: ids.next(), ..Node::default() };
///     node.description.get_or_insert_default().resources.memory_bytes = i64::from(gib) << 30;
///     node
/// });
/// let nodes = [small.id, large.id];
/// let view = Snapshot::from_objects(Version(1), [small, large].map(Object::from));
/// let (task, loads) = (Task::default(), Loads::of(&view));
/// let demand = Demand::of(&task, None, &view).unwrap();
/// let [small, large] = nodes.map(|node| {
///     let load = loads.get(node).unwrap();
///     Pack.score(&Candidate { load, demand: &demand, failures: 0 })
/// });
/// assert!(small < large);
/// ```
///
/// # What a false promise leads to
///
/// [`newcomers_first`](Self::newcomers_first) and [`newcomers_alike`](Self::newcomers_alike) are
/// believed. If one is false, every filter holds all the same, and every task gets a node that suits.
/// But it is another node than the scores say. Where a score depends on something outside of the
/// candidate, such as the time, it even depends on what was asked before: then a dry run, or the next
/// leader, finds another node than this one. Of a kept order one node is judged anew after every
/// sixteenth answer; a difference is logged as an error, and a panic in debug builds.
pub trait Strategy: Send + Sync + 'static {
    /// The rank of a node: the smallest wins, and of equals the smallest node id. Floating-point
    /// numbers have no total order: scale them to integers.
    type Score: Ord + Clone + Send;

    /// Ranks one node. Pure, and by this candidate alone: placing a task changes the score of its
    /// node and of no other.
    fn score(&self, candidate: &Candidate<'_>) -> Self::Score;

    /// Whether the strategy promises that a node without tasks of the service, and with fewer than
    /// [`FAULTY_AFTER`] failures, always ranks before every other, and among such nodes the one
    /// with fewer tasks ([`NodeLoad::active`]) before one with more, with nothing else that
    /// counts. Then such nodes are found in an index, and their score is not even asked for, so a
    /// decision looks at no more nodes in a larger cluster. With affinities it looks at all that suit
    /// nevertheless, as it does for any strategy.
    fn newcomers_first(&self) -> bool {
        false
    }

    /// Whether the strategy promises that the score of a node without tasks of the service, and
    /// without failures of it, depends on the node and its load and on what the task reserves
    /// ([`Demand::reservation`]), and on nothing else: neither on the service nor on anything outside
    /// of the candidate.
    ///
    /// Then the order of such nodes is kept. A decision looks at the nodes that have changed since and
    /// at those that know the service, if all of this holds:
    ///
    /// - The same needs (reservation, constraints, platforms, plugins, host ports) were asked for at
    ///   least twice before: the second time, the order is made. Orders of the last eight kinds of
    ///   needs are kept, so that where many services have reservations of their own none is used twice.
    /// - The service has no placement preferences, no [`TOPOLOGY_LABEL`](super::TOPOLOGY_LABEL) and no
    ///   affinities.
    /// - No node has joined or left the cluster since: then the order is made anew.
    ///
    /// Else, and without the promise always, a decision ranks every node that suits, or every such node
    /// of the branch that the preferences lead to.
    fn newcomers_alike(&self) -> bool {
        false
    }
}
