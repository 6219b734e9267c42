//! The log of one manager: entries and votes, in memory and in segments on disk.

mod open;
mod replay;
pub(crate) mod segment;
mod storage;
#[cfg(test)]
mod tests;
mod writer;

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::keys::DataKeys;
use crate::record::{Base, Record};
use crate::types::LogId;
pub(crate) use replay::Memory;
use segment::Segment;
use writer::{Command, Done, Kept, Writer, oldest_generation};
pub(crate) use writer::{Health, Sizes};

/// Room for the few records of a log that begins anew.
const ROOM: u64 = 4 << 10;

/// What a log holds that nobody writes at the moment.
pub(crate) struct AtRest {
    pub(crate) memory: Memory,
    /// Whose log it is; nobody's if it is empty.
    pub(crate) raft_id: Option<u64>,
    next: u64,
}

impl AtRest {
    /// Reads the log in `dir`, whose lock the caller holds. Blocks.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path, keys: &DataKeys) -> Result<Self, OpenError> {
        let open::Found { memory, raft_id, next, .. } = open::read(disk, dir, keys)?;
        Ok(Self { memory, raft_id, next })
    }

    /// Goes on with this base and these records; durable on return. Blocks.
    pub(crate) fn go_on(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        keys: &DataKeys,
        base: &Base,
        records: &[Record],
    ) -> Result<(), OpenError> {
        let write = || {
            let mut segment = Segment::create(disk, dir, keys, self.next, base, ROOM)?;
            let mut plain = Vec::new();
            records.iter().for_each(|record| record.encode(&mut plain));
            if plain.is_empty() { Ok(()) } else { segment.append(&plain) }
        };
        write().map_err(OpenError::io("write", &segment::path(dir, self.next)))
    }
}

/// A handle to the log; clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    memory: Mutex<Memory>,
    /// Absent once the log is closed.
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    health: Arc<tokio::sync::watch::Sender<Health>>,
    closing: Arc<AtomicBool>,
    oldest_generation: Arc<AtomicU32>,
    /// The directory's lock, until the log is closed.
    lock: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

impl Log {
    /// Reads the log in `dir` and begins a new segment. Blocks.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        keys: DataKeys,
        raft_id: u64,
        sizes: Sizes,
        lock: Box<dyn Any + Send + Sync>,
    ) -> Result<Self, OpenError> {
        let open::Found { memory, raft_id: stored, mut segments, next } =
            open::read(&*disk, dir, &keys)?;
        if let Some(stored) = stored.filter(|stored| *stored != raft_id) {
            return Err(OpenError::OtherMember { stored, given: raft_id });
        }
        let base = Base { raft_id, vote: memory.vote, purged: memory.purged };
        let segment = Segment::create(&*disk, dir, &keys, next, &base, 2 * sizes.reserve)
            .map_err(OpenError::io("begin", &segment::path(dir, next)))?;
        segments.push(Kept { number: next, last: None, generation: segment.generation });
        let oldest_generation = Arc::new(AtomicU32::new(oldest_generation(&segments)));
        let health = Arc::new(tokio::sync::watch::Sender::new(Health::default()));
        let closing = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            disk,
            dir: dir.to_owned(),
            keys,
            sizes,
            segment,
            segments,
            base,
            health: health.clone(),
            closing: closing.clone(),
            oldest_generation: oldest_generation.clone(),
        };
        let (commands, waiting) = mpsc::channel();
        let thread = std::thread::Builder::new().name("swarm-raft log".to_owned());
        let thread = thread.spawn(move || writer.run(&waiting));
        let thread = thread.map_err(|error| OpenError::Settings(error.to_string()))?;
        let shared = Shared {
            memory: Mutex::new(memory),
            commands: Mutex::new(Some(commands)),
            thread: Mutex::new(Some(thread)),
            health,
            closing,
            oldest_generation,
            lock: Mutex::new(Some(lock)),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// How the disk is, now and from now on.
    pub(crate) fn health(&self) -> tokio::sync::watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// The last entry's id, or that of the last purged one.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.memory().last()
    }

    /// The last entry that is gone because a snapshot covers it.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.memory().purged
    }

    /// The generation of the oldest data key that a segment is sealed with.
    pub(crate) fn oldest_generation(&self) -> u32 {
        self.shared.oldest_generation.load(Ordering::Relaxed)
    }

    /// Begins a new segment if there is a newer data key than that of the present one.
    pub(crate) fn take_new_key(&self) {
        self.write(Vec::new(), Box::new(|_| {}));
    }

    /// Every entry.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> Vec<crate::types::Entry> {
        self.memory().entries.iter().cloned().collect()
    }

    /// Writes that the log is closed, after everything else, waits for it, and gives the
    /// directory up.
    pub(crate) async fn close(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        let sender = self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            let command = Command { records: vec![Record::Closed], done: Box::new(|_| {}) };
            let _ = sender.send(command);
        }
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        self.fail(&"it was shut down");
        drop(self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Notes why the store has stopped, unless another reason was there before.
    pub(crate) fn fail(&self, reason: &dyn std::fmt::Display) {
        self.shared.health.send_if_modified(|health| {
            let first = health.failed.is_none();
            health.failed.get_or_insert_with(|| reason.to_string());
            first
        });
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.shared.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands records to the writer.
    fn write(&self, records: Vec<Record>, done: Done) {
        let commands = self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let command = Command { records, done };
        let refused = match &*commands {
            Some(sender) => sender.send(command).err().map(|refused| refused.0),
            None => Some(command),
        };
        if let Some(command) = refused {
            (command.done)(Err(io::Error::other("the log is closed")));
        }
    }

    /// Hands records to the writer and waits until they are durable.
    async fn write_and_wait(&self, records: Vec<Record>) -> io::Result<()> {
        let (done, result) = tokio::sync::oneshot::channel();
        self.write(records, Box::new(move |result| drop(done.send(result))));
        result.await.unwrap_or_else(|_| Err(io::Error::other("the log's writer has ended")))
    }
}
