//! The controller: order, one change for each object, timers, refused batches; and its shell.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Controller, Ctx, Key, Plan, Planner, Retry, Step, run};
use crate::id::IdSource;
use crate::model::{Service, ServiceId, Task, TaskId, TaskState, TaskStatus};
use crate::store::{
    Batch, Change, CommitError, Epoch, Event, Leadership, MemoryStore, Object, Snapshot, Store as _,
};
use crate::time::{SystemClock, Timestamp};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const EPOCH: Epoch = Epoch(1);

type Decide = dyn Fn(&Snapshot, &Key, &mut Ctx<'_>) -> Plan + Send + Sync;

/// Looks at services, and at the service of each task, as a closure says.
struct ByService {
    name: &'static str,
    decide: Box<Decide>,
    looks: Arc<AtomicUsize>,
}

impl Planner for ByService {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        match event.object() {
            Object::Service(service) => keys.push(Key::Service(service.id)),
            Object::Task(task) => keys.push(Key::Service(task.service_id)),
            _ => {}
        }
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        keys.extend(view.services.iter().map(|service| Key::Service(service.id)));
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        self.looks.fetch_add(1, Ordering::Relaxed);
        (self.decide)(view, key, ctx)
    }
}

fn planner(
    name: &'static str,
    decide: impl Fn(&Snapshot, &Key, &mut Ctx<'_>) -> Plan + Send + Sync + 'static,
) -> (Arc<dyn Planner>, Arc<AtomicUsize>) {
    let looks = Arc::<AtomicUsize>::default();
    (Arc::new(ByService { name, decide: Box::new(decide), looks: looks.clone() }), looks)
}

fn changes(changes: Vec<Change>) -> Plan {
    Plan { changes, ..Plan::none() }
}

fn service_of(key: &Key) -> ServiceId {
    let Key::Service(id) = key else { panic!("{key:?} is not a service's") };
    *id
}

fn service(ids: &mut IdSource, name: &str) -> Service {
    let mut service = Service { id: ids.next(), ..Service::default() };
    service.spec.name = name.to_owned();
    service
}

fn task(id: TaskId, service: ServiceId, state: TaskState) -> Task {
    let status = TaskStatus::new(state, NOW, "made");
    Task { id, service_id: service, status, desired_state: TaskState::Ready, ..Task::default() }
}

/// A store with one service and, if asked for, a task of it.
fn world(state: Option<TaskState>) -> (MemoryStore, ServiceId, TaskId) {
    let store = MemoryStore::default();
    let mut ids = IdSource::seeded(1);
    let web = service(&mut ids, "web");
    let (id, task_id) = (web.id, ids.next());
    let mut changes = vec![Change::create(web)];
    changes.extend(state.map(|state| Change::create(task(task_id, id, state))));
    store.apply(&Batch::new(NOW, changes)).unwrap();
    (store, id, task_id)
}

fn step(controller: &mut Controller, view: &Snapshot, now: Timestamp) -> Step {
    controller.step(view, now, &mut IdSource::seeded(9))
}

/// Creates a task for a service that has none.
fn one_task(view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
    let service = service_of(key);
    if view.tasks_of(service).next().is_some() {
        return Plan::none();
    }
    changes(vec![Change::create(task(ctx.ids.next(), service, TaskState::New))])
}

/// Moves every task from one state to the next by an update.
fn promote(from: TaskState, to: TaskState) -> impl Fn(&Snapshot, &Key, &mut Ctx<'_>) -> Plan {
    move |view, key, _| {
        let tasks = view.tasks_of(service_of(key)).filter(|task| task.status.state == from);
        changes(
            tasks
                .map(|task| {
                    let mut task = Task::clone(task);
                    task.status.state = to;
                    Change::update(task)
                })
                .collect(),
        )
    }
}

#[test]
fn one_step_goes_from_a_service_to_an_assigned_task_in_one_change() {
    let (store, web, _) = world(None);
    let (orchestrate, _) = planner("orchestrate", one_task);
    let (allocate, _) = planner("allocate", promote(TaskState::New, TaskState::Pending));
    let (place, _) = planner("place", promote(TaskState::Pending, TaskState::Assigned));
    let planners = vec![orchestrate, allocate, place];
    let mut controller = Controller::new(planners, EPOCH, &store.snapshot());
    let step1 = step(&mut controller, &store.snapshot(), NOW);
    let batch = step1.batch.unwrap();
    assert_eq!((batch.epoch, batch.at), (Some(EPOCH), NOW));
    let [Change::Create(Object::Task(created))] = batch.changes.as_slice() else {
        panic!("one change for the one task: {:?}", batch.changes);
    };
    assert_eq!((created.service_id, created.status.state), (web, TaskState::Assigned));
    store.apply(&batch).unwrap();
    assert!(!step1.more);

    let mut watch = store.watch(crate::model::Version(1));
    controller.observe(&watch.try_next().unwrap().unwrap());
    let step2 = step(&mut controller, &store.snapshot(), NOW);
    assert!(step2.batch.is_none(), "a plan that was carried out leaves nothing to do");
    assert_eq!(controller.next_at(), None);
}

#[test]
fn an_earlier_planner_sees_a_later_ones_decision_when_it_is_committed() {
    let (store, _, id) = world(Some(TaskState::New));
    let (first, looks) = planner("first", |_, _, _| Plan::none());
    let (second, _) = planner("second", promote(TaskState::New, TaskState::Pending));
    let mut controller = Controller::new(vec![first, second], EPOCH, &store.snapshot());
    let batch = step(&mut controller, &store.snapshot(), NOW).batch.unwrap();
    assert_eq!(looks.load(Ordering::Relaxed), 1);
    assert_eq!(controller.next_at(), None, "nothing is dirty before the commit comes back");
    let mut watch = store.watch(store.snapshot().version());
    store.apply(&batch).unwrap();
    controller.observe(&watch.try_next().unwrap().unwrap());
    assert_eq!(controller.next_at(), Some(Timestamp::ZERO));
    step(&mut controller, &store.snapshot(), NOW);
    assert_eq!(looks.load(Ordering::Relaxed), 2);
    assert_eq!(store.snapshot().tasks.get(id).unwrap().status.state, TaskState::Pending);
}

/// What a planner writes to a task.
type Write = fn(&Task) -> Change;

/// The changes of one step in which planners write these to one running task.
fn merged(writes: Vec<Write>) -> (MemoryStore, TaskId, Vec<Change>) {
    let (store, _, id) = world(Some(TaskState::Running));
    let planners = writes.into_iter().map(|write| {
        let once = AtomicUsize::new(0);
        planner("writer", move |view, key, _| {
            let first = once.fetch_add(1, Ordering::Relaxed) == 0;
            changes(view.tasks_of(service_of(key)).filter(|_| first).map(|t| write(t)).collect())
        })
        .0
    });
    let mut controller = Controller::new(planners.collect(), EPOCH, &store.snapshot());
    let changes = step(&mut controller, &store.snapshot(), NOW).batch.unwrap().changes;
    (store, id, changes)
}

fn stop(task: &Task) -> Change {
    Change::Desire(task.id, TaskState::Shutdown)
}

fn orphan(task: &Task) -> Change {
    Change::Advance(task.id, Box::new(TaskStatus::new(TaskState::Orphaned, NOW, "gone")))
}

fn label(task: &Task) -> Change {
    let mut task = task.clone();
    task.labels.insert("a".to_owned(), "1".to_owned());
    Change::update(task)
}

#[test]
fn what_several_planners_write_to_one_object_is_all_there() {
    let orders: [Vec<Write>; 6] = [
        vec![stop, orphan],
        vec![orphan, stop],
        vec![label, stop, orphan],
        vec![stop, label, orphan],
        vec![stop, orphan, label],
        vec![orphan, label, stop],
    ];
    for (number, writes) in orders.into_iter().enumerate() {
        let labelled = writes.len() == 3;
        let (store, id, changes) = merged(writes);
        store.apply(&Batch::new(NOW, changes)).unwrap();
        let task = store.snapshot().tasks.get(id).unwrap().clone();
        let found = (task.desired_state, task.status.state, task.labels.contains_key("a"));
        let expected = (TaskState::Shutdown, TaskState::Orphaned, labelled);
        assert_eq!(found, expected, "order {number}");
    }
}

#[test]
fn what_is_made_and_removed_in_one_step_is_not_written() {
    let (store, ..) = world(None);
    let (make, _) = planner("make", one_task);
    let (remove, _) = planner("remove", |view, key, _| {
        changes(view.tasks_of(service_of(key)).map(|task| Change::remove(task.id)).collect())
    });
    let mut controller = Controller::new(vec![make, remove], EPOCH, &store.snapshot());
    assert!(step(&mut controller, &store.snapshot(), NOW).batch.is_none());
}

#[test]
fn a_timer_looks_again_once_and_moves_with_the_plan() {
    let (store, web, _) = world(None);
    let again = Arc::new(Mutex::new(Some(NOW + Duration::from_secs(5))));
    let asked = again.clone();
    let (waits, looks) = planner("waits", move |_, _, _| {
        let again_at = *asked.lock().unwrap();
        Plan { again_at, ..Plan::none() }
    });
    let view = store.snapshot();
    let mut controller = Controller::new(vec![waits], EPOCH, &view);
    let at = |controller: &mut Controller, seconds| {
        step(controller, &view, NOW + Duration::from_secs(seconds));
        looks.load(Ordering::Relaxed)
    };
    assert_eq!(at(&mut controller, 0), 1);
    assert_eq!(controller.next_at(), Some(NOW + Duration::from_secs(5)));
    assert_eq!(at(&mut controller, 4), 1, "not before its time");
    *again.lock().unwrap() = Some(NOW + Duration::from_secs(20));
    assert_eq!(at(&mut controller, 5), 2, "at its time");
    assert_eq!(controller.next_at(), Some(NOW + Duration::from_secs(20)));
    // Looked at earlier for another reason, with a new time: the old timer is gone.
    *again.lock().unwrap() = Some(NOW + Duration::from_secs(40));
    let object = view.services.get(web).cloned().map(Object::from);
    let event = Event { old: object.clone(), new: object };
    let version = view.version();
    controller.observe(&crate::store::Commit { version, events: vec![event] });
    assert_eq!(at(&mut controller, 10), 3);
    assert_eq!(at(&mut controller, 39), 3);
    *again.lock().unwrap() = None;
    assert_eq!(at(&mut controller, 40), 4);
    assert_eq!(controller.next_at(), None);
}

#[test]
fn a_refused_batch_is_decided_again_on_the_state_as_it_is() {
    let (store, web, _) = world(None);
    let (orchestrate, _) = planner("orchestrate", one_task);
    let mut controller = Controller::new(vec![orchestrate], EPOCH, &store.snapshot());
    assert!(step(&mut controller, &store.snapshot(), NOW).batch.is_some());
    assert_eq!(controller.next_at(), None);
    controller.rejected(&CommitError::NoLeader);
    assert_eq!(controller.next_at(), Some(Timestamp::ZERO), "its keys are dirty again");
    let other = task(IdSource::seeded(5).next(), web, TaskState::New);
    store.apply(&Batch::new(NOW, vec![Change::create(other)])).unwrap();
    let again = step(&mut controller, &store.snapshot(), NOW);
    assert!(again.batch.is_none(), "somebody else did it meanwhile");
}

#[test]
fn a_refused_removal_or_desire_is_decided_again_too() {
    for write in [stop, |task: &Task| Change::remove(task.id), label, orphan] {
        let (store, ..) = world(Some(TaskState::Running));
        let (writer, looks) = planner("writer", move |view, key, _| {
            changes(view.tasks_of(service_of(key)).map(|task| write(task)).collect())
        });
        let mut controller = Controller::new(vec![writer], EPOCH, &store.snapshot());
        let batch = step(&mut controller, &store.snapshot(), NOW).batch.unwrap();
        controller.rejected(&CommitError::NoLeader);
        step(&mut controller, &store.snapshot(), NOW);
        assert_eq!(looks.load(Ordering::Relaxed), 2, "{:?}", batch.changes);
    }
}

#[test]
fn who_has_seen_what_was_not_committed_looks_again() {
    let (store, ..) = world(None);
    let (orchestrate, _) = planner("orchestrate", one_task);
    let (second, looks) = planner("second", |_, _, _| Plan::none());
    let mut controller = Controller::new(vec![orchestrate, second], EPOCH, &store.snapshot());
    step(&mut controller, &store.snapshot(), NOW);
    controller.rejected(&CommitError::NoLeader);
    step(&mut controller, &store.snapshot(), NOW);
    assert_eq!(looks.load(Ordering::Relaxed), 2);
}

/// How often each of three planners looks again, of which the second makes a task, once that is
/// committed and known to be.
fn looks_after_commit(settled: bool) -> [usize; 3] {
    let (store, ..) = world(None);
    let (first, early) = planner("first", |_, _, _| Plan::none());
    let (second, own) =
        planner("second", move |view, key, ctx| Plan { settled, ..one_task(view, key, ctx) });
    let (third, late) = planner("third", |_, _, _| Plan::none());
    let mut controller = Controller::new(vec![first, second, third], EPOCH, &store.snapshot());
    let batch = step(&mut controller, &store.snapshot(), NOW).batch.unwrap();
    let mut watch = store.watch(store.snapshot().version());
    controller.committed(store.apply(&batch).unwrap());
    controller.observe(&watch.try_next().unwrap().unwrap());
    let other = task(IdSource::seeded(8).next(), ServiceId::NIL, TaskState::New);
    let before = [&early, &own, &late].map(|looks| looks.load(Ordering::Relaxed));
    assert_eq!(before, [1, 1, 1]);
    assert!(step(&mut controller, &store.snapshot(), NOW).batch.is_none());
    let after = [&early, &own, &late].map(|looks| looks.load(Ordering::Relaxed));
    // What others commit is looked at by all.
    store.apply(&Batch::new(NOW, vec![Change::create(other)])).unwrap();
    controller.observe(&watch.try_next().unwrap().unwrap());
    step(&mut controller, &store.snapshot(), NOW);
    let others = [&early, &own, &late].map(|looks| looks.load(Ordering::Relaxed));
    assert_eq!([0, 1, 2].map(|at| others[at] - after[at]), [1, 1, 1]);
    [0, 1, 2].map(|at| after[at] - before[at])
}

#[test]
fn of_ones_own_commit_only_those_look_again_who_have_reason_to() {
    // The first ran before there was a task; the second looks again unless it sees no need; the third
    // has seen it.
    assert_eq!(looks_after_commit(false), [1, 1, 0]);
    assert_eq!(looks_after_commit(true), [1, 0, 0]);
}

/// 5,000 services without a task, and a planner that makes one for each.
fn much_to_do() -> (MemoryStore, Controller, IdSource) {
    let store = MemoryStore::default();
    let mut ids = IdSource::seeded(1);
    let services = (0..5_000).map(|number| Change::create(service(&mut ids, &format!("{number}"))));
    store.apply(&Batch::new(NOW, services.collect())).unwrap();
    let (orchestrate, _) = planner("orchestrate", one_task);
    let controller = Controller::new(vec![orchestrate], EPOCH, &store.snapshot());
    (store, controller, ids)
}

#[test]
fn a_large_decision_is_cut_into_commits_and_none_is_lost() {
    let (store, mut controller, mut ids) = much_to_do();
    let mut sizes = Vec::new();
    loop {
        let step = controller.step(&store.snapshot(), NOW, &mut ids);
        let batch = step.batch.unwrap();
        sizes.push(batch.changes.len());
        store.apply(&batch).unwrap();
        if !step.more {
            break;
        }
    }
    assert_eq!(sizes, [1_000; 5]);
}

#[test]
fn a_commit_that_was_too_large_is_made_smaller() {
    let (store, mut controller, mut ids) = much_to_do();
    let mut size = || {
        let step = controller.step(&store.snapshot(), NOW, &mut ids);
        controller.rejected(&CommitError::TooLarge { bytes: 2, limit: 1 });
        step.batch.unwrap().changes.len()
    };
    assert_eq!([size(), size(), size()], [1_000, 500, 250]);
}

/// Makes so many tasks for a service, as many at a time as there is room for.
fn all_tasks(view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>, wanted: usize) -> Plan {
    let mut plan = Plan::none();
    let Key::Service(service_id) = *key else { return plan };
    for _ in view.tasks_of(service_id).count()..wanted {
        if plan.is_full(ctx) {
            break;
        }
        let id = ctx.ids.next();
        plan.changes.push(Change::create(Task { id, service_id, ..Task::default() }));
    }
    plan
}

/// Commits what is planned to a store that takes so many changes at once, until there is nothing
/// left to do; how many each commit had, and what was to be done about those it did not take.
fn commit_all(
    store: &MemoryStore,
    controller: &mut Controller,
    limit: usize,
) -> (Vec<usize>, Vec<Retry>) {
    let (mut sizes, mut retries, mut ids) = (Vec::new(), Vec::new(), IdSource::seeded(2));
    for _ in 0..10_000 {
        let step = controller.step(&store.snapshot(), NOW, &mut ids);
        match step.batch {
            Some(batch) if batch.changes.len() > limit => {
                let bytes = batch.changes.len();
                retries.push(controller.rejected(&CommitError::TooLarge { bytes, limit }));
            }
            Some(batch) => {
                sizes.push(batch.changes.len());
                let version = store.apply(&batch).unwrap();
                controller.committed(version);
            }
            None if controller.next_at().is_none() => return (sizes, retries),
            None => {}
        }
    }
    panic!("it does not come to an end");
}

#[test]
fn a_plan_is_no_larger_than_the_store_takes_and_goes_on_where_it_ended() {
    let (store, ..) = world(None);
    let (tasks, _) = planner("tasks", |view, key, ctx| all_tasks(view, key, ctx, 5_000));
    let mut controller = Controller::new(vec![tasks], EPOCH, &store.snapshot());
    let (sizes, retries) = commit_all(&store, &mut controller, 300);
    assert_eq!(store.snapshot().tasks.len(), 5_000 * store.snapshot().services.len());
    assert!(retries.iter().all(|retry| *retry == Retry::AtOnce));
    assert!(sizes.iter().filter(|size| **size >= 200).count() > sizes.len() / 2, "{sizes:?}");
}

#[test]
fn what_is_too_large_by_itself_holds_nothing_else_up() {
    let mut ids = IdSource::seeded(1);
    let store = MemoryStore::default();
    let services = ["large", "small", "other"].map(|name| service(&mut ids, name));
    let large = services[0].id;
    store.apply(&Batch::new(NOW, services.map(Change::create).to_vec())).unwrap();
    let (stubborn, _) = planner("stubborn", move |view, key, ctx| {
        let room = if *key == Key::Service(large) { usize::MAX } else { ctx.room };
        let mut roomy = Ctx { room, ..Ctx::new(ctx.now, ctx.ids, ctx.epoch) };
        let mut plan = all_tasks(view, key, &mut roomy, 3);
        plan.is_full(ctx);
        plan
    });
    let mut controller = Controller::new(vec![stubborn], EPOCH, &store.snapshot());
    let (_, retries) = commit_all(&store, &mut controller, 2);
    let tasks = |view: &Snapshot, id| view.tasks_of(id).count();
    let view = store.snapshot();
    let made: Vec<_> = view.services.iter().map(|service| tasks(&view, service.id)).collect();
    assert_eq!((made.iter().sum::<usize>(), tasks(&view, large)), (6, 0));
    assert_eq!(retries.last(), Some(&Retry::Later), "with a pause, and a word about it");
    controller.sweep(&view);
    let step = controller.step(&view, NOW, &mut ids);
    assert_eq!(step.batch.unwrap().changes.len(), 3, "a sweep tries again");
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "planner wrong made a change"))]
fn an_impossible_change_is_loud_in_tests_and_left_out_in_production() {
    let (store, ..) = world(None);
    let (wrong, _) =
        planner("wrong", |_, _, ctx| changes(vec![Change::remove(ctx.ids.next::<Task>())]));
    let mut controller = Controller::new(vec![wrong], EPOCH, &store.snapshot());
    let step = step(&mut controller, &store.snapshot(), NOW);
    assert!(step.batch.is_none() && step.reasons.len() == 1);
}

