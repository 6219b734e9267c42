//! What an agent knows and decides, without an executor: the tests play it.

use swarm_core::executor::Exit;
use swarm_core::id::IdSource;
use swarm_core::model::{
    ContainerSpec, Network, NetworkAttachment, NetworkRef, SecretBytes, SecretReference, TaskSpec,
};
use swarm_core::network::NetworkView;

use super::super::step::Launched;
use super::*;

const NOW: Timestamp = Timestamp::from_secs(1000);

struct World {
    ids: IdSource,
    state: AgentState,
    now: Timestamp,
    set: u64,
}

impl World {
    fn new() -> Self {
        let timing = Timing { drain: Duration::ZERO, ..Timing::default() };
        let state = AgentState::new(NodeId::NIL, timing);
        Self { ids: IdSource::seeded(7), state, now: NOW, set: 0 }
    }

    fn task(&mut self) -> Task {
        let spec = TaskSpec { container: Some(ContainerSpec::default()), ..Default::default() };
        Task {
            id: self.ids.next(),
            desired_state: TaskState::Running,
            status: TaskStatus { state: TaskState::Assigned, ..Default::default() },
            spec: Arc::new(spec),
            ..Default::default()
        }
    }

    fn change(&mut self, put: Vec<Item>, drop: Vec<ItemKey>) {
        self.set += 1;
        let set = Assignments { applies_to: Some(self.set - 1), results_in: self.set, put, drop };
        self.state.assign(set, self.now).unwrap();
    }

    fn complete(&mut self, put: Vec<Item>) {
        self.set += 1;
        let set = Assignments { results_in: self.set, put, ..Default::default() };
        self.state.assign(set, self.now).unwrap();
    }

    fn poll(&mut self) -> Todo {
        self.state.poll(self.now)
    }

    /// Polls for the one piece of work that must be there.
    fn work(&mut self) -> Work {
        let mut work = self.poll().work;
        assert_eq!(work.len(), 1, "{work:?}");
        work.remove(0)
    }

    fn finish(&mut self, work: &Work, outcome: Outcome) {
        self.state.finished(work.task, work.ticket, outcome, self.now);
    }

    /// Brings an assigned task to `running`.
    fn run(&mut self) -> Work {
        let prepare = self.work();
        assert!(matches!(prepare.job, Job::Prepare(_)), "{prepare:?}");
        self.finish(&prepare, Outcome::Prepared(Ok(Vec::new())));
        let start = self.work();
        assert!(matches!(start.job, Job::Start { .. }), "{start:?}");
        self.finish(&start, Outcome::Started(Ok(Launched::default())));
        let wait = self.work();
        assert!(matches!(wait.job, Job::Wait), "{wait:?}");
        wait
    }

    fn state_of(&self, task: TaskId) -> TaskState {
        self.state.status(task).expect("it is known").state
    }
}

fn put(task: &Task) -> Item {
    Item::Task(Arc::new(task.clone()))
}

fn entries(todo: &Todo) -> Vec<(TaskId, Option<TaskState>)> {
    let entry = |entry: &Entry| match entry {
        Entry::Put(record) => (record.task.id, Some(record.status.state)),
        Entry::Forget(task) => (*task, None),
    };
    todo.journal.iter().map(entry).collect()
}

#[test]
fn a_task_goes_from_assigned_to_running_and_away() {
    let mut world = World::new();
    let mut task = world.task();
    world.complete(vec![put(&task)]);
    let wait = world.run();
    assert_eq!(world.state_of(task.id), TaskState::Running);

    task.desired_state = TaskState::Shutdown;
    world.change(vec![put(&task)], Vec::new());
    let stop = world.work();
    assert!(
        matches!(stop.job, Job::Stop { grace, started: true } if grace == Duration::from_secs(10))
    );
    world.finish(&wait, Outcome::Exited(Ok(Exit::default())));
    assert_eq!(world.state_of(task.id), TaskState::Running, "an abandoned wait says nothing");
    world.finish(&stop, Outcome::Stopped(Ok(None)));
    assert_eq!(world.state_of(task.id), TaskState::Shutdown);
    assert!(world.poll().work.is_empty(), "what ended stays until it is not assigned any more");

    world.change(Vec::new(), vec![ItemKey::Task(task.id)]);
    let remove = world.work();
    assert!(matches!(remove.job, Job::Remove));
    world.finish(&remove, Outcome::Removed(Ok(())));
    assert_eq!(entries(&world.poll()), [(task.id, None)]);
    assert_eq!(world.state.tasks().count(), 0);
}

