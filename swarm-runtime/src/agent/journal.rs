//! What survives a restart of the agent: one file for each task.
//!
//! A file is replaced as a whole (written aside, synchronised, renamed), so that a crash leaves
//! the old or the new one. Files are readable by their owner alone: environment variables hold
//! passwords, whatever one says.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use swarm_core::model::TaskId;
use tracing::warn;

use super::state::{Entry, Record};

/// Files up to this number are synchronised one by one.
const FEW: usize = 4;

/// The journal of an agent; without a directory it keeps nothing.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    dir: Option<PathBuf>,
}

impl Journal {
    /// A journal in a directory, which is made if it does not exist.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&dir)?;
        Ok(Self { dir: Some(dir) })
    }

    /// A journal that keeps nothing: every restart begins anew.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Every record. A file that cannot be read is set aside with a warning, and its task counts
    /// as not journaled: one bad file must not keep the node down.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn load(&self) -> io::Result<Vec<Record>> {
        let Some(dir) = &self.dir else { return Ok(Vec::new()) };
        let mut records = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(record) => records.push(record),
                Err(error) => {
                    warn!(path = %path.display(), %error, "unreadable journal entry set aside");
                    fs::rename(&path, path.with_extension("unreadable"))?;
                }
            }
        }
        Ok(records)
    }

    /// Writes changes down; they are durable when it returns.
    ///
    /// # Errors
    /// The first that could not be written; others may have been written or not.
    pub fn apply(&self, entries: &[Entry]) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let aside = |task: &TaskId| dir.join(format!("{task}.tmp"));
        let path = |task: &TaskId| dir.join(format!("{task}.json"));
        let records: Vec<&Record> = entries.iter().filter_map(Entry::record).collect();
        let together = cfg!(target_os = "linux") && records.len() > FEW;
        for record in records {
            write(&aside(&record.task.id), record, !together)?;
        }
        let dir = File::open(dir)?;
        // Each synchronised file costs a flush of the disk; many are left to one flush of their
        // file system (1000 records: half a second instead of three to six).
        #[cfg(target_os = "linux")]
        if together {
            rustix::fs::syncfs(&dir)?;
        }
        for entry in entries {
            match entry {
                Entry::Put(record) => {
                    let task = &record.task.id;
                    fs::rename(aside(task), path(task))?;
                }
                Entry::Forget(task) => match fs::remove_file(path(task)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                },
            }
        }
        // One synchronisation of the directory covers every rename and removal above.
        dir.sync_all()
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// When the directory cannot be emptied.
    pub fn clear(&self) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        for entry in fs::read_dir(dir)? {
            fs::remove_file(entry?.path())?;
        }
        File::open(dir)?.sync_all()
    }
}

fn read(path: &Path) -> io::Result<Record> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn write(path: &Path, record: &Record, synchronise: bool) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    if synchronise { file.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use swarm_core::id::IdSource;
    use swarm_core::model::{Task, TaskState, TaskStatus};
    use swarm_core::time::Timestamp;

    use super::*;

    fn record(seed: u64) -> Record {
        let task = Task { id: IdSource::seeded(seed).next(), slot: 3, ..Default::default() };
        Record {
            task: Arc::new(task),
            status: TaskStatus::new(TaskState::Running, Timestamp::from_secs(9), "started"),
            addresses: vec![[10, 0, 0, 7].into()],
        }
    }

    #[test]
    fn what_was_written_is_read_and_what_was_forgotten_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().join("tasks")).unwrap();
        let (one, other) = (record(1), record(2));
        let put = |record: &Record| Entry::Put(Box::new(record.clone()));
        journal.apply(&[put(&one), put(&other)]).unwrap();
        let many: Vec<Record> = (3..20).map(record).collect();
        journal.apply(&many.iter().map(put).collect::<Vec<_>>()).unwrap();
        assert_eq!(journal.load().unwrap().len(), 2 + many.len());
        let forget = |record: &Record| Entry::Forget(record.task.id);
        journal.apply(&many.iter().map(forget).collect::<Vec<_>>()).unwrap();
        journal.apply(&[Entry::Forget(other.task.id), Entry::Forget(other.task.id)]).unwrap();
        let again = Journal::open(dir.path().join("tasks")).unwrap();
        assert_eq!(again.load().unwrap(), [one]);
        again.clear().unwrap();
        assert_eq!(again.load().unwrap(), []);
    }

    #[test]
    fn a_bad_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let good = record(1);
        journal.apply(&[Entry::Put(Box::new(good.clone()))]).unwrap();
        fs::write(dir.path().join("bad.json"), b"{\"task\":").unwrap();
        assert_eq!(journal.load().unwrap(), std::slice::from_ref(&good));
        assert!(dir.path().join("bad.unreadable").exists());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let record = record(1);
        let path = dir.path().join(format!("{}.json", record.task.id));
        journal.apply(&[Entry::Put(Box::new(record))]).unwrap();
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        let below = dir.path().join("tasks");
        Journal::open(&below).unwrap();
        assert_eq!(fs::metadata(below).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
