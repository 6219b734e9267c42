//! The smallest cluster that the planners can run in: no allocator, a scheduler that takes turns,
//! and agents whose containers behave as a test says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::{Controller, Ctx, Key, Plan, Planner};
use swarm_core::id::IdSource;
use swarm_core::model::*;
use swarm_core::scheduler::Overcommit;
use swarm_core::store::{
    Batch, Change, CommitError, Epoch, Event, MemoryStore, Object, Snapshot, Store as _, Watch,
};
use swarm_core::time::Timestamp;

use crate::orchestrate;

/// What a task's container does.
#[derive(Clone, Copy)]
pub(super) enum Behaviour {
    /// Runs until it is told to stop.
    Runs,
    /// Cannot be prepared.
    Rejected,
    /// Never gets past its preparation.
    Hangs,
    /// Runs for so long and then ends in this state.
    Ends(Duration, TaskState),
    /// Runs, and takes so long to stop.
    SlowStop(Duration),
}

pub(super) struct World {
    pub(super) store: MemoryStore,
    pub(super) now: Timestamp,
    ids: IdSource,
    epoch: u64,
    planners: Vec<Arc<dyn Planner>>,
    controller: Controller,
    watch: Watch,
    behave: Box<dyn Fn(&Task) -> Behaviour>,
    /// So many changes at most the store takes of the planners at once.
    pub(super) room: usize,
    /// What must hold after every commit, if there is room enough.
    pub(super) checks: Vec<fn(&Snapshot)>,
}

fn planners() -> Vec<Arc<dyn Planner>> {
    let mut planners = orchestrate::planners(Overcommit::default());
    planners.push(Arc::new(TakeTurns));
    planners
}

impl World {
    pub(super) fn new(nodes: usize) -> Self {
        Self::with(nodes, planners())
    }

    /// A cluster with planners of the test's choice.
    pub(super) fn with(nodes: usize, planners: Vec<Arc<dyn Planner>>) -> Self {
        let store = MemoryStore::default();
        let (controller, watch) = Self::lead(&planners, &store, 1);
        let mut world = Self {
            store,
            now: Timestamp::from_secs(1_000_000),
            ids: IdSource::seeded(1),
            epoch: 1,
            planners,
            controller,
            watch,
            behave: Box::new(|_| Behaviour::Runs),
            room: usize::MAX,
            checks: vec![one_task_for_each_place, not_too_many, jobs_keep_count, lawful],
        };
        for _ in 0..nodes {
            world.add_node();
        }
        world
    }

    fn lead(planners: &[Arc<dyn Planner>], store: &MemoryStore, epoch: u64) -> (Controller, Watch) {
        let view = store.snapshot();
        let watch = store.watch(view.version());
        (Controller::new(planners.to_vec(), Epoch(epoch), &view), watch)
    }

    /// Another manager takes over, knowing only what the store's JSON says.
    pub(super) fn change_leader(&mut self) {
        self.change_leader_to(self.planners.clone());
    }

    /// The same, with planners that were asked nothing before.
    pub(super) fn change_leader_to(&mut self, planners: Vec<Arc<dyn Planner>>) {
        self.planners = planners;
        let view = self.view();
        let objects = view.objects().map(|object| {
            let json = serde_json::to_string(&object).unwrap();
            serde_json::from_str(&json).unwrap()
        });
        self.store = MemoryStore::new(Snapshot::from_objects(view.version(), objects));
        self.epoch += 1;
        (self.controller, self.watch) = Self::lead(&self.planners, &self.store, self.epoch);
    }

    pub(super) fn behaves(&mut self, behave: impl Fn(&Task) -> Behaviour + 'static) {
        self.behave = Box::new(behave);
    }

    pub(super) fn view(&self) -> Snapshot {
        self.store.snapshot()
    }

    pub(super) fn commit(&mut self, changes: Vec<Change>) {
        self.store.apply(&Batch::new(self.now, changes)).unwrap();
    }

