//! A disk for tests on which the process dies at the change that a test names: before it, in the
//! middle of it, or right after it. What was written until then is there afterwards.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use swarm_raft::{Disk, DiskFile, FsDisk};

/// When the process dies, relative to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    Before,
    /// Half of a write happens; anything else not at all.
    Torn,
    After,
}

impl Crash {
    pub(crate) const ALL: [Self; 3] = [Self::Before, Self::Torn, Self::After];
}

/// The disk; clones share it.
#[derive(Clone)]
pub(crate) struct CrashDisk {
    changes: Arc<AtomicU64>,
    at: u64,
    crash: Crash,
    syncs_fail: Arc<AtomicBool>,
}

impl CrashDisk {
    /// Dies at the change with this number, counted from one; never at 0.
    pub(crate) fn new(at: u64, crash: Crash) -> Self {
        Self { changes: Arc::default(), at, crash, syncs_fail: Arc::default() }
    }

    /// How many changes were tried.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Lets every sync fail from now on, or none.
    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.syncs_fail.store(fail, Ordering::SeqCst);
    }

    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.syncs_fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("input/output error"));
        }
        self.change(sync)
    }

    fn change<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let number = 1 + self.changes.fetch_add(1, Ordering::SeqCst);
        let dead = || io::Error::other("the process has died");
        match () {
            () if self.at == 0 || number < self.at => change(),
            () if number == self.at && self.crash == Crash::After => {
                change()?;
                Err(dead())
            }
            () => Err(dead()),
        }
    }
}

impl Disk for CrashDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change(|| FsDisk.create_dir(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        FsDisk.lock(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        FsDisk.list(dir)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        FsDisk.read(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.change(|| FsDisk.create(path))?;
        Ok(Box::new(CrashFile { disk: self.clone(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(CrashFile { disk: self.clone(), file: FsDisk.open(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|| FsDisk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|| FsDisk.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.sync(|| FsDisk.sync_dir(dir))
    }
}

struct CrashFile {
    disk: CrashDisk,
    file: Box<dyn DiskFile>,
}

impl DiskFile for CrashFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (disk, file) = (&self.disk, &mut self.file);
        if disk.crash == Crash::Torn && disk.at == disk.changes() + 1 {
            file.write_at(offset, &bytes[..bytes.len() / 2])?;
        }
        disk.change(|| file.write_at(offset, bytes))
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        self.disk.change(|| self.file.allocate(len))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.disk.change(|| self.file.truncate(len))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.sync(|| self.file.sync())
    }
}

/// A disk on which nothing dies.
pub(crate) fn calm() -> CrashDisk {
    CrashDisk::new(0, Crash::Before)
}

/// Plays a scene with a crash at each of its changes; how many there are.
pub(crate) fn crash_points(scene: impl Fn(&CrashDisk)) -> u64 {
    let whole = calm();
    scene(&whole);
    for at in 1..=whole.changes() {
        for crash in Crash::ALL {
            println!("change {at}, {crash:?}");
            scene(&CrashDisk::new(at, crash));
        }
    }
    whole.changes()
}
