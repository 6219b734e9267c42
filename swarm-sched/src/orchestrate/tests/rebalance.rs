//! What moves to where there is less to do, how fast, and what does not.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use swarm_core::conformance::planner;
use swarm_core::control::{Ctx, Key, Planner};
use swarm_core::id::IdSource;
use swarm_core::model::*;
use swarm_core::store::{Change, Epoch, Object};

use super::world::*;
use crate::orchestrate::Rebalance;
use crate::place::StrategyScheduler;

const INTERVAL: u64 = 60;

/// A cluster that makes at most so many moves within the interval.
fn world(nodes: usize, moves: usize) -> World {
    let scheduler = Arc::new(StrategyScheduler::default());
    let mut planners = crate::default_planners([], scheduler.clone());
    planners.push(rebalance(moves));
    World::with(nodes, planners)
}

fn rebalance(moves: usize) -> Arc<dyn Planner> {
    let scheduler = Arc::new(StrategyScheduler::default());
    Arc::new(Rebalance::new(scheduler, moves, Duration::from_secs(INTERVAL)))
}

/// How many tasks of the service run on each node, the fullest first.
fn spread(world: &World, service: ServiceId) -> Vec<usize> {
    let nodes: Vec<_> = world.view().nodes.iter().map(|node| node.id).collect();
    let mut running = world.running(service);
    // What was lost with its node is said to run for ever.
    running.retain(|task| task.is_wanted());
    let on = |node| running.iter().filter(|task| task.node_id == Some(node)).count();
    let mut counts: Vec<_> = nodes.into_iter().map(on).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts
}

/// The moves that there were so far and that history remembers.
fn moves(world: &World) -> usize {
    world.view().tasks.iter().filter(|task| task.relieves.is_some()).count()
}

fn named(nth: usize, replicas: u64) -> ServiceSpec {
    ServiceSpec { name: format!("s{nth}"), ..replicated("a", replicas) }
}

fn start_first(spec: &mut ServiceSpec) {
    let order = Some(UpdateOrder::StartFirst);
    spec.update_config = Some(UpdateConfig { order, parallelism: 1, ..Default::default() });
}

fn keep_files(spec: &mut ServiceSpec) {
    let mount = Mount { kind: MountType::Volume, target: "/data".into(), ..Default::default() };
    task(spec).container.get_or_insert_default().mounts.push(mount);
}

#[test]
fn a_node_that_joins_gets_its_share_step_by_step() {
    let mut world = world(2, 1);
    let service = world.create(replicated("a", 8));
    world.run_secs(300);
    assert_eq!(spread(&world, service), [4, 4]);
    world.add_node();
    world.run_secs(INTERVAL / 2);
    assert_eq!((spread(&world, service), moves(&world)), (vec![4, 3, 1], 1));
    world.run_secs(INTERVAL);
    assert_eq!((spread(&world, service), moves(&world)), (vec![3, 3, 2], 2));
    world.run_secs(100 * INTERVAL);
    assert_eq!(moves(&world), 2, "what is even stays where it is");
    assert_eq!(world.slots(service), (1..=8).collect::<Vec<_>>());
}

#[test]
fn moves_within_an_interval_are_bounded_for_the_cluster_and_across_leaders() {
    let mut world = world(1, 2);
    let services: Vec<_> = (0..6).map(|nth| world.create(named(nth, 2))).collect();
    world.run_secs(300);
    world.add_node();
    for _ in 0..5 {
        world.run_secs(INTERVAL / 6);
        world.change_leader();
    }
    assert_eq!(moves(&world), 2);
    world.run_secs(10 * INTERVAL);
    assert_eq!(moves(&world), 6);
    assert!(services.iter().all(|service| spread(&world, *service) == [1, 1]));
}

