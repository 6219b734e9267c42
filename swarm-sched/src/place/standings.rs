//! Pure: the nodes in the order of a strategy, kept from one decision to the next.
//!
//! Most strategies judge a node by what it carries. To place a task of a service then takes two looks:
//! at the few nodes where the service has tasks or has failed, whose scores are the service's own, and
//! at all others, its *newcomers*. A strategy may promise that the score of a newcomer is the same for
//! all services ([`Strategy::newcomers_alike`]). Their order is kept here, for the needs that were
//! asked for more than once, and between two decisions only those nodes are judged again that changed
//! ([`Journal`](super::journal::Journal)): O(log nodes) for each, where a ranking of its own costs O(nodes).
//!
//! Invariants of a [`Standing`] that was brought up to date: a seat is in `order`, with its key, if and
//! only if it has one in `keys`; whoever suits and has room has one, and it is the score of a newcomer.
//! What is full may have one: that is found when it is tried, and it is taken out until something on
//! the node ends.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::check::{ANSWERS_PER_CHECK, nth_seat};
use super::filter::Demand;
use super::loads::Loads;
use super::shape::Needs;
use super::strategy::{Candidate, Strategy};

/// For how many needs an order is kept, and of how many it is known that they were asked for once.
const KEPT: usize = if cfg!(test) { 2 } else { 8 };
const ONCE: usize = 32;

/// The orders that were asked for last, by one strategy.
pub(super) struct Standings<K> {
    /// The last one first.
    kept: Vec<Standing<K>>,
    once: Vec<Needs>,
}

/// All nodes that may suit certain needs, as newcomers to a service.
pub(super) struct Standing<K> {
    needs: Needs,
    order: BTreeSet<(K, usize)>,
    keys: Vec<Option<K>>,
    /// Up to which change of the loads it is right.
    at: u64,
    /// How often it was asked for.
    asked: u64,
}

impl<K> Default for Standings<K> {
    fn default() -> Self {
        Self { kept: Vec::new(), once: Vec::new() }
    }
}

impl<K: Ord + Clone> Standings<K> {
    /// The order for a demand, brought up to date, if the strategy allows that there is one and these
    /// needs were asked for before. The loads are [prepared](Loads::prepare) for the demand.
    pub(super) fn find<S: Strategy<Score = K>>(
        &mut self,
        strategy: &S,
        demand: &Demand<'_>,
        loads: &Loads,
    ) -> Option<&mut Standing<K>> {
        if !strategy.newcomers_alike() {
            return None;
        }
        let Some(at) = self.kept.iter().position(|standing| demand.is_for(&standing.needs)) else {
            let Some(again) = self.once.iter().position(|needs| demand.is_for(needs)) else {
                self.once.truncate(ONCE - 1);
                self.once.insert(0, demand.needs());
                return None;
            };
            self.kept.truncate(KEPT - 1);
            self.kept.insert(0, Standing::new(self.once.remove(again), strategy, loads));
            return self.kept.first_mut();
        };
        self.kept[..=at].rotate_right(1);
        let standing = self.kept.first_mut()?;
        standing.follow(strategy, loads);
        Some(standing)
    }

    /// What is not as it would be worked out anew, if anything is, after following the loads there.
    pub(super) fn wrong<S: Strategy<Score = K>>(
        &mut self,
        strategy: &S,
        loads: &mut Loads,
    ) -> Option<String> {
        self.kept.iter_mut().find_map(|standing| {
            loads.prepare(&Demand::from_needs(&standing.needs));
            standing.follow(strategy, loads);
            let wrong = |seat: &usize| !standing.is_right(*seat, strategy, loads);
            let seat = (0..loads.seats()).find(wrong)?;
            Some(format!("the place of node {} in an order", loads.at(seat).id))
        })
    }
}

impl<K: Ord + Clone> Standing<K> {
    fn new<S: Strategy<Score = K>>(needs: Needs, strategy: &S, loads: &Loads) -> Self {
        let stranger = Demand::from_needs(&needs);
        let key = |seat| key(seat, strategy, &stranger, loads);
        let keys: Vec<_> = (0..loads.seats()).map(key).collect();
        let seats = keys.iter().zip(0..).filter_map(|(key, seat)| Some((key.clone()?, seat)));
        let order = seats.collect();
        Self { needs, order, keys, at: loads.journal().changes(), asked: 0 }
    }

    /// Judges again what has changed: all of it where too much has.
    fn follow<S: Strategy<Score = K>>(&mut self, strategy: &S, loads: &Loads) {
        let changed = loads.journal().since(self.at).filter(|seats| seats.len() <= loads.seats());
        self.asked += 1;
        let right = changed.is_some_and(|seats| {
            let stranger = Demand::from_needs(&self.needs);
            for seat in seats.iter().map(|seat| *seat as usize) {
                let key = key(seat, strategy, &stranger, loads);
                if self.keys[seat] != key {
                    let old = std::mem::replace(&mut self.keys[seat], key.clone());
                    old.map(|old| self.order.remove(&(old, seat)));
                    self.order.extend(key.map(|key| (key, seat)));
                }
            }
            self.at = loads.journal().changes();
            self.sample(strategy, loads)
        });
        if !right {
            let (needs, asked) = (std::mem::take(&mut self.needs), self.asked);
            *self = Self { asked, ..Self::new(needs, strategy, loads) };
        }
    }

