//! The object model. Its serde shape *is* the JSON of the Docker Engine API, so that no layer
//! between the API, the store and the planners converts anything.
//!
//! Three groups of members exist. Members that Docker documents carry Docker's names. Members
//! that only this orchestrator has (a restart's start time, the revision) carry names that Docker
//! does not use; Docker's clients ignore them. Members that neither knows stay in `extra`.

mod cluster;
mod container;
pub mod defaults;
mod network;
mod node;
mod resources;
mod secret;
mod service;
mod state;
mod task;
pub mod validate;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use cluster::*;
pub use container::*;
pub use network::*;
pub use node::*;
pub use resources::*;
pub use secret::*;
pub use service::*;
pub use state::*;
pub use task::*;

use crate::id::Id;

/// The id of a [`Cluster`].
pub type ClusterId = Id<Cluster>;
/// The id of a [`Node`].
pub type NodeId = Id<Node>;
/// The id of a [`Service`].
pub type ServiceId = Id<Service>;
/// The id of a [`Task`].
pub type TaskId = Id<Task>;
/// The id of a [`Network`].
pub type NetworkId = Id<Network>;
/// The id of a [`Secret`].
pub type SecretId = Id<Secret>;
/// The id of a [`Config`].
pub type ConfigId = Id<Config>;

/// User-defined labels, in order of their names.
pub type Labels = BTreeMap<String, String>;

/// A position in the store's history: the number of the commit that made something so.
/// Its JSON is Docker's `{"Index": 7}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

crate::object! {
    /// The JSON object around a version's number.
    pub struct VersionIndex {
        /// The number.
        index: u64 = "Index" omit,
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        VersionIndex { index: self.0, ..Default::default() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        VersionIndex::deserialize(deserializer).map(|version| Self(version.index))
    }
}
