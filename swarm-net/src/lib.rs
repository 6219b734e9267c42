//! Network drivers of the swarm orchestrator: how tasks reach each other, and how they are
//! reached.
//!
//! | driver | tasks' networks | for |
//! |---|---|---|
//! | [`Bridge`] | one bridge of the Docker Engine for each network, names by the engine's DNS | nodes with a Docker Engine |
//! | [`HostNetwork`] | none: tasks share the host's network | tasks that are processes |
//! | [`MemoryNetwork`] | in a table | tests and simulation |
//!
//! Each carries published ports; the first two do so with an [`IngressProxy`], which any other
//! driver can use too.

pub mod balance;
mod bridge;
mod host;
mod memory;
#[cfg(test)]
mod testing;

pub use balance::IngressProxy;
pub use bridge::{Bridge, BridgeConfig};
pub use host::HostNetwork;
pub use memory::MemoryNetwork;
