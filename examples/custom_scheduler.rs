//! A scheduler of one's own: all tasks of a service, or none. It asks Swarm's and changes the answer,
//! so that filters, strategies, preferences and affinities mean what they meant.
//! A node gets it by `config.parts.scheduler = Some(Arc::new(Together::default()))`; here the planners
//! run on a store in memory, beside Swarm's own scheduler.

use std::error::Error;
use std::sync::Arc;

use serde_json::json;
use swarm::core::conformance;
use swarm::core::control::{Controller, Ctx};
use swarm::core::id::IdSource;
use swarm::core::model::{Node, Service};
use swarm::core::scheduler::{Overcommit, PlacementView, Placements, Refused, Scheduler};
use swarm::core::store::{Batch, Change, Epoch, MemoryStore, Snapshot, Store as _};
use swarm::core::time::Timestamp;
use swarm::sched::default_planners;
use swarm::sched::place::StrategyScheduler;

/// Of a service with the label `together=true`, tasks that wait get nodes only if all of them do: a
/// part would take room, and could not begin its work. Preemption looks for room for one task at a
/// time, and so does not know of this.
#[derive(Default)]
struct Together(StrategyScheduler);

impl Scheduler for Together {
    fn place(&self, view: &PlacementView<'_>, ctx: &mut Ctx<'_>) -> Placements {
        let mut answer = self.0.place(view, ctx);
        let label = view.service.and_then(|service| service.spec.labels.get("together"));
        let together = label.is_some_and(|value| value == "true");
        if let Some(refused) = answer.refused.first().filter(|_| together) {
            let why = format!("there is no room for all {}: {}", view.tasks.len(), refused.why);
            let held = answer.placed.drain(..);
            answer.refused.extend(held.map(|it| Refused { task: it.task, why: why.clone() }));
        }
        answer
    }

    fn follow(&self, view: &Snapshot) {
        self.0.follow(view);
    }

    fn counts(&self) -> Overcommit {
        self.0.counts()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    conformance::scheduler::suite(|| Box::new(Together::default()));
    println!("Together keeps the scheduler's contract");
    show("swarm", Arc::new(StrategyScheduler::default()))?;
    show("together", Arc::new(Together::default()))
}

/// Fourteen tasks of 1 GiB on nodes of 4 GiB.
fn show(name: &str, scheduler: Arc<dyn Scheduler>) -> Result<(), Box<dyn Error>> {
    let (store, mut ids, now) = (MemoryStore::default(), IdSource::seeded(1), Timestamp::ZERO);
    let mut service: Service = serde_json::from_value(json!({"Spec": {
        "Name": "solver",
        "Labels": {"together": "true"},
        "Mode": {"Replicated": {"Replicas": 14}},
        "TaskTemplate": {"ContainerSpec": {"Image": "solver:1"},
            "Resources": {"Reservations": {"MemoryBytes": 1_u64 << 30}}}}}))?;
    service.id = ids.next();
    store.apply(&Batch::new(now, vec![Change::create(service)]))?;
    for nodes in 1..=4 {
        let mut node: Node = serde_json::from_value(json!({
            "Status": {"State": "ready"},
            "Description": {"Resources": {"MemoryBytes": 4_u64 << 30}}}))?;
        node.id = ids.next();
        store.apply(&Batch::new(now, vec![Change::create(node)]))?;
        // A new leader, each time.
        let planners = default_planners([], scheduler.clone());
        let view = store.snapshot();
        let step = Controller::new(planners, Epoch(nodes), &view).step(&view, now, &mut ids);
        step.batch.map(|batch| store.apply(&batch)).transpose()?;
        let placed = store.snapshot().tasks.iter().filter(|task| task.node_id.is_some()).count();
        println!("{name}: {placed} of 14 tasks placed, nodes: {nodes}");
    }
    Ok(())
}
