//! The whole loop at size: from specifications to assigned tasks, and what one change costs then.
//!
//! Every planner of a manager, the controller and the store in memory, on one thread, with no
//! pause between them. One row after another on the same cluster:
//!
//! 1. `fill`: services are there, tasks are not; ends when every task is assigned and committed. Then
//!    every task runs, as agents would report it.
//! 2. `new leader`: a new controller, with new planners and no caches, looks at everything once; `its
//!    first placement`, for a service that grows.
//! 3. `a task fails`, `a service grows by 10`, `a node is lost`: from the event's commit until
//!    nothing is left to do. `memory` and its peak are of the process until then.
//! 4. On a cluster of its own, `decide`: pending tasks of these services, each service asked for once;
//!    `stage`: what was decided, shown to the next; `write`: one commit for each 2,000 tasks.
//!
//! Times are processor time of this thread, which on a shared machine varies less than wall time.
//! Each row is a function of its own in [`rows`], so that a profile tells them apart:
//! `scripts/instructions` counts the instructions of each.
//!
//! `cargo bench -p swarm-sched --bench reconcile -- NODES SERVICES REPLICAS`; without arguments
//! 1,000 nodes, 100 services, 100 replicas. With `count` it does not look at the clock.

// The rules of the crate whose bench this is, that time is an argument, are for decisions.
#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::{Controller, Ctx, SWEEP_EVERY};
use swarm_core::id::IdSource;
use swarm_core::model::{
    Node, NodeId, NodeState, Service, ServiceId, ServiceMode, Task, TaskId, TaskState, TaskStatus,
};
use swarm_core::scheduler::{PlacementView, Placements, Scheduler as _};
use swarm_core::store::{Batch, Change, Epoch, MemoryStore, Snapshot, Store, Watch};
use swarm_core::time::Timestamp;
use swarm_sched::default_planners;
use swarm_sched::place::SpreadScheduler;

const START: Timestamp = Timestamp::from_secs(1_700_000_000);
/// How often each event of the steady state is played.
const EVENTS: usize = 20;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    let (nodes, services, replicas) = match numbers[..] {
        [nodes, services, replicas, ..] => (nodes, services, replicas),
        _ => (1_000, 100, 100),
    };
    let tasks = services * replicas;
    println!("{nodes} nodes, {services} services of {replicas} tasks: {tasks} tasks");
    let empty = memory("VmRSS");
    let mut cluster = Cluster::with(nodes, services, replicas as u64);
    let report = |when: &str| {
        let (now, peak) = (memory("VmRSS") - empty, memory("VmHWM") - empty);
        let each = |bytes: usize| format!("{:>5} MiB, {} bytes a task", bytes >> 20, bytes / tasks);
        println!("{:24} {}; at most {}", format!("memory {when}"), each(now), each(peak));
    };
    report("before");
    let mut commits = 0;
    let took = rows::fill(&mut || commits = cluster.settle());
    assert_eq!(cluster.assigned(), tasks, "every task must have found a node");
    println!("{:24} {:>10} {commits} commits, {}", "fill", show(took), rate(tasks, took));
    report("filled");
    cluster.run_all();
    cluster.settle();
    cluster.now = cluster.now + Duration::from_secs(600);
    cluster.controller.sweep(&cluster.store.snapshot());
    cluster.settle();
    report("running");
    let took = rows::new_leader(&mut || {
        cluster.new_leader();
        commits = cluster.settle();
    });
    println!("{:24} {:>10} {commits} commits", "new leader", show(took));
    // Its scheduler adds up what every node carries when it is asked for the first time.
    Cluster::grow(&mut cluster, 0);
    let took = rows::first_placement(&mut || _ = cluster.settle());
    println!("{:24} {:>10}", "its first placement", show(took));
    cluster.row("a task fails", rows::a_task_fails, Cluster::fail);
    cluster.row("a service grows by 10", rows::a_service_grows, Cluster::grow);
    cluster.row("a node is lost", rows::a_node_is_lost, Cluster::lose);
    report("after it all");
    decide(nodes, services, replicas as u64);
}

/// What is measured, and nothing else.
mod rows {
    use std::time::Duration;

    use super::clock;

    /// A row's name is in its body, lest equal functions become one.
    macro_rules! rows {
        ($($row:ident)*) => {$(
            #[inline(never)]
            pub(crate) fn $row(work: &mut dyn FnMut()) -> Duration {
                let started = clock();
                work();
                std::hint::black_box(stringify!($row));
                clock() - started
            }
        )*};
    }

