//! Real processes: the contract, and what is beyond it.

use std::sync::atomic::{AtomicUsize, Ordering};

use swarm_core::conformance::executor::{Fixture, ShellFixture, suite};
use swarm_core::executor::{ExecErrorKind, Found, LogSource};
use swarm_core::id::IdSource;
use swarm_core::model::{ContainerSpec, Endpoint, PortConfig, PublishMode, Task, TaskSpec};

use super::*;

struct Reopening(ShellFixture, Config);

#[async_trait]
impl Fixture for Reopening {
    fn node(&self) -> NodeId {
        self.0.node()
    }
    fn long_running(&self) -> ContainerSpec {
        self.0.long_running()
    }
    fn exits(&self, code: i64) -> ContainerSpec {
        self.0.exits(code)
    }
    fn prints(&self, lines: &[(LogSource, &str)]) -> ContainerSpec {
        self.0.prints(lines)
    }
    fn ignores_term(&self) -> ContainerSpec {
        self.0.ignores_term()
    }
    fn unhealthy(&self) -> ContainerSpec {
        self.0.unhealthy()
    }
    fn turns_unhealthy(&self) -> ContainerSpec {
        self.0.turns_unhealthy()
    }
    fn impossible(&self) -> ContainerSpec {
        self.0.impossible()
    }
    fn prints_secret(&self, file: &str) -> Option<ContainerSpec> {
        self.0.prints_secret(file)
    }
    async fn reopen(&self) -> Option<Arc<dyn Executor>> {
        Some(Arc::new(ProcessExecutor::open(self.1.clone()).await.unwrap()))
    }
}

struct Place {
    _dir: tempfile::TempDir,
    config: Config,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let node = IdSource::random().next();
    let config =
        Config { secrets: dir.path().join("files"), ..Config::new(node, dir.path().join("state")) };
    Place { _dir: dir, config }
}

fn assignment(command: &[&str], change: impl FnOnce(&mut Task, &mut ContainerSpec)) -> Assignment {
    let mut container = ContainerSpec {
        image: "none".into(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        ..Default::default()
    };
    let mut task = Task { id: IdSource::random().next(), ..Default::default() };
    change(&mut task, &mut container);
    task.spec = Arc::new(TaskSpec { container: Some(container), ..Default::default() });
    Assignment {
        task: Arc::new(task),
        node: NodeId::NIL,
        secrets: Vec::new(),
        configs: Vec::new(),
        attachments: Vec::new(),
    }
}

async fn run(executor: &ProcessExecutor, assignment: &Assignment) -> Started {
    executor.prepare(assignment).await.unwrap();
    executor.start(assignment.task.id).await.unwrap()
}

async fn output(executor: &ProcessExecutor, task: TaskId) -> Vec<String> {
    use futures_util::StreamExt as _;
    let options = LogOptions { stdout: true, stderr: true, ..Default::default() };
    let entries: Vec<_> = executor.logs(task, options).await.unwrap().collect().await;
    let text = |entry: Result<swarm_core::executor::LogEntry, ExecError>| {
        String::from_utf8(entry.unwrap().data).unwrap().trim_end().to_owned()
    };
    entries.into_iter().map(text).collect()
}

async fn until(mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), poll).await.expect("it never came true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    let place = place();
    let executor = ProcessExecutor::open(place.config.clone()).await.unwrap();
    let fixture = ShellFixture {
        node: place.config.node,
        image: "none".into(),
        impossible: ContainerSpec { image: "nginx".into(), ..Default::default() },
    };
    suite(&executor, &Reopening(fixture, place.config.clone())).await;
}

