//! Pure: what a run of many seeds must have met: a run that never broke anything proves nothing.

use std::collections::BTreeMap;

use swarm_core::model::{Service, Task, TaskState, UpdateState};
use swarm_core::store::{Event, Object, Snapshot};

use super::consensus::Committed;
use super::world::World;

/// Every fault, every branch of recovery, and the ways of the roll-outs, with the names under which
/// a [`World`] counts them. One branch is counted and not required: that the leader's watch lags has
/// happened in no seed so far.
pub const REQUIRED: &[&str] = &[
    "agent: a gap in the assignments opens a new session",
    "agent: a removed node is refused",
    "agent: abandoned work was done nevertheless",
    "agent: redirected to the leader",
    "agent: resumes from its journal",
    "allocator: a port is another's before its service has gone",
    "dispatcher: a later session of a node takes over",
    "dispatcher: a manager that was paused forgives",
    "dispatcher: a message of a session that is over",
    "dispatcher: a silent node is down",
    "dispatcher: a storm of sessions is refused",
    "enforcer: a node no longer suits a task",
    "executor: work hangs",
    "fault: a clock jumps",
    "fault: a clock runs wrong",
    "fault: a machine loses power",
    "fault: a machine stands still",
    "fault: a manager crashes",
    "fault: a one-way partition",
    "fault: a partition",
    "fault: a slow link",
    "fault: a snapshot replaces a state",
    "fault: an agent crashes",
    "fault: an executor fails for a moment",
    "fault: an executor hangs",
    "fault: an executor lies",
    "fault: containers are killed for memory",
    "fault: every agent reconnects",
    "fault: images cannot be pulled",
    "fault: messages are lost",
    "fault: messages are overtaken",
    "fault: messages arrive twice",
    "fault: the leader changes",
    "leader: an earlier leader learns of its successor",
    "leader: gives up without a majority",
    "manager: recovers from its disk",
    "preemption: a promise is kept",
    "preemption: a task leaves for another",
    "rebalancing: a task moves",
    "store: a batch is too large",
    "store: a batch of an earlier leader arrives",
    "store: a conflict is decided again",
    "store: a follower is caught up by a snapshot",
    "store: a stale epoch is refused",
    "store: a write is lost with its leader",
    "store: a write survives its leader without an answer",
    "task: complete",
    "task: failed",
    "task: orphaned",
    "task: rejected",
    "task: shutdown",
    "task: waits for a node",
    "update: completed",
    "update: paused",
    "update: rollback completed",
    "update: rollback paused",
    "update: rollback started",
    "update: updating",
];

/// What of [`REQUIRED`] never happened.
#[must_use]
pub fn missing(coverage: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    REQUIRED.iter().copied().filter(|what| !coverage.contains_key(what)).collect()
}

impl World {
    /// Counts what a commit brought about.
    pub(super) fn cover(&mut self, committed: &Committed) {
        let Ok(done) = &committed.result else { return };
        for event in &done.events {
            if let Some(what) = met(event) {
                self.covered(what);
            }
            if inherits(event, &committed.after) {
                self.covered("allocator: a port is another's before its service has gone");
            }
        }
    }
}

fn met(event: &Event) -> Option<&'static str> {
    match (event.old.as_ref(), event.new.as_ref()?) {
        (Some(Object::Task(old)), Object::Task(new)) => task(old, new),
        (None, Object::Task(new)) => new.relieves.map(|_| "rebalancing: a task moves"),
        (Some(Object::Service(old)), Object::Service(new)) => update(old, new),
        _ => None,
    }
}

/// Whether a service was given a port that one has which is about to go.
fn inherits(event: &Event, after: &Snapshot) -> bool {
    fn has(service: &Service) -> impl Iterator<Item = u16> {
        let ports = service.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        ports.map(|port| port.published_port).filter(|port| *port != 0)
    }
    let (Some(Object::Service(old)), Some(Object::Service(new))) = (&event.old, &event.new) else {
        return false;
    };
    let going = |port: &u16| {
        let mut services = after.services.iter();
        services.any(|other| other.pending_delete && has(other).any(|its| its == *port))
    };
    has(new).filter(|port| !has(old).any(|its| its == *port)).any(|port| going(&port))
}

fn task(old: &Task, new: &Task) -> Option<&'static str> {
    if old.preempted.is_none() && new.preempted.is_some() {
        return Some("preemption: a task leaves for another");
    }
    if old.eviction.is_none() && new.eviction.is_some() {
        return Some("enforcer: a node no longer suits a task");
    }
    if old.is_promised() {
        return Some(match new.status.state {
            TaskState::Pending if new.is_wanted() => return None,
            TaskState::Assigned => "preemption: a promise is kept",
            _ => "preemption: a promise is given up",
        });
    }
    if new.status.state == TaskState::Pending && old.status.err != new.status.err {
        return Some("task: waits for a node");
    }
    if old.status.state == new.status.state {
        return None;
    }
    Some(match new.status.state {
        TaskState::Complete => "task: complete",
        TaskState::Failed => "task: failed",
        TaskState::Orphaned => "task: orphaned",
        TaskState::Rejected => "task: rejected",
        TaskState::Shutdown => "task: shutdown",
        _ => return None,
    })
}

fn update(old: &Service, new: &Service) -> Option<&'static str> {
    let state = |service: &Service| service.update_status.as_ref().map(|status| status.state);
    let new = state(new).filter(|new| state(old) != Some(*new))?;
    Some(match new {
        UpdateState::Updating => "update: updating",
        UpdateState::Paused => "update: paused",
        UpdateState::Completed => "update: completed",
        UpdateState::RollbackStarted => "update: rollback started",
        UpdateState::RollbackPaused => "update: rollback paused",
        UpdateState::RollbackCompleted => "update: rollback completed",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::script::Action;
    use crate::sim::{Size, draw};

    #[test]
    fn every_fault_that_is_drawn_is_required() {
        let scripts = (0..100).map(|seed| draw(seed, &Size::small()));
        let kinds: std::collections::BTreeSet<&str> = scripts
            .flat_map(|script| script.entries)
            .filter_map(|entry| match entry.action {
                Action::Break(fault) => Some(fault.kind.name()),
                _ => None,
            })
            .collect();
        let required = REQUIRED.iter().copied().filter(|what| what.starts_with("fault: "));
        assert_eq!(kinds, required.collect());
    }

    #[test]
    fn what_never_happened_is_missing() {
        let mut coverage = REQUIRED.iter().map(|what| (*what, 1)).collect::<BTreeMap<_, _>>();
        assert_eq!(missing(&coverage), [""; 0]);
        coverage.remove("task: orphaned");
        assert_eq!(missing(&coverage), ["task: orphaned"]);
    }
}
