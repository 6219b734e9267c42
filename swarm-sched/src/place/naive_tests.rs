//! The scheduler decides as its definition says, whatever it remembers from earlier views.
//!
//! The definition stands here: [`naive`]. It looks at every node for every task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::{Just, ProptestConfig, Strategy as Drawn, any, prop_assert_eq, prop_oneof};
use swarm_core::control::Ctx;
use swarm_core::id::IdSource;
use swarm_core::model::*;
use swarm_core::scheduler::{PlacementView, Scheduler};
use swarm_core::store::{Change, Epoch, Object, Snapshot};
use swarm_core::time::Timestamp;

use super::affinity::Affinities;
use super::constraint::label_of;
use super::failures;
use super::filter::Demand;
use super::load::{NodeLoad, Share, occupies, reservation};
use super::{BinPack, Candidate, FilterScheduler, LeastLoaded, Random, Spread, Strategy};
use crate::world::port;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

/// Each task in turn goes to the best node that passes every filter, in the branch of each
/// preference that has the fewest tasks of the service and such a node at all.
fn naive<S: Strategy>(strategy: &S, view: &Snapshot, tasks: &[Arc<Task>]) -> Vec<Option<NodeId>> {
    let mut loads: Vec<NodeLoad> = view
        .nodes
        .iter()
        .map(|node| {
            let mut load = NodeLoad::empty(node.clone(), super::Overcommit::default());
            for task in view.tasks_on(node.id).filter(|task| occupies(task)) {
                load.change(&Share { task, claims: &task.generic_resources }, 1);
            }
            load
        })
        .collect();
    let mut answer = Vec::new();
    for task in tasks {
        let affinities = Affinities::of(task, view.services.get(task.service_id), view).unwrap();
        let demand = Demand::of(task, view).with(affinities);
        let service = view.services.get(task.service_id).unwrap();
        let bounded = service.spec.labels.get(super::TOPOLOGY_LABEL).map(|text| {
            let (label, skew) = text.split_once(':').unwrap();
            (label, Some(skew.parse().unwrap()))
        });
        let wishes = task.spec.placement.iter().flat_map(|wish| &wish.preferences);
        let wishes = wishes.map(|wish| (&*wish.spread.as_ref().unwrap().descriptor, None));
        let wishes: Vec<_> = bounded.into_iter().chain(wishes).collect();
        let best = if let Some(node) = task.node_id {
            (0..loads.len())
                .find(|at| loads[*at].node.id == node && demand.check(&loads[*at]).is_ok())
        } else {
            let failed: BTreeSet<_> = view
                .tasks_of(task.service_id)
                .filter(|other| other.spec_version == task.spec_version)
                .flat_map(|other| failures::told(other).map(|failure| (other.slot, failure)))
                .collect();
            let failures = |node| failed.iter().filter(|(_, (at, _))| *at == node).count() as u32;
            let score = |at: usize| {
                let (load, demand) = (&loads[at], &demand);
                let failures = failures(load.node.id);
                let score = strategy.score(&Candidate { load, demand, failures });
                (demand.affinities.missed_on(load), score)
            };
            choose(&loads, &demand, (0..loads.len()).collect(), &wishes, &score)
        };
        answer.push(best.map(|at| {
            let wanted = reservation(task).map_or(&[][..], |wanted| &wanted.generic);
            let claims = loads[at].choose_all(wanted).unwrap();
            loads[at].change(&Share { task, claims: &claims }, 1);
            loads[at].node.id
        }));
    }
    answer
}

fn choose<K: Ord>(
    loads: &[NodeLoad],
    demand: &Demand<'_>,
    members: Vec<usize>,
    wishes: &[(&str, Option<u64>)],
    score: &dyn Fn(usize) -> K,
) -> Option<usize> {
    let Some(((wish, skew), rest)) = wishes.split_first() else {
        let suit = members.into_iter().filter(|at| demand.check(&loads[*at]).is_ok());
        return suit.min_by_key(|at| (score(*at), *at));
    };
    let mut branches: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for at in members {
        branches.entry(label_of(&loads[at].node, wish).unwrap_or("")).or_default().push(at);
    }
    let tasks = |members: &[usize]| -> u64 {
        members.iter().map(|at| loads[*at].active_of(demand.service)).sum()
    };
    let mut branches: Vec<_> =
        branches.into_iter().map(|(value, at)| (tasks(&at), value, at)).collect();
    branches.sort();
    let suits = |at: &[usize]| at.iter().any(|at| demand.suits(&loads[*at]));
    let fewest = branches.iter().find(|(_, _, at)| suits(at)).map_or(0, |(tasks, ..)| *tasks);
    let within = |tasks: u64| skew.is_none_or(|skew| tasks + 1 - fewest.min(tasks) <= skew);
    let mut allowed = branches.into_iter().take_while(|(tasks, ..)| within(*tasks));
    allowed.find_map(|(_, _, at)| choose(loads, demand, at, rest, score))
}

