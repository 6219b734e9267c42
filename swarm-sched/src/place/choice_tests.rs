//! What a service may choose: its strategy, its bounds, its neighbours.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_core::control::Ctx;
use swarm_core::model::*;
use swarm_core::scheduler::{PlacementView, Placements, Scheduler};
use swarm_core::store::{Epoch, Object, Snapshot};

use super::filter::{Demand, Filter};
use super::loads::Loads;
use super::{
    AffinityError, FilterScheduler, LeastLoaded, Overcommit, Random, Spread, StrategyScheduler,
};
use crate::world::{World, template};

fn labelled(name: &'static str, value: &'static str) -> impl Fn(&mut ServiceSpec) {
    move |spec| {
        spec.labels.insert(name.to_owned(), value.to_owned());
        template(spec, |task| {
            let resources = task.resources.get_or_insert_default();
            resources.reservations.get_or_insert_default().memory_bytes = 1 << 30;
        });
    }
}

fn zoned(world: &mut World, name: &str, zone: &str) -> NodeId {
    world.node(name, |node| {
        node.spec.labels.insert("zone".to_owned(), zone.to_owned());
    })
}

#[test]
fn a_service_names_its_strategy() {
    let mut world = World::new();
    let nodes = [world.node("a", |_| {}), world.node("b", |_| {})];
    let packed = world.service("packed", 6, labelled("swarm.strategy", "binpack"));
    world.settle();
    let spread = world.service("spread", 6, labelled("swarm.strategy", "spread"));
    world.settle();
    let mut counts = world.counts(packed, &nodes);
    counts.sort_unstable();
    assert_eq!(counts, [0, 6]);
    assert_eq!(world.counts(spread, &nodes).iter().min(), Some(&2), "8 GiB each: 2 were left");
    let odd = world.service("odd", 1, labelled("swarm.strategy", "best"));
    world.settle();
    assert_eq!(world.errors(odd), [r#"there is no placement strategy "best""#]);
}

#[test]
fn the_cluster_names_one_for_all_others() {
    let mut world = World::new();
    let nodes = [world.node("a", |_| {}), world.node("b", |_| {})];
    let mut cluster = Cluster { id: world.ids.next(), ..Cluster::default() };
    cluster.spec.labels.insert("swarm.strategy".to_owned(), "binpack".to_owned());
    world.write(vec![swarm_core::store::Change::create(cluster)]);
    let packed = world.service("packed", 4, labelled("other", ""));
    let spread = world.service("spread", 4, labelled("swarm.strategy", "spread"));
    world.settle();
    assert!(world.counts(packed, &nodes).contains(&4));
    assert_eq!(world.counts(spread, &nodes), [2, 2]);
}

#[test]
fn a_bounded_skew_makes_tasks_wait() {
    let mut world = World::new();
    let nodes =
        [zoned(&mut world, "a", "x"), zoned(&mut world, "b", "x"), zoned(&mut world, "c", "y")];
    let bound = |spec: &mut ServiceSpec| {
        labelled("swarm.topology", "node.labels.zone:2")(spec);
        template(spec, |task| {
            let resources = task.resources.get_or_insert_default();
            resources.reservations.get_or_insert_default().memory_bytes = 4 << 30;
        });
    };
    let service = world.service("web", 8, bound);
    world.settle();
    // Zone y has room for two, so zone x gets no more than four.
    assert_eq!(world.counts(service, &nodes), [2, 2, 2]);
    world.node("d", |node| {
        node.spec.labels.insert("zone".to_owned(), "x".to_owned());
    });
    world.settle();
    let why = "no suitable node (a skew of 2 over node.labels.zone would be exceeded)";
    assert_eq!(world.errors(service), [why; 2]);
    zoned(&mut world, "e", "y");
    world.settle();
    assert_eq!(world.errors(service), Vec::<String>::new());
    let odd = world.service("odd", 1, labelled("swarm.topology", "zone"));
    world.settle();
    let why = "swarm.topology=zone cannot be read: LABEL:SKEW is expected";
    assert_eq!(world.errors(odd), [why]);
}

#[test]
fn a_bounded_skew_is_no_reason_where_no_node_would_take_the_task() {
    let mut world = World::new();
    let nodes =
        [zoned(&mut world, "a", "x"), zoned(&mut world, "b", "y"), zoned(&mut world, "c", "y")];
    let service = world.service("web", 4, |spec| {
        labelled("swarm.topology", "node.labels.zone:1")(spec);
        template(spec, |task| task.placement.get_or_insert_default().max_replicas = 1);
    });
    world.settle();
    assert_eq!(world.counts(service, &nodes), [1, 1, 1]);
    let why = "no suitable node (max replicas per node limit exceed)";
    assert_eq!(world.errors(service), [why]);
}

#[test]
fn tasks_go_near_others_or_away_from_them() {
    let mut world = World::new();
    let nodes = [world.node("a", |_| {}), world.node("b", |_| {}), world.node("c", |_| {})];
    let database = world.service("database", 1, |_| {});
    world.settle();
    let only = world.tasks_of(database).remove(0);
    let home = only.node_id.unwrap();
    let near = world.service("near", 3, labelled("swarm.affinity", "service==data*"));
    let away = world.service("away", 2, labelled("swarm.affinity", "service!=database"));
    let alone = world.service("alone", 4, labelled("swarm.affinity", "service!=alone"));
    let soft = world.service("soft", 2, labelled("swarm.affinity", "service==~database"));
    let vain = world.service("vain", 1, labelled("swarm.affinity", "service==nothing"));
    let v1 = world.service("v1", 1, |spec| {
        let env = format!("affinity:container=={}*", &only.id.as_str()[..12]);
        template(spec, |task| task.container.get_or_insert_default().env.push(env));
    });
    world.settle();
    let at_home = |world: &World, service| {
        world.tasks_of(service).iter().filter(|task| task.node_id == Some(home)).count()
    };
    assert_eq!((at_home(&world, near), at_home(&world, away)), (3, 0));
    assert_eq!((at_home(&world, soft), at_home(&world, v1)), (2, 1));
    assert_eq!(world.counts(alone, &nodes), [1, 1, 1]);
    let why = "no suitable node (affinity not satisfied on 3 nodes)";
    assert_eq!((world.errors(alone), world.errors(vain)), (vec![why.into()], vec![why.into()]));
    let odd = world.service("odd", 1, labelled("swarm.affinity", "image==/red.*/"));
    world.settle();
    assert!(world.errors(odd)[0].contains("regular expression"), "{:?}", world.errors(odd));
}

/// Those of a job too, and those that were given a node by the same answer.
#[test]
fn tasks_are_meant_by_their_names() {
    let mut world = World::new();
    let nodes = [world.node("a", |_| {}), world.node("b", |_| {}), world.node("c", |_| {})];
    let job = world.service("job", 0, |_| {});
    let alone = world.service("alone", 0, labelled("swarm.affinity", "container!=alone.*"));
    let near = world.service("near", 1, labelled("swarm.affinity", "container==job.1.*"));
    let name = |name: &str| {
        let name = name.to_owned();
        Arc::new(ServiceAnnotations { name, ..ServiceAnnotations::default() })
    };
    world.task(job, 1, |task| {
        (task.annotations, task.node_id) = (name("job"), Some(nodes[1]));
        (task.status.state, task.desired_state) = (TaskState::Running, TaskState::Complete);
    });
    for slot in 1..=4 {
        world.task(alone, slot, |task| task.annotations = name("alone"));
    }
    world.settle();
    assert_eq!(world.counts(near, &nodes), [0, 1, 0]);
    assert_eq!(world.counts(alone, &nodes), [1, 1, 1]);
    let why = "no suitable node (affinity not satisfied on 3 nodes)";
    assert_eq!(world.errors(alone), [why]);
}

/// Where an expression lets tasks go: host `beta` runs `redis`, whose service has the label `tier`, and
/// `gamma` runs `memcached`, whose container has the label `role`.
fn hosts(expression: &str, in_env: bool) -> Vec<String> {
    let mut world = World::new();
    let [_, beta, gamma] =
        [("alpha", "ssd"), ("beta", ""), ("gamma", "hdd")].map(|(host, disk)| {
            world.node(host, |node| {
                if !disk.is_empty() {
                    node.spec.labels.insert("disk".to_owned(), disk.to_owned());
                    let engine = &mut node.description.as_mut().unwrap().engine;
                    engine.labels.insert("storage".to_owned(), disk.to_owned());
                }
            })
        });
    let redis = world.service("kv", 0, |spec| {
        spec.labels.insert("tier".to_owned(), "back".to_owned());
        template(spec, |task| task.container.get_or_insert_default().image = "redis:7".to_owned());
    });
    let cache = world.service("cache", 0, |spec| {
        template(spec, |task| {
            let container = task.container.get_or_insert_default();
            container.image = "example.com/memcached".to_owned();
            container.labels.insert("role".to_owned(), "cache".to_owned());
        });
    });
    for (service, node) in [(redis, beta), (cache, gamma)] {
        world.task(service, 1, |task| {
            task.node_id = Some(node);
            task.status.state = TaskState::Running;
        });
    }
    let service = world.service("asks", 3, |spec| {
        if in_env {
            let form = if expression.starts_with("constraint:") { "" } else { "affinity:" };
            let text = format!("{form}{expression}");
            template(spec, |task| task.container.get_or_insert_default().env.push(text));
        } else {
            spec.labels.insert("swarm.affinity".to_owned(), expression.to_owned());
        }
    });
    world.settle();
    let nodes = world.tasks_of(service).into_iter().filter_map(|task| task.node_id);
    let view = world.view();
    let mut hosts: Vec<_> =
        nodes.map(|node| view.nodes.get(node).unwrap().spec.name.clone()).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

#[test]
fn every_kind_of_affinity_is_one_of_placement() {
    let all = ["alpha", "beta", "gamma"];
    let table: &[(&str, &[&str])] = &[
        ("node==alpha", &["alpha"]),
        ("node!=al*", &["beta", "gamma"]),
        ("node==nobody", &[]),
        ("node==~nobody", &all),
        ("constraint:node==b*", &["beta"]),
        ("constraint:node!=beta", &["alpha", "gamma"]),
        ("constraint:storage==ssd", &["alpha"]),
        ("constraint:storage!=ssd", &["beta", "gamma"]),
        ("constraint:storage==~hdd", &["gamma"]),
        ("node.labels.disk==*d", &["alpha", "gamma"]),
        ("node.labels.disk!=s*", &["beta", "gamma"]),
        ("engine.labels.storage==s*d", &["alpha"]),
        ("tier==back", &["beta"]),
        ("tier!=b*", &["alpha", "gamma"]),
        ("role==cache", &["gamma"]),
        ("role==~none", &all),
        ("image==redis", &["beta"]),
        ("image==redis:7", &["beta"]),
        ("image==redis:6", &[]),
        ("image!=redis*", &["alpha", "gamma"]),
        ("image==*memcached", &["gamma"]),
        ("image==~redis*", &["beta"]),
    ];
    for (expression, expected) in table {
        assert_eq!(hosts(expression, false), *expected, "{expression} in the label");
        assert_eq!(hosts(expression, true), *expected, "{expression} in the environment");
    }
}

/// Of two nodes, each with its cores and GiB and what its tasks reserve of them, the one that gets a
/// task which wants so much.
fn packed(nodes: [(Reserved, &[Reserved]); 2], wants: Reserved) -> Option<usize> {
    let reserve = |spec: &mut ServiceSpec, (cpus, memory): Reserved| {
        template(spec, |task| {
            let resources = task.resources.get_or_insert_default();
            let wanted = resources.reservations.get_or_insert_default();
            (wanted.nano_cpus, wanted.memory_bytes) = (cpus * 1_000_000_000, memory << 30);
        });
    };
    let mut world = World::new();
    let mut number = 0;
    let nodes = nodes.map(|((cpus, memory), tasks)| {
        let node = world.node("node", |node| {
            let there = &mut node.description.as_mut().unwrap().resources;
            (there.nano_cpus, there.memory_bytes) = (cpus * 1_000_000_000, memory << 30);
        });
        for reserved in tasks {
            number += 1;
            let service = world.service(&format!("s{number}"), 0, |spec| reserve(spec, *reserved));
            world.task(service, 1, |task| {
                task.node_id = Some(node);
                task.status.state = TaskState::Running;
            });
        }
        node
    });
    let service = world.service("new", 1, |spec| {
        labelled("swarm.strategy", "binpack")(spec);
        reserve(spec, wants);
    });
    world.settle();
    let placed = world.tasks_of(service)[0].node_id?;
    nodes.iter().position(|node| *node == placed)
}

/// Cores and GiB.
type Reserved = (i64, i64);

/// Swarm v1: the percentage of the processors, with the task on them, and that of the memory; the one
/// that is not asked for counts 100. The highest sum wins, of equal ones the node with more containers.
#[test]
fn binpack_weighs_as_swarm_v1() {
    fn same<'a>(first: &'a [Reserved], second: &'a [Reserved]) -> [(Reserved, &'a [Reserved]); 2] {
        [((4, 8), first), ((4, 8), second)]
    }
    // 12 against 37 of memory.
    assert_eq!(packed(same(&[], &[(0, 2)]), (0, 1)), Some(1));
    // The fuller one has no room.
    assert_eq!(packed(same(&[], &[(0, 8)]), (0, 1)), Some(0));
    // Empty ones: a GiB is 6 % of the large one and 12 % of the small one.
    assert_eq!(packed([((4, 16), &[]), ((4, 8), &[])], (0, 1)), Some(1));
    // One is short of processors, the other of memory: by what is asked for.
    let lopsided = same(&[(3, 0)], &[(0, 6)]);
    assert_eq!(packed(lopsided, (0, 1)), Some(1), "100 + 12 against 100 + 87");
    assert_eq!(packed(lopsided, (1, 0)), Some(0), "100 + 100 against 25 + 100");
    let more = same(&[(3, 0)], &[(0, 3), (0, 3)]);
    assert_eq!(packed(more, (1, 2)), Some(1), "100 + 25 against 25 + 100, and more tasks");
    let more = same(&[(1, 0), (2, 0)], &[(0, 6)]);
    assert_eq!(packed(more, (1, 1)), Some(0), "100 + 12 against 25 + 87, and more tasks");
    // Nothing is asked for: 200 everywhere.
    assert_eq!(packed(same(&[], &[(0, 0)]), (0, 0)), Some(1));
    // Whole percents, as in v1: 100 and 1 of 1,000 are 10 of 100, like 100 of 1,000.
    let percents = [((4, 1_000), &[(0, 100)][..]), ((4, 1_000), &[(0, 49), (0, 50)][..])];
    assert_eq!(packed(percents, (0, 1)), Some(1), "10 both, and there are more tasks");
}

fn report(world: &mut World, node: NodeId, load: &str) {
    world.edit_node(node, |node| {
        let engine = &mut node.description.as_mut().unwrap().engine;
        engine.labels.insert("load".to_owned(), load.to_owned());
    });
}

#[test]
fn the_least_loaded_node_is_the_one_that_says_so_last() {
    let mut world = World::new();
    let nodes = ["1", "5", "much"].map(|load| {
        let node = world.node("node", |_| {});
        report(&mut world, node, load);
        node
    });
    let service = world.service("web", 6, |spec| {
        spec.labels.insert("swarm.strategy".to_owned(), "least-loaded".to_owned());
    });
    world.settle();
    assert_eq!(world.counts(service, &nodes), [5, 1, 0], "each task adds 1 until the next report");
    report(&mut world, nodes[0], "100");
    report(&mut world, nodes[2], "0");
    for slot in 7..=9 {
        world.task(service, slot, |_| {});
    }
    world.settle();
    assert_eq!(world.counts(service, &nodes), [5, 1, 3], "what it reports now counts");
}

#[test]
fn what_is_least_and_what_a_task_adds_are_the_embedders() {
    let mut world = World::new();
    let nodes = ["0", "15"].map(|watts| {
        world.node("node", |node| {
            node.spec.labels.insert("watts".to_owned(), watts.to_owned());
        })
    });
    let service = world.service("web", 3, |_| {});
    for (per_task, expected) in [(0, [3, 0]), (10, [2, 1]), (20, [2, 1]), (100, [2, 1])] {
        let strategy = LeastLoaded::by("node.labels.watts", per_task);
        let counts = ask(&mut world, &FilterScheduler::new(strategy), service);
        let counts = nodes.map(|node| counts.get(&node).copied().unwrap_or(0));
        assert_eq!(counts, expected, "{per_task} for each task");
    }
}

fn ask(
    world: &mut World,
    scheduler: &dyn Scheduler,
    service: ServiceId,
) -> BTreeMap<NodeId, usize> {
    let (view, tasks) = (world.view(), world.tasks_of(service));
    let mut ctx = Ctx::new(world.now, &mut world.ids, Epoch(1));
    let asked =
        PlacementView { snapshot: &view, service: view.services.get(service), tasks: &tasks };
    let mut counts = BTreeMap::new();
    for placed in scheduler.place(&asked, &mut ctx).placed {
        *counts.entry(placed.node).or_default() += 1;
    }
    counts
}

#[test]
fn filters_without_their_scheduler_know_affinities_too() {
    let mut world = World::new();
    let [plain, ssd] = ["plain", "ssd"].map(|disk| {
        world.node(disk, |node| drop(node.spec.labels.insert("disk".to_owned(), disk.to_owned())))
    });
    let near = "container!=web.*; node.labels.disk==~ssd";
    let service = world.service("web", 0, labelled("swarm.affinity", near));
    for slot in 1..=2 {
        world.task(service, slot, |task| {
            Arc::make_mut(&mut task.annotations).name = "web".to_owned();
        });
    }
    let broken = world.service("broken", 1, labelled("swarm.affinity", "near"));
    let (view, tasks) = (world.view(), world.tasks_of(service));
    let mut loads = Loads::of(&view);
    let mut demand = Demand::of(&tasks[0], view.services.get(service), &view).unwrap();
    let missed = [plain, ssd].map(|node| demand.missed_on(loads.get(node).unwrap()));
    assert_eq!(missed, [1, 0]);
    let placed = demand.settle(&tasks[0], ssd, &mut loads).unwrap();
    assert_eq!((placed.task, placed.node), (tasks[0].id, ssd));
    let check = |node| demand.check(loads.get(node).unwrap());
    assert_eq!([check(plain), check(ssd)], [Ok(()), Err(Filter::Affinity)]);
    assert_eq!(demand.settle(&tasks[1], NodeId::MAX, &mut loads), None);

    let broken = &world.tasks_of(broken)[0];
    let refused = Demand::of(broken, view.services.get(broken.service_id), &view);
    assert!(matches!(refused, Err(AffinityError::Shape(_))));
}

#[test]
fn random_draws_are_independent_and_the_same_for_a_seed() {
    let mut world = World::new();
    for number in 0..10 {
        world.node(&number.to_string(), |_| {});
    }
    let service = world.service("web", 1_000, |_| {});
    let drawn =
        |world: &mut World, seed| ask(world, &FilterScheduler::new(Random::new(seed)), service);
    let one = drawn(&mut world, 1);
    assert_eq!(one, drawn(&mut world, 1));
    assert_ne!(one, drawn(&mut world, 2));
    // Chi squared over ten nodes: 9 degrees of freedom, 1 in 10,000 lies outside of 1.2 to 33.7.
    // Evenly dealt tasks would give nearly 0.
    let chi: f64 = one.values().map(|count| (*count as f64 - 100.0).powi(2) / 100.0).sum();
    assert!((1.2..33.7).contains(&chi), "{chi}: {one:?}");
}

#[test]
fn more_than_there_is_can_be_counted() {
    let mut world = World::new();
    world.node("only", |_| {});
    let service = world.service("web", 10, labelled("other", ""));
    let placed = |world: &mut World, scheduler: &dyn Scheduler| -> usize {
        ask(world, scheduler, service).into_values().sum()
    };
    assert_eq!(placed(&mut world, &FilterScheduler::new(Spread)), 8);
    let more = Overcommit { memory: 1_130, ..Overcommit::default() };
    assert_eq!(placed(&mut world, &FilterScheduler::new(Spread).overcommit(more)), 9);
    let less = Overcommit { memory: 500, ..Overcommit::default() };
    let scheduler: Arc<dyn Scheduler> = Arc::new(StrategyScheduler::default().overcommit(less));
    assert_eq!(placed(&mut world, &*scheduler), 4);
}

#[test]
fn the_scheduler_of_many_strategies_keeps_the_contract() {
    swarm_core::conformance::scheduler::suite(|| Box::new(StrategyScheduler::default()));
}

#[test]
fn a_scheduler_that_counts_more_or_less_than_nodes_report_keeps_the_contract() {
    for (cpus, memory) in [(1_500, 1_050), (1_001, 4_000), (900, 333)] {
        swarm_core::conformance::scheduler::suite(|| {
            Box::new(StrategyScheduler::default().overcommit(Overcommit { cpus, memory }))
        });
    }
}

#[test]
#[should_panic(expected = "as Scheduler::counts counts it")]
fn one_that_does_not_say_so_does_not() {
    struct Silent(StrategyScheduler);
    impl Scheduler for Silent {
        fn place(&self, view: &PlacementView<'_>, ctx: &mut Ctx<'_>) -> Placements {
            self.0.place(view, ctx)
        }
    }
    let more = Overcommit { memory: 1_500, ..Overcommit::default() };
    swarm_core::conformance::scheduler::suite(|| {
        Box::new(Silent(StrategyScheduler::default().overcommit(more)))
    });
}

#[test]
fn a_scheduler_that_follows_a_calm_cluster_lets_go_of_tasks_as_they_were() {
    let mut world = World::new();
    world.node("only", |_| {});
    let service = world.service("web", 1, |_| {});
    world.settle();
    let (view, placed) = (world.view(), world.tasks_of(service).remove(0));
    // States that share nothing with each other: nothing but what is held lives on.
    let with = |task: &Arc<Task>| {
        let nodes = view.nodes.iter().cloned().map(Object::from);
        Snapshot::from_objects(view.version(), nodes.chain([Object::from(task.clone())]))
    };
    let in_state = |state| {
        let status = TaskStatus::new(state, world.now, "");
        Arc::new(Task { status, ..Task::clone(&placed) })
    };
    let another = Arc::new(Task { id: world.ids.next(), node_id: None, ..Task::clone(&placed) });
    let mut place = |scheduler: &StrategyScheduler, snapshot: &Snapshot| {
        let mut ctx = Ctx::new(world.now, &mut world.ids, Epoch(1));
        let tasks = [another.clone()];
        let asked = PlacementView { snapshot, service: None, tasks: &tasks };
        scheduler.place(&asked, &mut ctx).placed.len()
    };
    let was = in_state(TaskState::Assigned);
    let before = with(&was);
    let scheduler = StrategyScheduler::default();
    assert_eq!(place(&scheduler, &before), 1);
    let known = Arc::downgrade(&was);
    drop((was, before));
    assert!(known.upgrade().is_some(), "it is kept, to tell what changes");
    let after = with(&in_state(TaskState::Running));
    scheduler.follow(&after);
    assert!(known.upgrade().is_none(), "what has changed is known now");
    assert_eq!(scheduler.check(&after), Ok(()));

    let fresh = StrategyScheduler::default();
    fresh.follow(&after);
    assert_eq!(place(&fresh, &after), 1, "who was never asked has nothing to follow");
}
