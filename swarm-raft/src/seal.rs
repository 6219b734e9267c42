//! Decides how bytes are sealed on disk: AES-256-GCM, one key for each file.
//!
//! A manager has one data key, 32 random bytes in a file `key` that only its owner can read. Every
//! log segment and snapshot draws 32 random bytes of salt when it is created; HKDF-SHA256 of data
//! key and salt is the file's own key. The nonce is the number of the frame in its file, which is
//! never used twice: a file is only ever written by the process that created it, and a frame that
//! failed keeps its number. So no nonce repeats under a key, whatever crashes.

use std::io;
use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use crate::disk::Disk;
use crate::error::OpenError;

const KEY_FILE: &str = "key";
const KEY_TMP: &str = "key.tmp";
const KEY_MAGIC: &[u8; 8] = b"swarmkey";
const KEY_LEN: usize = 32;

/// The bytes that sealing adds.
pub(crate) const TAG_LEN: usize = 16;
/// Random bytes that make each file's key its own.
pub(crate) type FileSalt = [u8; 32];

/// The key of one manager, from which every file's key is derived.
#[derive(Clone)]
pub(crate) struct DataKey(std::sync::Arc<Zeroizing<[u8; KEY_LEN]>>);

impl DataKey {
    /// Reads the key of the directory, or makes one where `fresh` says that nothing was sealed
    /// with an earlier one.
    pub(crate) fn load(disk: &dyn Disk, dir: &Path, fresh: bool) -> Result<Self, OpenError> {
        let path = dir.join(KEY_FILE);
        match disk.read(&path) {
            Ok(bytes) => Self::decode(&Zeroizing::new(bytes), &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound && fresh => {
                Self::create(disk, dir)
            }
            Err(source) => Err(OpenError::Io { what: "read the key", path, source }),
        }
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self, OpenError> {
        let damaged = || OpenError::corrupt(path, 0, "this is not a manager's key");
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(damaged());
        }
        let key = body.strip_prefix(KEY_MAGIC).and_then(|key| key.try_into().ok());
        Ok(Self(std::sync::Arc::new(Zeroizing::new(key.ok_or_else(damaged)?))))
    }

    fn create(disk: &dyn Disk, dir: &Path) -> Result<Self, OpenError> {
        let (path, tmp) = (dir.join(KEY_FILE), dir.join(KEY_TMP));
        let key = Zeroizing::new(random());
        let mut bytes = Zeroizing::new(Vec::with_capacity(64));
        bytes.extend_from_slice(KEY_MAGIC);
        bytes.extend_from_slice(&*key);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let write = || -> io::Result<()> {
            let mut file = disk.create(&tmp)?;
            file.write_at(0, &bytes)?;
            file.sync()?;
            disk.rename(&tmp, &path)?;
            disk.sync_dir(dir)
        };
        write().map_err(OpenError::io("write the key", &path))?;
        Ok(Self(std::sync::Arc::new(key)))
    }

    /// The key of the file with this salt.
    pub(crate) fn file_key(&self, salt: &FileSalt) -> FileKey {
        let prk: Prk = Salt::new(HKDF_SHA256, salt).extract(&**self.0);
        let okm = prk.expand(&[b"swarm-raft file"], &AES_256_GCM);
        let okm = okm.expect("one key is within what HKDF gives");
        FileKey(LessSafeKey::new(UnboundKey::from(okm)))
    }
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
