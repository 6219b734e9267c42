//! A durable, replicated [`Store`](swarm_core::store::Store) over openraft: the log, snapshots,
//! encryption at rest, and the link between managers.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use swarm_raft::{NoPeers, RaftConfig, RaftStore};
//!
//! let store = RaftStore::open(RaftConfig::new("/var/lib/swarm/raft", 1), Arc::new(NoPeers)).await?;
//! store.initialize("10.0.0.1:2377").await?; // the first manager of a new cluster only
//! # Ok(()) }
//! ```
//!
//! | module | what it decides |
//! |---|---|
//! | `store`, `members`, `propose` | the store, its members, how concurrent writes share an entry |
//! | `machine` | what an entry does: apply batches, fenced by their epoch |
//! | `log`, `snapshot` | what is on disk, when it is durable, how it is found again |
//! | `frame`, `record`, `seal`, `disk` | the bytes, their encryption, and the one door to the disk |
//! | `link`, `wire`, `network` | the one door to other managers, and what goes through it |
//!
//! openraft's types appear nowhere in the public interface, nor do they decide any byte on disk or
//! between managers: it is a pre-release, and its formats may change.

mod config;
mod disk;
mod error;
mod frame;
mod link;
mod log;
mod machine;
mod members;
mod network;
mod propose;
mod record;
mod seal;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod wire;

pub use config::RaftConfig;
pub use disk::{Disk, DiskFile, FsDisk};
pub use error::{MemberError, OpenError};
pub use link::{LinkError, LocalLinks, Message, MessageKind, NoPeers, Peer, RaftLink};
pub use members::{Member, RaftStatus};
pub use store::RaftStore;
