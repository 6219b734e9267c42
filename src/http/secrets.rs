//! `/secrets` and `/configs`

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use swarm_core::model::{ConfigSpec, SecretSpec};

use super::body::Json;
use super::error::{json, ok};
use super::filter::Filters;
use super::query::Query;
use super::view::{ConfigView, SecretView};
use super::{Node, control};
use crate::error::ApiError;
use crate::manager::control::Find as _;

#[derive(Serialize)]
struct Created<I> {
    #[serde(rename = "ID")]
    id: I,
}

/// `GET /secrets`
pub(super) async fn list_secrets(State(node): Node, query: Query) -> Result<Response, ApiError> {
    let filters = Filters::read(&query, &["id", "name", "names", "label"])?;
    let view = control(&*node)?.view()?;
    let shown = view.secrets.iter().filter(|secret| {
        filters.prefix("id", secret.id.as_str())
            && filters.prefix("name", &secret.spec.name)
            && filters.exact("names", &secret.spec.name)
            && filters.labels("label", &secret.spec.labels)
    });
    ok(&shown.map(|secret| SecretView::new(secret)).collect::<Vec<_>>())
}

/// `POST /secrets/create`
pub(super) async fn create_secret(
    State(node): Node,
    Json(spec): Json<SecretSpec>,
) -> Result<Response, ApiError> {
    let id = control(&*node)?.create_secret(spec).await?;
    Ok(json(StatusCode::CREATED, &Created { id }))
}

/// `GET /secrets/{id}`
pub(super) async fn inspect_secret(
    State(node): Node,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let secret = control(&*node)?.view()?.find_secret(&id)?;
    ok(&SecretView::new(&secret))
}

/// `POST /secrets/{id}/update`
pub(super) async fn update_secret(
    State(node): Node,
    Path(id): Path<String>,
    query: Query,
    Json(spec): Json<SecretSpec>,
) -> Result<StatusCode, ApiError> {
    let version = query.version("secret")?;
    control(&*node)?.update_secret(&id, version, spec).await?;
    Ok(StatusCode::OK)
}

/// `DELETE /secrets/{id}`
pub(super) async fn remove_secret(
    State(node): Node,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    control(&*node)?.remove_secret(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /configs`
pub(super) async fn list_configs(State(node): Node, query: Query) -> Result<Response, ApiError> {
    let filters = Filters::read(&query, &["id", "name", "names", "label"])?;
    let view = control(&*node)?.view()?;
    let shown = view.configs.iter().filter(|config| {
        filters.prefix("id", config.id.as_str())
            && filters.prefix("name", &config.spec.name)
            && filters.exact("names", &config.spec.name)
            && filters.labels("label", &config.spec.labels)
    });
    ok(&shown.map(|config| ConfigView::new(config)).collect::<Vec<_>>())
}

/// `POST /configs/create`
pub(super) async fn create_config(
    State(node): Node,
    Json(spec): Json<ConfigSpec>,
) -> Result<Response, ApiError> {
    let id = control(&*node)?.create_config(spec).await?;
    Ok(json(StatusCode::CREATED, &Created { id }))
}

/// `GET /configs/{id}`
pub(super) async fn inspect_config(
    State(node): Node,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let config = control(&*node)?.view()?.find_config(&id)?;
    ok(&ConfigView::new(&config))
}

/// `POST /configs/{id}/update`
pub(super) async fn update_config(
    State(node): Node,
    Path(id): Path<String>,
    query: Query,
    Json(spec): Json<ConfigSpec>,
) -> Result<StatusCode, ApiError> {
    let version = query.version("config")?;
    control(&*node)?.update_config(&id, version, spec).await?;
    Ok(StatusCode::OK)
}

/// `DELETE /configs/{id}`
pub(super) async fn remove_config(
    State(node): Node,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    control(&*node)?.remove_config(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