#[tokio::test]
async fn every_process_of_a_task_ends_with_it() {
    let place = place();
    let executor = ProcessExecutor::open(place.config).await.unwrap();
    let pids = place._dir.path().join("pids");
    // One child in the group, one that left it, one whose parent is gone.
    let script = format!(
        "sleep 1000 & echo $! >> {0}; setsid sleep 1000 & echo $! >> {0}; \
         (sleep 1000 & echo $! >> {0}); echo done >> {0}; exec sleep 1000",
        pids.display()
    );
    let task = assignment(&["sh", "-c", &script], |_, _| {});
    run(&executor, &task).await;
    let text = || fs::read_to_string(&pids).unwrap_or_default();
    until(|| text().ends_with("done\n")).await;
    let pids: Vec<String> = text().lines().filter(|l| *l != "done").map(str::to_owned).collect();
    assert_eq!(pids.len(), 3);
    executor.stop(task.task.id, Duration::from_secs(30)).await.unwrap();
    let exit = executor.wait(task.task.id).await.unwrap();
    assert_eq!(exit, Exit { code: 143, error: None });
    let lives = |pid: &String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z")
    };
    until(|| !pids.iter().any(lives)).await;
    executor.remove(task.task.id).await.unwrap();
}

#[tokio::test]
async fn signals_reach_the_command_as_they_are() {
    let place = place();
    let executor = ProcessExecutor::open(place.config).await.unwrap();
    for signal in ["INT", "QUIT", "USR1", "TERM"] {
        let script =
            format!("trap 'echo got; exit 5' {signal}; echo up; while :; do sleep 0.05; done");
        let task = assignment(&["sh", "-c", &script], |_, spec| spec.stop_signal = signal.into());
        let id = task.task.id;
        run(&executor, &task).await;
        let up = AtomicUsize::new(0);
        while up.load(Ordering::Relaxed) == 0 {
            up.store(output(&executor, id).await.len(), Ordering::Relaxed);
        }
        executor.stop(id, Duration::from_secs(30)).await.unwrap();
        assert_eq!(executor.wait(id).await.unwrap().code, 5, "{signal}");
        assert_eq!(output(&executor, id).await, ["up", "got"], "{signal}");
        executor.remove(id).await.unwrap();
    }
}

