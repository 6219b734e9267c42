//! Pure: how files are framed, and what a damaged end means.
//!
//! A file is a header of 64 bytes and frames after it. A frame is one write followed by one sync,
//! so a frame that another one follows was durable once. Sealed bytes carry two checksums: the
//! CRC tells damage from an interrupted write, the seal's tag tells forgery.
//!
//! ```text
//! file    magic 8 | number 8 | salt 32 | generation of the data key 4 | 0 × 8 | crc32 4
//! frame   magic 4 | length 4 | number 8 | crc32 of the sealed bytes 4 | crc32 of these 20 bytes 4
//!         sealed bytes | end mark 4 | zeros up to a multiple of 8
//! ```
//!
//! Space is reserved ahead and reads as zeros, so an interrupted write leaves zeros: at the end
//! (the rest was not written) or in whole sectors (the disk reordered them). Such a frame at the
//! end of the newest segment was never acknowledged and is cut off. Any other damage is rot, and
//! the store refuses to guess.

use std::ops::Range;

use crate::seal::{FileKey, FileSalt, TAG_LEN};

pub(crate) const FILE_HEADER: usize = 64;
/// What a file is refused with whose data key is not there.
pub(crate) const NO_KEY: &str = "it is sealed with a data key that the file of the keys lacks";
const FRAME_HEADER: usize = 24;
const FRAME_MAGIC: [u8; 4] = *b"FRM1";
/// No byte of it is zero, so that a missing end always shows.
const END_MARK: [u8; 4] = [0xe5, 0x9a, 0xc3, 0x71];
const SECTOR: usize = 512;
/// Larger than any frame that is ever written.
const MAX_SEALED: usize = 256 << 20;

/// What a file is, told by its first bytes. The last byte is the version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Log,
    Snapshot,
    Backup,
}

impl FileKind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Log => b"swrmlog\x01",
            Self::Snapshot => b"swrmsnp\x01",
            Self::Backup => b"swrmbak\x01",
        }
    }
}

/// The first 64 bytes of a file.
pub(crate) fn encode_header(kind: FileKind, number: u64, salt: &FileSalt) -> [u8; FILE_HEADER] {
    let mut bytes = [0; FILE_HEADER];
    bytes[..8].copy_from_slice(kind.magic());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    bytes[16..48].copy_from_slice(&salt.random);
    bytes[48..52].copy_from_slice(&salt.generation.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The salt of a file, or what is wrong with its first 64 bytes.
pub(crate) fn decode_header(
    kind: FileKind,
    number: u64,
    bytes: &[u8],
) -> Result<FileSalt, &'static str> {
    let header: &[u8; FILE_HEADER] = bytes.first_chunk().ok_or("the file is too short")?;
    if crc32fast::hash(&header[..60]) != read_u32(header, 60) {
        return Err("the file's header does not match its checksum");
    }
    if header[..7] != kind.magic()[..7] {
        return Err("this is a file of another kind");
    }
    if header[7] != kind.magic()[7] {
        return Err("the file has a format that this version does not know");
    }
    if read_u64(header, 8) != number {
        return Err("the file's name and its header disagree");
    }
    let random = header[16..48].try_into().expect("32 bytes");
    Ok(FileSalt { generation: read_u32(header, 48), random })
}

/// Seals `plain` and puts a frame around it.
pub(crate) fn encode_frame(key: &FileKey, number: u64, plain: &[u8]) -> Vec<u8> {
    let sealed = plain.len() + TAG_LEN;
    let mut bytes = Vec::with_capacity(frame_len(sealed));
    bytes.resize(FRAME_HEADER, 0);
    bytes.extend_from_slice(plain);
    key.seal(number, &mut bytes, FRAME_HEADER);
    let crc = crc32fast::hash(&bytes[FRAME_HEADER..]);
    bytes[..4].copy_from_slice(&FRAME_MAGIC);
    let length = u32::try_from(sealed).expect("frames are far below 4 GiB");
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..20]);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&END_MARK);
    bytes.resize(frame_len(sealed), 0);
    bytes
}

fn frame_len(sealed: usize) -> usize {
    (FRAME_HEADER + sealed + END_MARK.len()).next_multiple_of(8)
}

/// A whole frame in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) number: u64,
    /// Where its sealed bytes are.
    pub(crate) sealed: Range<usize>,
}

