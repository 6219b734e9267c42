//! The calls between nodes: gRPC over mutual TLS, with JSON messages.
//!
//! The services are written by hand: a [table](authorize::Method) of methods with who may call
//! each, the [messages](message), [traits](service) that a manager implements, a
//! [server](server::serve) and a [client](client::ManagerClient). The framing, flow control and
//! multiplexing are tonic's; the codec makes the messages serde values with named members, so
//! that neighbouring versions understand each other and no second model exists.

pub mod authorize;
pub mod client;
mod codec;
mod connection;
mod handler;
mod link;
pub mod message;
mod raft;
pub mod server;
pub mod service;
mod status;

pub use link::{ManagerLink, Whereabouts};
pub use raft::{RaftCall, RpcLink};

#[cfg(test)]
mod tests;

/// The largest message that a manager takes from a node, in bytes: gRPC's own default.
pub const MAX_FROM_NODE: usize = 4 << 20;
/// The largest message that a node takes from its manager, and managers from each other, in bytes. Larger, because a complete
/// set of assignments must fit into one message, and a node has no reason to distrust a manager.
pub const MAX_FROM_MANAGER: usize = 64 << 20;
