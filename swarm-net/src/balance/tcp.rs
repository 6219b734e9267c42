//! One published TCP port: accepts, connects to a task, copies both ways.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::Tasks;

/// A task on a machine that is gone does not even refuse: the next one is tried after this.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// Pause after an error that is not one connection's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const BACKLOG: u32 = 1024;

/// A listener that takes an address whose former connections are still in `TIME_WAIT`.
pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Balances until the port is withdrawn, then waits for the connections that are open.
pub(super) async fn carry(listener: TcpListener, mut tasks: Tasks) {
    let mut connections = JoinSet::new();
    let mut turn = 0usize;
    loop {
        tokio::select! {
            biased;
            changed = tasks.changed() => if changed.is_err() || tasks.borrow().is_empty() { break },
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    turn = turn.wrapping_add(1);
                    let tasks = rotated(&tasks.borrow(), turn);
                    connections.spawn(serve(client, tasks));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    // In this order: who withdraws the port waits for the second.
    drop(listener);
    drop(tasks);
    while connections.join_next().await.is_some() {}
}

/// The tasks in the order in which a connection tries them: everybody begins elsewhere.
fn rotated(tasks: &[SocketAddr], turn: usize) -> Vec<SocketAddr> {
    let mut tasks = tasks.to_vec();
    if !tasks.is_empty() {
        let first = turn % tasks.len();
        tasks.rotate_left(first);
    }
    tasks
}

async fn serve(mut client: TcpStream, tasks: Vec<SocketAddr>) {
    for address in tasks {
        let connected = tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await;
        let Ok(Ok(mut task)) = connected else {
            tracing::debug!(%address, "a task does not answer, the next one is tried");
            continue;
        };
        // Latency matters more than full packets; a failure changes nothing else.
        let _ = (client.set_nodelay(true), task.set_nodelay(true));
        // An error is one of the two sides hanging up, which the other one sees.
        let _ = copy_bidirectional(&mut client, &mut task).await;
        return;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_begins_with_another_task() {
        let tasks: Vec<SocketAddr> =
            ["10.0.0.1:1", "10.0.0.2:2"].map(|at| at.parse().expect("an address")).into();
        assert_eq!(rotated(&tasks, 0), tasks);
        assert_eq!(rotated(&tasks, 1), [tasks[1], tasks[0]]);
        assert_eq!(rotated(&tasks, 2), tasks);
        assert!(rotated(&[], 1).is_empty());
    }
}
