//! The choice of what runs tasks, and where log lines go.

use std::sync::Arc;

use clap::ValueEnum;
use swarm::node::{AutoRuntime, DockerRuntime, ProcessRuntime, Runtime};

/// What runs tasks.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Executor {
    /// Docker if its socket answers, else processes
    Auto,
    /// Containers of a Docker Engine
    Docker,
    /// Plain processes
    Process,
}

impl Executor {
    /// The runtime of that name.
    pub(crate) fn runtime(self, docker_host: &str) -> Arc<dyn Runtime> {
        match self {
            Self::Auto => Arc::new(AutoRuntime::new(docker_host)),
            Self::Docker => Arc::new(DockerRuntime::new(docker_host)),
            Self::Process => Arc::new(ProcessRuntime),
        }
    }
}

/// Log lines on standard error: by `RUST_LOG`, else by this filter.
pub(crate) fn log(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| default.into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
