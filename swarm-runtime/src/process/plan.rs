//! Pure: what a task's specification means for a process, and what it cannot mean.
//!
//! A process has no image, no namespaces and no mounts of its own. Whatever a specification asks
//! for that changes what the task can see or do is refused in words; restrictions that cannot be
//! enforced are named, so that the executor can warn.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use swarm_core::executor::{Assignment, ExecError};
use swarm_core::model::{
    ContainerSpec, Healthcheck, Mount, MountType, PortConfig, PublishMode, TaskId, defaults,
};

/// Where commands are looked for when the specification does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Marks every process of a task: what leaves the process group is found by it.
pub(super) const TASK_VARIABLE: &str = "SWARM_TASK_ID";

/// Everything that it takes to start, check and stop one task, as it is kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The task.
    pub(super) task: TaskId,
    /// The boot of the machine in which it was prepared: process ids mean nothing in another.
    pub(super) boot: String,
    /// The command and its arguments.
    pub(super) command: Vec<String>,
    /// The whole environment.
    pub(super) env: BTreeMap<String, String>,
    /// Where it runs; absent is a directory of its own.
    pub(super) dir: Option<PathBuf>,
    /// As whom, `USER[:GROUP]`; empty is whoever the executor is.
    pub(super) user: String,
    /// The signal that stops it.
    pub(super) stop_signal: i32,
    /// Time from the stop signal to the kill where the executor itself stops it.
    pub(super) grace: Duration,
    /// How its health is tested.
    pub(super) check: Option<Check>,
    /// The ports to listen on. `published_port` is where the process really listens.
    pub(super) ports: Vec<PortConfig>,
    /// Processor time in billionths of a core, bytes of memory, processes; 0 is no limit.
    pub(super) limits: [i64; 3],
}

/// How the health of a task is tested, with every default filled in (Docker's).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Check {
    pub(super) command: Vec<String>,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) start_period: Duration,
    pub(super) start_interval: Duration,
    pub(super) retries: u32,
}

/// Where a task's files are, for its environment.
pub(super) struct Places<'a> {
    pub(super) secrets: &'a Path,
    pub(super) configs: &'a Path,
    /// Holds the named volumes of every task.
    pub(super) volumes: &'a Path,
    /// Holds the unnamed volumes of this task.
    pub(super) own_volumes: &'a Path,
}

/// The plan of a task, and the directories of its volumes.
///
/// # Errors
/// *Rejected*, for what a process cannot be.
pub(super) fn plan(
    assignment: &Assignment,
    places: &Places<'_>,
) -> Result<(Plan, Vec<PathBuf>), ExecError> {
    let task = &assignment.task;
    let Some(spec) = &task.spec.container else {
        return Err(ExecError::rejected("the task has no container specification"));
    };
    let command: Vec<String> = spec.command.iter().chain(&spec.args).cloned().collect();
    if command.is_empty() {
        return Err(ExecError::rejected(format!(
            "image {} has no meaning for the process executor: give the service a command",
            spec.image
        )));
    }
    let mut env = environment(spec, assignment);
    env.insert("SWARM_SECRETS_DIR".into(), in_words(places.secrets));
    env.insert("SWARM_CONFIGS_DIR".into(), in_words(places.configs));
    let mut volumes = Vec::new();
    for mount in &spec.mounts {
        let Some(dir) = volume(mount, places)? else { continue };
        env.insert(volume_variable(&mount.target), in_words(&dir));
        volumes.push(dir);
    }
    let limits = task.spec.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let plan = Plan {
        task: task.id,
        boot: String::new(),
        command,
        env,
        dir: Some(PathBuf::from(&spec.dir)).filter(|dir| !dir.as_os_str().is_empty()),
        user: spec.user.clone(),
        stop_signal: signal(&spec.stop_signal)?,
        grace: spec.stop_grace_period.map_or(defaults::STOP_GRACE_PERIOD, |grace| grace.duration()),
        check: spec.healthcheck.as_ref().map(check).transpose()?.flatten(),
        ports: task.endpoint.iter().flat_map(|endpoint| &endpoint.ports).cloned().collect(),
        limits: limits.map_or([0; 3], |l| [l.nano_cpus, l.memory_bytes, l.pids]),
    };
    Ok((plan, volumes))
}

impl Plan {
    /// Tells the process where it shall listen, once that is known: `PORT_<target>`, and `PORT`
    /// where there is one port only.
    pub(super) fn announce_ports(&mut self) {
        for port in &self.ports {
            let name = format!("PORT_{}", port.target_port);
            self.env.insert(name, port.published_port.to_string());
        }
        if let [port] = &self.ports[..] {
            self.env.insert("PORT".into(), port.published_port.to_string());
        }
    }

    /// The ports of one mode.
    pub(super) fn ports_in(&self, mode: PublishMode) -> impl Iterator<Item = &PortConfig> {
        self.ports.iter().filter(move |port| port.publish_mode == mode)
    }
}

