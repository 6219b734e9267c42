//! A scheduler of one's own, from a strategy: which of the nodes that pass every filter is best.
//! A node gets it by `config.parts.scheduler = Some(Arc::new(FilterScheduler::new(Pack)))`; here
//! the planners run on a store in memory, beside Swarm's own scheduler.

use std::error::Error;
use std::sync::Arc;

use serde_json::json;
use swarm::core::conformance;
use swarm::core::control::Controller;
use swarm::core::id::IdSource;
use swarm::core::model::{Node, Service};
use swarm::core::scheduler::Scheduler;
use swarm::core::store::{Batch, Change, Epoch, MemoryStore, Store as _};
use swarm::core::time::Timestamp;
use swarm::sched::default_planners;
use swarm::sched::place::{Candidate, FilterScheduler, SpreadScheduler, Strategy};

/// Fills the fullest node that still has room, so that the emptiest can be switched off; keeps
/// away from nodes on which the service has just failed.
#[derive(Default)]
struct Pack;

impl Strategy for Pack {
    type Score = (bool, i64);

    fn score(&self, candidate: &Candidate<'_>) -> Self::Score {
        (candidate.failures > 0, candidate.load.free_memory())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    conformance::scheduler::suite(|| Box::new(FilterScheduler::new(Pack)));
    println!("Pack keeps the scheduler's contract");
    show("spread", Arc::new(SpreadScheduler::default()))?;
    show("pack", Arc::new(FilterScheduler::new(Pack)))
}

/// Seven tasks of 1 GiB on three nodes of 4 GiB.
fn show(name: &str, scheduler: Arc<dyn Scheduler>) -> Result<(), Box<dyn Error>> {
    let (store, mut ids, now) = (MemoryStore::default(), IdSource::seeded(1), Timestamp::ZERO);
    let mut service: Service = serde_json::from_value(json!({"Spec": {
        "Name": "web",
        "Mode": {"Replicated": {"Replicas": 7}},
        "TaskTemplate": {"ContainerSpec": {"Image": "web:1"},
            "Resources": {"Reservations": {"MemoryBytes": 1_u64 << 30}}}}}))?;
    service.id = ids.next();
    let mut changes = vec![Change::create(service)];
    for _ in 0..3 {
        let mut node: Node = serde_json::from_value(json!({
            "Status": {"State": "ready"},
            "Description": {"Resources": {"MemoryBytes": 4_u64 << 30}}}))?;
        node.id = ids.next();
        changes.push(Change::create(node));
    }
    store.apply(&Batch::new(now, changes))?;
    let mut controller =
        Controller::new(default_planners([], scheduler), Epoch(1), &store.snapshot());
    let step = controller.step(&store.snapshot(), now, &mut ids);
    store.apply(&step.batch.ok_or("there is something to plan")?)?;
    let view = store.snapshot();
    let mut tasks: Vec<_> = view.nodes.iter().map(|n| view.tasks_on(n.id).count()).collect();
    tasks.sort_unstable();
    println!("{name}: {tasks:?} tasks on the three nodes");
    Ok(())
}