#[derive(Clone, Debug)]
enum Happens {
    Node { zone: usize, disk: bool, memory: i64, gpus: usize },
    Edit { node: usize, zone: usize, ready: bool, memory: i64 },
    EraseNode(usize),
    Tasks { service: usize, count: usize, node: Option<usize> },
    Fails { service: usize, node: usize, times: usize },
    Status { task: usize, state: usize },
    Desire { task: usize, state: usize },
    EraseTask(usize),
    Place { service: usize, write: bool },
}

fn happens() -> impl Drawn<Value = Happens> {
    use Happens::*;
    let index = any::<usize>;
    prop_oneof![
        3 => (0..4_usize, any::<bool>(), 0..40_i64, 0..3_usize)
            .prop_map(|(zone, disk, memory, gpus)| Node { zone, disk, memory, gpus }),
        1 => (index(), 0..4_usize, any::<bool>(), 0..40_i64)
            .prop_map(|(node, zone, ready, memory)| Edit { node, zone, ready, memory }),
        1 => index().prop_map(EraseNode),
        4 => (0..SERVICES, 1..6_usize, proptest::option::weighted(0.1, index()))
            .prop_map(|(service, count, node)| Tasks { service, count, node }),
        1 => (0..SERVICES, index(), 3..7_usize)
            .prop_map(|(service, node, times)| Fails { service, node, times }),
        2 => (index(), 4..14_usize).prop_map(|(task, state)| Status { task, state }),
        1 => (index(), 0..14_usize).prop_map(|(task, state)| Desire { task, state }),
        1 => index().prop_map(EraseTask),
        6 => (0..SERVICES, prop_oneof![4 => Just(true), 1 => Just(false)])
            .prop_map(|(service, write)| Place { service, write }),
    ]
}

const SERVICES: usize = 12;

/// One service for each thing that a filter or a preference looks at.
fn spec(service: usize) -> TaskSpec {
    let mut spec = TaskSpec::default();
    let reserved = spec.resources.get_or_insert_default().reservations.get_or_insert_default();
    let placement = spec.placement.get_or_insert_default();
    let mut prefer = |label: &str| {
        let mut wish = PlacementPreference::default();
        wish.spread.get_or_insert_default().descriptor = format!("node.labels.{label}");
        placement.preferences.push(wish);
    };
    match service {
        1 => reserved.memory_bytes = 7,
        2 => prefer("zone"),
        3 => {
            prefer("zone");
            prefer("disk");
            reserved.memory_bytes = 3;
        }
        4 => {
            prefer("name");
            placement.max_replicas = 2;
        }
        5 => placement.constraints.push("node.labels.disk!=yes".to_owned()),
        6 => {
            let discrete = DiscreteResource { kind: "gpu".into(), value: 1, ..Default::default() };
            reserved
                .generic
                .push(GenericResource { discrete: Some(discrete), ..Default::default() });
        }
        7 => {
            placement.max_replicas = 1;
            placement.constraints.push("node.labels.zone==1".to_owned());
        }
        11 => {
            prefer("disk");
            reserved.memory_bytes = 4;
        }
        _ => {}
    }
    spec
}

