//! Describes the machine that processes run on.

use std::fs;

use swarm_core::executor::ExecError;
use swarm_core::model::{EngineDescription, NodeDescription, NodeId, Platform, Resources};

/// What this machine is and has. It reports no plugins: schedulers take such a node for one
/// without a Docker Engine and do not look for any.
pub fn describe(node: NodeId) -> Result<NodeDescription, ExecError> {
    let read = |path: &str| {
        fs::read_to_string(path)
            .map_err(|error| ExecError::temporary(format!("reading {path}: {error}")))
    };
    let memory = read("/proc/meminfo")?;
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<i64>().ok());
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    Ok(NodeDescription {
        hostname: read("/proc/sys/kernel/hostname")?.trim().to_owned(),
        platform: Platform {
            os: std::env::consts::OS.to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            ..Default::default()
        },
        resources: Resources {
            nano_cpus: i64::try_from(cores).unwrap_or(1) * 1_000_000_000,
            memory_bytes: kib.unwrap_or(0) * 1024,
            ..Default::default()
        },
        engine: EngineDescription {
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            engine_id: format!("process-{node}"),
            ..Default::default()
        },
        ..Default::default()
    })
}
