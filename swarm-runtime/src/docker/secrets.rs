//! Delivers secrets and configs as files that live in memory, never on a disk.
//!
//! Every task gets a directory on a tmpfs, and the engine binds each file read-only to its
//! target (`/run/secrets/NAME` for a secret). The tmpfs is mounted under the state directory when
//! this process may mount; it stays mounted, because tasks outlive their agent. Otherwise
//! `/dev/shm` serves, with a directory that only this user can enter. Like all memory without a
//! lock it may reach an unencrypted swap device: turn swap off, or encrypt it, where that matters.
//!
//! The engine must run in this process's mount namespace, or in one that receives its mounts.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use swarm_core::executor::ExecError;
use swarm_core::model::{ConfigReference, FileTarget, SecretBytes, SecretReference, TaskId};

/// A file that a task's container shall see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileMount {
    /// Where it is.
    pub(super) source: PathBuf,
    /// Where the container sees it.
    pub(super) target: String,
}

/// The directory of the files of every task of one node.
#[derive(Clone, Debug)]
pub(super) struct Files {
    mounted: PathBuf,
    shared: PathBuf,
}

impl Files {
    /// Files below `state_dir`, or in shared memory under the name `owner`.
    pub(super) fn new(state_dir: &Path, owner: &str) -> Self {
        let shared = Path::new("/dev/shm").join(format!("swarm-{owner}"));
        Self { mounted: state_dir.join("secrets"), shared }
    }

    /// Writes a task's secrets and configs and says where. Writing again changes nothing.
    ///
    /// # Errors
    /// `Unsupported` where there is no memory file system, `Temporary` when one is full.
    pub(super) fn write(
        &self,
        task: TaskId,
        secrets: &[(SecretReference, SecretBytes)],
        configs: &[(ConfigReference, SecretBytes)],
    ) -> Result<Vec<FileMount>, ExecError> {
        let secrets = secrets.iter().filter_map(|(reference, bytes)| {
            Some((reference.file.as_ref()?, "/run/secrets/", bytes.expose()))
        });
        let configs = configs
            .iter()
            .filter_map(|(reference, bytes)| Some((reference.file.as_ref()?, "/", bytes.expose())));
        let files: Vec<_> = secrets.chain(configs).collect();
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let dir = self.root()?.join(task.as_str());
        private_dir(&dir).map_err(|error| failed(&dir, error))?;
        let mut mounts = Vec::with_capacity(files.len());
        for (number, (file, base, bytes)) in files.into_iter().enumerate() {
            let source = dir.join(number.to_string());
            write_file(&source, file, bytes)?;
            let target = match file.name.starts_with('/') {
                true => file.name.clone(),
                false => format!("{base}{}", file.name),
            };
            mounts.push(FileMount { source, target });
        }
        Ok(mounts)
    }

    /// Removes a task's files; it may have none.
    ///
    /// # Errors
    /// `Temporary` when the file system refuses.
    pub(super) fn remove(&self, task: TaskId) -> Result<(), ExecError> {
        for root in [&self.mounted, &self.shared] {
            let dir = root.join(task.as_str());
            match fs::remove_dir_all(&dir) {
                Ok(()) => {}
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(failed(&dir, error)),
            }
        }
        Ok(())
    }

    /// Gives the memory back, with whatever is in it.
    ///
    /// # Errors
    /// `Temporary` when the tmpfs is in use.
    pub(super) fn close(&self) -> Result<(), ExecError> {
        if is_mount_point(&self.mounted) && !unmount(&self.mounted) {
            let path = self.mounted.display();
            return Err(ExecError::temporary(format!("the tmpfs {path} cannot be unmounted")));
        }
        match fs::remove_dir_all(&self.shared) {
            Err(error) if !is_absent(&error) => Err(failed(&self.shared, error)),
            _ => Ok(()),
        }
    }

    /// The directory in memory, made on first use.
    fn root(&self) -> Result<&Path, ExecError> {
        if in_memory(&self.mounted) || mount(&self.mounted) {
            return Ok(&self.mounted);
        }
        private_dir(&self.shared).map_err(|error| failed(&self.shared, error))?;
        if in_memory(&self.shared) {
            return Ok(&self.shared);
        }
        Err(ExecError::unsupported(
            "secrets and configs need a file system in memory: run the agent as root, or provide \
             /dev/shm",
        ))
    }
}