#[test]
fn services_of_one_task_are_spread_among_themselves() {
    let mut world = world(1, 10);
    let services: Vec<_> = (0..6).map(|nth| world.create(named(nth, 1))).collect();
    world.run_secs(300);
    let new = world.add_node();
    world.run_secs(5 * INTERVAL);
    let there = |service: &&ServiceId| world.running(**service)[0].node_id == Some(new);
    assert_eq!((services.iter().filter(there).count(), moves(&world)), (3, 3));
}

#[test]
fn what_keeps_files_stays_unless_it_is_let_go() {
    for (files, label, moved) in [
        (false, None, true),
        (false, Some("false"), false),
        (true, None, false),
        (true, Some("true"), true),
    ] {
        let mut world = world(1, 1);
        let mut spec = replicated("a", 2);
        if files {
            keep_files(&mut spec);
        }
        spec.labels.extend(label.map(|label| ("swarm.rebalance".to_owned(), label.to_owned())));
        let service = world.create(spec);
        world.run_secs(300);
        world.add_node();
        world.run_secs(2 * INTERVAL);
        let expected = if moved { [1, 1] } else { [2, 0] };
        assert_eq!(spread(&world, service), expected, "files: {files}, label: {label:?}");
    }
}

#[test]
fn start_first_the_old_task_runs_until_the_new_one_does() {
    let mut world = world(1, 1);
    let mut spec = replicated("a", 3);
    start_first(&mut spec);
    let service = world.create(spec);
    world.run_secs(300);
    world.checks.push(|view| {
        let running = view.tasks.iter().filter(|task| task.status.state == TaskState::Running);
        assert!(running.count() >= 3);
    });
    world.add_node();
    world.run_secs(2 * INTERVAL);
    assert_eq!((spread(&world, service), moves(&world)), (vec![2, 1], 1));
}

#[test]
fn a_service_of_which_a_move_failed_is_left_alone() {
    let mut world = world(1, 1);
    let mut spec = replicated("a", 2);
    start_first(&mut spec);
    let service = world.create(spec);
    world.run_secs(300);
    let new = world.add_node();
    let rejects = move |task: &Task| task.node_id == Some(new);
    world.behaves(move |task| if rejects(task) { Behaviour::Rejected } else { Behaviour::Runs });
    world.run_secs(20 * INTERVAL);
    assert_eq!((spread(&world, service), moves(&world)), (vec![2, 0], 1));
}

#[test]
fn nothing_moves_while_the_service_is_not_whole() {
    let mut world = world(1, 1);
    let service = world.create(replicated("a", 3));
    world.run_secs(300);
    world.behaves(|task| if task.slot == 3 { Behaviour::Hangs } else { Behaviour::Runs });
    let third = world.running(service)[2].id;
    world.report(third, TaskState::Failed);
    world.run_secs(10);
    world.add_node();
    world.run_secs(5 * INTERVAL);
    assert_eq!(moves(&world), 0);
    world.behaves(|_| Behaviour::Runs);
    world.run_secs(5 * INTERVAL);
    assert_eq!(spread(&world, service), [2, 1]);
}