#[test]
fn a_task_that_shall_complete_runs_and_is_left_alone_when_it_has() {
    let mut world = World::new();
    let task = Task { desired_state: TaskState::Complete, ..world.task() };
    world.complete(vec![put(&task)]);
    let wait = world.run();
    world.finish(&wait, Outcome::Exited(Ok(Exit::default())));
    assert_eq!(world.state_of(task.id), TaskState::Complete);
    // Also when everything is sent again: what has run to its end runs once.
    world.complete(vec![put(&task)]);
    assert!(world.poll().work.is_empty());
    assert_eq!(world.state_of(task.id), TaskState::Complete);
}

#[test]
fn the_journal_is_written_before_work_begins_and_holds_no_credentials() {
    let mut world = World::new();
    let mut task = world.task();
    task.registry_auth = Some(SecretBytes::from(b"password".to_vec()));
    world.complete(vec![put(&task)]);
    let todo = world.poll();
    assert_eq!(todo.work.len(), 1);
    assert_eq!(entries(&todo), [(task.id, Some(TaskState::Preparing))]);
    let Entry::Put(record) = &todo.journal[0] else { panic!() };
    assert_eq!(record.task.registry_auth, None);
    let Job::Prepare(assignment) = &todo.work[0].job else { panic!() };
    assert!(assignment.task.registry_auth.is_some(), "the executor needs them");
}

#[test]
fn a_gap_is_an_error_and_changes_nothing() {
    let mut world = World::new();
    let task = world.task();
    let set = Assignments {
        applies_to: Some(3),
        results_in: 4,
        put: vec![put(&task)],
        ..Default::default()
    };
    assert_eq!(world.state.assign(set.clone(), NOW), Err(Gap { applies_to: 3, have: None }));
    world.complete(Vec::new());
    assert_eq!(world.state.assign(set, NOW), Err(Gap { applies_to: 3, have: Some(1) }));
    assert_eq!(world.state.tasks().count(), 0);
}

#[test]
fn a_complete_set_that_is_delivered_twice_takes_nothing_back() {
    let mut world = World::new();
    let task = world.task();
    let assigned = |world: &World| world.state.run(task.id).is_some_and(|run| !run.dropped);
    let first = Assignments { results_in: 1, put: vec![put(&task)], ..Default::default() };
    world.state.assign(first.clone(), NOW).unwrap();
    let drop = vec![ItemKey::Task(task.id)];
    let next = Assignments { applies_to: Some(1), results_in: 2, drop, ..Default::default() };
    world.state.assign(next, NOW).unwrap();
    world.state.assign(first.clone(), NOW).unwrap();
    assert!(!assigned(&world), "it was dropped since");
    world.state.begin_session();
    world.state.assign(first, NOW).unwrap();
    assert!(assigned(&world), "what a new session says counts");
}

#[test]
fn networks_are_left_alone_until_the_first_set_is_here() {
    let mut world = World::new();
    assert_eq!(world.poll().network, None);
    world.complete(Vec::new());
    assert_eq!(world.poll().network, Some(NodeNetwork::default()));
    assert_eq!(world.poll().network, None, "only what changes is told");
    let network = Arc::new(Network { id: world.ids.next(), ..Default::default() });
    let view = NetworkView { network, peers: Vec::new(), services: Vec::new() };
    world.change(vec![Item::Network(Arc::new(view.clone()))], Vec::new());
    let networks = world.poll().network.map(|network| network.networks);
    assert_eq!(networks, Some(vec![view.clone()]));
    world.change(vec![Item::Network(Arc::new(view))], Vec::new());
    assert_eq!(world.poll().network, None, "the same again is no change");
}

