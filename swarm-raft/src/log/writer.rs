//! The one thread that writes the log. It takes everything that waits, writes it as one frame,
//! syncs once, and then answers everybody in order: group commit.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tracing::{error, info, warn};

use super::segment::{self, Segment};
use crate::disk::{Disk, is_full};
use crate::keys::DataKeys;
use crate::record::{Base, Record};

/// How long to wait before a full disk is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Entries beyond this many bytes wait for the next frame.
const FRAME_BYTES: usize = 8 << 20;

/// Called once the records are durable, or will never be.
pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Records to write together, in order.
pub(super) struct Command {
    pub(super) records: Vec<Record>,
    pub(super) done: Done,
}

/// How the disk is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// There is no room to be reserved: new writes are refused, those that were taken fit in what
    /// is left of the reserve.
    pub(crate) full: Option<String>,
    /// The reserve is used up too: writes that were taken wait for room.
    pub(crate) stuck: bool,
    /// Writing has ended for good.
    pub(crate) failed: Option<String>,
}

/// How large files may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// A segment is followed by the next one when it has this many bytes.
    pub(crate) segment: u64,
    /// Bytes that are kept free for writes that were taken.
    pub(crate) reserve: u64,
}

pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) keys: DataKeys,
    pub(super) sizes: Sizes,
    pub(super) segment: Segment,
    /// Every segment, the oldest first; the one being written is the last.
    pub(super) segments: Vec<Kept>,
    /// What the next segment starts with.
    pub(super) base: Base,
    pub(super) health: Arc<tokio::sync::watch::Sender<Health>>,
    pub(super) closing: Arc<AtomicBool>,
    /// Of all segments; told whenever one begins or goes.
    pub(super) oldest_generation: Arc<AtomicU32>,
}

/// A segment on the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) number: u64,
    /// The last index in it.
    pub(super) last: Option<u64>,
    /// The generation of its data key.
    pub(super) generation: u32,
}

/// The oldest generation of a data key that is needed to read the segments.
pub(super) fn oldest_generation(segments: &[Kept]) -> u32 {
    segments.iter().map(|kept| kept.generation).min().unwrap_or_default()
}

