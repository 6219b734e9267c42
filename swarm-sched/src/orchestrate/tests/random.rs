//! Whatever happens to a cluster, each planner keeps its contract, no commit breaks a rule of
//! the world, and once things calm down every service is as it shall be and stays so.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use swarm_core::conformance::planner;
use swarm_core::model::*;
use swarm_core::scheduler::Overcommit;
use swarm_core::store::{Change, Snapshot};
use swarm_core::time::{Nanos, Timestamp};

use super::world::*;
use crate::orchestrate;

#[derive(Clone, Debug)]
enum Op {
    Create { everywhere: bool, replicas: u64, update: UpdateConfig, policy: RestartPolicy },
    CreateJob { everywhere: bool, total: u64, at_once: u64, policy: RestartPolicy },
    Image { service: usize, image: &'static str },
    Scale { service: usize, replicas: u64 },
    Constrain { service: usize, label: &'static str },
    Remove { service: usize },
    AddNode,
    Available { node: usize, availability: Availability },
    Label { node: usize, label: &'static str },
    Lose { node: usize },
    Return { node: usize },
    RemoveNode { node: usize },
    End { task: usize, state: TaskState },
    ChangeLeader,
    Run { seconds: u64 },
}

fn update_config() -> impl Strategy<Value = UpdateConfig> {
    let action = prop_oneof![
        Just(FailureAction::Pause),
        Just(FailureAction::Continue),
        Just(FailureAction::Rollback)
    ];
    let order = prop_oneof![Just(UpdateOrder::StopFirst), Just(UpdateOrder::StartFirst)];
    let ratio = prop_oneof![Just(0.0_f32), Just(0.5)];
    (0..3_u64, 0..12_i64, action, order, ratio).prop_map(
        |(parallelism, delay, action, order, max_failure_ratio)| UpdateConfig {
            parallelism,
            delay: Nanos::from_secs(delay),
            failure_action: Some(action),
            order: Some(order),
            max_failure_ratio,
            ..Default::default()
        },
    )
}

fn restart_policy() -> impl Strategy<Value = RestartPolicy> {
    let condition = prop_oneof![
        4 => Just(RestartCondition::Any),
        1 => Just(RestartCondition::OnFailure),
        1 => Just(RestartCondition::None)
    ];
    (condition, 0..8_i64, prop_oneof![3 => Just(0_u64), 1 => Just(2)]).prop_map(
        |(condition, delay, max_attempts)| RestartPolicy {
            condition: Some(condition),
            delay: Some(Nanos::from_secs(delay)),
            max_attempts: Some(max_attempts),
            ..Default::default()
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let availability = prop_oneof![
        Just(Availability::Active),
        Just(Availability::Pause),
        Just(Availability::Drain)
    ];
    let end =
        prop_oneof![Just(TaskState::Failed), Just(TaskState::Complete), Just(TaskState::Rejected)];
    let label = prop_oneof![Just("ssd"), Just("tape")];
    let image = prop_oneof![Just("a"), Just("b"), Just("bad")];
    prop_oneof![
        2 => (any::<bool>(), 0..6_u64, 0..4_u64, restart_policy()).prop_map(
            |(everywhere, total, at_once, policy)| Op::CreateJob {
                everywhere, total, at_once, policy
            }),
        2 => (any::<bool>(), 0..6_u64, update_config(), restart_policy()).prop_map(
            |(everywhere, replicas, update, policy)| Op::Create { everywhere, replicas, update, policy }
        ),
        4 => (0..4_usize, image).prop_map(|(service, image)| Op::Image { service, image }),
        2 => (0..4_usize, 0..7_u64).prop_map(|(service, replicas)| Op::Scale { service, replicas }),
        1 => (0..4_usize, label.clone()).prop_map(|(service, label)| Op::Constrain { service, label }),
        1 => (0..4_usize).prop_map(|service| Op::Remove { service }),
        1 => Just(Op::AddNode),
        2 => (0..5_usize, availability)
            .prop_map(|(node, availability)| Op::Available { node, availability }),
        1 => (0..5_usize, label).prop_map(|(node, label)| Op::Label { node, label }),
        2 => (0..5_usize).prop_map(|node| Op::Lose { node }),
        2 => (0..5_usize).prop_map(|node| Op::Return { node }),
        1 => (0..5_usize).prop_map(|node| Op::RemoveNode { node }),
        4 => (0..9_usize, end).prop_map(|(task, state)| Op::End { task, state }),
        2 => Just(Op::ChangeLeader),
        6 => (0..40_u64).prop_map(|seconds| Op::Run { seconds }),
    ]
}

/// The images behave as they are called; those of jobs come to an end.
fn behaviour(task: &Task) -> Behaviour {
    let end = |seconds, state| Behaviour::Ends(Duration::from_secs(seconds), state);
    match image(task) {
        "a" if task.job_iteration.is_some() => end(7, TaskState::Complete),
        "b" if task.job_iteration.is_some() => end(3, TaskState::Failed),
        "bad" => Behaviour::Rejected,
        "b" => Behaviour::SlowStop(Duration::from_secs(3)),
        _ => Behaviour::Runs,
    }
}

/// What the operation writes, if there is what it is about.
fn change(world: &mut World, op: &Op) -> Option<Change> {
    let view = world.view();
    let service = |nth: usize| {
        let mut services = view.services.iter().filter(|service| !service.pending_delete);
        services.nth(nth).map(|service| Service::clone(service))
    };
    let node = |nth: usize| view.nodes.iter().nth(nth).map(|node| Node::clone(node));
    let updated = |nth: usize, edit: &dyn Fn(&mut ServiceSpec)| {
        service(nth).map(|mut service| {
            change_spec(&mut service, edit);
            Change::update(service)
        })
    };
    Some(match *op {
        Op::Create { everywhere, replicas, ref update, policy: ref restart } => {
            let id = world.new_id();
            let mut spec = if everywhere { global("a") } else { replicated("a", replicas) };
            spec.name = id.to_string();
            spec.update_config = Some(update.clone());
            spec.rollback_config = Some(update.clone());
            *policy(&mut spec) = restart.clone();
            Change::create(Service { id, spec, ..Default::default() })
        }
        Op::CreateJob { everywhere, total, at_once, policy: ref restart } => {
            let id = world.new_id();
            let mut spec =
                if everywhere { global_job("a") } else { replicated_job("a", total, at_once) };
            spec.name = id.to_string();
            *policy(&mut spec) = restart.clone();
            let job_status = Some(JobStatus::default());
            Change::create(Service { id, spec, job_status, ..Default::default() })
        }
        Op::Image { service, image } => updated(service, &|spec| set_image(spec, image))?,
        Op::Scale { service: nth, replicas } => {
            service(nth).filter(|service| !service.spec.mode.is_global())?;
            updated(nth, &|spec| match &mut spec.mode {
                ServiceMode::ReplicatedJob(job) => job.total_completions = Some(replicas),
                _ => scale(spec, replicas),
            })?
        }
        Op::Constrain { service, label } => {
            updated(service, &|spec| constrain(spec, &format!("node.labels.disk != {label}")))?
        }
        Op::Remove { service: nth } => {
            Change::update(Service { pending_delete: true, ..service(nth)? })
        }
        Op::AddNode => {
            let status = NodeStatus { state: NodeState::Ready, ..Default::default() };
            Change::create(Node { id: world.new_id(), status, ..Default::default() })
        }
        Op::Available { node: nth, .. }
        | Op::Label { node: nth, .. }
        | Op::Lose { node: nth }
        | Op::Return { node: nth } => change_node(node(nth)?, op, world.now),
        Op::RemoveNode { node: nth } => Change::remove(node(nth)?.id),
        Op::End { task: nth, state } => {
            let mut running =
                view.tasks.iter().filter(|task| task.status.state == TaskState::Running);
            let status = TaskStatus::new(state, world.now, "ended");
            Change::Advance(running.nth(nth)?.id, Box::new(status))
        }
        Op::ChangeLeader | Op::Run { .. } => return None,
    })
}

fn change_node(mut node: Node, op: &Op, now: Timestamp) -> Change {
    match *op {
        Op::Available { availability, .. } => node.spec.availability = availability,
        Op::Label { label, .. } => {
            node.spec.labels.insert("disk".to_owned(), label.to_owned());
        }
        Op::Lose { .. } => {
            node.status.state = NodeState::Down;
            node.status.down_since = Some(now);
        }
        _ => node.status = NodeStatus { state: NodeState::Ready, ..Default::default() },
    }
    Change::update(node)
}

fn check_planners(world: &World, change: Option<&Change>) {
    for planner in orchestrate::planners(Overcommit::default()) {
        planner::check(&*planner, &world.view(), world.now);
        if let Some(change) = change {
            planner::notices(&*planner, &world.view(), change.clone(), world.now);
        }
    }
}

/// Everything works again, and nothing fails any more.
fn heal(world: &mut World) {
    world.add_node();
    let nodes: Vec<_> = world.view().nodes.iter().map(|node| node.id).collect();
    for node in nodes {
        world.edit_node(node, |node| {
            node.spec.availability = Availability::Active;
            node.spec.labels.clear();
            node.status = NodeStatus { state: NodeState::Ready, ..Default::default() };
        });
    }
    world.behaves(|task| match task.job_iteration {
        Some(_) => Behaviour::Ends(Duration::from_secs(1), TaskState::Complete),
        None => Behaviour::Runs,
    });
    world.run_secs(1_800);
}

/// Whether tasks may be missing because their restart policy gives them up.
fn gives_up(service: &Service) -> bool {
    let policy = service.spec.task.restart_policy.as_ref().unwrap();
    policy.condition != Some(RestartCondition::Any) || policy.max_attempts != Some(0)
}

fn check_converged(world: &World) {
    let view = world.view();
    for service in view.services.iter() {
        assert!(!service.pending_delete, "a removed service is gone");
        if service.spec.mode.is_job() {
            check_done(&view, service);
            continue;
        }
        let wanted = view.tasks_of(service.id).filter(|task| task.is_wanted()).count() as u64;
        let running = world.running(service.id).len() as u64;
        let asked = service.spec.mode.replicas().unwrap_or(view.nodes.len() as u64);
        assert_eq!(wanted, running, "{service:#?}");
        assert!(running == asked || (gives_up(service) && running < asked), "{service:#?}");
        let state = service.update_status.as_ref().map(|status| status.state);
        let paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
        let rolling = matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted));
        assert!(!rolling, "{service:#?}");
        let up_to_date =
            world.running(service.id).iter().all(|task| image(task) == spec_image(service));
        assert!(paused || up_to_date || gives_up(service), "{service:#?}");
    }
}

/// Each slot, or each node that there is, has completed its part once, or was given up.
fn check_done(view: &Snapshot, service: &Service) {
    let done = completed(view, service.id);
    let asked = match &service.spec.mode {
        ServiceMode::ReplicatedJob(job) if job.max_concurrent() == 0 => 0,
        ServiceMode::ReplicatedJob(job) => job.total_completions(),
        _ => view.nodes.len() as u64,
    };
    let gone = |node: &NodeId| view.nodes.get(*node).is_none();
    let count = done.iter().filter(|(_, node)| !node.as_ref().is_some_and(gone)).count() as u64;
    assert!(count == asked || (gives_up(service) && count < asked), "{service:#?}\n{done:?}");
    let open = |task: &&Arc<Task>| task.is_wanted() && task.status.state != TaskState::Complete;
    let of_run = |task: &&Arc<Task>| task.job_iteration == service.job_iteration();
    assert_eq!(view.tasks_of(service.id).filter(of_run).find(open), None);
}

fn spec_image(service: &Service) -> &str {
    &service.spec.task.container.as_ref().unwrap().image
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2_000, ..Default::default() })]

    #[test]
    fn any_history_ends_well(
        ops in proptest::collection::vec(op(), 1..24),
        room in prop_oneof![Just(usize::MAX), 4_usize..10],
    ) {
        let mut world = World::new(3);
        world.room = room;
        world.behaves(behaviour);
        for op in &ops {
            let change = change(&mut world, op);
            check_planners(&world, change.as_ref());
            match (change, op) {
                (Some(change), _) => world.commit(vec![change]),
                (None, Op::ChangeLeader) => world.change_leader(),
                (None, Op::Run { seconds }) => world.run_secs(*seconds),
                (None, _) => {}
            }
        }
        heal(&mut world);
        check_converged(&world);
        check_planners(&world, None);
        // A new leader looks at everything and finds nothing to do.
        world.change_leader();
        let rest = world.view().version();
        world.run_secs(60);
        prop_assert_eq!(world.view().version(), rest);
    }
}
