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
