//! Preemption: who makes room for whom, and that it comes to an end.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use swarm_core::conformance::planner;
use swarm_core::control::{Ctx, Key, Plan, Planner};
use swarm_core::model::*;
use swarm_core::store::{Change, Event, Snapshot};

use super::load::occupies;
use super::loads::Loads;
use super::scheduler::wishes;
use super::{
    AFFINITY_LABEL, Overcommit, PREEMPTION_LABEL, PRIORITY_LABEL, Preempt, StrategyScheduler,
    priority,
};
use crate::cluster::{Whole, image, memory, planners, replicas};
use crate::dry_run::agents;
use crate::world::{port, template};

/// A cluster that allows so many tasks to be on their way out at the same time.
fn cluster(most: u64) -> Whole {
    let mut whole = Whole::new();
    allow(&mut whole, &most.to_string());
    whole
}

fn allow(whole: &mut Whole, text: &str) {
    whole.label(PREEMPTION_LABEL, text);
}

fn room(whole: &mut Whole, name: &str, bytes: i64) -> NodeId {
    whole.node(name, |node| node.description.get_or_insert_default().resources.memory_bytes = bytes)
}

fn wish(priority: i32, number: u64, bytes: i64) -> impl Fn(&mut ServiceSpec) {
    move |spec| {
        spec.labels.insert(PRIORITY_LABEL.to_owned(), priority.to_string());
        replicas(spec, number);
        memory(spec, bytes);
    }
}

fn running(whole: &Whole, name: &str) -> usize {
    whole.places(whole.view().services.named(name).expect("it exists").id).len()
}

fn tasks(whole: &Whole, name: &str) -> Vec<Arc<Task>> {
    let view = whole.view();
    let id = view.services.named(name).expect("it exists").id;
    view.tasks_of(id).cloned().collect()
}

fn preempted(view: &Snapshot) -> usize {
    view.tasks.iter().filter(|task| task.preempted.is_some()).count()
}

fn waits(whole: &Whole, name: &str) -> Vec<String> {
    let tasks = tasks(whole, name);
    let waiting =
        tasks.iter().filter(|task| task.is_wanted() && task.status.state == TaskState::Pending);
    waiting.map(|task| task.status.err.clone()).collect()
}

#[test]
fn nobody_makes_room_unless_the_cluster_says_so() {
    for label in [None, Some("0"), Some("yes")] {
        let mut whole = Whole::new();
        label.into_iter().for_each(|text| allow(&mut whole, text));
        room(&mut whole, "a", 4);
        whole.create("low", wish(0, 2, 2));
        whole.create("high", wish(9, 1, 2));
        assert_eq!((running(&whole, "low"), running(&whole, "high")), (2, 0), "{label:?}");
        assert_eq!(preempted(&whole.view()), 0);
        allow(&mut whole, "1");
        whole.run();
        assert_eq!((running(&whole, "low"), running(&whole, "high")), (1, 1), "once it says so");
    }
}

/// What the scheduler counts, preemption counts: by what the node reports, three would have to go.
#[test]
fn who_overcommits_has_to_say_so_once() {
    for (counted, low) in [(2_000, 4), (1_000, 2), (500, 1)] {
        let counted = Overcommit { memory: counted, ..Overcommit::default() };
        let scheduler = Arc::new(StrategyScheduler::default().overcommit(counted));
        let mut whole = Whole::with(crate::default_planners([], scheduler));
        allow(&mut whole, "3");
        room(&mut whole, "a", 4);
        whole.create("low", wish(0, 5, 2));
        assert_eq!(running(&whole, "low"), low);
        whole.change_leader();
        whole.run();
        assert_eq!(running(&whole, "low"), low, "nobody who fits is evicted");
        whole.create("high", wish(9, 1, 2));
        assert_eq!((running(&whole, "low"), running(&whole, "high")), (low - 1, 1));
        assert_eq!(preempted(&whole.view()), 1);
    }
}

