//! One manager and three workers in this process, a stack deployed onto them, a live table of its
//! tasks, and on Ctrl-C everything gone again.
//!
//! ```text
//! cargo run --release --example quickstart              # until Ctrl-C
//! cargo run --release --example quickstart -- --check   # verify everything and exit
//! ```

#[path = "../flags/executor.rs"]
mod executor;
mod table;
mod web;

use std::io::Write as _;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use swarm::compose::{Environment, Stack};
use swarm::core::model::NodeState;
use swarm::core::store::Snapshot;
use swarm::http::{InitRequest, JoinRequest, LocalNode as _};
use swarm::manager::control::Control;
use swarm::node::{Node, NodeConfig, Runtime};
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const STACK: &str = include_str!("stack.yml");
const HOSTS: [&str; 4] = ["manager", "worker-1", "worker-2", "worker-3"];
/// How long a machine may take to run a handful of small tasks.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Flags {
    /// Verify everything, take it down, and exit with 0 if all was well
    #[arg(long)]
    check: bool,
    /// What runs the tasks
    #[arg(long, value_enum, default_value = "auto")]
    executor: executor::Executor,
    /// The Docker Engine to use
    #[arg(long, value_name = "URL", default_value = "unix:///var/run/docker.sock")]
    docker_host: String,
    /// Serve the stack's web page (how the process executor runs the web service)
    #[arg(long, hide = true)]
    web: bool,
}

fn main() -> Result<()> {
    let flags = Flags::parse();
    if flags.web {
        return Ok(web::serve()?);
    }
    executor::log("error");
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(flags))
}

async fn run(flags: Flags) -> Result<()> {
    let runtime = flags.executor.runtime(&flags.docker_host);
    let dir = tempfile::Builder::new().prefix("swarm-quickstart.").tempdir()?;
    let swarm = Swarm::start(dir.path(), runtime).await?;
    let result = tokio::select! {
        result = swarm.show(flags.check) => result,
        () = swarm::node::terminated() => Ok(()),
    };
    println!("\ntaking everything down …");
    swarm.stop().await?;
    result?;
    println!("{}", if flags.check { "check passed" } else { "all gone" });
    Ok(())
}

/// The whole cluster.
struct Swarm {
    nodes: Vec<Arc<Node>>,
    control: Arc<Control>,
    socket: PathBuf,
    docker: bool,
    api: CancellationToken,
}

impl Swarm {
    /// Starts the manager and lets the workers join it.
    async fn start(dir: &Path, runtime: Arc<dyn Runtime>) -> Result<Self> {
        let description = runtime.describe().await?;
        let docker = description.engine.plugins.iter().any(|plugin| plugin.kind == "Network");
        println!("starting one manager and three workers on {} …", runtime.name());
        let port = free_port()?;
        let mut nodes = Vec::new();
        for (index, host) in HOSTS.iter().enumerate() {
            let address = address(index);
            let mut config = NodeConfig::new(dir.join(host), runtime.clone());
            config.hostname = Some((*host).to_owned());
            config.listen = Some((address, port).into());
            config.advertise = Some(address.to_string());
            nodes.push(Node::start(config).await?);
        }
        let manager = &nodes[0];
        manager.init(InitRequest::default()).await?;
        let control = manager.control().ok_or("the first node is not a manager")?;
        let socket = dir.join("docker.sock");
        let api = CancellationToken::new();
        let listen = format!("unix://{}", socket.display()).parse()?;
        let listeners = swarm::http::bind(&[listen], None, false).await?;
        tokio::spawn(swarm::http::serve(listeners, manager.clone(), api.clone()));
        let cluster = control.store.snapshot().cluster().cloned().ok_or("no cluster object")?;
        for worker in &nodes[1..] {
            let (remote, token) = (format!("{}:{port}", address(0)), &cluster.join_tokens.worker);
            let request = JoinRequest {
                remote_addrs: vec![remote],
                join_token: token.clone(),
                ..Default::default()
            };
            worker.join(request).await?;
        }
        Ok(Self { nodes, control, socket, docker, api })
    }

