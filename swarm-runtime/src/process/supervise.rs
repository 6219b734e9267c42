//! Starts a command so that it outlives this process, and finds it again.
//!
//! Only a parent learns its child's exit code, and the executor may be gone when a task ends. So
//! every task has a parent of its own: a shell that waits for the command and writes its exit code
//! into a file. Signals never pass through the shell: the command announces its own process id and
//! is signalled directly. Shell and command write down their line of `/proc/PID/stat`, whose start
//! time tells a process from a later one with the same id.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use swarm_core::executor::Exit;

use super::plan::{Plan, TASK_VARIABLE};

/// Run as `sh -c SUPERVISOR sh RUN-DIR CGROUP COMMAND…`. The link makes sure that one shell of a
/// task goes on, however often an interrupted start is repeated; and it comes with what is written
/// there, so that on a full disk nothing has begun, and the start can be tried again. A command that
/// cannot be written down must not run, for nobody could stop it: it ends with 125, as Docker's do
/// when the engine fails. Standard error moves out of the shell's way: some shells remark there on
/// how their child died.
const SUPERVISOR: &str = r#"
run=$1; cgroup=$2; shift 2
exec 3>&2 2>/dev/null
read -r stat < /proc/$$/stat
echo "$stat" > "$run/supervisor.$$" || { rm -f "$run/supervisor.$$"; exit 1; }
ln "$run/supervisor.$$" "$run/supervisor"; taken=$?
rm -f "$run/supervisor.$$"
[ $taken = 0 ] || exit 0
/bin/sh -c '
  if [ -n "$2" ]; then echo $$ > "$2/cgroup.procs"; fi
  read -r stat < /proc/$$/stat
  echo "$stat" > "$1/leader.new" && mv "$1/leader.new" "$1/leader" || exit 125
  shift 2
  exec "$@"
' sh "$run" "$cgroup" "$@" 2>&3 3>&-
echo $? > "$run/exit.new" && mv "$run/exit.new" "$run/exit"
"#;

/// The files of one task.
#[derive(Clone, Debug)]
pub(super) struct TaskDir {
    pub(super) root: PathBuf,
}

impl TaskDir {
    pub(super) fn plan(&self) -> PathBuf {
        self.root.join("plan.json")
    }
    /// Written by the supervisor and the command, so it belongs to the task's user.
    pub(super) fn run(&self) -> PathBuf {
        self.root.join("run")
    }
    pub(super) fn cwd(&self) -> PathBuf {
        self.root.join("cwd")
    }
    pub(super) fn log(&self) -> PathBuf {
        self.root.join("log")
    }
    pub(super) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }
    fn healthy(&self) -> PathBuf {
        self.root.join("healthy")
    }
    fn unhealthy(&self) -> PathBuf {
        self.root.join("unhealthy")
    }

    /// Remembers what the health check said, for executors to come.
    pub(super) fn mark(&self, healthy: bool) -> io::Result<()> {
        File::create(if healthy { self.healthy() } else { self.unhealthy() }).map(|_| ())
    }

    pub(super) fn was_healthy(&self) -> bool {
        self.healthy().exists()
    }

    /// Whether a supervisor has begun.
    pub(super) fn is_launched(&self) -> bool {
        self.run().join("supervisor").exists()
    }

    /// The supervisor, if it lives.
    pub(super) fn supervisor(&self, boot: &str) -> Option<Process> {
        Process::written(&self.run().join("supervisor")).filter(|process| process.lives(boot))
    }

    /// The command itself, once it runs, if it lives.
    pub(super) fn leader(&self, boot: &str) -> Option<Process> {
        Process::written(&self.run().join("leader")).filter(|process| process.lives(boot))
    }

    /// How a launched task ended; `None` while it runs.
    pub(super) fn exit(&self, boot: &str) -> Option<Exit> {
        let code = || fs::read_to_string(self.run().join("exit")).ok()?.trim().parse::<i64>().ok();
        let alive = code().is_none() && self.supervisor(boot).is_some();
        if alive {
            return None;
        }
        let unhealthy = self.unhealthy().exists().then(|| "unhealthy container".to_owned());
        // The code is read again: the supervisor may have ended between the two looks.
        Some(match code() {
            Some(code) => Exit { code, error: unhealthy },
            None => Exit {
                code: 137,
                error: unhealthy.or_else(|| {
                    Some("its exit code was lost: its supervisor or the machine died".to_owned())
                }),
            },
        })
    }
}

/// A process, told from later ones with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    group: i32,
    started: u64,
}