#[test]
fn a_task_that_makes_room_says_for_whom_and_waits_to_come_back() {
    let mut whole = cluster(3);
    room(&mut whole, "a", 4);
    whole.create("low", wish(1, 2, 2));
    let high = whole.create("high", wish(5, 1, 2));
    let ended: Vec<_> = tasks(&whole, "low").into_iter().filter(|it| !it.is_wanted()).collect();
    assert_eq!(ended.len(), 1);
    let text = "preempted by high.1, which has the priority 5";
    assert_eq!((ended[0].status.state, &*ended[0].status.err), (TaskState::Shutdown, text));
    assert_eq!(waits(&whole, "low"), ["no suitable node (insufficient resources on 1 node)"]);
    whole.commit(whole.changed(high, |spec| replicas(spec, 0)));
    whole.run();
    assert_eq!(running(&whole, "low"), 2, "it comes back once there is room");
    assert_eq!(preempted(&whole.view()), 1, "and nothing else was stopped");
}

#[test]
fn the_room_is_promised_until_those_who_leave_have_left() {
    let mut whole = cluster(3);
    let a = room(&mut whole, "a", 4);
    whole.create("low", wish(0, 2, 2));
    let high = whole.proposal("high", wish(5, 1, 4));
    let id = high.id;
    whole.commit(high);
    whole.plan();
    let promised = tasks(&whole, "high")[0].clone();
    assert_eq!((promised.node_id, promised.status.state), (Some(a), TaskState::Pending));
    assert_eq!(promised.status.err, "waiting for 2 tasks of lower priority to stop");
    // One of the two has stopped: what it left fits for others, and is not theirs.
    let leaving: Vec<_> =
        whole.view().tasks.iter().filter(|it| it.preempted.is_some()).cloned().collect();
    assert_eq!(leaving.len(), 2);
    let stop = |task: &Task| {
        let status = TaskStatus::new(TaskState::Shutdown, promised.created_at, "stopped");
        vec![Change::Advance(task.id, Box::new(status))]
    };
    whole.write(stop(&leaving[0]));
    whole.commit(whole.changed(id, |_| {}));
    let other = whole.proposal("other", wish(0, 1, 2));
    whole.commit(other);
    whole.plan();
    assert_eq!((running(&whole, "low"), running(&whole, "other")), (0, 0));
    assert_eq!(tasks(&whole, "high")[0].status.state, TaskState::Pending);
    // A new leader knows it too.
    whole.change_leader();
    whole.write(stop(&leaving[1]));
    whole.plan();
    assert_eq!(tasks(&whole, "high")[0].status.state, TaskState::Assigned);
    assert_eq!((running(&whole, "low"), running(&whole, "other")), (0, 0));
}

