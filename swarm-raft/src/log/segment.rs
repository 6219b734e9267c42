//! One file of the log: created whole, then only ever appended to, by the process that created it.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile};
use crate::frame::{self, FileKind};
use crate::keys::DataKeys;
use crate::record::{Base, Record};
use crate::seal::FileKey;

const PREFIX: &str = "log-";

/// The path of a segment.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:020}"))
}

/// The number of the segment with this file name.
pub(crate) fn number(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// The segment that is being written.
pub(super) struct Segment {
    pub(super) number: u64,
    file: Box<dyn DiskFile>,
    key: FileKey,
    /// The generation of the data key that the file's key comes from.
    pub(super) generation: u32,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// How far space is reserved.
    reserved: u64,
    /// The number of the next frame; one that failed is not used again.
    next: u64,
}

impl Segment {
    /// Makes a segment with `base` in it and `reserve` bytes of room; durable on return.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        keys: &DataKeys,
        number: u64,
        base: &Base,
        reserve: u64,
    ) -> io::Result<Self> {
        let (salt, key) = keys.new_file();
        let mut plain = Vec::new();
        Record::Base(base.clone()).encode(&mut plain);
        let mut bytes = frame::encode_header(FileKind::Log, number, &salt).to_vec();
        bytes.extend(frame::encode_frame(&key, 0, &plain));
        // Both are one write within one sector: a damaged header beside a whole frame is rot.
        debug_assert!(bytes.len() <= 512);
        let mut file = disk.create(&path(dir, number))?;
        file.allocate(reserve)?;
        file.write_at(0, &bytes)?;
        file.sync()?;
        disk.sync_dir(dir)?;
        let (generation, end) = (salt.generation, bytes.len() as u64);
        Ok(Self { number, file, key, generation, end, reserved: reserve, next: 1 })
    }

    /// Writes one frame; durable on return.
    ///
    /// # Errors
    /// After [`is_full`](crate::disk::is_full) the frame was taken back and may be appended again
    /// later. After any other error the file must not be touched any more.
    pub(super) fn append(&mut self, plain: &[u8]) -> io::Result<()> {
        let bytes = frame::encode_frame(&self.key, self.next, plain);
        self.next += 1;
        if let Err(error) = self.file.write_at(self.end, &bytes) {
            if crate::disk::is_full(&error) {
                self.file.truncate(self.end).map_err(io::Error::other)?;
                self.reserved = self.end;
            }
            return Err(error);
        }
        // Out of space while syncing is no better than any other failure to sync.
        self.file.sync().map_err(|error| io::Error::other(format!("cannot sync: {error}")))?;
        self.end += bytes.len() as u64;
        self.reserved = self.reserved.max(self.end);
        Ok(())
    }

    /// Sees to it that `ahead` bytes can be appended; reserves twice as many when it has to.
    pub(super) fn reserve(&mut self, ahead: u64) -> io::Result<()> {
        if self.reserved >= self.end + ahead {
            return Ok(());
        }
        let wanted = self.end + 2 * ahead;
        self.file.allocate(wanted)?;
        self.reserved = wanted;
        Ok(())
    }
}