/// Services differ in labels as well, those that their tasks' specifications cannot say.
fn service(number: usize, id: ServiceId) -> Service {
    let mut service = Service { id, ..Service::default() };
    service.spec.name = format!("s{number}");
    let label = match number {
        8 => Some((super::AFFINITY_LABEL, "service!=s8")),
        9 => Some((super::AFFINITY_LABEL, "service==~s1; node.labels.disk!=yes")),
        10 => Some((super::TOPOLOGY_LABEL, "node.labels.zone:1")),
        11 => Some((super::TOPOLOGY_LABEL, "node.labels.zone:2")),
        _ => None,
    };
    let labels = label.map(|(name, value)| (name.to_owned(), value.to_owned()));
    service.spec.labels.extend(labels);
    service
}

struct World {
    view: Snapshot,
    ids: IdSource,
    services: Vec<ServiceId>,
    named: usize,
}

impl World {
    fn new() -> Self {
        let mut ids = IdSource::seeded(11);
        let services: Vec<ServiceId> = (0..SERVICES).map(|_| ids.next()).collect();
        let mut view = Snapshot::default();
        for (number, id) in services.iter().enumerate() {
            view.stage(Change::create(service(number, *id)), NOW).unwrap();
        }
        Self { view, ids, services, named: 0 }
    }

    fn stage(&mut self, change: impl Into<Option<Change>>) {
        if let Some(change) = change.into() {
            // What cannot be (a state after a later one) does not happen.
            let _ = self.view.stage(change, NOW);
        }
    }

    fn node_at(&self, index: usize) -> Option<Node> {
        let index = index.checked_rem(self.view.nodes.len())?;
        self.view.nodes.iter().nth(index).map(|node| Node::clone(node))
    }

    fn task_at(&self, index: usize) -> Option<TaskId> {
        let index = index.checked_rem(self.view.tasks.len())?;
        self.view.tasks.iter().nth(index).map(|task| task.id)
    }

    /// Does what happens; for a placement, what is asked.
    fn play(&mut self, happens: &Happens) -> Option<(Vec<Arc<Task>>, bool)> {
        match *happens {
            Happens::Node { zone, disk, memory, gpus } => self.node(zone, disk, memory, gpus),
            Happens::Edit { node, zone, ready, memory } => {
                let change = self.node_at(node).map(|mut node| {
                    node.spec.labels.insert("zone".to_owned(), zone.to_string());
                    node.status.state = if ready { NodeState::Ready } else { NodeState::Down };
                    node.description.get_or_insert_default().resources.memory_bytes = memory;
                    Change::update(node)
                });
                self.stage(change);
            }
            Happens::EraseNode(node) => {
                self.stage(self.node_at(node).map(|node| Change::remove(node.id)))
            }
            Happens::Tasks { service, count, node } => {
                let node = node.and_then(|node| self.node_at(node)).map(|node| node.id);
                (0..count).for_each(|_| self.task(service, node));
            }
            Happens::Fails { service, node, times } => self.fails(service, node, times),
            Happens::Status { task, state } => self.stage(self.task_at(task).map(|task| {
                let status = TaskStatus::new(TaskState::ALL[state], NOW, "");
                Change::Advance(task, Box::new(status))
            })),
            Happens::Desire { task, state } => {
                self.stage(
                    self.task_at(task).map(|task| Change::Desire(task, TaskState::ALL[state])),
                );
            }
            Happens::EraseTask(task) => self.stage(self.task_at(task).map(Change::remove)),
            Happens::Place { service, write } => {
                let waits =
                    |task: &&Arc<Task>| task.status.state == TaskState::Pending && task.is_wanted();
                let mut tasks: Vec<_> =
                    self.view.tasks_of(self.services[service]).filter(waits).cloned().collect();
                // Bound ones first, as the scheduler has it.
                tasks.sort_by_key(|task| (task.node_id.is_none(), task.id));
                return (!tasks.is_empty()).then_some((tasks, write));
            }
        }
        None
    }

    fn node(&mut self, zone: usize, disk: bool, memory: i64, gpus: usize) {
        self.named += 1;
        let mut node = Node { id: self.ids.next(), ..Node::default() };
        node.status.state = NodeState::Ready;
        if zone > 0 {
            node.spec.labels.insert("zone".to_owned(), zone.to_string());
        }
        if disk {
            node.spec.labels.insert("disk".to_owned(), "yes".to_owned());
        }
        // More values than tests have sets for.
        node.spec.labels.insert("name".to_owned(), format!("{:03}", self.named / 2));
        let description = node.description.get_or_insert_default();
        description.engine.labels.insert("load".to_owned(), (memory % 5).to_string());
        let resources = &mut description.resources;
        resources.memory_bytes = memory;
        let gpu = |number| {
            let (kind, value) = ("gpu".to_owned(), format!("G{number}"));
            let named = NamedResource { kind, value, ..NamedResource::default() };
            GenericResource { named: Some(named), ..GenericResource::default() }
        };
        resources.generic = (0..gpus).map(gpu).collect();
        self.stage(Change::create(node));
    }

