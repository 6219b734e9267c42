//! The swarm part of the Docker Engine HTTP API, as docker's CLI and the tools around it use it.
//! `docs/docker-api.md` lists what works; behaviour and texts follow moby 28 (`daemon/server`,
//! `daemon/cluster`).
//!
//! [`router`] answers requests for a [`LocalNode`]; [`serve`] puts it on sockets. A request meets
//! the version prefix first, then its route; a handler extracts, calls
//! [`Control`], and renders a view of what it got.

mod adjust;
mod backup;
mod body;
mod dispatch;
mod dry_run;
mod error;
mod events;
mod filter;
mod listen;
mod local;
mod logs;
mod networks;
mod nodes;
mod query;
mod secrets;
mod serve;
mod services;
mod swarm;
mod system;
mod tasks;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

pub use dispatch::{ApiVersion, MAX_API_VERSION, MIN_API_VERSION};
pub use listen::{ListenError, ListenSpec, Listener, TlsFiles, bind};
pub use local::{
    Backup, CERTIFICATES_EXPIRED, InitRequest, JoinRequest, LOCKED, LocalNode, LocalState,
    LocalStatus, LookForRequest, RemoteManager, UnlockRequest,
};
pub use serve::serve;

use crate::error::{ApiError, Code};
use crate::manager::control::Control;

/// What handlers share.
type Node = axum::extract::State<Arc<dyn LocalNode>>;

/// The API as a service, without sockets: for servers of the embedder's own, and for tests.
pub fn router(node: Arc<dyn LocalNode>) -> Router {
    let routes = Router::new()
        .merge(of_the_system())
        .merge(of_the_node())
        .merge(of_the_swarm().merge(of_our_own()).layer(from_fn_with_state(node.clone(), fresh)))
        .fallback(error::page_not_found)
        .method_not_allowed_fallback(error::page_not_found)
        .with_state(node);
    dispatch::versioned(routes)
}

fn of_the_system() -> Router<Arc<dyn LocalNode>> {
    Router::new()
        .route("/_ping", get(system::ping).head(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(events::events))
        .route("/system/df", get(system::disk_usage))
        .route("/distribution/{*image}", get(system::distribution))
        .route("/auth", post(system::no_registry))
        .route("/volumes", get(system::volumes))
        .route("/volumes/create", post(system::no_volumes))
        .route("/volumes/{name}", get(system::no_volume).delete(system::no_volume))
        .route("/containers/json", get(system::nothing))
        .route("/containers/{*rest}", get(system::no_container).post(system::no_container))
        .route("/images/json", get(system::nothing))
        .route("/images/{*rest}", get(system::no_image))
        .route("/plugins", get(system::nothing))
        .route("/plugins/{*rest}", get(system::no_plugin))
}

/// A node's own place in a swarm.
fn of_the_node() -> Router<Arc<dyn LocalNode>> {
    Router::new()
        .route("/swarm/init", post(swarm::init))
        .route("/swarm/join", post(swarm::join))
        .route("/swarm/leave", post(swarm::leave))
        .route("/swarm/unlock", post(swarm::unlock))
}

/// The cluster's objects, as every manager has them.
fn of_the_swarm() -> Router<Arc<dyn LocalNode>> {
    Router::new()
        .route("/swarm", get(swarm::inspect))
        .route("/swarm/update", post(swarm::update))
        .route("/swarm/unlockkey", get(swarm::unlock_key))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{id}", get(nodes::inspect).delete(nodes::remove))
        .route("/nodes/{id}/update", post(nodes::update))
        .route("/services", get(services::list))
        .route("/services/create", post(services::create))
        .route("/services/{id}", get(services::inspect).delete(services::remove))
        .route("/services/{id}/update", post(services::update))
        .route("/services/{id}/logs", get(logs::of_service))
        .route("/tasks", get(tasks::list))
        .route("/tasks/{id}", get(tasks::inspect))
        .route("/tasks/{id}/logs", get(logs::of_task))
        .route("/networks", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune))
        .route("/networks/{id}", get(networks::inspect).delete(networks::remove))
        .route("/networks/{id}/connect", post(networks::no_container))
        .route("/networks/{id}/disconnect", post(networks::no_container))
        .route("/secrets", get(secrets::list_secrets))
        .route("/secrets/create", post(secrets::create_secret))
        .route("/secrets/{id}", get(secrets::inspect_secret).delete(secrets::remove_secret))
        .route("/secrets/{id}/update", post(secrets::update_secret))
        .route("/configs", get(secrets::list_configs))
        .route("/configs/create", post(secrets::create_config))
        .route("/configs/{id}", get(secrets::inspect_config).delete(secrets::remove_config))
        .route("/configs/{id}/update", post(secrets::update_config))
}

/// What Docker's engine has not: all of it below `/x-swarm`, so that it stays apart.
fn of_our_own() -> Router<Arc<dyn LocalNode>> {
    Router::new()
        .route("/x-swarm/backup", post(backup::take))
        .route("/x-swarm/managers", post(backup::look_for))
        .route("/x-swarm/dry-run/services/create", post(dry_run::create))
        .route("/x-swarm/dry-run/services/{id}/update", post(dry_run::update))
}

/// Whoever reads sees every write that was acknowledged before, through whichever manager. (Swarm reads
/// what the leader believes, be it cut off from the others or not.)
async fn fresh(State(node): Node, request: Request, next: Next) -> Response {
    if request.method() == Method::GET
        && let Some(control) = node.control()
        && let Err(error) = control.up_to_date().await
    {
        return error.into_response();
    }
    next.run(request).await
}

/// The control API of a manager, or why there is none (moby: `errNoManager`).
fn control(node: &dyn LocalNode) -> Result<Arc<Control>, ApiError> {
    if let Some(control) = node.control() {
        return Ok(control);
    }
    let status = node.status();
    let text = match status.state {
        LocalState::Locked => LOCKED,
        LocalState::Active if status.control_available => {
            "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."
        }
        LocalState::Active => {
            "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager."
        }
        LocalState::Error if status.error == CERTIFICATES_EXPIRED => CERTIFICATES_EXPIRED,
        LocalState::Error => {
            let why = format!("This node cannot take its place in the swarm: {}", status.error);
            return Err(ApiError::plain(Code::Unavailable, why));
        }
        _ => {
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."
        }
    };
    Err(ApiError::plain(Code::Unavailable, text))
}
