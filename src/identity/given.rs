//! Pure: the authority that an operator gives: a root certificate of any origin, and its key.
//!
//! Texts and order of the checks are SwarmKit's (`ca/certificates.go`, `controlapi/ca_rotation.go`).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::string::{Ia5String, PrintableString};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyPair,
    KeyUsagePurpose, SubjectPublicKeyInfo,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use swarm_core::time::Timestamp;
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use super::{Authority, IdentityError, TrustRoot};

/// A root must be good for this long when it is given.
const MIN_ROOT_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads a root certificate that shall become the cluster's.
///
/// # Errors
/// [`IdentityError::Given`]: it is not one certificate, not a self-signed authority, expires
/// within a year, or uses what this manager cannot reproduce.
pub fn root(pem: &str, now: Timestamp) -> Result<TrustRoot, IdentityError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| given(format!("invalid root certificates: {error}")))?;
    for der in &all {
        validate(der)?;
    }
    let [only] = &all[..] else {
        return Err(match all.is_empty() {
            true => given("no valid root CA certificates found"),
            false => given("the desired CA certificate cannot contain multiple certificates"),
        });
    };
    let (_, certificate) = X509Certificate::from_der(only).map_err(given)?;
    let expires = Timestamp::from_secs(certificate.validity().not_after.timestamp());
    if expires < now + MIN_ROOT_LIFE {
        return Err(given("CA certificate expires too soon"));
    }
    TrustRoot::parse(&normal(only))
}

/// Reads a root certificate as [`root`] does, with its key: PKCS #8, SEC 1 or PKCS #1, PEM.
///
/// # Errors
/// As there, and for a key that is damaged or another certificate's.
pub fn authority(pem: &str, key: &str, now: Timestamp) -> Result<Authority, IdentityError> {
    let root = root(pem, now)?;
    let key = private_key(key)?;
    if key.public_key_raw() != root.public_key()? {
        return Err(given("certificate key mismatch"));
    }
    let authority = Authority::of(root, key)?;
    // That it can sign, and that its name comes out as it is: else nobody could follow its chains.
    authority.cross_sign(authority.root())?;
    Ok(authority)
}

/// The same certificates in one fixed form of PEM, so that the digest of a root does not hang on
/// blank lines; text that is no certificate is empty.
#[must_use]
pub fn normalized(pem: &str) -> String {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes());
    all.filter_map(Result::ok).map(|der| normal(&der)).collect()
}

fn normal(der: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[allow(clippy::needless_pass_by_value)]
fn given(error: impl ToString) -> IdentityError {
    IdentityError::Given(error.to_string())
}

fn validate(der: &CertificateDer<'_>) -> Result<(), IdentityError> {
    let invalid = |why: &str| given(format!("error while validating Root CA Certificate: {why}"));
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| given(format!("invalid root certificates: {error}")))?;
    if !certificate.is_ca() {
        return Err(invalid("it is not a certificate authority"));
    }
    if certificate.subject().as_raw() != certificate.issuer().as_raw()
        || certificate.verify_signature(None).is_err()
    {
        return Err(invalid("it is not signed by its own key: give the root, not an intermediate"));
    }
    Ok(())
}

/// A private key in any of the forms that `openssl` writes.
fn private_key(pem: &str) -> Result<KeyPair, IdentityError> {
    let malformed = |why: &dyn std::fmt::Display| given(format!("malformed private key: {why}"));
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| malformed(&error))?;
    let pkcs8 = match &key {
        PrivateKeyDer::Pkcs8(key) => key.secret_pkcs8_der().to_vec(),
        PrivateKeyDer::Sec1(key) => {
            let curves = [PRIME256V1, SECP384R1].map(|curve| wrapped(curve, key.secret_sec1_der()));
            let usable = curves.into_iter().find(|der| read(der).is_ok());
            usable.ok_or_else(|| malformed(&"its curve is neither P-256 nor P-384"))?
        }
        PrivateKeyDer::Pkcs1(key) => wrapped(RSA, key.secret_pkcs1_der()),
        _ => return Err(malformed(&"its form is not known")),
    };
    read(&pkcs8).map_err(|error| malformed(&error))
}

fn read(pkcs8: &[u8]) -> Result<KeyPair, rcgen::Error> {
    KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8))
}

/// Algorithms as PKCS #8 names them.
const PRIME256V1: &[u8] =
    b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const SECP384R1: &[u8] =
    b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// A key in its algorithm's own form, as PKCS #8.
fn wrapped(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let version = [0x02, 0x01, 0x00];
    tagged(0x30, &[&version, algorithm, &tagged(0x04, key)].concat())
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().position(|byte| *byte != 0).unwrap_or(7)..];
    let mut der = vec![tag];
    if content.len() >= 0x80 {
        der.push(0x80 | significant.len() as u8);
    }
    der.extend(significant);
    der.extend(content);
    der
}

impl TrustRoot {
    /// What another authority certifies of the one root: name, key, life and usages.
    pub(super) fn to_be_certified(
        &self,
    ) -> Result<(CertificateParams, SubjectPublicKeyInfo), IdentityError> {
        let several = || given("several roots cannot be certified as one");
        let der = self.only().ok_or_else(several)?;
        let (_, certificate) = X509Certificate::from_der(der).map_err(given)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(certificate.subject())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let validity = certificate.validity();
        params.not_before = validity.not_before.to_datetime();
        params.not_after = validity.not_after.to_datetime();
        let key = SubjectPublicKeyInfo::from_der(certificate.public_key().raw).map_err(given)?;
        Ok((params, key))
    }
}

/// A name, to be written once more: it must come out the same, for chains are found by name.
fn name(name: &X509Name<'_>) -> Result<DistinguishedName, IdentityError> {
    let odd = || given("the name of the CA certificate uses a form that is not supported");
    let mut copy = DistinguishedName::new();
    for attributes in name.iter() {
        let mut attributes = attributes.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err(odd());
        };
        let kind: Option<Vec<u64>> = attribute.attr_type().iter().map(Iterator::collect);
        let text = attribute.as_str().map_err(|_| odd())?.to_owned();
        let value = match attribute.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text),
            Tag::PrintableString => {
                DnValue::PrintableString(PrintableString::try_from(text).map_err(|_| odd())?)
            }
            Tag::Ia5String => DnValue::Ia5String(Ia5String::try_from(text).map_err(|_| odd())?),
            _ => return Err(odd()),
        };
        copy.push(DnType::from_oid(&kind.ok_or_else(odd)?), value);
    }
    Ok(copy)
}

#[cfg(test)]
#[path = "given_tests.rs"]
mod tests;
