//! The driver for tests and simulation: networks are a table, connections are questions to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use swarm_core::executor::Sandbox;
use swarm_core::model::{NetworkId, NetworkSpec, PortProtocol, TaskId};
use swarm_core::network::{
    Allocation, Attached, Attachment, Backend, InUse, NetError, NetworkDriver, NodeNetwork,
    OVERLAY, allocate_overlay,
};

/// A node's networks in memory. It takes any order of calls, and tells what it was told.
#[derive(Debug, Default)]
pub struct MemoryNetwork(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    want: NodeNetwork,
    attached: BTreeMap<(TaskId, NetworkId), Attachment>,
    turn: usize,
}

impl MemoryNetwork {
    /// An empty network.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the node was last told to have.
    #[must_use]
    pub fn wanted(&self) -> NodeNetwork {
        self.state().want.clone()
    }

    /// The addresses of a task in a network, as CIDRs; empty when it is not attached.
    #[must_use]
    pub fn addresses(&self, task: TaskId, network: NetworkId) -> BTreeSet<String> {
        let state = self.state();
        let attached = state.attached.get(&(task, network));
        attached.into_iter().flat_map(|attached| attached.addresses.iter().cloned()).collect()
    }

    /// The addresses that a name has in a network, in order: those of the attached tasks with that
    /// name, here and on the other nodes.
    #[must_use]
    pub fn resolve(&self, network: NetworkId, name: &str) -> BTreeSet<String> {
        let state = self.state();
        let view = state.want.networks.iter().find(|view| view.network.id == network);
        let services = view.into_iter().flat_map(|view| &view.services);
        services
            .filter(|record| record.names.iter().any(|known| known == name))
            .flat_map(|record| record.backends.iter().map(|backend| backend.address.clone()))
            .collect()
    }

    /// The task that a new connection to a published port reaches: each in turn.
    #[must_use]
    pub fn connect(&self, port: u16, protocol: PortProtocol) -> Option<Backend> {
        let mut state = self.state();
        state.turn = state.turn.wrapping_add(1);
        let turn = state.turn;
        let mut published = state.want.published.iter();
        let published = published.find(|at| at.port == port && at.protocol == protocol)?;
        let backends = &published.backends;
        (!backends.is_empty()).then(|| backends[turn % backends.len()].clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl NetworkDriver for MemoryNetwork {
    fn name(&self) -> &str {
        OVERLAY
    }

    fn allocate(&self, spec: &NetworkSpec, in_use: &InUse) -> Result<Allocation, NetError> {
        allocate_overlay(spec, in_use)
    }

    async fn sync(&self, want: &NodeNetwork) -> Result<(), NetError> {
        self.state().want = want.clone();
        Ok(())
    }

    async fn attach(&self, want: &Attachment, _: &Sandbox) -> Result<Attached, NetError> {
        let bare = |address: &String| address.split('/').next()?.parse().ok();
        let addresses = want.addresses.iter().filter_map(bare).collect();
        self.state().attached.insert((want.task, want.network.id), want.clone());
        Ok(Attached { addresses })
    }

    async fn detach(&self, task: TaskId) -> Result<(), NetError> {
        self.state().attached.retain(|(attached, _), _| *attached != task);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use swarm_core::conformance::network::{Fixture, Talk, suite};
    use swarm_core::id::IdSource;
    use swarm_core::model::{IpamConfig, Network};
    use swarm_core::network::Peer;

    use super::*;

    /// Servers are entries in a table; a connection is a look into it.
    #[derive(Default)]
    struct Table {
        network: Arc<MemoryNetwork>,
        servers: Mutex<BTreeMap<String, String>>,
    }

    struct Heard(String);

    #[async_trait]
    impl Talk for Heard {
        fn heard(&self) -> &str {
            &self.0
        }
        async fn again(&mut self) -> bool {
            true
        }
    }

    #[async_trait]
    impl Fixture for Table {
        fn peer(&self) -> Peer {
            let node = IdSource::seeded(1).next();
            Peer { node, addr: "127.0.0.1".into(), engine: "memory".into() }
        }
        fn range(&self, number: u8) -> IpamConfig {
            IpamConfig { subnet: format!("10.9.{number}.0/24"), ..Default::default() }
        }
        async fn sandbox(&self, task: TaskId) -> Sandbox {
            Sandbox { id: task.to_string(), netns: None }
        }
        async fn addresses(
            &self,
            sandbox: &Sandbox,
            network: &Network,
        ) -> Option<BTreeSet<String>> {
            let task = sandbox.id.parse().expect("the sandbox of a task");
            Some(self.network.addresses(task, network.id))
        }
        async fn server(&self, name: &str, _: PortProtocol) -> String {
            let mut servers = self.servers.lock().expect("no panic");
            let address = format!("10.9.9.{}:80", servers.len() + 1);
            servers.insert(address.clone(), name.to_owned());
            address
        }
        async fn nobody(&self) -> String {
            "10.9.9.0:80".to_owned()
        }
        async fn free_port(&self) -> u16 {
            8080
        }
        async fn talk(&self, port: u16, protocol: PortProtocol) -> Option<Box<dyn Talk>> {
            // A client of the table tries the next task as the proxy would.
            let names = self.servers.lock().expect("no panic").clone();
            let answer = || names.get(&self.network.connect(port, protocol)?.address).cloned();
            let name = answer().or_else(answer)?;
            Some(Box::new(Heard(name)))
        }
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        let table = Table::default();
        suite(&*table.network, &table).await;
    }
}
