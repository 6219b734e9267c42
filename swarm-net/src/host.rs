//! The driver for tasks that share the host's network, such as processes.

use std::net::IpAddr;

use async_trait::async_trait;
use swarm_core::executor::Sandbox;
use swarm_core::model::{NetworkSpec, TaskId};
use swarm_core::network::{
    Allocation, Attached, Attachment, InUse, NetError, NetworkDriver, NodeNetwork, OVERLAY,
    allocate_overlay,
};

use crate::IngressProxy;

/// Carries published ports and nothing else: tasks have the host's addresses, so that attaching
/// them has nothing to do and names resolve to nothing.
///
/// It stands in for `overlay` and allocates like it, so that the same specifications run on nodes
/// of both kinds.
#[derive(Debug)]
pub struct HostNetwork {
    proxy: IngressProxy,
}

impl HostNetwork {
    /// A driver whose published ports appear at `listen`.
    #[must_use]
    pub fn new(listen: IpAddr) -> Self {
        Self { proxy: IngressProxy::new(listen) }
    }
}

#[async_trait]
impl NetworkDriver for HostNetwork {
    fn name(&self) -> &str {
        OVERLAY
    }

    fn allocate(&self, spec: &NetworkSpec, in_use: &InUse) -> Result<Allocation, NetError> {
        allocate_overlay(spec, in_use)
    }

    async fn sync(&self, want: &NodeNetwork) -> Result<(), NetError> {
        self.proxy.sync(&want.published).await
    }

    async fn attach(&self, _: &Attachment, _: &Sandbox) -> Result<Attached, NetError> {
        Ok(Attached::default())
    }

    async fn detach(&self, _: TaskId) -> Result<(), NetError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use swarm_core::conformance::network::suite;

    use super::*;
    use crate::testing::Traffic;

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract() {
        let traffic = Traffic::new([127, 0, 0, 1].into());
        suite(&HostNetwork::new(traffic.listen), &traffic).await;
    }
}
