//! `/services`

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use swarm_core::model::{
    SecretBytes, Service, ServiceId, ServiceMode, ServiceSpec, ServiceStatus, TaskState, defaults,
};
use swarm_core::store::Snapshot;

use super::adjust::adjust;
use super::body::Json;
use super::error::{internal, json, ok};
use super::filter::Filters;
use super::query::Query;
use super::view::ServiceView;
use super::{ApiVersion, LocalNode, Node, control};
use crate::error::ApiError;
use crate::manager::control::{AuthFrom, Control, Find as _, UpdateService};

const FILTERS: [&str; 5] = ["id", "name", "label", "mode", "runtime"];

/// `GET /services`
pub(super) async fn list(
    State(node): Node,
    Extension(api): Extension<ApiVersion>,
    query: Query,
) -> Result<Response, ApiError> {
    let filters = Filters::read(&query, &FILTERS)?;
    let status = query.strict("status")? && api >= ApiVersion(1, 41);
    let view = control(&*node)?.view()?;
    let shown = view.services.iter().filter(|service| matches(service, &filters));
    let views: Vec<_> = shown
        .map(|service| ServiceView::new(service, status.then(|| count(&view, service))))
        .collect();
    ok(&views)
}

fn matches(service: &Service, filters: &Filters) -> bool {
    let runtime = match service.spec.task.runtime.as_str() {
        "" => "container",
        runtime => runtime,
    };
    !service.pending_delete
        && filters.prefix("id", service.id.as_str())
        && filters.prefix("name", &service.spec.name)
        && filters.labels("label", &service.spec.labels)
        && filters.exact("mode", service.spec.mode.name())
        && filters.exact("runtime", runtime)
}

/// The counts of `docker service ls` (SwarmKit: `ListServiceStatuses`).
fn count(view: &Snapshot, service: &Service) -> ServiceStatus {
    let mut status = ServiceStatus::default();
    let run = service.job_iteration();
    let current =
        view.tasks_of(service.id).filter(|task| run.is_none() || task.job_iteration == run);
    let (mut desired_running, mut desired_complete) = (0, 0);
    for task in current {
        let complete = task.status.state == TaskState::Complete;
        status.running_tasks += u64::from(task.status.state == TaskState::Running);
        status.completed_tasks += u64::from(run.is_some() && complete);
        desired_running += u64::from(task.desired_state == TaskState::Running);
        desired_complete += u64::from(task.desired_state == TaskState::Complete && !complete);
    }
    status.desired_tasks = match &service.spec.mode {
        ServiceMode::Replicated(mode) => mode.replicas.unwrap_or(1),
        ServiceMode::ReplicatedJob(mode) => mode.max_concurrent(),
        ServiceMode::Global(_) => desired_running,
        ServiceMode::GlobalJob(_) => desired_complete,
    };
    status
}

/// `GET /services/{id}`
pub(super) async fn inspect(
    State(node): Node,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let insert_defaults = query.strict("insertDefaults")?;
    let service = control(&*node)?.view()?.find_service(&id)?;
    let view = ServiceView::new(&service, None);
    if insert_defaults {
        return ok(&view.with_spec(&defaults::inserted(&service.spec)));
    }
    ok(&view)
}

/// The client's registry credentials, kept as they came.
pub(super) fn registry_auth(headers: &HeaderMap) -> Option<SecretBytes> {
    let value = headers.get("x-registry-auth")?.as_bytes();
    (!value.is_empty()).then(|| value.to_vec().into())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    #[serde(rename = "ID")]
    id: ServiceId,
    warnings: Option<Vec<String>>,
}

/// `POST /services/create`
pub(super) async fn create(
    State(node): Node,
    Extension(api): Extension<ApiVersion>,
    headers: HeaderMap,
    Json(mut spec): Json<ServiceSpec>,
) -> Result<Response, ApiError> {
    adjust(&mut spec, api);
    let id = control(&*node)?.create_service(spec, registry_auth(&headers)).await?;
    Ok(json(StatusCode::CREATED, &Created { id, warnings: None }))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Updated {
    warnings: Option<Vec<String>>,
}

/// `POST /services/{id}/update`
pub(super) async fn update(
    State(node): Node,
    Path(id): Path<String>,
    Extension(api): Extension<ApiVersion>,
    query: Query,
    headers: HeaderMap,
    Json(mut spec): Json<ServiceSpec>,
) -> Result<Response, ApiError> {
    adjust(&mut spec, api);
    let (control, update) = update_of(&*node, &id, (&query, &headers), spec).await?;
    control.update_service(&id, update).await?;
    ok(&Updated { warnings: None })
}

/// The change that a request asks for, and whom to ask.
pub(super) async fn update_of(
    node: &dyn LocalNode,
    id: &str,
    (query, headers): (&Query, &HeaderMap),
    spec: ServiceSpec,
) -> Result<(Arc<Control>, UpdateService), ApiError> {
    let version = query.version("service")?;
    let control = control(node)?;
    control.look(|view| view.find_service(id)).await?;
    let registry_auth = registry_auth(headers);
    let auth_from = match query.get("registryAuthFrom") {
        "" | "spec" => AuthFrom::Spec,
        "previous-spec" => AuthFrom::PreviousSpec,
        _ if registry_auth.is_some() => AuthFrom::Spec,
        _ => return Err(internal("unsupported registryAuthFrom value")),
    };
    let rollback = match query.get("rollback") {
        "" | "none" => false,
        "previous" => true,
        other => return Err(internal(format!("unrecognized rollback option {other}"))),
    };
    Ok((control, UpdateService { version, spec, rollback, registry_auth, auth_from }))
}

/// `DELETE /services/{id}`
pub(super) async fn remove(
    State(node): Node,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    control(&*node)?.remove_service(&id).await?;
    Ok(StatusCode::OK)
}
