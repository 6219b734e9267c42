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
//! | `forward` | what a follower has its leader do |
//! | `machine` | what an entry does: apply batches, fenced by their epoch |
//! | `log`, `snapshot` | what is on disk, when it is durable, how it is found again |
//! | `step_down` | when a leader gives the lead away by itself |
//! | `recover` | how a cluster goes on with one manager |
//! | `backup` | a store as one file, and a store that begins with one |
//! | `frame`, `record`, `seal`, `keys`, `disk` | the bytes, their encryption, and the one door to the disk |
//! | `renew` | when an old data key is needed no more |
//! | `link`, `wire`, `network` | the one door to other managers, and what goes through it |
//! | `pipeline` | how many messages with entries are on their way at once, and what answers mean |
//!
//! openraft's types appear nowhere in the public interface, nor do they decide any byte on disk or
//! between managers: it is a pre-release, and its formats may change.

mod addresses;
mod backup;
mod config;
mod disk;
mod error;
mod forward;
mod frame;
mod handover;
mod keys;
mod link;
mod log;
mod machine;
mod members;
mod network;
mod pipeline;
mod propose;
mod record;
mod recover;
mod renew;
mod seal;
mod snapshot;
mod step_down;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod wire;

pub use backup::Backup;
pub use config::RaftConfig;
pub use disk::{Disk, DiskFile, FsDisk, replace_file};
pub use error::{MemberError, OpenError};
pub use link::{LinkError, LocalLinks, Message, MessageKind, NoPeers, Peer, RaftLink};
pub use members::{Member, RaftStatus};
pub use recover::{Recovered, recovery_epoch};
pub use seal::SealKey;
pub use store::RaftStore;
