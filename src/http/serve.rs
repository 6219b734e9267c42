//! The server: accepts connections, bounds what each may cost, and ends them in order.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::listen::{Listener, Socket};
use super::{LocalNode, router};

/// Connections of one listener at the same time; the rest waits in the system's queue. Strangers
/// that crowd the TCP port do not keep anybody from the Unix socket.
const MAX_CONNECTIONS: usize = 1024;
/// A client must have sent its request's head after this long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A client must have shown its certificate after this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head, with the specification that dockerode repeats in it, may be this large.
const MAX_HEAD: usize = 128 * 1024;
/// How long requests that are under way may take once the server ends.
const GRACE: Duration = Duration::from_secs(3);
/// Pause after a failed `accept`, such as one for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the API on these sockets until `cancel` fires; then requests under way get three
/// seconds, and streams end.
pub async fn serve(listeners: Vec<Listener>, node: Arc<dyn LocalNode>, cancel: CancellationToken) {
    let router = router(node);
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, router.clone(), cancel.clone()));
    }
    while accepting.join_next().await.is_some() {}
}

async fn accept(listener: Listener, router: Router, cancel: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, accept_one(&listener).await)
        };
        let (slot, accepted) = tokio::select! {
            () = cancel.cancelled() => break,
            next = next => next,
        };
        match accepted {
            Ok(stream) => {
                let (router, cancel) = (router.clone(), cancel.clone());
                connections.spawn(async move {
                    stream.serve(router, cancel).await;
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(listener = %listener.spec, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

enum Accepted {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
    Tls(tokio::net::TcpStream, tokio_rustls::TlsAcceptor),
}

async fn accept_one(listener: &Listener) -> std::io::Result<Accepted> {
    match &listener.socket {
        Socket::Unix(socket) => Ok(Accepted::Unix(socket.accept().await?.0)),
        Socket::Tcp(socket, tls) => {
            let (stream, _) = socket.accept().await?;
            stream.set_nodelay(true)?;
            Ok(match tls {
                None => Accepted::Tcp(stream),
                Some(tls) => Accepted::Tls(stream, tls.clone()),
            })
        }
    }
}

impl Accepted {
    async fn serve(self, router: Router, cancel: CancellationToken) {
        match self {
            Self::Unix(stream) => converse(stream, router, cancel).await,
            Self::Tcp(stream) => converse(stream, router, cancel).await,
            Self::Tls(stream, tls) => {
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => converse(stream, router, cancel).await,
                    Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
                    Err(_) => debug!("a TLS handshake took too long"),
                }
            }
        }
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    cancel: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}
