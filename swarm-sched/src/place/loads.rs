//! Pure: what all nodes carry, kept up to date from one view to the next.
//!
//! # What is kept
//!
//! Everything here is derived from one view of the store, and could be added up from it at any
//! time, which costs O(tasks + nodes); so a new leader starts with nothing, and `Loads::of` says
//! what is right. To [`follow`](Loads::follow) a view costs O(what changed · log).
//!
//! A node's *seat* is its place in the order of ids, so that the lowest seat of a set is the
//! lowest id. For each of these structures: what it is, who reads it, what a task that comes or
//! goes costs it.
//!
//! | structure | what for | a task |
//! |---|---|---|
//! | `nodes`: a [`NodeLoad`] for each seat | filters, scores | O(log services on the node) |
//! | `services`: the seats of each service, where it failed | what spread looks at first | O(1); O(its seats) where its last one goes |
//! | `Ladder`: which seats have how many tasks | the emptiest node without a search | O(log rungs) |
//! | `Shapes`: which seats may suit certain needs | no filter is asked twice | O(shapes) when it ends |
//! | `labels`: the seats by the value of a label, and each of these by another label | branches of placement preferences | nothing |
//! | `journal`: which seats changed | orders that are kept (`standings`) | O(1) |
//!
//! How many tasks of a service a node has, the node's load knows alone: a service has a list of
//! seats, no counts. A node that comes or goes moves the seats: O(nodes + seats of services). One
//! that changes costs O(its tasks).
//!
//! # What is assumed
//!
//! What was answered is usually what is in the next view, so it stays counted, and is noted in
//! `assumed`, in the order of the answers; following a view in which it did not come true takes it
//! back. Within a step views are not even followed: it is enough that the last answer came true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_core::id::IdMap;
use swarm_core::model::{GenericResource, Node, NodeId, ServiceId, Task, TaskId};
use swarm_core::scheduler::{Overcommit, Placed};
use swarm_core::store::{Event, Snapshot, Staged};
use swarm_core::time::Timestamp;

use super::constraint::label_of;
use super::failures::{self, Failures};
use super::filter::Demand;
use super::journal::Journal;
use super::labels::{LabelValues, Labels, Members};
use super::ladder::Ladder;
use super::load::{NodeLoad, Presence, Share, occupies, reservation};
use super::shape::{Shape, Shapes};

/// The loads of all nodes of one view.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    nodes: Vec<NodeLoad>,
    seats: IdMap<NodeId, usize>,
    services: IdMap<ServiceId, ServiceLoad>,
    ladder: Ladder,
    shapes: Shapes,
    labels: Labels,
    journal: Journal,
    assumed: Vec<Assumed>,
    overcommit: Overcommit,
}

/// Where a service is.
#[derive(Clone, Debug, Default)]
struct ServiceLoad {
    /// The seats of the nodes that have tasks of it that shall run, each once. Nobody asks for them
    /// in order.
    seats: Vec<u32>,
    /// Where it failed.
    failed: Failures,
}

impl PartialEq for ServiceLoad {
    fn eq(&self, other: &Self) -> bool {
        let sorted = |load: &Self| {
            let mut seats = load.seats.clone();
            seats.sort_unstable();
            seats
        };
        sorted(self) == sorted(other) && self.failed == other.failed
    }
}

/// A task that was given a node, which may never come true.
#[derive(Clone, Debug)]
struct Assumed {
    task: Arc<Task>,
    node: NodeId,
    generic: Vec<GenericResource>,
}

/// What is derived is compared; what is only remembered is not.
impl PartialEq for Loads {
    fn eq(&self, other: &Self) -> bool {
        self.nodes == other.nodes
            && self.seats == other.seats
            && self.services == other.services
            && self.ladder == other.ladder
    }
}

impl Loads {
    /// Adds up the tasks of every node: O(tasks).
    #[must_use]
    pub fn of(view: &Snapshot) -> Self {
        let mut loads = Self::default();
        loads.follow(&Snapshot::default(), view);
        loads
    }

    /// No loads yet; what nodes report will be counted so.
    #[must_use]
    pub fn new(overcommit: Overcommit) -> Self {
        Self { overcommit, ..Self::default() }
    }

    /// As good as new, to be added up again. What follows it finds that out.
    pub(super) fn anew(&self) -> Self {
        let mut journal = self.journal.clone();
        journal.forget();
        Self { journal, overcommit: self.overcommit, ..Self::default() }
    }

