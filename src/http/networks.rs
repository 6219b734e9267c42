//! `/networks`: the cluster's networks. Those of single engines are theirs.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use swarm_core::model::{Driver, IpamConfig, IpamOptions, Labels, Network, NetworkId, NetworkSpec};
use swarm_core::store::Snapshot;

use super::body::Json;
use super::error::{bad, internal, json, ok};
use super::filter::Filters;
use super::query::Query;
use super::view::NetworkView;
use super::{Node, control};
use crate::error::{ApiError, Code};
use crate::manager::control::Find as _;

const FILTERS: [&str; 7] = ["id", "name", "driver", "scope", "type", "label", "dangling"];

swarm_core::object! {
    /// The address ranges of a network to create.
    pub struct CreateIpam {
        /// The address manager.
        driver: String = "Driver" omit,
        /// Its options.
        options: Labels = "Options" omit,
        /// The ranges.
        config: Vec<IpamConfig> = "Config" omit,
    }
}

swarm_core::object! {
    /// The body of `POST /networks/create`.
    pub struct CreateNetwork {
        /// The name.
        name: String = "Name" omit,
        /// The driver.
        driver: String = "Driver" omit,
        /// The driver's options.
        options: Labels = "Options" omit,
        /// `swarm` or nothing.
        scope: String = "Scope" omit,
        /// The address ranges.
        ipam: Option<CreateIpam> = "IPAM" omit,
        /// Whether it carries IPv6 too.
        ipv6: bool = "EnableIPv6" omit,
        /// Whether it has no way out.
        internal: bool = "Internal" omit,
        /// Whether containers outside services may join.
        attachable: bool = "Attachable" omit,
        /// Whether it is the network of the published ports.
        ingress: bool = "Ingress" omit,
        /// Whether it only lends its settings to others.
        config_only: bool = "ConfigOnly" omit,
        /// Labels.
        labels: Labels = "Labels" omit,
    }
}

impl From<CreateNetwork> for NetworkSpec {
    fn from(body: CreateNetwork) -> Self {
        let ipam = body.ipam.map(|ipam| IpamOptions {
            driver: Driver { name: ipam.driver, options: ipam.options, ..Default::default() },
            configs: ipam.config,
            ..Default::default()
        });
        // The engine's default, and one that a cluster does not have.
        let driver = if body.driver.is_empty() { "bridge".to_owned() } else { body.driver };
        Self {
            name: body.name,
            labels: body.labels,
            driver: Driver { name: driver, options: body.options, ..Default::default() },
            ipv6: body.ipv6,
            internal: body.internal,
            attachable: body.attachable,
            ingress: body.ingress,
            ipam,
            scope: body.scope,
            ..Default::default()
        }
    }
}

/// `GET /networks`: on a node that does not manage the cluster there are none to show.
pub(super) async fn list(State(node): Node, query: Query) -> Result<Response, ApiError> {
    let filters = Filters::read(&query, &FILTERS)?;
    let Some(control) = node.control() else { return ok(&[(); 0]) };
    let view = control.view()?;
    let shown = view.networks.iter().filter(|network| matches(&view, network, &filters));
    ok(&shown.map(|network| NetworkView::new(network)).collect::<Vec<_>>())
}

fn matches(view: &Snapshot, network: &Network, filters: &Filters) -> bool {
    let dangling = |word: &str| {
        let used = view.services_in(network.id).next().is_some();
        !used == matches!(word, "1" | "true" | "True")
    };
    let driver = match network.spec.driver.name.as_str() {
        "" => "overlay",
        driver => driver,
    };
    !network.pending_delete
        && filters.prefix("id", network.id.as_str())
        && filters.any("name", |part| network.spec.name.contains(part))
        && filters.exact("driver", driver)
        && filters.exact("scope", "swarm")
        && filters.exact("type", "custom")
        && filters.labels("label", &network.spec.labels)
        && filters.any("dangling", dangling)
}

/// `GET /networks/{id}`
pub(super) async fn inspect(
    State(node): Node,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let missing = || ApiError::plain(Code::NotFound, format!("network {id} not found"));
    let control = node.control().ok_or_else(missing)?;
    if !matches!(query.get("scope"), "" | "swarm") {
        return Err(missing());
    }
    let network = control.view()?.find_network(&id)?;
    ok(&NetworkView::new(&network))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: NetworkId,
    warning: &'static str,
}

/// `POST /networks/create`
pub(super) async fn create(
    State(node): Node,
    Json(body): Json<CreateNetwork>,
) -> Result<Response, ApiError> {
    // The one call whose refusal on other nodes is 500 and not 503.
    let control = control(&*node).map_err(|error| internal(error.message))?;
    if body.config_only || body.extra.get("ConfigFrom").is_some_and(|from| !from.is_null()) {
        let text = "config-only networks belong to one engine: not supported by this manager";
        return Err(ApiError::plain(Code::Unimplemented, text));
    }
    if body.name.is_empty() {
        return Err(bad("network name cannot be blank"));
    }
    let id = control.create_network(body.into()).await?;
    Ok(json(StatusCode::CREATED, &Created { id, warning: "" }))
}

/// `DELETE /networks/{id}`
pub(super) async fn remove(
    State(node): Node,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    control(&*node)?.remove_network(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /networks/prune`
pub(super) async fn prune(State(node): Node, query: Query) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Pruned {
        networks_deleted: Vec<String>,
    }
    let filters = Filters::read(&query, &["label"])?;
    let control = control(&*node)?;
    let mut networks_deleted = Vec::new();
    let view = control.view()?;
    let custom = |network: &&std::sync::Arc<Network>| {
        !network.spec.ingress && matches(&view, network, &filters)
    };
    for network in view.networks.iter().filter(custom) {
        // What is in use stays: that is what pruning means.
        if control.remove_network(network.id.as_str()).await.is_ok() {
            networks_deleted.push(network.spec.name.clone());
        }
    }
    ok(&Pruned { networks_deleted })
}

/// `POST /networks/{id}/connect` and `/disconnect`: there are no containers here.
pub(super) async fn no_container(Json(body): Json<serde_json::Value>) -> ApiError {
    let container = body.get("Container").and_then(|name| name.as_str()).unwrap_or_default();
    ApiError::plain(Code::NotFound, format!("No such container: {container}"))
}
