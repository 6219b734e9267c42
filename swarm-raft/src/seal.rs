//! Decides how bytes are sealed on disk: AES-256-GCM, one key for each file.
//!
//! Every log segment and snapshot draws 32 random bytes of salt when it is created; HKDF-SHA256 of
//! one of the manager's [data keys](crate::keys) and the salt is the file's own key. The nonce is
//! the number of the frame in its file, which is never used twice: a file is only ever written by
//! the process that created it, and a frame that failed keeps its number. So no nonce repeats under
//! a key, whatever crashes. Other keys are sealed in the same way, each time with a new salt.

use std::fmt;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;
const FILE_PURPOSE: &str = "swarm-raft file";

/// The bytes that sealing adds.
pub(crate) const TAG_LEN: usize = 16;

/// 32 random bytes that seal others. Erased when the last holder drops them, never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey(Arc<Zeroizing<[u8; KEY_LEN]>>);

impl SealKey {
    /// A new one.
    ///
    /// # Panics
    /// When the operating system has no random bytes: nothing can be sealed then.
    #[must_use]
    pub fn generate() -> Self {
        Self(Arc::new(Zeroizing::new(random())))
    }

    /// The key of these bytes; `None` unless there are 32.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Arc::new(Zeroizing::new(bytes.try_into().ok()?))))
    }

    /// The bytes. The name is long so that a reader of the calling code sees the exposure.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &**self.0
    }

    /// Seals bytes for one purpose: what was sealed for another does not open. 48 bytes longer.
    #[must_use]
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Vec<u8> {
        let salt = random();
        let mut sealed = Vec::with_capacity(salt.len() + plain.len() + TAG_LEN);
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(plain);
        self.derive(purpose, &salt).seal(0, &mut sealed, salt.len());
        sealed
    }

    /// Opens what [`seal`](Self::seal) made; `None` when another key or purpose did, or when it is
    /// damaged.
    #[must_use]
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (salt, sealed) = sealed.split_first_chunk::<KEY_LEN>()?;
        self.derive(purpose, salt).open(0, sealed)
    }

    /// The key of the file with this salt.
    pub(crate) fn file_key(&self, salt: &[u8; 32]) -> FileKey {
        self.derive(FILE_PURPOSE, salt)
    }

    fn derive(&self, purpose: &str, salt: &[u8; 32]) -> FileKey {
        let prk: Prk = Salt::new(HKDF_SHA256, salt).extract(&**self.0);
        let info = [purpose.as_bytes()];
        let okm = prk.expand(&info, &AES_256_GCM).expect("one key is within what HKDF gives");
        FileKey(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

/// What a file's key is made of: one of the manager's data keys, and random bytes of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileSalt {
    /// Which data key.
    pub(crate) generation: u32,
    pub(crate) random: [u8; 32],
}

/// Random bytes from the operating system.
///
/// # Panics
/// When it has none: nothing can be sealed then.
pub(crate) fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// The key of one file.
pub(crate) struct FileKey(LessSafeKey);

impl FileKey {
    /// Seals `buffer[from..]` in place and appends the tag.
    pub(crate) fn seal(&self, number: u64, buffer: &mut Vec<u8>, from: usize) {
        let sealed = &mut buffer[from..];
        let tag = self.0.seal_in_place_separate_tag(nonce(number), Aad::empty(), sealed);
        let tag = tag.expect("a frame is far below the limit of AES-GCM");
        buffer.extend_from_slice(tag.as_ref());
    }

    /// Opens a sealed frame; `None` when it was not sealed with this key and number.
    pub(crate) fn open(&self, number: u64, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut plain = Zeroizing::new(sealed.to_vec());
        let len = self.0.open_in_place(nonce(number), Aad::empty(), &mut plain).ok()?.len();
        plain.truncate(len);
        Some(plain)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_with_the_same_key_for_the_same_purpose_alone() {
        let key = SealKey::generate();
        let mut sealed = key.seal("one", b"plain");
        assert_eq!(key.open("one", &sealed).unwrap().as_slice(), b"plain");
        assert_ne!(sealed, key.seal("one", b"plain"), "each time with a new salt");
        assert!(key.open("two", &sealed).is_none());
        assert!(SealKey::generate().open("one", &sealed).is_none());
        for at in 0..sealed.len() {
            sealed[at] ^= 1;
            assert!(key.open("one", &sealed).is_none(), "byte {at} was changed");
            sealed[at] ^= 1;
        }
        assert!(key.open("one", &sealed[..40]).is_none() && key.open("one", &[]).is_none());
        assert_eq!(SealKey::from_bytes(key.expose()), Some(key.clone()));
        assert_eq!(SealKey::from_bytes(b"short"), None);
        assert_eq!(format!("{key:?}"), "SealKey(..)");
    }
}
