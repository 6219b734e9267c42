//! Scaling, removal and history of replicated services.

use std::sync::Arc;

use swarm_core::model::{Availability, Cluster, Driver, Service, TaskState};
use swarm_core::store::Change;

use super::world::{Behaviour, World, policy, replicated, scale, task};

#[test]
fn a_new_service_gets_its_slots_from_one() {
    let mut world = World::new(2);
    let id = world.create(replicated("nginx", 3));
    world.run_secs(1);
    assert_eq!(world.slots(id), [1, 2, 3]);
    let service = world.service(id);
    for task in world.tasks(id) {
        assert_eq!(task.spec_version, service.version);
        assert_eq!(task.annotations.name, "web");
        assert!(std::sync::Arc::ptr_eq(&task.spec, &service.spec.task));
    }
}

#[test]
fn scaling_up_fills_the_lowest_free_slots() {
    let mut world = World::new(3);
    let id = world.create(replicated("nginx", 3));
    world.run_secs(1);
    let second = world.running(id)[1].clone();
    world.commit(vec![Change::Desire(second.id, TaskState::Remove)]);
    world.update(id, |spec| scale(spec, 4));
    world.run_secs(1);
    assert_eq!(world.slots(id), [1, 2, 3, 4]);
    assert!(!world.view().tasks.iter().any(|task| task.id == second.id));
}

#[test]
fn scaling_down_unloads_the_fullest_node_and_the_highest_slot() {
    let mut world = World::new(1);
    let id = world.create(replicated("nginx", 3));
    world.run_secs(1);
    let full = world.running(id)[0].node_id;
    world.add_node();
    world.update(id, |spec| scale(spec, 4));
    world.run_secs(1);
    // Slots 1, 2 and 3 are on the first node, slot 4 alone on the second.
    world.update(id, |spec| scale(spec, 2));
    world.run_secs(1);
    assert_eq!(world.slots(id), [1, 4]);
    assert_eq!(world.running(id)[0].node_id, full);
    assert_eq!(world.tasks(id).len(), 2, "emptied slots leave no history");
}

#[test]
fn scaling_down_prefers_slots_that_do_not_run() {
    let mut world = World::new(4);
    world.behaves(|task| if task.slot == 1 { Behaviour::Hangs } else { Behaviour::Runs });
    let id = world.create(replicated("nginx", 4));
    world.run_secs(1);
    world.update(id, |spec| scale(spec, 3));
    world.run_secs(1);
    assert_eq!(world.slots(id), [2, 3, 4]);
}

#[test]
fn a_removed_service_goes_after_its_last_task() {
    let mut world = World::new(1);
    world.behaves(|_| Behaviour::SlowStop(std::time::Duration::from_secs(3)));
    let id = world.create(replicated("nginx", 2));
    world.run_secs(1);
    let service = Service { pending_delete: true, ..Service::clone(&world.service(id)) };
    world.commit(vec![Change::update(service)]);
    world.run_secs(1);
    assert!(world.tasks(id).iter().all(|task| task.desired_state == TaskState::Remove));
    assert_eq!(world.tasks(id).len(), 2);
    // Its name is free at once.
    world.create(replicated("nginx", 0));
    world.run_secs(3);
    assert!(world.tasks(id).is_empty());
    assert!(world.view().services.get(id).is_none());
}

#[test]
fn a_removed_service_without_any_agent_goes_at_once() {
    let mut world = World::new(0);
    let id = world.create(replicated("nginx", 2));
    world.run_secs(1);
    let service = Service { pending_delete: true, ..Service::clone(&world.service(id)) };
    world.commit(vec![Change::update(service)]);
    world.run_secs(1);
    assert!(world.view().tasks.is_empty() && world.view().services.is_empty());
}

#[test]
fn history_is_kept_to_its_limit() {
    let mut world = World::new(1);
    let second = std::time::Duration::from_secs(1);
    world.behaves(move |_| Behaviour::Ends(second, TaskState::Failed));
    let id = world.create(replicated("nginx", 1));
    world.run_secs(600);
    assert_eq!(world.tasks(id).len(), 5, "one that is wanted and four that ended");
}

