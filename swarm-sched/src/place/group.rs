//! Pure: the nodes of a group of tasks that ask for the same, one task after the other.
//!
//! A tree with one level for each placement preference; a branch is a value of its label. Each
//! task goes to the branch that has the fewest tasks of the service, level by level, and there to
//! the best node by the strategy. Branches grow when a task first comes to them, so a group costs
//! what it visits.
//!
//! At a leaf there are three ways to the best node:
//!
//! - The *ranking*, for every strategy: a heap of the leaf's nodes by their score. O(nodes of the
//!   leaf) to build, O(log) for each task.
//! - The *standing*, for strategies that promise [`Strategy::newcomers_alike`], where the leaf is the
//!   whole cluster: the nodes to which the service is new are read off an order that is kept from one
//!   group to the next ([`standings`](super::standings)). The ranking then holds only the nodes to
//!   which it is not, and the better of the two comes first.
//! - The *crowd*, for strategies that promise [`Strategy::newcomers_first`]: the nodes to which
//!   the service is new come before all others, the emptiest first, so they are read off the
//!   [`Ladder`](super::ladder::Ladder) in order. Their scores are never computed, and no more of
//!   them are looked at than get a task or turn out to be full. The ranking then holds only the
//!   nodes to which the service is not new, and is built when the crowd is used up.
//!
//! A service may also bound its skew: with the label `swarm.topology=node.labels.zone:2` no zone gets a
//! task that would give it more than 2 tasks beyond the zone with the fewest. That is one more level
//! of the tree, above the preferences; where the bound forbids a branch, it forbids the rest, which
//! have at least as many tasks, so tasks wait (Kubernetes: `topologySpreadConstraints`).
//!
//! What has no room for one task of the group has none for the next: loads only grow here. So
//! nodes and branches that refuse are dropped.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use swarm_core::model::{NodeId, Task};
use swarm_core::scheduler::Placed;

use super::bits::Bits;
use super::constraint::{ENGINE_LABELS, NODE_LABELS};
use super::filter::Demand;
use super::labels::{LabelValues, Members};
use super::loads::Loads;
use super::standings::Standing;
use super::strategy::{Candidate, FAULTY_AFTER, Strategy};

/// The label of a service that names the label over which it is spread within bounds, as
/// `node.labels.NAME:SKEW` or `engine.labels.NAME:SKEW`; the skew is 1 without it. No value of that
/// label gets a task that would give it more than `SKEW` tasks beyond the value with the fewest.
///
/// Nodes that suit and have no such label are a value of their own (Kubernetes leaves them out). A
/// value whose nodes are all full still counts as the one with the fewest; one without any node that
/// suits does not. Tasks of global services ignore it.
pub const TOPOLOGY_LABEL: &str = "swarm.topology";

/// One level of the tree.
struct Level {
    values: Arc<LabelValues>,
    /// How many tasks one value may have beyond another.
    skew: Option<u64>,
}

/// A label, with how many tasks one of its values may have beyond another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topology<'a> {
    descriptor: &'a str,
    skew: u64,
}

impl<'a> Topology<'a> {
    /// Reads `node.labels.zone`, or `node.labels.zone:2`; by itself a skew is 1.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let (descriptor, skew) = match text.rsplit_once(':') {
            Some((descriptor, skew)) => (descriptor, skew.parse().ok()?),
            None => (text, 1),
        };
        let labels = descriptor.starts_with(NODE_LABELS) || descriptor.starts_with(ENGINE_LABELS);
        (labels && skew > 0).then_some(Self { descriptor, skew })
    }

    /// Why tasks wait that would make it more skewed.
    pub(super) fn why(&self) -> String {
        format!("a skew of {} over {} would be exceeded", self.skew, self.descriptor)
    }
}

