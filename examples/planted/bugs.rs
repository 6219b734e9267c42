//! The bugs: what orchestrators have got wrong, Swarm's own history among it.

use std::sync::Arc;

use swarm::core::control::{Ctx, Plan, Planner};
use swarm::core::model::{
    Availability, NodeState, RestartCondition, Service, ServiceId, ServiceMode, Task, TaskState,
    UpdateConfig, UpdateOrder, UpdateState, defaults,
};
use swarm::core::scheduler::Scheduler;
use swarm::core::store::{Change, Object, ObjectRef, Snapshot};
use swarm::core::time::Nanos;
use swarm::net::MemoryNetwork;
use swarm::sched::place::{PREEMPTION_LABEL, PRIORITY_LABEL, StrategyScheduler};
use swarm::sim::Invariant;
use swarm::sim::invariant;
use swarm::sim::meddle::Meddle;

use crate::forgetful::{Forgetful, Missed};
use crate::liar::{Liar, Lie};

/// A bug to plant.
pub(crate) struct Bug {
    /// What is wrong.
    pub(crate) name: &'static str,
    /// Where Swarm had it: `m` is moby/moby, `sk` moby/swarmkit.
    pub(crate) history: &'static str,
    /// Whether three seeds are enough to find it.
    pub(crate) quick: bool,
    /// The planners that lie, by name.
    liars: Vec<(&'static str, Lie)>,
    /// What the scheduler's memory of the nodes misses.
    missed: Option<Missed>,
    /// What the shells do wrong.
    pub(crate) meddle: Meddle,
}

/// What plays, and what watches it.
type World = (Vec<Arc<dyn Planner>>, Vec<Box<dyn Invariant>>);

impl Bug {
    /// This library's planners with the bug in them, and its invariants.
    pub(crate) fn world(&self) -> World {
        let driver = Arc::new(MemoryNetwork::default());
        let memory = Arc::<StrategyScheduler>::default();
        let scheduler: Arc<dyn Scheduler> = match self.missed {
            Some(missed) => Arc::new(Forgetful::new(memory.clone(), missed)),
            None => memory.clone(),
        };
        let planners = swarm::sched::default_planners([driver as _], scheduler);
        let lie = |inner: Arc<dyn Planner>| {
            let lie = self.liars.iter().find(|(name, _)| *name == inner.name());
            lie.map_or(inner.clone(), |(_, lie)| Arc::new(Liar { inner, lie: *lie }) as _)
        };
        let mut invariants = invariant::all();
        invariants.push(invariant::memory_of(memory));
        (planners.into_iter().map(lie).collect(), invariants)
    }
}

fn liar(name: &'static str, planners: &[&'static str], lie: Lie) -> Bug {
    let liars = planners.iter().map(|planner| (*planner, lie)).collect();
    Bug { liars, ..bug(name) }
}

fn forgetful(name: &'static str, missed: Missed) -> Bug {
    Bug { missed: Some(missed), ..bug(name) }
}

/// None yet, of that name.
fn bug(name: &'static str) -> Bug {
    let (liars, meddle) = (Vec::new(), Meddle::default());
    Bug { name, history: "", quick: false, liars, missed: None, meddle }
}

fn meddle(name: &'static str, set: fn(&mut Meddle)) -> Bug {
    let mut meddle = Meddle::default();
    set(&mut meddle);
    Bug { meddle, ..bug(name) }
}

