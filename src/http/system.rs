//! The engine's own endpoints, as far as a swarm manager has answers for them.

use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use swarm_core::model::{Cluster, NodeDescription, NodeRole};

use super::error::{json, ok};
use super::view::ClusterView;
use super::{LocalState, LocalStatus, MAX_API_VERSION, MIN_API_VERSION, Node, RemoteManager};
use crate::error::{ApiError, Code};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET` and `HEAD /_ping`: what clients negotiate the version by.
pub(super) async fn ping(State(node): Node, method: Method) -> Response {
    let status = node.status();
    let place = match status.state {
        LocalState::Active if status.control_available => "active/manager",
        LocalState::Active => "active/worker",
        other => other.as_str(),
    };
    let fixed = HeaderValue::from_static;
    let headers = [
        (HeaderName::from_static("swarm"), fixed(place)),
        (HeaderName::from_static("builder-version"), fixed("2")),
        (header::CACHE_CONTROL, fixed("no-cache, no-store, must-revalidate")),
        (header::PRAGMA, fixed("no-cache")),
        (header::CONTENT_TYPE, fixed("text/plain; charset=utf-8")),
    ];
    let mut response = (headers, if method == Method::HEAD { "" } else { "OK" }).into_response();
    if method == Method::HEAD {
        response.headers_mut().insert(header::CONTENT_LENGTH, fixed("0"));
    }
    response
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    name: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    name: &'static str,
    version: &'static str,
    details: Details,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Details {
    api_version: String,
    arch: &'static str,
    experimental: &'static str,
    #[serde(rename = "MinAPIVersion")]
    min_api_version: String,
    os: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct VersionView {
    platform: Named,
    components: [Component; 1],
    version: &'static str,
    api_version: String,
    #[serde(rename = "MinAPIVersion")]
    min_api_version: String,
    git_commit: &'static str,
    go_version: &'static str,
    os: &'static str,
    arch: &'static str,
    kernel_version: String,
    build_time: &'static str,
}

/// Go's name for this machine's architecture.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `GET /version`
pub(super) async fn version() -> Result<Response, ApiError> {
    let (max, min) = (MAX_API_VERSION.to_string(), MIN_API_VERSION.to_string());
    ok(&VersionView {
        platform: Named { name: "swarm" },
        components: [Component {
            name: "Engine",
            version: VERSION,
            details: Details {
                api_version: max.clone(),
                arch: arch(),
                experimental: "false",
                min_api_version: min.clone(),
                os: std::env::consts::OS,
            },
        }],
        version: VERSION,
        api_version: max,
        min_api_version: min,
        git_commit: "",
        go_version: "",
        os: std::env::consts::OS,
        arch: arch(),
        kernel_version: kernel(),
        build_time: "",
    })
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SwarmInfo<'a> {
    #[serde(rename = "NodeID")]
    node_id: swarm_core::model::NodeId,
    node_addr: String,
    local_node_state: LocalState,
    control_available: bool,
    error: String,
    remote_managers: Option<Vec<RemoteManager>>,
    #[serde(skip_serializing_if = "is_zero")]
    nodes: usize,
    #[serde(skip_serializing_if = "is_zero")]
    managers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterView<'a>>,
    warnings: Option<Vec<&'static str>>,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

const TWO_MANAGERS: &str = "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n         no fault tolerance, and poses a high risk to lose control over the cluster.\n         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n         Swarm for fault-tolerance.";

/// `GET /info`: answers in every state of the swarm.
pub(super) async fn info(State(node): Node) -> Result<Response, ApiError> {
    let status = node.status();
    let view = node.control().map(|control| control.store.snapshot());
    let managers = view.as_ref().map_or(0, |view| {
        view.nodes.iter().filter(|node| node.spec.role == NodeRole::Manager).count()
    });
    let nodes = view.as_ref().map_or(0, |view| view.nodes.len());
    let cluster = view.as_ref().and_then(|view| view.cluster());
    let swarm = swarm_info(status, nodes, managers, cluster.map(|cluster| &**cluster));
    let description = node.description().await;
    ok(&Info::new(&description, swarm))
}

fn swarm_info(
    status: LocalStatus,
    nodes: usize,
    managers: usize,
    cluster: Option<&Cluster>,
) -> SwarmInfo<'_> {
    let known = status.remote_managers;
    SwarmInfo {
        node_id: status.node_id,
        node_addr: status.node_addr,
        local_node_state: status.state,
        control_available: status.control_available,
        error: status.error,
        remote_managers: (!known.is_empty()).then_some(known),
        nodes,
        managers,
        cluster: cluster.map(|cluster| ClusterView::new(cluster, false)),
        warnings: (managers == 2).then(|| vec![TWO_MANAGERS]),
    }
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PluginNames<'a> {
    volume: Vec<&'a str>,
    network: Vec<&'a str>,
    authorization: Option<()>,
    log: Vec<&'a str>,
}

/// What `docker info` prints. What only an engine has is zero or absent.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Info<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    containers: u32,
    containers_running: u32,
    containers_paused: u32,
    containers_stopped: u32,
    images: u32,
    driver: &'static str,
    plugins: PluginNames<'a>,
    system_time: String,
    kernel_version: String,
    operating_system: &'static str,
    #[serde(rename = "OSType")]
    os_type: &'a str,
    architecture: &'a str,
    #[serde(rename = "NCPU")]
    cpus: i64,
    mem_total: i64,
    name: &'a str,
    labels: Vec<String>,
    experimental_build: bool,
    server_version: &'static str,
    swarm: SwarmInfo<'a>,
    warnings: Option<()>,
}

impl<'a> Info<'a> {
    fn new(node: &'a NodeDescription, swarm: SwarmInfo<'a>) -> Self {
        let plugins = |kind: &str| {
            let of_kind = node.engine.plugins.iter().filter(|plugin| plugin.kind == kind);
            of_kind.map(|plugin| plugin.name.as_str()).collect()
        };
        let or = |text: &'a str, default: &'a str| if text.is_empty() { default } else { text };
        Self {
            id: &node.engine.engine_id,
            containers: 0,
            containers_running: 0,
            containers_paused: 0,
            containers_stopped: 0,
            images: 0,
            driver: "",
            plugins: PluginNames {
                volume: plugins("Volume"),
                network: plugins("Network"),
                authorization: None,
                log: plugins("Log"),
            },
            system_time: jiff::Timestamp::now().to_string(),
            kernel_version: kernel(),
            operating_system: "swarm",
            os_type: or(&node.platform.os, std::env::consts::OS),
            architecture: or(&node.platform.architecture, std::env::consts::ARCH),
            cpus: node.resources.nano_cpus / 1_000_000_000,
            mem_total: node.resources.memory_bytes,
            name: &node.hostname,
            labels: node
                .engine
                .labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            experimental_build: false,
            server_version: VERSION,
            swarm,
            warnings: None,
        }
    }
}

/// `GET /system/df`: this node keeps no images, containers or volumes of its own.
pub(super) async fn disk_usage() -> Result<Response, ApiError> {
    #[derive(Default, Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Usage {
        layers_size: u64,
        images: [(); 0],
        containers: [(); 0],
        volumes: [(); 0],
        build_cache: [(); 0],
    }
    ok(&Usage::default())
}

/// `GET /distribution/{image}/json`: no registry is asked. The error makes the CLI go on with the
/// tag as it is, at once.
pub(super) async fn distribution(Path(image): Path<String>) -> Response {
    let image = image.strip_suffix("/json").unwrap_or(&image);
    let text = format!(
        "this manager does not ask registries: {image} is resolved on the nodes that run it"
    );
    super::error::internal(text).into_response()
}

/// `POST /auth`
pub(super) async fn no_registry() -> ApiError {
    ApiError::plain(Code::Unimplemented, "this manager does not log in to registries")
}

/// `GET /volumes`
pub(super) async fn volumes() -> Result<Response, ApiError> {
    #[derive(Default, Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Volumes {
        volumes: [(); 0],
        warnings: Option<()>,
    }
    ok(&Volumes::default())
}

/// `POST /volumes/create`
pub(super) async fn no_volumes() -> ApiError {
    ApiError::plain(
        Code::Unimplemented,
        "this manager keeps no volumes: services create theirs on the nodes that run them",
    )
}

/// `GET /volumes/{name}`
pub(super) async fn no_volume(Path(name): Path<String>) -> ApiError {
    ApiError::plain(Code::NotFound, format!("get {name}: no such volume"))
}

/// Lists of what only an engine has.
pub(super) async fn nothing() -> Response {
    json(StatusCode::OK, &[(); 0])
}

/// `GET /containers/{id}/…`
pub(super) async fn no_container(Path(rest): Path<String>) -> ApiError {
    let id = rest.split('/').next().unwrap_or_default();
    ApiError::plain(Code::NotFound, format!("No such container: {id}"))
}

/// `GET /images/{name}/…`
pub(super) async fn no_image(Path(rest): Path<String>) -> ApiError {
    let name = rest.rsplit_once('/').map_or(rest.as_str(), |(name, _)| name);
    let tag = if name.contains(':') { "" } else { ":latest" };
    ApiError::plain(Code::NotFound, format!("No such image: {name}{tag}"))
}

/// `GET /plugins/{name}/json`
pub(super) async fn no_plugin(Path(rest): Path<String>) -> ApiError {
    let name = rest.strip_suffix("/json").unwrap_or(&rest);
    ApiError::plain(Code::NotFound, format!("plugin {name:?} not found"))
}
