//! Who a node is, with the key that proves it. [`IdentityFiles`](super::IdentityFiles) keeps it.

use swarm_core::model::{SecretBytes, TlsInfo};

use super::{Identity, IdentityError, NodeCertificate, TrustRoot, ca};

/// Everything that makes a node a member: the root it trusts, its certificate, its key.
/// `Debug` leaves the key out.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    root: TrustRoot,
    pem: String,
    certificate: NodeCertificate,
    tls_info: TlsInfo,
    key: SecretBytes,
}

impl NodeIdentity {
    /// Puts the parts together.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] or [`IdentityError::Key`] when one is damaged or they do
    /// not belong together. An expired certificate is no error here.
    pub fn new(
        root: TrustRoot,
        certificate: String,
        key: SecretBytes,
    ) -> Result<Self, IdentityError> {
        let (read, tls_info) = NodeCertificate::with_issuer(&certificate, &root)?;
        if ca::read_key(&key)?.public_key_raw() != read.public_key {
            return Err(IdentityError::Key("it belongs to another certificate".to_owned()));
        }
        Ok(Self { root, pem: certificate, certificate: read, tls_info, key })
    }

    /// The same certificate, believing in other roots.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] when none of them is behind the certificate: whoever trusts
    /// only them would refuse this node.
    pub fn trusting(&self, root: TrustRoot) -> Result<Self, IdentityError> {
        Self::new(root, self.pem.clone(), self.key.clone())
    }

    /// What the node says of itself in Docker's API: the roots that it trusts, and who issued its
    /// certificate.
    #[must_use]
    pub fn tls_info(&self) -> &TlsInfo {
        &self.tls_info
    }

    /// Who the node is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.certificate.identity
    }

    /// What its certificate says.
    #[must_use]
    pub fn certificate(&self) -> &NodeCertificate {
        &self.certificate
    }

    /// The certificate, and whatever leads from it to the root, in PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// What it trusts.
    #[must_use]
    pub fn root(&self) -> &TrustRoot {
        &self.root
    }

    /// The private key, PKCS #8 PEM.
    #[must_use]
    pub fn key(&self) -> &SecretBytes {
        &self.key
    }
}