/// Where Swarm had them.
const HISTORY: &[(&str, &str)] = &[
    ("a slot is filled twice", "sk#1054, m#27382"),
    ("one replica too many", "m#33218"),
    ("a global service runs twice on a node", "sk#1054"),
    ("the restart delay is ignored", "sk#3201"),
    ("restart attempts are forgotten", "m#35637"),
    ("an update never looks at slots again", "m#37493"),
    ("a replacement starts before its predecessor has stopped", "m#39028"),
    ("an update goes on after it failed", "m#35564"),
    ("reservations are not looked at", "sk#2998"),
    ("nothing is ever placed", "m#43052"),
    ("addresses of tasks that shall stop are free at once", "m#39028, m#53563"),
    ("a new leader forgets virtual addresses", "sk#2468, sk#2505"),
    ("a new leader forgets published ports", "m#29247"),
    ("every task gets the same address", "m#33402"),
    ("history grows for ever", "m#35637"),
    ("nothing is ever erased", "m#36264"),
    ("a stale epoch can commit", "sk#2091"),
    ("events of the watch are lost", "m#32999"),
    ("a new leader has no patience with nodes", "m#25017"),
    ("an executor says stopped before it is", "m#39028"),
    ("what is attached to no network starts", "m#35466"),
    ("every node gets every secret", "m#28929"),
    ("agents ignore what a complete set does not list", "m#35107, m#24244"),
    ("while an update is paused nothing is done", "dokploy#3810"),
    ("an update never ends", "m#37972"),
    ("ports of hosts are not looked at", "sk#2615"),
    ("addresses of ended tasks stay taken", "m#37338, sk#3230"),
];

/// Those of which three seeds are enough.
const QUICK: &[&str] = &[
    "a slot is filled twice",
    "a job completes once too often",
    "a job runs one task too many at once",
    "restart attempts are forgotten",
    "an update changes one slot too many at once",
    "a replacement starts before its predecessor has stopped",
    "what ends on a node is still counted there",
    "addresses of tasks that shall stop are free at once",
    "a new leader forgets virtual addresses",
    "every task gets the same address",
    "tasks are erased while they run",
    "an executor says stopped before it is",
    "what is attached to no network starts",
    "an acknowledged write is lost",
    "a node speaks for another's tasks",
    "a replica skips an entry",
    "every node gets every secret",
];

/// All of them.
pub(crate) fn all() -> Vec<Bug> {
    let mut bugs = slots();
    bugs.extend(restarts());
    bugs.extend(updates());
    bugs.extend(placement());
    bugs.extend(memory());
    bugs.extend(preemption());
    bugs.extend(addresses());
    bugs.extend(removal());
    bugs.extend(shells());
    for bug in &mut bugs {
        let known = HISTORY.iter().find(|(name, _)| *name == bug.name);
        bug.history = known.map_or("", |(_, history)| history);
        bug.quick = QUICK.contains(&bug.name);
    }
    bugs
}

fn slots() -> Vec<Bug> {
    vec![
        liar("a slot is filled twice", &["replicated"], Lie::Plan(duplicate)),
        liar(
            "one replica too many",
            &["replicated"],
            Lie::Services(|service| replicas(service, 1)),
        ),
        liar(
            "one replica too few",
            &["replicated"],
            Lie::Services(|service| replicas(service, -1)),
        ),
        liar("a global service runs twice on a node", &["global"], Lie::Plan(duplicate)),
        liar(
            "a job completes once too often",
            &["jobs"],
            Lie::Services(|service| job(service, 0, 1)),
        ),
        liar("a job runs one task too many at once", &["jobs"], Lie::Services(|s| job(s, 1, 0))),
        liar(
            "tasks of a node that is down are taken for running",
            &["replicated", "global"],
            Lie::Nodes(|node| node.status.state = NodeState::Ready),
        ),
        liar(
            "a drained node keeps its tasks",
            &["replicated", "global"],
            Lie::Nodes(|node| node.spec.availability = Availability::Active),
        ),
    ]
}

fn restarts() -> Vec<Bug> {
    vec![
        liar("the restart delay is ignored", &["replicated", "global"], Lie::Plan(no_delay)),
        liar(
            "one restart attempt too many",
            &["replicated", "global"],
            Lie::Services(|service| {
                let policy = &mut Arc::make_mut(&mut service.spec.task).restart_policy;
                if let Some(most) = policy.as_mut().and_then(|policy| policy.max_attempts.as_mut())
                {
                    *most += u64::from(*most > 0);
                }
            }),
        ),
        liar(
            "restart attempts are forgotten",
            &["replicated", "global"],
            Lie::Plan(|_, plan, _| created(plan, |task| task.restarts.clear())),
        ),
        liar(
            "what failed is taken for complete",
            &["replicated"],
            Lie::Tasks(|task| {
                if task.status.state == TaskState::Failed {
                    task.status.state = TaskState::Complete;
                }
            }),
        ),
        liar(
            "what shall not be restarted is",
            &["replicated", "global"],
            Lie::Tasks(|task| restart_on(task, RestartCondition::Any)),
        ),
        liar(
            "what shall be restarted is not",
            &["replicated", "global", "jobs"],
            Lie::Tasks(|task| restart_on(task, RestartCondition::None)),
        ),
        liar("what waits is never started", &["replicated", "global"], Lie::Plan(never_started)),
    ]
}

