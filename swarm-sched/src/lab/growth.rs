//! Pure: what one more decision costs on clusters of several sizes.

use std::sync::Arc;

use serde::Serialize;
use swarm_core::control::Ctx;
use swarm_core::id::IdSource;
use swarm_core::model::{Cluster, Node, NodeId, NodeState, ServiceId, Task, TaskState, TaskStatus};
use swarm_core::scheduler::{PlacementView, Scheduler as _};
use swarm_core::store::{Batch, Change, Epoch, MemoryStore, Snapshot, Store as _};
use swarm_core::time::Timestamp;

use super::dice::Dice;
use super::sizes::{Family, Size};
use super::speed::{Speed, Timed};
use super::{Clock, Contender};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const CHANGES_PER_COMMIT: usize = 10_000;

/// One strategy on a cluster of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Growth {
    /// The strategy.
    pub strategy: String,
    /// How many nodes there are, with one task on each.
    pub nodes: usize,
    /// What a single task of a new service cost, once the loads were added up, where tasks that
    /// reserve as much and ask for the same were placed before.
    pub known: Speed,
    /// The same where every task reserves what none before did.
    pub new: Speed,
}

/// A cluster with one running task on each node.
pub(super) fn cluster(nodes: usize, seed: u64) -> Snapshot {
    let (mut ids, mut dice) = (IdSource::seeded(seed), Dice::new(seed, "growth"));
    let store = MemoryStore::default();
    let service = ids.next();
    let mut changes = Vec::new();
    for _ in 0..nodes {
        let mut node = Node { id: dice.id(), ..Node::default() };
        node.status.state = NodeState::Ready;
        let resources = Family::Google.machine(&mut dice).resources();
        node.description.get_or_insert_default().resources = resources;
        changes.push(Change::create(task(&mut ids, service, Some(node.id), Size::of(1.0, 4.0))));
        changes.push(Change::create(node));
    }
    for changes in changes.chunks(CHANGES_PER_COMMIT) {
        store.apply(&Batch::new(NOW, changes.to_vec())).expect("the objects are new");
    }
    store.snapshot()
}

/// Both rows of one strategy.
pub(super) fn measure(
    contender: &Contender,
    start: &Snapshot,
    decisions: usize,
    by: (&Clock, u64),
) -> Growth {
    let known = one_by_one(contender, start, by, decisions, |_| 1.0);
    let new = one_by_one(contender, start, by, decisions, |number| number as f64);
    Growth { strategy: contender.name.clone(), nodes: start.nodes.len(), known, new }
}

/// Places and commits so many tasks one after another, each of a service of its own, and each of its size in
/// hundredths of a core.
fn one_by_one(
    contender: &Contender,
    start: &Snapshot,
    (clock, seed): (&Clock, u64),
    decisions: usize,
    size: impl Fn(usize) -> f64,
) -> Speed {
    let (mut ids, mut dice) = (IdSource::seeded(!seed), Dice::new(seed, "one more"));
    let store = MemoryStore::new(start.clone());
    let commit = |change| store.apply_owned(Batch::new(NOW, vec![change])).expect("it is legal");
    let mut cluster = Cluster { id: ids.next(), ..Cluster::default() };
    cluster.spec.labels = contender.labels();
    commit(Change::create(cluster));
    let scheduler = contender.scheduler();
    let timed = Timed::new(scheduler.clone(), clock.clone());
    for number in 0..=decisions {
        let size = Size::of(0.25 + size(number) / 100.0, 0.5);
        let task = task(&mut ids, dice.id(), None, size);
        let id = task.id;
        commit(Change::create(task));
        let view = store.snapshot();
        let tasks = [view.tasks.get(id).expect("it was committed").clone()];
        let asked = PlacementView { snapshot: &view, service: None, tasks: &tasks };
        let mut ctx = Ctx::new(NOW, &mut ids, Epoch(1));
        // The first answer adds every node up, once in a leader's term: it is not counted.
        let answer = if number == 0 {
            scheduler.place(&asked, &mut ctx)
        } else {
            timed.place(&asked, &mut ctx)
        };
        if let Some(placed) = answer.placed.first() {
            let mut task = Task::clone(&tasks[0]);
            task.node_id = Some(placed.node);
            task.status.state = TaskState::Assigned;
            commit(Change::update(task));
        }
    }
    timed.speed()
}

fn task(ids: &mut IdSource, service: ServiceId, node: Option<NodeId>, size: Size) -> Task {
    let state = if node.is_some() { TaskState::Running } else { TaskState::Pending };
    let mut task = Task {
        id: ids.next(),
        service_id: service,
        node_id: node,
        desired_state: TaskState::Running,
        status: TaskStatus::new(state, NOW, ""),
        ..Task::default()
    };
    let resources = Arc::make_mut(&mut task.spec).resources.get_or_insert_default();
    resources.reservations = Some(size.resources());
    task
}
