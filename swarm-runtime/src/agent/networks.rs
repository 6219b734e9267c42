//! Keeps the node's networks as the manager wants them, and attaches tasks to them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::executor::{ExecError, Sandbox};
use swarm_core::model::{Network, TaskId};
use swarm_core::network::{Attachment, NetError, NetworkDriver, NodeNetwork};
use tokio::sync::watch;
use tracing::warn;

/// The driver of networks whose specification names none.
const DEFAULT_DRIVER: &str = "overlay";
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The network drivers of a node.
pub(super) struct Networks {
    drivers: Vec<Arc<dyn NetworkDriver>>,
    /// The desired state and its number.
    want: watch::Sender<(u64, Arc<NodeNetwork>)>,
    /// The number of the last desired state that was tried.
    tried: watch::Sender<u64>,
}

impl Networks {
    pub(super) fn new(drivers: Vec<Arc<dyn NetworkDriver>>) -> Self {
        Self { drivers, want: watch::Sender::new(Default::default()), tried: watch::Sender::new(0) }
    }

    /// The latest desired state.
    pub(super) fn want(&self, network: NodeNetwork) {
        self.want.send_modify(|want| *want = (want.0 + 1, Arc::new(network)));
    }

    /// Makes the networks so, again and again; never returns.
    pub(super) async fn keep(&self) {
        let mut changes = self.want.subscribe();
        let mut pause = FIRST_PAUSE;
        loop {
            let (number, want) = changes.borrow_and_update().clone();
            let result = if number == 0 { Ok(()) } else { self.sync(&want).await };
            self.tried.send_replace(number);
            let Err(error) = result else {
                pause = FIRST_PAUSE;
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            warn!(%error, "the node's networks are not as they shall be; trying again");
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Gives every driver its networks, and the first one the published ports.
    pub(super) async fn sync(&self, want: &NodeNetwork) -> Result<(), NetError> {
        let mut result = Ok(());
        for (index, driver) in self.drivers.iter().enumerate() {
            let mine = want.networks.iter().filter(|view| name(&view.network) == driver.name());
            let want = NodeNetwork {
                networks: mine.cloned().collect(),
                published: if index == 0 { want.published.clone() } else { Vec::new() },
            };
            result = result.and(driver.sync(&want).await);
        }
        result
    }

    /// Attaches a task to all its networks; the addresses by which neighbours reach it, those in
    /// the network of the published ports first.
    pub(super) async fn attach(
        &self,
        attachments: &[Attachment],
        sandbox: &Sandbox,
    ) -> Result<Vec<IpAddr>, ExecError> {
        if attachments.is_empty() {
            return Ok(Vec::new());
        }
        let number = self.want.borrow().0;
        let mut tried = self.tried.subscribe();
        let stopped = |_| ExecError::temporary("the agent stops");
        tried.wait_for(|tried| *tried >= number).await.map_err(stopped)?;
        let (mut ingress, mut others) = (Vec::new(), Vec::new());
        for attachment in attachments {
            let network = &attachment.network;
            if self.drivers.is_empty() && network.spec.ingress {
                // Without any driver, the executor itself says where published ports answer.
                continue;
            }
            let attached = match self.driver(network) {
                Ok(driver) => driver.attach(attachment, sandbox).await,
                Err(error) => Err(error),
            };
            let attached = attached.map_err(|error| in_words(network, error))?;
            let addresses = if network.spec.ingress { &mut ingress } else { &mut others };
            addresses.extend(attached.addresses);
        }
        ingress.extend(others);
        Ok(ingress)
    }

    fn driver(&self, network: &Network) -> Result<&Arc<dyn NetworkDriver>, NetError> {
        let name = name(network);
        self.drivers.iter().find(|driver| driver.name() == name).ok_or_else(|| {
            let have: Vec<&str> = self.drivers.iter().map(|driver| driver.name()).collect();
            NetError::Missing(format!("this node has no network driver {name:?} (it has {have:?})"))
        })
    }

    /// Takes a task out of every network.
    pub(super) async fn detach(&self, task: TaskId) -> Result<(), NetError> {
        let mut result = Ok(());
        for driver in &self.drivers {
            result = result.and(driver.detach(task).await);
        }
        result
    }
}

fn name(network: &Network) -> &str {
    match network.spec.driver.name.as_str() {
        "" => DEFAULT_DRIVER,
        name => name,
    }
}

fn in_words(network: &Network, error: NetError) -> ExecError {
    let text = format!("attaching to network {} failed: {error}", network.spec.name);
    match error {
        NetError::Missing(_) => ExecError::rejected(text),
        _ => ExecError::temporary(text),
    }
    .caused_by(error)
}

#[cfg(test)]
#[path = "networks_tests.rs"]
mod tests;