    /// Turns the loads of one view into those of another: O(changes) where one view came from
    /// the other.
    pub fn follow(&mut self, from: &Snapshot, to: &Snapshot) {
        self.follow_nodes(from, to);
        let mut assumed: Vec<_> = std::mem::take(&mut self.assumed).into_iter().map(Some).collect();
        let tasks = assumed.iter().flatten().map(|assumed| assumed.task.id);
        let answers: IdMap<TaskId, usize> = tasks.zip(0..).collect();
        to.tasks.for_each_since(&from.tasks, |old, new| {
            let (before, after) = (old.map(|old| &**old), new.map(|new| &**new));
            if !failures::same(before, after) {
                self.note(before, after);
            }
            let answer = old.and_then(|old| answers.get(&old.id));
            match (answer.and_then(|answer| assumed[*answer].take()), old, new) {
                (Some(assumed), _, Some(new)) if assumed.came_true(new) => {}
                (None, Some(old), Some(new)) if same_share(old, new) => {}
                (assumed, old, new) => {
                    match assumed {
                        Some(assumed) => self.retract(&assumed),
                        None => old.into_iter().for_each(|task| self.count(task, -1)),
                    }
                    new.into_iter().for_each(|task| self.count(task, 1));
                }
            }
        });
        assumed.iter().flatten().for_each(|assumed| self.retract(assumed));
    }

    /// Whether what was written is the last answer, of so many tasks, come true.
    pub(super) fn came_true(&self, count: usize, written: &[Staged]) -> bool {
        let given = self.assumed.len().checked_sub(count).map(|given| &self.assumed[given..]);
        given.is_some_and(|given| {
            given.len() == written.len()
                && given.iter().zip(written).all(|(assumed, written)| {
                    let event = written.as_ref().ok().and_then(Option::as_ref);
                    event
                        .and_then(Event::new_task)
                        .is_some_and(|task| task.id == assumed.task.id && assumed.came_true(task))
                })
        })
    }

    /// Nodes that are new or differ are added up from the old tasks; then those can be followed.
    fn follow_nodes(&mut self, from: &Snapshot, to: &Snapshot) {
        let mut changes = to.nodes.changes_since(&from.nodes).peekable();
        if changes.peek().is_none() {
            return;
        }
        self.retract_all();
        let (mut come, mut gone) = (Vec::new(), false);
        for (old, new) in changes {
            match (old, new) {
                (Some(_), Some(node)) => self.renew(node, from),
                (None, Some(node)) => come.push(self.added_up(node, from)),
                (_, None) => gone = true,
            }
        }
        if gone || !come.is_empty() {
            self.seat_anew(come, to);
        }
    }

    /// Seats the nodes of a view, some of which come, in order of id, and moves what knows seats.
    fn seat_anew(&mut self, mut come: Vec<NodeLoad>, to: &Snapshot) {
        let before: Vec<_> = self.nodes.iter().map(|load| load.id).collect();
        let new: Vec<_> = come.iter().map(|load| load.id).collect();
        self.nodes.retain(|load| to.nodes.get(load.id).is_some());
        self.nodes.append(&mut come);
        self.nodes.sort_by_key(|load| load.id);
        let seats = self.nodes.iter().enumerate();
        self.seats = seats.map(|(seat, load)| (load.id, seat)).collect();
        let moved: Vec<_> = before.iter().map(|node| self.seat(*node)).collect();
        self.services.retain(|_, service| {
            let seats = service.seats.iter().filter_map(|seat| moved[*seat as usize]);
            service.seats = seats.map(narrow).collect();
            !service.is_empty()
        });
        for seat in new.iter().filter_map(|node| self.seats.get(node).copied()) {
            for (service, _) in self.nodes[seat].services() {
                self.services.entry(service).or_default().seats.push(narrow(seat));
            }
        }
        self.ladder = Ladder::of(self.nodes.iter().map(NodeLoad::active));
        self.shapes.clear();
        self.labels.clear();
        self.journal.forget();
    }

    fn renew(&mut self, node: &Arc<Node>, view: &Snapshot) {
        let Some(seat) = self.seat(node.id) else { return };
        let load = self.added_up(node, view);
        self.ladder.climb(seat, self.nodes[seat].active(), load.active());
        self.shapes.renew(seat, &load);
        self.labels.renew(&self.nodes[seat].node, node);
        self.nodes[seat] = load;
        self.journal.note(narrow(seat), self.nodes.len());
    }

    /// Counts what a task of the view is and takes: once (1), or not any more (-1).
    fn count(&mut self, task: &Task, sign: i64) {
        let Some(node) = task.node_id else { return };
        if occupies(task) {
            let share = Share { task, claims: &task.generic_resources };
            self.share(self.seat(node), &share, sign);
        }
    }

    /// Replaces the failures that a task told of by those that it tells of now.
    fn note(&mut self, before: Option<&Task>, after: Option<&Task>) {
        if let Some(task) = after {
            self.services.entry(task.service_id).or_default().failed.note(task);
        }
        if let Some(task) = before {
            self.services.entry(task.service_id).or_default().failed.forget(task);
            self.forget_empty(task.service_id);
        }
    }