/// Long enough for a shell that would do something wrong to do it; short enough to wait for.
const A_WHILE: Duration = Duration::from_millis(50);

async fn until_tasks(store: &MemoryStore, count: usize, why: &str) {
    let reached = async {
        while store.snapshot().tasks.len() != count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reached).await.expect(why);
}

#[tokio::test]
async fn the_shell_plans_what_is_committed_and_only_while_it_leads() {
    let (store, ..) = world(None);
    let store = Arc::new(store);
    store.set_leadership(Leadership::None);
    let (orchestrate, _) = planner("orchestrate", one_task);
    let shell = run(store.clone(), Arc::new(SystemClock), vec![orchestrate], IdSource::seeded(2));
    let shell = tokio::spawn(shell);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(store.snapshot().tasks.len(), 0, "who does not lead does not decide");

    store.set_leadership(Leadership::Leader(Epoch(3)));
    until_tasks(&store, 1, "a new leader looks at everything").await;
    let api = Change::create(service(&mut IdSource::seeded(3), "api"));
    store.commit(Batch::new(NOW, vec![api])).await.unwrap();
    until_tasks(&store, 2, "a commit wakes the shell").await;

    store.set_leadership(Leadership::Follower { leader: "x".to_owned() });
    tokio::time::sleep(A_WHILE).await;
    let late = Batch::new(NOW, vec![Change::create(service(&mut IdSource::seeded(4), "late"))]);
    store.apply(&late).unwrap();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(store.snapshot().tasks.len(), 2, "who leads no more decides no more");
    store.set_leadership(Leadership::Leader(Epoch(4)));
    until_tasks(&store, 3, "the next leader finds what was left").await;
    shell.abort();
}
