//! The cases of SwarmKit's own tests of its scheduler (`manager/scheduler/*_test.go`), played by ours:
//! [`TABLE`] says for each of them which test of ours it is, or why there is none.
//!
//! Its benchmarks are rows of `benches/scheduler.rs`.

use swarm_core::model::*;
use swarm_core::store::Change;

use super::tests::{constrain, gpus, label, placement, prefer, reserve};
use crate::world::World;

/// What becomes of one of SwarmKit's cases here.
enum Ours {
    /// The test that plays it.
    Test(&'static str),
    /// Why it does not apply.
    Not(&'static str),
}

use Ours::{Not, Test};

const VOLUMES: Ours = Not("there are no cluster volumes: `a_cluster_volume_is_nowhere`");

const TABLE: &[(&str, Ours)] = &[
    ("TestScheduler", Test("the_emptiest_node_is_next_while_nodes_come_and_go")),
    ("TestHA", Test("services_fill_each_others_gaps")),
    ("TestPreferences", Test("a_zone_of_one_node_gets_half")),
    ("TestMultiplePreferences", Test("what_a_zone_has_no_room_for_goes_to_the_other")),
    ("TestMultiplePreferencesScaleUp", Test("a_lopsided_service_grows_where_it_is_small")),
    ("TestSchedulerNoReadyNodes", Test("without_nodes_a_task_waits_for_one")),
    ("TestSchedulerFaultyNode", Test("the_sixth_attempt_leaves_the_faulty_node")),
    ("TestSchedulerFaultyNodeSpecVersion", Test("another_version_tries_the_faulty_node_again")),
    ("TestSchedulerResourceConstraint", Test("what_reserves_waits_for_a_ready_node_with_room")),
    ("TestSchedulerResourceConstraintHA", Test("a_nearly_full_node_takes_one_and_no_more")),
    ("TestSchedulerResourceConstraintDeadTask", Test("a_task_that_ended_leaves_its_room")),
    ("TestSchedulerPreexistingDeadTask", Test("what_ended_before_takes_no_room")),
    ("TestSchedulerCompatiblePlatform", Test("images_run_on_their_platforms")),
    (
        "TestSchedulerUnassignedMap",
        Not("nothing is kept in memory about tasks without a node: they are an index of the store"),
    ),
    ("TestPreassignedTasks", Test("bound_tasks_count_before_free_ones")),
    ("TestIgnoreTasks", Test("unwanted_tasks_and_tasks_of_no_service_are_left_alone")),
    ("TestUnscheduleableTask", Test("a_task_without_a_node_gives_way_to_its_update")),
    ("TestSchedulerPluginConstraint", Test("plugins_must_be_there")),
    ("TestSchedulerHostPort", Test("a_host_port_is_one_tasks_on_each_node")),
    ("TestSchedulerMaxReplicas", Test("at_most_so_many_replicas_and_where_none_may_be")),
    ("TestParse", Test("what_cannot_be_read_is_refused_in_swarms_words")),
    ("TestMatch", Test("every_key_matches_as_in_swarm")),
    (
        "TestConstraintSetTask",
        Not("there is no filter to set: constraints are a part of the demand"),
    ),
    ("TestWrongSyntax", Test("every_key_matches_as_in_swarm")),
    ("TestNodeHostname", Test("constraints_by_what_the_node_is")),
    ("TestNodeIP", Test("constraints_by_what_the_node_is")),
    ("TestNodeID", Test("constraints_by_what_the_node_is")),
    ("TestNodeRole", Test("constraints_by_what_the_node_is")),
    ("TestNodePlatform", Test("constraints_by_what_the_node_is")),
    ("TestNodeLabel", Test("constraints_by_what_the_node_is")),
    ("TestEngineLabel", Test("constraints_by_what_the_node_is")),
    ("TestMultipleConstraints", Test("constraints_by_what_the_node_is")),
    ("TestAddTask", Test("generic_resources_are_claimed_by_number_or_by_name")),
    ("TestRemoveTask", Test("a_claimed_name_is_one_tasks_until_that_has_ended")),
    ("TestTreeTaskCountConsistency", Test("preferences_spread_over_labels_level_by_level")),
    ("TestIsInTopology", VOLUMES),
    ("TestSchedulerGinkgo: volumes of tasks", VOLUMES),
    ("volumes_test.go", VOLUMES),
];

#[test]
fn every_case_of_swarmkits_is_played_or_does_not_apply() {
    let sources = [
        include_str!("swarmkit_tests.rs"),
        include_str!("tests.rs"),
        include_str!("constraint.rs"),
        include_str!("../orchestrate/tests/together.rs"),
    ];
    let is_there = |name: &str| {
        let tests = sources.iter().flat_map(|source| source.split("#[test]").skip(1));
        tests.into_iter().any(|test| test.trim_start().starts_with(&format!("fn {name}()")))
    };
    for (theirs, ours) in TABLE {
        match ours {
            Test(name) => assert!(is_there(name), "{theirs}: there is no test {name}"),
            Not(why) => assert!(!why.is_empty(), "{theirs}"),
        }
    }
}

/// Where the one task of a new service goes.
fn goes(world: &mut World, edit: impl FnOnce(&mut ServiceSpec)) -> Option<NodeId> {
    let name = format!("service-{}", world.view().services.len());
    let service = world.service(&name, 1, edit);
    world.settle();
    world.tasks_of(service)[0].node_id
}

fn resources(node: &mut Node, memory: i64, apples: i64) {
    let resources = &mut node.description.get_or_insert_default().resources;
    resources.memory_bytes = memory;
    resources.generic = vec![gpus("apple", apples)];
}

fn wants(spec: &mut ServiceSpec, memory: i64, apples: i64) {
    reserve(spec, |wanted| {
        wanted.memory_bytes = memory;
        wanted.generic = vec![gpus("apple", apples)];
    });
}

#[test]
fn the_emptiest_node_is_next_while_nodes_come_and_go() {
    let mut world = World::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| world.node(name, |_| {}));
    let first = world.service("first", 0, |_| {});
    let first = world.task(first, 1, |task| {
        task.node_id = Some(a);
        task.status.state = TaskState::Assigned;
    });
    let mut two = [goes(&mut world, |_| {}), goes(&mut world, |_| {})];
    two.sort();
    assert_eq!(two, [Some(b), Some(c)], "not where there is a task already");
    [a, b, c].into_iter().for_each(|node| world.edit_node(node, |_| {}));
    world.erase(first);
    assert_eq!(goes(&mut world, |_| {}), Some(a), "its task was erased");
    let removed = world.node("removed", |node| node.status.state = NodeState::Down);
    world.erase(removed);
    assert_ne!(goes(&mut world, |_| {}), Some(removed));
    let d = world.node("d", |_| {});
    assert_eq!(goes(&mut world, |_| {}), Some(d), "it is new");
    let e = world.node("e", |node| node.status.state = NodeState::Down);
    assert_ne!(goes(&mut world, |_| {}), Some(e), "it is down");
    world.edit_node(e, |node| node.status.state = NodeState::Ready);
    assert_eq!(goes(&mut world, |_| {}), Some(e), "it is back");
    let f = world.node("f", |_| {});
    world.edit_node(f, |node| node.status.state = NodeState::Down);
    assert_ne!(goes(&mut world, |_| {}), Some(f), "it went down at once");
}

#[test]
fn services_fill_each_others_gaps() {
    let mut world = World::new();
    let nodes = [(); 5].map(|()| world.node("node", |_| {}));
    let sorted = |mut counts: Vec<usize>| {
        counts.sort_unstable();
        counts
    };
    let first = world.service("first", 18, |_| {});
    world.settle();
    let before = world.counts(first, &nodes);
    assert_eq!(sorted(before.clone()), [3, 3, 4, 4, 4]);
    let second = world.service("second", 2, |_| {});
    world.settle();
    let gaps = world.counts(second, &nodes);
    let expected: Vec<_> = before.iter().map(|count| usize::from(*count == 3)).collect();
    assert_eq!(gaps, expected, "one each where there are three");
    for slot in 19..=21 {
        world.task(first, slot, |_| {});
    }
    world.settle();
    let after = world.counts(first, &nodes);
    assert_eq!(sorted(after.clone()), [4, 4, 4, 4, 5]);
    let shared = after.iter().zip(&gaps).filter(|(_, gap)| **gap == 1);
    assert!(shared.into_iter().all(|(count, _)| *count == 4), "{after:?}");
}

#[test]
fn a_zone_of_one_node_gets_half() {
    let mut world = World::new();
    let zones = ["az1", "az2", "az2", "az2", "az2"];
    let nodes = zones.map(|zone| world.node("node", |node| label(node, "az", zone)));
    let service = world.service("web", 8, |spec| prefer(spec, "node.labels.az"));
    world.settle();
    assert_eq!(world.counts(service, &nodes), [4, 1, 1, 1, 1]);
}

/// Nodes with a zone and a rack each.
fn racks<const N: usize>(world: &mut World, racks: [(&str, &str); N]) -> [NodeId; N] {
    racks.map(|(zone, rack)| {
        world.node("node", |node| {
            label(node, "az", zone);
            label(node, "rack", rack);
        })
    })
}

fn prefer_racks(spec: &mut ServiceSpec) {
    prefer(spec, "node.labels.az");
    prefer(spec, "node.labels.rack");
}

#[test]
fn what_a_zone_has_no_room_for_goes_to_the_other() {
    let mut world = World::new();
    let (one, two) = (("az2", "1"), ("az2", "2"));
    let nodes = racks(&mut world, [("az1", "1"), ("az1", "1"), one, one, one, two, two]);
    let room = [(100, 1), (1_000, 10), (1_000, 6), (1_000, 6), (1_000, 6), (1_000, 6), (1_000, 6)];
    for (node, (memory, apples)) in nodes.into_iter().zip(room) {
        world.edit_node(node, |node| resources(node, memory, apples));
    }
    let service = world.service("web", 12, |spec| {
        prefer_racks(spec);
        wants(spec, 200, 2);
    });
    world.settle();
    let counts = world.counts(service, &nodes);
    assert_eq!(counts[..2], [0, 5], "six are its share, and five fit");
    let (first, second) = (&counts[2..5], &counts[5..]);
    let sums = (first.iter().sum::<usize>(), second.iter().sum::<usize>());
    assert!(sums == (4, 3) || sums == (3, 4), "{counts:?}");
    let even = |of: &[usize]| of.iter().max().unwrap() - of.iter().min().unwrap() <= 1;
    assert!(even(first) && even(second), "{counts:?}");
}

#[test]
fn a_lopsided_service_grows_where_it_is_small() {
    let mut world = World::new();
    let nodes = racks(&mut world, [("dc1", "1"), ("dc1", "2"), ("dc2", "1")]);
    let service = world.service("web", 0, prefer_racks);
    let running = [(0, 3), (1, 1), (2, 3)];
    let running = running.into_iter().flat_map(|(node, count)| vec![nodes[node]; count]);
    for (slot, node) in (1..).zip(running) {
        world.task(service, slot, |task| {
            task.node_id = Some(node);
            task.status.state = TaskState::Running;
        });
    }
    world.settle();
    for slot in [8, 9] {
        world.task(service, slot, |_| {});
    }
    world.settle();
    let counts = world.counts(service, &nodes);
    assert_eq!((counts[0], counts[1] + counts[2]), (3, 6), "not on the node that has most");
}

#[test]
fn without_nodes_a_task_waits_for_one() {
    let mut world = World::new();
    let service = world.service("web", 1, |_| {});
    world.settle();
    assert_eq!(world.errors(service), ["no suitable node"]);
    let node = world.node("new", |_| {});
    world.settle();
    assert_eq!(world.tasks_of(service)[0].node_id, Some(node));
}

/// A cluster of two nodes; both services have a task on the first one.
fn faulty() -> (World, [NodeId; 2], ServiceId, ServiceId) {
    let mut world = World::new();
    let nodes = ["a", "b"].map(|name| world.node(name, |_| {}));
    let [free, bound] = ["free", "bound"].map(|name| {
        let service = world.service(name, 0, |_| {});
        world.task(service, 1, |task| {
            task.node_id = Some(nodes[0]);
            task.status.state = TaskState::Running;
        });
        service
    });
    (world, nodes, free, bound)
}

/// A task of a service that fails wherever it was put: that is where.
fn attempt(world: &mut World, service: ServiceId, slot: u64, bound: Option<NodeId>) -> NodeId {
    let task = world.task(service, slot, |task| task.node_id = bound);
    world.settle();
    let node = world.get(task).node_id.expect("there is room");
    world.observe(task, TaskState::Failed);
    world.later(1);
    node
}

#[test]
fn the_sixth_attempt_leaves_the_faulty_node() {
    let (mut world, nodes, free, bound) = faulty();
    for slot in 2..10 {
        let expected = nodes[usize::from(slot < 7)];
        assert_eq!(attempt(&mut world, free, slot, None), expected, "slot {slot}");
        assert_eq!(attempt(&mut world, bound, slot, Some(nodes[0])), nodes[0]);
    }
}

#[test]
fn another_version_tries_the_faulty_node_again() {
    let (mut world, nodes, free, _) = faulty();
    for slot in 2..17 {
        if slot == 8 {
            world.edit_service(free, |service| {
                service.spec.labels.insert("version".to_owned(), "2".to_owned());
            });
        }
        let other = slot < 7 || (8..13).contains(&slot);
        assert_eq!(attempt(&mut world, free, slot, None), nodes[usize::from(other)], "slot {slot}");
    }
}

#[test]
fn what_reserves_waits_for_a_ready_node_with_room() {
    let mut world = World::new();
    world.node("small", |node| resources(node, 1_000, 1));
    for name in ["unknown", "unknown too"] {
        world.node(name, |node| {
            resources(node, 2_000, 2);
            node.status.state = NodeState::Unknown;
        });
    }
    let service = world.service("big", 1, |spec| wants(spec, 2_000, 2));
    world.settle();
    let why = "no suitable node (2 nodes not available for new tasks; \
               insufficient resources on 1 node)";
    assert_eq!(world.errors(service), [why]);
    let big = world.node("big", |node| resources(node, 8_000, 4));
    world.settle();
    assert_eq!(world.tasks_of(service)[0].node_id, Some(big));
}

#[test]
fn a_nearly_full_node_takes_one_and_no_more() {
    let mut world = World::new();
    let nodes = [(1_000, 2), (100_000, 5)]
        .map(|(memory, apples)| world.node("node", |node| resources(node, memory, apples)));
    let service = world.service("web", 0, |spec| wants(spec, 500, 1));
    for (slot, at) in (1..).zip([0, 1, 1, 1]) {
        world.task(service, slot, |task| {
            task.node_id = Some(nodes[at]);
            task.status.state = TaskState::Running;
            task.generic_resources = vec![gpus("apple", 1)];
        });
    }
    world.settle();
    for slot in [5, 6] {
        world.task(service, slot, |_| {});
    }
    world.settle();
    assert_eq!(world.counts(service, &nodes), [2, 4], "the first one has room for one");
}

#[test]
fn a_task_that_ended_leaves_its_room() {
    let mut world = World::new();
    let node = world.node("only", |node| resources(node, 1_000, 4));
    let service = world.service("big", 1, |spec| wants(spec, 800, 3));
    world.settle();
    let first = world.tasks_of(service)[0].id;
    let second = world.task(service, 2, |_| {});
    world.settle();
    assert_eq!(world.get(first).node_id, Some(node));
    assert_eq!(world.errors(service), ["no suitable node (insufficient resources on 1 node)"]);
    world.observe(first, TaskState::Shutdown);
    world.settle();
    assert_eq!(world.get(second).node_id, Some(node));
}

#[test]
fn what_ended_before_takes_no_room() {
    let mut world = World::new();
    let node = world.node("only", |node| resources(node, 1_000, 1));
    let service = world.service("big", 0, |spec| wants(spec, 800, 1));
    world.task(service, 1, |task| {
        task.node_id = Some(node);
        task.generic_resources = vec![gpus("apple", 1)];
        task.status.state = TaskState::Shutdown;
    });
    let second = world.task(service, 2, |_| {});
    world.settle();
    assert_eq!(world.get(second).node_id, Some(node));
}

#[test]
fn images_run_on_their_platforms() {
    let mut world = World::new();
    let on = |arch: &'static str, os: &'static str| Platform {
        architecture: arch.to_owned(),
        os: os.to_owned(),
        ..Platform::default()
    };
    let run = |platforms: Vec<Platform>| {
        move |spec: &mut ServiceSpec| placement(spec, |placement| placement.platforms = platforms)
    };
    let [linux, windows] = [on("x86_64", "linux"), on("amd64", "windows")].map(|platform| {
        world.node("node", |node| node.description.as_mut().unwrap().platform = platform)
    });
    let blank = world.node("blank", |node| node.description = None);
    assert_eq!(goes(&mut world, run(vec![on("amd64", "linux")])), Some(linux));
    let arm = world.service("arm", 1, run(vec![on("arm", "linux")]));
    world.settle();
    assert_eq!(world.errors(arm), ["no suitable node (unsupported platform on 3 nodes)"]);
    let any = goes(&mut world, |_| {});
    assert!(any == Some(windows) || any == Some(blank), "those are empty");
    assert_eq!(goes(&mut world, run(vec![on("", "linux")])), Some(linux));
    let both = vec![on("amd64", "linux"), on("x86_64", "windows")];
    let both = goes(&mut world, run(both));
    assert!(both == Some(linux) || both == Some(windows));
}

#[test]
fn bound_tasks_count_before_free_ones() {
    let mut world = World::new();
    let nodes = ["a", "b"].map(|name| world.node(name, |_| {}));
    let service = world.service("web", 1, |_| {});
    for slot in [2, 3] {
        world.task(service, slot, |task| task.node_id = Some(nodes[0]));
    }
    world.settle();
    assert_eq!(world.counts(service, &nodes), [2, 1]);
    assert_eq!(world.tasks_of(service)[0].node_id, Some(nodes[1]));
}

/// SwarmKit's scheduler shuts it down; here its orchestrator told it to stop, and one without a node
/// has stopped then.
#[test]
fn a_task_without_a_node_gives_way_to_its_update() {
    let mut world = World::new();
    world.node("only", |_| {});
    let service = world.service("web", 2, |spec| placement(spec, |it| it.max_replicas = 1));
    world.settle();
    let full = "no suitable node (max replicas per node limit exceed)";
    assert_eq!(world.errors(service), [full]);
    let tasks = world.tasks_of(service);
    let waits = tasks.iter().find(|task| task.node_id.is_none()).unwrap();
    world.write(vec![Change::Desire(waits.id, TaskState::Shutdown)]);
    let new = world.task(service, waits.slot, |_| {});
    world.settle();
    assert_eq!(world.get(new).status.err, full, "the new one waits in its stead");
    let other = tasks.iter().find(|task| task.id != waits.id).unwrap();
    world.write(vec![Change::Desire(other.id, TaskState::Shutdown)]);
    world.settle();
    assert!(world.get(new).node_id.is_some());
    assert_eq!(world.get(waits.id).node_id, None, "what shall not run is not placed");
}

#[test]
fn at_most_so_many_replicas_and_where_none_may_be() {
    let mut world = World::new();
    let mut nodes = ["a", "b"].map(|name| world.node(name, |_| {})).to_vec();
    let service = world.service("web", 3, |spec| placement(spec, |it| it.max_replicas = 1));
    world.settle();
    assert_eq!(world.counts(service, &nodes), [1, 1]);
    assert_eq!(world.errors(service), ["no suitable node (max replicas per node limit exceed)"]);
    nodes.push(world.node("c", |_| {}));
    world.settle();
    assert_eq!(world.counts(service, &nodes), [1, 1, 1]);
    let nowhere = world.service("nowhere", 4, |spec| {
        constrain(spec, "node.hostname==d");
        placement(spec, |it| it.max_replicas = 3);
    });
    world.settle();
    let why = "no suitable node (scheduling constraints not satisfied on 3 nodes)";
    assert_eq!(world.errors(nowhere), [why; 4]);
}

#[test]
fn constraints_by_what_the_node_is() {
    let mut world = World::new();
    let id = world.node("node-1", |node| {
        node.status.addr = "186.17.9.41".to_owned();
        node.spec.labels.insert("security".to_owned(), "high".to_owned());
        let engine = &mut node.description.as_mut().unwrap().engine;
        engine.labels.insert("operatingsystem".to_owned(), "Ubuntu 14.04".to_owned());
    });
    let (same, longer, shorter) = (
        format!("node.id == {id}"),
        format!("node.id == {id}x"),
        format!("node.id == {}", &id.to_string()[1..]),
    );
    let table: &[(&[&str], bool)] = &[
        (&["node.hostname != node-2"], true),
        (&["node.hostname != NODe-1"], false),
        (&["node.ip == 186.17.9.41"], true),
        (&["node.ip != 186.17.9.41"], false),
        (&["node.ip == 186.17.9.42"], false),
        (&["node.ip == 186.17.9.4/24"], true),
        (&["node.ip == 186.17.8.41/24"], false),
        (&["node.ip == 186.17.9.41/34"], false),
        (&["node.ip != 266.17.9.41"], false),
        (&["node.ip != 0.0.0.0"], true),
        (&["node.ip == not_ip_addr"], false),
        (&[&same], true),
        (&[&longer], false),
        (&[&shorter], false),
        (&["node.role == worker"], true),
        (&["node.role == manager"], false),
        (&["node.role == worker-manager"], false),
        (&["node.platform.os == linux"], true),
        (&["node.platform.arch == amd64"], false),
        (&["node.platform.arch != amd64"], true),
        (&["node.labels.security == high"], true),
        (&["engine.labels.security == high"], false),
        (&["engine.labels.disk != ssd"], true),
        (&["node.hostname == node-1", "engine.labels.operatingsystem != ubuntu 14.04"], false),
        (&["node.hostname == node-1", "engine.labels.operatingsystem != ubuntu 15.04"], true),
    ];
    for (constraints, expected) in table {
        let placed = goes(&mut world, |spec| constraints.iter().for_each(|it| constrain(spec, it)));
        assert_eq!(placed.is_some(), *expected, "{constraints:?}");
    }
    // IPv6 in any way of writing it; without an address only `!=` matches.
    for (addr, constraint, expected) in [
        ("2001:db8::2", "node.ip == 2001:db8:0::2", true),
        ("2001:db8::2", "node.ip != 2001:db8::2/128", false),
        ("2001:db8::2", "node.ip == 2001:db8::/64", true),
        ("2001:db8::2", "node.ip == 2001:db9::/64", false),
        ("2001:db8::2", "node.ip != 2001:db9::/64", true),
        ("", "node.ip == 0.0.0.0", false),
        ("", "node.ip != 0.0.0.0", true),
    ] {
        world.edit_node(id, |node| node.status.addr = addr.to_owned());
        let placed = goes(&mut world, |spec| constrain(spec, constraint));
        assert_eq!(placed.is_some(), expected, "{constraint} where the address is {addr:?}");
    }
}