#[test]
fn who_leaves_costs_the_least() {
    // name, priority and size of what runs on each node; what comes; who leaves.
    type Case =
        (&'static [&'static [(&'static str, i32, i64)]], (i32, i64), &'static [&'static str]);
    let table: [Case; 8] = [
        // Fewer tasks, though they matter more.
        (&[&[("a", 0, 2), ("b", 0, 2), ("c", 3, 4)]], (5, 4), &["c"]),
        // The lowest priority.
        (&[&[("a", 3, 4), ("b", 1, 4), ("c", 2, 4)]], (5, 4), &["b"]),
        // What leaves the least unused.
        (&[&[("a", 1, 6), ("b", 1, 4)]], (5, 3), &["b"]),
        // On the node where fewer have to leave.
        (&[&[("a", 0, 2), ("b", 0, 2)], &[("c", 2, 4)]], (5, 4), &["c"]),
        // Two, the least among them.
        (&[&[("a", 2, 2), ("b", 1, 2), ("c", 0, 2)]], (5, 4), &["b", "c"]),
        // Not the same priority, and not a higher one.
        (&[&[("a", 5, 4), ("b", 6, 4)]], (5, 4), &[]),
        // Not more together than what comes.
        (&[&[("a", 3, 2), ("b", 3, 2)]], (5, 4), &[]),
        // Below 0 there is room as well.
        (&[&[("a", -1, 4)]], (0, 4), &["a"]),
    ];
    for (nodes, (priority, bytes), leaves) in table {
        let mut whole = cluster(9);
        for (number, services) in nodes.iter().enumerate() {
            room(&mut whole, &format!("n{number}"), services.iter().map(|it| it.2).sum());
            for (service, priority, bytes) in *services {
                whole.create(service, wish(*priority, 1, *bytes));
            }
        }
        whole.create("new", wish(priority, 1, bytes));
        let view = whole.view();
        let left: BTreeSet<_> = view
            .tasks
            .iter()
            .filter(|task| task.preempted.is_some())
            .map(|task| view.services.get(task.service_id).unwrap().spec.name.clone())
            .collect();
        let expected: BTreeSet<_> = leaves.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(left, expected, "{nodes:?} {priority} {bytes}");
        assert_eq!(running(&whole, "new"), usize::from(!leaves.is_empty()));
    }
}

#[test]
fn no_more_leave_at_a_time_than_is_allowed() {
    let mut whole = cluster(1);
    room(&mut whole, "a", 4);
    whole.create("low", wish(0, 4, 1));
    whole.create("large", wish(5, 1, 2));
    assert_eq!((running(&whole, "low"), running(&whole, "large")), (4, 0), "it would take two");
    let high = whole.proposal("high", wish(5, 3, 1));
    whole.commit(high);
    whole.plan();
    assert_eq!(preempted(&whole.view()), 1, "one at a time");
    whole.run();
    assert_eq!((running(&whole, "low"), running(&whole, "high")), (1, 3), "one after another");
}

/// Its node may be down for a day.
#[test]
fn who_is_lost_with_its_node_is_not_waited_for() {
    let mut whole = cluster(1);
    let a = room(&mut whole, "a", 4);
    whole.create("low", wish(0, 1, 4));
    room(&mut whole, "b", 4);
    whole.create("other", wish(1, 1, 4));
    let high = whole.proposal("high", wish(5, 1, 4));
    whole.commit(high);
    whole.plan();
    assert_eq!(tasks(&whole, "high")[0].node_id, Some(a));
    let mut node = Node::clone(whole.view().nodes.get(a).unwrap());
    node.status.state = NodeState::Down;
    whole.write(vec![Change::update(node)]);
    whole.run();
    assert_eq!((running(&whole, "other"), running(&whole, "high")), (0, 1));
}

#[test]
fn nobody_leaves_for_what_only_needs_to_wait() {
    let mut whole = cluster(9);
    room(&mut whole, "a", 4);
    whole.create("low", wish(0, 1, 2));
    let high = whole.create("high", wish(5, 1, 2));
    whole.commit(whole.changed(high, |spec| image(spec, "new")));
    whole.run();
    assert_eq!((running(&whole, "low"), running(&whole, "high")), (1, 1));
    // The room of a task that stops anyway is enough.
    let third = whole.create("third", wish(0, 0, 0));
    whole.commit(whole.changed(high, |spec| replicas(spec, 0)));
    whole.plan();
    whole.commit(whole.changed(third, |spec| wish(9, 1, 2)(spec)));
    whole.run();
    assert_eq!((running(&whole, "low"), running(&whole, "third")), (1, 1));
    assert_eq!(preempted(&whole.view()), 0);
}

#[test]
fn what_had_to_leave_makes_nobody_leave() {
    let mut whole = cluster(9);
    let a = room(&mut whole, "a", 4);
    whole.create("large", wish(5, 1, 4));
    room(&mut whole, "b", 4);
    whole.create("small", wish(0, 1, 4));
    whole.create("huge", |spec| {
        wish(9, 1, 4)(spec);
        template(spec, |task| {
            let constraints = vec![format!("node.id == {a}")];
            task.placement = Some(Placement { constraints, ..Default::default() });
        });
    });
    assert_eq!(["huge", "large", "small"].map(|name| running(&whole, name)), [1, 0, 1]);
    let heir = tasks(&whole, "large").into_iter().find(|task| task.is_wanted()).unwrap();
    assert!(heir.displaced);
    assert_eq!(preempted(&whole.view()), 1);
    // Another of the same service is not what came after it.
    let large = whole.view().services.named("large").unwrap().id;
    whole.commit(whole.changed(large, |spec| replicas(spec, 2)));
    whole.run();
    assert_eq!(["huge", "large", "small"].map(|name| running(&whole, name)), [1, 1, 0]);
}

#[test]
fn nobody_leaves_again_for_what_did_not_last() {
    for lasts in [false, true] {
        let mut whole = cluster(9);
        room(&mut whole, "a", 4);
        whole.create("low", wish(0, 1, 4));
        let service = whole.proposal("high", wish(5, 1, 4));
        let high = service.id;
        whole.commit(service);
        // Its node alone keeps it waiting.
        loop {
            whole.plan();
            let view = whole.view();
            let low = tasks(&whole, "low").iter().map(|task| task.id).collect();
            match agents::answers(&view, ServiceId::NIL, &low, whole.now) {
                answers if answers.is_empty() => break,
                answers => whole.write(answers),
            }
        }
        let ends = |whole: &mut Whole, state| {
            let runs = tasks(whole, "high").into_iter().find(|task| task.is_wanted()).unwrap();
            assert!(runs.node_id.is_some());
            let ended = TaskStatus::new(state, whole.now, "ended");
            whole.write(vec![Change::Advance(runs.id, Box::new(ended))]);
            whole.plan();
        };
        if lasts {
            whole.run();
            ends(&mut whole, TaskState::Failed);
        } else {
            ends(&mut whole, TaskState::Rejected);
        }
        // The next one has the room at once. It is rejected, and until its delay is over there is none.
        ends(&mut whole, TaskState::Rejected);
        whole.run();
        let expected = if lasts { [0, 1] } else { [1, 0] };
        assert_eq!(["low", "high"].map(|name| running(&whole, name)), expected, "{lasts}");
        // What was changed may last.
        whole.commit(whole.changed(high, |spec| image(spec, "mended")));
        whole.run();
        assert_eq!(["low", "high"].map(|name| running(&whole, name)), [0, 1]);
    }
}

/// What is promised is room, and nothing keeps away whom the task keeps away from.
#[test]
fn nobody_leaves_again_for_what_was_promised_a_node_in_vain() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut whole = cluster(9);
        room(&mut whole, "a", 8);
        whole.create("low", wish(0, 1, 4));
        let high = whole.create("high", wish(5, 1, 16));
        whole.commit(whole.changed(high, |spec| {
            memory(spec, 4);
            spec.labels.insert(AFFINITY_LABEL.to_owned(), "service!=low".to_owned());
            spec.update_config = Some(UpdateConfig { order: Some(order), ..Default::default() });
        }));
        whole.run();
        assert_eq!(["low", "high"].map(|name| running(&whole, name)), [1, 0]);
        assert_eq!(preempted(&whole.view()), 1, "once, {order:?}");
    }
}

#[test]
fn a_promise_of_a_node_that_is_lost_or_does_not_suit_is_given_up() {
    for lost in [true, false] {
        let mut whole = cluster(9);
        let a = room(&mut whole, "a", 4);
        whole.create("low", wish(0, 1, 4));
        let high = whole.proposal("high", wish(5, 1, 4));
        whole.commit(high);
        whole.plan();
        assert_eq!(tasks(&whole, "high")[0].node_id, Some(a));
        let b = room(&mut whole, "b", 4);
        let mut node = Node::clone(whole.view().nodes.get(a).unwrap());
        match lost {
            true => node.status.state = NodeState::Down,
            false => node.spec.availability = Availability::Pause,
        }
        whole.write(vec![Change::update(node)]);
        whole.run();
        assert_eq!(running(&whole, "high"), 1, "lost: {lost}");
        let runs = tasks(&whole, "high").into_iter().find(|task| task.is_wanted()).unwrap();
        assert_eq!(runs.node_id, Some(b));
    }
}

#[test]
fn host_ports_are_room_too_and_global_tasks_have_one_node() {
    let mut whole = cluster(9);
    room(&mut whole, "a", 4);
    room(&mut whole, "b", 4);
    let listens = |spec: &mut ServiceSpec| {
        let ports = vec![port(80, 8080, PublishMode::Host)];
        spec.endpoint = Some(EndpointSpec { ports, ..Default::default() });
    };
    whole.create("low", |spec| {
        wish(0, 2, 1)(spec);
        listens(spec);
    });
    let proxy = whole.proposal("proxy", |spec| {
        wish(5, 0, 1)(spec);
        spec.mode = ServiceMode::Global(Default::default());
        listens(spec);
    });
    whole.commit(proxy);
    whole.run();
    assert_eq!((running(&whole, "low"), running(&whole, "proxy")), (0, 2));
}

#[test]
fn what_waits_is_served_by_priority() {
    let mut whole = Whole::new();
    whole.create("low", wish(1, 2, 2));
    whole.create("high", wish(2, 2, 2));
    whole.create("none", |spec| {
        replicas(spec, 2);
        memory(spec, 2);
    });
    room(&mut whole, "a", 4);
    whole.run();
    assert_eq!(["high", "low", "none"].map(|name| running(&whole, name)), [2, 0, 0]);
}

#[test]
fn a_priority_that_cannot_be_read_is_a_refusal() {
    let mut whole = Whole::new();
    room(&mut whole, "a", 4);
    whole.create("web", |spec| _ = spec.labels.insert(PRIORITY_LABEL.into(), "high".into()));
    let why = "swarm.priority=high cannot be read: a whole number is expected";
    assert_eq!(waits(&whole, "web"), [why]);
}

#[test]
fn a_dry_run_says_whom_it_would_stop() {
    let mut whole = cluster(9);
    room(&mut whole, "a", 4);
    whole.create("low", wish(0, 2, 2));
    let proposed = whole.proposal("high", wish(5, 1, 2));
    let report = whole.dry_run(&proposed);
    let stopped: Vec<_> =
        report.stopped.iter().map(|it| (&*it.service, &*it.why, it.batch)).collect();
    assert_eq!(stopped, [("low", "preempted by high.1, which has the priority 5", 1)]);
    assert_eq!(report.placements.len(), 1, "{report:#?}");
    let waits: Vec<_> = report.refused.iter().map(|it| &*it.service).collect();
    assert_eq!(waits, ["low"], "what comes after it waits");
}

/// What the priorities of all tasks that have a node, or were promised one, come to.
fn sum(view: &Snapshot) -> i64 {
    let held = view.tasks.iter().filter(|task| task.is_wanted() && occupies(task));
    held.map(|task| i64::from(priority::by_id(view, task.service_id))).sum()
}

/// The nodes on which more is reserved by what was assigned than there is.
fn overloaded(view: &Snapshot) -> Vec<NodeId> {
    let reserved = |node: &Arc<Node>| -> i64 {
        let tasks = view.tasks_on(node.id).filter(|task| occupies(task) && !task.is_promised());
        tasks.filter_map(|task| super::load::reservation(task)).map(|it| it.memory_bytes).sum()
    };
    let there = |node: &Arc<Node>| node.description.as_ref().unwrap().resources.memory_bytes;
    let over = view.nodes.iter().filter(|node| reserved(node) > there(node));
    over.map(|node| node.id).collect()
}

/// Whether one task that matters less could leave its node for one that waits, and that may go
/// there: then it should have.
fn is_unjust(view: &Snapshot) -> Option<String> {
    let loads = Loads::of(view);
    let waiting = view.tasks_unassigned().filter(|task| {
        task.is_wanted() && task.status.state == TaskState::Pending && !task.displaced
    });
    for task in waiting {
        let (demand, _) = wishes(task, view.services.get(task.service_id), view).unwrap();
        let priority = priority::by_id(view, task.service_id);
        for victim in view.tasks.iter().filter(|it| it.is_wanted() && occupies(it)) {
            // A global task is for one node.
            let apart = task.node_id.is_some_and(|node| victim.node_id != Some(node));
            if apart || priority::by_id(view, victim.service_id) >= priority {
                continue;
            }
            let mut load = loads.get(victim.node_id.unwrap()).unwrap().clone();
            let share = super::load::Share { task: victim, claims: &victim.generic_resources };
            load.change(&share, -1);
            if demand.check(&load).is_ok() {
                return Some(format!("{task:#?} waits and {victim:#?} runs"));
            }
        }
    }
    None
}

/// The planner, each of whose plans is held against what it promises.
struct Held(Preempt);

impl Planner for Held {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        self.0.dirty(event, keys);
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        self.0.keys(view, keys);
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let plan = self.0.plan(view, key, ctx);
        let forgetful = Preempt::new(Arc::new(StrategyScheduler::default()));
        assert_eq!(plan, forgetful.plan(view, key, ctx), "what it remembers changes nothing");
        assert_eq!(self.0.memory.lock().unwrap().wrong(), None, "and is right");
        let mut after = view.clone();
        for change in &plan.changes {
            after.stage(change.clone(), ctx.now).expect("a legal plan");
        }
        assert_eq!(overloaded(&after), [], "who comes waits until there is room");
        if *key == Key::Cluster {
            let leaving = |view: &Snapshot| {
                view.tasks.iter().filter(|it| it.preempted.is_some() && occupies(it)).count()
            };
            let label = |cluster: &Arc<Cluster>| cluster.spec.labels.get(PREEMPTION_LABEL).cloned();
            let most = view.cluster().and_then(label).map_or(0, |text| text.parse().unwrap());
            assert!(leaving(&after) <= leaving(view).max(most), "{most} at a time");
            assert!(sum(&after) >= sum(view), "what comes matters no less than what goes");
        }
        plan
    }
}

#[derive(Clone, Debug)]
enum Op {
    Create { priority: i32, replicas: u64, bytes: i64, everywhere: bool },
    Scale { service: usize, replicas: u64 },
    Image { service: usize },
    Priority { service: usize, priority: i32 },
    Drain { node: usize },
    Activate { node: usize },
    Plan,
    Run,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (-2..8, 0..5_u64, 0..5_i64, prop::bool::weighted(0.1)).prop_map(
            |(priority, replicas, bytes, everywhere)| Op::Create { priority, replicas, bytes, everywhere }
        ),
        2 => (0..5_usize, 0..6_u64).prop_map(|(service, replicas)| Op::Scale { service, replicas }),
        1 => (0..5_usize).prop_map(|service| Op::Image { service }),
        1 => (0..5_usize, -2..8).prop_map(|(service, priority)| Op::Priority { service, priority }),
        1 => (0..4_usize).prop_map(|node| Op::Drain { node }),
        1 => (0..4_usize).prop_map(|node| Op::Activate { node }),
        2 => Just(Op::Plan),
        2 => Just(Op::Run),
    ]
}

