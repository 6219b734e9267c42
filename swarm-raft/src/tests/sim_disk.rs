//! A disk in memory that keeps apart what was written and what is durable, counts every change,
//! and crashes, fills up or fails where a test says; or shows at every change what every crash
//! there would leave.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use swarm_core::id::IdSource;

use crate::disk::{Disk, DiskFile};

const SECTOR: usize = 512;
/// How often a sync that hangs looks whether it still does.
const WHILE_IT_HANGS: Duration = Duration::from_millis(5);

/// When the machine stops, relative to a change of the disk, and what of the changes that were
/// not synced is found afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The change does not happen; nothing that was not synced survives.
    Before,
    /// A write happens in part; of what was not synced, some sectors and some names survive.
    Torn,
    /// The change happens; everything survives, as when only the process dies.
    After,
}

impl Crash {
    pub(crate) const ALL: [Self; 3] = [Self::Before, Self::Torn, Self::After];
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Clone, Debug)]
enum Name {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    present: Vec<u8>,
    unsynced: Vec<Change>,
}

/// What a crash would leave: before a change with this number, during it or after it.
pub(crate) struct Point {
    pub(crate) at: u64,
    pub(crate) crash: Crash,
    pub(crate) found: SimDisk,
}

type Record = Arc<dyn Fn() -> Box<dyn FnOnce(Point)> + Send + Sync>;

#[derive(Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    durable: BTreeMap<PathBuf, usize>,
    present: BTreeMap<PathBuf, usize>,
    unsynced: Vec<Name>,
    changes: u64,
    crash: Option<(u64, Crash)>,
    crashed: bool,
    /// Bytes that all files may have together.
    room: Option<usize>,
    /// Whether `allocate` reserves anything, as file systems without support for it do not.
    reserves: bool,
    /// Syncs, those of directories included, that succeed before all others fail.
    syncs_left: Option<u64>,
    failed_syncs: u64,
    /// Whether syncs take until they do not any more.
    hangs: bool,
    record: Option<Record>,
}

/// The disk; clones share it.
#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

impl Default for SimDisk {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { reserves: true, ..State::default() })))
    }
}

