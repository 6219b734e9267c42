//! The suite of [`Store`]: the seven promises of the [store's contract](crate::store), each on a
//! store of its own.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::id::IdSource;
use crate::model::{
    Network, NodeId, Secret, SecretBytes, Service, ServiceId, Task, TaskId, TaskState, TaskStatus,
    Version,
};
use crate::store::{
    Batch, Change, Commit, CommitError, Epoch, Leadership, Object, ObjectRef, Store, Watch,
};
use crate::time::Timestamp;

/// Longer than any store may take for one step; only a broken promise waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the suite. `make` returns an empty store that leads, or will lead soon; it is called once
/// for each check.
///
/// # Panics
/// With a sentence that names the promise that the store broke.
pub async fn suite<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<dyn Store>>,
{
    starts_empty(&ready(&make).await).await;
    a_commit_is_atomic(&ready(&make).await).await;
    changes_apply_in_order(&ready(&make).await).await;
    a_stale_revision_conflicts(&ready(&make).await).await;
    stamps_follow_the_versions(&ready(&make).await).await;
    observed_state_advances(&ready(&make).await).await;
    desired_state_advances(&ready(&make).await).await;
    rules_of_a_task_hold(&ready(&make).await).await;
    names_are_unique(&ready(&make).await).await;
    a_watch_sees_every_commit_once(&ready(&make).await).await;
    an_epoch_fences(&ready(&make).await).await;
    snapshots_do_not_change(&ready(&make).await).await;
    concurrent_writers_lose_nothing(&ready(&make).await).await;
    one_of_two_racing_updates_wins(&ready(&make).await).await;
    secrets_come_back_whole(&ready(&make).await).await;
}

/// A bench on which one check runs: a store that leads, and ids.
struct Bench {
    store: Arc<dyn Store>,
    epoch: Epoch,
}

async fn ready<F, Fut>(make: &F) -> Bench
where
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<dyn Store>>,
{
    let store = make().await;
    let mut leadership = store.leadership();
    let leads = leadership.wait_for(|now| matches!(now, Leadership::Leader(_)));
    let epoch = match tokio::time::timeout(PATIENCE, leads).await {
        Ok(Ok(now)) => now.epoch().expect("it leads"),
        _ => panic!("a store under test must come to lead on its own"),
    };
    Bench { store, epoch }
}

impl Bench {
    async fn commit(&self, changes: Vec<Change>) -> Result<Version, CommitError> {
        self.commit_batch(Batch::new(at(1), changes)).await
    }

    async fn commit_batch(&self, batch: Batch) -> Result<Version, CommitError> {
        match tokio::time::timeout(PATIENCE, self.store.commit(batch)).await {
            Ok(result) => result,
            Err(_) => panic!("a commit to a store that leads must return"),
        }
    }

    async fn must(&self, changes: Vec<Change>) -> Version {
        match self.commit(changes).await {
            Ok(version) => version,
            Err(error) => panic!("a legal batch must be committed, but: {error}"),
        }
    }

    fn service(&self, id: ServiceId) -> Option<Arc<Service>> {
        self.store.snapshot().services.get(id).cloned()
    }

    fn task(&self, id: TaskId) -> Arc<Task> {
        let task = self.store.snapshot().tasks.get(id).cloned();
        task.expect("a committed task must be in the next snapshot")
    }
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + secs)
}

fn service(ids: &mut IdSource, name: &str) -> Service {
    let mut service = Service { id: ids.next(), ..Service::default() };
    service.spec.name = name.to_owned();
    service
}

fn task(ids: &mut IdSource, state: TaskState) -> Task {
    let status = TaskStatus::new(state, at(0), "made");
    Task { id: ids.next(), status, desired_state: TaskState::Ready, ..Task::default() }
}

async fn next(watch: &mut Watch) -> Arc<Commit> {
    match tokio::time::timeout(PATIENCE, watch.next()).await {
        Ok(Ok(commit)) => commit,
        Ok(Err(lagged)) => panic!("a watch that keeps up must not lag, but: {lagged}"),
        Err(_) => panic!("a watch must yield a commit that was acknowledged"),
    }
}

async fn starts_empty(bench: &Bench) {
    let snapshot = bench.store.snapshot();
    assert_eq!(snapshot.objects().count(), 0, "a new store must be empty");
    let version = bench.commit(Vec::new()).await;
    assert_eq!(version, Ok(snapshot.version()), "an empty batch must return the present version");
    let barrier = bench.store.barrier().await;
    assert_eq!(barrier, Ok(()), "a store that leads must pass its own barrier");
}

