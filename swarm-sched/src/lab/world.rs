//! Pure: a cluster without machines: the store in memory, every planner of a manager, and agents
//! that do at once what they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::{Controller, Planner};
use swarm_core::id::IdSource;
use swarm_core::model::{
    Cluster, Labels, Node, NodeId, NodeState, Service, ServiceId, ServiceMode, ServiceSpec, Task,
    TaskId, TaskState, TaskStatus,
};
use swarm_core::store::{
    Batch, Change, Epoch, Event as Stored, MemoryStore, Snapshot, Store as _, Watch,
};
use swarm_core::time::Timestamp;

use super::dice::Dice;
use super::workload::{Event, Workload};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// The cluster of one run.
pub(super) struct World {
    store: MemoryStore,
    watch: Watch,
    controller: Controller,
    ids: IdSource,
    /// For the services' ids, so that no draw of a planner moves them.
    dice: Dice,
    now: Timestamp,
    nodes: Vec<NodeId>,
    /// Those that were deployed, by name.
    services: BTreeMap<String, ServiceId>,
    /// Where the last task of each slot was.
    homes: BTreeMap<(ServiceId, u64), NodeId>,
    moved: u64,
}

impl World {
    /// The workload's nodes, with nothing on them, in a cluster that has these labels too.
    pub(super) fn new(
        workload: &Workload,
        labels: Labels,
        planners: Vec<Arc<dyn Planner>>,
        seed: u64,
    ) -> Self {
        let (ids, mut dice) = (IdSource::seeded(seed), Dice::new(seed, "services"));
        let mut cluster = Cluster { id: dice.id(), ..Cluster::default() };
        cluster.spec.labels = labels;
        cluster.spec.labels.extend(workload.labels.clone());
        // Tasks that have ended are of no interest here.
        cluster.spec.orchestration.task_history_retention_limit = Some(0);
        let mut changes = vec![Change::create(cluster)];
        changes.extend(workload.nodes.iter().cloned().map(Change::create));
        let store = MemoryStore::default();
        store.apply(&Batch::new(START, changes)).expect("a workload's nodes have ids of their own");
        let view = store.snapshot();
        let watch = store.watch(view.version());
        let controller = Controller::new(planners, Epoch(1), &view);
        let nodes = workload.nodes.iter().map(|node| node.id).collect();
        let (services, homes) = (BTreeMap::new(), BTreeMap::new());
        Self { store, watch, controller, ids, dice, now: START, nodes, services, homes, moved: 0 }
    }

    pub(super) fn view(&self) -> Snapshot {
        self.store.snapshot()
    }

    /// How many tasks so far were placed on another node than the one before them in their slot.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Something happens now; what follows from it is left to [`advance`](Self::advance).
    pub(super) fn play(&mut self, event: &Event) {
        match event {
            Event::Deploy(spec) => {
                let service =
                    Service { id: self.dice.id(), spec: (**spec).clone(), ..Service::default() };
                self.services.insert(service.spec.name.clone(), service.id);
                self.write(vec![Change::create(service)]);
            }
            Event::Remove(name) => self.edit(name, |service| service.pending_delete = true),
            Event::Update(name) => self.specify(name, |spec| {
                let task = Arc::make_mut(&mut spec.task);
                task.container.get_or_insert_default().image.push_str("-next");
            }),
            Event::Scale(name, tasks) => self.specify(name, |spec| {
                if let ServiceMode::Replicated(mode) = &mut spec.mode {
                    mode.replicas = Some(*tasks);
                }
            }),
            Event::Lose(node) => self.report_node(*node, NodeState::Down),
            Event::Return(node) => {
                self.report_node(*node, NodeState::Ready);
                let view = self.view();
                let missed = view.tasks_on(self.nodes[*node]).map(|task| task.id);
                let reports = self.reports(missed.collect());
                self.write(reports);
            }
        }
    }

    /// Lets time pass: whatever is due, and everything that follows from it.
    pub(super) fn advance(&mut self, since_start: Duration) {
        let to = START + since_start;
        loop {
            self.settle();
            match self.controller.next_at() {
                Some(at) if at <= to => self.now = at.max(self.now),
                _ => break,
            }
        }
        self.now = to;
    }

