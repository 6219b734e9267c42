//! Real servers and clients for the conformance suite.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use swarm_core::conformance::network::{Fixture, Talk};
use swarm_core::executor::Sandbox;
use swarm_core::id::IdSource;
use swarm_core::model::{IpamConfig, NodeId, PortProtocol, TaskId};
use swarm_core::network::Peer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// How long a client waits for an answer that never comes: UDP has no refusal.
const SILENCE: Duration = Duration::from_millis(500);

/// Servers on the loopback interface, and clients of the ports at `listen`.
pub(crate) struct Traffic {
    pub(crate) listen: IpAddr,
    node: NodeId,
    servers: Mutex<JoinSet<()>>,
    /// Ports that were given away are not given away again.
    given: Mutex<BTreeSet<u16>>,
    occupied: Mutex<Option<std::net::TcpListener>>,
}

impl Traffic {
    pub(crate) fn new(listen: IpAddr) -> Self {
        Self {
            listen,
            node: IdSource::random().next(),
            servers: Mutex::default(),
            given: Mutex::default(),
            occupied: Mutex::default(),
        }
    }
}

#[async_trait]
impl Fixture for Traffic {
    fn peer(&self) -> Peer {
        Peer { node: self.node, addr: self.listen.to_string(), engine: "host".into() }
    }

    fn range(&self, number: u8) -> IpamConfig {
        IpamConfig { subnet: format!("10.9.{number}.0/24"), ..Default::default() }
    }

    async fn sandbox(&self, task: TaskId) -> Sandbox {
        Sandbox { id: task.to_string(), netns: None }
    }

    async fn server(&self, name: &str, protocol: PortProtocol) -> String {
        let name = name.as_bytes().to_vec();
        let at = SocketAddr::new([127, 0, 0, 1].into(), 0);
        let (address, server): (_, std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) =
            match protocol {
                PortProtocol::Udp => {
                    let socket = UdpSocket::bind(at).await.expect("a socket");
                    (socket.local_addr(), Box::pin(answer_datagrams(socket, name)))
                }
                _ => {
                    let listener = TcpListener::bind(at).await.expect("a listener");
                    (listener.local_addr(), Box::pin(answer_connections(listener, name)))
                }
            };
        self.servers.lock().expect("no panic").spawn(server);
        address.expect("an address").to_string()
    }

    async fn nobody(&self) -> String {
        SocketAddr::new([127, 0, 0, 1].into(), self.free_port().await).to_string()
    }

    async fn free_port(&self) -> u16 {
        loop {
            let listener = TcpListener::bind((self.listen, 0)).await.expect("a listener");
            let port = listener.local_addr().expect("an address").port();
            let udp = UdpSocket::bind((self.listen, port)).await;
            if udp.is_ok() && self.given.lock().expect("no panic").insert(port) {
                return port;
            }
        }
    }

    async fn occupy(&self, port: u16) -> bool {
        let listener = std::net::TcpListener::bind((self.listen, port)).expect("a free port");
        *self.occupied.lock().expect("no panic") = Some(listener);
        true
    }

    async fn talk(&self, port: u16, protocol: PortProtocol) -> Option<Box<dyn Talk>> {
        let at = SocketAddr::new(self.listen, port);
        let line = match protocol {
            PortProtocol::Udp => {
                let socket = UdpSocket::bind((self.listen, 0)).await.ok()?;
                socket.connect(at).await.ok()?;
                Line::Udp(socket)
            }
            _ => Line::Tcp(TcpStream::connect(at).await.ok()?),
        };
        let mut client = Client { line, heard: String::new() };
        client.heard = client.ask().await?;
        Some(Box::new(client))
    }
}

async fn answer_datagrams(socket: UdpSocket, name: Vec<u8>) {
    let mut datagram = [0; 16];
    while let Ok((_, source)) = socket.recv_from(&mut datagram).await {
        let _ = socket.send_to(&name, source).await;
    }
}

async fn answer_connections(listener: TcpListener, name: Vec<u8>) {
    let mut connections = JoinSet::new();
    while let Ok((mut connection, _)) = listener.accept().await {
        let name = name.clone();
        connections.spawn(async move {
            let mut request = [0; 16];
            while connection.read(&mut request).await.is_ok_and(|length| length > 0) {
                if connection.write_all(&name).await.is_err() {
                    return;
                }
            }
        });
    }
}

enum Line {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

struct Client {
    line: Line,
    heard: String,
}

impl Client {
    /// One question and its answer; nothing when the line is closed or stays silent.
    async fn ask(&mut self) -> Option<String> {
        let mut answer = [0; 64];
        let length = match &mut self.line {
            Line::Tcp(stream) => {
                stream.write_all(b"?").await.ok()?;
                stream.read(&mut answer).await.ok()?
            }
            Line::Udp(socket) => {
                socket.send(b"?").await.ok()?;
                tokio::time::timeout(SILENCE, socket.recv(&mut answer)).await.ok()?.ok()?
            }
        };
        (length > 0).then(|| String::from_utf8_lossy(&answer[..length]).into_owned())
    }
}

#[async_trait]
impl Talk for Client {
    fn heard(&self) -> &str {
        &self.heard
    }

    async fn again(&mut self) -> bool {
        self.ask().await.as_deref() == Some(&self.heard)
    }
}