async fn a_commit_is_atomic(bench: &Bench) {
    let mut ids = IdSource::seeded(1);
    let (good, bad) = (service(&mut ids, "good"), service(&mut ids, "bad"));
    let before = bench.store.snapshot().version();
    let missing = Change::remove(bad.id);
    let result = bench.commit(vec![Change::create(good.clone()), missing]).await;
    assert_eq!(result, Err(CommitError::Missing(ObjectRef::Service(bad.id))));
    assert!(bench.service(good.id).is_none(), "a failed batch must leave no object behind");
    let after = bench.store.snapshot().version();
    assert_eq!(after, before, "a failed batch must not take a version");
    let version = bench.must(vec![Change::create(good.clone()), Change::create(bad.clone())]).await;
    let snapshot = bench.store.snapshot();
    assert_eq!(version, Version(before.0 + 1), "every commit must have the next version");
    assert!(snapshot.services.get(good.id).is_some() && snapshot.services.get(bad.id).is_some());
    let again = bench.commit(vec![Change::create(good.clone())]).await;
    assert_eq!(again, Err(CommitError::Exists(ObjectRef::Service(good.id))));
}

async fn changes_apply_in_order(bench: &Bench) {
    let mut ids = IdSource::seeded(2);
    let first = service(&mut ids, "one");
    let second = Service { id: ids.next(), ..first.clone() };
    let changes =
        vec![Change::create(first.clone()), Change::remove(first.id), Change::create(second)];
    bench.must(changes).await;
    assert!(bench.service(first.id).is_none(), "changes must apply in the order of the batch");
    let snapshot = bench.store.snapshot();
    assert_eq!(snapshot.services.named("one").map(|s| s.id != first.id), Some(true));
}

async fn a_stale_revision_conflicts(bench: &Bench) {
    let mut ids = IdSource::seeded(3);
    let created = service(&mut ids, "web");
    let id = created.id;
    bench.must(vec![Change::create(created)]).await;
    let read = bench.service(id).expect("it was created");
    let mut update = Service::clone(&read);
    update.spec.labels.insert("a".to_owned(), "1".to_owned());
    let version = bench.must(vec![Change::update(update.clone())]).await;
    let conflict =
        CommitError::Conflict { object: id.into(), expected: read.revision, stored: version };
    let again = bench.commit(vec![Change::update(update)]).await;
    assert_eq!(again, Err(conflict.clone()), "an update of a stale read must conflict");
    let stale = Change::Remove(id.into(), Some(read.revision));
    let removed = bench.commit(vec![stale]).await;
    assert_eq!(removed, Err(conflict), "a removal of a stale read must conflict");
    bench.must(vec![Change::Remove(id.into(), Some(version))]).await;
    assert!(bench.service(id).is_none(), "a removed object must be gone");
}

async fn stamps_follow_the_versions(bench: &Bench) {
    let mut ids = IdSource::seeded(4);
    let created = service(&mut ids, "web");
    let id = created.id;
    let first = bench.must(vec![Change::create(created)]).await;
    let one = bench.service(id).expect("it was created");
    let stamps = (one.version, one.revision, one.created_at, one.updated_at);
    assert_eq!(stamps, (first, first, at(1), at(1)), "a creation must stamp the object");
    let mut internal = Service::clone(&one);
    internal.stalled = "no address is free".to_owned();
    let batch = Batch::new(at(2), vec![Change::update(internal)]);
    let second = bench.commit_batch(batch).await.expect("a legal batch must be committed");
    let two = bench.service(id).expect("it was updated");
    let stamps = (two.version, two.revision, two.created_at, two.updated_at);
    let expected = (first, second, at(1), at(2));
    assert_eq!(stamps, expected, "`version` must move only when the specification changes");
    let mut spec = Service::clone(&two);
    spec.spec.labels.insert("a".to_owned(), "1".to_owned());
    let third = bench.must(vec![Change::update(spec)]).await;
    let three = bench.service(id).expect("it was updated");
    assert_eq!((three.version, three.revision), (third, third));
}

async fn observed_state_advances(bench: &Bench) {
    let mut ids = IdSource::seeded(5);
    let created = task(&mut ids, TaskState::Assigned);
    let id = created.id;
    let status = |state| Box::new(TaskStatus::new(state, at(3), state.as_str()));
    bench.must(vec![Change::create(created)]).await;
    bench.must(vec![Change::Advance(id, status(TaskState::Running))]).await;
    let running = bench.task(id);
    assert_eq!(running.status.state, TaskState::Running, "observed state must advance");
    assert!(running.running_since.is_some(), "the first run of a task must be stamped");
    bench.must(vec![Change::Advance(id, status(TaskState::Preparing))]).await;
    let still = bench.task(id).status.state;
    assert_eq!(still, TaskState::Running, "observed state must never go back");
    bench.must(vec![Change::Advance(id, status(TaskState::Failed))]).await;
    bench.must(vec![Change::Advance(id, status(TaskState::Running))]).await;
    let ended = bench.task(id);
    assert_eq!(ended.status.state, TaskState::Failed, "nothing follows a terminal state");
    assert!(ended.ended_at.is_some(), "the end of a task must be stamped");
    let unknown = Change::Advance(ids.next(), status(TaskState::Running));
    bench.must(vec![unknown]).await;
}