#[test]
fn a_task_waits_for_its_network_but_not_for_ever() {
    let mut world = World::new();
    let network = Arc::new(Network { id: world.ids.next(), ..Default::default() });
    let place = NetworkAttachment {
        network: NetworkRef { id: network.id, ..Default::default() },
        aliases: vec!["alias".into()],
        ..Default::default()
    };
    let mut task = world.task();
    task.networks = vec![place];
    world.complete(vec![put(&task)]);
    assert!(world.poll().work.is_empty());
    assert!(world.state.status(task.id).unwrap().err.contains("waiting for network"));

    let mut patient = world.state.clone();
    let view = NetworkView { network, peers: Vec::new(), services: Vec::new() };
    world.change(vec![Item::Network(Arc::new(view))], Vec::new());
    let work = world.work();
    let Job::Prepare(assignment) = work.job else { panic!("{work:?}") };
    assert_eq!(assignment.attachments[0].names, ["", "alias", "tasks."]);

    let late = NOW + Duration::from_secs(31);
    patient.poll(late);
    assert_eq!(patient.status(task.id).unwrap().state, TaskState::Rejected);
}

#[test]
fn a_missing_secret_rejects() {
    let mut world = World::new();
    let mut task = world.task();
    let reference = SecretReference {
        secret_id: world.ids.next(),
        secret_name: "db-password".into(),
        ..Default::default()
    };
    let spec = Arc::make_mut(&mut task.spec);
    spec.container.as_mut().unwrap().secrets.push(reference.clone());
    world.complete(vec![put(&task)]);
    assert!(world.poll().work.is_empty());
    let status = world.state.status(task.id).unwrap();
    assert_eq!(status.state, TaskState::Rejected);
    assert_eq!(
        (&*status.message, &*status.err),
        ("preparing", "secret db-password was not assigned")
    );

    let mut good = world.task();
    good.spec = task.spec.clone();
    let secret = Item::Secret {
        id: reference.secret_id,
        bytes: SecretBytes::from(b"x".to_vec()),
        templating: None,
    };
    world.change(vec![put(&good), secret], Vec::new());
    let work = world.work();
    let Job::Prepare(assignment) = work.job else { panic!("{work:?}") };
    assert_eq!(assignment.secrets.len(), 1, "the order within a set does not matter");
}

#[test]
fn strays_are_stopped_once_a_complete_set_does_not_list_them() {
    let mut world = World::new();
    let (stray, known) = (world.task(), world.task());
    let found = [&stray, &known].map(|t| Observed { task: t.id, found: Found::Running }).to_vec();
    world.state.restore(Vec::new(), found, NOW);
    assert!(world.poll().work.is_empty(), "nobody knows yet whether they are assigned");
    world.complete(vec![put(&known)]);
    let work = world.poll().work;
    let of = |task: &Task| work.iter().find(|w| w.task == task.id).unwrap();
    assert!(matches!(of(&stray).job, Job::Stop { .. }));
    assert!(matches!(of(&known).job, Job::Prepare(_)), "adopted by idempotent steps");
    let stop = of(&stray).clone();
    world.finish(&stop, Outcome::Stopped(Ok(None)));
    let remove = world.work();
    assert!(matches!(remove.job, Job::Remove));
    world.finish(&remove, Outcome::Removed(Ok(())));
    world.poll();
    assert_eq!(world.state.tasks().collect::<Vec<_>>(), [known.id]);
    assert!(world.state.take_reports(usize::MAX).iter().all(|(task, _)| *task != stray.id));
}

#[test]
fn a_restart_resumes_by_journal_and_inventory() {
    use TaskState::{Assigned, Failed, Preparing, Ready, Running, Shutdown, Starting};
    let exit = Exit { code: 3, error: None };
    let table = [
        (Preparing, None, Preparing),
        (Preparing, Some(Found::Prepared), Preparing),
        (Ready, Some(Found::Prepared), Ready),
        (Ready, None, TaskState::Rejected),
        (Starting, Some(Found::Prepared), Starting),
        (Starting, Some(Found::Running), Starting),
        (Starting, None, Failed),
        (Running, Some(Found::Running), Running),
        (Running, Some(Found::Exited(exit.clone())), Failed),
        (Running, Some(Found::Prepared), Failed),
        (Running, None, Failed),
        (Shutdown, None, Shutdown),
        (Shutdown, Some(Found::Exited(exit)), Shutdown),
        (Assigned, None, Assigned),
    ];
    for (state, found, expected) in table {
        let mut world = World::new();
        let mut task = world.task();
        task.desired_state = Ready;
        let record = Record {
            status: TaskStatus::new(state, NOW, "before"),
            task: Arc::new(task.clone()),
            addresses: Vec::new(),
        };
        let inventory = found.clone().map(|found| Observed { task: task.id, found });
        world.state.restore(vec![record], inventory.into_iter().collect(), NOW);
        assert_eq!(world.state_of(task.id), expected, "{state} with {found:?}");
        let reports = world.state.take_reports(usize::MAX);
        assert_eq!(reports.len(), 1, "everything is told again");
    }
}