    /// Deploys the stack and shows how it comes up; with `check`, verifies it and returns.
    async fn show(&self, check: bool) -> Result<()> {
        self.wait_for("all four nodes are ready", |view| {
            view.nodes.iter().filter(|node| node.status.state == NodeState::Ready).count()
                == HOSTS.len()
        })
        .await?;
        let web_port = free_port()?;
        let command = if self.docker {
            r#"["sh", "-c", "while :; do printf 'HTTP/1.1 200 OK\r\n\r\n%s\n' \"$$GREETING\" | nc -l -p 8000 >/dev/null; done"]"#.to_owned()
        } else {
            format!("[{:?}, \"--web\"]", std::env::current_exe()?)
        };
        let text = STACK.replace("${WEB_COMMAND}", &command);
        let variables = Environment::from([("WEB_PORT".to_owned(), web_port.to_string())]);
        let stack = Stack::parse(&[("stack.yml".into(), text)], "/", variables, "quickstart")?;
        println!("deploying the stack:");
        self.control.deploy(&stack.plan()?).await?;
        self.wait_for("every task runs", |view| table::is_complete(view, HOSTS.len())).await?;
        print!("\n{}", table::tasks(&self.control.store.snapshot()));
        for index in 0..HOSTS.len() {
            let greeting = self.page(address(index), web_port).await?;
            println!("http://{}:{web_port} says: {}", address(index), greeting.trim());
        }
        if check {
            return Ok(());
        }
        println!("\nNow try, in another terminal:\n");
        println!("  export DOCKER_HOST=unix://{}", self.socket.display());
        println!("  docker node ls");
        println!("  docker service scale quickstart_web=6\n");
        println!("Ctrl-C takes everything down.\n");
        self.live_table().await
    }

    /// Shows progress until the state is as wanted.
    async fn wait_for(&self, what: &str, done: impl Fn(&Snapshot) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut shown = String::new();
        let mut watch = self.control.store.watch(self.control.store.snapshot().version());
        loop {
            let view = self.control.store.snapshot();
            let counts: Vec<String> = table::progress(&view)
                .iter()
                .map(|(name, running, wanted)| format!("{name} {running}/{wanted}"))
                .collect();
            let line = counts.join("  ");
            if line != shown {
                println!("  {line}");
                shown = line;
            }
            if done(&view) {
                println!("  {what}");
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("not in {PATIENCE:?}: {what}\n{}", table::tasks(&view)).into());
            }
            if let Ok(Err(_)) = tokio::time::timeout(left, watch.next()).await {
                watch = self.control.store.watch(self.control.store.snapshot().version());
            }
        }
    }

    /// The web page through the ingress of one node. The tasks are running, but the node's proxy
    /// may learn of the last one a moment later.
    async fn page(&self, host: IpAddr, port: u16) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let attempt = tokio::time::timeout(Duration::from_secs(2), get(host, port)).await;
            match attempt {
                Ok(Ok(page)) if page.contains("hello") => return Ok(page),
                other if Instant::now() > deadline => {
                    return Err(format!("http://{host}:{port} does not answer: {other:?}").into());
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Redraws the table whenever something changes.
    async fn live_table(&self) -> Result<()> {
        let mut lines = 0;
        let mut watch = self.control.store.watch(self.control.store.snapshot().version());
        loop {
            let text = table::tasks(&self.control.store.snapshot());
            if lines > 0 {
                print!("\x1b[{lines}A\x1b[J");
            }
            lines = text.lines().count();
            print!("{text}");
            std::io::stdout().flush()?;
            if watch.next().await.is_err() {
                watch = self.control.store.watch(self.control.store.snapshot().version());
            }
        }
    }

    /// Removes the stack, then the nodes, and makes sure that nothing is left.
    async fn stop(self) -> Result<()> {
        let names: Vec<String> =
            self.control.store.snapshot().services.iter().map(|s| s.spec.name.clone()).collect();
        for name in names {
            self.control.remove_service(&name).await?;
        }
        self.wait_for("no task is left", |view| view.tasks.is_empty() && view.services.is_empty())
            .await?;
        self.api.cancel();
        for node in self.nodes.iter().rev() {
            node.leave(true).await?;
        }
        Ok(())
    }
}

async fn get(host: IpAddr, port: u16) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect((host, port)).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: quickstart\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

/// Each node has an address of its own on the loopback interface.
fn address(index: usize) -> IpAddr {
    IpAddr::from([127, 0, 0, u8::try_from(index + 1).unwrap_or(u8::MAX)])
}

/// A port that is free on every node's address.
fn free_port() -> Result<u16> {
    for _ in 0..50 {
        let port = TcpListener::bind((address(0), 0))?.local_addr()?.port();
        if (1..HOSTS.len()).all(|index| TcpListener::bind((address(index), port)).is_ok()) {
            return Ok(port);
        }
    }
    Err("no port is free on 127.0.0.1 to 127.0.0.4".into())
}