    /// Changes the load of a node, and all that is derived from it. One that is not there has no
    /// seat: it is added up when it comes.
    fn share(&mut self, seat: Option<usize>, share: &Share<'_>, sign: i64) {
        let Some(seat) = seat else { return };
        let service = share.task.service_id;
        let load = &mut self.nodes[seat];
        let before = load.active();
        let presence = load.change(share, sign);
        self.ladder.climb(seat, before, load.active());
        self.journal.note(narrow(seat), self.nodes.len());
        match presence {
            Presence::Begins => {
                self.services.entry(service).or_default().seats.push(narrow(seat));
            }
            Presence::Stays => {}
            Presence::Ends => self.leave(service, seat),
        }
        if sign < 0 {
            self.shapes.reopen(seat);
        }
    }

    fn leave(&mut self, service: ServiceId, seat: usize) {
        if let Some(load) = self.services.get_mut(&service) {
            let at = load.seats.iter().position(|known| *known == narrow(seat));
            at.map(|at| load.seats.swap_remove(at));
        }
        self.forget_empty(service);
    }

    fn forget_empty(&mut self, service: ServiceId) {
        if self.services.get(&service).is_some_and(ServiceLoad::is_empty) {
            self.services.remove(&service);
        }
    }

    /// Puts a task on a node that it fits on, and assumes that this will be. Its affinities
    /// are told by [`Demand::settle_at`].
    pub(super) fn settle(&mut self, task: &Arc<Task>, seat: usize) -> Placed {
        let node = self.nodes[seat].id;
        let wanted: &[GenericResource] = reservation(task).map_or(&[], |it| &it.generic);
        let generic = self.nodes[seat].choose_all(wanted).unwrap_or_default();
        self.share(Some(seat), &Share { task, claims: &generic }, 1);
        self.assumed.push(Assumed { task: task.clone(), node, generic: generic.clone() });
        Placed { task: task.id, node, generic }
    }

    fn retract(&mut self, assumed: &Assumed) {
        let share = Share { task: &assumed.task, claims: &assumed.generic };
        self.share(self.seat(assumed.node), &share, -1);
    }

    fn retract_all(&mut self) {
        let left = std::mem::take(&mut self.assumed);
        left.iter().for_each(|assumed| self.retract(assumed));
    }

    /// A node with the tasks that a view has on it.
    fn added_up(&self, node: &Arc<Node>, view: &Snapshot) -> NodeLoad {
        let mut load = NodeLoad::empty(node.clone(), self.overcommit);
        view.tasks_on(node.id).filter(|task| occupies(task)).for_each(|task| {
            load.change(&Share { task, claims: &task.generic_resources }, 1);
        });
        load
    }

