//! One published UDP port: each source of datagrams gets a socket of its own to a task, by which
//! the answers find their way back.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};

use super::Tasks;

/// A source whose task has not answered for this long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// Sources at the same time; what comes from others is dropped, as a full table of the kernel
/// would.
const MOST_SOURCES: usize = 16_384;
const DATAGRAM: usize = 65_536;

/// One source of datagrams and its task.
struct Flow {
    task: SocketAddr,
    socket: Arc<UdpSocket>,
    answers: AbortHandle,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// Balances until the port is withdrawn. Datagrams are lost then, as they may be at any time.
pub(super) async fn carry(port: Arc<UdpSocket>, mut tasks: Tasks) {
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut turn = 0usize;
    let mut datagram = vec![0; DATAGRAM];
    loop {
        tokio::select! {
            biased;
            changed = tasks.changed() => {
                let left = tasks.borrow_and_update();
                if changed.is_err() || left.is_empty() {
                    break;
                }
                // The answers of a flow that is gone end with it.
                flows.retain(|_, flow| left.contains(&flow.task));
            }
            Some(ended) = answers.join_next_with_id() => {
                let id = match &ended { Ok((id, ())) => *id, Err(error) => error.id() };
                flows.retain(|_, flow| flow.answers.id() != id);
            }
            received = port.recv_from(&mut datagram) => {
                // An error belongs to an answer that a client did not want.
                let Ok((length, source)) = received else { continue };
                if !flows.contains_key(&source) && flows.len() < MOST_SOURCES {
                    turn = turn.wrapping_add(1);
                    let Some(task) = nth(&tasks.borrow(), turn) else { continue };
                    let Ok(socket) = connect(task).await else { continue };
                    let socket = Arc::new(socket);
                    let answers = answers.spawn(answer(socket.clone(), port.clone(), source));
                    flows.insert(source, Flow { task, socket, answers });
                }
                if let Some(flow) = flows.get(&source) {
                    // A refusal (an ICMP message for an earlier datagram) shows in `answer` too.
                    let _ = flow.socket.send(&datagram[..length]).await;
                }
            }
        }
    }
    // In this order: who withdraws the port waits for the last.
    drop(answers);
    drop(port);
    drop(tasks);
}

fn nth(tasks: &[SocketAddr], turn: usize) -> Option<SocketAddr> {
    tasks.get(turn.checked_rem(tasks.len())?).copied()
}

async fn connect(task: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match task.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(task).await?;
    Ok(socket)
}

/// Sends a task's answers to their source until the task is silent or refuses.
async fn answer(task: Arc<UdpSocket>, port: Arc<UdpSocket>, source: SocketAddr) {
    let mut datagram = vec![0; DATAGRAM];
    while let Ok(Ok(length)) = tokio::time::timeout(IDLE, task.recv(&mut datagram)).await {
        if port.send_to(&datagram[..length], source).await.is_err() {
            return;
        }
    }
}
