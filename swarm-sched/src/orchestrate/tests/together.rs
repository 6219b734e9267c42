//! The orchestrators with the real allocator and scheduler behind them.

use std::sync::Arc;

use swarm_core::conformance::planner;
use swarm_core::control::Controller;
use swarm_core::id::IdSource;
use swarm_core::model::*;
use swarm_core::store::{Batch, Change, Epoch, MemoryStore, Store as _};
use swarm_core::time::Timestamp;

use super::world::{global, global_job, replicated, replicated_job};
use crate::place::SpreadScheduler;

#[test]
fn one_commit_takes_a_service_from_its_specification_to_its_nodes() {
    let (store, mut ids) = (MemoryStore::default(), IdSource::seeded(3));
    let now = Timestamp::from_secs(1_000);
    let node = |ids: &mut IdSource| Node {
        id: ids.next(),
        status: NodeStatus { state: NodeState::Ready, ..Default::default() },
        description: Some(NodeDescription::default()),
        ..Default::default()
    };
    let mut everywhere = global("agent");
    everywhere.name = "agent".to_owned();
    let mut job = replicated_job("backup", 5, 2);
    job.name = "backup".to_owned();
    let mut check = global_job("check");
    check.name = "check".to_owned();
    let services = [replicated("nginx", 5), everywhere, job, check];
    let services = services.map(|spec| Service { id: ids.next(), spec, ..Default::default() });
    let nodes = [node(&mut ids), node(&mut ids)];
    let changes = services.into_iter().map(Change::create).chain(nodes.map(Change::create));
    store.apply(&Batch::new(now, changes.collect())).unwrap();

    let planners = crate::default_planners([], Arc::new(SpreadScheduler::default()));
    let mut controller = Controller::new(planners.clone(), Epoch(1), &store.snapshot());
    let step = controller.step(&store.snapshot(), now, &mut ids);
    store.apply(&step.batch.expect("there is much to do")).unwrap();

    let view = store.snapshot();
    assert_eq!(view.tasks.len(), 7 + 2 + 2);
    assert!(view.tasks.iter().all(|task| task.status.state == TaskState::Assigned));
    for planner in planners {
        planner::check(&*planner, &view, now);
    }
}