    /// One node.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&NodeLoad> {
        self.seat(node).map(|seat| &self.nodes[seat])
    }

    /// Every node, in order of id.
    pub fn iter(&self) -> impl Iterator<Item = &NodeLoad> {
        self.nodes.iter()
    }

    pub(super) fn seat(&self, node: NodeId) -> Option<usize> {
        self.seats.get(&node).copied()
    }

    pub(super) fn at(&self, seat: usize) -> &NodeLoad {
        &self.nodes[seat]
    }

    pub(super) fn seats(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// The shape of the demand that was prepared for last.
    pub(super) fn shape(&self) -> &Shape {
        self.shapes.front()
    }

    /// Makes the shape of a demand the present one.
    pub(super) fn prepare(&mut self, demand: &Demand<'_>) {
        self.shapes.find(demand, &self.nodes);
    }

    /// Whether a node that suits the present shape has room; notes where it has not.
    pub(super) fn has_room(&mut self, demand: &Demand<'_>, seat: usize) -> bool {
        let room = demand.has_room(&self.nodes[seat]);
        if !room {
            self.shapes.close(seat);
        }
        room
    }

    /// How what nodes report is counted.
    pub(super) fn overcommit(&self) -> Overcommit {
        self.overcommit
    }

    /// The values of a label, with the seats of the nodes that have them.
    pub(super) fn values(&mut self, descriptor: &str) -> Arc<LabelValues> {
        self.labels.find(
            descriptor,
            self.nodes.iter().map(|load| label_of(&load.node, descriptor).unwrap_or("")),
        )
    }

    /// Some seats by the value of a label that they have.
    pub(super) fn divide(
        &mut self,
        members: &Members,
        by: &Arc<LabelValues>,
    ) -> Arc<BTreeMap<usize, Members>> {
        self.labels.divide(members, by)
    }

    /// Which nodes changed.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Prepares to settle so many tasks.
    pub(super) fn expect(&mut self, count: usize) {
        self.assumed.reserve(count);
    }

    /// How many nodes a service has tasks on that shall run.
    pub(super) fn places(&self, service: ServiceId) -> usize {
        self.services.get(&service).map_or(0, |service| service.seats.len())
    }

    /// The seats where a service has tasks that shall run.
    pub(super) fn places_of(&self, service: ServiceId) -> impl Iterator<Item = usize> {
        let seats = self.services.get(&service).into_iter().flat_map(|service| &service.seats);
        seats.map(|seat| *seat as usize)
    }

    /// How often tasks of this version of the service failed on each node within the last five
    /// minutes. From what the tasks in the store tell, so that a new leader knows it too.
    pub(super) fn failures(&self, task: &Task, now: Timestamp) -> BTreeMap<NodeId, u32> {
        let service = self.services.get(&task.service_id);
        let recent = service.map(|service| service.failed.recent(task.spec_version, now));
        recent.unwrap_or_default()
    }

    /// What differs from what the view says, if anything does. Nothing may be assumed.
    pub(super) fn wrong(&self, view: &Snapshot) -> Option<String> {
        let node = (0..self.seats()).find(|seat| !self.is_right(*seat, view));
        if let Some(seat) = node {
            return Some(format!("node {}", self.nodes[seat].id));
        }
        if self.seats() != view.nodes.len() || self.seats.len() != view.nodes.len() {
            return Some("the nodes".to_owned());
        }
        let services: BTreeSet<_> = view.tasks.iter().map(|task| task.service_id).collect();
        if let Some(service) = services.iter().find(|it| !self.is_right_about(**it, view)) {
            return Some(format!("service {service}"));
        }
        let known = services.iter().filter(|service| self.services.contains_key(*service)).count();
        (known != self.services.len()).then(|| "a service without tasks".to_owned())
    }

    /// Whether what is known of a service is what its tasks in the view say: where it has some that
    /// shall run, and where it failed. O(its tasks). Nothing may be assumed.
    pub(super) fn is_right_about(&self, service: ServiceId, view: &Snapshot) -> bool {
        let mut said = ServiceLoad::default();
        let mut seats = BTreeSet::new();
        for task in view.tasks_of(service) {
            said.failed.note(task);
            if occupies(task) && task.is_wanted() {
                seats.extend(task.node_id.and_then(|node| self.seat(node)).map(narrow));
            }
        }
        said.seats.extend(seats);
        self.services.get(&service).map_or(said.is_empty(), |known| *known == said)
    }

    /// Whether one node is as its tasks in the view say, in every structure: O(its tasks, and the
    /// seats of their services). Nothing may be assumed.
    pub(super) fn is_right(&self, seat: usize, view: &Snapshot) -> bool {
        let load = &self.nodes[seat];
        let Some(node) = view.nodes.get(load.id) else { return false };
        let seated = |service| self.places_of(service).filter(|known| *known == seat).count() == 1;
        *load == self.added_up(node, view)
            && self.ladder.is_right(seat, load.active())
            && load.services().all(|(service, _)| seated(service))
            && self.shapes.are_right(seat, load)
            && self.labels.are_right(seat, |seat| &self.nodes[seat].node)
            && self.seat(load.id) == Some(seat)
    }
}

impl ServiceLoad {
    fn is_empty(&self) -> bool {
        self.seats.is_empty() && self.failed.is_empty()
    }
}

#[cfg(test)]
#[path = "loads_tests.rs"]
mod tests;

/// A seat in half the room: there are fewer nodes than that.
fn narrow(seat: usize) -> u32 {
    u32::try_from(seat).expect("a cluster has fewer than 4,294,967,296 nodes")
}

impl Assumed {
    /// Whether a task is now where it was assumed to be, taking what it was assumed to take.
    fn came_true(&self, task: &Task) -> bool {
        occupies(task)
            && task.node_id == Some(self.node)
            && task.generic_resources == self.generic
            && same_demand(&self.task, task)
    }
}

/// Whether a task takes the same from the same node as before.
fn same_share(old: &Task, new: &Task) -> bool {
    old.node_id == new.node_id
        && occupies(old) == occupies(new)
        && old.generic_resources == new.generic_resources
        && same_demand(old, new)
}

fn same_demand(old: &Task, new: &Task) -> bool {
    let same_endpoint = match (&old.endpoint, &new.endpoint) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
        (old, new) => old.is_none() && new.is_none(),
    };
    old.service_id == new.service_id
        && old.spec_version == new.spec_version
        && old.is_wanted() == new.is_wanted()
        && same_endpoint
        && (Arc::ptr_eq(&old.spec, &new.spec) || reservation(old) == reservation(new))
}