fn updates() -> Vec<Bug> {
    vec![
        liar(
            "an update changes one slot too many at once",
            &["update"],
            Lie::Services(|service| {
                config(service, |c| c.parallelism += u64::from(c.parallelism > 0))
            }),
        ),
        liar(
            "an update starts first where it shall stop first",
            &["update"],
            Lie::Services(|service| config(service, |c| c.order = Some(UpdateOrder::StartFirst))),
        ),
        liar(
            "an update goes on after it failed",
            &["update"],
            Lie::Services(|service| config(service, |config| config.max_failure_ratio = 1.0)),
        ),
        liar(
            "an update never looks at slots again",
            &["update"],
            Lie::Plan(|_, plan, _| plan.changes.clear()),
        ),
        liar(
            "the delay between two slots of an update is ignored",
            &["update"],
            Lie::Services(|service| config(service, |config| config.delay = Nanos::default())),
        ),
        liar("an update never ends", &["update"], Lie::Plan(never_ends)),
        liar("while an update is paused nothing is done", &["replicated"], Lie::Plan(paused)),
        liar(
            "a replacement starts before its predecessor has stopped",
            &["update", "replicated"],
            Lie::Plan(|_, plan, _| {
                created(plan, |task| {
                    task.desired_state = TaskState::Running;
                    task.start_after = None;
                    task.start_after_stop_of = None;
                });
            }),
        ),
    ]
}

fn placement() -> Vec<Bug> {
    vec![
        liar(
            "constraints are not looked at",
            &["place"],
            Lie::Tasks(|task| {
                if let Some(placement) = &mut Arc::make_mut(&mut task.spec).placement {
                    placement.constraints.clear();
                }
            }),
        ),
        liar(
            "reservations are not looked at",
            &["place"],
            Lie::Tasks(|task| Arc::make_mut(&mut task.spec).resources = None),
        ),
        liar(
            "the most replicas on a node are one more",
            &["place"],
            Lie::Tasks(|task| {
                if let Some(placement) = &mut Arc::make_mut(&mut task.spec).placement {
                    placement.max_replicas += u64::from(placement.max_replicas > 0);
                }
            }),
        ),
        liar(
            "platforms are not looked at",
            &["place"],
            Lie::Tasks(|task| {
                if let Some(placement) = &mut Arc::make_mut(&mut task.spec).placement {
                    placement.platforms.clear();
                }
            }),
        ),
        liar(
            "ports of hosts are not looked at",
            &["place"],
            Lie::Tasks(|task| task.endpoint = None),
        ),
        liar(
            "nodes that are down get tasks",
            &["place"],
            Lie::Nodes(|node| node.status.state = NodeState::Ready),
        ),
        liar(
            "drained nodes get tasks",
            &["place"],
            Lie::Nodes(|node| node.spec.availability = Availability::Active),
        ),
        liar(
            "labels that change move nothing",
            &["enforce"],
            Lie::Plan(|_, plan, _| plan.changes.clear()),
        ),
        liar("nothing is ever placed", &["place"], Lie::Plan(|_, plan, _| plan.changes.clear())),
    ]
}

fn memory() -> Vec<Bug> {
    vec![
        forgetful("what ends on a node is still counted there", |old, new| {
            new.status.state.is_terminal() && !old.status.state.is_terminal()
        }),
        forgetful("what shall stop on a node is counted as if it should not", |old, new| {
            let runs = |task: &Task| task.status.state == TaskState::Running;
            runs(old) && runs(new) && old.is_wanted() && !new.is_wanted()
        }),
    ]
}

