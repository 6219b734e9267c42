//! The store in memory: the suite, and what lies below the trait (history, tables, staging).

use std::sync::Arc;

use super::{
    Batch, Change, CommitError, Epoch, Event, Lagged, Leadership, Mark, MemoryStore, Object,
    Snapshot, Store,
};
use crate::id::IdSource;
use crate::model::{
    NetworkAttachment, NetworkAttachmentConfig, NetworkId, Node, NodeId, Service, ServiceId, Task,
    TaskId, TaskState, TaskStatus, Version,
};
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn service(ids: &mut IdSource, name: &str) -> Service {
    let mut service = Service { id: ids.next(), ..Service::default() };
    service.spec.name = name.to_owned();
    service
}

fn task(ids: &mut IdSource, service: ServiceId) -> Task {
    let status = TaskStatus::new(TaskState::New, NOW, "created");
    let desired_state = TaskState::Running;
    Task { id: ids.next(), service_id: service, status, desired_state, ..Task::default() }
}

fn apply(store: &MemoryStore, changes: Vec<Change>) -> Result<Version, CommitError> {
    store.apply(&Batch::new(NOW, changes))
}

fn ids_of<'a>(tasks: impl Iterator<Item = &'a Arc<Task>>) -> Vec<TaskId> {
    tasks.map(|task| task.id).collect()
}

#[tokio::test]
async fn the_memory_store_keeps_the_contract() {
    crate::conformance::store::suite(|| async {
        Arc::new(MemoryStore::default()) as Arc<dyn Store>
    })
    .await;
}

#[test]
fn a_watch_that_falls_behind_lags_and_stays_lagged() {
    let history = super::History::new(Version(0), 3);
    let mut slow = history.watch(Version(0));
    let mut kept = history.watch(Version(2));
    for version in 1..=5 {
        let object = Object::from(service(&mut IdSource::seeded(version), "s"));
        let event = super::Event { old: None, new: Some(object) };
        history.push(super::Commit { version: Version(version), events: vec![event] });
    }
    let lagged = Lagged { wanted: Version(0), oldest: Version(2) };
    assert_eq!(slow.try_next().unwrap_err(), lagged);
    assert_eq!(slow.try_next().unwrap_err(), lagged);
    assert_eq!(kept.try_next().unwrap().unwrap().version, Version(3));
    assert_eq!(kept.seen(), Version(3));
}

#[test]
fn a_history_keeps_its_last_commit_however_large() {
    let history = super::History::new(Version(0), 1);
    let object = Object::from(service(&mut IdSource::seeded(1), "s"));
    let event = super::Event { old: None, new: Some(object) };
    history.push(super::Commit { version: Version(1), events: vec![event; 10] });
    let commit = history.watch(Version(0)).try_next().unwrap().unwrap();
    assert_eq!(commit.events.len(), 10);
}

#[tokio::test]
async fn a_restore_makes_every_watch_lag_and_wakes_it() {
    let store = Arc::new(MemoryStore::default());
    let mut ids = IdSource::seeded(1);
    let mut watch = store.watch(Version(0));
    let waiting = tokio::spawn(async move { watch.next().await.map(|commit| commit.version) });
    tokio::task::yield_now().await;
    let state = Snapshot::from_objects(Version(9), [service(&mut ids, "s").into()]);
    store.restore(state);
    assert_eq!(waiting.await.unwrap(), Err(Lagged { wanted: Version(0), oldest: Version(9) }));
    assert_eq!(store.snapshot().version(), Version(9));
    let version = apply(&store, vec![Change::create(service(&mut ids, "t"))]);
    assert_eq!(version, Ok(Version(10)));
}

#[tokio::test]
async fn a_dropped_wait_loses_no_commit() {
    let store = MemoryStore::default();
    let mut ids = IdSource::seeded(1);
    let mut watch = store.watch(Version(0));
    for _ in 0..3 {
        tokio::select! {
            biased;
            _ = watch.next() => panic!("nothing was committed"),
            () = std::future::ready(()) => {}
        }
    }
    apply(&store, vec![Change::create(service(&mut ids, "s"))]).unwrap();
    assert_eq!(watch.next().await.unwrap().version, Version(1));
}

