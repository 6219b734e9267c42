//! How a log is found again: every segment is read and checked, an interrupted write at the very
//! end is cut off, and a new segment is begun.

use std::path::Path;

use tracing::{info, warn};

use super::replay::{Memory, Replay};
use super::segment;
use super::writer::Kept;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::frame::{self, FileKind, Tail};
use crate::keys::DataKeys;
use crate::record::Record;

/// A log that was read.
pub(super) struct Found {
    pub(super) memory: Memory,
    /// Whose log it is; nobody's if it is empty.
    pub(super) raft_id: Option<u64>,
    /// Every segment, the oldest first.
    pub(super) segments: Vec<Kept>,
    /// The number of the segment to begin.
    pub(super) next: u64,
}

/// Reads every segment of the directory.
pub(super) fn read(disk: &dyn Disk, dir: &Path, keys: &DataKeys) -> Result<Found, OpenError> {
    let names = disk.list(dir).map_err(OpenError::io("list", dir))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    let mut replay = Replay::default();
    let mut segments = Vec::new();
    for (position, number) in numbers.iter().copied().enumerate() {
        let path = segment::path(dir, number);
        if position > 0 && numbers[position - 1] + 1 != number {
            let what = format!("the segment before it, {}, is missing", number - 1);
            return Err(OpenError::corrupt(&path, 0, what));
        }
        let newest = position + 1 == numbers.len();
        match read_segment(disk, &path, number, keys, newest)? {
            Some((generation, records)) => {
                let last = replay_segment(&mut replay, &path, records)?;
                segments.push(Kept { number, last, generation });
            }
            None => discard(disk, dir, &path)?,
        }
    }
    let next = segments.last().map_or(1, |kept| kept.number + 1);
    let raft_id = replay.raft_id;
    let memory = replay.finish().map_err(|what| OpenError::corrupt(dir, 0, what))?;
    Ok(Found { memory, raft_id, segments, next })
}

fn replay_segment(
    replay: &mut Replay,
    path: &Path,
    records: Records,
) -> Result<Option<u64>, OpenError> {
    let mut last = None;
    for (offset, record) in records {
        if let Record::Entry(entry) = &record {
            last = Some(entry.log_id.index);
        }
        replay.apply(record).map_err(|what| OpenError::corrupt(path, offset, what))?;
    }
    Ok(last)
}

/// The records of a segment with their offsets.
type Records = Vec<(usize, Record)>;

/// The generation of a segment's data key, and its records; `None` for a newest segment whose creation was
/// interrupted, in which nothing can have been acknowledged.
fn read_segment(
    disk: &dyn Disk,
    path: &Path,
    number: u64,
    keys: &DataKeys,
    newest: bool,
) -> Result<Option<(u32, Records)>, OpenError> {
    let bytes = disk.read(path).map_err(OpenError::io("read", path))?;
    let scan = frame::scan(&bytes);
    let salt = match frame::decode_header(FileKind::Log, number, &bytes) {
        Ok(salt) => salt,
        Err(_) if newest && scan.frames.is_empty() && !matches!(scan.tail, Tail::Rotten(_)) => {
            return Ok(None);
        }
        Err(what) => return Err(OpenError::corrupt(path, 0, what)),
    };
    match scan.tail {
        Tail::Clean | Tail::Torn if newest && scan.frames.is_empty() => return Ok(None),
        Tail::Clean if newest && bytes.len() > scan.end => cut(disk, path, scan.end)?,
        Tail::Clean => {}
        Tail::Torn if newest => {
            warn!(path = %path.display(), offset = scan.end, "a write was interrupted: cutting it");
            cut(disk, path, scan.end)?;
        }
        Tail::Torn => {
            let what = "a write was interrupted here, yet a newer segment exists";
            return Err(OpenError::corrupt(path, scan.end, what));
        }
        Tail::Rotten(what) => return Err(OpenError::corrupt(path, scan.end, what)),
    }
    if scan.frames.is_empty() {
        return Err(OpenError::corrupt(path, scan.end, "it has no first record"));
    }
    let key = keys.file_key(&salt);
    let key = key.ok_or_else(|| OpenError::corrupt(path, 0, frame::NO_KEY))?;
    let mut records = Vec::new();
    for frame in scan.frames {
        let offset = frame.sealed.start;
        let Some(plain) = key.open(frame.number, &bytes[frame.sealed]) else {
            let what = "its seal was not made with this manager's key";
            return Err(OpenError::corrupt(path, offset, what));
        };
        let read = Record::decode_all(&plain);
        let read = read.map_err(|bad| OpenError::corrupt(path, offset, bad.to_string()))?;
        records.extend(read.into_iter().map(|record| (offset, record)));
    }
    Ok(Some((salt.generation, records)))
}

/// Cuts off reserved space, or a write that was interrupted. Durable before a newer segment
/// exists, so that the rule "torn only in the newest" stays true.
fn cut(disk: &dyn Disk, path: &Path, end: usize) -> Result<(), OpenError> {
    let cut = || {
        let mut file = disk.open(path)?;
        file.truncate(end as u64)?;
        file.sync()
    };
    cut().map_err(OpenError::io("cut the end off", path))
}

fn discard(disk: &dyn Disk, dir: &Path, path: &Path) -> Result<(), OpenError> {
    info!(path = %path.display(), "removing a segment whose creation was interrupted");
    disk.remove(path).map_err(OpenError::io("remove", path))?;
    disk.sync_dir(dir).map_err(OpenError::io("sync", dir))
}
