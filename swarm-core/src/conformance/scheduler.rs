//! The suite of [`Scheduler`]: its contract on clusters made for each filter, and on many that
//! seeds made up. It does not say which suitable node is the best; that is the scheduler's own. What
//! a node has is what the scheduler says that it counts ([`Scheduler::counts`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::control::Ctx;
use crate::id::IdSource;
use crate::model::{
    Availability, Endpoint, EnginePlugin, MountType, Node, NodeId, NodeState, Placement, Platform,
    PortConfig, PublishMode, Resources, Service, Task, TaskId, TaskSpec, TaskState, TaskStatus,
    Version,
};
use crate::scheduler::{Overcommit, PlacementView, Placements, Scheduler};
use crate::store::{Change, Epoch, Snapshot};
use crate::time::Timestamp;

/// Clusters that seeds make up.
const SEEDS: u64 = 64;
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// Runs the suite. `make` returns a scheduler that has seen nothing yet; it is called many times.
///
/// # Panics
/// With a sentence that names the promise that the scheduler broke.
pub fn suite(make: impl Fn() -> Box<dyn Scheduler>) {
    nothing_asked_nothing_answered(make().as_ref());
    every_filter_is_respected(make().as_ref());
    reservations_add_up(make().as_ref());
    a_host_port_is_given_once(make().as_ref());
    max_replicas_counts_what_runs(make().as_ref());
    a_bound_task_goes_nowhere_else(make().as_ref());
    let old_hand = make();
    for seed in 0..SEEDS {
        let case = Case::random(seed);
        // Every other time it has heard of another cluster since.
        if seed % 2 == 1 {
            old_hand.follow(&Case::random(seed + SEEDS).view);
        }
        let answer = case.ask(old_hand.as_ref(), seed);
        case.check(old_hand.as_ref(), &answer);
        let fresh = case.ask(make().as_ref(), seed);
        assert_eq!(
            answer, fresh,
            "what a scheduler was asked or told before must not change its answer"
        );
    }
}

/// One question to a scheduler.
#[derive(Default)]
struct Case {
    view: Snapshot,
    service: Option<Arc<Service>>,
    asked: Vec<Arc<Task>>,
}

fn node(ids: &mut IdSource) -> Node {
    let mut node = Node { id: ids.next(), ..Node::default() };
    node.status.state = NodeState::Ready;
    let description = node.description.get_or_insert_default();
    description.platform =
        Platform { architecture: "x86_64".into(), os: "linux".into(), ..Platform::default() };
    description.resources.nano_cpus = 4_000;
    description.resources.memory_bytes = 4_000;
    let (kind, name) = ("Volume".to_owned(), "local".to_owned());
    description.engine.plugins.push(EnginePlugin { kind, name, ..EnginePlugin::default() });
    node
}

impl Case {
    /// So many tasks that wait, on these nodes.
    fn new(
        ids: &mut IdSource,
        nodes: impl IntoIterator<Item = Node>,
        spec: TaskSpec,
        tasks: u64,
    ) -> Self {
        let mut case = Self::default();
        let mut service = Service { id: ids.next(), ..Service::default() };
        service.spec.name = "web".to_owned();
        service.spec.task = Arc::new(spec);
        case.stage(Change::create(service.clone()));
        case.service = Some(Arc::new(service));
        nodes.into_iter().for_each(|node| case.stage(Change::create(node)));
        for slot in 1..=tasks {
            case.task(ids, slot, |_| {});
        }
        case
    }

    fn stage(&mut self, change: Change) {
        self.view.stage(change, NOW).expect("the suite's own writes are legal");
    }

    /// A task of the service: one that waits, unless `edit` says that it runs.
    fn task(&mut self, ids: &mut IdSource, slot: u64, edit: impl FnOnce(&mut Task)) -> TaskId {
        let service = self.service.as_ref().expect("the case has a service");
        let mut task = Task {
            id: ids.next(),
            service_id: service.id,
            slot,
            spec: service.spec.task.clone(),
            spec_version: Version(1),
            desired_state: TaskState::Running,
            status: TaskStatus::new(TaskState::Pending, NOW, "pending task scheduling"),
            ..Task::default()
        };
        edit(&mut task);
        let id = task.id;
        self.stage(Change::create(task));
        let stored = self.view.tasks.get(id).expect("it was just written").clone();
        if stored.status.state == TaskState::Pending {
            self.asked.push(stored);
        }
        id
    }

