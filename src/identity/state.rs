//! A node's identity on disk: `swarm-root-ca.crt`, `swarm-node.crt` and `swarm-node.key`.
//!
//! Each file is replaced atomically. Certificate and key change together, which two renames
//! cannot do at once: the new key is first written beside the old one, and whichever of the two
//! fits the certificate is the key, wherever a crash came in between.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use swarm_core::model::SecretBytes;

use super::{Identity, IdentityError, NodeCertificate, TrustRoot, ca};

const ROOT_FILE: &str = "swarm-root-ca.crt";
const CERT_FILE: &str = "swarm-node.crt";
const KEY_FILE: &str = "swarm-node.key";
const NEXT_KEY_FILE: &str = "swarm-node.key.next";

/// Everything that makes a node a member: the root it trusts, its certificate, its key.
/// `Debug` leaves the key out.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    root: TrustRoot,
    pem: String,
    certificate: NodeCertificate,
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
        let read = NodeCertificate::from_pem(&certificate, &root)?;
        if ca::read_key(&key)?.public_key_raw() != read.public_key {
            return Err(IdentityError::Key("it belongs to another certificate".to_owned()));
        }
        Ok(Self { root, pem: certificate, certificate: read, key })
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

    /// Writes the identity into a directory of mode 0700, in files of mode 0600, whatever the
    /// umask. After a crash in between, [`load`](Self::load) finds the old or the new identity.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        let build = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        build
            .and_then(|()| fs::set_permissions(dir, Permissions::from_mode(0o700)))
            .map_err(|source| IdentityError::File { path: dir.to_owned(), source })?;
        write(dir, ROOT_FILE, self.root.pem().as_bytes())?;
        write(dir, NEXT_KEY_FILE, self.key.expose())?;
        write(dir, CERT_FILE, self.pem.as_bytes())?;
        rename(dir, NEXT_KEY_FILE, KEY_FILE)
    }

    /// Reads the identity; absent when the node never had one.
    ///
    /// # Errors
    /// [`IdentityError::File`] when a file is missing or unreadable; otherwise as for
    /// [`new`](Self::new).
    pub fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let Some(pem) = read(dir, CERT_FILE)? else { return Ok(None) };
        let root = TrustRoot::parse(&text(read_required(dir, ROOT_FILE)?)?)?;
        let pem = text(pem)?;
        if let Some(next) = read(dir, NEXT_KEY_FILE)?
            && let Ok(identity) = Self::new(root.clone(), pem.clone(), next.into())
        {
            return Ok(Some(identity));
        }
        Self::new(root, pem, read_required(dir, KEY_FILE)?.into()).map(Some)
    }
}

fn file_error(dir: &Path, name: &str) -> impl FnOnce(io::Error) -> IdentityError {
    let path = dir.join(name);
    move |source| IdentityError::File { path, source }
}

fn read(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, IdentityError> {
    match fs::read(dir.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(dir, name)(error)),
    }
}

fn read_required(dir: &Path, name: &str) -> Result<Vec<u8>, IdentityError> {
    read(dir, name)?.ok_or_else(|| file_error(dir, name)(io::ErrorKind::NotFound.into()))
}

fn text(bytes: Vec<u8>) -> Result<String, IdentityError> {
    String::from_utf8(bytes)
        .map_err(|_| IdentityError::certificate("the identity", "it is not PEM"))
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), IdentityError> {
    let temporary = format!("{name}.tmp");
    let create = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file: File = options.open(dir.join(&temporary))?;
        // Again: the file may be an old one, and the umask may have taken bits away.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    create().map_err(file_error(dir, &temporary))?;
    rename(dir, &temporary, name)
}

fn rename(dir: &Path, from: &str, to: &str) -> Result<(), IdentityError> {
    fs::rename(dir.join(from), dir.join(to))
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(file_error(dir, to))
}