#[tokio::test]
async fn only_the_leader_commits() {
    let store = MemoryStore::default();
    let mut ids = IdSource::seeded(1);
    let mut commit = |epoch| {
        let changes = vec![Change::create(service(&mut ids, "s"))];
        store.commit(Batch { at: NOW, epoch, changes })
    };
    store.set_leadership(Leadership::None);
    assert_eq!(commit(None).await, Err(CommitError::NoLeader));
    let leader = "10.0.0.1:4242".to_owned();
    store.set_leadership(Leadership::Follower { leader: leader.clone() });
    assert_eq!(commit(None).await, Err(CommitError::NotLeader { leader }));
    store.set_leadership(Leadership::Leader(Epoch(7)));
    assert_eq!(commit(Some(Epoch(6))).await, Err(CommitError::StaleEpoch(Epoch(6))));
    assert_eq!(commit(Some(Epoch(7))).await, Ok(Version(1)));
}

#[test]
fn task_indexes_follow_every_change() {
    let store = MemoryStore::default();
    let mut ids = IdSource::seeded(1);
    let (here, there): (NodeId, NetworkId) = (ids.next(), ids.next());
    let web = service(&mut ids, "web");
    let one = task(&mut ids, web.id);
    let id = one.id;
    apply(&store, vec![Change::create(web.clone()), Change::create(one)]).unwrap();
    let mut placed = Task::clone(store.snapshot().tasks.get(id).unwrap());
    placed.node_id = Some(here);
    placed.status.state = TaskState::Assigned;
    let mut attachment = NetworkAttachment::default();
    attachment.network.id = there;
    placed.networks = vec![attachment];
    let before = store.snapshot();
    apply(&store, vec![Change::update(placed)]).unwrap();
    let after = store.snapshot();
    assert_eq!(ids_of(after.tasks_of(web.id)), [id]);
    assert_eq!(ids_of(after.tasks_on(here)), [id]);
    assert_eq!(ids_of(after.tasks_in(there)), [id]);
    assert_eq!(ids_of(before.tasks_on(here)), []);
    assert_eq!(
        (ids_of(before.tasks_unassigned()), ids_of(after.tasks_unassigned())),
        (vec![id], vec![])
    );
    apply(&store, vec![Change::Desire(id, TaskState::Shutdown)]).unwrap();
    assert_eq!(ids_of(store.snapshot().tasks_to_remove()), []);
    apply(&store, vec![Change::Desire(id, TaskState::Remove)]).unwrap();
    assert_eq!(ids_of(store.snapshot().tasks_to_remove()), [id]);
    apply(&store, vec![Change::remove(id)]).unwrap();
    let gone = store.snapshot();
    assert_eq!(ids_of(gone.tasks_of(web.id)), []);
    assert_eq!(ids_of(gone.tasks_on(here)), []);
    assert_eq!(ids_of(gone.tasks_in(there)), []);
    assert_eq!(ids_of(gone.tasks_to_remove()), []);
    assert!(gone.tasks.is_empty() && gone.tasks.iter().next().is_none());
}

#[test]
fn services_are_found_by_the_networks_they_name() {
    let store = MemoryStore::default();
    let mut ids = IdSource::seeded(1);
    let network: NetworkId = ids.next();
    let mut web = service(&mut ids, "web");
    let target = network.to_string();
    web.spec.networks = vec![NetworkAttachmentConfig { target, ..Default::default() }];
    let id = web.id;
    apply(&store, vec![Change::create(web)]).unwrap();
    assert_eq!(store.snapshot().services_in(network).map(|s| s.id).collect::<Vec<_>>(), [id]);
    let mut detached = Service::clone(store.snapshot().services.get(id).unwrap());
    detached.spec.networks.clear();
    apply(&store, vec![Change::update(detached)]).unwrap();
    assert_eq!(store.snapshot().services_in(network).count(), 0);
}

#[test]
fn prefixes_find_what_starts_with_them_and_nothing_else() {
    let rows = ["abc", "abd", "abz", "b00"].map(|start| {
        let id: ServiceId = format!("{start:1<25}").parse().unwrap();
        let mut service = Service { id, ..Service::default() };
        service.spec.name = start.to_owned();
        Object::from(service)
    });
    let snapshot = Snapshot::from_objects(Version(1), rows);
    let find = |prefix: &str| -> Vec<String> {
        snapshot.services.with_prefix(prefix).map(|s| s.spec.name.clone()).collect()
    };
    assert_eq!(find("ab"), ["abc", "abd", "abz"]);
    assert_eq!(find("abd"), ["abd"]);
    assert_eq!(find("abd1111111111111111111111"), ["abd"]);
    assert!(find("c").is_empty() && find("").is_empty() && find("ABC").is_empty());
    assert!(find("abd11111111111111111111111111").is_empty());
}