    /// Compares one node now and then. A difference would be a bug: it is logged.
    fn sample<S: Strategy<Score = K>>(&self, strategy: &S, loads: &Loads) -> bool {
        let nth = (self.asked / ANSWERS_PER_CHECK) as usize;
        let Some(seat) = nth_seat(nth, loads) else { return true };
        let right =
            !self.asked.is_multiple_of(ANSWERS_PER_CHECK) || self.is_right(seat, strategy, loads);
        debug_assert!(right, "the place of node {} in an order is wrong", loads.at(seat).id);
        if !right {
            let node = loads.at(seat).id;
            tracing::error!(%node, "its place in an order was wrong: a bug; ranking anew");
        }
        right
    }

    fn is_right<S: Strategy<Score = K>>(&self, seat: usize, strategy: &S, loads: &Loads) -> bool {
        let (stranger, load) = (Demand::from_needs(&self.needs), loads.at(seat));
        let suits = stranger.suits(load);
        match &self.keys[seat] {
            Some(known) => {
                let score = score(seat, strategy, &stranger, loads);
                suits && *known == score && self.order.contains(&(score, seat))
            }
            None => !suits || !stranger.has_room(load),
        }
    }

    /// The best node after this one, or of all of them.
    pub(super) fn next(&self, after: Option<&(K, usize)>) -> Option<&(K, usize)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.order.range((from, Bound::Unbounded)).next()
    }

    /// A node turned out to be full.
    pub(super) fn take_out(&mut self, seat: usize) {
        let key = self.keys[seat].take();
        key.map(|key| self.order.remove(&(key, seat)));
    }
}

/// The score of a node that may suit, to which a service is new.
fn key<S: Strategy>(
    seat: usize,
    strategy: &S,
    stranger: &Demand<'_>,
    loads: &Loads,
) -> Option<S::Score> {
    loads.shape().open.contains(seat).then(|| score(seat, strategy, stranger, loads))
}

fn score<S: Strategy>(seat: usize, strategy: &S, stranger: &Demand<'_>, loads: &Loads) -> S::Score {
    strategy.score(&Candidate { load: loads.at(seat), demand: stranger, failures: 0 })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use swarm_core::model::{Node, Task};
    use swarm_core::store::Snapshot;

    use super::*;
    use crate::place::BinPack;
    use crate::world::World;

    /// A cluster of a few nodes with some tasks, and its loads.
    fn cluster(nodes: usize) -> (World, Loads) {
        let mut world = World::new();
        for number in 0..nodes {
            let memory = |node: &mut Node| {
                let resources = &mut node.description.get_or_insert_default().resources;
                resources.memory_bytes = 1 << 30;
            };
            world.node(&number.to_string(), memory);
        }
        world.service("web", nodes as u64 / 2, |_| {});
        world.settle();
        let loads = Loads::of(&world.view());
        (world, loads)
    }

    fn find<'a>(
        standings: &'a mut Standings<<BinPack as Strategy>::Score>,
        needs: &Needs,
        loads: &mut Loads,
    ) -> Option<&'a mut Standing<<BinPack as Strategy>::Score>> {
        let demand = Demand::from_needs(needs);
        loads.prepare(&demand);
        standings.find(&BinPack, &demand, loads)
    }

    #[test]
    fn an_order_is_kept_of_what_is_asked_for_again_and_follows_the_loads() {
        let (mut world, mut loads) = cluster(8);
        let (mut standings, needs) = (Standings::default(), Needs::default());
        assert!(find(&mut standings, &needs, &mut loads).is_none(), "asked for once");
        assert_eq!(find(&mut standings, &needs, &mut loads).unwrap().order.len(), 8);
        // One that joins moves the seats; one that is drained suits nothing; tasks come and go.
        let mut before = world.view();
        for round in 0..40 {
            match round % 4 {
                0 => drop(world.node(&format!("new{round}"), |_| {})),
                1 => {
                    let node = world.view().nodes.iter().next().unwrap().id;
                    let drain = swarm_core::model::Availability::Drain;
                    world.edit_node(node, |node| node.spec.availability = drain);
                }
                2 => drop(world.service(&format!("more{round}"), 3, |_| {})),
                _ => {
                    let running = |task: &&Arc<Task>| task.node_id.is_some();
                    let id = world.view().tasks.by_service().find(running).unwrap().id;
                    world.erase(id);
                }
            }
            world.settle();
            let view: Snapshot = world.view();
            loads.follow(&before, &view);
            before = view;
            let standing = find(&mut standings, &needs, &mut loads).unwrap();
            let open = (0..loads.seats()).filter(|seat| loads.shape().open.contains(*seat));
            assert_eq!(standing.order.len(), open.count());
            assert_eq!(standings.wrong(&BinPack, &mut loads), None, "round {round}");
        }
    }

    #[test]
    fn a_wrong_place_is_found() {
        let (_, mut loads) = cluster(8);
        let (mut standings, needs) = (Standings::default(), Needs::default());
        for plant in [
            // A score of another time; a node that is in the order and nowhere else; one left out.
            |it: &mut Standing<_>| {
                it.keys[3] = it.keys[0].map(|(faults, _)| (faults + 1, Default::default()))
            },
            |it: &mut Standing<_>| it.order.pop_last().into_iter().for_each(drop),
            |it: &mut Standing<_>| it.take_out(2),
        ] as [fn(&mut Standing<<BinPack as Strategy>::Score>); 3]
        {
            find(&mut standings, &needs, &mut loads);
            let standing = find(&mut standings, &needs, &mut loads).unwrap();
            plant(standing);
            let wrong = standings.wrong(&BinPack, &mut loads).expect("it is found");
            assert!(wrong.contains("in an order"), "{wrong}");
            standings = Standings::default();
        }
    }
}
