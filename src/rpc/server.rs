//! A manager's port.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::connection::accept;
use super::handler::Handler;
use super::service::Services;
use crate::identity::Credentials;

/// A connection that is silent for this long is asked for a sign of life,
const KEEPALIVE: Duration = Duration::from_secs(10);
/// which it must give within this time.
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(10);
/// How long calls may take to end when the manager stops.
const DRAIN: Duration = Duration::from_secs(3);
/// Calls at one time over one connection.
const CALLS_PER_CONNECTION: u32 = 128;

/// Serves the calls of [`authorize::Method`](super::authorize::Method) until cancelled. Sessions
/// end at once then; other calls have three seconds.
///
/// # Errors
/// When the credentials cannot serve TLS. A failed connection is not an error of the server.
pub async fn serve(
    listener: TcpListener,
    credentials: Arc<Credentials>,
    services: Services,
    cancel: CancellationToken,
) -> io::Result<()> {
    let tls = credentials.server_config().map_err(io::Error::other)?;
    let (to, incoming) = mpsc::channel(16);
    // Ends when `incoming` is dropped, which is when the server stops.
    tokio::spawn(accept(listener, TlsAcceptor::from(tls), credentials, to));
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_WITHIN))
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        // A manager that stood still finds its peers' calls given up; they need not dial again for it.
        .http2_max_pending_accept_reset_streams(Some(CALLS_PER_CONNECTION as usize))
        .serve_with_incoming_shutdown(
            Handler::new(services, cancel.clone()),
            ReceiverStream::new(incoming),
            cancel.cancelled(),
        );
    tokio::select! {
        served = serving => served.map_err(io::Error::other),
        () = async { cancel.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    }
}
