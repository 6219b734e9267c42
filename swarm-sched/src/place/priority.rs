//! Pure: how much a service matters beside others.

use swarm_core::model::{Service, ServiceId};
use swarm_core::store::Snapshot;

/// The label of a service that says how much it matters: a whole number, 0 without it. Of the tasks
/// that wait for a node, those of higher priority get one first.
pub const PRIORITY_LABEL: &str = "swarm.priority";

/// A service's priority, or what is wrong with its label.
pub(super) fn of(service: &Service) -> Result<i32, String> {
    let Some(text) = service.spec.labels.get(PRIORITY_LABEL) else { return Ok(0) };
    let unreadable =
        |_| format!("{PRIORITY_LABEL}={text} cannot be read: a whole number is expected");
    text.parse().map_err(unreadable)
}

/// The priority of a service's tasks, by its present label. Those of no service have 0, and so have
/// those whose label cannot be read.
pub(super) fn by_id(view: &Snapshot, service: ServiceId) -> i32 {
    view.services.get(service).map_or(0, |service| of(service).unwrap_or(0))
}
