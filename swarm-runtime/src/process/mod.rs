//! The [`ProcessExecutor`]: tasks as plain processes of this machine, without root and without a
//! daemon.
//!
//! What a process cannot have, it gets in another form, by environment variables:
//!
//! | a container has | a process finds |
//! |---|---|
//! | an image | nothing: the service gives a command |
//! | its own port 80 | a port of the machine in `PORT_80` (and in `PORT` if it is the only one) |
//! | `/run/secrets/x` | `$SWARM_SECRETS_DIR/x` |
//! | a config at `/etc/x` | `$SWARM_CONFIGS_DIR/etc/x` |
//! | a volume at `/var/lib/x` | a directory in `$SWARM_VOLUME_VAR_LIB_X` |
//!
//! Bind mounts work where source and target are the same path; everything else that needs a file
//! system of its own is refused. Tasks outlive the executor: one that is opened on the same
//! directory finds them, their exit codes and their output. (Under systemd this takes
//! `KillMode=process`.) Every process of a task carries `SWARM_TASK_ID` in its environment and is
//! killed with it.

mod cgroup;
mod files;
mod log;
mod node;
mod plan;
mod ports;
mod supervise;
mod task;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use swarm_core::executor::{
    Assignment, ExecError, Executor, Exit, LogOptions, LogStream, Observed, Sandbox, Started,
};
use swarm_core::model::{NodeDescription, NodeId, TaskId};
use tracing::warn;

pub use node::describe;
use plan::{Places, Plan, ignored};
use supervise::{TaskDir, find_command, find_user, private_dir};
use task::Live;

/// Where a process executor works, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node that it serves.
    pub node: NodeId,
    /// Holds everything of its tasks that must outlive it. No other executor may use it.
    pub dir: PathBuf,
    /// The address that processes listen on, as the node's neighbours reach it.
    pub addr: IpAddr,
    /// Holds secrets and configs: memory, if possible.
    pub secrets: PathBuf,
    /// The parent of the tasks' control groups; without one, limits are not enforced.
    pub cgroup: Option<PathBuf>,
    /// Bytes of log kept for each task.
    pub log_bytes: u64,
}

impl Config {
    /// The usual configuration: secrets in memory where the machine has `/dev/shm`, limits where
    /// control groups can be written, 20 MiB of log for each task, listening on 127.0.0.1.
    #[must_use]
    pub fn new(node: NodeId, dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        let memory = Path::new("/dev/shm");
        let secrets = match memory.is_dir() {
            true => memory.join(format!("swarm-{node}")),
            false => dir.join("files"),
        };
        let root = rustix::process::geteuid().is_root();
        let groups = Path::new("/sys/fs/cgroup");
        let cgroup = (root && groups.join("cgroup.controllers").exists())
            .then(|| groups.join(format!("swarm-{node}")));
        let addr = Ipv4Addr::LOCALHOST.into();
        Self { node, dir, addr, secrets, cgroup, log_bytes: 20 << 20 }
    }
}

/// Runs tasks as processes.
pub struct ProcessExecutor {
    config: Arc<Config>,
    tasks: Mutex<BTreeMap<TaskId, Arc<Live>>>,
}

impl ProcessExecutor {
    /// Opens an executor and takes up what an earlier one left in its directory. Must be called
    /// within a tokio runtime, which it keeps using.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub async fn open(config: Config) -> io::Result<Self> {
        let config = Arc::new(config);
        // Others may pass through, to the files of tasks that run as them, but not look around.
        let mut passage = fs::DirBuilder::new();
        passage.recursive(true).mode(0o711);
        for dir in [config.dir.clone(), config.dir.join("tasks"), config.secrets.clone()] {
            passage.create(dir)?;
        }
        let mut tasks = BTreeMap::new();
        for entry in fs::read_dir(config.dir.join("tasks"))? {
            let path = entry?.path();
            let id = path.file_name().and_then(|name| name.to_str()).and_then(|n| n.parse().ok());
            let Some(id) = id else { continue };
            let dir = TaskDir { root: path };
            let Some(plan) = read_plan(&dir) else { continue };
            let live = Live::new(config.clone(), dir, plan);
            if live.dir.is_launched() {
                live.watch();
            }
            tasks.insert(id, live);
        }
        sweep(&config, &tasks)?;
        // What ended meanwhile is cleared up first, so that an inventory shows it as ended.
        for live in tasks.values().filter(|live| live.has_exited()) {
            let _ = live.wait().await;
        }
        Ok(Self { config, tasks: Mutex::new(tasks) })
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<TaskId, Arc<Live>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self, task: TaskId) -> Result<Arc<Live>, ExecError> {
        let live = self.tasks().get(&task).cloned();
        live.ok_or_else(|| ExecError::failed(format!("task {task} was not prepared here")))
    }

    fn task_dir(&self, task: TaskId) -> TaskDir {
        TaskDir { root: self.config.dir.join("tasks").join(task.as_str()) }
    }

    fn make_ready(&self, assignment: &Assignment) -> Result<(TaskDir, Plan), ExecError> {
        let id = assignment.task.id;
        let dir = self.task_dir(id);
        let own = self.config.secrets.join(id.as_str());
        let (secrets, configs) = (own.join("secrets"), own.join("configs"));
        let places = Places {
            secrets: &secrets,
            configs: &configs,
            volumes: &self.config.dir.join("volumes"),
            own_volumes: &dir.volumes(),
        };
        let (mut plan, volumes) = plan::plan(assignment, &places)?;
        plan.boot = supervise::boot_id();
        let user = user(&plan)?;
        if let Some(spec) = &assignment.task.spec.container {
            let ignored = ignored(spec);
            if !ignored.is_empty() {
                warn!(task = %id, ?ignored, "a process cannot be given these; it runs without");
            }
        }
        let io = |error: io::Error| {
            ExecError::temporary(format!("preparing the task's files failed: {error}"))
                .caused_by(error)
        };
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&dir.root).map_err(io)?;
        private_dir(&dir.log()).map_err(io)?;
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&own).map_err(io)?;
        for owned in [dir.run(), dir.cwd()].into_iter().chain(volumes) {
            private_dir(&owned).map_err(io)?;
            if let Some((uid, gid)) = user {
                chown(&owned, Some(uid), Some(gid)).map_err(io)?;
            }
        }
        files::write_all(assignment, &secrets, &configs, user)?;
        let cwd = plan.dir.clone().unwrap_or_else(|| dir.cwd());
        if !cwd.is_dir() {
            let text = format!("the working directory {} does not exist", cwd.display());
            return Err(ExecError::rejected(text));
        }
        if !find_command(&plan.command[0], &plan.env, &cwd) {
            let command = &plan.command[0];
            let text = format!("exec: {command:?}: executable file not found in $PATH");
            return Err(ExecError::rejected(text));
        }
        // Last: whoever finds a plan finds everything else.
        write_plan(&dir, &plan)?;
        Ok((dir, plan))
    }
}

