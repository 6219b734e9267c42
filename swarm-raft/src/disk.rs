//! Decides how the store touches the disk: through [`Disk`], the one narrow trait that all file
//! access of this crate goes through, so that a test can lose, tear, flip and refuse what it likes.

use std::any::Any;
use std::fs;
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

/// The file system, as far as the store needs it.
///
/// # The contract
///
/// Nothing is durable before a sync: bytes and length after [`DiskFile::sync`], names after
/// [`sync_dir`](Self::sync_dir). Calls block; the store makes them on threads of its own.
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory for its owner alone, with its parents, durable on return; one that exists
    /// is kept.
    ///
    /// # Errors
    /// As the operating system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the file's lock until the returned guard is dropped or the process ends.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;

    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// As the operating system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// A file's whole content.
    ///
    /// # Errors
    /// As the operating system says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// A new, empty file for its owner alone (0600); an old one of that name is emptied.
    ///
    /// # Errors
    /// As the operating system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// An existing file, to be written.
    ///
    /// # Errors
    /// As the operating system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Puts a file in the place of another, atomically.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the operating system says. What is on the disk is unknown then: never retry.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file that is being written.
pub trait DiskFile: Send {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As the operating system says; a part may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reserves space so that the file is `len` bytes long, the new ones zero, and writing them
    /// cannot run out of space.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when there is no room; nothing has changed then.
    fn allocate(&mut self, len: u64) -> io::Result<()>;

    /// Cuts the file to `len` bytes; what was cut off is gone for good.
    ///
    /// # Errors
    /// As the operating system says.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// Makes content and length durable.
    ///
    /// # Errors
    /// As the operating system says. What is on the disk is unknown then: never retry.
    fn sync(&mut self) -> io::Result<()>;
}

/// Puts a file with these bytes, for its owner alone, in the place of the one with that name,
/// durable on return; after a crash the old one or the new one is there whole.
///
/// # Errors
/// As the operating system says; which of the two is there is not known then.
pub fn replace_file(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = disk.create(&temporary)?;
    file.write_at(0, bytes)?;
    file.sync()?;
    drop(file);
    disk.rename(&temporary, &dir.join(name))?;
    disk.sync_dir(dir)
}

/// Whether an error says that there is no room left, which time may cure.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsDisk;

impl Disk for FsDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent().filter(|_| !path.is_dir()) else { return Ok(()) };
        self.create_dir(parent)?;
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                // Again: the umask may have taken bits away.
                fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
                // The first name of a relative path has an empty parent.
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                self.sync_dir(parent)
            }
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = options().create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = options().create(true).truncate(true).open(path)?;
        // Again: an old file keeps its mode, and the umask may have taken bits away.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(options().open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }
}

fn options() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

impl DiskFile for fs::File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&*self, rustix::fs::FallocateFlags::empty(), 0, len) {
            // Without support nothing can be reserved: writes may find the disk full then.
            Err(rustix::io::Errno::OPNOTSUPP) => self.set_len(len),
            result => Ok(result?),
        }
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        // A sync of data alone need not keep a length that has become smaller.
        self.sync_all()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
