//! TLS between nodes: 1.3 alone, both sides by certificate, names by role and never by host.
//!
//! A manager's port asks every client for a certificate and takes clients without one, for they
//! may be about to join; what such a client may call is decided by [`crate::rpc::authorize`].
//! The key and the roots can be replaced while connections live: new handshakes use the new ones.

use std::fmt;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerMisbehaved, RootCertStore, ServerConfig, SignatureScheme,
};
use swarm_core::model::{ClusterId, NodeRole};
use tokio::sync::watch;

use super::{Identity, IdentityError, NodeCertificate, NodeIdentity, TrustRoot, cert};

/// The protocol that both sides must speak inside.
const ALPN: &[u8] = b"h2";

/// rustls with ring, handed over explicitly: an embedder's process may have another default.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

/// A node's identity in use: shared by every connection, replaceable while they live.
pub struct Credentials {
    current: RwLock<Arc<Current>>,
    replaced: watch::Sender<()>,
}

struct Current {
    node: NodeIdentity,
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Credentials {
    /// Puts an identity to use.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] or [`IdentityError::Key`] when TLS cannot use it.
    pub fn new(node: NodeIdentity) -> Result<Arc<Self>, IdentityError> {
        let current = RwLock::new(Arc::new(Current::new(node)?));
        Ok(Arc::new(Self { current, replaced: watch::Sender::default() }))
    }

    /// Uses another certificate of the same node from the next handshake on.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] when it is another node's or TLS cannot use it; the old one
    /// stays then.
    pub fn replace(&self, node: NodeIdentity) -> Result<(), IdentityError> {
        self.check(&node)?;
        let current = Arc::new(Current::new(node)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        self.replaced.send_replace(());
        Ok(())
    }

    /// Changes whenever another identity is in use, or other roots are trusted.
    pub(crate) fn replaced(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
    }

    /// Whether [`replace`](Self::replace) would take it: a certificate of this very node.
    pub(super) fn check(&self, node: &NodeIdentity) -> Result<(), IdentityError> {
        let (old, new) = (self.identity(), node.identity());
        if (old.node, old.cluster) == (new.node, new.cluster) {
            return Ok(());
        }
        let reason = format!("it names node {} and this is {}", new.node, old.node);
        Err(IdentityError::certificate("the new certificate", reason))
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.current().node.identity()
    }

    /// The identity in use.
    #[must_use]
    pub fn node(&self) -> NodeIdentity {
        self.current().node.clone()
    }

    /// For a manager's port: clients with a certificate of this cluster, or with none.
    ///
    /// # Errors
    /// [`IdentityError::Key`] when the provider lacks TLS 1.3; never with the built-in one.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(key_error)?
            .with_client_cert_verifier(Arc::new(Members(self.clone())))
            .with_cert_resolver(Arc::new(Members(self.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would skip the check of a certificate that has expired meanwhile.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    /// For calls to managers of this cluster, with this node's certificate.
    ///
    /// # Errors
    /// As for [`server_config`](Self::server_config).
    pub fn client_config(self: &Arc<Self>) -> Result<Arc<ClientConfig>, IdentityError> {
        client(Managers::OfCluster(self.clone()), Some(self))
    }

    /// Shows another's certificate from now on, trusting and being whom it was: for tests of what
    /// a server does with clients that break the rules.
    #[cfg(test)]
    pub(crate) fn show(&self, other: &Self) {
        self.show_key(other.current().key.clone());
    }

    /// As [`show`](Self::show), with a chain that no [`NodeIdentity`] would take.
    #[cfg(test)]
    pub(crate) fn show_chain(&self, pem: &str, key: &[u8]) {
        let key = PrivateKeyDer::from_pem_slice(key).expect("a key");
        let chain = cert::chain(pem).expect("a chain");
        self.show_key(Arc::new(CertifiedKey::from_der(chain, key, &PROVIDER).expect("a pair")));
    }

    #[cfg(test)]
    fn show_key(&self, key: Arc<CertifiedKey>) {
        let own = self.current();
        let (node, roots, clients) = (own.node.clone(), own.roots.clone(), own.clients.clone());
        let mixed = Current { node, key, roots, clients };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(mixed);
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// For an authority outside the cluster that belongs to a root: known by its host name like any
/// server, and shown the node's certificate if it has one.
///
/// # Errors
/// As for [`Credentials::server_config`], and when the root cannot be used.
pub(super) fn external_config(
    credentials: Option<&Arc<Credentials>>,
    root: &TrustRoot,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let config = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(key_error)?
        .with_root_certificates(root.anchors()?);
    let mut config = match credentials {
        Some(own) => config.with_client_cert_resolver(Arc::new(Members(own.clone()))),
        None => config.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials").field(&self.identity()).finish()
    }
}

impl Current {
    fn new(node: NodeIdentity) -> Result<Self, IdentityError> {
        let chain = cert::chain(node.certificate_pem())?;
        let der = PrivateKeyDer::from_pem_slice(node.key().expose()).map_err(key_error)?;
        let key = CertifiedKey::from_der(chain, der, &PROVIDER).map_err(key_error)?;
        let roots = node.root().anchors()?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), PROVIDER.clone())
            .allow_unauthenticated()
            .build()
            .map_err(key_error)?;
        Ok(Self { node, key: Arc::new(key), roots, clients })
    }
}

/// For the first call to a manager, before any root is trusted: encrypted, but whoever answers is
/// believed. Only the root certificate may be fetched so, and its digest must then be compared
/// with the join token before anything else is sent.
///
/// # Errors
/// As for [`Credentials::server_config`].
pub fn bootstrap_config() -> Result<Arc<ClientConfig>, IdentityError> {
    client(Managers::Anyone, None)
}

/// For joining: a manager whose certificate this root signed, of whatever cluster that is.
///
/// # Errors
/// As for [`Credentials::server_config`], and when the root cannot be used.
pub fn joining_config(root: &TrustRoot) -> Result<Arc<ClientConfig>, IdentityError> {
    client(Managers::SignedBy(root.anchors()?), None)
}

fn client(
    servers: Managers,
    own: Option<&Arc<Credentials>>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let builder = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(key_error)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(Members(own.clone()))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[allow(clippy::needless_pass_by_value)]
fn key_error(error: impl fmt::Display) -> IdentityError {
    IdentityError::Key(error.to_string())
}

/// Which servers a client takes for managers.
#[derive(Debug)]
enum Managers {
    Anyone,
    SignedBy(Arc<RootCertStore>),
    OfCluster(Arc<Credentials>),
}

impl ServerCertVerifier for Managers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (roots, cluster) = match self {
            Self::Anyone => return Ok(ServerCertVerified::assertion()),
            Self::SignedBy(roots) => (roots.clone(), None),
            Self::OfCluster(own) => {
                let current = own.current();
                (current.roots.clone(), Some(current.node.identity().cluster))
            }
        };
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots,
            intermediates,
            now,
            PROVIDER.signature_verification_algorithms.all,
        )?;
        let identity = member(end_entity, cluster)?;
        if identity.role != NodeRole::Manager {
            return Err(not_a_member("the server is a worker of this cluster, not a manager"));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

/// The server's side, and the present key for both sides.
#[derive(Debug)]
struct Members(Arc<Credentials>);

impl ClientCertVerifier for Members {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let current = self.0.current();
        let verified = current.clients.verify_client_cert(end_entity, intermediates, now)?;
        member(end_entity, Some(current.node.identity().cluster))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

impl ResolvesServerCert for Members {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().key.clone())
    }
}

impl ResolvesClientCert for Members {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Reads whom a verified certificate names, who must be of this cluster if one is given.
fn member(der: &CertificateDer<'_>, cluster: Option<ClusterId>) -> Result<Identity, Error> {
    let identity = NodeCertificate::from_der(der).map_err(not_a_member)?.identity;
    if cluster.is_some_and(|cluster| cluster != identity.cluster) {
        return Err(not_a_member("the certificate belongs to another cluster"));
    }
    Ok(identity)
}

fn not_a_member(reason: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>) -> Error {
    let reason: Box<dyn std::error::Error + Send + Sync> = reason.into();
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::from(reason))))
}
