//! The cluster's certificate authority: makes the root, and certificates from signing requests.
//!
//! From a signing request the authority takes the public key and nothing else; name, role,
//! cluster, validity and usages are its own words (SwarmKit: `SigningPolicy` in `ca/config.go`).

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use swarm_core::model::defaults::NODE_CERT_EXPIRY;
use swarm_core::model::{NodeRole, RootCa, SecretBytes};
use swarm_core::time::Timestamp;

use super::{CA_NAME, Identity, IdentityError, MANAGER_NAME, TrustRoot};

/// The life of a root: 20 years of 365 days.
const ROOT_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// How far certificates are backdated, for clocks that are behind.
pub const BACKDATE: Duration = Duration::from_secs(3600);
/// The shortest life that a cluster may set; a shorter setting counts as the default of 90 days.
pub const MIN_NODE_CERT_EXPIRY: Duration = Duration::from_secs(3600);

/// The root certificate with its key: whoever holds it decides who is a member.
pub struct Authority {
    root: TrustRoot,
    issuer: Issuer<'static, KeyPair>,
    /// Follows every certificate that it issues: leads from its root to the one before.
    cross_signed: String,
}

impl Authority {
    /// A new root, ECDSA P-256, for a new cluster.
    ///
    /// # Errors
    /// [`IdentityError::Key`] when the operating system gives no randomness.
    pub fn create(now: Timestamp) -> Result<Self, IdentityError> {
        let key = KeyPair::generate().map_err(key_error)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, CA_NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_life(&mut params, now, ROOT_LIFE);
        params.serial_number = Some(serial()?);
        let pem = params.self_signed(&key).map_err(key_error)?.pem();
        Ok(Self {
            root: TrustRoot::parse(&pem)?,
            issuer: Issuer::new(params, key),
            cross_signed: String::new(),
        })
    }

    /// The authority of a cluster's present root, whatever root is to come.
    ///
    /// # Errors
    /// [`IdentityError::NoSigningKey`] when the key is elsewhere; [`IdentityError::Key`] when it
    /// is damaged or belongs to another root; [`IdentityError::Certificate`] for a damaged root.
    pub fn load(stored: &RootCa) -> Result<Self, IdentityError> {
        let key = stored.key.as_ref().ok_or(IdentityError::NoSigningKey)?;
        Self::of(TrustRoot::parse(&stored.certificate)?, read_key(key)?)
    }

