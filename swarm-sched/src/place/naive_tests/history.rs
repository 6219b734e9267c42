//! What happens to a random cluster, and what is asked about it on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::{Ctx, Key, Planner};
use swarm_core::id::IdSource;
use swarm_core::model::{Cluster as ClusterObject, *};
use swarm_core::scheduler::Overcommit;
use swarm_core::store::{Change, Epoch, Object, Snapshot};
use swarm_core::time::Timestamp;

use super::coverage::Coverage;
use super::definition::Cluster;
use super::draw::{Dice, Drawn, Row};
use super::{Emptiest, Wide};
use crate::place::planner::PENDING;
use crate::place::{Place, StrategyScheduler};

/// How many services there are. There are tasks of no service besides.
const SERVICES: usize = 4;
/// So that a decision by the definition stays cheap.
const MOST_NODES: usize = 8;
const MOST_TASKS: usize = 60;

/// A cluster, and what happens to it.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) cluster: Row,
    pub(super) services: [Row; SERVICES],
    pub(super) nodes: Vec<Row>,
    pub(super) events: Vec<Row>,
}

/// A cluster with the scheduler that is asked about it, as a manager uses it.
pub(super) struct World<'a> {
    view: Snapshot,
    now: Timestamp,
    ids: IdSource,
    overcommit: Overcommit,
    scheduler: Arc<StrategyScheduler>,
    place: Place,
    /// What tasks are made from now, with their version. The last are of no service.
    services: Vec<(ServiceId, Version, Drawn)>,
    networks: Vec<NetworkId>,
    /// Nodes, versions and slots are numbered.
    count: u64,
    coverage: &'a mut Coverage,
}

/// What is compared of a task: its node, state, claims and error.
type Said = (Option<NodeId>, TaskState, Vec<GenericResource>, String);

fn said(task: &Task) -> Said {
    let state = task.status.state;
    (task.node_id, state, task.generic_resources.clone(), task.status.err.clone())
}

impl<'a> World<'a> {
    /// Lives through a history.
    pub(super) fn play(history: &History, coverage: &'a mut Coverage) -> Result<(), String> {
        let mut world = Self::new(history, coverage);
        for row in &history.events {
            world.happens(&mut Dice::new(row))?;
        }
        world.coverage.next();
        world.scheduler.check(&world.view)
    }

    fn new(history: &History, coverage: &'a mut Coverage) -> Self {
        let mut dice = Dice::new(&history.cluster);
        let cpus = dice.one_of(&[1_000, 1_000, 1_500, 700]);
        let memory = dice.one_of(&[1_000, 1_000, 2_000, 501]);
        let overcommit = Overcommit { cpus, memory };
        let scheduler = StrategyScheduler::default().overcommit(overcommit);
        let scheduler = Arc::new(scheduler.with("emptiest", Emptiest).with("wide", Wide));
        let mut world = Self {
            view: Snapshot::default(),
            now: Timestamp::from_secs(1_000_000),
            ids: IdSource::seeded(dice.below(256) as u64),
            overcommit,
            place: Place::new(scheduler.clone()),
            scheduler,
            services: Vec::new(),
            networks: Vec::new(),
            count: 0,
            coverage,
        };
        let mut cluster = ClusterObject { id: world.ids.next(), ..ClusterObject::default() };
        let strategy = dice.strategy().map(|it| ("swarm.strategy".to_owned(), it.to_owned()));
        cluster.spec.labels.extend(strategy);
        world.stage(Change::create(cluster));
        for name in ["", "overlay", "weave"] {
            let mut network = Network { id: world.ids.next(), ..Network::default() };
            network.spec.name = format!("n{name}");
            let driver = Driver { name: name.to_owned(), ..Driver::default() };
            network.driver_state = (!name.is_empty()).then_some(driver);
            world.networks.push(network.id);
            world.stage(Change::create(network));
        }
        history.nodes.iter().for_each(|row| world.joins(&mut Dice::new(row)));
        for row in &history.services {
            let mut service = Service { id: world.ids.next(), ..Service::default() };
            service.spec.name = format!("s{}", world.services.len());
            world.update(service, &mut Dice::new(row));
        }
        let drawn = world.draw(&mut Dice::new(&history.cluster));
        world.services.push((ServiceId::NIL, Version(0), drawn));
        world
    }