async fn desired_state_advances(bench: &Bench) {
    let mut ids = IdSource::seeded(6);
    let created = task(&mut ids, TaskState::Assigned);
    let id = created.id;
    bench.must(vec![Change::create(created)]).await;
    for (asked, expected) in [
        (TaskState::Running, TaskState::Running),
        (TaskState::Ready, TaskState::Running),
        (TaskState::Shutdown, TaskState::Shutdown),
        (TaskState::Running, TaskState::Shutdown),
        (TaskState::Remove, TaskState::Remove),
    ] {
        bench.must(vec![Change::Desire(id, asked)]).await;
        let desired = bench.task(id).desired_state;
        assert_eq!(desired, expected, "desired state must only advance ({asked} was asked for)");
    }
    bench.must(vec![Change::Desire(ids.next(), TaskState::Shutdown)]).await;
}

async fn rules_of_a_task_hold(bench: &Bench) {
    let mut ids = IdSource::seeded(7);
    let (here, there): (NodeId, NodeId) = (ids.next(), ids.next());
    let mut created = task(&mut ids, TaskState::Assigned);
    created.node_id = Some(here);
    let id = created.id;
    bench.must(vec![Change::create(created)]).await;
    let rule = |change: fn(&mut Task, NodeId)| {
        let mut task = Task::clone(&bench.task(id));
        change(&mut task, there);
        bench.commit(vec![Change::update(task)])
    };
    let moved = rule(|task, there| task.node_id = Some(there)).await;
    let back = rule(|task, _| task.status.state = TaskState::New).await;
    let undesired = rule(|task, _| task.desired_state = TaskState::New).await;
    for (result, what) in [(moved, "node"), (back, "observed"), (undesired, "desired")] {
        let illegal = matches!(result, Err(CommitError::Illegal { task, .. }) if task == id);
        assert!(illegal, "an update that breaks the rule of a task's {what} must be refused");
    }
}

async fn names_are_unique(bench: &Bench) {
    let mut ids = IdSource::seeded(8);
    let taken = |kind| CommitError::NameTaken { kind, name: "web".to_owned() };
    let (first, second) = (service(&mut ids, "web"), service(&mut ids, "web"));
    bench.must(vec![Change::create(first.clone())]).await;
    let result = bench.commit(vec![Change::create(second.clone())]).await;
    assert_eq!(result, Err(taken("service")), "a name must be held by one object of its kind");
    let mut network = Network { id: ids.next(), ..Network::default() };
    network.spec.name = "web".to_owned();
    bench.must(vec![Change::create(network)]).await;
    let mut going = Service::clone(&bench.service(first.id).expect("it was created"));
    going.pending_delete = true;
    bench.must(vec![Change::update(going)]).await;
    bench.must(vec![Change::create(second.clone())]).await;
    let snapshot = bench.store.snapshot();
    let holder = snapshot.services.named("web").map(|service| service.id);
    assert_eq!(holder, Some(second.id), "an object marked for removal must free its name");
    let mut renamed = service(&mut ids, "api");
    bench.must(vec![Change::create(renamed.clone())]).await;
    renamed = Service::clone(&bench.service(renamed.id).expect("it was created"));
    renamed.spec.name = "web".to_owned();
    let result = bench.commit(vec![Change::update(renamed)]).await;
    assert_eq!(result, Err(taken("service")), "a rename must not take a name that is held");
}

async fn a_watch_sees_every_commit_once(bench: &Bench) {
    let mut ids = IdSource::seeded(9);
    let start = bench.store.snapshot().version();
    let mut early = bench.store.watch(start);
    let mut expected = Vec::new();
    for number in 0..20 {
        let created = service(&mut ids, &format!("s{number}"));
        let id = created.id;
        expected.push((bench.must(vec![Change::create(created)]).await, id));
        let nothing = bench.commit(vec![Change::remove(ids.next::<Service>())]).await;
        assert!(nothing.is_err(), "a removal of nothing must fail");
    }
    let mut late = bench.store.watch(start);
    for watch in [&mut early, &mut late] {
        for (version, id) in &expected {
            let commit = next(watch).await;
            assert_eq!(commit.version, *version, "a watch must yield commits in order");
            let [event] = commit.events.as_slice() else {
                panic!("a commit of one change must have one event");
            };
            let created = event.old.is_none() && event.object().id() == (*id).into();
            assert!(created, "an event must say what the commit did");
        }
        let more = watch.try_next().map(|commit| commit.is_some());
        assert_eq!(more, Ok(false), "a watch must yield each commit once");
    }
    let ahead = bench.store.watch(Version(u64::MAX)).try_next();
    assert!(ahead.is_err(), "a watch from a version that is not there must lag");
}