fn preemption() -> Vec<Bug> {
    vec![
        liar(
            "those that matter more stop for those that matter less",
            &["preempt"],
            Lie::Services(|service| {
                if let Some(label) = service.spec.labels.get_mut(PRIORITY_LABEL) {
                    *label = label.parse().map_or(0, |number: i32| -number).to_string();
                }
            }),
        ),
        liar(
            "more tasks than may are on their way out for others",
            &["preempt"],
            Lie::Cluster(|cluster| {
                if let Some(label) = cluster.spec.labels.get_mut(PREEMPTION_LABEL) {
                    *label = "99".to_owned();
                }
            }),
        ),
        liar(
            "tasks stop for others that are promised nothing",
            &["preempt"],
            Lie::Plan(|_, plan, _| {
                plan.changes.retain(|change| match change {
                    Change::Update(Object::Task(task)) => !task.is_promised(),
                    _ => true,
                });
            }),
        ),
        liar(
            "what is promised to a task is given to others",
            &["place"],
            Lie::Tasks(|task| {
                if task.is_promised() {
                    Arc::make_mut(&mut task.spec).resources = None;
                }
            }),
        ),
        liar(
            "what had to leave makes others leave",
            &["preempt"],
            Lie::Tasks(|task| task.displaced = false),
        ),
    ]
}

fn addresses() -> Vec<Bug> {
    vec![
        liar(
            "addresses of tasks that shall stop are free at once",
            &["allocate"],
            Lie::Tasks(|task| {
                if task.desired_state > TaskState::Complete {
                    task.networks.clear();
                }
            }),
        ),
        liar(
            "a new leader forgets virtual addresses",
            &["allocate"],
            Lie::Services(|service| {
                if let Some(endpoint) = &mut service.endpoint {
                    Arc::make_mut(endpoint).virtual_ips.clear();
                }
            }),
        ),
        liar(
            "a new leader forgets published ports",
            &["allocate"],
            Lie::Services(|service| {
                if let Some(endpoint) = &mut service.endpoint {
                    Arc::make_mut(endpoint).ports.clear();
                }
            }),
        ),
        liar(
            "addresses of ended tasks stay taken",
            &["allocate"],
            Lie::Tasks(|task| task.status.state = task.status.state.min(TaskState::Running)),
        ),
        liar(
            "ports of removed services stay taken",
            &["allocate"],
            Lie::Services(|service| service.pending_delete = false),
        ),
        liar("every task gets the same address", &["allocate"], Lie::Plan(one_address)),
    ]
}

fn removal() -> Vec<Bug> {
    vec![
        liar("tasks are erased while they run", &["reap"], Lie::Plan(erase_at_once)),
        liar(
            "services are erased before their tasks",
            &["reap"],
            Lie::Plan(|view, plan, _| {
                let marked = view.services.iter().filter(|service| service.pending_delete);
                plan.changes = marked.map(|service| Change::remove(service.id)).collect();
            }),
        ),
        liar(
            "history grows for ever",
            &["reap"],
            Lie::Plan(|view, plan, _| keep_history(view, plan)),
        ),
        liar("nothing is ever erased", &["reap"], Lie::Plan(|_, plan, _| plan.changes.clear())),
    ]
}

fn shells() -> Vec<Bug> {
    vec![
        meddle("a stale epoch can commit", |meddle| meddle.no_fence = true),
        meddle("events of the watch are lost", |meddle| meddle.lost_watch_events = 30),
        meddle("a new leader has no patience with nodes", |meddle| meddle.impatient = true),
        meddle("an executor says stopped before it is", |meddle| meddle.stops_nothing = true),
        meddle("what is attached to no network starts", |meddle| meddle.attaches_nothing = true),
        meddle("an acknowledged write is lost", |meddle| meddle.dropped_writes = 10),
        meddle("a node speaks for another's tasks", |meddle| meddle.forged_reports = 5),
        meddle("a replica skips an entry", |meddle| meddle.skipped_entries = 2),
        meddle("every node gets every secret", |meddle| meddle.secrets_for_all = true),
        meddle("agents ignore what a complete set does not list", |meddle| {
            meddle.never_drops = true
        }),
    ]
}