    /// What cannot be (a state after a later one) does not happen.
    fn stage(&mut self, change: Change) {
        let _ = self.view.stage(change, self.now);
    }

    fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn any_node(&self, dice: &mut Dice<'_>) -> Option<Arc<Node>> {
        let count = self.view.nodes.len();
        (count > 0).then(|| self.view.nodes.iter().nth(dice.below(count)).unwrap().clone())
    }

    fn any_task(&self, dice: &mut Dice<'_>) -> Option<Arc<Task>> {
        let count = self.view.tasks.len();
        (count > 0).then(|| self.view.tasks.iter().nth(dice.below(count)).unwrap().clone())
    }

    fn happens(&mut self, dice: &mut Dice<'_>) -> Result<(), String> {
        match dice.below(24) {
            0..=8 => self.asks(dice)?,
            9..=13 => self.grows(dice),
            14 => self.joins(dice),
            15 => self.changes(dice),
            16 => {
                let gone = self.any_node(dice).filter(|_| dice.one_in(2));
                gone.into_iter().for_each(|node| self.stage(Change::remove(node.id)));
            }
            17 | 18 => self.advances(dice),
            19 => self.stops(dice),
            20 => self.fails(dice),
            21 => self.updates(dice),
            22 => {
                let secs = dice.one_of(&[1, 60, 299, 300, 301]);
                self.now = self.now + Duration::from_secs(secs);
            }
            _ => self.promises(dice),
        }
        Ok(())
    }

    fn joins(&mut self, dice: &mut Dice<'_>) {
        if self.view.nodes.len() < MOST_NODES {
            let mut node = Node { id: self.ids.next(), ..Node::default() };
            let number = self.number();
            dice.node(&mut node, &format!("h{number}"));
            self.stage(Change::create(node));
        }
    }

    /// A node has other labels, resources, plugins; is drained, paused or lost; or comes back.
    fn changes(&mut self, dice: &mut Dice<'_>) {
        if let Some(node) = self.any_node(dice) {
            let host = node.spec.labels.get("host").cloned().unwrap_or_default();
            let mut node = Node::clone(&node);
            dice.node(&mut node, &host);
            self.stage(Change::update(node));
        }
    }

    fn draw(&mut self, dice: &mut Dice<'_>) -> Drawn {
        let node = self.view.nodes.iter().next().map(|node| node.id);
        dice.service(self.services.len(), node)
    }

    /// A service, new or known, asks for something else from now on.
    fn update(&mut self, mut service: Service, dice: &mut Dice<'_>) {
        let mut drawn = self.draw(dice);
        let (id, version) = (service.id, Version(self.number()));
        let known = self.services.iter().position(|(known, ..)| *known == id);
        service.spec.labels = drawn.labels.clone();
        service.spec.task = drawn.spec.clone();
        match known {
            None => {
                service.spec.mode = drawn.mode.clone();
                self.stage(Change::create(service));
                self.services.push((id, version, drawn));
            }
            Some(at) => {
                drawn.mode = service.spec.mode.clone();
                self.stage(Change::update(service));
                self.services[at] = (id, version, drawn);
            }
        }
    }

    /// A service is updated, has other labels, or is gone; or the cluster has another strategy.
    fn updates(&mut self, dice: &mut Dice<'_>) {
        let (what, at) = (dice.below(8), dice.below(SERVICES));
        let Some(service) = self.view.services.get(self.services[at].0) else { return };
        let mut service = Service::clone(service);
        match what {
            7 => self.stage(Change::remove(service.id)),
            5 | 6 => {
                let mut cluster = ClusterObject::clone(self.view.cluster().unwrap());
                let strategy = dice.strategy().unwrap_or("spread").to_owned();
                cluster.spec.labels.insert("swarm.strategy".to_owned(), strategy);
                self.stage(Change::update(cluster));
            }
            4 => {
                service.spec.labels = self.draw(dice).labels;
                self.stage(Change::update(service));
            }
            _ => self.update(service, dice),
        }
    }

