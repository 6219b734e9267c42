//! A node that is, or becomes, a manager: everything with its defaults. An embedder replaces
//! parts: `config.parts.scheduler = Some(Arc::new(MyScheduler))`, a planner, a secret store.

mod flags;

use clap::Parser as _;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    flags::executor::log("warn,openraft=error,swarm=info,swarm_raft=info,swarm_runtime=info");
    let flags = flags::Flags::parse();
    let config = flags.config();
    flags::report(flags.run(config).await)
}
