//! `/swarm`: this node's membership and the cluster's settings.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use swarm_core::model::{ClusterSpec, NodeRole, Reachability};

use super::body::Json;
use super::error::ok;
use super::query::Query;
use super::view::ClusterView;
use super::{InitRequest, JoinRequest, LocalNode, LocalState, Node, UnlockRequest, control};
use crate::error::{ApiError, Code};
use crate::manager::control::{Find as _, Rotate, check_services};

fn unavailable(text: impl Into<String>) -> ApiError {
    ApiError::plain(Code::Unavailable, text)
}

/// Refuses `init` and `join` on a member.
fn outside(node: &dyn LocalNode) -> Result<(), ApiError> {
    match node.status().state {
        LocalState::Inactive => Ok(()),
        _ => Err(unavailable(
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
        )),
    }
}

/// `GET /swarm`
pub(super) async fn inspect(State(node): Node) -> Result<Response, ApiError> {
    let cluster = control(&*node)?.view()?.the_cluster()?;
    ok(&ClusterView::new(&cluster, true))
}

/// `POST /swarm/init`
pub(super) async fn init(
    State(node): Node,
    Json(request): Json<InitRequest>,
) -> Result<Response, ApiError> {
    if !request.force_new_cluster {
        outside(&*node)?;
    }
    check_services(&request.spec.ca_config.external_cas)?;
    ok(&node.init(request).await?)
}

/// `POST /swarm/join`
pub(super) async fn join(
    State(node): Node,
    Json(request): Json<JoinRequest>,
) -> Result<StatusCode, ApiError> {
    outside(&*node)?;
    node.join(request).await?;
    Ok(StatusCode::OK)
}

/// `POST /swarm/leave`
pub(super) async fn leave(State(node): Node, query: Query) -> Result<StatusCode, ApiError> {
    if node.status().state == LocalState::Inactive {
        return Err(unavailable("This node is not part of a swarm"));
    }
    let force = query.flag("force");
    if node.status().state == LocalState::Locked && !force {
        return Err(unavailable(
            "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.",
        ));
    }
    if let (Some(control), false) = (node.control(), force) {
        return Err(unavailable(warning(&control.store.snapshot())));
    }
    node.leave(force).await?;
    Ok(StatusCode::OK)
}

/// What a manager loses by leaving (moby: `Cluster.Leave`).
fn warning(view: &swarm_core::store::Snapshot) -> String {
    let managers: Vec<_> =
        view.nodes.iter().filter(|node| node.spec.role == NodeRole::Manager).collect();
    let reachable = |node: &&&std::sync::Arc<swarm_core::model::Node>| {
        let status = node.manager_status.as_ref();
        status.is_some_and(|status| status.reachability == Reachability::Reachable)
    };
    let (all, up) = (managers.len(), managers.iter().filter(reachable).count());
    let start =
        "You are attempting to leave the swarm on a node that is participating as a manager. ";
    let end = "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.";
    if all <= 1 {
        return format!(
            "{start}Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
        );
    }
    let left = up.saturating_sub(1);
    if left < all / 2 + 1 {
        return format!(
            "{start}Removing this node leaves {left} managers out of {all}. Without a Raft quorum your swarm will be inaccessible. {end}"
        );
    }
    format!("{start}Doing so may lose the consensus of your cluster. {end}")
}

/// `POST /swarm/update`
pub(super) async fn update(
    State(node): Node,
    query: Query,
    Json(spec): Json<ClusterSpec>,
) -> Result<StatusCode, ApiError> {
    let version = query.version("swarm")?;
    let rotate = Rotate {
        worker_token: query.strict("rotateWorkerToken")?,
        manager_token: query.strict("rotateManagerToken")?,
        unlock_key: query.strict("rotateManagerUnlockKey")?,
    };
    control(&*node)?.update_cluster(version, spec, rotate).await?;
    Ok(StatusCode::OK)
}

/// `GET /swarm/unlockkey`
pub(super) async fn unlock_key(State(node): Node) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Key<'a> {
        unlock_key: &'a str,
    }
    ok(&Key { unlock_key: &control(&*node)?.unlock_key()? })
}

/// `POST /swarm/unlock`
pub(super) async fn unlock(
    State(node): Node,
    Json(request): Json<UnlockRequest>,
) -> Result<StatusCode, ApiError> {
    match node.status().state {
        LocalState::Locked => {}
        LocalState::Inactive => return Err(unavailable("This node is not part of a swarm")),
        _ => {
            control(&*node)?;
            return Err(ApiError::plain(Code::AlreadyExists, "swarm is not locked"));
        }
    }
    node.unlock(request).await?;
    Ok(StatusCode::OK)
}
