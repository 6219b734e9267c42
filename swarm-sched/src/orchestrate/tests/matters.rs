//! Which events make planners look at a service again.

use std::sync::Arc;

use swarm_core::model::*;
use swarm_core::store::{Event, Object};
use swarm_core::time::Timestamp;

use crate::orchestrate::service_matters;

fn event(old: Option<Service>, new: Option<Service>) -> Event {
    Event { old: old.map(Object::from), new: new.map(Object::from) }
}

/// What is said about a change of one field.
fn matters(change: impl FnOnce(&mut Service)) -> bool {
    let mut new = Service::default();
    change(&mut new);
    service_matters(&event(Some(Service::default()), Some(new)))
}

#[test]
fn how_a_service_is_reached_does_not_change_its_tasks() {
    let now = Timestamp::from_secs(1);
    assert!(!matters(|_| {}));
    assert!(!matters(|service| service.endpoint = Some(Arc::default())));
    assert!(!matters(|service| service.stalled = "no address is left".to_owned()));
    // Stamps of every commit.
    assert!(!matters(|service| service.revision = Version(9)));
    assert!(!matters(|service| service.updated_at = now));
}

#[test]
fn everything_else_about_a_service_does() {
    assert!(matters(|service| service.version = Version(9)));
    assert!(matters(|service| service.spec.name = "other".to_owned()));
    assert!(matters(
        |service| service.spec.mode = ServiceMode::Global(swarm_core::json::Extra::default())
    ));
    assert!(matters(|service| service.previous_spec = Some(Box::default())));
    assert!(matters(|service| service.update_status = Some(UpdateStatus::default())));
    assert!(matters(|service| service.job_status = Some(JobStatus::default())));
    assert!(matters(|service| service.pending_delete = true));
    assert!(matters(|service| service.registry_auth = Some(SecretBytes::default())));
    assert!(service_matters(&event(None, Some(Service::default()))), "it is new");
    assert!(service_matters(&event(Some(Service::default()), None)), "it is gone");
}