    fn ask(&self, scheduler: &dyn Scheduler, seed: u64) -> Placements {
        let mut ids = IdSource::seeded(seed);
        let mut ctx = Ctx::new(NOW, &mut ids, Epoch(1));
        let view = PlacementView {
            snapshot: &self.view,
            service: self.service.as_ref(),
            tasks: &self.asked,
        };
        scheduler.place(&view, &mut ctx)
    }

    /// The promises that hold for every answer.
    fn check(&self, scheduler: &dyn Scheduler, answer: &Placements) {
        let mut answered: Vec<TaskId> = answer.placed.iter().map(|placed| placed.task).collect();
        answered.extend(answer.refused.iter().map(|refused| refused.task));
        answered.sort();
        let mut asked: Vec<TaskId> = self.asked.iter().map(|task| task.id).collect();
        asked.sort();
        assert_eq!(answered, asked, "every task that was asked about gets exactly one answer");
        for refused in &answer.refused {
            assert!(!refused.why.is_empty(), "a refusal must say why");
        }
        for placed in &answer.placed {
            let Some(node) = self.view.nodes.get(placed.node) else {
                panic!("a task was placed on a node that does not exist: {}", placed.node);
            };
            let takes = node.status.state == NodeState::Ready
                && node.spec.availability == Availability::Active;
            assert!(takes, "a task was placed on a node that takes none: {:?}", node.status.state);
            let task = self.view.tasks.get(placed.task).expect("it was asked about");
            let stays = task.node_id.is_none_or(|node| node == placed.node);
            assert!(stays, "a task that had a node was placed on another");
        }
        self.check_totals(scheduler.counts(), answer);
    }

    /// No node carries more than it can, what it carried before included.
    fn check_totals(&self, counts: Overcommit, answer: &Placements) {
        let mut carried: BTreeMap<NodeId, Vec<&Arc<Task>>> = BTreeMap::new();
        for task in self.view.tasks.iter() {
            let runs = (TaskState::Assigned..=TaskState::Running).contains(&task.status.state);
            if let (true, Some(node)) = (runs, task.node_id) {
                carried.entry(node).or_default().push(task);
            }
        }
        let before: BTreeMap<NodeId, usize> =
            carried.iter().map(|(node, tasks)| (*node, tasks.len())).collect();
        for placed in &answer.placed {
            let task = self.view.tasks.get(placed.task).expect("it was asked about");
            carried.entry(placed.node).or_default().push(task);
        }
        for (node, tasks) in carried {
            // What was there before the decision is none of the scheduler's doing.
            if tasks.len() > before.get(&node).copied().unwrap_or(0) {
                let node = self.view.nodes.get(node).expect("checked");
                check_node(node, counts, &tasks);
            }
        }
    }
}

fn check_node(node: &Node, counts: Overcommit, tasks: &[&Arc<Task>]) {
    let reserved = |amount: fn(&Resources) -> i64| -> i64 {
        let requirements = tasks.iter().filter_map(|task| task.spec.resources.as_ref());
        requirements.filter_map(|all| all.reservations.as_ref()).map(amount).sum()
    };
    let total = node.description.as_ref().map(|node| node.resources.clone()).unwrap_or_default();
    let fits = reserved(|amount| amount.memory_bytes) <= counts.memory_of(total.memory_bytes)
        && reserved(|amount| amount.nano_cpus) <= counts.cpus_of(total.nano_cpus);
    assert!(
        fits,
        "the reservations of a node's tasks must fit in what it has, as Scheduler::counts counts it"
    );
    let mut ports = BTreeSet::new();
    for port in tasks.iter().flat_map(|task| &task.endpoint).flat_map(|endpoint| &endpoint.ports) {
        let fixed = port.publish_mode == PublishMode::Host && port.published_port != 0;
        let free = !fixed || ports.insert((port.protocol, port.published_port));
        assert!(free, "two tasks of one node must not have the same host port");
    }
    let bound = |task: &Task| task.spec.placement.as_ref().map_or(0, |wish| wish.max_replicas);
    let active: Vec<_> =
        tasks.iter().filter(|task| task.desired_state <= TaskState::Complete).collect();
    for task in &active {
        let same = active.iter().filter(|other| other.service_id == task.service_id).count();
        let within = bound(task) == 0 || u64::try_from(same).is_ok_and(|same| same <= bound(task));
        assert!(within, "a node must not have more tasks of a service than max replicas allows");
    }
}

fn reserving(memory: i64, cpus: i64) -> TaskSpec {
    let mut spec = TaskSpec::default();
    let resources = spec.resources.get_or_insert_default();
    let reserved = resources.reservations.get_or_insert_default();
    (reserved.memory_bytes, reserved.nano_cpus) = (memory, cpus);
    spec
}

