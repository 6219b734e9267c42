//! NEW → PENDING: networks get ranges, services get addresses and ports, tasks get addresses.
//!
//! [`Allocate`] runs between the orchestrators and the scheduler, in the same step. It keeps
//! nothing: what is in use is read from the view, and written into the objects themselves.

mod desk;
pub mod ipam;
mod planner;
pub mod ports;

pub use planner::Allocate;
pub use ports::{PortConflict, port_conflict};
pub use swarm_core::network::{OVERLAY, VXLAN_ID, allocate_overlay};

use self::ipam::Cidr;

/// Why something cannot be allocated for now. Its text becomes the object's `stalled` or the
/// task's error; the planner tries again by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stall {
    /// A range is not an IPv4 CIDR.
    #[error("{0:?} is not an IPv4 range such as 10.0.1.0/24")]
    BadRange(String),
    /// A range that was asked for collides with another network's.
    #[error("range {range} overlaps the one of network {network}: choose another")]
    Overlap {
        /// The range.
        range: Cidr,
        /// The other network.
        network: String,
    },
    /// No range is left.
    #[error("no /{size} range is left in the address pool {pools}: remove networks")]
    PoolExhausted {
        /// The pool.
        pools: String,
        /// The length of the mask.
        size: u32,
    },
    /// No address is left.
    #[error("no address is left in network {network} ({ranges})")]
    NoAddress {
        /// The network.
        network: String,
        /// Its ranges.
        ranges: String,
    },
    /// No automatic port is left.
    #[error("no port from 30000 to 32767 is left to publish")]
    NoPort,
    /// Another service has the port. Swarm's text.
    #[error("{0}")]
    Port(String),
    /// The network is not there.
    #[error("network {0} not found")]
    NoNetwork(String),
    /// The network is there and has no ranges yet.
    #[error("network {name} is not allocated yet: {why}")]
    Unallocated {
        /// The network.
        name: String,
        /// What it waits for.
        why: String,
    },
    /// Published ports need the ingress network. Swarm's text.
    #[error("service needs ingress network, but no ingress network is present")]
    NoIngress,
    /// Nobody knows the driver.
    #[error("no network driver {0:?} is registered with the managers")]
    NoDriver(String),
    /// The driver refused.
    #[error("network driver {driver}: {why}")]
    Driver {
        /// The driver.
        driver: String,
        /// Why.
        why: String,
    },
}

#[cfg(test)]
mod law_tests;
#[cfg(test)]
mod tests;
