//! Where the API listens: Unix sockets, and TCP behind mutual TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

/// Members of the socket's group may use the API; nobody else.
const SOCKET_MODE: u32 = 0o660;

/// An address to listen on, as `DOCKER_HOST` writes it.
///
/// ```
/// use swarm::http::ListenSpec;
/// let spec: ListenSpec = "unix:///run/swarm.sock".parse().unwrap();
/// assert_eq!(spec.to_string(), "unix:///run/swarm.sock");
/// assert!("tcp://0.0.0.0:2376".parse::<ListenSpec>().is_ok());
/// assert!("ftp://x".parse::<ListenSpec>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenSpec {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
}

impl FromStr for ListenSpec {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let malformed = || ListenError::Malformed(text.to_owned());
        match text.split_once("://") {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => address.parse().map(Self::Tcp).map_err(|_| malformed()),
            _ => Err(malformed()),
        }
    }
}

impl fmt::Display for ListenSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// The PEM files of mutual TLS, as `dockerd --tlsverify` takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who signs clients' certificates.
    pub ca: PathBuf,
    /// The server's certificate, with its chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address is not one.
    #[error("{0:?} is not an address to listen on: use unix:///PATH or tcp://ADDRESS:PORT")]
    Malformed(String),
    /// Whoever reaches the port would own the cluster.
    #[error("{0} would be open to everybody: give TLS files, or ask for plain TCP on 127.0.0.0/8")]
    Insecure(ListenSpec),
    /// Another process answers there.
    #[error("{0} is in use by another process: stop it or choose another address")]
    InUse(ListenSpec),
    /// The operating system refused.
    #[error("cannot listen on {spec}: {source}")]
    Io {
        /// Where.
        spec: ListenSpec,
        /// Why.
        source: io::Error,
    },
    /// The TLS files do not work.
    #[error("the TLS files cannot be used: {0}")]
    Tls(String),
}

/// A socket that listens. Removed from the file system when dropped, if it is a Unix socket.
pub struct Listener {
    pub(super) spec: ListenSpec,
    pub(super) socket: Socket,
}

pub(super) enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener, Option<TlsAcceptor>),
}

impl Listener {
    /// Where it listens; with the port that the system chose, where 0 was asked for.
    #[must_use]
    pub fn spec(&self) -> &ListenSpec {
        &self.spec
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let ListenSpec::Unix(path) = &self.spec {
            // Best effort: a socket that stays is recognised as stale at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Listens on every address. TCP needs `tls`, unless `insecure` asks for plain TCP and the
/// address is in 127.0.0.0/8: whoever may call the API runs what it wants on every node.
///
/// Needs a tokio runtime.
///
/// # Errors
/// See [`ListenError`]; no address is listened on then.
pub async fn bind(
    specs: &[ListenSpec],
    tls: Option<&TlsFiles>,
    insecure: bool,
) -> Result<Vec<Listener>, ListenError> {
    let acceptor = tls.map(acceptor).transpose()?;
    let mut listeners = Vec::new();
    for spec in specs {
        listeners.push(match spec {
            ListenSpec::Unix(path) => unix(spec, path).await?,
            ListenSpec::Tcp(address) => tcp(spec, *address, acceptor.clone(), insecure).await?,
        });
    }
    Ok(listeners)
}

async fn tcp(
    spec: &ListenSpec,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    insecure: bool,
) -> Result<Listener, ListenError> {
    let loopback = matches!(address, SocketAddr::V4(v4) if v4.ip().is_loopback());
    if tls.is_none() && !(insecure && loopback) {
        return Err(ListenError::Insecure(spec.clone()));
    }
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse(spec.clone()),
        _ => ListenError::Io { spec: spec.clone(), source },
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let spec = ListenSpec::Tcp(listener.local_addr().map_err(failed)?);
    Ok(Listener { spec, socket: Socket::Tcp(listener, tls) })
}

async fn unix(spec: &ListenSpec, path: &Path) -> Result<Listener, ListenError> {
    let failed = |source| ListenError::Io { spec: spec.clone(), source };
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            let text = "something that is not a socket is in the way";
            return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, text)));
        }
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(ListenError::InUse(spec.clone()));
        }
    }
    // Bound beside its place and moved there with its final mode: it is never open to others, and
    // a stale socket gives way at once.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let _ = std::fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside).map_err(failed)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(SOCKET_MODE))
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(failed)?;
    Ok(Listener { spec: spec.clone(), socket: Socket::Unix(listener) })
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ListenError> {
    let of_file = |path: &Path, error: &dyn fmt::Display| {
        ListenError::Tls(format!("{}: {error}", path.display()))
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, ListenError> {
        CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| of_file(path, &error))
    };
    let mut roots = RootCertStore::empty();
    for root in certificates(&files.ca)? {
        roots.add(root).map_err(|error| of_file(&files.ca, &error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| of_file(&files.ca, &error))?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| of_file(&files.key, &error))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ListenError::Tls(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.cert)?, key)
        .map_err(|error| of_file(&files.cert, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
