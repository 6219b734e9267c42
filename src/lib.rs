//! Docker Swarm mode as a library: an embeddable container orchestrator.
//!
//! This crate is the assembly. It re-exports the parts and owns what is not swappable: identity,
//! the calls between nodes, the Docker Engine API, and the manager and worker builders.
//!
//! A node that the `docker` CLI can talk to, with tasks as plain processes:
//!
//! ```
//! use std::sync::Arc;
//! use swarm::http::{InitRequest, LocalNode as _};
//! use swarm::node::{Node, NodeConfig, ProcessRuntime};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! let dir = "/var/lib/my-product";
//! let socket = "unix:///run/my-product.sock";
//! # let dir = temporary.path().join("state");
//! # let socket = format!("unix://{}", temporary.path().join("product.sock").display());
//! let mut config = NodeConfig::new(dir, Arc::new(ProcessRuntime));
//! config.advertise = Some("10.0.0.5".into());
//! # config.advertise = Some("127.0.0.1".into());
//! # config.listen = Some("127.0.0.1:0".parse()?);
//! let node = Node::start(config).await?;
//! node.init(InitRequest::default()).await?;
//! let listeners = swarm::http::bind(&[socket.parse()?], None, false).await?;
//! let stop = CancellationToken::new();
//! # stop.cancel();
//! swarm::http::serve(listeners, node.clone(), stop).await;
//! # assert!(node.status().control_available);
//! # node.leave(true).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The examples show every other way to embed: a cluster in one process, and a scheduler, a
//! control loop, an executor and a secret store of one's own.

#[cfg(test)]
mod crash_disk;
pub mod error;
pub mod http;
pub mod identity;
pub mod manager;
pub mod node;
pub mod rpc;
#[cfg(feature = "sim")]
pub mod sim;
pub mod worker;

pub use swarm_compose as compose;
pub use swarm_core as core;
pub use swarm_net as net;
pub use swarm_raft as raft;
pub use swarm_runtime as runtime;
pub use swarm_sched as sched;