/// Tasks of one specification that may go anywhere.
pub(super) struct Group<'a, 'd, S: Strategy> {
    strategy: &'a S,
    demand: &'a mut Demand<'d>,
    failures: &'a BTreeMap<NodeId, u32>,
    loads: &'a mut Loads,
    /// The bounded label, and those of the placement preferences.
    levels: Vec<Level>,
    standing: Option<&'a mut Standing<S::Score>>,
    /// Seats that turned out not to be of the crowd: the service has tasks there, or fails there.
    known: &'a mut Bits,
    /// Whether `known` has all of them.
    knows_all: bool,
}

/// Nodes that agree in the values of the first preferences.
pub(super) struct Branch<K> {
    members: Members,
    level: usize,
    kind: Kind<K>,
}

impl<K> Branch<K> {
    fn bud(members: Members, level: usize) -> Self {
        Self { members, level, kind: Kind::Bud }
    }
}

enum Kind<K> {
    /// No task has come yet.
    Bud,
    /// One more preference divides it.
    Fork {
        /// The values that may have room, those with the fewest tasks of the service first.
        order: BinaryHeap<Reverse<(u64, usize)>>,
        /// The fewest tasks of a value that has suitable nodes, but no room on them any more.
        floor: u64,
        branches: BTreeMap<usize, Branch<K>>,
    },
    Leaf(Leaf<K>),
}

struct Leaf<K> {
    /// Where the crowd is read next: a number of tasks and a seat. Absent when it is used up.
    crowd: Option<(u64, usize)>,
    /// The next node of the standing to which the service is new.
    newcomer: Option<(K, usize)>,
    /// The best node first.
    ranking: BinaryHeap<Reverse<(Rank<K>, usize)>>,
}

/// What is soft comes first: how many affinities a node misses, then its score.
type Rank<K> = (usize, K);