#[tokio::test]
async fn tasks_outlive_the_executor_with_their_exit_codes_and_output() {
    let place = place();
    let executor = ProcessExecutor::open(place.config.clone()).await.unwrap();
    let go = place._dir.path().join("go");
    let script =
        format!("echo one; until test -e {}; do sleep 0.02; done; echo two; exit 9", go.display());
    let task = assignment(&["sh", "-c", &script], |_, _| {});
    let id = task.task.id;
    let pid = run(&executor, &task).await.container.pid;
    drop(executor);

    let executor = ProcessExecutor::open(place.config.clone()).await.unwrap();
    let found = executor.inventory().await.unwrap();
    assert_eq!(found, [Observed { task: id, found: Found::Running }]);
    let adopted = executor.start(id).await.unwrap();
    assert_eq!(adopted.container.pid, pid);
    drop(executor);
    fs::write(&go, "").unwrap();
    let stat = format!("/proc/{pid}/stat");
    until(|| !fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z"))).await;

    // It ended while no executor was there.
    let executor = ProcessExecutor::open(place.config).await.unwrap();
    assert_eq!(executor.wait(id).await.unwrap(), Exit { code: 9, error: None });
    assert_eq!(output(&executor, id).await, ["one", "two"]);
    executor.remove(id).await.unwrap();
}

#[tokio::test]
async fn leftovers_of_a_crash_are_swept_and_volumes_stay() {
    let place = place();
    let executor = ProcessExecutor::open(place.config.clone()).await.unwrap();
    let mount = swarm_core::model::Mount {
        kind: swarm_core::model::MountType::Volume,
        source: "data".into(),
        target: "/data".into(),
        ..Default::default()
    };
    let task = assignment(&["sh", "-c", "echo kept > $SWARM_VOLUME_DATA/file"], |_, spec| {
        spec.mounts.push(mount);
    });
    let id = task.task.id;
    run(&executor, &task).await;
    assert_eq!(executor.wait(id).await.unwrap(), Exit::default());
    drop(executor);
    let dir = place.config.dir.join("tasks").join(id.as_str());
    fs::remove_file(dir.join("plan.json")).unwrap();

    let executor = ProcessExecutor::open(place.config.clone()).await.unwrap();
    assert_eq!(executor.inventory().await.unwrap(), []);
    assert!(!dir.exists() && !place.config.secrets.join(id.as_str()).exists());
    let volume = place.config.dir.join("volumes/data/file");
    assert_eq!(fs::read_to_string(volume).unwrap(), "kept\n");
}

#[tokio::test]
async fn an_agent_and_its_executor_restart_and_the_task_runs_on() {
    use crate::agent::link::{ManagerEnd, channel};
    use swarm_core::model::{TaskState, TaskStatus};
    use swarm_core::protocol::{AgentMessage, Assignments, Item, ManagerMessage, Settings};

    async fn session(
        streams: &mut tokio::sync::mpsc::Receiver<ManagerEnd>,
        task: &Arc<Task>,
    ) -> (ManagerEnd, TaskStatus) {
        let mut end = streams.recv().await.unwrap();
        let welcome = ManagerMessage::Welcome {
            session: IdSource::random().next(),
            settings: Settings {
                heartbeat: swarm_core::time::Nanos::from_secs(5),
                ..Settings::default()
            },
        };
        end.sender.send(welcome).await.unwrap();
        let set = Assignments {
            results_in: 1,
            put: vec![Item::Task(task.clone())],
            ..Default::default()
        };
        end.sender.send(ManagerMessage::Assignments(set)).await.unwrap();
        loop {
            let AgentMessage::Statuses(statuses) = end.receiver.recv().await.unwrap() else {
                continue;
            };
            let status = statuses.into_iter().find(|(id, _)| *id == task.id).map(|(_, s)| s);
            if let Some(status) = status.filter(|status| status.state >= TaskState::Running) {
                return (end, status);
            }
        }
    }

    let place = place();
    let task = assignment(&["sleep", "1000"], |task, _| {
        task.desired_state = TaskState::Running;
        task.status.state = TaskState::Assigned;
    });
    let mut pids = Vec::new();
    for _ in 0..2 {
        let executor = Arc::new(ProcessExecutor::open(place.config.clone()).await.unwrap());
        let (link, mut streams) = channel();
        let agent = crate::Agent::builder(place.config.node, executor.clone(), Arc::new(link))
            .journal(place._dir.path().join("journal"))
            .build()
            .unwrap();
        let cancel = tokio_util::sync::CancellationToken::new();
        let play = async {
            let played = session(&mut streams, &task.task);
            let (_end, status) =
                tokio::time::timeout(Duration::from_secs(60), played).await.expect("it hangs");
            assert_eq!(status.state, TaskState::Running, "{status:?}");
            pids.push(status.container.unwrap().pid);
            cancel.cancel();
        };
        let (ran, ()) = tokio::join!(agent.run(cancel.clone()), play);
        ran.unwrap();
        if pids.len() == 2 {
            agent.purge().await.unwrap();
            assert_eq!(executor.inventory().await.unwrap(), []);
            assert!(!place.config.secrets.exists(), "a purge gives back the place of secrets");
        }
    }
    assert_eq!(pids[0], pids[1], "the same process, before and after");
}

#[tokio::test]
async fn a_lost_supervisor_is_told_and_leaves_nothing_behind() {
    let place = place();
    let executor = ProcessExecutor::open(place.config).await.unwrap();
    let task = assignment(&["sleep", "1000"], |_, _| {});
    let id = task.task.id;
    let pid = run(&executor, &task).await.container.pid;
    let live = executor.live(id).unwrap();
    live.dir.supervisor(&supervise::boot_id()).unwrap().signal(9);
    let exit = executor.wait(id).await.unwrap();
    assert_eq!(exit.code, 137);
    assert!(exit.error.unwrap().contains("exit code was lost"));
    let stat = format!("/proc/{pid}/stat");
    until(|| !fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z"))).await;
    executor.remove(id).await.unwrap();
}

/// A file system of its own for a directory, without room.
struct FullDisk(PathBuf);

impl FullDisk {
    fn at(dir: PathBuf) -> Self {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "full"]).arg(&dir);
        assert!(mount.status().unwrap().success());
        let _ = fs::write(dir.join("filler"), vec![0; 1 << 20]);
        Self(dir)
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A start on a full disk leaves nothing behind that would keep later ones from going on.
#[tokio::test]
async fn what_could_not_start_on_a_full_disk_starts_when_there_is_room() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root, to mount a tmpfs");
        return;
    }
    let place = place();
    let executor = ProcessExecutor::open(place.config.clone()).await.unwrap();
    let task = assignment(&["sleep", "1000"], |_, _| {});
    executor.prepare(&task).await.unwrap();
    let disk = FullDisk::at(executor.task_dir(task.task.id).run());

    let error = executor.start(task.task.id).await.unwrap_err();
    assert_eq!(error.kind, ExecErrorKind::Temporary, "{error}");
    assert!(error.message.contains("is the disk full?"), "{error}");
    let found = executor.inventory().await.unwrap();
    assert_eq!(found[0].found, Found::Prepared, "nothing has begun");

    disk.make_room();
    let pid = executor.start(task.task.id).await.unwrap().container.pid;
    assert!(pid > 0, "it runs");
    executor.stop(task.task.id, Duration::ZERO).await.unwrap();
}

