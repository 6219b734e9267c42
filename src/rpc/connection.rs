//! Accepts connections: each handshake on its own, so that a slow one delays nobody.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use swarm_core::id::IdSource;
use swarm_core::time::{Clock as _, SystemClock, Timestamp};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::service::Peer;
use crate::identity::{Credentials, NodeCertificate};

/// How long a handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Handshakes at one time; whoever comes later waits in the listener's queue.
const HANDSHAKES: usize = 256;
/// The pause after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The first byte of TLS.
const HANDSHAKE_RECORD: u8 = 0x16;
/// What a client hears that does not speak TLS. HTTP, because such clients most often do.
const NOT_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n\
    This port speaks TLS between the nodes of a swarm, and nothing else.\n";

/// The certificate of an open connection is looked at this often, and when other roots are trusted.
const LOOK: Duration = Duration::from_secs(3600);
/// Connections of a root that was given up are retired over this time: not all nodes come back at once.
const SPREAD: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 10_000 });

/// A connection whose peer is known.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// Ends what watches over the certificate.
    _open: DropGuard,
}

/// Accepts until the receiver is gone.
pub(super) async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    credentials: Arc<Credentials>,
    to: mpsc::Sender<io::Result<Connection>>,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    while let Ok(place) = places.clone().acquire_owned().await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = to.closed() => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, to, credentials) = (acceptor.clone(), to.clone(), credentials.clone());
        tokio::spawn(async move {
            let _place = place;
            match tokio::time::timeout(HANDSHAKE_WITHIN, handshake(stream, &acceptor, credentials))
                .await
            {
                Ok(Ok(connection)) => drop(to.send(Ok(connection)).await),
                Ok(Err(error)) => debug!(%remote, %error, "handshake refused"),
                Err(_) => debug!(%remote, "handshake not finished in time"),
            }
        });
    }
}

async fn handshake(
    mut stream: TcpStream,
    acceptor: &TlsAcceptor,
    credentials: Arc<Credentials>,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let remote = stream.peer_addr()?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
        stream.write_all(NOT_TLS).await?;
        stream.shutdown().await?;
        // Reading what the client still sends spares it a reset that would eat the answer.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"));
    }
    let stream = acceptor.accept(stream).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let certificate = chain
        .first()
        .map(|der| NodeCertificate::from_der(der))
        .transpose()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let (retired, closed) = (CancellationToken::new(), CancellationToken::new());
    if let Some(until) = certificate.as_ref().map(|certificate| certificate.not_after) {
        let (retired, closed) = (retired.clone(), closed.clone());
        tokio::spawn(async move {
            let outlived = outlived(&credentials, &chain, until);
            if closed.run_until_cancelled(outlived).await.is_some() {
                retired.cancel();
            }
        });
    }
    let peer = Peer { certificate, remote, retired };
    Ok(Connection { stream, peer, _open: closed.drop_guard() })
}

/// Returns once a certificate has ended, or no root that this manager trusts is behind it.
async fn outlived(credentials: &Credentials, chain: &[CertificateDer<'_>], until: Timestamp) {
    let mut replaced = credentials.replaced();
    while credentials.node().root().is_behind(chain) {
        let left = until.since(SystemClock.now());
        if left.is_zero() {
            return;
        }
        let _ = tokio::time::timeout(left.min(LOOK), replaced.changed()).await;
    }
    let millis = u64::try_from(SPREAD.as_millis()).unwrap_or(u64::MAX);
    tokio::time::sleep(Duration::from_millis(IdSource::random().below(millis))).await;
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