/// What follows the last whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing, or reserved space.
    Clean,
    /// A write that was interrupted before its sync.
    Torn,
    /// Bytes that no interrupted write explains.
    Rotten(&'static str),
}

/// The frames of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) frames: Vec<Frame>,
    /// Where the last whole frame ends.
    pub(crate) end: usize,
    pub(crate) tail: Tail,
}

/// Finds the frames in a whole file (whose header has been checked).
pub(crate) fn scan(file: &[u8]) -> Scan {
    let mut frames: Vec<Frame> = Vec::new();
    let mut at = FILE_HEADER.min(file.len());
    let content = file.iter().rposition(|byte| *byte != 0);
    loop {
        let last = frames.last().map(|frame| frame.number);
        match read_frame(file, at, content, last) {
            Ok((frame, end)) => {
                frames.push(frame);
                at = end;
            }
            Err(tail) => return Scan { frames, end: at, tail },
        }
    }
}

struct Header {
    number: u64,
    sealed: usize,
    crc: u32,
}

fn read_header(bytes: &[u8]) -> Option<Header> {
    let header: &[u8; FRAME_HEADER] = bytes.first_chunk()?;
    let sealed = read_u32(header, 4) as usize;
    let whole = header[..4] == FRAME_MAGIC
        && crc32fast::hash(&header[..20]) == read_u32(header, 20)
        && (TAG_LEN..=MAX_SEALED).contains(&sealed);
    whole.then(|| Header { number: read_u64(header, 8), sealed, crc: read_u32(header, 16) })
}

/// Reads the frame at `at`; `content` is the position of the file's last byte that is not zero.
fn read_frame(
    file: &[u8],
    at: usize,
    content: Option<usize>,
    last: Option<u64>,
) -> Result<(Frame, usize), Tail> {
    let Some(content) = content.filter(|content| at <= *content) else {
        return Err(Tail::Clean);
    };
    let Some(header) = read_header(&file[at..]) else {
        return Err(judge_header(file, at, content));
    };
    if last.is_some_and(|last| header.number <= last) {
        return Err(Tail::Rotten("a frame is out of order"));
    }
    let end = at + frame_len(header.sealed);
    let sealed = at + FRAME_HEADER..at + FRAME_HEADER + header.sealed;
    if let Some(bytes) = file.get(sealed.clone())
        && crc32fast::hash(bytes) == header.crc
        && file.get(sealed.end..sealed.end + END_MARK.len()) == Some(&END_MARK)
    {
        return Ok((Frame { number: header.number, sealed }, end.min(file.len())));
    }
    Err(judge_frame(file, at, sealed.end + END_MARK.len()))
}

/// The header is not whole.
fn judge_header(file: &[u8], at: usize, content: usize) -> Tail {
    if frame_follows(file, at) {
        return Tail::Rotten("a frame's header is damaged and whole frames follow it");
    }
    let header = at..(at + FRAME_HEADER).min(file.len());
    if content < header.end || has_empty_sector(file, header) {
        return Tail::Torn;
    }
    Tail::Rotten("the last frame's header does not match its checksum")
}

/// The header is whole, what should follow up to `end` is not.
fn judge_frame(file: &[u8], at: usize, end: usize) -> Tail {
    if frame_follows(file, at) {
        return Tail::Rotten("a frame does not match its checksum and whole frames follow it");
    }
    if end > file.len() || file[end - 1] == 0 || has_empty_sector(file, at..end) {
        return Tail::Torn;
    }
    Tail::Rotten("the last frame does not match its checksum")
}

fn frame_follows(file: &[u8], at: usize) -> bool {
    let starts = (at + 8..file.len().saturating_sub(FRAME_HEADER)).step_by(8);
    starts.into_iter().any(|start| file[start] != 0 && read_header(&file[start..]).is_some())
}

/// Whether the part of `range` in some sector of the file is all zeros.
fn has_empty_sector(file: &[u8], range: Range<usize>) -> bool {
    let mut start = range.start;
    while start < range.end {
        let next = (start + 1).next_multiple_of(SECTOR).min(range.end);
        if file[start..next].iter().all(|byte| *byte == 0) {
            return true;
        }
        start = next;
    }
    false
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