fn in_words(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn environment(spec: &ContainerSpec, assignment: &Assignment) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    if !spec.hostname.is_empty() {
        env.insert("HOSTNAME".into(), spec.hostname.clone());
    }
    for entry in &spec.env {
        match entry.split_once('=') {
            Some((name, value)) => env.insert(name.to_owned(), value.to_owned()),
            None => env.remove(entry),
        };
    }
    env.insert(TASK_VARIABLE.into(), assignment.task.id.to_string());
    env
}

/// `SWARM_VOLUME_` and the target in capitals: `/var/lib/data` is in `SWARM_VOLUME_VAR_LIB_DATA`.
fn volume_variable(target: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = target.trim_matches('/').chars().map(letter).collect();
    format!("SWARM_VOLUME_{name}")
}

/// The directory of a volume; nothing for a mount that is as it is already.
fn volume(mount: &Mount, places: &Places<'_>) -> Result<Option<PathBuf>, ExecError> {
    let refuse = |why: &str| {
        Err(ExecError::rejected(format!(
            "mount {} of type {} cannot be made for a process: {why}",
            mount.target, mount.kind
        )))
    };
    match mount.kind {
        MountType::Volume if mount.source.is_empty() => {
            Ok(Some(places.own_volumes.join(inside(&mount.target)?)))
        }
        MountType::Volume => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            if !mount.source.chars().all(plain) || mount.source.starts_with('.') {
                return refuse("the volume's name may have letters, digits, '_', '.' and '-' only");
            }
            Ok(Some(places.volumes.join(&mount.source)))
        }
        MountType::Bind if mount.source != mount.target => {
            refuse("it has no file system of its own; source and target must be the same path")
        }
        MountType::Bind if mount.read_only => refuse("a process sees the host's files as they are"),
        MountType::Bind => Ok(None),
        _ => refuse("it has no file system of its own; use a volume"),
    }
}

/// A path below some directory, whatever it looks like.
///
/// # Errors
/// *Rejected* for a path that leads out of it.
pub(super) fn inside(path: &str) -> Result<PathBuf, ExecError> {
    let mut below = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => below.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(ExecError::rejected(format!("path {path:?} leads out of its place"))),
        }
    }
    match below.as_os_str().is_empty() {
        true => Err(ExecError::rejected(format!("path {path:?} names no file"))),
        false => Ok(below),
    }
}

fn check(health: &Healthcheck) -> Result<Option<Check>, ExecError> {
    let or = |value: Duration, default: u64| match value {
        Duration::ZERO => Duration::from_secs(default),
        value => value,
    };
    let command = match health.test.split_first() {
        None => return Ok(None),
        Some((kind, _)) if kind == "NONE" => return Ok(None),
        Some((kind, [shell])) if kind == "CMD-SHELL" => {
            vec!["/bin/sh".to_owned(), "-c".to_owned(), shell.clone()]
        }
        Some((kind, command)) if kind == "CMD" && !command.is_empty() => command.to_vec(),
        Some((kind, _)) => {
            return Err(ExecError::rejected(format!("health check of unknown form {kind:?}")));
        }
    };
    Ok(Some(Check {
        command,
        interval: or(health.interval.duration(), 30),
        timeout: or(health.timeout.duration(), 30),
        start_period: health.start_period.duration(),
        start_interval: or(health.start_interval.duration(), 5),
        retries: u32::try_from(health.retries).ok().filter(|retries| *retries > 0).unwrap_or(3),
    }))
}

/// The signals by name, with the numbers that Linux gives them on most machines.
const SIGNALS: [(&str, i32); 19] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("WINCH", 28),
];

/// A signal by name, with or without `SIG`, or by number; SIGTERM where there is none.
fn signal(name: &str) -> Result<i32, ExecError> {
    if name.is_empty() {
        return Ok(15);
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = SIGNALS.iter().find(|(signal, _)| *signal == short).map(|(_, number)| *number);
    let number = short.parse().ok().filter(|number| SIGNALS.iter().any(|(_, n)| n == number));
    named.or(number).ok_or_else(|| ExecError::rejected(format!("invalid stop signal {name:?}")))
}

/// Members of a specification that a process cannot be given; they restrict or adorn, so the task
/// runs without them.
pub(super) fn ignored(spec: &ContainerSpec) -> Vec<&'static str> {
    let members = [
        ("Groups", !spec.groups.is_empty()),
        ("TTY", spec.tty),
        ("OpenStdin", spec.open_stdin),
        ("ReadOnly", spec.read_only),
        ("Hosts", !spec.hosts.is_empty()),
        ("DNSConfig", spec.dns_config.is_some()),
        ("Isolation", !matches!(spec.isolation.as_str(), "" | "default")),
        ("Sysctls", !spec.sysctls.is_empty()),
        ("CapabilityAdd", !spec.capability_add.is_empty()),
        ("CapabilityDrop", !spec.capability_drop.is_empty()),
        ("Ulimits", !spec.ulimits.is_empty()),
        ("OomScoreAdj", spec.oom_score_adj != 0),
        ("Privileges", spec.extra.get("Privileges").is_some()),
    ];
    members.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