impl Process {
    fn written(path: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(path).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name in parentheses may hold anything, parentheses and spaces among it.
        let (pid, rest) = stat.split_once(' ')?;
        let fields: Vec<&str> = rest.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            pid: pid.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    fn lives(&self, boot: &str) -> bool {
        boot == boot_id() && self.is_there()
    }

    pub(super) fn is_there(&self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else { return false };
        let dead =
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
        !dead && Self::parse(&stat).is_some_and(|process| process.started == self.started)
    }

    /// Sends a signal, unless the process is gone.
    pub(super) fn signal(&self, signal: i32) {
        let signal = Signal::from_named_raw(signal).unwrap_or(Signal::TERM);
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.is_there()) {
            // It may have gone meanwhile: what was wanted.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Which boot of the machine this is.
pub(super) fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Makes a directory that only its owner enters.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Starts the supervisor of a prepared task. It and the command run in a process group of their
/// own, so that nothing that happens to this process's terminal reaches them.
///
/// Returns the child so that it is reaped while this process lives; dropping it harms nothing.
pub(super) fn launch(
    dir: &TaskDir,
    plan: &Plan,
    user: Option<(u32, u32)>,
    cgroup: Option<&Path>,
) -> io::Result<tokio::process::Child> {
    let file = |name: &str| {
        OpenOptions::new().append(true).create(true).mode(0o600).open(dir.log().join(name))
    };
    let mut command = shell(dir, plan, user);
    command
        .args([SUPERVISOR, "sh"])
        .arg(dir.run())
        .arg(cgroup.unwrap_or(Path::new("")))
        .args(&plan.command)
        .stdout(file("stdout")?)
        .stderr(file("stderr")?);
    tokio::process::Command::from(command).spawn()
}

/// Runs a health check once; whether it said "healthy". Dropping it ends the check.
pub(super) async fn probe(
    dir: &TaskDir,
    plan: &Plan,
    user: Option<(u32, u32)>,
    command: &[String],
    timeout: Duration,
) -> bool {
    let mut shell = shell(dir, plan, user);
    shell.args([r#"exec "$@""#, "sh"]).args(command).stdout(Stdio::null()).stderr(Stdio::null());
    let mut shell = tokio::process::Command::from(shell);
    let Ok(mut child) = shell.kill_on_drop(true).spawn() else { return false };
    let group = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    match tokio::time::timeout(timeout, child.wait()).await {
        Ok(status) => status.is_ok_and(|status| status.success()),
        Err(_) => {
            // With everything that it started; it leads a group of its own and was not reaped.
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            false
        }
    }
}

fn shell(dir: &TaskDir, plan: &Plan, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .env_clear()
        .envs(&plan.env)
        .current_dir(plan.dir.clone().unwrap_or_else(|| dir.cwd()))
        .stdin(Stdio::null())
        .process_group(0);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// Kills what is left of a task beside its supervisor, and returns how many processes that were.
/// Call it until it is none: processes may be born meanwhile. Without a supervisor that was seen
/// alive a moment ago the process group says nothing (its number may belong to others by now), and
/// only the mark in the environment counts.
pub(super) fn kill_rest(plan: &Plan, supervisor: Option<Process>) -> usize {
    let mark = format!("{TASK_VARIABLE}={}", plan.task);
    let mut killed = 0;
    for process in processes() {
        let of_group = supervisor.is_some_and(|supervisor| process.group == supervisor.pid);
        if supervisor.is_some_and(|supervisor| process.pid == supervisor.pid) {
            continue;
        }
        if (of_group || has_mark(process.pid, &mark)) && process.is_there() {
            process.signal(Signal::KILL.as_raw());
            killed += 1;
        }
    }
    killed
}

fn processes() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        Process::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    })
}

fn has_mark(pid: i32, mark: &str) -> bool {
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

/// Finds the command that a plan names, as `execvp` would.
pub(super) fn find_command(name: &str, env: &BTreeMap<String, String>, dir: &Path) -> bool {
    let executable = |path: PathBuf| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return executable(dir.join(name));
    }
    let path = env.get("PATH").map(String::as_str).unwrap_or_default();
    path.split(':').any(|place| executable(dir.join(place).join(name)))
}

/// Finds a user, `USER[:GROUP]` by names or numbers, in the machine's own files.
pub(super) fn find_user(text: &str) -> Result<(u32, u32), String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let field = |line: &str, n: usize| line.split(':').nth(n).map(str::to_owned);
    let find = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().find(|line| field(line, 0).as_deref() == Some(name)).map(str::to_owned)
    };
    let number = |line: &str, n: usize| field(line, n).and_then(|number| number.parse().ok());
    let by_number = |uid: u32| {
        let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
        text.lines().find(|line| number(line, 2) == Some(uid)).map(str::to_owned)
    };
    let (uid, own_group) = match user.parse::<u32>() {
        Ok(uid) => (uid, by_number(uid).and_then(|line| number(&line, 3)).unwrap_or(0)),
        Err(_) => {
            let line = find("/etc/passwd", user)
                .ok_or_else(|| format!("unable to find user {user}: no matching entry"))?;
            let both = number(&line, 2).zip(number(&line, 3));
            both.ok_or_else(|| format!("user {user} has no number"))?
        }
    };
    let gid = match group {
        None => own_group,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => find("/etc/group", group)
                .and_then(|line| number(&line, 2))
                .ok_or_else(|| format!("unable to find group {group}: no matching entry"))?,
        },
    };
    Ok((uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_by_its_start() {
        let stat = "42 (a) b (c)) S 7 40 40 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 0 0";
        let process = Process::parse(stat).unwrap();
        assert_eq!(process, Process { pid: 42, group: 40, started: 98765 });
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        let own = Process::parse(&own).unwrap();
        assert!(own.lives(&boot_id()));
        assert!(!own.lives("another boot"));
        assert!(!Process { started: own.started + 1, ..own }.lives(&boot_id()));
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(find_user("root"), Ok((0, 0)));
        assert_eq!(find_user("0:0"), Ok((0, 0)));
        assert_eq!(find_user("4242:17"), Ok((4242, 17)));
        assert!(find_user("no-such-user").unwrap_err().contains("no matching entry"));
    }

    #[test]
    fn commands_are_found_where_exec_finds_them() {
        let env = BTreeMap::from([("PATH".to_owned(), "/nowhere:/bin".to_owned())]);
        assert!(find_command("sh", &env, Path::new("/")));
        assert!(find_command("/bin/sh", &env, Path::new("/")));
        assert!(find_command("./sh", &env, Path::new("/bin")));
        assert!(!find_command("no-such-command", &env, Path::new("/")));
        assert!(!find_command("sh", &BTreeMap::new(), Path::new("/")));
    }
}
