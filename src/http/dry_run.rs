//! `/x-swarm/dry-run`: the requests that change services, with the same bodies, parameters and
//! refusals, answered by what they would lead to.

use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use swarm_core::model::ServiceSpec;

use super::adjust::adjust;
use super::body::Json;
use super::error::ok;
use super::query::Query;
use super::services::{registry_auth, update_of};
use super::{ApiVersion, Node, control};
use crate::error::ApiError;

/// `POST /x-swarm/dry-run/services/create`
pub(super) async fn create(
    State(node): Node,
    Extension(api): Extension<ApiVersion>,
    headers: HeaderMap,
    Json(mut spec): Json<ServiceSpec>,
) -> Result<Response, ApiError> {
    adjust(&mut spec, api);
    ok(&control(&*node)?.dry_run_create(spec, registry_auth(&headers)).await?)
}

/// `POST /x-swarm/dry-run/services/{id}/update`
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
    ok(&control.dry_run_update(&id, update).await?)
}
