//! Pure: reads certificates: the roots that a cluster trusts, and who a node's certificate says it is.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use swarm_core::model::{NodeRole, TlsInfo};
use swarm_core::time::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use super::ca::BACKDATE;
use super::{Identity, IdentityError, MANAGER_NAME, RootDigest, WORKER_NAME};

const ROOT: &str = "the root certificate";
const NODE: &str = "the node's certificate";

/// The root certificates that a cluster trusts: one, but for the time of a rotation.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustRoot {
    pem: String,
    certificates: Vec<CertificateDer<'static>>,
}

impl TrustRoot {
    /// Reads root certificates, one after the other.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] when there is none, or one that may not sign.
    pub fn parse(pem: &str) -> Result<Self, IdentityError> {
        let certificates = read_pem(ROOT, pem)?;
        for der in &certificates {
            if !parse(ROOT, der)?.is_ca() {
                return Err(IdentityError::certificate(ROOT, "it may not sign certificates"));
            }
        }
        Ok(Self { pem: pem.to_owned(), certificates })
    }

    /// The PEM, byte for byte as it was read: its digest is part of the join tokens.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// What join tokens pin.
    #[must_use]
    pub fn digest(&self) -> RootDigest {
        RootDigest::of(&self.pem)
    }

    /// What Docker's API says of it, in `TLSInfo`: the first root as the issuer.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`]; never after a successful [`parse`](Self::parse).
    pub fn tls_info(&self) -> Result<TlsInfo, IdentityError> {
        let root = parse(ROOT, &self.certificates[0])?;
        Ok(self.issued_by(&root))
    }

    fn issued_by(&self, issuer: &X509Certificate<'_>) -> TlsInfo {
        TlsInfo {
            trust_root: self.pem.clone(),
            cert_issuer_subject: STANDARD.encode(issuer.subject().as_raw()),
            cert_issuer_public_key: STANDARD.encode(issuer.public_key().raw),
            ..Default::default()
        }
    }

    /// Whether the first certificate of a chain leads to one of these roots. Life is not looked at.
    pub(crate) fn is_behind(&self, chain: &[CertificateDer<'_>]) -> bool {
        !chain.is_empty() && matches!(self.issuer(chain), Ok(Some(_)))
    }

    /// Who issued the first certificate of a chain: one of these roots, or a certificate of the
    /// chain that one of them signed. Life is not looked at.
    fn issuer(&self, chain: &[CertificateDer<'_>]) -> Result<Option<TlsInfo>, IdentityError> {
        let leaf = parse(NODE, &chain[0])?;
        if let Some(root) = self.signer(&leaf)? {
            return Ok(Some(self.issued_by(&root)));
        }
        for der in &chain[1..] {
            let between = parse(NODE, der)?;
            if between.is_ca() && signed(&leaf, &between) && self.signer(&between)?.is_some() {
                return Ok(Some(self.issued_by(&between)));
            }
        }
        Ok(None)
    }

    /// The root that signed a certificate.
    fn signer(
        &self,
        certificate: &X509Certificate<'_>,
    ) -> Result<Option<X509Certificate<'_>>, IdentityError> {
        for der in &self.certificates {
            let root = parse(ROOT, der)?;
            if signed(certificate, &root) {
                return Ok(Some(root));
            }
        }
        Ok(None)
    }

    pub(super) fn anchors(&self) -> Result<Arc<RootCertStore>, IdentityError> {
        let mut anchors = RootCertStore::empty();
        for der in &self.certificates {
            anchors.add(der.clone()).map_err(|e| IdentityError::certificate(ROOT, e))?;
        }
        Ok(Arc::new(anchors))
    }

    /// Checks that a certificate is this root's name and key, signed by `other`.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] when it is not: no chain through it would hold.
    pub fn is_certified_by(&self, certified: &str, other: &Self) -> Result<(), IdentityError> {
        const CROSS: &str = "the cross-signed certificate";
        let chain = read_pem(CROSS, certified)?;
        let (own, read) = (parse(ROOT, &self.certificates[0])?, parse(CROSS, &chain[0])?);
        let same = own.subject().as_raw() == read.subject().as_raw()
            && own.public_key().raw == read.public_key().raw;
        match same && read.is_ca() && other.signer(&read)?.is_some() {
            true => Ok(()),
            false => Err(IdentityError::certificate(CROSS, "it does not lead from root to root")),
        }
    }

    /// The one root, in DER; absent when there are several.
    pub(super) fn only(&self) -> Option<&CertificateDer<'static>> {
        match &self.certificates[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The bits of the first root's public key.
    pub(super) fn public_key(&self) -> Result<Vec<u8>, IdentityError> {
        Ok(parse(ROOT, &self.certificates[0])?.public_key().subject_public_key.data.to_vec())
    }
}

/// Whether `issuer` signed a certificate.
fn signed(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

impl std::fmt::Debug for TrustRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrustRoot({})", self.digest())
    }
}

/// What a node's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCertificate {
    /// Who.
    pub identity: Identity,
    /// Not before this instant.
    pub not_before: Timestamp,
    /// Not after this instant.
    pub not_after: Timestamp,
    /// The bits of its public key.
    pub public_key: Vec<u8>,
}

