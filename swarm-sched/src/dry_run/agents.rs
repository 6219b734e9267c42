//! Pure: agents that do at once what their tasks are told.

use std::collections::BTreeSet;

use swarm_core::model::{NodeState, ServiceId, Task, TaskId, TaskState, TaskStatus};
use swarm_core::store::{Change, Snapshot};
use swarm_core::time::Timestamp;

/// What the agents of a service's tasks, and of those that were `touched`, would report. Whatever
/// else is under way in the cluster stays as it is.
pub(crate) fn answers(
    view: &Snapshot,
    service: ServiceId,
    touched: &BTreeSet<TaskId>,
    now: Timestamp,
) -> Vec<Change> {
    let others = touched.iter().filter_map(|id| view.tasks.get(*id));
    let others = others.filter(|task| task.service_id != service);
    view.tasks_of(service).chain(others).filter_map(|task| answer(view, task, now)).collect()
}

/// A task of a job runs, and goes on running: how long it takes is not known.
fn answer(view: &Snapshot, task: &Task, now: Timestamp) -> Option<Change> {
    let node = view.nodes.get(task.node_id?)?;
    let state = task.status.state;
    if node.status.state != NodeState::Ready || state < TaskState::Assigned || state.is_terminal() {
        return None;
    }
    let next = match task.desired_state {
        TaskState::Ready => TaskState::Ready,
        TaskState::Running | TaskState::Complete => TaskState::Running,
        TaskState::Shutdown | TaskState::Remove => TaskState::Shutdown,
        _ => return None,
    };
    let status = || Box::new(TaskStatus::new(next, now, "as told"));
    (state < next).then(|| Change::Advance(task.id, status()))
}
