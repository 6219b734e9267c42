//! Carries published ports: a userland load balancer that needs no privileges.
//!
//! Every published port is listened on at the node's address, and connections go round the tasks
//! behind it. What clients see:
//!
//! - A task that does not answer costs nobody a connection: the next one is tried, before any
//!   byte is sent.
//! - A task that left gets no new connections at once; open ones go on until either side ends
//!   them, or the proxy is dropped.
//! - Without tasks the port is not listened on: connections are refused at once.
//! - UDP has no connections: datagrams from one source stay with one task until it leaves, or has
//!   not answered for a minute.

mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use swarm_core::model::PortProtocol;
use swarm_core::network::{NetError, PublishedPort};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The tasks behind a port, as their carrier sees them: an empty list ends the carrier.
type Tasks = watch::Receiver<Vec<SocketAddr>>;

/// Listens on published ports at one address and balances over the tasks behind them.
///
/// Dropping it closes everything, open connections too.
#[derive(Debug)]
pub struct IngressProxy {
    listen: IpAddr,
    state: Mutex<State>,
    /// One `sync` at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    ports: BTreeMap<(u16, PortProtocol), watch::Sender<Vec<SocketAddr>>>,
    /// The carriers, those included that only drain.
    carriers: JoinSet<()>,
}

impl IngressProxy {
    /// A proxy that will listen at `listen`: the node's advertised address, or the unspecified
    /// address for all.
    #[must_use]
    pub fn new(listen: IpAddr) -> Self {
        Self { listen, state: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// The address at which published ports appear.
    #[must_use]
    pub fn listen(&self) -> IpAddr {
        self.listen
    }

    /// Carries exactly these ports. Cancelled by dropping: the next call picks up.
    ///
    /// # Errors
    /// The first error, after everything else was done: [`NetError::System`] when a port cannot be
    /// listened on, [`NetError::Missing`] for SCTP.
    pub async fn sync(&self, published: &[PublishedPort]) -> Result<(), NetError> {
        let _turn = self.turn.lock().await;
        let mut want: BTreeMap<_, Vec<SocketAddr>> = BTreeMap::new();
        for port in published {
            let tasks = want.entry((port.port, port.protocol)).or_default();
            tasks.extend(port.backends.iter().filter_map(|backend| {
                let address = backend.address.parse::<SocketAddr>();
                if address.is_err() {
                    tracing::warn!(task = %backend.task, address = backend.address,
                        "a task's endpoint is not ADDRESS:PORT, nothing is sent there");
                }
                address.ok()
            }));
        }
        want.retain(|_, tasks| !tasks.is_empty());
        let withdrawn = self.locked(|state| {
            while state.carriers.try_join_next().is_some() {}
            let ports = std::mem::take(&mut state.ports).into_iter();
            let (kept, withdrawn): (BTreeMap<_, _>, BTreeMap<_, _>) =
                ports.partition(|(port, tasks)| want.contains_key(port) && !tasks.is_closed());
            state.ports = kept;
            withdrawn
        });
        for tasks in withdrawn.into_values() {
            tasks.send_replace(Vec::new());
            // Whoever connects after this call must be refused.
            tasks.closed().await;
        }
        let mut result = Ok(());
        for ((port, protocol), tasks) in want {
            result = result.and(self.carry(port, protocol, tasks).await);
        }
        result
    }

    async fn carry(
        &self,
        port: u16,
        protocol: PortProtocol,
        tasks: Vec<SocketAddr>,
    ) -> Result<(), NetError> {
        let key = (port, protocol);
        let known = self.locked(|state| {
            let carried = state.ports.get(&key)?;
            carried.send_if_modified(|old| {
                *old != tasks && {
                    old.clone_from(&tasks);
                    true
                }
            });
            Some(())
        });
        if known.is_some() {
            return Ok(());
        }
        let address = SocketAddr::new(self.listen, port);
        let failed = |error| {
            NetError::System(format!(
                "published port {port}/{protocol}: cannot listen on {address}: {error}"
            ))
        };
        let (sender, receiver) = watch::channel(tasks);
        match protocol {
            PortProtocol::Tcp => {
                let listener = tcp::bind(address).await.map_err(failed)?;
                self.spawn(key, sender, tcp::carry(listener, receiver));
            }
            PortProtocol::Udp => {
                let socket = tokio::net::UdpSocket::bind(address).await.map_err(failed)?;
                self.spawn(key, sender, udp::carry(Arc::new(socket), receiver));
            }
            PortProtocol::Sctp => {
                return Err(NetError::Missing(format!(
                    "published port {port}/sctp: a userland proxy cannot carry SCTP; publish it \
                     in host mode"
                )));
            }
        }
        Ok(())
    }

    fn spawn(
        &self,
        key: (u16, PortProtocol),
        tasks: watch::Sender<Vec<SocketAddr>>,
        carrier: impl Future<Output = ()> + Send + 'static,
    ) {
        self.locked(|state| {
            state.carriers.spawn(carrier);
            state.ports.insert(key, tasks);
        });
    }

    fn locked<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
