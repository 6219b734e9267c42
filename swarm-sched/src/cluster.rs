//! A whole cluster for this crate's tests: every planner over a store in memory, and agents that do as
//! they are told when a test lets them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::{Controller, Ctx, Planner};
use swarm_core::id::IdSource;
use swarm_core::model::*;
use swarm_core::store::{Batch, Change, Epoch, MemoryStore, Snapshot, Store as _, Watch};
use swarm_core::time::Timestamp;

use crate::dry_run::{Report, agents, dry_run};
use crate::place::StrategyScheduler;
use crate::world::template;

pub(crate) const EPOCH: Epoch = Epoch(1);

pub(crate) fn planners() -> Vec<Arc<dyn Planner>> {
    crate::default_planners([], Arc::new(StrategyScheduler::default()))
}

/// A cluster with every planner, whose agents do as they are told when a test lets them.
pub(crate) struct Whole {
    pub(crate) store: MemoryStore,
    pub(crate) watch: Watch,
    pub(crate) controller: Controller,
    pub(crate) ids: IdSource,
    pub(crate) now: Timestamp,
    planners: Vec<Arc<dyn Planner>>,
}

impl Whole {
    pub(crate) fn new() -> Self {
        Self::with(planners())
    }

    pub(crate) fn with(planners: Vec<Arc<dyn Planner>>) -> Self {
        let store = MemoryStore::default();
        let watch = store.watch(Version(0));
        let controller = Controller::new(planners.clone(), EPOCH, &store.snapshot());
        let now = Timestamp::from_secs(1_000_000);
        let mut real = Self { store, watch, controller, ids: IdSource::seeded(7), now, planners };
        let ingress = Network { id: real.ids.next(), ..Network::default() };
        let spec = NetworkSpec { name: "ingress".into(), ingress: true, ..Default::default() };
        real.write(vec![Change::create(Network { spec, ..ingress })]);
        real
    }

    /// Another manager takes over.
    pub(crate) fn change_leader(&mut self) {
        let view = self.view();
        self.controller = Controller::new(self.planners.clone(), EPOCH, &view);
        self.watch = self.store.watch(view.version());
    }

    pub(crate) fn view(&self) -> Snapshot {
        self.store.snapshot()
    }

    pub(crate) fn write(&mut self, changes: Vec<Change>) {
        self.store.apply(&Batch::new(self.now, changes)).expect("a legal write");
    }

    /// Sets a label of the cluster.
    pub(crate) fn label(&mut self, label: &str, value: &str) {
        let known = self.view().cluster().cloned();
        let mut cluster = match &known {
            Some(cluster) => Cluster::clone(cluster),
            None => Cluster { id: self.ids.next(), ..Cluster::default() },
        };
        cluster.spec.labels.insert(label.to_owned(), value.to_owned());
        let change = if known.is_some() { Change::update } else { Change::create };
        self.write(vec![change(cluster)]);
    }

    pub(crate) fn node(&mut self, name: &str, edit: impl FnOnce(&mut Node)) -> NodeId {
        let mut node = Node { id: self.ids.next(), ..Node::default() };
        node.spec.name = name.to_owned();
        node.status.state = NodeState::Ready;
        node.description.get_or_insert_default().resources.memory_bytes = 8;
        edit(&mut node);
        let id = node.id;
        self.write(vec![Change::create(node)]);
        id
    }

    pub(crate) fn proposal(&mut self, name: &str, edit: impl FnOnce(&mut ServiceSpec)) -> Service {
        let mut service = Service { id: self.ids.next(), ..Service::default() };
        service.spec = spec(name, edit);
        service
    }

    pub(crate) fn create(&mut self, name: &str, edit: impl FnOnce(&mut ServiceSpec)) -> ServiceId {
        let service = self.proposal(name, edit);
        let id = service.id;
        self.write(vec![Change::create(service)]);
        self.run();
        id
    }

    /// As the API would write it.
    pub(crate) fn changed(&self, id: ServiceId, edit: impl FnOnce(&mut ServiceSpec)) -> Service {
        let mut service = Service::clone(self.view().services.get(id).expect("it exists"));
        service.previous_spec = Some(Box::new(service.spec.clone()));
        service.update_status = None;
        edit(&mut service.spec);
        service
    }

    pub(crate) fn dry_run(&self, proposed: &Service) -> Report {
        let mut ids = IdSource::seeded(99);
        let mut ctx = Ctx::new(self.now, &mut ids, EPOCH);
        dry_run(&self.view(), proposed.clone(), &planners(), &mut ctx).expect("a legal proposal")
    }

    pub(crate) fn commit(&mut self, proposed: Service) {
        let known = self.view().services.get(proposed.id).is_some();
        self.write(vec![if known { Change::update(proposed) } else { Change::create(proposed) }]);
    }

    /// Planners alone, at this time.
    pub(crate) fn plan(&mut self) {
        for _ in 0..1_000 {
            while let Some(commit) = self.watch.try_next().expect("a history that reaches back") {
                self.controller.observe(&commit);
            }
            let step = self.controller.step(&self.view(), self.now, &mut self.ids);
            match step.batch {
                Some(batch) => _ = self.store.apply(&batch).expect("a legal plan"),
                None if self.controller.next_at().is_none_or(|at| at > self.now) => return,
                None => {}
            }
        }
        panic!("the planners never come to an end");
    }

    /// Planners and agents, for ten minutes.
    pub(crate) fn run(&mut self) {
        let end = self.now + Duration::from_secs(600);
        for _ in 0..10_000 {
            self.plan();
            let view = self.view();
            let all: BTreeSet<TaskId> = view.tasks.iter().map(|task| task.id).collect();
            let answers = agents::answers(&view, ServiceId::NIL, &all, self.now);
            if !answers.is_empty() {
                self.write(answers);
                continue;
            }
            match self.controller.next_at().filter(|at| *at <= end) {
                Some(at) => self.now = at,
                None => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Where a service's tasks are that shall run.
    pub(crate) fn places(&self, service: ServiceId) -> BTreeSet<(u64, NodeId)> {
        let view = self.view();
        let placed = |task: &&Arc<Task>| {
            task.is_wanted()
                && (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
        };
        let tasks = view.tasks_of(service).filter(placed);
        tasks.filter_map(|task| Some((task.slot, task.node_id?))).collect()
    }
}

pub(crate) fn spec(name: &str, edit: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let mut spec = ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() };
    template(&mut spec, |task| task.container = Some(ContainerSpec::default()));
    edit(&mut spec);
    spec
}

pub(crate) fn replicas(spec: &mut ServiceSpec, number: u64) {
    let mode = ReplicatedMode { replicas: Some(number), ..Default::default() };
    spec.mode = ServiceMode::Replicated(mode);
}

pub(crate) fn image(spec: &mut ServiceSpec, image: &str) {
    template(spec, |task| task.container.get_or_insert_default().image = image.to_owned());
}

pub(crate) fn memory(spec: &mut ServiceSpec, bytes: i64) {
    template(spec, |task| {
        let wanted = Resources { memory_bytes: bytes, ..Default::default() };
        task.resources.get_or_insert_default().reservations = Some(wanted);
    });
}