#[test]
fn a_negative_limit_keeps_everything_and_attempts_have_a_limit_of_their_own() {
    let fails = |_: &swarm_core::model::Task| {
        Behaviour::Ends(std::time::Duration::from_secs(1), TaskState::Failed)
    };
    let mut world = World::new(1);
    world.limit_history(-1);
    world.behaves(fails);
    let all = world.create(replicated("nginx", 1));
    world.run_secs(599);
    let made = world.tasks(all).len();
    assert_eq!(made, 101, "one second and five of delay each, and the next one waits already");

    // So many attempts and the first one, whatever the limit: Swarm counts them.
    let mut world = World::new(1);
    world.limit_history(1);
    world.behaves(fails);
    let mut spec = replicated("nginx", 1);
    policy(&mut spec).max_attempts = Some(7);
    let few = world.create(spec);
    world.run_secs(600);
    assert_eq!(world.tasks(few).len(), 8);
}

#[test]
fn slots_that_are_scaled_away_leave_no_history() {
    let mut world = World::new(2);
    let id = world.create(replicated("nginx", 3));
    world.run_secs(1);
    for task in world.running(id) {
        world.report(task.id, TaskState::Failed);
    }
    world.run_secs(10);
    assert_eq!(world.tasks(id).len(), 6);
    world.update(id, |spec| scale(spec, 1));
    world.run_secs(10);
    let left: Vec<_> = world.tasks(id).iter().map(|task| task.slot).collect();
    assert_eq!(left, [1, 1], "the slot that stays keeps what it had");
}

#[test]
fn a_done_task_is_not_forgotten_whatever_the_limit() {
    let mut world = World::new(1);
    world.limit_history(0);
    world.behaves(|_| Behaviour::Ends(std::time::Duration::from_secs(1), TaskState::Complete));
    let mut spec = replicated("busybox", 1);
    policy(&mut spec).condition = Some(swarm_core::model::RestartCondition::OnFailure);
    let id = world.create(spec);
    world.run_secs(300);
    let tasks = world.tasks(id);
    assert_eq!(tasks.len(), 1, "it ran once: {tasks:#?}");
    assert_eq!(tasks[0].status.state, TaskState::Complete);
    assert_eq!(tasks[0].desired_state, TaskState::Shutdown);
}

#[test]
fn a_drained_node_gives_up_its_tasks_at_once() {
    let mut world = World::new(2);
    let id = world.create(replicated("nginx", 4));
    world.run_secs(1);
    let drained = world.running(id)[0].node_id.unwrap();
    world.edit_node(drained, |node| node.spec.availability = Availability::Drain);
    world.run(std::time::Duration::ZERO);
    assert_eq!(world.slots(id), [1, 2, 3, 4]);
    assert!(world.running(id).iter().all(|task| task.node_id != Some(drained)));
}

#[test]
fn thousands_of_replicas_are_made_in_several_commits() {
    let mut world = World::new(3);
    world.checks.clear();
    let id = world.create(replicated("nginx", 2_500));
    world.run_secs(1);
    assert_eq!(world.running(id).len(), 2_500);
    world.update(id, |spec| scale(spec, 1));
    world.run_secs(1);
    assert_eq!(world.tasks(id).len(), 1);
}

#[test]
fn new_tasks_get_the_clusters_log_driver_and_old_ones_keep_theirs() {
    let driver =
        |name: &str| Some(Arc::new(Driver { name: name.to_owned(), ..Default::default() }));
    let mut world = World::new(1);
    let mut cluster = Cluster { id: world.new_id(), ..Default::default() };
    cluster.spec.task_defaults.log_driver = driver("syslog");
    let cluster_id = cluster.id;
    world.commit(vec![Change::create(cluster)]);
    let mut own = replicated("web", 1);
    own.name = "own".to_owned();
    task(&mut own).log_driver = driver("local").as_deref().cloned();
    let (plain, own) = (world.create(replicated("web", 1)), world.create(own));
    world.run_secs(1);
    let drivers = |world: &World, id| {
        let tasks = world.running(id);
        tasks.iter().map(|task| task.log_driver.clone()).collect::<Vec<_>>()
    };
    assert_eq!(drivers(&world, plain), [driver("syslog")]);
    assert_eq!(drivers(&world, own), [None], "its specification says");

    let mut cluster = Cluster::clone(world.view().clusters.get(cluster_id).unwrap());
    cluster.spec.task_defaults.log_driver = driver("fluentd");
    world.commit(vec![Change::update(cluster)]);
    world.update(plain, |spec| scale(spec, 2));
    world.run_secs(60);
    assert_eq!(drivers(&world, plain), [driver("syslog"), driver("fluentd")]);
}
