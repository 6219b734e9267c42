//! The suite of [`Strategy`]: whether its promises are true, on many clusters that seeds made up.
//!
//! A promise lets a scheduler leave most nodes unasked. Whether it is true shows only against the same
//! scores without it, and only once a scheduler has something to go by, which it keeps of questions
//! that it has answered before. So one that was given the strategy follows a cluster through a history,
//! and every answer of it is held against that of another, which is new and asks about every node.

use std::sync::Arc;

use swarm_core::control::Ctx;
use swarm_core::id::IdSource;
use swarm_core::model::{
    Availability, Node, NodeId, NodeState, Service, Task, TaskState, TaskStatus, Version,
};
use swarm_core::scheduler::{Placed, PlacementView, Placements, Scheduler};
use swarm_core::store::{Change, Epoch, Snapshot};
use swarm_core::time::Timestamp;

use crate::place::{Candidate, FAULTY_AFTER, FilterScheduler, Strategy};

/// Clusters that seeds make up, and questions about each.
const SEEDS: u64 = 32;
const QUESTIONS: usize = 40;
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// Runs the suite, and that of schedulers with the strategy behind all filters. `make` returns the
/// strategy; it is called many times. `dress` gives a node the labels that the strategy goes by, if it
/// goes by any: it is called for each node, now and again, with something to draw from.
///
/// ```
/// use swarm_sched::{conformance, place::LeastLoaded};
/// conformance::strategy::suite(
///     || LeastLoaded::by("node.labels.watts", 5),
///     |node, dice| drop(node.spec.labels.insert("watts".into(), dice.below(50).to_string())),
/// );
/// ```
///
/// # Panics
/// With a sentence that names the promise that the strategy broke.
pub fn suite<S: Strategy>(make: impl Fn() -> S, dress: impl Fn(&mut Node, &mut IdSource)) {
    swarm_core::conformance::scheduler::suite(|| Box::new(FilterScheduler::new(make())));
    let strategy = make();
    let promises = [
        strategy.newcomers_first().then_some(Promise::NewcomersFirst),
        strategy.newcomers_alike().then_some(Promise::NewcomersAlike),
    ];
    for promise in promises.into_iter().flatten() {
        (0..SEEDS).for_each(|seed| hold(promise, seed, &make, &dress));
    }
}

/// One of a strategy's promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    NewcomersFirst,
    NewcomersAlike,
}

/// A strategy of which one promise is believed, or none.
struct Believed<S> {
    strategy: S,
    promise: Option<Promise>,
}

impl<S: Strategy> Strategy for Believed<S> {
    type Score = S::Score;

    fn score(&self, candidate: &Candidate<'_>) -> Self::Score {
        self.strategy.score(candidate)
    }

    fn newcomers_first(&self) -> bool {
        self.promise == Some(Promise::NewcomersFirst)
    }

    fn newcomers_alike(&self) -> bool {
        self.promise == Some(Promise::NewcomersAlike)
    }
}

/// Plays one history.
fn hold<S: Strategy>(
    promise: Promise,
    seed: u64,
    make: &impl Fn() -> S,
    dress: &impl Fn(&mut Node, &mut IdSource),
) {
    let scheduler = |promise| FilterScheduler::new(Believed { strategy: make(), promise });
    let believing = scheduler(Some(promise));
    let mut cluster = Cluster::new(seed, dress);
    for question in 0..QUESTIONS {
        cluster.go_on(dress);
        let (service, tasks) = cluster.wait();
        let answer = cluster.ask(&believing, &service, &tasks);
        let right = cluster.ask(&scheduler(None), &service, &tasks);
        let pairs = answer.placed.iter().zip(&right.placed);
        if let Some((went, should)) = pairs.into_iter().find(|(a, b)| a != b) {
            panic!(
                "the promise {promise:?} is not true: with it a task went to the node {}, by the \
                 scores alone it goes to {} (seed {seed}, question {question})",
                went.node, should.node
            );
        }
        assert_eq!(answer, right, "the promise {promise:?} is not true");
        cluster.come_true(answer.placed);
    }
}

/// A cluster with a few services, some of which need the same.
struct Cluster {
    view: Snapshot,
    ids: IdSource,
    services: Vec<Arc<Service>>,
    slots: u64,
}