fn replicas(service: &mut Service, by: i64) {
    if let ServiceMode::Replicated(mode) = &mut service.spec.mode {
        mode.replicas = mode.replicas.map(|count| count.saturating_add_signed(by));
    }
}

fn job(service: &mut Service, at_once: u64, in_all: u64) {
    if let ServiceMode::ReplicatedJob(mode) = &mut service.spec.mode {
        mode.max_concurrent = mode.max_concurrent.map(|count| count + at_once);
        mode.total_completions = mode.total_completions.map(|count| count + in_all);
    }
}

fn config(service: &mut Service, edit: fn(&mut UpdateConfig)) {
    edit(service.spec.update_config.get_or_insert_with(defaults::update_config));
    edit(service.spec.rollback_config.get_or_insert_with(defaults::update_config));
}

fn created(plan: &mut Plan, edit: fn(&mut Task)) {
    for change in &mut plan.changes {
        if let Change::Create(Object::Task(task)) = change {
            edit(Arc::make_mut(task));
        }
    }
}

fn duplicate(_: &Snapshot, plan: &mut Plan, ctx: &mut Ctx<'_>) {
    let twice: Vec<Change> = plan
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Create(Object::Task(task)) => {
                Some(Change::create(Task { id: ctx.ids.next(), ..Task::clone(task) }))
            }
            _ => None,
        })
        .collect();
    plan.changes.extend(twice);
}

fn restart_on(task: &mut Task, condition: RestartCondition) {
    let policy = &mut Arc::make_mut(&mut task.spec).restart_policy;
    policy.get_or_insert_default().condition = Some(condition);
}

fn never_started(_: &Snapshot, plan: &mut Plan, _: &mut Ctx<'_>) {
    plan.changes.retain(|change| !matches!(change, Change::Desire(_, TaskState::Running)));
}

fn never_ends(_: &Snapshot, plan: &mut Plan, _: &mut Ctx<'_>) {
    plan.changes.retain(|change| match change {
        Change::Update(Object::Service(service)) => {
            service.update_status.as_ref().is_none_or(|status| status.completed_at.is_none())
        }
        _ => true,
    });
}

/// Tasks of services whose update is paused are left as they are.
fn paused(view: &Snapshot, plan: &mut Plan, _: &mut Ctx<'_>) {
    let is_paused = |service: ServiceId| {
        let status = view.services.get(service).and_then(|it| it.update_status.as_ref());
        status.is_some_and(|status| status.state == UpdateState::Paused)
    };
    plan.changes.retain(|change| {
        let task = match change {
            Change::Create(Object::Task(task)) => Some(task),
            Change::Desire(task, _) => view.tasks.get(*task),
            _ => None,
        };
        task.is_none_or(|task| !is_paused(task.service_id))
    });
}

fn no_delay(_: &Snapshot, plan: &mut Plan, _: &mut Ctx<'_>) {
    created(plan, |task| task.start_after = None);
}

fn one_address(_: &Snapshot, plan: &mut Plan, _: &mut Ctx<'_>) {
    for change in &mut plan.changes {
        if let Change::Update(Object::Task(task)) = change {
            for place in &mut Arc::make_mut(task).networks {
                if let Some(address) = place.addresses.first_mut() {
                    *address = "10.0.1.200/24".to_owned();
                }
            }
        }
    }
}

fn erase_at_once(view: &Snapshot, plan: &mut Plan, _: &mut Ctx<'_>) {
    let removed = view.tasks_to_remove();
    plan.changes = removed.map(|task| Change::remove(task.id)).collect();
}

/// Only what shall be removed is, and nothing for being old.
fn keep_history(view: &Snapshot, plan: &mut Plan) {
    plan.changes.retain(|change| match change {
        Change::Remove(ObjectRef::Task(id), _) => {
            view.tasks.get(*id).is_none_or(|task| task.desired_state == TaskState::Remove)
        }
        _ => true,
    });
}