    rows!(fill decide stage write new_leader first_placement);
    rows!(a_task_fails a_service_grows a_node_is_lost);
}

struct Cluster {
    store: MemoryStore,
    watch: Watch,
    controller: Controller,
    ids: IdSource,
    now: Timestamp,
}

fn controller(view: &Snapshot, epoch: u64) -> Controller {
    let planners = default_planners([], Arc::new(SpreadScheduler::default()));
    Controller::new(planners, Epoch(epoch), view)
}

impl Cluster {
    fn with(nodes: usize, services: usize, replicas: u64) -> Self {
        let mut ids = IdSource::seeded(7);
        let node = |number: usize| {
            let mut node = Node { id: ids.next(), ..Node::default() };
            node.spec.name = format!("node{number}");
            node.status.state = NodeState::Ready;
            let resources = &mut node.description.get_or_insert_default().resources;
            resources.nano_cpus = 16_000_000_000;
            resources.memory_bytes = 64 << 30;
            Change::create(node)
        };
        let mut changes: Vec<_> = (0..nodes).map(node).collect();
        for number in 0..services {
            let mut service = Service { id: ids.next(), ..Service::default() };
            service.spec.name = format!("service{number}");
            let ServiceMode::Replicated(mode) = &mut service.spec.mode else {
                unreachable!("a service is replicated by default")
            };
            mode.replicas = Some(replicas);
            let task = Arc::make_mut(&mut service.spec.task);
            task.container.get_or_insert_default().image = format!("image{number}:1");
            changes.push(Change::create(service));
        }
        let store = MemoryStore::default();
        store.apply(&Batch::new(START, changes)).expect("the changes are legal");
        let view = store.snapshot();
        let watch = store.watch(view.version());
        Self { controller: controller(&view, 1), store, watch, ids, now: START }
    }

    fn new_leader(&mut self) {
        let view = self.store.snapshot();
        self.watch = self.store.watch(view.version());
        self.controller = controller(&view, 2);
    }

    /// Steps and commits until nothing is left to do now; how many commits that took.
    fn settle(&mut self) -> usize {
        let mut commits = 0;
        loop {
            while let Some(commit) = self.watch.try_next().expect("the history is long enough") {
                self.controller.observe(&commit);
            }
            let view = self.store.snapshot();
            let step = self.controller.step(&view, self.now, &mut self.ids);
            drop(view);
            if let Some(batch) = step.batch {
                let version = self.store.apply_owned(batch).expect("a plan can be committed");
                self.controller.committed(version);
                commits += 1;
            } else if self.controller.next_at().is_none_or(|at| at > self.now) {
                return commits;
            }
        }
    }

    fn assigned(&self) -> usize {
        let view = self.store.snapshot();
        view.tasks.iter().filter(|task| task.status.state == TaskState::Assigned).count()
    }

    fn write(&mut self, changes: Vec<Change>) {
        self.store.apply(&Batch::new(self.now, changes)).expect("the change is legal");
    }

    /// What agents report, 10,000 of their tasks each second, to a manager that looks at everything
    /// as often as managers do.
    fn run_all(&mut self) {
        let ids: Vec<_> = self.store.snapshot().tasks.iter().map(|task| task.id).collect();
        let mut swept = self.now;
        for ids in ids.chunks(2_000) {
            self.now = self.now + Duration::from_millis(200);
            let status = TaskStatus::new(TaskState::Running, self.now, "started");
            let running = |id: &TaskId| Change::Advance(*id, Box::new(status.clone()));
            self.write(ids.iter().map(running).collect());
            if self.now.since(swept) >= SWEEP_EVERY {
                self.controller.sweep(&self.store.snapshot());
                swept = self.now;
            }
            self.settle();
        }
    }

    fn row(
        &mut self,
        name: &str,
        row: fn(&mut dyn FnMut()) -> Duration,
        mut event: impl FnMut(&mut Self, usize),
    ) {
        let mut times: Vec<_> = (0..EVENTS)
            .map(|number| {
                event(self, number);
                let took = row(&mut || _ = self.settle());
                // What waits for a restart delay becomes due outside of the measured time.
                self.now = self.now + Duration::from_secs(30);
                self.settle();
                took
            })
            .collect();
        times.sort();
        let (median, worst) = (times[EVENTS / 2], times[EVENTS - 1]);
        println!("{name:24} {:>10} at most {}", show(median), show(worst));
    }

