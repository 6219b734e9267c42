//! Limits of a task's processor time, memory and processes, by the kernel's control groups.
//!
//! Version 2 only, and only where its tree can be written: as root, or in a part that was
//! delegated. Anywhere else tasks run without limits, and a warning says so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::plan::Plan;

/// The period of processor time limits, in microseconds (the kernel's default).
const PERIOD: i64 = 100_000;

/// Makes the control group of a task with its limits; `None` when it has no limits.
///
/// # Errors
/// When the tree cannot be written or lacks a controller.
pub(super) fn make(parent: &Path, plan: &Plan) -> io::Result<Option<PathBuf>> {
    let [cpus, memory, pids] = plan.limits;
    if plan.limits == [0; 3] {
        return Ok(None);
    }
    fs::create_dir_all(parent)?;
    // Controllers are handed down level by level; where they are already, this changes nothing.
    for dir in [parent.parent(), Some(parent)].into_iter().flatten() {
        let _ = fs::write(dir.join("cgroup.subtree_control"), "+cpu +memory +pids");
    }
    let group = parent.join(plan.task.as_str());
    fs::create_dir_all(&group)?;
    let limit = |file: &str, text: String| {
        fs::write(group.join(file), text)
            .map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))
    };
    if cpus > 0 {
        limit("cpu.max", format!("{} {PERIOD}", (cpus * PERIOD / 1_000_000_000).max(1000)))?;
    }
    if memory > 0 {
        limit("memory.max", memory.to_string())?;
        // Without this a limit on memory is a limit on memory before swapping.
        let _ = fs::write(group.join("memory.swap.max"), "0");
    }
    if pids > 0 {
        limit("pids.max", pids.to_string())?;
    }
    Ok(Some(group))
}

/// Kills everything in a task's control group. Best effort.
pub(super) fn kill(parent: &Path, plan: &Plan) {
    let _ = fs::write(parent.join(plan.task.as_str()).join("cgroup.kill"), "1");
}

/// Whether the kernel killed something in the group for want of memory.
pub(super) fn ran_out_of_memory(parent: &Path, plan: &Plan) -> bool {
    let file = parent.join(plan.task.as_str()).join("memory.events");
    let events = fs::read_to_string(file).unwrap_or_default();
    events.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|n| n.trim() != "0"))
}

/// Removes a task's control group, which must be empty of processes. Best effort.
pub(super) fn remove(parent: &Path, plan: &Plan) {
    let _ = fs::remove_dir(parent.join(plan.task.as_str()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_files() {
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().join("swarm");
        let none = Plan::default();
        assert_eq!(make(&parent, &none).unwrap(), None);
        let plan = Plan { limits: [1_500_000_000, 64 << 20, 10], ..Plan::default() };
        let group = make(&parent, &plan).unwrap().unwrap();
        let read = |file: &str| fs::read_to_string(group.join(file)).unwrap();
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("pids.max"), "10");
        assert!(!ran_out_of_memory(&parent, &plan));
        fs::write(group.join("memory.events"), "low 0\noom_kill 2\n").unwrap();
        assert!(ran_out_of_memory(&parent, &plan));
    }
}
