//! The flags that the `manager` and `worker` examples share.

pub(crate) mod executor;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use executor::Executor;
use swarm::core::model::parse_generic_resources;
use swarm::http::{InitRequest, JoinRequest, ListenSpec, LocalNode as _, LocalState, TlsFiles};
use swarm::node::{Node, NodeConfig, Parts};
use swarm::sched::orchestrate::Rebalance;
use swarm::sched::place::StrategyScheduler;
use tokio_util::sync::CancellationToken;

/// What a node is told on the command line. Without --init and --join it waits, and `docker swarm
/// init` or `docker swarm join` on its API makes it a manager or a worker.
#[derive(Parser)]
pub(crate) struct Flags {
    /// Where the node keeps what it must remember
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// The name to show; the machine's by default
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Where a manager listens for the other nodes
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// What the other nodes use: an address or an interface, with an optional port
    #[arg(long, value_name = "ADDR")]
    advertise: Option<String>,
    /// Where the Docker API is served: unix:///PATH, or tcp://ADDR:PORT with TLS; repeatable
    #[arg(long, value_name = "URL")]
    api: Vec<ListenSpec>,
    /// CA, certificate and key (PEM files) for tcp:// listeners, whose clients must have a
    /// certificate of the same CA
    #[arg(long, value_name = "CA,CERT,KEY", value_delimiter = ',', num_args = 3)]
    api_tls: Vec<PathBuf>,
    /// Serve tcp:// on loopback without TLS: whoever reaches the port is root on this machine
    #[arg(long)]
    api_insecure_loopback: bool,
    /// What runs the tasks
    #[arg(long, value_enum, default_value = "auto")]
    executor: Executor,
    /// The Docker Engine to use
    #[arg(long, value_name = "URL", default_value = "unix:///var/run/docker.sock")]
    docker_host: String,
    /// A label for engine.labels.K constraints; repeatable
    #[arg(long, value_name = "K=V")]
    label: Vec<String>,
    /// What services can reserve: KIND=NUMBER, or KIND=NAME for each; repeatable
    #[arg(long, value_name = "KIND=VALUE")]
    generic_resource: Vec<String>,
    /// Move running tasks to where there is less to do: so many at once, then none for so many
    /// seconds (see docs/scheduling.md); never by default
    #[arg(long, value_name = "MOVES/SECONDS", value_parser = moves)]
    rebalance: Option<(usize, Duration)>,
    /// Become the first manager of a new swarm
    #[arg(long, conflicts_with = "join")]
    init: bool,
    /// Become the only manager of the swarm in this backup, which begins anew with it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["init", "join"])]
    restore: Option<PathBuf>,
    /// The file with the unlock key that the swarm had when the backup was taken, if it had one
    #[arg(long, value_name = "FILE", requires = "restore")]
    unlock_key_file: Option<PathBuf>,
    /// Join the swarm of this manager
    #[arg(long, value_name = "ADDR:PORT", requires = "token")]
    join: Option<String>,
    /// The token of `docker swarm join-token`
    #[arg(long, value_name = "TOKEN", requires = "join")]
    token: Option<String>,
}

impl Flags {
    /// The node that the flags describe; `parts` are what an embedder would replace.
    pub(crate) fn config(&self) -> NodeConfig {
        let label = |label: &String| match label.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (label.clone(), String::new()),
        };
        let mut parts = Parts::default();
        if let Some((moves, interval)) = self.rebalance {
            let scheduler = Arc::new(StrategyScheduler::default());
            parts.planners.push(Arc::new(Rebalance::new(scheduler.clone(), moves, interval)));
            parts.scheduler = Some(scheduler);
        }
        NodeConfig {
            parts,
            hostname: self.hostname.clone(),
            listen: self.listen,
            advertise: self.advertise.clone(),
            labels: self.label.iter().map(label).collect(),
            ..NodeConfig::new(&self.state_dir, self.executor.runtime(&self.docker_host))
        }
    }

    /// Runs a node until Ctrl-C or SIGTERM. Its tasks keep running.
    pub(crate) async fn run(
        self,
        mut config: NodeConfig,
    ) -> Result<(), Box<dyn std::error::Error>> {
        config.resources.extend(parse_generic_resources(&self.generic_resource)?);
        let node = Node::start(config).await?;
        let stop = CancellationToken::new();
        let tls = match self.api_tls.as_slice() {
            [ca, cert, key] => {
                Some(TlsFiles { ca: ca.clone(), cert: cert.clone(), key: key.clone() })
            }
            _ => None,
        };
        let listeners =
            swarm::http::bind(&self.api, tls.as_ref(), self.api_insecure_loopback).await?;
        let api = tokio::spawn(swarm::http::serve(listeners, node.clone(), stop.clone()));
        if node.status().state == LocalState::Inactive {
            self.become_member(&node).await?;
        }
        swarm::node::terminated().await;
        stop.cancel();
        api.await?;
        node.stop().await;
        Ok(())
    }

    async fn become_member(&self, node: &Node) -> Result<(), Box<dyn std::error::Error>> {
        if self.init {
            node.init(InitRequest::default()).await?;
        } else if let Some(backup) = &self.restore {
            let key = self.unlock_key_file.as_ref().map(std::fs::read_to_string).transpose()?;
            let key = key.map(|text| text.trim().parse()).transpose()?;
            node.restore(backup, key.as_ref()).await?;
        } else if let (Some(manager), Some(token)) = (&self.join, &self.token) {
            let (remote_addrs, join_token) = (vec![manager.clone()], token.clone());
            node.join(JoinRequest { remote_addrs, join_token, ..Default::default() }).await?;
        }
        Ok(())
    }
}

fn moves(text: &str) -> Result<(usize, Duration), String> {
    let wrong = || format!("{text:?} is not MOVES/SECONDS, such as 2/60");
    let (moves, seconds) = text.split_once('/').ok_or_else(wrong)?;
    let seconds = seconds.parse().ok().filter(|seconds| *seconds > 0).ok_or_else(wrong)?;
    Ok((moves.parse().map_err(|_| wrong())?, Duration::from_secs(seconds)))
}

/// How the process ends: what went wrong is said in words, on standard error.
pub(crate) fn report(result: Result<(), Box<dyn std::error::Error>>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