/// Nobody could stop it.
#[tokio::test]
async fn a_command_that_cannot_be_written_down_does_not_run() {
    let place = place();
    let executor = ProcessExecutor::open(place.config.clone()).await.unwrap();
    let task = assignment(&["sleep", "1000"], |_, _| {});
    executor.prepare(&task).await.unwrap();
    let dir = executor.task_dir(task.task.id);
    fs::create_dir(dir.run().join("leader.new")).unwrap();
    executor.start(task.task.id).await.unwrap();
    let exit = executor.wait(task.task.id).await.unwrap();
    assert_eq!((exit.code, dir.run().join("leader").exists()), (125, false));
}

#[tokio::test]
async fn ports_are_given_and_reported() {
    let place = place();
    let executor = ProcessExecutor::open(place.config).await.unwrap();
    let ingress = PortConfig { target_port: 80, published_port: 8080, ..Default::default() };
    let host =
        PortConfig { target_port: 81, publish_mode: PublishMode::Host, ..Default::default() };
    let task = assignment(&["sh", "-c", "echo $PORT_80 $PORT_81 ${PORT-none}"], |task, _| {
        let endpoint = Endpoint { ports: vec![ingress, host], ..Default::default() };
        task.endpoint = Some(Arc::new(endpoint));
    });
    let id = task.task.id;
    let started = run(&executor, &task).await;
    executor.wait(id).await.unwrap();
    let [endpoint] = &started.endpoints[..] else { panic!("{started:?}") };
    let [port] = &started.ports[..] else { panic!("{started:?}") };
    let inside = endpoint.address.strip_prefix("127.0.0.1:").unwrap();
    assert_eq!(endpoint.target_port, 80);
    assert_eq!(port.target_port, 81);
    let expected = format!("{inside} {} none", port.published_port);
    assert_eq!(output(&executor, id).await, [expected]);
    executor.remove(id).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_is_rejected_in_words() {
    let place = place();
    let executor = ProcessExecutor::open(place.config).await.unwrap();
    type Change = fn(&mut ContainerSpec);
    let table: [(&[&str], Change, &str); 4] = [
        (&[], |_| {}, "image none has no meaning for the process executor"),
        (&["no-such-command"], |_| {}, "exec: \"no-such-command\": executable file not found"),
        (&["true"], |spec| spec.dir = "/no/such/dir".into(), "the working directory /no/such/dir"),
        (&["true"], |spec| spec.user = "no-such-user".into(), "unable to find user no-such-user"),
    ];
    for (command, change, text) in table {
        let task = assignment(command, |_, spec| change(spec));
        let error = executor.prepare(&task).await.unwrap_err();
        assert_eq!(error.kind, swarm_core::executor::ExecErrorKind::Rejected, "{error}");
        assert!(error.message.starts_with(text), "{error}");
        executor.remove(task.task.id).await.unwrap();
    }
}

#[tokio::test]
async fn root_runs_tasks_as_others() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root may run processes as others");
        return;
    }
    let place = place();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(place._dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let executor = ProcessExecutor::open(place.config).await.unwrap();
    let task = assignment(&["sh", "-c", "id -u; id -g; touch mine && echo ok"], |_, spec| {
        spec.user = "4242:4243".into();
    });
    let id = task.task.id;
    run(&executor, &task).await;
    assert_eq!(executor.wait(id).await.unwrap(), Exit::default());
    assert_eq!(output(&executor, id).await, ["4242", "4243", "ok"]);
    executor.remove(id).await.unwrap();
}
