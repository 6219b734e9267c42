//! What a service may choose: its strategy, its bounds, its neighbours.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_core::control::Ctx;
use swarm_core::model::*;
use swarm_core::scheduler::{PlacementView, Scheduler};
use swarm_core::store::Epoch;

use super::{FilterScheduler, Overcommit, Random, Spread, StrategyScheduler};
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

fn ask(
    world: &mut World,
    scheduler: &dyn Scheduler,
    service: ServiceId,
) -> BTreeMap<NodeId, usize> {
    let (view, tasks) = (world.view(), world.tasks_of(service));
    let mut ctx = Ctx { now: world.now, ids: &mut world.ids, epoch: Epoch(1) };
    let asked =
        PlacementView { snapshot: &view, service: view.services.get(service), tasks: &tasks };
    let mut counts = BTreeMap::new();
    for placed in scheduler.place(&asked, &mut ctx).placed {
        *counts.entry(placed.node).or_default() += 1;
    }
    counts
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