#[test]
fn without_journal_the_managers_view_and_the_inventory_decide() {
    use TaskState::{Accepted, Assigned, Failed, Preparing, Running, Shutdown};
    let ended = Found::Exited(Exit { code: 3, error: None });
    let table = [
        (Assigned, None, Assigned),
        (Preparing, None, Preparing),
        (Running, None, Failed),
        (Running, Some(Found::Running), Accepted),
        (Running, Some(ended), Failed),
        (Shutdown, None, Shutdown),
    ];
    for (state, found, expected) in table {
        let mut world = World::new();
        let mut task = world.task();
        task.status.state = state;
        let inventory = found.clone().map(|found| Observed { task: task.id, found });
        world.state.restore(Vec::new(), inventory.into_iter().collect(), NOW);
        world.complete(vec![put(&task)]);
        assert_eq!(world.state_of(task.id), expected, "{state} with {found:?}");
    }
}

#[test]
fn an_adopted_task_is_attached_again_while_it_is_waited_for() {
    let mut world = World::new();
    let network = Arc::new(Network { id: world.ids.next(), ..Default::default() });
    let place = NetworkAttachment {
        network: NetworkRef { id: network.id, ..Default::default() },
        ..Default::default()
    };
    let mut task = world.task();
    task.networks = vec![place];
    let record = Record {
        status: TaskStatus::new(TaskState::Running, NOW, "started"),
        task: Arc::new(task.clone()),
        addresses: Vec::new(),
    };
    let found = Observed { task: task.id, found: Found::Running };
    world.state.restore(vec![record], vec![found], NOW);
    let wait = world.work();
    assert!(matches!(wait.job, Job::Wait), "it is watched without a manager");
    let view = NetworkView { network, peers: Vec::new(), services: Vec::new() };
    world.complete(vec![Item::Network(Arc::new(view)), put(&task)]);
    let attach = world.work();
    assert!(matches!(attach.job, Job::Attach(_)), "{attach:?}");
    world.finish(&attach, Outcome::Attached(Ok(vec![[10, 0, 0, 2].into()])));
    assert!(matches!(world.work().job, Job::Wait));
}

#[test]
fn a_crash_is_tried_again() {
    let mut world = World::new();
    let task = world.task();
    world.complete(vec![put(&task)]);
    let prepare = world.work();
    world.finish(&prepare, Outcome::Crashed("bug".into()));
    assert!(world.poll().work.is_empty());
    assert_eq!(world.state.wake_at(), Some(NOW + Duration::from_secs(1)));
    world.now = NOW + Duration::from_secs(1);
    assert!(matches!(world.work().job, Job::Prepare(_)));
}

#[test]
fn reports_come_in_bearable_messages() {
    let mut world = World::new();
    let tasks: Vec<Task> = (0..5).map(|_| world.task()).collect();
    world.complete(tasks.iter().map(put).collect());
    world.poll();
    let mut sizes = Vec::new();
    let mut told = BTreeSet::new();
    while world.state.has_reports() {
        let reports = world.state.take_reports(2);
        sizes.push(reports.len());
        told.extend(reports.into_iter().map(|(task, _)| task));
    }
    assert_eq!(sizes, [2, 2, 1]);
    assert_eq!(told.len(), 5);
}

#[test]
fn a_clock_that_is_set_back_makes_nobody_wait_longer() {
    let mut world = World::new();
    let task = world.task();
    world.complete(vec![put(&task)]);
    let prepare = world.work();
    world.finish(&prepare, Outcome::Prepared(Err(ExecError::temporary("later"))));
    assert!(world.poll().work.is_empty());
    world.now = NOW.before(Duration::from_secs(900));
    assert!(world.poll().work.is_empty());
    world.now = world.now + Duration::from_secs(1);
    assert!(matches!(world.work().job, Job::Prepare(_)));
}

