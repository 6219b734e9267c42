//! Decides which data keys a manager has, and keeps them in the file `key` of its directory.
//!
//! Files name the key that they are sealed with by its generation; new files take the newest. The
//! file of the keys is plain, which protects a copy of the log alone, or itself sealed with a key
//! that is kept elsewhere. Sealing keys that were plain draws a new generation, since whoever read
//! the disk before has the old one; a generation is forgotten when no file needs it any more. The
//! file is replaced atomically, and holds a key before anything is sealed with it and until after
//! the last such file is gone: it opens the directory wherever a crash comes in between.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use crate::disk::{Disk, replace_file};
use crate::error::OpenError;
use crate::seal::{FileKey, FileSalt, SealKey, random};

const KEY_FILE: &str = "key";
/// A file of one plain key without a number, as the first version wrote it.
const MAGIC_1: &[u8; 8] = b"swarmkey";
const MAGIC_2: &[u8; 8] = b"swrmkey\x02";
const PLAIN: u8 = 0;
const SEALED: u8 = 1;
const PURPOSE: &str = "swarm-raft data keys";
/// A generation and its key.
const ITEM_LEN: usize = 4 + 32;

/// The keys of one manager, from which every file's key is derived; clones share them.
#[derive(Clone)]
pub(crate) struct DataKeys(Arc<Shared>);

struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    ring: Mutex<Ring>,
}

#[derive(Clone)]
struct Ring {
    /// By generation, the newest last; never empty.
    keys: Vec<(u32, SealKey)>,
    /// What seals them.
    sealed_with: Option<SealKey>,
}

impl DataKeys {
    /// Reads the keys of the directory, or makes one where `fresh` says that nothing was sealed
    /// with an earlier one. They are sealed with `seal` afterwards.
    pub(crate) fn load(
        disk: Arc<dyn Disk>,
        dir: &Path,
        fresh: bool,
        seal: Option<SealKey>,
    ) -> Result<Self, OpenError> {
        let path = dir.join(KEY_FILE);
        let of = |ring| {
            let (disk, ring) = (disk.clone(), Mutex::new(ring));
            Self(Arc::new(Shared { disk, dir: dir.to_owned(), ring }))
        };
        let keys = match disk.read(&path) {
            Ok(bytes) => of(decode(&Zeroizing::new(bytes), &path, seal.as_ref())?),
            Err(error) if error.kind() == io::ErrorKind::NotFound && fresh => {
                let keys = vec![(1, SealKey::generate())];
                let ring = Ring { keys, sealed_with: seal.clone() };
                write(&*disk, dir, &ring).map_err(OpenError::io("write the key", &path))?;
                of(ring)
            }
            Err(source) => return Err(OpenError::Io { what: "read the key", path, source }),
        };
        keys.seal_with(seal).map_err(OpenError::io("write the key", &path))?;
        Ok(keys)
    }

    /// Seals the keys on disk, or keeps them plain. Says whether there is a new one, because they
    /// were plain before. Blocks.
    pub(crate) fn seal_with(&self, seal: Option<SealKey>) -> io::Result<bool> {
        self.change(|ring| {
            let rotates = ring.sealed_with.is_none() && seal.is_some();
            let changes = ring.sealed_with != seal;
            ring.sealed_with = seal;
            if rotates {
                ring.keys.push((ring.newest().0 + 1, SealKey::generate()));
            }
            (changes, rotates)
        })
    }

    /// Forgets the keys before a generation: no file needs them. Blocks.
    pub(crate) fn forget_before(&self, generation: u32) -> io::Result<()> {
        self.change(|ring| {
            let before = ring.keys.len();
            let newest = ring.newest().0;
            ring.keys.retain(|(own, _)| *own >= generation.min(newest));
            (ring.keys.len() != before, ())
        })
    }

    /// The generation that new files are sealed with.
    pub(crate) fn newest(&self) -> u32 {
        self.ring().newest().0
    }

    /// Whether files of an older generation may be left.
    pub(crate) fn has_old(&self) -> bool {
        self.ring().keys.len() > 1
    }

    /// What a new file is sealed with.
    pub(crate) fn new_file(&self) -> (FileSalt, FileKey) {
        let ring = self.ring();
        let (generation, key) = ring.newest();
        let salt = FileSalt { generation: *generation, random: random() };
        (salt, key.file_key(&salt.random))
    }

    /// The key of the file with this salt; `None` when its generation is not among the keys.
    pub(crate) fn file_key(&self, salt: &FileSalt) -> Option<FileKey> {
        let ring = self.ring();
        let (_, key) = ring.keys.iter().find(|(own, _)| *own == salt.generation)?;
        Some(key.file_key(&salt.random))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Durable on return. After an error the keys in memory, all of them on disk, are still used.
    fn change<T>(&self, change: impl FnOnce(&mut Ring) -> (bool, T)) -> io::Result<T> {
        let mut ring = self.ring();
        let mut next = ring.clone();
        let (changed, result) = change(&mut next);
        if changed {
            write(&*self.0.disk, &self.0.dir, &next)?;
            *ring = next;
        }
        Ok(result)
    }
}

impl Ring {
    fn newest(&self) -> &(u32, SealKey) {
        self.keys.last().expect("there is one key at least")
    }
}

fn write(disk: &dyn Disk, dir: &Path, ring: &Ring) -> io::Result<()> {
    let mut plain = Zeroizing::new(Vec::with_capacity(ring.keys.len() * ITEM_LEN));
    for (generation, key) in &ring.keys {
        plain.extend_from_slice(&generation.to_le_bytes());
        plain.extend_from_slice(key.expose());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(plain.len() + 64));
    bytes.extend_from_slice(MAGIC_2);
    match &ring.sealed_with {
        None => {
            bytes.push(PLAIN);
            bytes.extend_from_slice(&plain);
        }
        Some(seal) => {
            bytes.push(SEALED);
            bytes.extend_from_slice(&seal.seal(PURPOSE, &plain));
        }
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    replace_file(disk, dir, KEY_FILE, &bytes)
}

fn decode(bytes: &[u8], path: &Path, seal: Option<&SealKey>) -> Result<Ring, OpenError> {
    let damaged = || OpenError::corrupt(path, 0, "this is not a manager's key");
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    if let Some(key) = body.strip_prefix(MAGIC_1) {
        let key = SealKey::from_bytes(key).ok_or_else(damaged)?;
        return Ok(Ring { keys: vec![(0, key)], sealed_with: None });
    }
    let (kind, body) =
        body.strip_prefix(MAGIC_2).and_then(<[u8]>::split_first).ok_or_else(damaged)?;
    let (plain, sealed_with) = match *kind {
        PLAIN => (Zeroizing::new(body.to_vec()), None),
        SEALED => {
            let sealed = || OpenError::Sealed(path.to_owned());
            let seal = seal.ok_or_else(sealed)?;
            (seal.open(PURPOSE, body).ok_or_else(sealed)?, Some(seal.clone()))
        }
        _ => return Err(damaged()),
    };
    let (items, rest) = plain.as_chunks::<ITEM_LEN>();
    let keys: Option<Vec<_>> = items.iter().map(read_item).collect();
    let keys = keys.filter(|keys| !keys.is_empty() && rest.is_empty()).ok_or_else(damaged)?;
    Ok(Ring { keys, sealed_with })
}

fn read_item(item: &[u8; ITEM_LEN]) -> Option<(u32, SealKey)> {
    let (generation, key) = item.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*generation), SealKey::from_bytes(key)?))
}