    /// One slot in a crash loop, which keeps its last task alone.
    fn fails(&mut self, service: usize, node: usize, times: usize) {
        let Some(node) = self.node_at(node) else { return };
        let mut last = Vec::new();
        for time in 0..times {
            let mut task = Task { id: self.ids.next(), ..Task::default() };
            (task.service_id, task.slot) = (self.services[service], self.view.tasks.len() as u64);
            task.failures = failures::inherited(&last, task.spec_version, NOW);
            task.node_id = Some(node.id);
            task.spec = spec(service).into();
            let at = NOW.before(std::time::Duration::from_secs(time as u64));
            task.status = TaskStatus::new(TaskState::Failed, at, "");
            task.desired_state = TaskState::Shutdown;
            last = vec![Arc::new(task.clone())];
            if time == times - 1 {
                self.stage(Change::create(task));
            }
        }
    }

    fn task(&mut self, service: usize, node_id: Option<NodeId>) {
        let mut task = Task { id: self.ids.next(), node_id, ..Task::default() };
        task.service_id = self.services[service];
        task.status.state = TaskState::Pending;
        task.desired_state = TaskState::Running;
        task.spec = spec(service).into();
        if service == 0 {
            let ports = vec![port(80, 8080, PublishMode::Host)];
            task.endpoint = Some(Endpoint { ports, ..Endpoint::default() }.into());
        }
        self.stage(Change::create(task));
    }

    fn write(&mut self, placed: &[swarm_core::scheduler::Placed]) {
        for placed in placed {
            let mut task = Task::clone(self.view.tasks.get(placed.task).unwrap());
            task.node_id = Some(placed.node);
            task.generic_resources.clone_from(&placed.generic);
            task.status.state = TaskState::Assigned;
            self.stage(Change::Update(Object::from(task)));
        }
    }
}

fn holds<S: Strategy + Default>(
    history: &[Happens],
) -> Result<(), proptest::test_runner::TestCaseError> {
    let mut world = World::new();
    let scheduler = FilterScheduler::<S>::default();
    for happens in history {
        let Some((tasks, write)) = world.play(happens) else { continue };
        let view = world.view.clone();
        let mut ctx = Ctx { now: NOW, ids: &mut world.ids, epoch: Epoch(1) };
        let asked = PlacementView { snapshot: &view, service: None, tasks: &tasks };
        let answer = scheduler.place(&asked, &mut ctx);
        let expected = naive(&S::default(), &view, &tasks);
        let placed: BTreeMap<_, _> = answer.placed.iter().map(|it| (it.task, it.node)).collect();
        let got: Vec<_> = tasks.iter().map(|task| placed.get(&task.id).copied()).collect();
        prop_assert_eq!(got, expected);
        prop_assert_eq!(answer.placed.len() + answer.refused.len(), tasks.len());
        let mut memory = scheduler.memory.lock().unwrap();
        memory.loads.follow(&view, &view);
        for seat in 0..memory.loads.seats() {
            proptest::prop_assert!(memory.loads.is_right(seat, &view));
        }
        drop(memory);
        if write {
            world.write(&answer.placed);
        }
    }
    Ok(())
}

proptest::proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn spread_is_what_it_says(history in proptest::collection::vec(happens(), 0..60)) {
        holds::<Spread>(&history)?;
    }

    #[test]
    fn so_is_binpack(history in proptest::collection::vec(happens(), 0..60)) {
        holds::<BinPack>(&history)?;
    }

    #[test]
    fn so_is_random(history in proptest::collection::vec(happens(), 0..60)) {
        holds::<Random>(&history)?;
    }

    #[test]
    fn so_is_least_loaded(history in proptest::collection::vec(happens(), 0..60)) {
        holds::<LeastLoaded>(&history)?;
    }
}