    fn fail(&mut self, number: usize) {
        let view = self.store.snapshot();
        let mut running =
            view.tasks_of(self.service(number)).filter(|t| t.status.state == TaskState::Running);
        let id = running.next().expect("its tasks run").id;
        let status = TaskStatus::new(TaskState::Failed, self.now, "failed");
        self.write(vec![Change::Advance(id, Box::new(status))]);
    }

    fn grow(&mut self, number: usize) {
        let id = self.service(number);
        let mut service = Service::clone(self.store.snapshot().services.get(id).expect("it is"));
        if let ServiceMode::Replicated(mode) = &mut service.spec.mode {
            mode.replicas = mode.replicas.map(|replicas| replicas + 10);
        }
        self.write(vec![Change::update(service)]);
    }

    fn lose(&mut self, number: usize) {
        let view = self.store.snapshot();
        let id: NodeId = view.nodes.iter().nth(number * 3).expect("there are enough nodes").id;
        let mut node = Node::clone(view.nodes.get(id).expect("it is there"));
        node.status.state = NodeState::Down;
        self.write(vec![Change::update(node)]);
    }

    fn service(&self, number: usize) -> ServiceId {
        let view = self.store.snapshot();
        let count = view.services.len();
        let service = view.services.iter().nth(number * 7 % count);
        service.expect("there are services").id
    }
}

/// Asks the scheduler and writes what it says, without planners.
fn decide(nodes: usize, services: usize, replicas: u64) {
    let mut cluster = Cluster::with(nodes, services, 0);
    let owners: Vec<_> = cluster.store.snapshot().services.iter().cloned().collect();
    for owner in &owners {
        let pending = |slot| Task {
            id: cluster.ids.beside(owner.id),
            service_id: owner.id,
            slot,
            spec: owner.spec.task.clone(),
            spec_version: owner.version,
            desired_state: TaskState::Running,
            status: TaskStatus::new(TaskState::Pending, START, "pending task scheduling"),
            ..Task::default()
        };
        let tasks: Vec<_> = (1..=replicas).map(pending).map(Change::create).collect();
        cluster.write(tasks);
    }
    let (mut view, scheduler) = (cluster.store.snapshot(), SpreadScheduler::default());
    let (mut changes, mut decided, mut staged) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    for owner in &owners {
        let tasks: Vec<_> = view.tasks_unassigned_of(owner.id).cloned().collect();
        let mut ctx = Ctx::new(START, &mut cluster.ids, Epoch(1));
        let asked = PlacementView { snapshot: &view, service: Some(owner), tasks: &tasks };
        let mut answer = Placements::default();
        decided += rows::decide(&mut || answer = scheduler.place(&asked, &mut ctx));
        assert!(answer.refused.is_empty(), "there is room for everything");
        let assigned = answer.placed.into_iter().map(|placed| {
            let mut task = Task::clone(view.tasks.of(owner.id, placed.task).expect("it is there"));
            task.node_id = Some(placed.node);
            task.status = TaskStatus::new(TaskState::Assigned, START, "assigned");
            Change::update(task)
        });
        let assigned: Vec<_> = assigned.collect();
        let mut shown = Arc::default();
        staged += rows::stage(&mut || shown = view.stage_all(assigned.iter().cloned(), START));
        assert!(shown.iter().all(Result::is_ok), "the changes are legal");
        changes.extend(assigned);
    }
    drop((view, scheduler));
    let tasks = changes.len();
    let batches: Vec<_> = changes.chunks(2_000).map(|it| Batch::new(START, it.to_vec())).collect();
    drop(changes);
    let mut batches = batches.into_iter();
    let written = rows::write(&mut || {
        for batch in batches.by_ref() {
            cluster.store.apply_owned(batch).expect("the changes are legal");
        }
    });
    for (name, time) in [("decide", decided), ("stage", staged), ("write", written)] {
        println!("{name:24} {:>10} {}", show(time), rate(tasks, time));
    }
}

/// Processor time of this thread so far. Not for a profile: valgrind does not know that clock.
fn clock() -> Duration {
    if std::env::args().any(|text| text == "count") {
        return Duration::ZERO;
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn show(time: Duration) -> String {
    format!("{time:.3?}")
}

#[allow(clippy::cast_precision_loss)]
fn rate(count: usize, time: Duration) -> String {
    format!("{:.0} tasks/s", count as f64 / time.as_secs_f64())
}

/// The resident memory of this process in bytes, or the most of it so far (`VmHWM`); 0 where the
/// system does not tell.
fn memory(which: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kib.unwrap_or(0) << 10
}
