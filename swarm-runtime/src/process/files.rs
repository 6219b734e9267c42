//! Secrets and configs as files of one task.
//!
//! A process sees the machine's own `/run/secrets`, not one of its own: mounting another one takes
//! a mount namespace and privileges. So the files are in a directory of the task, which the
//! variables `SWARM_SECRETS_DIR` and `SWARM_CONFIGS_DIR` name. The directory lives in memory where
//! the machine has a place for that (`/dev/shm`), and only the task's user enters it.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::Path;

use swarm_core::executor::{Assignment, ExecError};
use swarm_core::model::FileTarget;

use super::plan::inside;
use super::supervise::private_dir;

/// Writes a task's secrets and configs below two directories.
///
/// # Errors
/// *Rejected* for a name that leads elsewhere or a reference without a file, *temporary* when the
/// files cannot be written.
pub(super) fn write_all(
    assignment: &Assignment,
    secrets: &Path,
    configs: &Path,
    user: Option<(u32, u32)>,
) -> Result<(), ExecError> {
    for dir in [secrets, configs] {
        make(dir, user).map_err(|error| unwritten(dir, error))?;
    }
    for (reference, bytes) in &assignment.secrets {
        write(secrets, &reference.file, &reference.secret_name, bytes.expose(), user)?;
    }
    for (reference, bytes) in &assignment.configs {
        write(configs, &reference.file, &reference.config_name, bytes.expose(), user)?;
    }
    Ok(())
}

fn write(
    dir: &Path,
    target: &Option<FileTarget>,
    name: &str,
    bytes: &[u8],
    user: Option<(u32, u32)>,
) -> Result<(), ExecError> {
    let Some(target) = target else {
        return Err(ExecError::rejected(format!("{name} has no file to appear as")));
    };
    let below = inside(&target.name)?;
    let path = dir.join(&below);
    let owner = match (target.uid.parse(), target.gid.parse()) {
        // Docker's clients write 0:0 for "nobody said"; the task's user is meant.
        (Ok(0), Ok(0)) => user,
        (Ok(uid), Ok(gid)) if user.is_some() => Some((uid, gid)),
        _ => user,
    };
    let put = || -> io::Result<()> {
        let mut parent = dir.to_owned();
        for component in below.parent().into_iter().flat_map(Path::components) {
            parent.push(component);
            make(&parent, user)?;
        }
        let _ = fs::remove_file(&path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(bytes)?;
        if let Some((uid, gid)) = owner {
            chown(&path, Some(uid), Some(gid))?;
        }
        let mode = if target.mode == 0 { 0o444 } else { target.mode & 0o777 };
        fs::set_permissions(&path, Permissions::from_mode(mode))
    };
    put().map_err(|error| unwritten(&path, error))
}

fn make(dir: &Path, user: Option<(u32, u32)>) -> io::Result<()> {
    private_dir(dir)?;
    match user {
        Some((uid, gid)) => chown(dir, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

fn unwritten(path: &Path, error: io::Error) -> ExecError {
    ExecError::temporary(format!("writing {} failed: {error}", path.display())).caused_by(error)
}
