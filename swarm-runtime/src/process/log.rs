//! The output of one task: bounded, with times, readable while it grows.
//!
//! The command writes straight into two files, so that its output needs nobody who reads: the
//! executor may be gone for hours. While it is there it moves lines, a moment after they were
//! written, into a log with times and sources, and gives the space of what was moved back to the
//! file system. The log has two files of bounded size; the older one goes when the newer is full.
//! A line that was written while no executor ran carries the time at which it was found.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};
use swarm_core::executor::{ExecError, LogEntry, LogOptions, LogSource, LogStream};
use swarm_core::time::{Clock, SystemClock};
use tokio::sync::watch;

/// Bytes moved in one go, and read in one go.
const CHUNK: usize = 64 * 1024;
/// A line longer than this comes in parts (Docker: 16 KiB).
const LONGEST_LINE: usize = 16 * 1024;
/// Space is given back in pieces of this size.
const PUNCH: u64 = 1024 * 1024;

const SOURCES: [(LogSource, &str); 2] =
    [(LogSource::Stdout, "stdout"), (LogSource::Stderr, "stderr")];

/// The output of one task.
pub(super) struct Log {
    dir: PathBuf,
    /// The size at which a new file begins.
    limit: u64,
    inner: Mutex<Inner>,
    /// The logical end, and whether nothing will follow.
    end: watch::Sender<(u64, bool)>,
}

/// Logical offsets count every byte of the log since this executor opened it.
#[derive(Default)]
struct Inner {
    /// How much of each raw file was moved, and how much of that was given back.
    moved: [u64; 2],
    punched: [u64; 2],
    /// The logical offset at which the older file begins, and the sizes of both.
    start: u64,
    older: u64,
    newer: u64,
}

impl Log {
    /// Opens the log in a directory, which exists.
    pub(super) fn open(dir: PathBuf, limit: u64) -> Self {
        let size = |name: &str| fs::metadata(dir.join(name)).map_or(0, |meta| meta.len());
        let moved = fs::read_to_string(dir.join("moved")).unwrap_or_default();
        let mut numbers = moved.split_whitespace().map(|number| number.parse().unwrap_or(0));
        let moved = [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)];
        let inner =
            Inner { moved, punched: [0; 2], start: 0, older: size("older"), newer: size("newer") };
        let end = inner.older + inner.newer;
        Self { dir, limit, inner: Mutex::new(inner), end: watch::Sender::new((end, false)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves what was written meanwhile. With `last`, an unfinished line too.
    pub(super) fn pump(&self, last: bool) -> io::Result<()> {
        let mut inner = self.inner();
        let mut lines = Vec::new();
        let before = inner.moved;
        for (index, (source, name)) in SOURCES.into_iter().enumerate() {
            let path = self.dir.join(name);
            while fs::metadata(&path).is_ok_and(|meta| meta.len() > inner.moved[index]) {
                let moved = move_lines(&path, inner.moved[index], last, source, &mut lines)?;
                if moved == 0 {
                    break;
                }
                inner.moved[index] += moved;
                // Hours of output may have come together while no executor ran.
                if lines.len() > CHUNK {
                    self.append(&mut inner, &std::mem::take(&mut lines))?;
                }
            }
        }
        if inner.moved == before {
            return Ok(());
        }
        self.append(&mut inner, &lines)?;
        fs::write(self.dir.join("moved"), format!("{} {}", inner.moved[0], inner.moved[1]))?;
        for (index, (_, name)) in SOURCES.into_iter().enumerate() {
            if inner.moved[index] - inner.punched[index] >= PUNCH {
                inner.punched[index] = inner.moved[index];
                give_back(&self.dir.join(name), inner.moved[index]);
            }
        }
        let end = inner.start + inner.older + inner.newer;
        self.end.send_modify(|state| state.0 = end);
        Ok(())
    }

    fn append(&self, inner: &mut Inner, lines: &[u8]) -> io::Result<()> {
        if inner.newer > 0 && inner.newer + lines.len() as u64 > self.limit {
            fs::rename(self.dir.join("newer"), self.dir.join("older"))?;
            inner.start += inner.older;
            inner.older = std::mem::take(&mut inner.newer);
        }
        let mut options = OpenOptions::new();
        let mut file =
            options.append(true).create(true).mode(0o600).open(self.dir.join("newer"))?;
        file.write_all(lines)?;
        inner.newer += lines.len() as u64;
        Ok(())
    }

    /// Nothing will follow.
    pub(super) fn finish(&self) {
        self.end.send_modify(|state| state.1 = true);
    }

    /// Lines from a logical offset on, some at most, and the offset after them.
    fn read(&self, from: u64) -> io::Result<(Vec<LogEntry>, u64)> {
        let inner = self.inner();
        // What was dropped meanwhile is lost to a reader that is that slow.
        let from = from.max(inner.start);
        let middle = inner.start + inner.older;
        let (name, begin, end) = match from < middle {
            true => ("older", inner.start, middle),
            false => ("newer", middle, middle + inner.newer),
        };
        let mut file = match File::open(self.dir.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), from)),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(from - begin))?;
        let mut reader = BufReader::new(file.take(end - from));
        let (mut entries, mut next, mut line) = (Vec::new(), from, Vec::new());
        while next - from < CHUNK as u64 && reader.read_until(b'\n', &mut line)? > 0 {
            next += line.len() as u64;
            // A line that a crash cut short is skipped.
            entries.extend(serde_json::from_slice::<LogEntry>(&line));
            line.clear();
        }
        Ok((entries, next))
    }

    /// The lines that are wanted, as a stream.
    pub(super) fn stream(self: Arc<Self>, options: LogOptions) -> LogStream {
        let reader = Reader {
            end: self.end.subscribe(),
            log: self,
            next: 0,
            ready: VecDeque::new(),
            caught_up: false,
            options,
        };
        Box::pin(futures_util::stream::try_unfold(reader, |mut reader| async move {
            Ok(reader.next().await?.map(|entry| (entry, reader)))
        }))
    }
}

