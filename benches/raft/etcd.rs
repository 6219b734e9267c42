//! etcd beside ours: Debian's `etcd` in processes of its own on the loopback interface, with TLS
//! between them and a client of gRPC as etcd's own benchmark uses it: connections that are kept,
//! several calls at once on each.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;

use crate::load::{self, Achieved};
use crate::process::Process;
use crate::{VALUE, free_ports};

/// Clients that share a connection at most.
const PER_CONNECTION: usize = 16;

/// A group of etcd.
pub(crate) struct Etcd {
    pub(crate) members: Vec<Process>,
    endpoint: String,
}

/// Whether it is installed, with `etcdctl`, which says who leads.
pub(crate) fn version() -> Option<String> {
    Command::new("etcdctl").arg("version").output().ok()?;
    let output = Command::new("etcd").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(|line| line.replace("etcd Version: ", "etcd "))
}

impl Etcd {
    /// Starts `count` members and waits until a write succeeds.
    pub(crate) async fn start(dir: &Path, count: usize) -> Self {
        let ports = free_ports(2 * count);
        let peer = |number: usize| format!("https://127.0.0.1:{}", ports[2 * number]);
        let client = |number: usize| format!("http://127.0.0.1:{}", ports[2 * number + 1]);
        let group: Vec<String> = (0..count).map(|n| format!("m{n}={}", peer(n))).collect();
        let members = (0..count).map(|number| {
            let mut command = Command::new("etcd");
            command
                .args(["--name", &format!("m{number}"), "--log-level", "error", "--peer-auto-tls"])
                .arg("--data-dir")
                .arg(dir.join(format!("m{number}")))
                .args(["--listen-peer-urls", &peer(number)])
                .args(["--initial-advertise-peer-urls", &peer(number)])
                .args(["--listen-client-urls", &client(number)])
                .args(["--advertise-client-urls", &client(number)])
                .args(["--initial-cluster", &group.join(","), "--initial-cluster-state", "new"]);
            Process::silent(&mut command)
        });
        let members: Vec<Process> = members.collect();
        let mut first = String::new();
        // Clients talk to the leader, as ours do: forwarding is measured on neither side.
        'leader: for _ in 0..200 {
            for number in 0..count {
                if leads(&client(number)) {
                    first = client(number);
                    break 'leader;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(!first.is_empty(), "etcd must elect a leader");
        Self { members, endpoint: first }
    }

    pub(crate) async fn load(&self, clients: usize, length: Duration) -> Achieved {
        let mut channels = Vec::new();
        for _ in 0..clients.div_ceil(PER_CONNECTION) {
            let endpoint = Channel::from_shared(self.endpoint.clone()).expect("an address");
            channels.push(endpoint.tcp_nodelay(true).connect().await.expect("etcd listens"));
        }
        load::run(clients, length, |number| {
            let grpc = Grpc::new(channels[number % channels.len()].clone());
            move |turn: usize| put(grpc.clone(), number, turn)
        })
        .await
    }
}

/// Whether the member at this endpoint leads, by `etcdctl`.
fn leads(endpoint: &str) -> bool {
    let status = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", endpoint, "endpoint", "status", "--write-out", "fields"])
        .output();
    let text = status.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.rsplit(' ').next()?.to_owned())
    };
    let (leader, member) = (field("\"Leader\""), field("\"MemberID\""));
    leader.is_some() && leader == member && leader.as_deref() != Some("0")
}

async fn put(mut grpc: Grpc<Channel>, client: usize, turn: usize) {
    grpc.ready().await.expect("etcd listens");
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let request = tonic::Request::new((format!("client-{client:04}"), turn));
    grpc.unary(request, path, Put).await.expect("etcd takes the write");
}

/// `PutRequest` in protobuf: a key and a value. Of the answer nothing is read.
struct Put;

impl Codec for Put {
    type Encode = (String, usize);
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Put {
    type Item = (String, usize);
    type Error = Status;

    fn encode(&mut self, (key, turn): Self::Item, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_u8(0x0a);
        to.put_u8(u8::try_from(key.len()).expect("short keys"));
        to.put_slice(key.as_bytes());
        to.put_u8(0x12);
        // 256 as a varint.
        to.put_slice(&[0x80, 0x02]);
        to.put_slice(&crate::value(turn));
        debug_assert_eq!(VALUE, 256);
        Ok(())
    }
}

impl Decoder for Put {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}
