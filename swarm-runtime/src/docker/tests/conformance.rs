//! The suite that every executor passes.

use std::sync::Arc;

use async_trait::async_trait;
use swarm_core::conformance::executor::{Fixture, ShellFixture, suite};
use swarm_core::executor::{Executor, LogSource};
use swarm_core::model::{ContainerSpec, NodeId};

use super::Node;
use crate::docker::{DockerConfig, DockerExecutor};

struct Busybox {
    shell: ShellFixture,
    config: DockerConfig,
}

impl Busybox {
    fn new(config: &DockerConfig) -> Self {
        let impossible =
            ContainerSpec { image: "no-such-image:1".into(), ..ContainerSpec::default() };
        let shell = ShellFixture { node: config.node, image: "busybox:latest".into(), impossible };
        Self { shell, config: config.clone() }
    }
}

#[async_trait]
impl Fixture for Busybox {
    fn node(&self) -> NodeId {
        self.shell.node
    }
    fn long_running(&self) -> ContainerSpec {
        self.shell.long_running()
    }
    fn exits(&self, code: i64) -> ContainerSpec {
        self.shell.exits(code)
    }
    fn prints(&self, lines: &[(LogSource, &str)]) -> ContainerSpec {
        self.shell.prints(lines)
    }
    fn ignores_term(&self) -> ContainerSpec {
        self.shell.ignores_term()
    }
    fn unhealthy(&self) -> ContainerSpec {
        self.shell.unhealthy()
    }
    fn turns_unhealthy(&self) -> ContainerSpec {
        self.shell.turns_unhealthy()
    }
    fn impossible(&self) -> ContainerSpec {
        self.shell.impossible()
    }
    fn prints_secret(&self, file: &str) -> Option<ContainerSpec> {
        self.shell.prints_secret(file)
    }
    async fn reopen(&self) -> Option<Arc<dyn Executor>> {
        let next = DockerExecutor::connect(self.config.clone()).await.expect("connected again");
        Some(Arc::new(next))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    let Some(node) = Node::open().await else { return };
    suite(&node.executor, &Busybox::new(&node.executor.config)).await;
}