struct Reader {
    log: Arc<Log>,
    end: watch::Receiver<(u64, bool)>,
    next: u64,
    ready: VecDeque<LogEntry>,
    /// Whether everything that was there at first was read: only then `tail` lets go.
    caught_up: bool,
    options: LogOptions,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<LogEntry>, ExecError> {
        loop {
            let holds_back = self.options.tail.is_some() && !self.caught_up;
            if let Some(entry) = (!holds_back).then(|| self.ready.pop_front()).flatten() {
                return Ok(Some(entry));
            }
            let (end, finished) = *self.end.borrow_and_update();
            let (entries, next) = self.log.read(self.next).map_err(|error| {
                ExecError::failed(format!("reading the task's log failed: {error}"))
                    .caused_by(error)
            })?;
            self.next = next;
            self.ready.extend(entries.into_iter().filter(|entry| wanted(&self.options, entry)));
            if let Some(tail) = self.options.tail.filter(|_| !self.caught_up) {
                let tail = usize::try_from(tail).unwrap_or(usize::MAX);
                self.ready.drain(..self.ready.len().saturating_sub(tail));
            }
            if next < end {
                continue;
            }
            self.caught_up = true;
            if !self.ready.is_empty() {
                continue;
            }
            if finished || !self.options.follow || self.end.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

fn wanted(options: &LogOptions, entry: &LogEntry) -> bool {
    let source = match entry.source {
        LogSource::Stdout => options.stdout,
        LogSource::Stderr => options.stderr,
    };
    source && options.since.is_none_or(|since| entry.time >= since)
}

/// Reads lines of a raw file and writes them with their time and source; how many bytes of the
/// file that were.
fn move_lines(
    path: &Path,
    from: u64,
    last: bool,
    source: LogSource,
    out: &mut Vec<u8>,
) -> io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::with_capacity(CHUNK);
    file.take(CHUNK as u64).read_to_end(&mut bytes)?;
    let time = SystemClock.now();
    let mut moved = 0;
    while moved < bytes.len() {
        let rest = &bytes[moved..];
        let line = match rest.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') {
            Some(end) => &rest[..=end],
            None if rest.len() >= LONGEST_LINE => &rest[..LONGEST_LINE],
            None if last => rest,
            None => break,
        };
        moved += line.len();
        serde_json::to_writer(&mut *out, &LogEntry { source, time, data: line.to_vec() })?;
        out.push(b'\n');
    }
    Ok(moved as u64)
}

/// Gives the space of what was moved back. Best effort: without it the file is only larger.
fn give_back(path: &Path, upto: u64) {
    if let Ok(file) = OpenOptions::new().write(true).open(path) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = fallocate(&file, flags, 0, upto);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    fn write(dir: &Path, name: &str, text: &str) {
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create(true).open(dir.join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    async fn read(log: &Arc<Log>, options: LogOptions) -> Vec<String> {
        let options = LogOptions { stdout: true, stderr: true, ..options };
        let entries = log.clone().stream(options).collect::<Vec<_>>().await;
        entries.into_iter().map(|entry| String::from_utf8(entry.unwrap().data).unwrap()).collect()
    }

    #[tokio::test]
    async fn whole_lines_are_moved_and_the_last_one_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::open(dir.path().to_owned(), 1 << 20));
        write(dir.path(), "stdout", "one\ntw");
        log.pump(false).unwrap();
        assert_eq!(read(&log, LogOptions::default()).await, ["one\n"]);
        write(dir.path(), "stdout", "o\nrest");
        log.pump(true).unwrap();
        assert_eq!(read(&log, LogOptions::default()).await, ["one\n", "two\n", "rest"]);

        let again = Arc::new(Log::open(dir.path().to_owned(), 1 << 20));
        again.pump(true).unwrap();
        let tail = LogOptions { tail: Some(2), ..Default::default() };
        assert_eq!(read(&again, tail).await, ["two\n", "rest"], "a restart moves nothing twice");
    }

    #[tokio::test]
    async fn the_log_is_bounded_and_a_follower_sees_every_line() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::open(dir.path().to_owned(), 4096));
        let follow = LogOptions { follow: true, ..Default::default() };
        let reader = tokio::spawn({
            let log = log.clone();
            async move { read(&log, follow).await }
        });
        for n in 0..500 {
            write(dir.path(), "stderr", &format!("line {n}\n"));
            log.pump(false).unwrap();
            tokio::task::yield_now().await;
        }
        log.finish();
        assert_eq!(reader.await.unwrap().len(), 500);
        let sizes = ["older", "newer"].map(|f| fs::metadata(dir.path().join(f)).unwrap().len());
        assert!(sizes.iter().all(|size| *size <= 4096), "{sizes:?}");
        let kept = read(&log, LogOptions::default()).await;
        assert_eq!(kept.last().unwrap(), "line 499\n");
        assert!(kept.len() < 500, "the oldest lines went");
    }

    #[tokio::test]
    async fn space_is_given_back_and_long_lines_come_in_parts() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::open(dir.path().to_owned(), 64 << 20));
        write(dir.path(), "stdout", &"x".repeat(4 << 20));
        log.pump(true).unwrap();
        let raw = fs::metadata(dir.path().join("stdout")).unwrap();
        assert_eq!(raw.len(), 4 << 20, "what writes goes on where it was");
        if raw.blocks() * 512 > 1 << 20 {
            println!("skipped: this file system keeps the space of holes");
        }
        let lines = read(&log, LogOptions::default()).await;
        assert!(lines.iter().all(|line| line.len() == LONGEST_LINE));
        assert_eq!(lines.len(), (4 << 20) / LONGEST_LINE);
    }
}