/// Whatever happens in whatever order: states only advance, at most one piece of work per task is
/// in hand, and in the end nothing is left.
#[test]
fn states_only_advance_whatever_happens() {
    for seed in 0..200 {
        let mut world = World { ids: IdSource::seeded(seed), ..World::new() };
        let mut tasks: Vec<Task> = (0..3).map(|_| world.task()).collect();
        let mut hands: BTreeMap<TaskId, Work> = BTreeMap::new();
        let mut seen: BTreeMap<TaskId, TaskState> = BTreeMap::new();
        world.complete(Vec::new());
        for _ in 0..60 {
            let task = usize::try_from(world.ids.below(3)).unwrap();
            match world.ids.below(4) {
                0 => {
                    let desired = [TaskState::Ready, TaskState::Running, TaskState::Shutdown]
                        [usize::try_from(world.ids.below(3)).unwrap()];
                    let task = &mut tasks[task];
                    task.desired_state = desired.max(task.desired_state);
                    let item = put(task);
                    world.change(vec![item], Vec::new());
                }
                1 => world.now = world.now + Duration::from_secs(3),
                _ => {
                    if let Some(work) = hands.remove(&tasks[task].id) {
                        let outcome = any_outcome(&mut world.ids, &work.job);
                        world.finish(&work, outcome);
                    }
                }
            }
            hands.extend(world.poll().work.into_iter().map(|work| (work.task, work)));
            for (id, run) in &world.state.runs {
                let last = seen.insert(*id, run.status.state).unwrap_or_default();
                assert!(last <= run.status.state, "seed {seed}: {last} to {}", run.status.state);
                let doing = run.doing.map(|(_, ticket)| ticket);
                assert_eq!(doing, hands.get(id).map(|work| work.ticket), "seed {seed}");
            }
        }
        world.complete(Vec::new());
        for _ in 0..20 {
            hands.extend(world.poll().work.into_iter().map(|work| (work.task, work)));
            for (_, work) in std::mem::take(&mut hands) {
                let outcome = good_outcome(&work.job);
                world.finish(&work, outcome);
            }
            world.now = world.now + Duration::from_secs(10);
        }
        assert_eq!(world.state.tasks().count(), 0, "seed {seed}: everything is gone");
    }
}

fn good_outcome(job: &Job) -> Outcome {
    match job {
        Job::Prepare(_) => Outcome::Prepared(Ok(Vec::new())),
        Job::Attach(_) => Outcome::Attached(Ok(Vec::new())),
        Job::Start { .. } => Outcome::Started(Ok(Launched::default())),
        Job::Wait => Outcome::Exited(Ok(Exit::default())),
        Job::Stop { .. } => Outcome::Stopped(Ok(None)),
        Job::Remove => Outcome::Removed(Ok(())),
    }
}

fn any_outcome(ids: &mut IdSource, job: &Job) -> Outcome {
    let error = match ids.below(6) {
        0 => ExecError::temporary("later"),
        1 => ExecError::failed("broken"),
        _ => return good_outcome(job),
    };
    job.failed(error)
}

/// A leader that was deposed, and does not know it yet, tells of a state before the task was assigned.
#[test]
fn what_was_stopped_because_of_an_old_set_is_reported_to_the_leader_that_assigned_it() {
    let mut world = World::new();
    let task = world.task();
    world.complete(vec![put(&task)]);
    let prepare = world.work();
    world.finish(&prepare, Outcome::Prepared(Ok(Vec::new())));

    world.state.begin_session();
    world.complete(Vec::new());
    let stop = world.work();
    world.finish(&stop, Outcome::Stopped(Ok(None)));
    let remove = world.work();
    assert!(matches!(remove.job, Job::Remove), "{remove:?}");

    world.state.begin_session();
    world.complete(vec![put(&task)]);
    world.finish(&remove, Outcome::Removed(Ok(())));
    world.poll();
    let told = world.state.take_reports(10);
    let told: Vec<_> = told.into_iter().map(|(id, status)| (id, status.state)).collect();
    assert_eq!(told, [(task.id, TaskState::Shutdown)]);
}
