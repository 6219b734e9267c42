//! Checks that an [`Executor`] keeps its contract. See [`suite`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;

use crate::executor::{
    Assignment, ExecError, ExecErrorKind, Executor, Exit, Found, LogEntry, LogOptions, LogSource,
    Started,
};
use crate::id::IdSource;
use crate::model::{
    ContainerSpec, ContainerStatus, FileTarget, Healthcheck, NodeId, SecretBytes, SecretReference,
    ServiceAnnotations, Task, TaskId, TaskSpec, TaskState,
};
use crate::time::Nanos;

/// What the suite runs on an executor: specifications whose behaviour the suite knows, in whatever
/// form the executor understands. Executors that can run `sh` take [`ShellFixture`].
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The node that the executor serves.
    fn node(&self) -> NodeId;
    /// Runs until it is told to stop, and then ends at once.
    fn long_running(&self) -> ContainerSpec;
    /// Ends on its own with that exit code, at once.
    fn exits(&self, code: i64) -> ContainerSpec;
    /// Writes the lines in order, each with a line end, and ends with code 0.
    fn prints(&self, lines: &[(LogSource, &str)]) -> ContainerSpec;
    /// Runs on when it is told to stop; only a kill ends it.
    fn ignores_term(&self) -> ContainerSpec;
    /// Runs until it is told to stop; its health check never succeeds and gives up soon.
    fn unhealthy(&self) -> ContainerSpec;
    /// Runs until it is told to stop; its health check succeeds at first, and fails soon after.
    fn turns_unhealthy(&self) -> ContainerSpec;
    /// Can never run here: `prepare` or `start` must say so.
    fn impossible(&self) -> ContainerSpec;
    /// Writes the content of the secret file of that name to standard output and ends with
    /// code 0; `None` where the executor does not deliver secrets.
    fn prints_secret(&self, file: &str) -> Option<ContainerSpec> {
        let _ = file;
        None
    }
    /// Another executor over the same node and engine, as after an agent's restart; the one under
    /// test stays alive but is not called meanwhile. `None` where nothing outlives the executor.
    async fn reopen(&self) -> Option<Arc<dyn Executor>> {
        None
    }
    /// Whether the executor keeps logs.
    fn keeps_logs(&self) -> bool {
        true
    }
}

/// The fixture for executors that run `sh` from an image (or from the host).
#[derive(Clone, Debug)]
pub struct ShellFixture {
    /// The node that the executor serves.
    pub node: NodeId,
    /// An image with `sh`, `sleep` and `cat`, present or pullable, such as `busybox:1.37`.
    pub image: String,
    /// What can never run: an image that does not exist, a command that is missing.
    pub impossible: ContainerSpec,
}

impl ShellFixture {
    fn shell(&self, script: impl Into<String>) -> ContainerSpec {
        ContainerSpec {
            image: self.image.clone(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            ..Default::default()
        }
    }

    fn checked(spec: ContainerSpec, test: &str, retries: i64) -> ContainerSpec {
        ContainerSpec {
            healthcheck: Some(Healthcheck {
                test: vec!["CMD-SHELL".into(), test.into()],
                interval: Nanos(200_000_000),
                timeout: Nanos::from_secs(5),
                retries,
                ..Default::default()
            }),
            ..spec
        }
    }
}

#[async_trait]
impl Fixture for ShellFixture {
    fn node(&self) -> NodeId {
        self.node
    }
    fn long_running(&self) -> ContainerSpec {
        // The first process of a container ignores signals without a handler: hence the trap.
        self.shell("trap 'exit 0' TERM; while :; do sleep 0.1; done")
    }
    fn exits(&self, code: i64) -> ContainerSpec {
        self.shell(format!("exit {code}"))
    }
    fn prints(&self, lines: &[(LogSource, &str)]) -> ContainerSpec {
        let script: Vec<String> = lines
            .iter()
            .map(|(source, line)| match source {
                LogSource::Stdout => format!("echo '{line}'"),
                LogSource::Stderr => format!("echo '{line}' >&2"),
            })
            .collect();
        self.shell(script.join("\n"))
    }
    fn ignores_term(&self) -> ContainerSpec {
        // Healthy only once the trap is set: a signal that comes earlier would end it.
        let script = "trap '' TERM; touch seen-$SWARM_CHECK; while :; do sleep 0.1; done";
        Self::checked(self.shell(script), "test -e seen-$SWARM_CHECK", 100)
    }
    fn unhealthy(&self) -> ContainerSpec {
        Self::checked(self.long_running(), "exit 1", 2)
    }
    fn turns_unhealthy(&self) -> ContainerSpec {
        // A marker in the working directory, which is the task's own: the first
        // check makes it and succeeds, later ones find it and fail.
        let test = "f=seen-$SWARM_CHECK; test ! -e $f && touch $f";
        Self::checked(self.long_running(), test, 2)
    }
    fn impossible(&self) -> ContainerSpec {
        self.impossible.clone()
    }
    fn prints_secret(&self, file: &str) -> Option<ContainerSpec> {
        Some(self.shell(format!("cat \"${{SWARM_SECRETS_DIR:-/run/secrets}}/{file}\"")))
    }
}

/// A bound against hanging, generous because machines differ; never a measurement.
const PATIENCE: Duration = Duration::from_secs(120);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not return within {PATIENCE:?}"),
    }
}

