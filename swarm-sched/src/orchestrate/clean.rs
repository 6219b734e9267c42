//! Pure: whether a task is what its service asks for now (SwarmKit: `IsTaskDirty`).

use std::sync::Arc;

use swarm_core::model::{EndpointMode, EndpointSpec, Node, Service, Task, TaskSpec, TaskState};
use swarm_core::store::Snapshot;

use crate::place::constraint::{self, Constraint};

/// How a task's specification compares with its service's.
#[derive(Clone, Copy, PartialEq)]
enum Likeness {
    Same,
    /// Nothing but the placement differs.
    ElsewherePlaced,
    Different,
}

/// Specifications that one pass remembers: the present one and the few before it, shared by
/// thousands of tasks.
const REMEMBERED: usize = 4;

/// Compares the tasks of one service with it. Lives for one plan.
pub(super) struct Clean<'a> {
    view: &'a Snapshot,
    service: &'a Service,
    fit: Fit,
    remembered: Vec<(*const TaskSpec, Likeness)>,
}

impl<'a> Clean<'a> {
    pub(super) fn new(view: &'a Snapshot, service: &'a Service) -> Self {
        let fit = Fit::new(service.spec.task.constraints());
        Self { view, service, fit, remembered: Vec::new() }
    }

    /// Whether the task needs no replacement: its specification and its published ports are the
    /// service's; or only the placement differs and its node satisfies the new constraints. Other
    /// registry credentials matter to what has not got its image yet.
    pub(super) fn is_clean(&mut self, task: &Task) -> bool {
        let has_image = task.status.state >= TaskState::Ready;
        if !has_image && task.registry_auth != self.service.registry_auth {
            return false;
        }
        let asked = self.service.spec.endpoint.as_ref();
        if task.endpoint.as_ref().is_some_and(|endpoint| !same_endpoint(&endpoint.spec, asked)) {
            return false;
        }
        match self.likeness(&task.spec) {
            Likeness::Same => true,
            Likeness::Different => false,
            Likeness::ElsewherePlaced => {
                let node = task.node_id.and_then(|id| self.view.nodes.get(id));
                node.is_some_and(|node| self.fit.matches(node))
            }
        }
    }

    /// Whether the task, and each that is like it, needs no replacement on whatever node and in
    /// whatever state.
    pub(super) fn is_plain(&mut self, task: &Task) -> bool {
        task.registry_auth == self.service.registry_auth
            && self.is_same(task)
            && self.is_clean(task)
    }

    /// Whether the task runs the very specification that the service has.
    pub(super) fn is_same(&mut self, task: &Task) -> bool {
        self.likeness(&task.spec) == Likeness::Same
    }

    fn likeness(&mut self, spec: &Arc<TaskSpec>) -> Likeness {
        let wanted = &self.service.spec.task;
        if Arc::ptr_eq(spec, wanted) {
            return Likeness::Same;
        }
        let address = Arc::as_ptr(spec);
        if let Some((_, known)) = self.remembered.iter().find(|(known, _)| *known == address) {
            return *known;
        }
        let likeness = if spec == wanted {
            Likeness::Same
        } else if spec.placement != wanted.placement && same_but_placement(spec, wanted) {
            Likeness::ElsewherePlaced
        } else {
            Likeness::Different
        };
        if self.remembered.len() == REMEMBERED {
            self.remembered.remove(0);
        }
        self.remembered.push((address, likeness));
        likeness
    }
}

fn same_but_placement(spec: &TaskSpec, wanted: &TaskSpec) -> bool {
    let moved = TaskSpec { placement: wanted.placement.clone(), ..spec.clone() };
    moved == *wanted
}

fn same_endpoint(allocated: &EndpointSpec, asked: Option<&EndpointSpec>) -> bool {
    let mode =
        |spec: Option<&EndpointSpec>| spec.and_then(|spec| spec.mode).unwrap_or(EndpointMode::Vip);
    mode(Some(allocated)) == mode(asked)
        && allocated.ports.as_slice() == asked.map_or(&[][..], |asked| &asked.ports)
}

/// Constraints, ready to be matched. Those that cannot be read, which the API refuses, fit no
/// node: better no task than one in the wrong place.
pub(super) struct Fit(Option<Vec<Constraint>>);

impl Fit {
    pub(super) fn new(constraints: &[String]) -> Self {
        Self(constraint::parse_all(constraints).ok())
    }

    pub(super) fn matches(&self, node: &Node) -> bool {
        self.0.as_ref().is_some_and(|all| all.iter().all(|constraint| constraint.matches(node)))
    }
}