impl Writer {
    /// Writes what comes until every sender is gone.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        self.make_room();
        loop {
            let first = if self.health.borrow().full.is_some() {
                match commands.recv_timeout(RETRY_AFTER) {
                    Err(RecvTimeoutError::Timeout) => {
                        self.make_room();
                        continue;
                    }
                    received => received.ok(),
                }
            } else {
                commands.recv().ok()
            };
            let Some(first) = first else { return };
            let mut bytes = 0;
            let mut batch = vec![first];
            while bytes < FRAME_BYTES
                && let Ok(next) = commands.try_recv()
            {
                bytes += next.records.iter().map(size).sum::<usize>();
                batch.push(next);
            }
            self.write(batch);
        }
    }

    fn write(&mut self, batch: Vec<Command>) {
        let mut plain = Vec::new();
        for record in batch.iter().flat_map(|command| &command.records) {
            record.encode(&mut plain);
        }
        let result = if plain.is_empty() { Ok(()) } else { self.append(&plain) };
        let error = result.as_ref().err().map(ToString::to_string);
        for Command { records, done } in batch {
            match &error {
                None => {
                    self.note(&records);
                    done(Ok(()));
                }
                Some(error) => done(Err(io::Error::other(error.clone()))),
            }
        }
        if error.is_none() {
            self.make_room();
        }
    }

    /// Appends a frame; waits for room if there is none.
    fn append(&mut self, plain: &[u8]) -> io::Result<()> {
        loop {
            if let Some(failed) = &self.health.borrow().failed {
                return Err(io::Error::other(failed.clone()));
            }
            match self.segment.append(plain) {
                Ok(()) => {
                    self.health.send_if_modified(|health| std::mem::take(&mut health.stuck));
                    return Ok(());
                }
                Err(error) if is_full(&error) && !self.closing.load(Ordering::Relaxed) => {
                    self.report_full(&error, true);
                    std::thread::sleep(RETRY_AFTER);
                }
                Err(error) => {
                    self.fail(&error);
                    return Err(error);
                }
            }
        }
    }

    /// Keeps in mind what a replay would find, and removes what it would not need.
    fn note(&mut self, records: &[Record]) {
        for record in records {
            match record {
                Record::Vote(vote) => self.base.vote = Some(*vote),
                Record::Entry(entry) => {
                    let kept = self.segments.last_mut().expect("one is being written");
                    kept.last = Some(entry.log_id.index);
                }
                Record::Purged(id) => {
                    self.base.purged = Some(*id);
                    self.remove_purged();
                }
                Record::Base(_) | Record::TruncateAfter(_) | Record::Closed => {}
            }
        }
    }

    /// Removes the oldest segments, as long as nothing in them is needed: when entries are purged,
    /// and when a segment begins after all of the one before was purged while it was the last. A
    /// failure costs space only, and the next purge tries again.
    fn remove_purged(&mut self) {
        let purged = self.base.purged.map(|id| id.index);
        while let [Kept { number, last, .. }, _, ..] = self.segments[..]
            && last <= purged
        {
            if let Err(error) = self.disk.remove(&segment::path(&self.dir, number)) {
                warn!(number, %error, "cannot remove a log segment that is not needed any more");
                break;
            }
            self.segments.remove(0);
        }
        let oldest = oldest_generation(&self.segments);
        self.oldest_generation.store(oldest, Ordering::Relaxed);
    }

    /// Reserves space ahead of the writes, in the next segment where this one is long enough.
    fn make_room(&mut self) {
        let has_old_key = self.segment.generation < self.keys.newest();
        let result = if has_old_key || self.segment.end >= self.sizes.segment {
            self.rotate()
        } else {
            self.segment.reserve(self.sizes.reserve)
        };
        match result {
            Ok(()) => {
                let cured = self.health.send_if_modified(|health| health.full.take().is_some());
                if cured {
                    info!("the disk has room again: writes go on");
                }
            }
            Err(error) if is_full(&error) => self.report_full(&error, false),
            Err(error) => self.fail(&error),
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let (disk, number) = (&*self.disk, self.segment.number + 1);
        let created = Segment::create(
            disk,
            &self.dir,
            &self.keys,
            number,
            &self.base,
            2 * self.sizes.reserve,
        );
        match created {
            Ok(segment) => {
                let generation = segment.generation;
                self.segment = segment;
                self.segments.push(Kept { number, last: None, generation });
                self.remove_purged();
                Ok(())
            }
            Err(error) => {
                // What is left of it is empty: it would be ignored, and is made anew next time.
                let _ = self.disk.remove(&segment::path(&self.dir, number));
                Err(error)
            }
        }
    }

    fn report_full(&self, error: &io::Error, stuck: bool) {
        let reason = format!("{} is on a disk without room: {error}", self.dir.display());
        self.health.send_if_modified(|health| {
            if health.full.is_none() {
                warn!("{reason}: writes are refused until there is");
            }
            let changed = health.full.is_none() || (stuck && !health.stuck);
            health.full.get_or_insert(reason);
            health.stuck |= stuck;
            changed
        });
    }

    /// Ends writing for good: after a failed write or sync nobody knows what is on the disk.
    fn fail(&self, cause: &io::Error) {
        error!(dir = %self.dir.display(), error = %cause, "the log cannot be written: stopping");
        self.health.send_modify(|health| {
            health.failed.get_or_insert_with(|| format!("the log cannot be written: {cause}"));
        });
    }
}

fn size(record: &Record) -> usize {
    match record {
        Record::Entry(entry) => match &entry.payload {
            crate::types::Payload::Normal(proposal) => proposal.encoded.len(),
            _ => 1,
        },
        _ => 1,
    }
}