/// Runs every check on an executor, one after the other. Tasks get fresh random ids, so an engine
/// may be shared; every task that a check made is removed again unless the check panics.
///
/// # Panics
/// With a sentence that names the broken promise.
pub async fn suite(executor: &dyn Executor, fixture: &dyn Fixture) {
    describes_the_node(executor).await;
    prepares_once(executor, fixture).await;
    starts_once_and_stops(executor, fixture).await;
    tells_exit_codes(executor, fixture).await;
    survives_dropped_futures(executor, fixture).await;
    kills_after_grace(executor, fixture).await;
    keeps_tasks_apart(executor, fixture).await;
    takes_unknown_tasks_calmly(executor).await;
    refuses_the_impossible(executor, fixture).await;
    gates_on_health(executor, fixture).await;
    ends_the_unhealthy(executor, fixture).await;
    if fixture.keeps_logs() {
        keeps_logs(executor, fixture).await;
        follows_logs(executor, fixture).await;
    }
    delivers_secrets(executor, fixture).await;
    outlives_its_agent(executor, fixture).await;
}

/// A task under test.
struct Subject<'a> {
    executor: &'a dyn Executor,
    assignment: Assignment,
}

impl<'a> Subject<'a> {
    fn new(executor: &'a dyn Executor, fixture: &dyn Fixture, mut spec: ContainerSpec) -> Self {
        let mut ids = IdSource::random();
        let id: TaskId = ids.next();
        spec.env.push(format!("SWARM_CHECK={id}"));
        let task = Task {
            id,
            service_id: ids.next(),
            slot: 1,
            node_id: Some(fixture.node()),
            desired_state: TaskState::Running,
            spec: Arc::new(TaskSpec { container: Some(spec), ..Default::default() }),
            annotations: Arc::new(ServiceAnnotations {
                name: "conformance".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let assignment = Assignment {
            task: Arc::new(task),
            node: fixture.node(),
            secrets: Vec::new(),
            configs: Vec::new(),
            attachments: Vec::new(),
        };
        Self { executor, assignment }
    }

    fn id(&self) -> TaskId {
        self.assignment.task.id
    }

    async fn prepare(&self) -> crate::executor::Sandbox {
        within("prepare", self.executor.prepare(&self.assignment))
            .await
            .unwrap_or_else(|error| panic!("prepare failed: {error}"))
    }

    async fn start(&self) -> Result<Started, ExecError> {
        self.prepare().await;
        within("start", self.executor.start(self.id())).await
    }

    async fn started(&self) -> ContainerStatus {
        self.start().await.unwrap_or_else(|error| panic!("start failed: {error}")).container
    }

    /// Starts a task that ends by itself: whether `start` sees the end is a race that both
    /// outcomes of are legal.
    async fn launched(&self) {
        if let Err(error) = self.start().await {
            assert_eq!(error.kind, ExecErrorKind::Failed, "start failed: {error}");
        }
    }

    async fn wait(&self) -> Exit {
        within("wait", self.executor.wait(self.id()))
            .await
            .unwrap_or_else(|error| panic!("wait failed: {error}"))
    }

    async fn stop(&self, grace: Duration) {
        within("stop", self.executor.stop(self.id(), grace))
            .await
            .unwrap_or_else(|error| panic!("stop failed: {error}"));
    }

    async fn remove(&self) {
        within("remove", self.executor.remove(self.id()))
            .await
            .unwrap_or_else(|error| panic!("remove failed: {error}"));
    }

    async fn found(&self) -> Option<Found> {
        found(self.executor, self.id()).await
    }

    async fn logs(&self, options: LogOptions) -> Vec<LogEntry> {
        let stream = within("logs", self.executor.logs(self.id(), options))
            .await
            .unwrap_or_else(|error| panic!("logs failed: {error}"));
        within("the end of the logs", stream.collect::<Vec<_>>())
            .await
            .into_iter()
            .map(|entry| entry.unwrap_or_else(|error| panic!("a log line failed: {error}")))
            .collect()
    }
}

async fn found(executor: &dyn Executor, task: TaskId) -> Option<Found> {
    let inventory = within("inventory", executor.inventory())
        .await
        .unwrap_or_else(|error| panic!("inventory failed: {error}"));
    inventory.into_iter().find(|observed| observed.task == task).map(|observed| observed.found)
}

/// Longer than any check runs: a task that must end by itself or by its signal, not by a kill.
const LONG: Duration = Duration::from_secs(60);

async fn describes_the_node(executor: &dyn Executor) {
    let node = within("describe", executor.describe())
        .await
        .unwrap_or_else(|error| panic!("describe failed: {error}"));
    assert!(!node.hostname.is_empty(), "describe gives a host name");
    assert!(!node.platform.os.is_empty(), "describe gives an operating system");
    assert!(!node.platform.architecture.is_empty(), "describe gives an architecture");
    assert!(node.resources.nano_cpus > 0, "describe gives processors");
    assert!(node.resources.memory_bytes > 0, "describe gives memory");
    assert!(!node.engine.engine_id.is_empty(), "describe says which engine it is");
}

async fn prepares_once(executor: &dyn Executor, fixture: &dyn Fixture) {
    let subject = Subject::new(executor, fixture, fixture.long_running());
    assert_eq!(subject.found().await, None, "inventory knows a task before prepare");
    let sandbox = subject.prepare().await;
    assert!(!sandbox.id.is_empty(), "prepare names its sandbox");
    assert_eq!(subject.prepare().await, sandbox, "a second prepare returns the same sandbox");
    assert_eq!(subject.found().await, Some(Found::Prepared), "inventory after prepare");
    subject.stop(LONG).await;
    subject.remove().await;
    assert_eq!(subject.found().await, None, "inventory after remove");
    subject.remove().await;
}

async fn starts_once_and_stops(executor: &dyn Executor, fixture: &dyn Fixture) {
    let subject = Subject::new(executor, fixture, fixture.long_running());
    let container = subject.started().await;
    assert!(!container.container_id.is_empty(), "start names the container");
    let again = subject.started().await;
    assert_eq!(again.container_id, container.container_id, "a second start keeps the container");
    assert_eq!(again.pid, container.pid, "a second start keeps the process");
    assert_eq!(subject.found().await, Some(Found::Running), "inventory after start");
    subject.stop(LONG).await;
    let exit = subject.wait().await;
    assert_eq!(subject.wait().await, exit, "a second wait tells the same end");
    subject.stop(LONG).await;
    assert_eq!(subject.found().await, Some(Found::Exited(exit)), "inventory after stop");
    subject.remove().await;
    assert_eq!(subject.found().await, None, "inventory after remove");

    let running = Subject::new(executor, fixture, fixture.long_running());
    running.started().await;
    running.remove().await;
    assert_eq!(running.found().await, None, "remove takes a running task too");
}

async fn tells_exit_codes(executor: &dyn Executor, fixture: &dyn Fixture) {
    for code in [0, 7] {
        let subject = Subject::new(executor, fixture, fixture.exits(code));
        subject.launched().await;
        let exit = subject.wait().await;
        assert_eq!(exit.code, code, "wait tells the exit code");
        assert_eq!(exit.is_success(), code == 0, "an exit with code {code}: {exit:?}");
        assert_eq!(subject.found().await, Some(Found::Exited(exit)), "inventory after the end");
        subject.remove().await;
    }
}

/// Polls a future for a moment and drops it.
async fn interrupted<T>(future: impl Future<Output = T>) {
    let _ = tokio::time::timeout(Duration::from_millis(1), future).await;
}

async fn survives_dropped_futures(executor: &dyn Executor, fixture: &dyn Fixture) {
    let subject = Subject::new(executor, fixture, fixture.long_running());
    interrupted(executor.prepare(&subject.assignment)).await;
    subject.prepare().await;
    interrupted(executor.start(subject.id())).await;
    subject.started().await;
    interrupted(executor.wait(subject.id())).await;
    assert_eq!(subject.found().await, Some(Found::Running), "a dropped wait stops nothing");
    interrupted(executor.stop(subject.id(), LONG)).await;
    subject.stop(LONG).await;
    subject.wait().await;
    interrupted(executor.remove(subject.id())).await;
    subject.remove().await;
    assert_eq!(subject.found().await, None, "inventory after an interrupted remove");
}

async fn kills_after_grace(executor: &dyn Executor, fixture: &dyn Fixture) {
    let subject = Subject::new(executor, fixture, fixture.ignores_term());
    subject.started().await;
    subject.stop(Duration::from_millis(500)).await;
    let exit = subject.wait().await;
    assert_eq!(exit.code, 137, "a killed task ends with 128 + 9");
    subject.remove().await;
}

async fn keeps_tasks_apart(executor: &dyn Executor, fixture: &dyn Fixture) {
    let one = Subject::new(executor, fixture, fixture.long_running());
    let other = Subject::new(executor, fixture, fixture.long_running());
    one.started().await;
    other.started().await;
    one.stop(LONG).await;
    one.remove().await;
    assert_eq!(other.found().await, Some(Found::Running), "stopping one task touched another");
    other.stop(LONG).await;
    other.remove().await;
}

async fn takes_unknown_tasks_calmly(executor: &dyn Executor) {
    let unknown: TaskId = IdSource::random().next();
    for result in [
        within("stop", executor.stop(unknown, LONG)).await,
        within("remove", executor.remove(unknown)).await,
    ] {
        result.unwrap_or_else(|error| panic!("an unknown task is as good as gone: {error}"));
    }
    assert!(within("start", executor.start(unknown)).await.is_err(), "start of an unknown task");
    assert!(within("wait", executor.wait(unknown)).await.is_err(), "wait for an unknown task");
}

async fn refuses_the_impossible(executor: &dyn Executor, fixture: &dyn Fixture) {
    let subject = Subject::new(executor, fixture, fixture.impossible());
    let error = match within("prepare", executor.prepare(&subject.assignment)).await {
        Err(error) => error,
        Ok(_) => within("start", executor.start(subject.id()))
            .await
            .expect_err("what can never run must fail in prepare or start"),
    };
    assert_ne!(error.kind, ExecErrorKind::Temporary, "no retry helps: {error}");
    assert!(!error.message.is_empty(), "an error says what happened");
    subject.remove().await;
    assert_eq!(subject.found().await, None, "inventory after a refusal and remove");
}

async fn gates_on_health(executor: &dyn Executor, fixture: &dyn Fixture) {
    let subject = Subject::new(executor, fixture, fixture.unhealthy());
    let error = subject.start().await.expect_err("start must wait for the health check");
    assert_eq!(error.kind, ExecErrorKind::Failed, "an unhealthy task failed: {error}");
    assert!(error.message.contains("unhealthy"), "the error names the reason: {error}");
    subject.stop(LONG).await;
    subject.remove().await;
}

async fn ends_the_unhealthy(executor: &dyn Executor, fixture: &dyn Fixture) {
    let subject = Subject::new(executor, fixture, fixture.turns_unhealthy());
    subject.started().await;
    let exit = subject.wait().await;
    let error = exit.error.as_deref().unwrap_or_default();
    assert!(error.contains("unhealthy"), "wait ends with the reason: {exit:?}");
    assert_ne!(subject.found().await, Some(Found::Running), "an unhealthy task is stopped");
    subject.remove().await;
}

fn both() -> LogOptions {
    LogOptions { stdout: true, stderr: true, ..Default::default() }
}

fn text(entries: &[LogEntry], source: LogSource) -> Vec<String> {
    let of_source = entries.iter().filter(|entry| entry.source == source);
    of_source.map(|entry| String::from_utf8_lossy(&entry.data).trim_end().to_owned()).collect()
}

async fn keeps_logs(executor: &dyn Executor, fixture: &dyn Fixture) {
    use LogSource::{Stderr, Stdout};
    let lines = [(Stdout, "one"), (Stdout, "two"), (Stderr, "oops"), (Stdout, "three")];
    let subject = Subject::new(executor, fixture, fixture.prints(&lines));
    subject.launched().await;
    subject.wait().await;
    let all = subject.logs(both()).await;
    assert_eq!(text(&all, Stdout), ["one", "two", "three"], "standard output, in order");
    assert_eq!(text(&all, Stderr), ["oops"], "standard error");
    assert!(all.iter().all(|entry| entry.data.ends_with(b"\n")), "lines keep their line end");

    let errors = subject.logs(LogOptions { stdout: false, ..both() }).await;
    assert_eq!(text(&errors, Stderr), ["oops"], "standard error alone");
    assert_eq!(errors.len(), 1, "standard error alone");
    let tail =
        subject.logs(LogOptions { tail: Some(2), stderr: false, follow: true, ..both() }).await;
    assert_eq!(text(&tail, Stdout), ["two", "three"], "the last two lines of standard output");
    let last = all.iter().map(|entry| entry.time).max().expect("there are lines");
    let later =
        subject.logs(LogOptions { since: Some(last + Duration::from_secs(3600)), ..both() }).await;
    assert_eq!(later, [], "nothing was written since an hour after the end");
    subject.remove().await;
}

async fn follows_logs(executor: &dyn Executor, fixture: &dyn Fixture) {
    let subject = Subject::new(executor, fixture, fixture.long_running());
    subject.started().await;
    let options = LogOptions { follow: true, ..both() };
    let (_, ()) = tokio::join!(subject.logs(options), subject.stop(LONG));
    subject.remove().await;
}

async fn delivers_secrets(executor: &dyn Executor, fixture: &dyn Fixture) {
    let Some(spec) = fixture.prints_secret("password") else { return };
    let reference = SecretReference {
        file: Some(FileTarget { name: "password".into(), mode: 0o444, ..Default::default() }),
        secret_id: IdSource::random().next(),
        secret_name: "password".into(),
        ..Default::default()
    };
    let mut subject = Subject::new(executor, fixture, spec);
    subject.assignment.secrets.push((reference, SecretBytes::from(b"hunter2\n".to_vec())));
    subject.launched().await;
    assert_eq!(subject.wait().await, Exit::default(), "the secret can be read");
    if fixture.keeps_logs() {
        let all = subject.logs(both()).await;
        assert_eq!(text(&all, LogSource::Stdout), ["hunter2"], "the secret's bytes");
    }
    subject.remove().await;
}

async fn outlives_its_agent(executor: &dyn Executor, fixture: &dyn Fixture) {
    let running = Subject::new(executor, fixture, fixture.long_running());
    let ended = Subject::new(executor, fixture, fixture.exits(7));
    running.started().await;
    ended.launched().await;
    ended.wait().await;
    if let Some(next) = fixture.reopen().await {
        let next = next.as_ref();
        assert_eq!(found(next, running.id()).await, Some(Found::Running), "after a restart");
        let Some(Found::Exited(exit)) = found(next, ended.id()).await else {
            panic!("a restarted executor knows what ended before");
        };
        assert_eq!(exit.code, 7, "a restarted executor knows exit codes");
        within("start", next.start(running.id()))
            .await
            .unwrap_or_else(|error| panic!("start of an adopted task: {error}"));
        interrupted(next.wait(running.id())).await;
        within("stop", next.stop(running.id(), LONG))
            .await
            .unwrap_or_else(|error| panic!("stop of an adopted task: {error}"));
        let exit = within("wait", next.wait(running.id()))
            .await
            .unwrap_or_else(|error| panic!("wait for an adopted task: {error}"));
        assert_ne!(exit.code, 137, "an adopted task got its stop signal");
        for task in [running.id(), ended.id()] {
            within("remove", next.remove(task))
                .await
                .unwrap_or_else(|error| panic!("remove of an adopted task: {error}"));
            assert_eq!(found(next, task).await, None, "inventory after remove");
        }
    }
    running.remove().await;
    ended.remove().await;
}
