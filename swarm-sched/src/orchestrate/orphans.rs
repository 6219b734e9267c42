//! Pure: tasks that are given up with their node (SwarmKit: `defaultNodeDownPeriod` in the
//! dispatcher, `orphanNodeTasks` in the control API).

use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::{Ctx, Key, Plan, Planner};
use swarm_core::model::{NodeId, NodeState, Task, TaskState, TaskStatus};
use swarm_core::store::{Change, Event, Object, Snapshot};

use super::node_matters;

/// How long a node is down before its tasks are given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Makes the tasks of a node that has been down for 24 hours, or that was removed, `orphaned`:
/// what they hold is free from then on. Their replacements were made long before, when the node
/// went down. The time counts from [`down_since`](swarm_core::model::NodeStatus::down_since), so a
/// new leader does not start it again as SwarmKit's does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Orphans;

impl Planner for Orphans {
    fn name(&self) -> &'static str {
        "orphans"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        match event.object() {
            Object::Node(node) if node_matters(event) => keys.push(Key::Node(node.id)),
            _ => {}
        }
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        // Nodes that are gone count as well: their tasks may have been left behind.
        keys.extend(view.nodes_with_tasks().map(Key::Node));
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut plan = Plan::none();
        let Key::Node(id) = key else { return plan };
        let Some(node) = view.nodes.get(*id) else {
            let text = "Task belonged to a node that has been deleted";
            orphan(view, *id, |_| true, text, ctx, &mut plan);
            return plan;
        };
        if node.status.state != NodeState::Down {
            return plan;
        }
        let given_up_at = node.status.down_since.unwrap_or(node.updated_at) + GIVE_UP_AFTER;
        if ctx.now < given_up_at {
            plan.look_again(given_up_at);
            return plan;
        }
        let held = |task: &Task| task.status.state >= TaskState::Assigned;
        let text = "Task belonged to a node that has been down for 24 hours";
        orphan(view, *id, held, text, ctx, &mut plan);
        plan
    }
}

fn orphan(
    view: &Snapshot,
    node: NodeId,
    concerned: impl Fn(&Task) -> bool,
    why: &'static str,
    ctx: &Ctx<'_>,
    plan: &mut Plan,
) {
    let left = |task: &&Arc<Task>| !task.status.state.is_terminal();
    for task in view.tasks_on(node).filter(left).filter(|task| concerned(task)) {
        if plan.is_full(ctx) {
            return;
        }
        let status = TaskStatus {
            state: TaskState::Orphaned,
            timestamp: ctx.now,
            message: why.into(),
            ..task.status.clone()
        };
        plan.changes.push(Change::Advance(task.id, Box::new(status)));
    }
}