/// Removes what a crash left of tasks that were not quite prepared or not quite removed.
fn sweep(config: &Config, tasks: &BTreeMap<TaskId, Arc<Live>>) -> io::Result<()> {
    for dir in [config.dir.join("tasks"), config.secrets.clone()] {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let id = path.file_name().and_then(|name| name.to_str()).and_then(|n| n.parse().ok());
            if id.is_some_and(|id: TaskId| !tasks.contains_key(&id)) {
                fs::remove_dir_all(path)?;
            }
        }
    }
    Ok(())
}

impl Drop for ProcessExecutor {
    fn drop(&mut self) {
        self.tasks().values().for_each(|live| live.abandon());
    }
}

/// As whom a task's processes run, if as another user than this process.
fn user(plan: &Plan) -> Result<Option<(u32, u32)>, ExecError> {
    if plan.user.is_empty() {
        return Ok(None);
    }
    let (uid, gid) = find_user(&plan.user).map_err(ExecError::rejected)?;
    let own = rustix::process::geteuid();
    match (own.is_root(), own.as_raw() == uid) {
        (true, _) => Ok(Some((uid, gid))),
        (false, true) => Ok(None),
        (false, false) => Err(ExecError::rejected(format!(
            "the task wants to run as {}, and only root may run processes as others",
            plan.user
        ))),
    }
}

fn read_plan(dir: &TaskDir) -> Option<Plan> {
    serde_json::from_slice(&fs::read(dir.plan()).ok()?).ok()
}

fn write_plan(dir: &TaskDir, plan: &Plan) -> Result<(), ExecError> {
    let write = || -> io::Result<()> {
        let aside = dir.root.join("plan.new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(&serde_json::to_vec(plan)?)?;
        fs::rename(aside, dir.plan())
    };
    write().map_err(|error| {
        ExecError::temporary(format!("writing the task's plan failed: {error}")).caused_by(error)
    })
}

#[async_trait]
impl Executor for ProcessExecutor {
    async fn describe(&self) -> Result<NodeDescription, ExecError> {
        node::describe(self.config.node)
    }

    async fn inventory(&self) -> Result<Vec<Observed>, ExecError> {
        let tasks = self.tasks();
        Ok(tasks.iter().map(|(id, live)| Observed { task: *id, found: live.found() }).collect())
    }

    async fn prepare(&self, assignment: &Assignment) -> Result<Sandbox, ExecError> {
        let id = assignment.task.id;
        // Without an await, so that a dropped call has done all or nothing.
        if self.live(id).is_err() {
            let (dir, plan) = self.make_ready(assignment)?;
            let live = Live::new(self.config.clone(), dir, plan);
            self.tasks().insert(id, live);
        }
        Ok(Sandbox { id: id.to_string(), netns: None })
    }

    async fn start(&self, task: TaskId) -> Result<Started, ExecError> {
        let live = self.live(task)?;
        let taken: Vec<u16> = self.tasks().values().flat_map(|other| other.listens_on()).collect();
        live.start(&taken).await
    }

    async fn wait(&self, task: TaskId) -> Result<Exit, ExecError> {
        self.live(task)?.wait().await
    }

    async fn stop(&self, task: TaskId, grace: Duration) -> Result<(), ExecError> {
        if let Ok(live) = self.live(task) {
            live.stop(grace).await;
        }
        Ok(())
    }

    async fn remove(&self, task: TaskId) -> Result<(), ExecError> {
        if let Ok(live) = self.live(task) {
            live.stop(Duration::ZERO).await;
            live.abandon();
        }
        for dir in [self.config.secrets.join(task.as_str()), self.task_dir(task).root] {
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let text = format!("removing {} failed: {error}", dir.display());
                    return Err(ExecError::temporary(text).caused_by(error));
                }
                _ => {}
            }
        }
        self.tasks().remove(&task);
        Ok(())
    }

    /// Removes the place of the secrets and the control groups. Named volumes stay, as Docker's
    /// do when a node leaves.
    async fn close(&self) -> Result<(), ExecError> {
        let secrets = Some(&self.config.secrets);
        for dir in [secrets, self.config.cgroup.as_ref()].into_iter().flatten() {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let text = format!("removing {} failed: {error}", dir.display());
                    return Err(ExecError::temporary(text).caused_by(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn logs(&self, task: TaskId, options: LogOptions) -> Result<LogStream, ExecError> {
        let live = self.live(task)?;
        let _ = live.log.pump(false);
        Ok(live.log.clone().stream(options))
    }
}

#[cfg(test)]
mod tests;