    /// The authority that issues a cluster's certificates now: during a rotation that of the root
    /// to come, whose certificates also hold for whoever trusts the present root alone.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn issuing(stored: &RootCa) -> Result<Self, IdentityError> {
        let Some(rotation) = &stored.rotation else { return Self::load(stored) };
        let key = rotation.key.as_ref().ok_or(IdentityError::NoSigningKey)?;
        let authority = Self::of(TrustRoot::parse(&rotation.certificate)?, read_key(key)?)?;
        Ok(Self { cross_signed: rotation.cross_signed.clone(), ..authority })
    }

    /// A root and its key.
    pub(super) fn of(root: TrustRoot, key: KeyPair) -> Result<Self, IdentityError> {
        if key.public_key_raw() != root.public_key()? {
            return Err(IdentityError::Key("it belongs to another root certificate".into()));
        }
        let issuer = Issuer::from_ca_cert_pem(root.pem(), key).map_err(key_error)?;
        Ok(Self { root, issuer, cross_signed: String::new() })
    }

    /// The name and key of another root, certified by this one, PEM. Its life and usages are those
    /// of that root's own certificate.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] when its name or key is of a kind that cannot be certified.
    pub fn cross_sign(&self, other: &TrustRoot) -> Result<String, IdentityError> {
        let (mut params, key) = other.to_be_certified()?;
        params.serial_number = Some(serial()?);
        let certified = params.signed_by(&key, &self.issuer).map_err(key_error)?.pem();
        other.is_certified_by(&certified, &self.root)?;
        Ok(certified)
    }

    /// A request in PEM to have this root certified by another authority.
    ///
    /// # Errors
    /// As for [`cross_sign`](Self::cross_sign).
    pub fn cross_signing_request(&self) -> Result<String, IdentityError> {
        let (params, _) = self.root.to_be_certified()?;
        let mut named = CertificateParams::default();
        named.distinguished_name = params.distinguished_name;
        let request = named.serialize_request(self.issuer.key()).map_err(key_error)?;
        request.pem().map_err(key_error)
    }

    /// What to keep in the cluster object.
    #[must_use]
    pub fn stored(&self) -> RootCa {
        RootCa {
            certificate: self.root.pem().to_owned(),
            key: Some(self.issuer.key().serialize_pem().into_bytes().into()),
            ..Default::default()
        }
    }

    /// The public half.
    #[must_use]
    pub fn root(&self) -> &TrustRoot {
        &self.root
    }

    /// A certificate in PEM that says `identity`, for the public key in a signing request, valid
    /// from an hour ago until `expiry` from now.
    ///
    /// # Errors
    /// [`IdentityError::Request`] when the request is damaged or not signed by its own key.
    pub fn issue(
        &self,
        csr: &str,
        identity: &Identity,
        expiry: Duration,
        now: Timestamp,
    ) -> Result<String, IdentityError> {
        let refused = |error: rcgen::Error| IdentityError::Request(error.to_string());
        let request = CertificateSigningRequestParams::from_pem(csr).map_err(refused)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let (node, cluster) = (identity.node.as_str(), identity.cluster.as_str());
        params.distinguished_name.push(DnType::OrganizationName, cluster);
        params.distinguished_name.push(DnType::OrganizationalUnitName, identity.unit());
        params.distinguished_name.push(DnType::CommonName, node);
        let names: &[&str] = match identity.role {
            NodeRole::Manager => &[MANAGER_NAME, node, CA_NAME],
            NodeRole::Worker => &[identity.unit(), node],
        };
        for name in names {
            let name = (*name).try_into().map_err(refused)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        let life = if expiry < MIN_NODE_CERT_EXPIRY { NODE_CERT_EXPIRY } else { expiry };
        set_life(&mut params, now, life);
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(refused)?;
        Ok(certificate.pem() + &self.cross_signed)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("root", &self.root).finish_non_exhaustive()
    }
}

/// A new key, and the request to have it certified.
#[derive(Clone, Debug)]
pub struct KeyRequest {
    /// The private key, PKCS #8 PEM. Never leaves the node.
    pub key: SecretBytes,
    /// The signing request, PEM.
    pub csr: String,
}

impl KeyRequest {
    /// A new ECDSA P-256 key. The request names nothing: the authority would not read it.
    ///
    /// # Errors
    /// [`IdentityError::Key`] when the operating system gives no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        let key = KeyPair::generate().map_err(key_error)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(key_error)?;
        Ok(Self { key: key.serialize_pem().into_bytes().into(), csr })
    }
}

/// Reads a private key, PKCS #8 PEM.
pub(super) fn read_key(key: &SecretBytes) -> Result<KeyPair, IdentityError> {
    let text = std::str::from_utf8(key.expose())
        .map_err(|_| IdentityError::Key("it is not PEM".to_owned()))?;
    KeyPair::from_pem(text).map_err(key_error)
}

// By value, to serve `map_err` everywhere.
#[allow(clippy::needless_pass_by_value)]
fn key_error(error: rcgen::Error) -> IdentityError {
    IdentityError::Key(error.to_string())
}

fn set_life(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.before(BACKDATE).since(Timestamp::ZERO);
    params.not_after = epoch + (now + life).since(Timestamp::ZERO);
}

/// A random serial number of 127 bits: two certificates of one key must differ.
fn serial() -> Result<SerialNumber, IdentityError> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| IdentityError::Key("the operating system gives no random bytes".into()))?;
    // Positive, and with a first byte that DER does not strip.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
