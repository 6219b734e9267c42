//! `/tasks`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use swarm_core::model::{NodeId, ServiceId, Task, TaskState};
use swarm_core::store::Snapshot;

use super::error::ok;
use super::filter::Filters;
use super::query::Query;
use super::view::TaskView;
use super::{Node, control};
use crate::error::ApiError;
use crate::manager::control::Find as _;

const FILTERS: [&str; 8] =
    ["id", "name", "label", "service", "node", "desired-state", "runtime", "_up-to-date"];

/// `GET /tasks`
pub(super) async fn list(State(node): Node, query: Query) -> Result<Response, ApiError> {
    let filters = Filters::read(&query, &FILTERS)?;
    let view = control(&*node)?.view()?;
    let wanted = Wanted::new(&view, &filters)?;
    let views: Vec<_> = wanted
        .candidates(&view)
        .filter(|task| view.shows(task) && wanted.fits(&view, task))
        .map(|task| TaskView::new(task, &view))
        .collect();
    ok(&views)
}

/// `GET /tasks/{id}`
pub(super) async fn inspect(
    State(node): Node,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let view = control(&*node)?.view()?;
    ok(&TaskView::new(&*view.find_task(&id)?, &view))
}

/// Filters with their services and nodes resolved.
struct Wanted<'a> {
    filters: &'a Filters,
    services: Vec<ServiceId>,
    nodes: Vec<NodeId>,
    desired: Vec<TaskState>,
}

impl<'a> Wanted<'a> {
    fn new(view: &Snapshot, filters: &'a Filters) -> Result<Self, ApiError> {
        let services = filters.get("service").iter().map(|word| Ok(view.find_service(word)?.id));
        let nodes = filters.get("node").iter().map(|word| Ok(view.find_node(word)?.id));
        Ok(Self {
            filters,
            services: services.collect::<Result<_, ApiError>>()?,
            nodes: nodes.collect::<Result<_, ApiError>>()?,
            desired: filters.words("desired-state")?,
        })
    }

    /// Every task that may fit, by the index that narrows most.
    fn candidates<'v>(
        &'v self,
        view: &'v Snapshot,
    ) -> Box<dyn Iterator<Item = &'v Arc<Task>> + 'v> {
        if !self.services.is_empty() {
            Box::new(self.services.iter().flat_map(|id| view.tasks_of(*id)))
        } else if !self.nodes.is_empty() {
            Box::new(self.nodes.iter().flat_map(|id| view.tasks_on(*id)))
        } else {
            Box::new(view.tasks.iter())
        }
    }

    fn fits(&self, view: &Snapshot, task: &Task) -> bool {
        let on_node = || task.node_id.is_some_and(|node| self.nodes.contains(&node));
        (self.nodes.is_empty() || on_node())
            && (self.desired.is_empty() || self.desired.contains(&task.desired_state))
            && self.filters.prefix("id", task.id.as_str())
            && self.filters.prefix("name", &task.name())
            && self.filters.labels("label", &task.annotations.labels)
            && self.filters.any("runtime", |runtime| runtime == "container")
            && self.filters.any("_up-to-date", |word| word != "true" || up_to_date(view, task))
    }
}

/// Whether a task is what its service asks for now, in the present run of a job.
fn up_to_date(view: &Snapshot, task: &Task) -> bool {
    let run = view.services.get(task.service_id).and_then(|service| service.job_iteration());
    (run.is_none() || task.job_iteration == run)
        && swarm_sched::orchestrate::is_up_to_date(view, task)
}