fn apply(whole: &mut Whole, op: &Op, number: usize) {
    let view = whole.view();
    let nth = |nth: usize| view.services.iter().nth(nth).map(|service| service.id);
    let available = |nth: usize, availability| {
        let mut node = Node::clone(view.nodes.iter().nth(nth)?);
        node.spec.availability = availability;
        Some(Change::update(node))
    };
    match *op {
        Op::Create { priority, replicas, bytes, everywhere } => {
            let service = whole.proposal(&format!("s{number}"), |spec| {
                wish(priority, replicas, bytes)(spec);
                if everywhere {
                    spec.mode = ServiceMode::Global(Default::default());
                }
            });
            whole.commit(service);
        }
        Op::Scale { service, replicas: count } => {
            let Some(id) = nth(service) else { return };
            if !view.services.get(id).unwrap().spec.mode.is_global() {
                whole.commit(whole.changed(id, |spec| replicas(spec, count)));
            }
        }
        Op::Image { service } => {
            let Some(id) = nth(service) else { return };
            whole.commit(whole.changed(id, |spec| image(spec, &format!("i{number}"))));
        }
        Op::Priority { service, priority } => {
            let Some(id) = nth(service) else { return };
            whole.commit(whole.changed(id, |spec| {
                spec.labels.insert(PRIORITY_LABEL.to_owned(), priority.to_string());
            }));
        }
        Op::Drain { node } => {
            whole.write(available(node, Availability::Drain).into_iter().collect())
        }
        Op::Activate { node } => {
            whole.write(available(node, Availability::Active).into_iter().collect());
        }
        Op::Plan => whole.plan(),
        Op::Run => whole.run(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 1_000, ..Default::default() })]

    /// Over random histories: each plan takes no more than it may and never lowers the sum; it comes
    /// to an end, with nobody waiting for whom one task that matters less could leave.
    #[test]
    fn it_is_bounded_just_and_comes_to_an_end(
        most in 1..4_u64,
        nodes in prop::collection::vec(2..9_i64, 1..4),
        ops in prop::collection::vec(op(), 1..14),
    ) {
        let preempt = Arc::new(Held(Preempt::new(Arc::new(StrategyScheduler::default()))));
        let mut planners = planners();
        *planners.last_mut().unwrap() = preempt.clone();
        let mut whole = Whole::with(planners);
        allow(&mut whole, &most.to_string());
        for (number, bytes) in nodes.iter().enumerate() {
            room(&mut whole, &format!("n{number}"), *bytes);
        }
        for (number, op) in ops.iter().enumerate() {
            apply(&mut whole, op, number);
            planner::check(&*preempt, &whole.view(), whole.now);
        }
        whole.run();
        let view = whole.view();
        planner::check(&*preempt, &view, whole.now);
        prop_assert_eq!(is_unjust(&view), None);
        whole.change_leader();
        whole.plan();
        prop_assert_eq!(whole.view().version(), view.version(), "a new leader finds nothing to do");
    }
}