    /// Every node that is there reports how much of it is reserved, in percent, as the label that
    /// `least-loaded` goes by.
    pub(super) fn report_loads(&mut self, percent: &BTreeMap<NodeId, String>) {
        let view = self.view();
        let changed = self.nodes.iter().filter_map(|id| {
            let (node, percent) = (view.nodes.get(*id)?, percent.get(id)?);
            let known = node.description.as_ref()?.engine.labels.get("load");
            if known == Some(percent) {
                return None;
            }
            let mut node = Node::clone(node);
            let description = node.description.get_or_insert_default();
            description.engine.labels.insert("load".to_owned(), percent.clone());
            Some(Change::update(node))
        });
        let changed = changed.collect();
        self.write(changed);
    }

    /// Steps, commits and lets the agents act until nothing is left to do now.
    fn settle(&mut self) {
        loop {
            let mut touched = BTreeSet::new();
            while let Some(commit) = self.watch.try_next().expect("the history is long enough") {
                self.controller.observe(&commit);
                for event in &commit.events {
                    self.note(event);
                    touched.extend(event.new_task().map(|task| task.id));
                }
            }
            let reports = self.reports(touched);
            if !reports.is_empty() {
                self.write(reports);
                continue;
            }
            let step = self.controller.step(&self.store.snapshot(), self.now, &mut self.ids);
            match step.batch {
                Some(batch) => {
                    self.store.apply(&batch).expect("a plan can be committed");
                }
                None if self.controller.next_at().is_some_and(|at| at <= self.now) => {}
                None => return,
            }
        }
    }

    /// What the agents of these tasks have to report.
    fn reports(&self, tasks: BTreeSet<TaskId>) -> Vec<Change> {
        let view = self.view();
        let report = |id| {
            let task = view.tasks.get(id)?;
            let node = view.nodes.get(task.node_id?)?;
            let state = next_state(task).filter(|_| node.status.state == NodeState::Ready)?;
            let status = TaskStatus::new(state, self.now, "");
            Some(Change::Advance(id, Box::new(status)))
        };
        tasks.into_iter().filter_map(report).collect()
    }

    /// Remembers where a slot's tasks are.
    fn note(&mut self, event: &Stored) {
        let Some(task) = event.new_task() else { return };
        let Some(node) = task.node_id else { return };
        if event.old_task().is_none_or(|old| old.node_id.is_none()) {
            let before = self.homes.insert((task.service_id, task.slot), node);
            self.moved += u64::from(before.is_some_and(|before| before != node));
        }
    }

    fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Service)) {
        let view = self.view();
        let service = view.services.get(self.services[name]);
        let mut service = Service::clone(service.expect("the workload was checked"));
        edit(&mut service);
        self.write(vec![Change::update(service)]);
    }

    /// Changes a specification as the API does it.
    fn specify(&mut self, name: &str, change: impl FnOnce(&mut ServiceSpec)) {
        self.edit(name, |service| {
            service.previous_spec = Some(Box::new(service.spec.clone()));
            service.update_status = None;
            change(&mut service.spec);
        });
    }

    fn report_node(&mut self, node: usize, state: NodeState) {
        let view = self.view();
        let node = view.nodes.get(self.nodes[node]);
        let mut node = Node::clone(node.expect("nodes stay"));
        node.status.state = state;
        node.status.down_since = (state == NodeState::Down).then_some(self.now);
        self.write(vec![Change::update(node)]);
    }

    fn write(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.store.apply(&Batch::new(self.now, changes)).expect("the change is legal");
        }
    }
}

/// What an agent makes of a task at once, if there is anything left to do.
fn next_state(task: &Task) -> Option<TaskState> {
    let state = task.status.state;
    if state < TaskState::Assigned || state.is_terminal() {
        return None;
    }
    match task.desired_state {
        wanted if wanted > TaskState::Complete => Some(TaskState::Shutdown),
        wanted => Some(wanted.min(TaskState::Running)).filter(|next| *next > state),
    }
}