impl NodeCertificate {
    /// When it was issued. An external authority may backdate by less than [`BACKDATE`]: one of its
    /// certificates seems younger than it is.
    #[must_use]
    pub fn issued_at(&self) -> Timestamp {
        self.not_before + BACKDATE
    }

    /// Reads a certificate, whoever signed it. TLS has verified the chain where that matters.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] when it is damaged or does not name one node, one role and
    /// one cluster.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        Self::read(&parse(NODE, der)?)
    }

    /// Reads the first certificate of a chain and checks that the chain ends at one of these
    /// roots. An expired certificate passes: its holder must be able to say so.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`], as for [`from_der`](Self::from_der), or when another root
    /// signed it.
    pub fn from_pem(pem: &str, root: &TrustRoot) -> Result<Self, IdentityError> {
        Self::with_issuer(pem, root).map(|(certificate, _)| certificate)
    }

    /// As [`from_pem`](Self::from_pem), with what Docker's API says of who issued it.
    ///
    /// # Errors
    /// As there.
    pub fn with_issuer(pem: &str, root: &TrustRoot) -> Result<(Self, TlsInfo), IdentityError> {
        let chain = read_pem(NODE, pem)?;
        let issuer = root.issuer(&chain)?;
        let another = || IdentityError::certificate(NODE, "another root signed it");
        Ok((Self::from_der(&chain[0])?, issuer.ok_or_else(another)?))
    }

    fn read(certificate: &X509Certificate<'_>) -> Result<Self, IdentityError> {
        let subject = certificate.subject();
        let node = only("node id (CN)", subject, X509Name::iter_common_name)?;
        let unit = only("role (OU)", subject, X509Name::iter_organizational_unit)?;
        let cluster = only("cluster id (O)", subject, X509Name::iter_organization)?;
        let role = match unit {
            MANAGER_NAME => NodeRole::Manager,
            WORKER_NAME => NodeRole::Worker,
            other => return Err(IdentityError::certificate(NODE, format!("role {other:?}"))),
        };
        let invalid = |error| IdentityError::certificate(NODE, error);
        let identity = Identity {
            node: node.parse().map_err(invalid)?,
            role,
            cluster: cluster.parse().map_err(invalid)?,
        };
        if identity.node.is_nil() || identity.cluster.is_nil() {
            return Err(IdentityError::certificate(NODE, "it names no node or no cluster"));
        }
        let validity = certificate.validity();
        Ok(Self {
            identity,
            not_before: Timestamp::from_secs(validity.not_before.timestamp()),
            not_after: Timestamp::from_secs(validity.not_after.timestamp()),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        })
    }
}

/// The one value of an attribute. A second one would let two readers see two identities.
fn only<'a, I>(
    attribute: &str,
    subject: &'a X509Name<'a>,
    values: impl FnOnce(&'a X509Name<'a>) -> I,
) -> Result<&'a str, IdentityError>
where
    I: Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
{
    let mut values = values(subject);
    match (values.next().and_then(|value| value.as_str().ok()), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(IdentityError::certificate(NODE, format!("it must name one {attribute}"))),
    }
}

fn read_pem(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(IdentityError::certificate(what, "the PEM holds no certificate")),
        Err(error) => Err(IdentityError::certificate(what, error)),
    }
}

/// The chain as TLS wants it.
pub(super) fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    read_pem(NODE, pem)
}

fn parse<'a>(what: &'static str, der: &'a [u8]) -> Result<X509Certificate<'a>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(IdentityError::certificate(what, "bytes follow the certificate")),
        Err(error) => Err(IdentityError::certificate(what, error)),
    }
}