/// Where such a task is placed anew is the scheduler's matter, which sends it away from where it kept
/// failing. Whoever would make room for it each time would never come to rest, and nor would it.
#[test]
fn nothing_moves_for_what_ends_again_and_again() {
    let (failed, complete) = (TaskState::Failed, TaskState::Complete);
    for (ends, lasts) in [(failed, 1), (failed, 40), (failed, 100), (complete, 1), (complete, 100)]
    {
        let mut world = world(3, 3);
        world.limit_history(0);
        let restless = |world: &mut World, name: &str, replicas| {
            let mut spec = replicated(name, replicas);
            policy(&mut spec).condition = Some(RestartCondition::Any);
            world.create(ServiceSpec { name: name.to_owned(), ..spec })
        };
        restless(&mut world, "ends", 4);
        let services: Vec<_> = (0..5).map(|nth| world.create(named(nth, 1))).collect();
        restless(&mut world, "crashes", 5);
        world.behaves(move |task| match image(task) {
            "ends" => Behaviour::Ends(Duration::from_secs(lasts), ends),
            "crashes" => Behaviour::Ends(Duration::from_secs(1), TaskState::Failed),
            _ => Behaviour::Runs,
        });
        world.run_secs(20 * INTERVAL);
        let stay =
            |world: &World| services.iter().map(|it| world.running(*it)[0].id).collect::<Vec<_>>();
        let (then, now) = (stay(&world), world.now);
        let moves = |task: &Arc<Task>| task.relieves.is_some() && task.created_at > now;
        for _ in 0..80 {
            world.run_secs(INTERVAL / 2);
            let moved = world.view().tasks.iter().filter(|task| moves(task)).count();
            assert_eq!(moved, 0, "{ends:?} after {lasts} s");
        }
        assert_eq!(stay(&world), then, "{ends:?} after {lasts} s");
    }
}

/// What completed its part of a job shall still have run there, but takes no room any more.
#[test]
fn what_has_completed_takes_no_room() {
    let mut world = world(1, 6);
    let old = world.view().nodes.iter().next().unwrap().id;
    let job = ServiceSpec { name: "job".to_owned(), ..replicated_job("done", 20, 20) };
    world.create(job);
    world.behaves(|task| match image(task) {
        "done" => Behaviour::Ends(Duration::from_secs(1), TaskState::Complete),
        _ => Behaviour::Runs,
    });
    world.run_secs(60);
    let new = world.add_node();
    world.edit_node(old, |node| node.spec.availability = Availability::Pause);
    let services: Vec<_> = (0..6).map(|nth| world.create(named(nth, 1))).collect();
    world.run_secs(10 * INTERVAL);
    world.edit_node(old, |node| node.spec.availability = Availability::Active);
    world.run_secs(10 * INTERVAL);
    let there = |service: &&ServiceId| world.running(**service)[0].node_id == Some(new);
    assert_eq!((services.iter().filter(there).count(), moves(&world)), (3, 3));
}

#[test]
fn each_move_is_explained() {
    let mut world = world(1, 3);
    for nth in 0..3 {
        world.create(named(nth, 2));
    }
    let old = world.view().nodes.iter().next().unwrap().id;
    world.edit_node(old, |node| node.spec.name = "old".to_owned());
    world.run_secs(300);
    let new = world.add_node();
    world.edit_node(new, |node| node.spec.name = "new".to_owned());
    let mut ids = IdSource::seeded(9);
    let mut ctx = Ctx::new(world.now, &mut ids, Epoch(1));
    let plan = rebalance(3).plan(&world.view(), &Key::Cluster, &mut ctx);
    let made = plan.changes.iter().filter_map(|change| match change {
        Change::Create(Object::Task(task)) => Some(task),
        _ => None,
    });
    let made: Vec<_> = made.collect();
    assert_eq!((made.len(), plan.reasons.len()), (3, 3));
    for (nth, (task, reason)) in made.iter().zip(&plan.reasons).enumerate() {
        let service = &world.service(task.service_id).spec.name;
        let relieved = task.relieves.unwrap();
        let (before, after) = (6 - nth, nth);
        let text = format!(
            "{relieved} moves from old (2 of {service}, {before} in all) \
             to new (0 of {service}, {after} in all)"
        );
        assert_eq!((reason.key, &reason.text), (Key::Task(task.id), &text));
    }
}

#[test]
fn jobs_and_global_services_stay_where_they_are() {
    let mut world = world(1, 5);
    let everywhere = world.create(ServiceSpec { name: "everywhere".to_owned(), ..global("a") });
    let job = world.create(ServiceSpec { name: "job".to_owned(), ..replicated_job("a", 4, 4) });
    let other = world.create(ServiceSpec { name: "other".to_owned(), ..global_job("a") });
    world.run_secs(300);
    world.add_node();
    world.run_secs(10 * INTERVAL);
    assert_eq!(moves(&world), 0);
    assert_eq!(spread(&world, job), [4, 0], "however uneven");
    assert_eq!((spread(&world, everywhere), spread(&world, other)), (vec![1, 1], vec![1, 1]));
}