#[test]
fn staged_changes_keep_revisions_and_can_be_committed() {
    let store = MemoryStore::default();
    let mut ids = IdSource::seeded(1);
    let web = service(&mut ids, "web");
    let id = web.id;
    apply(&store, vec![Change::create(web)]).unwrap();
    let mut view = store.snapshot();
    let mut update = Service::clone(view.services.get(id).unwrap());
    update.stalled = "waits".to_owned();
    let event = view.stage(Change::update(update.clone()), NOW).unwrap().unwrap();
    assert!(event.old.is_some() && event.new.is_some());
    let staged = view.services.get(id).unwrap();
    assert_eq!((staged.revision, staged.stalled.as_str()), (Version(1), "waits"));
    assert_eq!(store.snapshot().services.get(id).unwrap().stalled, "");
    let again = Service::clone(staged);
    assert!(view.stage(Change::update(again), NOW).is_ok(), "a planner may change its mind");
    assert_eq!(apply(&store, vec![Change::update(update)]), Ok(Version(2)));
}

#[test]
fn copies_of_a_working_copy_are_told_apart() {
    let mut ids = IdSource::seeded(1);
    let mut first = MemoryStore::default().snapshot();
    let mut stage = |view: &mut Snapshot, number| {
        let nobodys = |_| Change::create(task(&mut ids, ServiceId::NIL));
        view.stage_all((0..number).map(nobodys), NOW);
    };
    let since = |view: &Snapshot, mark: &Mark| view.staged_since(mark).map(<[_]>::len);
    assert!(first.mark().is_none());
    stage(&mut first, 1);
    let here = first.mark().unwrap();
    let mut second = first.clone();
    assert_eq!((since(&first, &here), since(&second, &here)), (Some(0), Some(0)));
    stage(&mut second, 3);
    let there = second.mark().unwrap();
    assert_eq!((since(&second, &here), since(&first, &there)), (Some(3), None));
    stage(&mut first, 3);
    assert_eq!(since(&first, &there), None, "as many changes, on another copy");
    stage(&mut first, 0);
    assert_eq!(since(&first, &here), Some(3), "nothing happened");
    let here = first.mark().unwrap();
    let gone = first.tasks.iter().next().unwrap().id;
    first.stage(Change::remove(gone), NOW).unwrap();
    assert!(matches!(first.staged_since(&here), Some([Ok(Some(Event { new: None, .. }))])));
}

/// What is derived from the tasks of a service is kept, and then told what has changed, while that
/// is little.
#[test]
fn what_is_derived_hears_of_what_changed() {
    let store = MemoryStore::default();
    let mut ids = IdSource::seeded(1);
    let web = service(&mut ids, "web");
    let tasks: Vec<_> = (0..40).map(|_| task(&mut ids, web.id)).collect();
    let mut changes = vec![Change::create(web.clone())];
    changes.extend(tasks.iter().cloned().map(Change::create));
    apply(&store, changes).unwrap();
    // How often it was derived, and from which changes the last time.
    type Derived = (usize, Option<Vec<TaskId>>);
    let derived = |view: &Snapshot| {
        view.derived_of(web.id, |before: Option<(&Derived, &[super::Touched])>| match before {
            Some(((times, _), changes)) => {
                (times + 1, Some(changes.iter().map(|task| task.id).collect()))
            }
            None => (1, None),
        })
    };
    let end = |tasks: &[Task]| {
        let ended = tasks.iter().map(|task| Change::Desire(task.id, TaskState::Shutdown)).collect();
        apply(&store, ended).unwrap();
        derived(&store.snapshot()).as_ref().clone()
    };
    assert_eq!(*derived(&store.snapshot()), (1, None));
    assert_eq!(*derived(&store.snapshot()), (1, None), "nothing changed");
    let mut view = store.snapshot();
    view.stage(Change::Desire(tasks[0].id, TaskState::Shutdown), NOW).unwrap();
    assert_eq!(derived(&view).0, 2, "staged");
    assert_eq!(*derived(&store.snapshot()), (1, None), "which the store does not know");
    assert_eq!(end(&tasks[1..3]), (2, Some(vec![tasks[1].id, tasks[2].id])));
    assert_eq!(end(&tasks[3..4]), (3, Some(vec![tasks[3].id])));
    assert_eq!(end(&tasks[4..]), (1, None), "too much");
}