async fn an_epoch_fences(bench: &Bench) {
    let mut ids = IdSource::seeded(10);
    for stale in [Epoch(bench.epoch.0.wrapping_sub(1)), Epoch(bench.epoch.0 + 1)] {
        let change = Change::create(service(&mut ids, "stale"));
        let batch = Batch { at: at(1), epoch: Some(stale), changes: vec![change] };
        let result = bench.commit_batch(batch).await;
        let fenced = Err(CommitError::StaleEpoch(stale));
        assert_eq!(result, fenced, "a batch of another epoch must not commit");
    }
    assert_eq!(bench.store.snapshot().objects().count(), 0, "a fenced batch must change nothing");
    let change = Change::create(service(&mut ids, "now"));
    let batch = Batch { at: at(1), epoch: Some(bench.epoch), changes: vec![change] };
    let result = bench.commit_batch(batch).await;
    assert!(result.is_ok(), "a batch of the present epoch must commit, but: {result:?}");
}

async fn snapshots_do_not_change(bench: &Bench) {
    let mut ids = IdSource::seeded(11);
    let created = service(&mut ids, "web");
    let id = created.id;
    let empty = bench.store.snapshot();
    bench.must(vec![Change::create(created)]).await;
    let full = bench.store.snapshot();
    bench.must(vec![Change::remove(id)]).await;
    assert!(empty.services.is_empty(), "a snapshot must not see later commits");
    assert!(full.services.get(id).is_some(), "a snapshot must keep what was removed later");
    assert!(full.version() > empty.version());
}

async fn concurrent_writers_lose_nothing(bench: &Bench) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 10;
    let mut watch = bench.store.watch(bench.store.snapshot().version());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = bench.store.clone();
        writers.spawn(async move {
            let mut ids = IdSource::seeded(100 + writer);
            for number in 0..EACH {
                let created = service(&mut ids, &format!("w{writer}-{number}"));
                let result = store.commit(Batch::new(at(1), vec![Change::create(created)])).await;
                assert!(result.is_ok(), "concurrent legal writes must all commit: {result:?}");
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        if let Err(panic) = done {
            std::panic::resume_unwind(panic.into_panic());
        }
    }
    let count = usize::try_from(WRITERS * EACH).expect("a small number");
    let services = bench.store.snapshot().services.len();
    assert_eq!(services, count, "every acknowledged write must be there");
    for _ in 0..count {
        next(&mut watch).await;
    }
    let more = watch.try_next().map(|commit| commit.is_some());
    assert_eq!(more, Ok(false), "as many commits must be watched as were acknowledged");
}

async fn one_of_two_racing_updates_wins(bench: &Bench) {
    let mut ids = IdSource::seeded(12);
    let created = service(&mut ids, "web");
    let id = created.id;
    bench.must(vec![Change::create(created)]).await;
    let read = bench.service(id).expect("it was created");
    let race = |value: &str| {
        let mut update = Service::clone(&read);
        update.spec.labels.insert("winner".to_owned(), value.to_owned());
        bench.commit(vec![Change::update(update)])
    };
    let (left, right) = tokio::join!(race("left"), race("right"));
    let won = [&left, &right].iter().filter(|result| result.is_ok()).count();
    assert_eq!(won, 1, "of two updates of one read exactly one must win: {left:?}, {right:?}");
    let stored = bench.service(id).expect("it is there");
    let winner = if left.is_ok() { "left" } else { "right" };
    let label = stored.spec.labels.get("winner").map(String::as_str);
    assert_eq!(label, Some(winner), "the update that was acknowledged must be the one stored");
}

async fn secrets_come_back_whole(bench: &Bench) {
    let mut ids = IdSource::seeded(13);
    let bytes: Vec<u8> = (0..=255).collect();
    let mut secret = Secret { id: ids.next(), ..Secret::default() };
    secret.spec.name = "key".to_owned();
    secret.spec.data = Some(SecretBytes::from(bytes.clone()));
    let id = secret.id;
    bench.must(vec![Change::create(secret)]).await;
    let snapshot = bench.store.snapshot();
    let stored = snapshot.get(ObjectRef::Secret(id));
    let Some(Object::Secret(stored)) = stored else { panic!("a committed secret must be there") };
    let stored = stored.spec.data.as_ref().map(SecretBytes::expose);
    assert_eq!(stored, Some(bytes.as_slice()), "a secret's bytes must come back as they were");
}
