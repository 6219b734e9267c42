//! The memory executor keeps the contract of executors.

use swarm_core::conformance::executor::{Fixture, suite};
use swarm_core::id::IdSource;

use super::*;

/// Scripts by image name.
struct Scripts(NodeId, MemoryExecutor);

fn image(image: impl Into<String>) -> ContainerSpec {
    ContainerSpec { image: image.into(), ..Default::default() }
}

fn script(spec: &ContainerSpec) -> Behaviour {
    let unhealthy = Exit { code: 143, error: Some("unhealthy container".into()) };
    match spec.image.split_once('=').unwrap_or((&spec.image, "")) {
        ("exits", code) => Behaviour::exits(code.parse().unwrap(), Duration::ZERO),
        ("ignores", _) => Behaviour { obeys: false, ..Default::default() },
        ("unhealthy", _) => Behaviour {
            start: Phase::Fails(ExecError::failed("unhealthy container")),
            ..Default::default()
        },
        ("turns-unhealthy", _) => {
            Behaviour { exit: Some((Duration::from_millis(50), unhealthy)), ..Default::default() }
        }
        ("impossible", _) => Behaviour {
            prepare: Phase::Fails(ExecError::rejected("no such image")),
            ..Default::default()
        },
        ("prints", _) => Behaviour {
            lines: spec
                .args
                .iter()
                .map(|line| match line.split_at(1) {
                    ("o", line) => (LogSource::Stdout, line.to_owned()),
                    (_, line) => (LogSource::Stderr, line.to_owned()),
                })
                .collect(),
            ..Behaviour::exits(0, Duration::ZERO)
        },
        _ => Behaviour::default(),
    }
}

#[async_trait]
impl Fixture for Scripts {
    fn node(&self) -> NodeId {
        self.0
    }
    fn long_running(&self) -> ContainerSpec {
        image("steady")
    }
    fn exits(&self, code: i64) -> ContainerSpec {
        image(format!("exits={code}"))
    }
    fn prints(&self, lines: &[(LogSource, &str)]) -> ContainerSpec {
        let line = |(source, line): &(LogSource, &str)| match source {
            LogSource::Stdout => format!("o{line}"),
            LogSource::Stderr => format!("e{line}"),
        };
        ContainerSpec { args: lines.iter().map(line).collect(), ..image("prints") }
    }
    fn ignores_term(&self) -> ContainerSpec {
        image("ignores")
    }
    fn unhealthy(&self) -> ContainerSpec {
        image("unhealthy")
    }
    fn turns_unhealthy(&self) -> ContainerSpec {
        image("turns-unhealthy")
    }
    fn impossible(&self) -> ContainerSpec {
        image("impossible")
    }
    async fn reopen(&self) -> Option<Arc<dyn Executor>> {
        Some(Arc::new(self.1.clone()))
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let node = IdSource::seeded(1).next();
    let executor = MemoryExecutor::new(node, script);
    suite(&executor, &Scripts(node, executor.clone())).await;
}

#[tokio::test]
async fn a_phase_may_fail_a_few_times() {
    let busy = ExecError::temporary("busy");
    let executor = MemoryExecutor::new(NodeId::NIL, move |_| Behaviour {
        prepare: Phase::FailsTimes(2, busy.clone()),
        ..Default::default()
    });
    let task = swarm_core::model::Task { id: IdSource::seeded(1).next(), ..Default::default() };
    let assignment = Assignment {
        task: Arc::new(task),
        node: NodeId::NIL,
        secrets: Vec::new(),
        configs: Vec::new(),
        attachments: Vec::new(),
    };
    for expected in [false, false, true, true] {
        assert_eq!(executor.prepare(&assignment).await.is_ok(), expected);
    }
}

/// Ways to break the contract.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    AnotherSandbox,
    EmptyInventory,
    AlwaysSucceeds,
    IgnoresHealth,
    ForgetsReason,
    RefusesUnknown,
    NeverKills,
    KeepsRemoved,
    IgnoresTail,
    IgnoresSource,
    TakesTheImpossible,
}

const FAULTS: [Fault; 11] = [
    Fault::AnotherSandbox,
    Fault::EmptyInventory,
    Fault::AlwaysSucceeds,
    Fault::IgnoresHealth,
    Fault::ForgetsReason,
    Fault::RefusesUnknown,
    Fault::NeverKills,
    Fault::KeepsRemoved,
    Fault::IgnoresTail,
    Fault::IgnoresSource,
    Fault::TakesTheImpossible,
];

/// A memory executor with one fault.
struct Broken(MemoryExecutor, Fault);

#[async_trait]
impl Executor for Broken {
    async fn describe(&self) -> Result<NodeDescription, ExecError> {
        self.0.describe().await
    }
    async fn inventory(&self) -> Result<Vec<Observed>, ExecError> {
        match self.1 {
            Fault::EmptyInventory => Ok(Vec::new()),
            _ => self.0.inventory().await,
        }
    }
    async fn prepare(&self, assignment: &Assignment) -> Result<Sandbox, ExecError> {
        let prepared = self.0.prepare(assignment).await;
        match self.1 {
            Fault::AnotherSandbox => {
                let random = IdSource::random().next::<swarm_core::model::Task>();
                Ok(Sandbox { id: random.to_string(), netns: None })
            }
            Fault::TakesTheImpossible => {
                Ok(Sandbox { id: assignment.task.id.to_string(), netns: None })
            }
            _ => prepared,
        }
    }
    async fn start(&self, task: TaskId) -> Result<Started, ExecError> {
        match self.1 {
            Fault::IgnoresHealth => self.0.begin(task),
            _ => self.0.start(task).await,
        }
    }
    async fn wait(&self, task: TaskId) -> Result<Exit, ExecError> {
        let exit = self.0.wait(task).await?;
        Ok(match self.1 {
            Fault::AlwaysSucceeds => Exit::default(),
            Fault::ForgetsReason => Exit { error: None, ..exit },
            _ => exit,
        })
    }
    async fn stop(&self, task: TaskId, grace: Duration) -> Result<(), ExecError> {
        match self.1 {
            Fault::RefusesUnknown => self.0.life(task).map(|_| ())?,
            // The process would be stopped by the signal alone, were it willing.
            Fault::NeverKills if grace < Duration::from_secs(1) => {
                self.0.kill(task, Exit { code: 143, error: None });
            }
            _ => {}
        }
        self.0.stop(task, grace).await
    }
    async fn remove(&self, task: TaskId) -> Result<(), ExecError> {
        match self.1 {
            Fault::KeepsRemoved => self.0.stop(task, Duration::ZERO).await,
            _ => self.0.remove(task).await,
        }
    }
    async fn logs(&self, task: TaskId, options: LogOptions) -> Result<LogStream, ExecError> {
        let options = match self.1 {
            Fault::IgnoresTail => LogOptions { tail: None, ..options },
            Fault::IgnoresSource => LogOptions { stdout: true, stderr: true, ..options },
            _ => options,
        };
        self.0.logs(task, options).await
    }
}

#[tokio::test]
async fn the_suite_finds_every_fault() {
    for fault in FAULTS {
        let node = IdSource::seeded(1).next();
        let executor = MemoryExecutor::new(node, script);
        let broken = Broken(executor.clone(), fault);
        let checked =
            tokio::spawn(async move { suite(&broken, &Scripts(node, executor)).await }).await;
        assert!(checked.is_err_and(|error| error.is_panic()), "{fault:?} was not found");
    }
}