#[test]
fn nothing_moves_while_an_update_runs() {
    let mut world = world(1, 5);
    let mut spec = replicated("a", 6);
    let delay = Duration::from_secs(20 * INTERVAL).into();
    spec.update_config = Some(UpdateConfig { delay, parallelism: 1, ..Default::default() });
    let service = world.create(spec);
    world.run_secs(300);
    world.update(service, |spec| set_image(spec, "b"));
    world.run_secs(300);
    world.add_node();
    world.run_secs(10 * INTERVAL);
    let state = world.service(service).update_status.as_ref().unwrap().state;
    assert_eq!((state, moves(&world)), (UpdateState::Updating, 0));
    assert_eq!(spread(&world, service), [6, 0]);
    world.run_secs(200 * INTERVAL);
    let state = world.service(service).update_status.as_ref().unwrap().state;
    assert_eq!((state, spread(&world, service)), (UpdateState::Completed, vec![3, 3]));
}

#[test]
fn stop_first_the_new_task_waits_for_the_old_one_to_stop() {
    let mut world = world(1, 1);
    let service = world.create(replicated("a", 4));
    world.run_secs(300);
    world.behaves(|_| Behaviour::SlowStop(Duration::from_secs(20)));
    world.checks.push(|view| {
        let running = view.tasks.iter().filter(|task| task.status.state == TaskState::Running);
        let mut slots: Vec<_> = running.map(|task| task.slot).collect();
        slots.sort_unstable();
        assert!(slots.windows(2).all(|two| two[0] != two[1]), "two at once: {slots:?}");
    });
    world.add_node();
    world.run_secs(10);
    let stopping = world.running(service).into_iter().filter(|task| !task.is_wanted()).count();
    assert_eq!((stopping, moves(&world)), (1, 1), "the old one is on its way out");
    world.run_secs(15);
    assert_eq!(spread(&world, service), [3, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..Default::default() })]

    /// Whatever runs where when nodes come and go, moves come to an end, and services are then as
    /// even as can be.
    #[test]
    fn moves_come_to_an_end(
        replicas in proptest::collection::vec((1_u64..7, any::<bool>()), 1..6),
        nodes in proptest::collection::vec(0_u8..3, 1..6),
        at_once in 1_usize..4,
    ) {
        let mut world = world(2, at_once);
        let mut services = Vec::new();
        for (nth, (replicas, first)) in replicas.into_iter().enumerate() {
            let mut spec = named(nth, replicas);
            if first {
                start_first(&mut spec);
            }
            services.push(world.create(spec));
            world.run_secs(7);
        }
        for what in nodes {
            let first = world.view().nodes.iter().next().map(|node| node.id).unwrap();
            match what {
                0 => drop(world.add_node()),
                1 => world.lose(first),
                _ => world.edit_node(first, |node| node.status.state = NodeState::Ready),
            }
            world.run_secs(50);
            planner::check(&*rebalance(at_once), &world.view(), world.now);
        }
        world.run_secs(200 * INTERVAL);
        let down = |node: &&Arc<Node>| node.status.state == NodeState::Down;
        let lost = world.view().nodes.iter().filter(down).count();
        for service in services {
            let mut counts = spread(&world, service);
            counts.truncate(counts.len() - lost);
            let (most, least) = (counts.first(), counts.last());
            prop_assert!(most.unwrap() - least.unwrap() <= 1, "{counts:?}");
        }
        let rest = world.view().version();
        world.change_leader();
        world.run_secs(20 * INTERVAL);
        prop_assert_eq!(world.view().version(), rest);
    }
}