/// A task that had to leave its node stays what it is until it has stopped, and is rejected then.
#[test]
fn the_end_of_an_evicted_task_is_a_rejection() {
    let store = MemoryStore::default();
    let mut ids = IdSource::seeded(1);
    let web = service(&mut ids, "web");
    let why = Some("it does not fit".to_owned());
    let one = Task { eviction: why, ..task(&mut ids, web.id) };
    apply(&store, vec![Change::create(web), Change::create(one.clone())]).unwrap();
    let report = |state| {
        let status = TaskStatus::new(state, NOW, "said by its agent");
        apply(&store, vec![Change::Advance(one.id, Box::new(status))]).unwrap();
        let task = store.snapshot().tasks.get(one.id).unwrap().clone();
        (task.status.state, task.status.err.clone())
    };
    assert_eq!(report(TaskState::Running), (TaskState::Running, String::new()));
    let rejected = (TaskState::Rejected, "it does not fit".to_owned());
    assert_eq!(report(TaskState::Shutdown), rejected);
    assert_eq!(report(TaskState::Shutdown), rejected, "told again");
}

#[test]
fn a_snapshot_is_rebuilt_from_its_objects() {
    let store = MemoryStore::default();
    let mut ids = IdSource::seeded(1);
    let web = service(&mut ids, "web");
    let (id, one) = (web.id, task(&mut ids, web.id));
    apply(&store, vec![Change::create(web), Change::create(one.clone())]).unwrap();
    let original = store.snapshot();
    let rebuilt = Snapshot::from_objects(original.version(), original.objects());
    assert!(original.objects().eq(rebuilt.objects()));
    assert_eq!(rebuilt.version(), original.version());
    assert_eq!(ids_of(rebuilt.tasks_of(id)), [one.id]);
    assert_eq!(rebuilt.services.named("web").map(|s| s.id), Some(id));
}

#[test]
fn a_replay_gives_the_same_state() {
    let mut ids = IdSource::seeded(1);
    let web = service(&mut ids, "web");
    let one = task(&mut ids, web.id);
    let running = Box::new(TaskStatus::new(TaskState::Running, NOW, "started"));
    let batches = [
        vec![Change::create(web.clone()), Change::create(one.clone())],
        vec![Change::create(web.clone())],
        vec![Change::Advance(one.id, running)],
        vec![Change::Desire(one.id, TaskState::Shutdown), Change::remove(web.id)],
    ];
    let play = || {
        let store = MemoryStore::default();
        let results: Vec<_> =
            batches.iter().map(|changes| apply(&store, changes.clone())).collect();
        (results, store.snapshot().objects().collect::<Vec<_>>(), store.snapshot().version())
    };
    let (results, objects, version) = play();
    assert_eq!((results[1].clone().is_err(), version), (true, Version(3)));
    assert_eq!(play(), (results, objects, version));
}

#[test]
fn a_batch_survives_its_json() {
    let mut ids = IdSource::seeded(1);
    let web = service(&mut ids, "web");
    let one = task(&mut ids, web.id);
    let status = Box::new(TaskStatus::new(TaskState::Running, NOW, "started"));
    let changes = vec![
        Change::create(web.clone()),
        Change::update(one.clone()),
        Change::Remove(web.id.into(), Some(Version(3))),
        Change::Advance(one.id, status),
        Change::Desire(one.id, TaskState::Remove),
    ];
    let batch = Batch { at: NOW, epoch: Some(Epoch(4)), changes };
    let json = serde_json::to_vec(&batch).unwrap();
    assert_eq!(serde_json::from_slice::<Batch>(&json).unwrap(), batch);
}

#[test]
fn two_versions_of_a_table_tell_what_was_written_between_them() {
    let mut ids = IdSource::seeded(5);
    let mut view = Snapshot::default();
    let mut nodes: Vec<Node> =
        (0..200).map(|_| Node { id: ids.next(), ..Node::default() }).collect();
    for node in &nodes {
        view.stage(Change::create(node.clone()), Timestamp::ZERO).unwrap();
    }
    let before = view.clone();
    assert_eq!(view.nodes.changes_since(&before.nodes).count(), 0);
    nodes.sort_by_key(|node| node.id);
    let (gone, edited, same) = (nodes[7].id, &mut nodes[100].clone(), nodes[150].clone());
    edited.spec.name = "edited".to_owned();
    let added = Node { id: ids.next(), ..Node::default() };
    for change in [
        Change::remove(gone),
        Change::update(edited.clone()),
        Change::update(same.clone()),
        Change::create(added.clone()),
    ] {
        view.stage(change, Timestamp::ZERO).unwrap();
    }
    let mut changes: Vec<_> = (view.nodes.changes_since(&before.nodes))
        .map(|(old, new)| (old.map(|old| old.id), new.map(|new| new.id)))
        .collect();
    // Objects that were written without a difference count as written.
    let mut expected = vec![
        (Some(gone), None),
        (Some(edited.id), Some(edited.id)),
        (Some(same.id), Some(same.id)),
        (None, Some(added.id)),
    ];
    changes.sort();
    expected.sort();
    assert_eq!(changes, expected);
}
