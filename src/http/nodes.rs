//! `/nodes`

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use swarm_core::model::{Labels, Node as ClusterNode, NodeRole, NodeSpec};

use super::body::{Json, in_gos_words};
use super::error::{bad, internal, ok};
use super::filter::Filters;
use super::query::Query;
use super::view::NodeView;
use super::{Node, control};
use crate::error::ApiError;
use crate::manager::control::{Find as _, host_name};

const FILTERS: [&str; 6] = ["id", "name", "label", "node.label", "role", "membership"];

/// `GET /nodes`
pub(super) async fn list(State(node): Node, query: Query) -> Result<Response, ApiError> {
    let filters = Filters::read(&query, &FILTERS)?;
    let roles: Vec<NodeRole> = filters.words("role")?;
    let membership = filters.get("membership");
    if let Some(bad) =
        membership.iter().find(|word| !["accepted", "pending"].contains(&word.as_str()))
    {
        return Err(internal(format!("Invalid membership filter: '{bad}'")));
    }
    let view = control(&*node)?.view()?;
    let shown = view.nodes.iter().filter(|node| {
        (roles.is_empty() || roles.contains(&node.spec.role))
            && filters.exact("membership", "accepted")
            && matches(node, &filters)
    });
    ok(&shown.map(|node| NodeView::new(node)).collect::<Vec<_>>())
}

fn matches(node: &ClusterNode, filters: &Filters) -> bool {
    let none = Labels::new();
    let engine = node.description.as_ref().map_or(&none, |description| &description.engine.labels);
    filters.prefix("id", node.id.as_str())
        && filters.prefix("name", host_name(node))
        && filters.labels("label", engine)
        && filters.labels("node.label", &node.spec.labels)
}

/// `GET /nodes/{id}`
pub(super) async fn inspect(
    State(node): Node,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let found = control(&*node)?.view()?.find_node(&id)?;
    ok(&NodeView::new(&found))
}

/// `POST /nodes/{id}/update`
pub(super) async fn update(
    State(node): Node,
    Path(id): Path<String>,
    query: Query,
    Json(body): Json<Value>,
) -> Result<StatusCode, ApiError> {
    let version = query.version("node")?;
    // Unlike elsewhere an absent word is no default here: it would demote a manager.
    for word in ["Availability", "Role"] {
        let given = body.as_object().into_iter().flatten();
        let mut given = given.filter(|(key, value)| key.eq_ignore_ascii_case(word) && *value != "");
        if given.next().is_none_or(|(_, value)| value.is_null()) {
            return Err(bad(format!("invalid {word}: \"\"")));
        }
    }
    let spec: NodeSpec =
        serde_json::from_value(body).map_err(|error| bad(in_gos_words(&error, &[])))?;
    control(&*node)?.update_node(&id, version, spec).await?;
    Ok(StatusCode::OK)
}

/// `DELETE /nodes/{id}`
pub(super) async fn remove(
    State(node): Node,
    Path(id): Path<String>,
    query: Query,
) -> Result<StatusCode, ApiError> {
    control(&*node)?.remove_node(&id, query.flag("force")).await?;
    Ok(StatusCode::OK)
}
