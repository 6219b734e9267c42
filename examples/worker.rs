//! A node that joins a swarm and runs tasks. An embedder brings an executor of its own by
//! implementing `swarm::node::Runtime`: `config.runtime = Arc::new(MyRuntime)`.

mod flags;

use clap::Parser as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    flags::executor::log("warn,openraft=error,swarm=info,swarm_raft=info,swarm_runtime=info");
    let flags = flags::Flags::parse();
    let config = flags.config();
    flags::report(flags.run(config).await)
}