    pub(super) fn new_id<T: ?Sized>(&mut self) -> swarm_core::id::Id<T> {
        self.ids.next()
    }

    pub(super) fn add_node(&mut self) -> NodeId {
        let id = self.ids.next();
        let status = NodeStatus { state: NodeState::Ready, ..Default::default() };
        let node = Node { id, status, ..Default::default() };
        self.commit(vec![Change::create(node)]);
        id
    }

    pub(super) fn edit_node(&mut self, id: NodeId, edit: impl FnOnce(&mut Node)) {
        let mut node = Node::clone(self.view().nodes.get(id).unwrap());
        edit(&mut node);
        self.commit(vec![Change::update(node)]);
    }

    /// The node's agent is not heard of any more.
    pub(super) fn lose(&mut self, id: NodeId) {
        let now = self.now;
        self.edit_node(id, |node| {
            node.status.state = NodeState::Down;
            node.status.down_since = Some(now);
        });
    }

    pub(super) fn create(&mut self, spec: ServiceSpec) -> ServiceId {
        let id = self.ids.next();
        let job_status = spec.mode.is_job().then(JobStatus::default);
        self.commit(vec![Change::create(Service { id, spec, job_status, ..Default::default() })]);
        id
    }

    /// How many ended tasks each slot keeps.
    pub(super) fn limit_history(&mut self, tasks: i64) {
        let mut cluster = Cluster { id: self.ids.next(), ..Default::default() };
        cluster.spec.orchestration.task_history_retention_limit = Some(tasks);
        self.commit(vec![Change::create(cluster)]);
    }

    /// As the API updates a service: the status goes in the same write, and a job runs again.
    pub(super) fn update(&mut self, id: ServiceId, edit: impl FnOnce(&mut ServiceSpec)) {
        let mut service = Service::clone(self.view().services.get(id).unwrap());
        change_spec(&mut service, edit);
        self.commit(vec![Change::update(service)]);
    }

    /// `docker service rollback`.
    pub(super) fn roll_back(&mut self, id: ServiceId) {
        let mut service = Service::clone(&self.service(id));
        let back = *service.previous_spec.take().expect("there is something to go back to");
        service.previous_spec = Some(Box::new(std::mem::replace(&mut service.spec, back)));
        service.update_status =
            Some(UpdateStatus { state: UpdateState::RollbackStarted, ..Default::default() });
        self.commit(vec![Change::update(service)]);
    }

    pub(super) fn service(&self, id: ServiceId) -> Arc<Service> {
        self.view().services.get(id).unwrap().clone()
    }

    pub(super) fn tasks(&self, id: ServiceId) -> Vec<Arc<Task>> {
        self.view().tasks_of(id).cloned().collect()
    }

    /// The tasks that are observed running, by slot.
    pub(super) fn running(&self, id: ServiceId) -> Vec<Arc<Task>> {
        let mut tasks = self.tasks(id);
        tasks.retain(|task| task.status.state == TaskState::Running);
        tasks.sort_by_key(|task| (task.slot, task.created_at));
        tasks
    }

    pub(super) fn slots(&self, id: ServiceId) -> Vec<u64> {
        self.running(id).iter().map(|task| task.slot).collect()
    }

    /// What an agent reports.
    pub(super) fn report(&mut self, task: TaskId, state: TaskState) {
        let status = TaskStatus::new(state, self.now, "reported");
        self.commit(vec![Change::Advance(task, Box::new(status))]);
    }