impl Cluster {
    fn new(seed: u64, dress: &impl Fn(&mut Node, &mut IdSource)) -> Self {
        let (view, ids) = (Snapshot::default(), IdSource::seeded(seed));
        let mut cluster = Self { view, ids, services: Vec::new(), slots: 0 };
        for number in 0..6 {
            let mut service = Service { id: cluster.ids.next(), ..Service::default() };
            service.spec.name = format!("service-{number}");
            let spec = Arc::make_mut(&mut service.spec.task);
            let resources = spec.resources.get_or_insert_default();
            let reserved = resources.reservations.get_or_insert_default();
            // Two kinds of needs: few enough for what is kept of each to be used.
            (reserved.memory_bytes, reserved.nano_cpus) =
                if number % 2 == 0 { (1_000, 0) } else { (300, 500) };
            cluster.stage(Change::create(service.clone()));
            cluster.services.push(Arc::new(service));
        }
        (0..4 + cluster.ids.below(12)).for_each(|_| cluster.join(dress));
        cluster
    }

    fn stage(&mut self, change: Change) {
        self.view.stage(change, NOW).expect("the suite's own writes are legal");
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.ids.below(count) == 0
    }

    fn pick<T>(&mut self, from: impl IntoIterator<Item = T>) -> Option<T> {
        let mut from: Vec<T> = from.into_iter().collect();
        let at = self.ids.below(from.len().max(1) as u64);
        usize::try_from(at).ok().filter(|at| *at < from.len()).map(|at| from.swap_remove(at))
    }

    fn node(&mut self) -> Option<NodeId> {
        let nodes: Vec<_> = self.view.nodes.iter().map(|node| node.id).collect();
        self.pick(nodes)
    }

    fn join(&mut self, dress: &impl Fn(&mut Node, &mut IdSource)) {
        let mut node = Node { id: self.ids.next(), ..Node::default() };
        node.status.state = NodeState::Ready;
        let resources = &mut node.description.get_or_insert_default().resources;
        // Of different sizes and shapes.
        resources.memory_bytes = (2_000 * (1 + self.ids.below(4))).cast_signed();
        resources.nano_cpus = (2_000 * (1 + self.ids.below(4))).cast_signed();
        dress(&mut node, &mut self.ids);
        self.stage(Change::create(node));
    }

    /// Some of what happens between two questions.
    fn go_on(&mut self, dress: &impl Fn(&mut Node, &mut IdSource)) {
        if self.one_in(20) {
            self.join(dress);
        }
        let some = self.node().filter(|_| self.one_in(3));
        if let Some(node) = some.and_then(|node| self.view.nodes.get(node).cloned()) {
            let mut node = Node::clone(&node);
            let drains = node.spec.availability == Availability::Active && self.one_in(4);
            node.spec.availability =
                if drains { Availability::Drain } else { Availability::Active };
            dress(&mut node, &mut self.ids);
            self.stage(Change::update(node));
        }
        let node = self.node().filter(|_| self.one_in(2));
        if let (Some(node), Some(service)) = (node, self.pick(self.services.clone())) {
            for _ in 0..=self.ids.below(u64::from(FAULTY_AFTER) + 1) {
                self.task(&service, |task| {
                    task.node_id = Some(node);
                    task.status = TaskStatus::new(TaskState::Failed, NOW, "");
                });
            }
        }
        for _ in 0..self.ids.below(4) {
            let runs = |task: &&Arc<Task>| task.status.state == TaskState::Assigned;
            let running: Vec<_> = self.view.tasks.iter().filter(runs).cloned().collect();
            let Some(task) = self.pick(running) else { return };
            let mut task = Task::clone(&task);
            task.desired_state = TaskState::Shutdown;
            task.status = TaskStatus::new(TaskState::Shutdown, NOW, "");
            self.stage(Change::update(task));
        }
    }

    fn task(&mut self, service: &Service, edit: impl FnOnce(&mut Task)) -> Arc<Task> {
        self.slots += 1;
        let mut task = Task {
            id: self.ids.next(),
            service_id: service.id,
            slot: self.slots,
            spec: service.spec.task.clone(),
            spec_version: Version(1),
            desired_state: TaskState::Running,
            status: TaskStatus::new(TaskState::Pending, NOW, ""),
            ..Task::default()
        };
        edit(&mut task);
        let id = task.id;
        self.stage(Change::create(task));
        self.view.tasks.get(id).expect("it was just written").clone()
    }