fn placed_with(edit: impl FnOnce(&mut Placement)) -> TaskSpec {
    let mut spec = TaskSpec::default();
    edit(spec.placement.get_or_insert_default());
    spec
}

fn nothing_asked_nothing_answered(scheduler: &dyn Scheduler) {
    let answer = Case::default().ask(scheduler, 1);
    assert_eq!(answer, Placements::default(), "without tasks there is nothing to answer");
}

/// For each filter a node that passes it and one that does not: everything goes to the first.
fn every_filter_is_respected(scheduler: &dyn Scheduler) {
    type Edit = fn(&mut Node);
    let constrained = placed_with(|wish| wish.constraints.push("node.labels.a == b".to_owned()));
    let platform = placed_with(|wish| {
        let (architecture, os) = ("amd64".to_owned(), "linux".to_owned());
        wish.platforms.push(Platform { architecture, os, ..Platform::default() });
    });
    let mut plugin = TaskSpec::default();
    let mut mount = crate::model::Mount { kind: MountType::Volume, ..Default::default() };
    let options = mount.volume.get_or_insert_default();
    options.driver_config.get_or_insert_default().name = "local-but-faster".to_owned();
    plugin.container.get_or_insert_default().mounts.push(mount);
    let unchanged: Edit = |_| {};
    let label: Edit = |node| drop(node.spec.labels.insert("a".into(), "b".into()));
    let faster: Edit = |node| {
        let (kind, name) = ("Volume".to_owned(), "local-but-faster".to_owned());
        let engine = &mut node.description.as_mut().expect("described").engine;
        engine.plugins.push(EnginePlugin { kind, name, ..EnginePlugin::default() });
    };
    let other_chip: Edit =
        |node| node.description.as_mut().expect("described").platform.architecture = "arm64".into();
    let more = scheduler.counts().memory_of(999) + 1;
    let small: Edit =
        |node| node.description.as_mut().expect("described").resources.memory_bytes = 999;
    let cases: [(&str, TaskSpec, Edit, Edit); 8] = [
        ("a node that is down", TaskSpec::default(), unchanged, |n| {
            n.status.state = NodeState::Down
        }),
        ("an unknown node", TaskSpec::default(), unchanged, |n| {
            n.status.state = NodeState::Unknown
        }),
        ("a paused node", TaskSpec::default(), unchanged, |n| {
            n.spec.availability = Availability::Pause
        }),
        ("a drained node", TaskSpec::default(), unchanged, |n| {
            n.spec.availability = Availability::Drain
        }),
        ("a node without the memory", reserving(more, 0), unchanged, small),
        ("a node without the plugin", plugin, faster, unchanged),
        ("a node that fails a constraint", constrained, label, unchanged),
        ("a node of another platform", platform, unchanged, other_chip),
    ];
    for (what, spec, suits, does_not) in cases {
        let mut ids = IdSource::seeded(7);
        let (mut good, mut bad) = (node(&mut ids), node(&mut ids));
        suits(&mut good);
        does_not(&mut bad);
        let (good, bad_id) = (good, bad.id);
        let case = Case::new(&mut ids, [good, bad], spec, 3);
        let answer = case.ask(scheduler, 1);
        case.check(scheduler, &answer);
        assert_eq!(answer.placed.len(), 3, "the suitable node takes the tasks, beside {what}");
        let strays = answer.placed.iter().any(|placed| placed.node == bad_id);
        assert!(!strays, "a task was placed on {what}");
    }
}

fn reservations_add_up(scheduler: &dyn Scheduler) {
    let counts = scheduler.counts();
    for quarter in [reserving(counts.memory_of(1_000), 0), reserving(0, counts.cpus_of(1_000))] {
        a_quarter_fits_three_times_more(scheduler, quarter);
    }
}

/// Tasks that reserve a quarter of what counts of the node, one of which runs.
fn a_quarter_fits_three_times_more(scheduler: &dyn Scheduler, quarter: TaskSpec) {
    let mut ids = IdSource::seeded(8);
    let only = node(&mut ids);
    let on = only.id;
    let mut case = Case::new(&mut ids, [only], quarter, 5);
    // What is told to stop holds its share until its agent has confirmed the stop.
    case.task(&mut ids, 9, |task| {
        task.node_id = Some(on);
        task.status.state = TaskState::Running;
        task.desired_state = TaskState::Shutdown;
    });
    case.task(&mut ids, 10, |task| {
        task.node_id = Some(on);
        task.status.state = TaskState::Shutdown;
    });
    let answer = case.ask(scheduler, 1);
    case.check(scheduler, &answer);
    assert_eq!(answer.placed.len(), 3, "three fit beside the one that still runs");
}

