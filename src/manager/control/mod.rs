//! The control API: what clients may do with the cluster's objects.

use std::sync::{Arc, Mutex};

use swarm_core::id::IdSource;
use swarm_core::secret::SecretStore;
use swarm_core::store::Store;
use swarm_core::time::Clock;

use super::logs::LogBroker;

/// What clients may do: each call validates, builds a batch, and commits it.
pub struct Control {
    /// Where everything is.
    pub store: Arc<dyn Store>,
    /// Where secrets' bytes are.
    pub secrets: Arc<dyn SecretStore>,
    /// The output of tasks.
    pub logs: Arc<dyn LogBroker>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// New ids.
    pub ids: Mutex<IdSource>,
}
