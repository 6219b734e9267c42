//! A small cluster for this crate's tests: allocation and placement over a store in memory.

use std::sync::Arc;

use swarm_core::control::{Controller, Planner};
use swarm_core::id::IdSource;
use swarm_core::model::*;
use swarm_core::store::{Batch, Change, Epoch, MemoryStore, Snapshot, Store, Watch};
use swarm_core::time::Timestamp;

use crate::allocate::Allocate;
use crate::place::Place;

pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) ids: IdSource,
    pub(crate) now: Timestamp,
    controller: Controller,
    watch: Watch,
}

fn planners() -> Vec<Arc<dyn Planner>> {
    vec![Arc::new(Allocate::default()), Arc::new(Place::default())]
}

impl World {
    pub(crate) fn new() -> Self {
        let store = MemoryStore::default();
        let view = store.snapshot();
        let watch = store.watch(view.version());
        let controller = Controller::new(planners(), Epoch(1), &view);
        let now = Timestamp::from_secs(1_000_000);
        Self { store, ids: IdSource::seeded(42), now, controller, watch }
    }

    pub(crate) fn view(&self) -> Snapshot {
        self.store.snapshot()
    }

    pub(crate) fn write(&mut self, changes: Vec<Change>) {
        self.store.apply(&Batch::new(self.now, changes)).expect("the test's write is legal");
    }

    /// Steps until nothing is left to do, for this leader and for a new one. A new leader may do
    /// at once what this one left to a timer, but only where something waits for room.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100 {
            while let Some(commit) = self.watch.try_next().expect("the history is long enough") {
                self.controller.observe(&commit);
            }
            let view = self.view();
            let mut step = self.controller.step(&view, self.now, &mut self.ids);
            if step.batch.is_none() && !step.more {
                let mut successor = Controller::new(planners(), Epoch(2), &view);
                step = successor.step(&view, self.now, &mut self.ids);
                if step.batch.is_none() {
                    return;
                }
                let stalled = view.services.iter().any(|service| !service.stalled.is_empty())
                    || view.networks.iter().any(|network| !network.stalled.is_empty())
                    || view.tasks.iter().any(|task| !task.status.err.is_empty());
                assert!(stalled, "a second plan on its own result must be empty: {step:?}");
            }
            if let Some(batch) = step.batch {
                let version = self.store.apply(&batch).expect("a plan can be committed");
                self.controller.committed(version);
            }
        }
        panic!("the plans never come to an end");
    }

    /// Settles again after `secs`, with every timer that is due.
    pub(crate) fn later(&mut self, secs: i64) {
        self.now = self.now + std::time::Duration::from_secs(secs.unsigned_abs());
        self.settle();
    }

    pub(crate) fn node(&mut self, name: &str, edit: impl FnOnce(&mut Node)) -> NodeId {
        let mut node = Node { id: self.ids.next(), ..Node::default() };
        node.spec.name = name.to_owned();
        node.status.state = NodeState::Ready;
        node.status.addr = "192.0.2.1".to_owned();
        let description = node.description.get_or_insert_default();
        description.hostname = name.to_owned();
        description.platform.os = "linux".to_owned();
        description.platform.architecture = "x86_64".to_owned();
        description.resources.nano_cpus = 4_000_000_000;
        description.resources.memory_bytes = 8 << 30;
        edit(&mut node);
        let id = node.id;
        self.write(vec![Change::create(node)]);
        id
    }

    pub(crate) fn edit_node(&mut self, id: NodeId, edit: impl FnOnce(&mut Node)) {
        let mut node = Node::clone(self.view().nodes.get(id).expect("the node exists"));
        edit(&mut node);
        self.write(vec![Change::update(node)]);
    }

    pub(crate) fn network(&mut self, name: &str, edit: impl FnOnce(&mut Network)) -> NetworkId {
        let mut network = Network { id: self.ids.next(), ..Network::default() };
        network.spec.name = name.to_owned();
        edit(&mut network);
        let id = network.id;
        self.write(vec![Change::create(network)]);
        id
    }

    pub(crate) fn ingress(&mut self) -> NetworkId {
        self.network("ingress", |network| network.spec.ingress = true)
    }

    /// A service with so many tasks in state `new`.
    pub(crate) fn service(
        &mut self,
        name: &str,
        tasks: u64,
        edit: impl FnOnce(&mut ServiceSpec),
    ) -> ServiceId {
        let mut service = Service { id: self.ids.next(), ..Service::default() };
        service.spec.name = name.to_owned();
        edit(&mut service.spec);
        let id = service.id;
        self.write(vec![Change::create(service)]);
        for slot in 1..=tasks {
            self.task(id, slot, |_| {});
        }
        id
    }

    pub(crate) fn edit_service(&mut self, id: ServiceId, edit: impl FnOnce(&mut Service)) {
        let mut service = Service::clone(self.view().services.get(id).expect("it exists"));
        edit(&mut service);
        self.write(vec![Change::update(service)]);
    }

    pub(crate) fn task(
        &mut self,
        service: ServiceId,
        slot: u64,
        edit: impl FnOnce(&mut Task),
    ) -> TaskId {
        let owner = self.view().services.get(service).expect("the service exists").clone();
        let mut task = Task {
            id: self.ids.next(),
            service_id: service,
            slot,
            spec: owner.spec.task.clone(),
            spec_version: owner.version,
            desired_state: TaskState::Running,
            ..Task::default()
        };
        edit(&mut task);
        let id = task.id;
        self.write(vec![Change::create(task)]);
        id
    }

    /// What the task's agent, or for `New` and `Pending` an orchestrator, would write.
    pub(crate) fn observe(&mut self, task: TaskId, state: TaskState) {
        let status = TaskStatus::new(state, self.now, "observed");
        self.write(vec![Change::Advance(task, Box::new(status))]);
    }

    pub(crate) fn erase(&mut self, id: impl Into<swarm_core::store::ObjectRef>) {
        self.write(vec![Change::remove(id)]);
    }

    pub(crate) fn get(&self, id: TaskId) -> Arc<Task> {
        self.view().tasks.get(id).expect("the task exists").clone()
    }

    /// The service's tasks in order of slot.
    pub(crate) fn tasks_of(&self, service: ServiceId) -> Vec<Arc<Task>> {
        let mut tasks: Vec<_> = self.view().tasks_of(service).cloned().collect();
        tasks.sort_by_key(|task| (task.slot, task.id));
        tasks
    }

    /// How many of the service's tasks each of these nodes has.
    pub(crate) fn counts(&self, service: ServiceId, nodes: &[NodeId]) -> Vec<usize> {
        let tasks = self.tasks_of(service);
        let on = |node: &NodeId| tasks.iter().filter(|task| task.node_id == Some(*node)).count();
        nodes.iter().map(on).collect()
    }

    /// The errors that the service's tasks show.
    pub(crate) fn errors(&self, service: ServiceId) -> Vec<String> {
        let tasks = self.tasks_of(service);
        tasks.iter().map(|task| task.status.err.clone()).filter(|err| !err.is_empty()).collect()
    }
}

/// Changes a service's task template.
pub(crate) fn template(spec: &mut ServiceSpec, edit: impl FnOnce(&mut TaskSpec)) {
    edit(Arc::make_mut(&mut spec.task));
}

pub(crate) fn port(target: u16, published: u16, mode: PublishMode) -> PortConfig {
    PortConfig {
        target_port: target,
        published_port: published,
        publish_mode: mode,
        ..PortConfig::default()
    }
}