    /// Tasks that wait, of one of the services.
    fn wait(&mut self) -> (Arc<Service>, Vec<Arc<Task>>) {
        let service = self.pick(self.services.clone()).expect("there are some");
        let tasks = (0..=self.ids.below(3)).map(|_| self.task(&service, |_| {})).collect();
        (service, tasks)
    }

    fn ask(
        &self,
        scheduler: &dyn Scheduler,
        service: &Arc<Service>,
        tasks: &[Arc<Task>],
    ) -> Placements {
        let mut ids = IdSource::seeded(1);
        let mut ctx = Ctx::new(NOW, &mut ids, Epoch(1));
        let view = PlacementView { snapshot: &self.view, service: Some(service), tasks };
        scheduler.place(&view, &mut ctx)
    }

    /// Most answers do.
    fn come_true(&mut self, placed: Vec<Placed>) {
        for placed in placed {
            if self.one_in(8) {
                continue;
            }
            let task = self.view.tasks.get(placed.task).expect("it was asked about");
            let mut task = Task::clone(task);
            task.node_id = Some(placed.node);
            task.status = TaskStatus::new(TaskState::Assigned, NOW, "");
            self.stage(Change::update(task));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use super::*;
    use crate::place::{BinPack, LeastLoaded, Random, Spread};

    fn bare(_: &mut Node, _: &mut IdSource) {}

    fn report(node: &mut Node, dice: &mut IdSource) {
        let labels = &mut node.description.get_or_insert_default().engine.labels;
        labels.insert("load".to_owned(), dice.below(10).to_string());
    }

    #[test]
    fn what_the_strategies_of_this_crate_promise_is_true() {
        suite(|| Spread, bare);
        suite(|| BinPack, bare);
        suite(Random::default, bare);
        suite(LeastLoaded::default, report);
    }

    /// Scores, and promises about them.
    struct Liar<K> {
        score: fn(&Candidate<'_>) -> K,
        first: bool,
        alike: bool,
    }

    impl<K: Ord + Clone + Send + 'static> Strategy for Liar<K> {
        type Score = K;

        fn score(&self, candidate: &Candidate<'_>) -> K {
            (self.score)(candidate)
        }

        fn newcomers_first(&self) -> bool {
            self.first
        }

        fn newcomers_alike(&self) -> bool {
            self.alike
        }
    }

    fn promising_alike<K: Ord + Clone + Send + 'static>(score: fn(&Candidate<'_>) -> K) {
        suite(|| Liar { score, first: false, alike: true }, report);
    }

    fn promising_first<K: Ord + Clone + Send + 'static>(score: fn(&Candidate<'_>) -> K) {
        suite(|| Liar { score, first: true, alike: false }, report);
    }

    #[test]
    #[should_panic(expected = "the promise NewcomersAlike is not true")]
    fn newcomers_are_not_alike_to_who_goes_by_the_service() {
        promising_alike(|candidate| {
            // Services have nodes that they like better.
            let (service, node) = (candidate.service(), candidate.load.node.id);
            let apart = |(a, b): (u8, u8)| u32::from(a.abs_diff(b));
            service.as_str().bytes().zip(node.as_str().bytes()).map(apart).sum::<u32>()
        });
    }

    #[test]
    #[should_panic(expected = "the promise NewcomersFirst is not true")]
    fn newcomers_are_not_first_to_who_fills_nodes() {
        promising_first(|candidate| candidate.load.free_memory());
    }

    #[test]
    #[should_panic(expected = "the promise NewcomersFirst is not true")]
    fn nor_to_who_goes_by_the_room_of_newcomers() {
        promising_first(|candidate| {
            (candidate.tasks_of_service(), Reverse(candidate.load.free_memory()))
        });
    }

    #[test]
    #[should_panic(expected = "the promise NewcomersFirst is not true")]
    fn nor_to_who_avoids_a_node_for_a_single_failure() {
        promising_first(|candidate| {
            let (load, own) = (candidate.load, candidate.tasks_of_service());
            (candidate.faults(), own, candidate.failures, load.active())
        });
    }
}