fn a_host_port_is_given_once(scheduler: &dyn Scheduler) {
    let mut ids = IdSource::seeded(9);
    let nodes = [node(&mut ids), node(&mut ids)];
    let mut case = Case::new(&mut ids, nodes, TaskSpec::default(), 0);
    let ports = vec![PortConfig {
        target_port: 80,
        published_port: 8080,
        publish_mode: PublishMode::Host,
        ..PortConfig::default()
    }];
    let endpoint = Arc::new(Endpoint { ports, ..Endpoint::default() });
    for slot in 1..=3 {
        case.task(&mut ids, slot, |task| task.endpoint = Some(endpoint.clone()));
    }
    let answer = case.ask(scheduler, 1);
    case.check(scheduler, &answer);
    assert_eq!(answer.placed.len(), 2, "one task on each node can have the port");
}

fn max_replicas_counts_what_runs(scheduler: &dyn Scheduler) {
    let mut ids = IdSource::seeded(10);
    let nodes = [node(&mut ids), node(&mut ids)];
    let on = nodes[0].id;
    let mut case = Case::new(&mut ids, nodes, placed_with(|wish| wish.max_replicas = 2), 5);
    case.task(&mut ids, 9, |task| {
        task.node_id = Some(on);
        task.status.state = TaskState::Running;
    });
    let answer = case.ask(scheduler, 1);
    case.check(scheduler, &answer);
    assert_eq!(answer.placed.len(), 3, "one beside the task that runs, two on the other node");
}

fn a_bound_task_goes_nowhere_else(scheduler: &dyn Scheduler) {
    let mut ids = IdSource::seeded(11);
    let (free, mut full) = (node(&mut ids), node(&mut ids));
    full.spec.availability = Availability::Pause;
    let (free_id, full_id) = (free.id, full.id);
    let mut case = Case::new(&mut ids, [free, full], TaskSpec::default(), 0);
    let stays = case.task(&mut ids, 0, |task| task.node_id = Some(free_id));
    let waits = case.task(&mut ids, 0, |task| task.node_id = Some(full_id));
    let lost = case.task(&mut ids, 0, |task| task.node_id = Some(NodeId::MAX));
    let answer = case.ask(scheduler, 1);
    case.check(scheduler, &answer);
    let placed: Vec<_> = answer.placed.iter().map(|placed| placed.task).collect();
    assert_eq!(placed, [stays], "only the task whose node takes it is placed");
    let refused: BTreeSet<_> = answer.refused.iter().map(|refused| refused.task).collect();
    assert_eq!(refused, BTreeSet::from([waits, lost]), "the others are refused");
}

impl Case {
    /// A cluster of all sorts, in which not everything fits.
    fn random(seed: u64) -> Self {
        let mut ids = IdSource::seeded(seed);
        let nodes: Vec<Node> = (0..ids.below(12)).map(|_| random_node(&mut ids)).collect();
        let known: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
        let mut spec = reserving(ids.below(1_500).cast_signed(), 0);
        spec.placement.get_or_insert_default().max_replicas = ids.below(4);
        let tasks = ids.below(20);
        let mut case = Self::new(&mut ids, nodes, spec, tasks);
        let states = [TaskState::Assigned, TaskState::Running, TaskState::Failed];
        for slot in 0..ids.below(10) {
            let Some(on) = pick(&mut ids, &known) else { break };
            let (state, stops) = (states[ids.below(3) as usize], ids.below(3) == 0);
            case.task(&mut ids, 100 + slot, |task| {
                task.node_id = Some(on);
                task.status.state = state;
                if stops {
                    task.desired_state = TaskState::Shutdown;
                }
            });
        }
        case
    }
}

fn random_node(ids: &mut IdSource) -> Node {
    let mut node = node(ids);
    match ids.below(8) {
        0 => node.status.state = NodeState::Down,
        1 => node.spec.availability = Availability::Drain,
        2 => node.description = None,
        _ => {}
    }
    if let Some(description) = &mut node.description {
        description.resources.memory_bytes = ids.below(5_000).cast_signed();
    }
    node
}

fn pick<T: Copy>(ids: &mut IdSource, from: &[T]) -> Option<T> {
    let len = u64::try_from(from.len()).ok().filter(|len| *len > 0)?;
    usize::try_from(ids.below(len)).ok().map(|index| from[index])
}