    /// A service gets tasks: some, or in the global modes one for each node.
    fn grows(&mut self, dice: &mut Dice<'_>) {
        let (at, count) = (dice.below(SERVICES + 1), 1 + dice.below(8));
        if self.view.tasks.len() + MOST_NODES > MOST_TASKS {
            return;
        }
        if at < SERVICES && self.services[at].2.mode.is_global() {
            let nodes: Vec<_> = self.view.nodes.iter().map(|node| node.id).collect();
            nodes.into_iter().for_each(|node| self.task(at, |task| task.node_id = Some(node)));
        } else {
            (0..count).for_each(|_| self.task(at, |_| {}));
        }
    }

    /// A task that waits for a node, unless it is made to be something else.
    fn task(&mut self, at: usize, edit: impl FnOnce(&mut Task)) {
        let mut task = Task { id: self.ids.next(), ..Task::default() };
        let slot = self.number();
        let (service, version, drawn) = &self.services[at];
        (task.service_id, task.spec_version) = (*service, *version);
        task.slot = if drawn.mode.is_global() { 0 } else { slot % 7 };
        task.status.state = TaskState::Pending;
        let job = drawn.mode.is_job();
        task.desired_state = if job { TaskState::Complete } else { TaskState::Running };
        task.spec = drawn.spec.clone();
        task.endpoint = drawn.endpoint.clone();
        let mut place = NetworkAttachment::default();
        task.networks.extend(drawn.network.map(|network| {
            place.network.id = self.networks[network];
            place
        }));
        let name = format!("s{at}");
        task.annotations = Arc::new(ServiceAnnotations { name, ..ServiceAnnotations::default() });
        edit(&mut task);
        self.stage(Change::create(task));
    }

    /// Agents report.
    fn advances(&mut self, dice: &mut Dice<'_>) {
        for _ in 0..=dice.below(4) {
            let Some(task) = self.any_task(dice) else { return };
            let running = [TaskState::Accepted, TaskState::Preparing, TaskState::Running];
            let ended = [TaskState::Complete, TaskState::Failed, TaskState::Rejected];
            let rare = [TaskState::Shutdown, TaskState::Orphaned, TaskState::Ready];
            let state = dice.one_of(&[running, ended, rare].concat());
            let status = TaskStatus::new(state, self.now, "");
            self.stage(Change::Advance(task.id, Box::new(status)));
        }
    }

    /// Tasks are told to stop, or erased.
    fn stops(&mut self, dice: &mut Dice<'_>) {
        for _ in 0..=dice.below(4) {
            let Some(task) = self.any_task(dice) else { return };
            self.stage(match dice.below(3) {
                0 => Change::remove(task.id),
                1 => Change::Desire(task.id, TaskState::Shutdown),
                _ => Change::Desire(task.id, TaskState::Remove),
            });
        }
    }

    /// A slot is in a crash loop on a node: of its tasks one is left, which remembers those before,
    /// and one that waits remembers all of them.
    fn fails(&mut self, dice: &mut Dice<'_>) {
        let (at, times) = (dice.below(SERVICES + 1), 4 + dice.below(5));
        let Some(node) = self.any_node(dice).map(|node| node.id) else { return };
        let step = dice.one_of(&[1, 10, 60, 75]);
        let (now, step) = (self.now, |n: usize| Duration::from_secs(step * n as u64));
        let times: Vec<_> = (0..times).rev().map(|nth| now.before(step(nth))).collect();
        let failures = |times: &[Timestamp]| {
            let at = times.to_vec();
            vec![NodeFailures { node_id: node, at, ..NodeFailures::default() }]
        };
        let (last, before) = times.split_last().unwrap();
        let slot = self.number();
        let rejected = dice.one_in(2);
        self.task(at, |task| {
            let state = if rejected { TaskState::Rejected } else { TaskState::Failed };
            (task.slot, task.node_id, task.failures) = (slot, Some(node), failures(before));
            task.status = TaskStatus::new(state, *last, "");
            task.desired_state = TaskState::Shutdown;
        });
        if !dice.one_in(3) && !self.services[at].2.mode.is_global() {
            self.task(at, |task| (task.slot, task.failures) = (slot, failures(&times)));
        }
    }

