//! A node's identity on disk: `swarm-root-ca.crt`, `swarm-node.crt` and `swarm-node.key`.
//!
//! Each file is replaced atomically. Certificate and key change together, which two renames
//! cannot do at once: the new key is first written beside the old one, and whichever of the two
//! fits the certificate is the key, wherever a crash came in between. The key is plain PEM, or
//! sealed on a manager that must be unlocked (SwarmKit: PEM encrypted with the unlock key); each
//! file says which, so that a crash may also come between the two forms.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarm_core::model::SecretBytes;
use swarm_raft::{Disk, FsDisk, SealKey, replace_file};

use super::{IdentityError, NodeIdentity, TrustRoot};

const ROOT_FILE: &str = "swarm-root-ca.crt";
const CERT_FILE: &str = "swarm-node.crt";
const KEY_FILE: &str = "swarm-node.key";
const NEXT_KEY_FILE: &str = "swarm-node.key.next";
/// A key that a crash kept from getting its name.
const UNNAMED_KEY_FILE: &str = "swarm-node.key.next.tmp";
const SEALED_MAGIC: &[u8; 8] = b"swrmtls\x01";
const PURPOSE: &str = "swarm node key";

/// Where a node keeps its identity, and what its key is sealed with there. Clones share both.
#[derive(Clone)]
pub struct IdentityFiles(Arc<Inner>);

struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Held while files are read or written.
    seal: Mutex<Option<SealKey>>,
}

impl IdentityFiles {
    /// The files in a directory; the key is plain.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::with(Arc::new(FsDisk), dir, None)
    }

    /// The files in a directory of some disk. With `seal`, keys are written sealed, and read
    /// whether they are sealed or plain.
    #[must_use]
    pub fn with(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>, seal: Option<SealKey>) -> Self {
        Self(Arc::new(Inner { disk, dir: dir.into(), seal: Mutex::new(seal) }))
    }

    /// Writes an identity into the directory, of mode 0700, in files of mode 0600, whatever the
    /// umask. After a crash in between, [`load`](Self::load) finds the old or the new identity.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn save(&self, identity: &NodeIdentity) -> Result<(), IdentityError> {
        self.write(identity, self.seal().as_ref())
    }

    /// Reads the identity; absent when the node never had one.
    ///
    /// # Errors
    /// [`IdentityError::File`] when a file is missing or unreadable; otherwise as for
    /// [`NodeIdentity::new`].
    pub fn load(&self) -> Result<Option<NodeIdentity>, IdentityError> {
        self.read(self.seal().as_ref())
    }

    /// Seals the key on disk from now on, or leaves it plain; durable on return. No file in the
    /// other form is left.
    ///
    /// # Errors
    /// As for [`load`](Self::load) and [`save`](Self::save); the key is on disk in one of the
    /// forms. Try again.
    pub fn seal_with(&self, seal: Option<SealKey>) -> Result<(), IdentityError> {
        let mut now = self.seal();
        if !self.is_as_wanted(now.as_ref(), seal.as_ref())?
            // After a failure in between, the key may be in the new form already.
            && let Some(identity) =
                self.read(now.as_ref()).or_else(|_| self.read(seal.as_ref()))?
        {
            self.write(&identity, seal.as_ref())?;
        }
        *now = seal;
        Ok(())
    }

    fn seal(&self) -> MutexGuard<'_, Option<SealKey>> {
        self.0.seal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_as_wanted(
        &self,
        now: Option<&SealKey>,
        wanted: Option<&SealKey>,
    ) -> Result<bool, IdentityError> {
        let key = self.read_file(KEY_FILE)?;
        let sealed = key.is_some_and(|key| key.expose().starts_with(SEALED_MAGIC));
        let in_form = sealed == wanted.is_some() && (!sealed || now == wanted);
        let left = self.read_file(NEXT_KEY_FILE)?.or(self.read_file(UNNAMED_KEY_FILE)?);
        Ok(in_form && left.is_none())
    }

    fn write(&self, identity: &NodeIdentity, seal: Option<&SealKey>) -> Result<(), IdentityError> {
        let Inner { disk, dir, .. } = &*self.0;
        disk.create_dir(dir).map_err(|source| IdentityError::File { path: dir.clone(), source })?;
        let write = |name: &str, bytes: &[u8]| {
            replace_file(&**disk, dir, name, bytes).map_err(file_error(dir, name))
        };
        let key = match seal {
            None => identity.key().clone(),
            Some(seal) => {
                let sealed = seal.seal(PURPOSE, identity.key().expose());
                [SEALED_MAGIC.as_slice(), &sealed].concat().into()
            }
        };
        write(ROOT_FILE, identity.root().pem().as_bytes())?;
        write(NEXT_KEY_FILE, key.expose())?;
        write(CERT_FILE, identity.certificate_pem().as_bytes())?;
        disk.rename(&dir.join(NEXT_KEY_FILE), &dir.join(KEY_FILE))
            .and_then(|()| disk.sync_dir(dir))
            .map_err(file_error(dir, KEY_FILE))
    }

    fn read(&self, seal: Option<&SealKey>) -> Result<Option<NodeIdentity>, IdentityError> {
        let Some(pem) = self.read_file(CERT_FILE)? else { return Ok(None) };
        let root = TrustRoot::parse(&text(&self.read_required(ROOT_FILE)?)?)?;
        let pem = text(&pem)?;
        if let Some(next) = self.read_file(NEXT_KEY_FILE)?
            && let Ok(next) = opened(next, seal)
            && let Ok(identity) = NodeIdentity::new(root.clone(), pem.clone(), next)
        {
            return Ok(Some(identity));
        }
        let key = opened(self.read_required(KEY_FILE)?, seal)?;
        NodeIdentity::new(root, pem, key).map(Some)
    }

    fn read_file(&self, name: &str) -> Result<Option<SecretBytes>, IdentityError> {
        match self.0.disk.read(&self.0.dir.join(name)) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file_error(&self.0.dir, name)(error)),
        }
    }

    fn read_required(&self, name: &str) -> Result<SecretBytes, IdentityError> {
        let missing = || file_error(&self.0.dir, name)(io::ErrorKind::NotFound.into());
        self.read_file(name)?.ok_or_else(missing)
    }
}

/// The key in a file, whichever form it has.
fn opened(bytes: SecretBytes, seal: Option<&SealKey>) -> Result<SecretBytes, IdentityError> {
    let Some(sealed) = bytes.expose().strip_prefix(SEALED_MAGIC) else { return Ok(bytes) };
    let key = seal.and_then(|seal| seal.open(PURPOSE, sealed));
    key.map(SecretBytes::from)
        .ok_or_else(|| IdentityError::Key("it is sealed, and not with this node's lock".to_owned()))
}

fn file_error(dir: &Path, name: &str) -> impl FnOnce(io::Error) -> IdentityError + use<> {
    let path = dir.join(name);
    move |source| IdentityError::File { path, source }
}

fn text(bytes: &SecretBytes) -> Result<String, IdentityError> {
    String::from_utf8(bytes.expose().to_vec())
        .map_err(|_| IdentityError::certificate("the identity", "it is not PEM"))
}
