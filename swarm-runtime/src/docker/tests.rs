//! Tests against a real engine: `scripts/with-dockerd.sh cargo test -p swarm-runtime docker`.

use std::sync::Arc;

use async_trait::async_trait;
use swarm_core::conformance::executor::{Fixture, ShellFixture, suite};
use swarm_core::executor::Executor;
use swarm_core::id::IdSource;
use swarm_core::model::{ContainerSpec, NodeId};

use super::{DockerConfig, DockerExecutor};

/// An executor on the engine of `SWARM_TEST_DOCKER`, or nothing, loudly.
async fn engine() -> Option<(tempfile::TempDir, DockerExecutor)> {
    let Ok(host) = std::env::var("SWARM_TEST_DOCKER") else {
        println!("skipped: SWARM_TEST_DOCKER is not set; run under scripts/with-dockerd.sh");
        return None;
    };
    let mut ids = IdSource::random();
    // On disk, so that a tmpfs for secrets has to be mounted.
    let dir = tempfile::tempdir().expect("a directory");
    let config = DockerConfig {
        prefer_offline_image: true,
        ..DockerConfig::new(host, ids.next(), ids.next(), dir.path())
    };
    Some((dir, DockerExecutor::connect(config).await.expect("the engine answers")))
}

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
    fn prints(&self, lines: &[(swarm_core::executor::LogSource, &str)]) -> ContainerSpec {
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
    let Some((_dir, executor)) = engine().await else { return };
    suite(&executor, &Busybox::new(&executor.config)).await;
}