impl SimDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Crashes at the change with this number.
    pub(crate) fn crash_at(&self, change: u64, crash: Crash) {
        self.state().crash = Some((change, crash));
    }

    /// Crashes at once; returns the disk as a restart finds it.
    pub(crate) fn crash_now(&self, crash: Crash, seed: u64) -> Self {
        self.state().crashed = true;
        self.after_crash(crash, seed)
    }

    pub(crate) fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// How many changes were made.
    pub(crate) fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Bytes that all files may have together from now on.
    pub(crate) fn set_room(&self, room: Option<usize>) {
        self.state().room = room;
    }

    /// Bytes that all files have.
    pub(crate) fn used(&self) -> usize {
        self.state().used()
    }

    pub(crate) fn without_reservations(self) -> Self {
        self.state().reserves = false;
        self
    }

    /// Lets so many syncs succeed, of files and directories, and none after them.
    pub(crate) fn fail_syncs_after(&self, syncs: u64) {
        self.state().syncs_left = Some(syncs);
    }

    /// Lets every sync take until this is taken back, as a device does that answers no more.
    pub(crate) fn hang_syncs(&self, hangs: bool) {
        self.state().hangs = hangs;
    }

    /// Calls `record`, from now on, before each crash at each change; and what it returns with what
    /// that would leave. Other threads change the disk and go on in between.
    pub(crate) fn record(
        &self,
        record: impl Fn() -> Box<dyn FnOnce(Point)> + Send + Sync + 'static,
    ) {
        self.state().record = Some(Arc::new(record));
    }

    pub(crate) fn stop_recording(&self) {
        self.state().record = None;
    }

    /// Records the crashes at a change that is about to happen, by letting them happen to copies.
    fn about_to(&self, change: impl Fn(&Self)) {
        let (record, at) = {
            let state = self.state();
            (state.record.clone().filter(|_| !state.crashed), state.changes + 1)
        };
        let Some(record) = record else { return };
        for crash in Crash::ALL {
            let found = record();
            let copy = self.copy();
            copy.state().record = None;
            copy.crash_at(at, crash);
            change(&copy);
            found(Point { at, crash, found: copy.after_crash(crash, at) });
        }
    }

    /// How often a sync was tried since they fail.
    pub(crate) fn failed_syncs(&self) -> u64 {
        self.state().failed_syncs
    }

    /// The disk as a restart finds it after a crash.
    pub(crate) fn after_crash(&self, crash: Crash, seed: u64) -> Self {
        let mut state = self.state().clone();
        let mut chance = IdSource::seeded(seed);
        for inode in &mut state.inodes {
            let mut found = inode.durable.clone();
            match crash {
                Crash::Before => {}
                Crash::After => found.clone_from(&inode.present),
                Crash::Torn => tear(&mut found, &inode.unsynced, &mut chance),
            }
            *inode = Inode { durable: found.clone(), present: found, unsynced: Vec::new() };
        }
        let names = match crash {
            Crash::Before => 0,
            Crash::After => state.unsynced.len(),
            Crash::Torn => chance.below(state.unsynced.len() as u64 + 1) as usize,
        };
        let mut found = std::mem::take(&mut state.durable);
        state.unsynced.drain(..names).for_each(|name| rename(&mut found, &name));
        let (inodes, reserves) = (state.inodes, true);
        let state =
            State { inodes, durable: found.clone(), present: found, reserves, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// A copy that shares nothing.
    pub(crate) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().clone())))
    }

    /// The files with their lengths.
    pub(crate) fn files(&self) -> Vec<(PathBuf, usize)> {
        let state = self.state();
        let files = state.present.iter();
        files.map(|(path, inode)| (path.clone(), state.inodes[*inode].present.len())).collect()
    }

    /// Flips one bit of a file.
    pub(crate) fn flip(&self, path: &Path, byte: usize, bit: u8) {
        let mut state = self.state();
        let inode = state.present[path];
        state.inodes[inode].present[byte] ^= 1 << bit;
    }
}