    /// A task that waits is promised a node, for others were told to leave it.
    fn promises(&mut self, dice: &mut Dice<'_>) {
        let (Some(task), Some(node)) = (self.any_task(dice), self.any_node(dice)) else { return };
        if task.status.state == TaskState::Pending && task.node_id.is_none() {
            let mut task = Task::clone(&task);
            (task.node_id, task.room_from) = (Some(node.id), vec![self.ids.next()]);
            self.stage(Change::update(task));
        }
    }

    /// Asks about all that waits, or about one service, and compares; then the answer comes true, or
    /// a part of it, or something else, or nothing.
    fn asks(&mut self, dice: &mut Dice<'_>) -> Result<(), String> {
        let only = dice.one_in(3).then(|| self.services[dice.below(SERVICES + 1)].0);
        let mut expected: BTreeMap<TaskId, Said> =
            self.view.tasks.iter().map(|task| (task.id, said(task))).collect();
        self.expect(only, &mut expected);
        let mut ctx = Ctx::new(self.now, &mut self.ids, Epoch(1));
        let key = only.map_or(Key::Cluster, Key::Service);
        let mut changes = self.place.plan(&self.view, &key, &mut ctx).changes;
        let mut after = self.view.clone();
        let staged = after.stage_all(changes.iter().cloned(), self.now);
        if let Some(refused) = staged.iter().find_map(|staged| staged.as_ref().err()) {
            return Err(refused.to_string());
        }
        for task in after.tasks.iter() {
            let (got, expected) = (said(task), &expected[&task.id]);
            if got != *expected {
                return Err(format!("expected {expected:?}\ngot      {got:?}\nof {task:?}"));
            }
        }
        match dice.below(8) {
            0..=4 => self.view = after,
            5 => {}
            part => {
                let some = dice.below(256);
                let mut bits = (0..).map(|bit| some >> (bit % 8) & 1 == 1);
                changes.retain(|_| bits.next().unwrap());
                if part == 7 {
                    let other = self.any_node(dice).map(|node| node.id);
                    changes.iter_mut().for_each(|change| elsewhere(change, &self.view, other));
                }
                self.view.stage_all(changes, self.now);
            }
        }
        if !dice.one_in(3) {
            // Else what nothing will ever suit would be asked about again and again.
            let waits = |task: &&Arc<Task>| task.status.state == TaskState::Pending;
            let waiting: Vec<_> = self.view.tasks.iter().filter(waits).map(|it| it.id).collect();
            waiting.into_iter().for_each(|task| self.stage(Change::remove(task)));
        }
        if dice.one_in(8) { self.scheduler.check(&self.view) } else { Ok(()) }
    }

    /// What the definition says of each task that waits.
    fn expect(&mut self, only: Option<ServiceId>, expected: &mut BTreeMap<TaskId, Said>) {
        let mut cluster = Cluster::of(&self.view, self.now, self.overcommit);
        for id in cluster.waiting() {
            let task = cluster.task(id);
            if only.is_some_and(|only| only != task.service_id) {
                continue;
            }
            let looks = cluster.looks(task);
            let decision = cluster.decide(task, &looks);
            let mode = cluster.service(task).map_or("none", |it| it.spec.mode.name());
            self.coverage.note(cluster.strategy(task), mode, task, &looks, &decision);
            let (node, claims) = (task.node_id, task.generic_resources.clone());
            let said = match decision {
                Ok((node, claims)) => {
                    cluster.settle(id, node, claims.clone());
                    (Some(node), TaskState::Assigned, claims, String::new())
                }
                Err(why) => (node, TaskState::Pending, claims, why),
            };
            expected.insert(id, said);
        }
    }
}

/// Another leader had assigned the task to another node.
fn elsewhere(change: &mut Change, view: &Snapshot, node: Option<NodeId>) {
    if let Change::Update(Object::Task(task)) = change
        && view.tasks.get(task.id).is_some_and(|task| task.node_id.is_none())
        && task.status.message != PENDING
    {
        let task = Arc::make_mut(task);
        task.node_id = node.or(task.node_id);
    }
}