impl<'a, 'd, S: Strategy> Group<'a, 'd, S> {
    /// Prepares to place tasks like this one, for which the loads are [prepared](Loads::prepare).
    /// `known` is what an earlier group left behind: nothing of it is read, but a set for every node
    /// is not made anew for each group.
    pub(super) fn new(
        strategy: &'a S,
        demand: &'a mut Demand<'d>,
        failures: &'a BTreeMap<NodeId, u32>,
        loads: &'a mut Loads,
        (known, standing): (&'a mut Bits, Option<&'a mut Standing<S::Score>>),
        (task, topology): (&Task, Option<&Topology<'_>>),
    ) -> Self {
        known.clear(loads.seats());
        let preferences = task.spec.placement.iter().flat_map(|wish| &wish.preferences);
        let descriptors = preferences.filter_map(|wish| Some(&wish.spread.as_ref()?.descriptor));
        let bounded = topology.map(|topology| (topology.descriptor, Some(topology.skew)));
        let wished = descriptors.map(|descriptor| (descriptor.as_str(), None));
        let levels = bounded.into_iter().chain(wished);
        // What divides nothing, or the same again, makes no choice, and thousands may be asked for.
        let mut known_labels = BTreeSet::new();
        let levels = levels.filter(|(label, skew)| skew.is_some() || known_labels.insert(*label));
        let levels = levels.map(|(label, skew)| Level { values: loads.values(label), skew });
        let levels = levels.filter(|level| level.skew.is_some() || level.values.len() > 1);
        let levels = levels.collect();
        Self { strategy, demand, failures, loads, levels, standing, known, knows_all: false }
    }

    /// The whole tree, before the first task.
    pub(super) fn root() -> Branch<S::Score> {
        Branch::bud(Members::All, 0)
    }

    /// Gives one task a node of the branch; `None` when no node of it has room.
    pub(super) fn pick(
        &mut self,
        branch: &mut Branch<S::Score>,
        task: &Arc<Task>,
    ) -> Option<Placed> {
        if matches!(branch.kind, Kind::Bud) {
            branch.kind = self.grow(branch);
        }
        match &mut branch.kind {
            Kind::Bud => None,
            Kind::Leaf(leaf) => self.pick_node(leaf, &branch.members, task),
            Kind::Fork { order, floor, branches } => {
                while let Some(Reverse((tasks, value))) = order.pop() {
                    let level = &self.levels[branch.level];
                    let fewest = tasks.min(*floor);
                    if level.skew.is_some_and(|skew| tasks + 1 - fewest > skew) {
                        order.push(Reverse((tasks, value)));
                        return None;
                    }
                    let part = || Branch::bud(level.values.part(value), branch.level + 1);
                    let next = branches.entry(value).or_insert_with(part);
                    if let Some(placed) = self.pick(next, task) {
                        order.push(Reverse((tasks + 1, value)));
                        return Some(placed);
                    }
                    if self.loads.shape().suits_any(&next.members) {
                        *floor = fewest;
                    }
                }
                None
            }
        }
    }

    fn grow(&mut self, branch: &Branch<S::Score>) -> Kind<S::Score> {
        let Some(level) = self.levels.get(branch.level) else {
            return Kind::Leaf(self.leaf(&branch.members));
        };
        let mut tasks = vec![0; level.values.len()];
        for seat in self.loads.places_of(self.demand.service) {
            if branch.members.contains(seat) {
                let count = self.loads.at(seat).active_of(self.demand.service);
                tasks[level.values.number(seat)] += count;
            }
        }
        // Every value has nodes, but not every branch of the tree has nodes of each.
        let (order, branches) = match &branch.members {
            Members::All => ((0..tasks.len()).collect(), BTreeMap::new()),
            some => {
                let parts = self.loads.divide(some, &level.values);
                let next = branch.level + 1;
                let buds =
                    parts.iter().map(|(value, part)| (*value, Branch::bud(part.clone(), next)));
                (parts.keys().copied().collect::<Vec<_>>(), buds.collect())
            }
        };
        let order = order.into_iter().map(|value| Reverse((tasks[value], value))).collect();
        Kind::Fork { order, floor: u64::MAX, branches }
    }

    /// Without a crowd or a standing every node is ranked; with one, those that it leaves out.
    fn leaf(&mut self, members: &Members) -> Leaf<S::Score> {
        let mut leaf = Leaf { crowd: None, newcomer: None, ranking: BinaryHeap::new() };
        let alike = self.demand.affinities.is_empty();
        if alike && self.strategy.newcomers_first() && !matches!(members, Members::List(_)) {
            leaf.crowd = Some((0, 0));
        } else if alike && self.standing.is_some() && matches!(members, Members::All) {
            self.know_all(1);
            self.rank(&mut leaf, members, Some(self.known));
            leaf.newcomer = self.next_standing(None);
        } else {
            self.rank(&mut leaf, members, None);
        }
        leaf
    }

    /// The next node of the standing to which the service is new.
    fn next_standing(&self, after: Option<&(S::Score, usize)>) -> Option<(S::Score, usize)> {
        let standing = self.standing.as_deref()?;
        let next = |after: &_| standing.next(Some(after));
        let nodes = std::iter::successors(standing.next(after), |at| next(at));
        nodes.into_iter().find(|(_, seat)| !self.known.contains(*seat)).cloned()
    }

    fn pick_node(
        &mut self,
        leaf: &mut Leaf<S::Score>,
        members: &Members,
        task: &Arc<Task>,
    ) -> Option<Placed> {
        while let Some(from) = leaf.crowd {
            let Some((tasks, seat)) = self.newcomer(from, members) else {
                leaf.crowd = None;
                self.know_all(FAULTY_AFTER);
                self.rank(leaf, members, Some(self.known));
                break;
            };
            leaf.crowd = Some((tasks, seat + 1));
            if self.loads.has_room(self.demand, seat) {
                self.known.insert(seat);
                return Some(self.demand.settle_at(task, seat, self.loads));
            }
        }
        while let Some(seat) = self.best(leaf) {
            if self.demand.may_have_more(self.loads.at(seat))
                && self.loads.has_room(self.demand, seat)
            {
                let placed = self.demand.settle_at(task, seat, self.loads);
                leaf.ranking.push(Reverse((self.score(seat), seat)));
                return Some(placed);
            }
        }
        None
    }

    /// Takes the best node: of the newcomers in the standing, or of those that are ranked.
    fn best(&mut self, leaf: &mut Leaf<S::Score>) -> Option<usize> {
        let Some(newcomer) = leaf.newcomer.take() else {
            return leaf.ranking.pop().map(|Reverse((_, seat))| seat);
        };
        let ranked =
            leaf.ranking.peek().map(|Reverse(((missed, score), seat))| (missed, score, seat));
        if ranked.is_some_and(|ranked| ranked < (&0, &newcomer.0, &newcomer.1)) {
            leaf.newcomer = Some(newcomer);
            return leaf.ranking.pop().map(|Reverse((_, seat))| seat);
        }
        leaf.newcomer = self.next_standing(Some(&newcomer));
        let full = !self.demand.has_room(self.loads.at(newcomer.1));
        if let Some(standing) = self.standing.as_mut().filter(|_| full) {
            standing.take_out(newcomer.1);
        }
        Some(newcomer.1)
    }

    /// The next node of the crowd that may suit: from a number of tasks and a seat on. Nodes that
    /// get a task climb, but are known then, so that the crowd behind this point stays as it was.
    fn newcomer(&mut self, from: (u64, usize), members: &Members) -> Option<(u64, usize)> {
        let set = match members {
            Members::Set(set) => Some(&**set),
            _ => None,
        };
        let (mut number, mut seat) = from;
        while let Some((tasks, rung)) = self.loads.ladder().rung(number) {
            if tasks > number {
                (number, seat) = (tasks, 0);
            }
            let open = Some(&self.loads.shape().open);
            match rung.next_in(seat, open, set, Some(self.known)) {
                Some(found) if self.is_newcomer(found) => return Some((tasks, found)),
                Some(found) => {
                    self.known.insert(found);
                    seat = found + 1;
                }
                None => (number, seat) = (tasks + 1, 0),
            }
        }
        None
    }

    /// Whether the service has no task on a node, and does not keep failing there.
    fn is_newcomer(&self, seat: usize) -> bool {
        let load = self.loads.at(seat);
        self.knows_all
            || load.active_of(self.demand.service) == 0
                && self.failures.get(&load.id).is_none_or(|count| *count < FAULTY_AFTER)
    }

    /// For so many tasks: where the service is on no more nodes than that, to know them beforehand
    /// costs less than to look at each node that is met.
    pub(super) fn know_if_few(&mut self, tasks: usize) {
        if self.strategy.newcomers_first() && self.loads.places(self.demand.service) <= tasks {
            self.know_all(FAULTY_AFTER);
        }
    }

    /// Makes every node known where the service has tasks, or failed so often: O(nodes that the service
    /// knows).
    fn know_all(&mut self, failures: u32) {
        if std::mem::replace(&mut self.knows_all, true) {
            return;
        }
        let faulty = self.failures.iter().filter(|(_, count)| **count >= failures);
        let faulty = faulty.filter_map(|(node, _)| self.loads.seat(*node));
        let served = self.loads.places_of(self.demand.service);
        for seat in served.chain(faulty) {
            self.known.insert(seat);
        }
    }

    /// Ranks the nodes of a leaf that may suit: all of them, or those of a set.
    fn rank(&self, leaf: &mut Leaf<S::Score>, members: &Members, among: Option<&Bits>) {
        let open = &self.loads.shape().open;
        let ranked = |seat| Reverse((self.score(seat), seat));
        leaf.ranking = match members {
            Members::List(list) => {
                let may = |seat: &usize| open.contains(*seat);
                list.iter().copied().filter(may).map(ranked).collect()
            }
            members => {
                let set = match members {
                    Members::Set(set) => Some(&**set),
                    _ => None,
                };
                let next = |from| open.next_in(from, among, set, None);
                std::iter::successors(next(0), |seat| next(seat + 1)).map(ranked).collect()
            }
        };
    }

    fn score(&self, seat: usize) -> Rank<S::Score> {
        let load = self.loads.at(seat);
        let failures = self.failures.get(&load.id).copied().unwrap_or(0);
        let score = self.strategy.score(&Candidate { load, demand: self.demand, failures });
        (self.demand.missed_on(load), score)
    }
}