/// Whether a directory exists and is on a tmpfs (`TMPFS_MAGIC`) or ramfs.
fn in_memory(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|fs| matches!(fs.f_type as u64, 0x0102_1994 | 0x8584_58f6))
}

/// Mounts a tmpfs. The command spares us the system call; failure means "no privileges".
fn mount(dir: &Path) -> bool {
    rustix::process::geteuid().is_root()
        && private_dir(dir).is_ok()
        && std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "mode=0700,nosuid,nodev,noexec", "swarm-secrets"])
            .arg(dir)
            .output()
            .is_ok_and(|output| output.status.success())
        && in_memory(dir)
}

/// Whether a directory is on another file system than its parent.
fn is_mount_point(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let own = device(dir);
    own.is_some() && dir.parent().and_then(device) != own
}

/// Takes back what [`mount`] did.
fn unmount(dir: &Path) -> bool {
    std::process::Command::new("umount").arg(dir).status().is_ok_and(|status| status.success())
}

/// A directory that only this user can enter: containers see the files through their binds.
fn private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

fn write_file(path: &Path, target: &FileTarget, bytes: &[u8]) -> Result<(), ExecError> {
    let id = |text: &str| -> Result<u32, ExecError> {
        let name = &target.name;
        match text {
            "" => Ok(0),
            text => text.parse().map_err(|_| {
                ExecError::rejected(format!("{name}: owner {text:?} is not a numeric id"))
            }),
        }
    };
    let (uid, gid) = (id(&target.uid)?, id(&target.gid)?);
    let write = || -> io::Result<()> {
        // A file that is there already may be bound into a container that reads it just now.
        if fs::read(path).is_ok_and(|present| present == bytes) {
            return Ok(());
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        io::Write::write_all(&mut file, bytes)?;
        file.set_permissions(fs::Permissions::from_mode(target.mode & 0o7777))?;
        // Without root the owner is this user, and the mode decides alone.
        if rustix::process::geteuid().is_root() {
            chown(path, Some(uid), Some(gid))?;
        }
        Ok(())
    };
    write().map_err(|error| failed(path, error))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn failed(path: &Path, error: io::Error) -> ExecError {
    ExecError::temporary(format!("{}: {error}", path.display())).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_core::id::IdSource;

    #[test]
    fn files_are_in_memory_private_and_gone_after_removal() {
        let dir = tempfile::tempdir().expect("a directory");
        let owner = format!("test-{}", std::process::id());
        // A state directory that cannot exist: the fallback is what every machine can test.
        let files = Files::new(&dir.path().join("file/below"), &owner);
        fs::write(dir.path().join("file"), "").expect("a file");
        let task = IdSource::seeded(1).next();
        let file = FileTarget { name: "key".into(), mode: 0o400, ..Default::default() };
        let secret = SecretReference { file: Some(file.clone()), ..Default::default() };
        let config = ConfigReference {
            file: Some(FileTarget { name: "/etc/app.conf".into(), ..file }),
            ..Default::default()
        };
        let secrets = [(secret, SecretBytes::from(b"hunter2".to_vec()))];
        let configs = [(config, SecretBytes::from(b"a=1".to_vec()))];
        for _ in 0..2 {
            let mounts = files.write(task, &secrets, &configs).expect("written");
            let targets: Vec<_> = mounts.iter().map(|mount| mount.target.as_str()).collect();
            assert_eq!(targets, ["/run/secrets/key", "/etc/app.conf"]);
            assert_eq!(fs::read(&mounts[0].source).expect("readable"), b"hunter2");
            assert!(in_memory(&mounts[0].source), "a secret never touches a disk");
            let mode = fs::metadata(&mounts[0].source).expect("there").permissions().mode();
            assert_eq!(mode & 0o7777, 0o400);
        }
        files.remove(task).expect("removed");
        assert!(!files.shared.join(task.as_str()).exists());
        files.remove(task).expect("removed again");
        fs::remove_dir(&files.shared).expect("nothing is left");
    }
}
