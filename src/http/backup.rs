//! `/x-swarm/backup` and `/x-swarm/managers`: a manager as one file, and how nodes find the manager that
//! was made from it.

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::body::Json;
use super::{LookForRequest, Node, control};
use crate::error::ApiError;

/// `POST /x-swarm/backup`
pub(super) async fn take(State(node): Node) -> Result<Response, ApiError> {
    control(&*node)?.up_to_date().await?;
    let body = Body::from_stream(node.backup().await?);
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

/// `POST /x-swarm/managers`
pub(super) async fn look_for(
    State(node): Node,
    Json(request): Json<LookForRequest>,
) -> Result<StatusCode, ApiError> {
    node.look_for(request.remote_addrs).await?;
    Ok(StatusCode::OK)
}
