//! The driver for nodes with a Docker Engine: networks of the cluster as bridges of the engine.
//!
//! Each network of the cluster becomes one bridge network of the engine, with the range that the
//! cluster allocated; nodes of one cluster that share an engine share it. Tasks get the addresses
//! that the cluster allocated and are found by their names through the engine's own DNS: a
//! service's name lists its tasks (as in `dnsrr` mode; virtual addresses are not answered).
//!
//! A bridge ends at its machine. A network whose tasks are spread over several engines needs an
//! overlay between them, which this driver does not have: it says so ([`NetError::Missing`])
//! rather than attaching tasks that cannot see each other. The network of the published ports is
//! the exception, because load balancers reach tasks by their nodes' addresses.

mod engine;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use swarm_core::executor::Sandbox;
use swarm_core::model::{ClusterId, Network, NetworkId, NetworkSpec, TaskId};
use swarm_core::network::{
    Allocation, Attached, Attachment, InUse, NetError, NetworkDriver, NetworkView, NodeNetwork,
    OVERLAY, allocate_overlay,
};

use crate::IngressProxy;
use engine::Engine;

/// Which engine to use, and as whom.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// Where the engine listens: `unix:///var/run/docker.sock` or `tcp://HOST:PORT`.
    pub host: String,
    /// The cluster whose networks are made.
    pub cluster: ClusterId,
    /// The address at which published ports appear: the node's advertised one.
    pub listen: IpAddr,
}

/// Networks of the cluster as bridges of a Docker Engine, and published ports by an
/// [`IngressProxy`]. Takes the name `overlay`: see the module's text for what it cannot do.
#[derive(Debug)]
pub struct Bridge {
    engine: Engine,
    proxy: IngressProxy,
    /// Networks with tasks on other engines, as of the last `sync`.
    split: Mutex<BTreeSet<NetworkId>>,
}

impl Bridge {
    /// Connects to the engine.
    ///
    /// # Errors
    /// [`NetError::System`] when no engine answers there.
    pub async fn connect(config: BridgeConfig) -> Result<Self, NetError> {
        Ok(Self {
            engine: Engine::connect(&config.host, config.cluster).await?,
            proxy: IngressProxy::new(config.listen),
            split: Mutex::default(),
        })
    }

    fn is_split(&self, view: &NetworkView) -> bool {
        let elsewhere = |engine: &str| !engine.is_empty() && engine != self.engine.id();
        !view.network.spec.ingress && view.peers.iter().any(|peer| elsewhere(&peer.engine))
    }

    fn split(&self) -> MutexGuard<'_, BTreeSet<NetworkId>> {
        self.split.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn make(&self, view: &NetworkView) -> Result<(), NetError> {
        self.engine.ensure(&view.network).await?;
        match self.is_split(view) {
            true => Err(needs_overlay(&view.network)),
            false => Ok(()),
        }
    }
}

fn needs_overlay(network: &Network) -> NetError {
    let name = &network.spec.name;
    NetError::Missing(format!(
        "network {name} has tasks on several Docker Engines: this node has no overlay data plane \
         that would connect them. Place the services of the network on one engine (a placement \
         constraint), or connect them by published ports"
    ))
}

#[async_trait]
impl NetworkDriver for Bridge {
    fn name(&self) -> &str {
        OVERLAY
    }

    fn allocate(&self, spec: &NetworkSpec, in_use: &InUse) -> Result<Allocation, NetError> {
        allocate_overlay(spec, in_use)
    }

    async fn sync(&self, want: &NodeNetwork) -> Result<(), NetError> {
        let split = want.networks.iter().filter(|view| self.is_split(view));
        *self.split() = split.map(|view| view.network.id).collect();
        let mut result = self.proxy.sync(&want.published).await;
        for view in &want.networks {
            result = result.and(self.make(view).await);
        }
        let wanted = want.networks.iter().map(|view| view.network.id).collect();
        result.and(self.engine.remove_unused(&wanted).await)
    }

    async fn attach(&self, want: &Attachment, sandbox: &Sandbox) -> Result<Attached, NetError> {
        if self.split().contains(&want.network.id) {
            return Err(needs_overlay(&want.network));
        }
        self.engine.attach(want, &sandbox.id).await?;
        let bare = |address: &String| address.split('/').next()?.parse().ok();
        Ok(Attached { addresses: want.addresses.iter().filter_map(bare).collect() })
    }

    async fn detach(&self, task: TaskId) -> Result<(), NetError> {
        self.engine.detach(task).await
    }
}

#[cfg(test)]
mod tests;