    /// Lets time pass. Whatever is to happen at one time happens before the clock moves on.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100_000 {
            assert!((0..10_000).any(|_| !self.step()), "the same is decided again and again");
            let agents = self.view().tasks.iter().filter_map(|task| self.due(task)).min();
            let next = self.controller.next_at().into_iter().chain(agents).min();
            match next.map(|at| at.max(self.now)) {
                Some(at) if at <= end => {
                    assert!(at > self.now || self.controller.next_at() <= Some(self.now));
                    self.now = at;
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the cluster does not come to rest");
    }

    pub(super) fn run_secs(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// One commit of the controller, then of the agents; whether anything happened.
    pub(super) fn step(&mut self) -> bool {
        while let Some(commit) = self.watch.try_next().unwrap() {
            self.controller.observe(&commit);
        }
        let step = self.controller.step(&self.view(), self.now, &mut self.ids);
        let changed = step.batch.is_some();
        if let Some(batch) = step.batch {
            let (bytes, limit) = (batch.changes.len(), self.room);
            if bytes > limit {
                self.controller.rejected(&CommitError::TooLarge { bytes, limit });
            } else {
                let version = self.store.apply(&batch).unwrap();
                self.controller.committed(version);
            }
        }
        let view = self.view();
        // Where there is little room, what is decided for one moment takes several commits.
        if self.room == usize::MAX || self.controller.next_at().is_none_or(|at| at > self.now) {
            self.checks.iter().for_each(|check| check(&view));
        }
        let reports: Vec<_> = view.tasks.iter().filter_map(|task| self.act(task)).collect();
        let reported = !reports.is_empty();
        if reported {
            self.commit(reports);
        }
        changed || reported || step.more
    }

    /// What the task's agent reports now, if there is anything new.
    fn act(&self, task: &Task) -> Option<Change> {
        let view = self.view();
        let node = view.nodes.get(task.node_id?)?;
        let state = task.status.state;
        if node.status.state != NodeState::Ready
            || state < TaskState::Assigned
            || state.is_terminal()
        {
            return None;
        }
        if self.due(task).is_some_and(|at| at > self.now) {
            return None;
        }
        let behaviour = (self.behave)(task);
        let next = match (task.desired_state, state, behaviour) {
            (TaskState::Shutdown | TaskState::Remove, ..) => TaskState::Shutdown,
            (_, TaskState::Assigned, _) => TaskState::Preparing,
            (_, TaskState::Preparing, Behaviour::Hangs) => return None,
            (_, TaskState::Preparing, Behaviour::Rejected) => TaskState::Rejected,
            (_, TaskState::Preparing, _) => TaskState::Ready,
            (TaskState::Running | TaskState::Complete, TaskState::Ready, _) => TaskState::Running,
            (_, TaskState::Running, Behaviour::Ends(_, end)) => end,
            _ => return None,
        };
        Some(Change::Advance(task.id, Box::new(TaskStatus::new(next, self.now, "acted"))))
    }

    /// When the task's container does something on its own.
    fn due(&self, task: &Task) -> Option<Timestamp> {
        let view = self.view();
        view.nodes.get(task.node_id?).filter(|node| node.status.state == NodeState::Ready)?;
        let running = task.status.state == TaskState::Running;
        match (self.behave)(task) {
            Behaviour::Ends(after, _) if running && task.is_wanted() => {
                task.running_since.map(|since| since + after)
            }
            Behaviour::SlowStop(after) if running && !task.is_wanted() => {
                Some(task.updated_at + after)
            }
            _ => None,
        }
    }
}

/// At most one task that shall run for each place, or two while a roll-out starts the new one
/// first.
fn one_task_for_each_place(view: &Snapshot) {
    let mut wanted: BTreeMap<_, Vec<&Task>> = BTreeMap::new();
    for task in view.tasks.iter().filter(|task| task.is_wanted()) {
        let service = view.services.get(task.service_id).expect("a wanted task has a service");
        let node = task.node_id.filter(|_| service.spec.mode.is_global());
        let place = (service.id, task.job_iteration, task.slot, node);
        wanted.entry(place).or_default().push(task);
    }
    for ((service, ..), tasks) in wanted {
        let service = view.services.get(service).unwrap();
        let config = service.spec.update_config.iter().chain(&service.spec.rollback_config);
        let start_first =
            config.into_iter().any(|config| config.order == Some(UpdateOrder::StartFirst));
        assert!(tasks.len() <= 1 + usize::from(start_first), "{tasks:#?}");
    }
}

/// Never more tasks than replicas, and as many again as a roll-out may start first. (Tasks that
/// wait for their place in a smaller service are gone in the same commit.)
fn not_too_many(view: &Snapshot) {
    for service in view.services.iter().filter(|service| !service.pending_delete) {
        let Some(replicas) = service.spec.mode.replicas() else { continue };
        let config = service.spec.update_config.iter().chain(&service.spec.rollback_config);
        let first = config.filter(|config| config.order == Some(UpdateOrder::StartFirst));
        let extra =
            first.map(|config| if config.parallelism == 0 { replicas } else { config.parallelism });
        let wanted = view.tasks_of(service.id).filter(|task| task.is_wanted()).count() as u64;
        let most = replicas + extra.max().unwrap_or(0);
        assert!(wanted <= most, "{wanted} tasks, {most} are the most");
    }
}

/// Everything that a store would have to hold is whole.
fn lawful(view: &Snapshot) {
    for task in view.tasks.iter() {
        assert!(view.services.get(task.service_id).is_some(), "{task:?} has no service");
        match task.desired_state {
            TaskState::Ready | TaskState::Shutdown | TaskState::Remove => {}
            TaskState::Running => assert_eq!(task.job_iteration, None, "{task:?}"),
            TaskState::Complete => assert!(task.job_iteration.is_some(), "{task:?}"),
            state => panic!("{state} cannot be desired"),
        }
    }
}

/// No job has more tasks at work than it may have at the same time, nor more than it still has to
/// complete; nor does any slot count twice, nor anything of an earlier run go on.
fn jobs_keep_count(view: &Snapshot) {
    for service in view.services.iter().filter(|it| it.spec.mode.is_job() && !it.pending_delete) {
        let run = service.job_iteration();
        let open = |task: &&Arc<Task>| task.is_wanted() && !task.status.state.is_terminal();
        let (now, before): (Vec<_>, Vec<_>) =
            view.tasks_of(service.id).filter(open).partition(|task| task.job_iteration == run);
        assert!(before.is_empty(), "{before:#?}");
        let mut done = completed(view, service.id);
        if let ServiceMode::ReplicatedJob(job) = &service.spec.mode {
            assert!(now.len() as u64 <= job.max_concurrent(), "{now:#?}");
            let most = done.len() as u64 + now.len() as u64;
            assert!(most <= job.total_completions(), "{now:#?} beside {done:?}");
            assert!(now.iter().all(|task| task.slot < job.total_completions()));
        }
        let count = done.len();
        done.dedup();
        assert_eq!(done.len(), count, "a place counts once");
    }
}

/// The places that have completed in the present run of a job, in order.
pub(super) fn completed(view: &Snapshot, id: ServiceId) -> Vec<(u64, Option<NodeId>)> {
    let service = view.services.get(id).unwrap();
    let global = service.spec.mode.is_global();
    let mut done: Vec<_> = view
        .tasks_of(id)
        .filter(|task| task.job_iteration == service.job_iteration())
        .filter(|task| task.status.state == TaskState::Complete)
        .filter(|task| task.desired_state != TaskState::Remove)
        .map(|task| (task.slot, task.node_id.filter(|_| global)))
        .collect();
    done.sort_unstable();
    done
}

/// What the API does to a service whose specification changes.
pub(super) fn change_spec(service: &mut Service, edit: impl FnOnce(&mut ServiceSpec)) {
    service.previous_spec = Some(Box::new(service.spec.clone()));
    service.update_status = None;
    edit(&mut service.spec);
    if let Some(job) = &mut service.job_status {
        job.job_iteration.0 += 1;
    }
}

/// Places tasks on the active nodes in turn.
struct TakeTurns;

impl Planner for TakeTurns {
    fn name(&self) -> &'static str {
        "take turns"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        match event.object() {
            Object::Task(task) if task.status.state < TaskState::Assigned => {
                keys.push(Key::Service(task.service_id));
            }
            Object::Node(_) => keys.push(Key::Cluster),
            _ => {}
        }
    }

    fn keys(&self, _: &Snapshot, keys: &mut Vec<Key>) {
        keys.push(Key::Cluster);
    }

    fn plan(&self, view: &Snapshot, _: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut plan = Plan::none();
        let usable = |node: &&Arc<Node>| {
            node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
        };
        let nodes: Vec<_> = view.nodes.iter().filter(usable).collect();
        let mut load: BTreeMap<NodeId, usize> =
            nodes.iter().map(|node| (node.id, view.tasks_on(node.id).count())).collect();
        let mut tasks: Vec<_> =
            view.tasks_unassigned().filter(|task| task.is_wanted()).cloned().collect();
        tasks.sort_by_key(|task| (task.service_id, task.slot));
        for mut task in tasks {
            if plan.is_full(ctx) {
                break;
            }
            let allowed = |node: &NodeId| {
                let node = view.nodes.get(*node).unwrap();
                orchestrate::clean::Fit::new(task.spec.constraints()).matches(node)
                    && task.node_id.is_none_or(|fixed| fixed == node.id)
            };
            let places = load.iter_mut().filter(|(id, _)| allowed(id));
            let Some((node, load)) = places.min_by_key(|(id, load)| (**load, **id)) else {
                continue;
            };
            *load += 1;
            let task_mut = Arc::make_mut(&mut task);
            task_mut.node_id = Some(*node);
            task_mut.status.state = TaskState::Assigned;
            plan.changes.push(Change::update(task));
        }
        plan
    }
}

pub(super) fn replicated(image: &str, replicas: u64) -> ServiceSpec {
    let mode = ReplicatedMode { replicas: Some(replicas), ..Default::default() };
    ServiceSpec {
        name: "web".to_owned(),
        task: Arc::new(TaskSpec {
            container: Some(ContainerSpec { image: image.to_owned(), ..Default::default() }),
            ..Default::default()
        }),
        mode: ServiceMode::Replicated(mode),
        ..Default::default()
    }
}

pub(super) fn scale(spec: &mut ServiceSpec, replicas: u64) {
    spec.mode = replicated("", replicas).mode;
}

pub(super) fn global(image: &str) -> ServiceSpec {
    ServiceSpec { mode: ServiceMode::Global(Default::default()), ..replicated(image, 0) }
}

/// A job of as many tasks in all and at the same time.
pub(super) fn replicated_job(image: &str, total: u64, at_once: u64) -> ServiceSpec {
    let mode = ReplicatedJobMode {
        total_completions: Some(total),
        max_concurrent: Some(at_once),
        ..Default::default()
    };
    ServiceSpec { mode: ServiceMode::ReplicatedJob(mode), ..replicated(image, 0) }
}

pub(super) fn global_job(image: &str) -> ServiceSpec {
    ServiceSpec { mode: ServiceMode::GlobalJob(Default::default()), ..replicated(image, 0) }
}

pub(super) fn set_image(spec: &mut ServiceSpec, image: &str) {
    task(spec).container.as_mut().unwrap().image = image.to_owned();
}

pub(super) fn constrain(spec: &mut ServiceSpec, constraint: &str) {
    task(spec).placement.get_or_insert_default().constraints = vec![constraint.to_owned()];
}

pub(super) fn task(spec: &mut ServiceSpec) -> &mut TaskSpec {
    Arc::make_mut(&mut spec.task)
}

pub(super) fn image(task: &Task) -> &str {
    &task.spec.container.as_ref().unwrap().image
}

/// The images that run, with how many tasks run each.
pub(super) fn images(world: &World, id: ServiceId) -> BTreeMap<String, usize> {
    let mut images = BTreeMap::new();
    for task in world.running(id) {
        *images.entry(image(&task).to_owned()).or_default() += 1;
    }
    images
}

pub(super) fn policy(spec: &mut ServiceSpec) -> &mut RestartPolicy {
    Arc::make_mut(&mut spec.task).restart_policy.get_or_insert_default()
}