/// Keeps some of what was written and not synced: of each write either some of its sectors, which
/// disks write whole and in any order, or its beginning up to any byte.
fn tear(found: &mut Vec<u8>, unsynced: &[Change], chance: &mut IdSource) {
    for change in unsynced {
        match change {
            Change::Length(len) if chance.below(2) == 0 => found.resize(*len, 0),
            Change::Length(_) => {}
            Change::Write(offset, bytes) if chance.below(2) == 0 => {
                write(found, *offset, &bytes[..chance.below(bytes.len() as u64 + 1) as usize]);
            }
            Change::Write(offset, bytes) => {
                let (mut at, end) = (*offset, offset + bytes.len());
                while at < end {
                    let next = (at + 1).next_multiple_of(SECTOR).min(end);
                    if chance.below(2) == 0 {
                        write(found, at, &bytes[at - offset..next - offset]);
                    }
                    at = next;
                }
            }
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, name: &Name) {
    match name {
        Name::Link(path, inode) => drop(names.insert(path.clone(), *inode)),
        Name::Unlink(path) => drop(names.remove(path)),
        Name::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the machine has crashed")
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl State {
    fn used(&self) -> usize {
        self.present.values().map(|inode| self.inodes[*inode].present.len()).sum()
    }

    /// Counts a change; says whether it happens, and in part only.
    fn count(&mut self) -> io::Result<Option<Crash>> {
        if self.crashed {
            return Err(gone());
        }
        self.changes += 1;
        match self.crash {
            Some((at, crash)) if at == self.changes => {
                self.crashed = true;
                if crash == Crash::Before { Err(gone()) } else { Ok(Some(crash)) }
            }
            _ => Ok(None),
        }
    }

    /// Counts and makes a change that happens whole or not at all.
    fn change<T>(&mut self, change: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        match self.count()? {
            None => change(self),
            Some(crash) => {
                if crash == Crash::After {
                    change(self)?;
                }
                Err(gone())
            }
        }
    }

    /// Whether this sync, of a file or of a directory, is one that succeeds.
    fn count_sync(&mut self) -> io::Result<()> {
        match &mut self.syncs_left {
            Some(0) => {
                self.failed_syncs += 1;
                return Err(io::Error::other("input/output error"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn name(&mut self, name: Name) {
        rename(&mut self.present, &name);
        self.unsynced.push(name);
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(()))
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        Ok(state.present.keys().map(name).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        let inode = *state.present.get(path).ok_or_else(missing)?;
        Ok(state.inodes[inode].present.clone())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.about_to(|disk| drop(disk.create(path)));
        let inode = self.state().change(|state| {
            state.inodes.push(Inode::default());
            let inode = state.inodes.len() - 1;
            state.name(Name::Link(path.to_owned(), inode));
            Ok(inode)
        })?;
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inode = *self.state().present.get(path).ok_or_else(missing)?;
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.about_to(|disk| drop(disk.rename(from, to)));
        self.state().change(|state| {
            state.name(Name::Rename(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.about_to(|disk| drop(disk.remove(path)));
        self.state().change(|state| {
            if !state.present.contains_key(path) {
                return Err(missing());
            }
            state.name(Name::Unlink(path.to_owned()));
            Ok(())
        })
    }

    #[expect(clippy::only_used_in_recursion, reason = "all names are in one list")]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.about_to(|disk| drop(disk.sync_dir(dir)));
        self.state().change(|state| {
            state.count_sync()?;
            for name in std::mem::take(&mut state.unsynced) {
                rename(&mut state.durable, &name);
            }
            Ok(())
        })
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl SimFile {
    /// Records the crashes at a change of this file that is about to happen.
    fn about_to(&self, change: impl Fn(&mut Self)) {
        self.disk.about_to(|disk| change(&mut Self { disk: disk.clone(), inode: self.inode }));
    }
}

impl DiskFile for SimFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.about_to(|file| drop(file.write_at(offset, bytes)));
        let mut state = self.disk.state();
        let crash = state.count()?;
        let (used, room, offset) = (state.used(), state.room, offset as usize);
        let inode = &mut state.inodes[self.inode];
        let grows = (offset + bytes.len()).saturating_sub(inode.present.len());
        let missing = room.map_or(0, |room| (used + grows).saturating_sub(room).min(grows));
        let mut fits = bytes.len() - missing;
        if crash == Some(Crash::Torn) {
            fits /= 2;
        }
        write(&mut inode.present, offset, &bytes[..fits]);
        inode.unsynced.push(Change::Write(offset, bytes[..fits].to_vec()));
        match crash {
            Some(_) => Err(gone()),
            None if missing > 0 => Err(full()),
            None => Ok(()),
        }
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        self.about_to(|file| drop(file.allocate(len)));
        let (inode, len) = (self.inode, len as usize);
        self.disk.state().change(|state| {
            let grows = len.saturating_sub(state.inodes[inode].present.len());
            if !state.reserves || grows == 0 {
                return Ok(());
            }
            if state.room.is_some_and(|room| state.used() + grows > room) {
                return Err(full());
            }
            state.inodes[inode].present.resize(len, 0);
            state.inodes[inode].unsynced.push(Change::Length(len));
            Ok(())
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.about_to(|file| drop(file.truncate(len)));
        let (inode, len) = (self.inode, len as usize);
        self.disk.state().change(|state| {
            state.inodes[inode].present.resize(len, 0);
            state.inodes[inode].unsynced.push(Change::Length(len));
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.about_to(|file| drop(file.sync()));
        let inode = self.inode;
        while self.disk.state().hangs {
            std::thread::sleep(WHILE_IT_HANGS);
        }
        self.disk.state().change(|state| {
            state.count_sync()?;
            let inode = &mut state.inodes[inode];
            inode.durable.clone_from(&inode.present);
            inode.unsynced.clear();
            Ok(())
        })
    }
}
