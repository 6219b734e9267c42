//! A thousand agents lose their leader: when all are in session with the next one, what that costs it, and
//! whether a node is taken for down or a task replaced. Three managers as processes; the agents live in
//! this one, each with a certificate, a TLS connection and tasks of its own.
//!
//! ```text
//! cargo build --release --example manager
//! cargo bench --bench agents                # 1,000 agents, the leader killed 3 times; or: -- 200 1
//! ```

#[path = "../tests/support/machine.rs"]
mod machine;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use machine::{Host, leader, start_managers, until};
use serde_json::{Value, json};
use swarm::core::model::Availability;
use swarm::core::protocol::{ManagerMessage, Settings, Trust};
use swarm::identity::Credentials;
use swarm::rpc::{ManagerLink, client};
use swarm::runtime::agent::Agent;
use swarm::runtime::agent::link::{Connection, Link, LinkError};
use swarm::runtime::memory::MemoryExecutor;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const NAMES: [&str; 3] = ["m1", "m2", "m3"];
/// Nodes that join at a time.
const JOINING: usize = 16;
/// How long the cluster is watched after the last agent is back: longer than a node may be silent.
const AFTERWARDS: Duration = Duration::from_secs(20);

fn main() {
    let mut counts = std::env::args().filter_map(|argument| argument.parse().ok());
    let (agents, times) = (counts.next().unwrap_or(1_000), counts.next().unwrap_or(3));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut managers = start(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let sessions = Arc::<Sessions>::default();
    let began = Instant::now();
    runtime.block_on(join(&managers, agents, &sessions));
    println!("{agents} agents joined in {:.1?}", began.elapsed());
    managers[0].create("services", &everywhere());
    let tasks = until("a task on each", || {
        let tasks = running(&managers[0])?;
        if tasks.len() == agents { Ok(tasks) } else { Err(format!("{} run", tasks.len())) }
    });
    for _ in 0..times {
        lose_leader(&mut managers, agents, &sessions);
        assert_eq!(running(&managers[0]).as_ref(), Ok(&tasks), "a task was replaced");
    }
    for manager in &managers {
        let log = std::fs::read_to_string(&manager.log).expect("it has a log");
        assert!(!log.contains("silent for too long"), "{} took a node for down", manager.name);
    }
    println!("no node was taken for down, and no task was replaced");
}

fn start(dir: &std::path::Path) -> Vec<Host> {
    let host = |name| {
        let mut host = Host::new(dir, "manager", name);
        host.env.push(("RUST_LOG", "warn,swarm=info".into()));
        host
    };
    start_managers(NAMES.map(host).into())
}

/// A task on each worker.
fn everywhere() -> Value {
    json!({
        "Name": "everywhere",
        "TaskTemplate": {
            "ContainerSpec": { "Image": "sleep" },
            "Placement": { "Constraints": ["node.role==worker"] },
        },
        "Mode": { "Global": {} },
    })
}

/// The tasks that run, by id, with their nodes.
fn running(manager: &Host) -> Result<BTreeMap<String, String>, String> {
    let tasks = manager.try_get("/tasks")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let runs = |task: &&Value| task["Status"]["State"] == "running";
    let tasks = tasks.as_array().into_iter().flatten().filter(runs);
    Ok(tasks.map(|task| (text(&task["ID"]), text(&task["NodeID"]))).collect())
}

/// When agents were welcomed.
#[derive(Default)]
struct Sessions(Mutex<BTreeMap<usize, Instant>>);

impl Sessions {
    fn welcomed(&self, agent: usize) {
        self.0.lock().expect("nobody panicked").insert(agent, Instant::now());
    }

    /// Those who were welcomed since then, and how long that took each, the first one first.
    fn since(&self, then: Instant) -> Vec<Duration> {
        let sessions = self.0.lock().expect("nobody panicked");
        let mut since: Vec<_> =
            sessions.values().filter_map(|at| at.checked_duration_since(then)).collect();
        since.sort();
        since
    }
}

/// Tells of each welcome.
struct Told {
    link: ManagerLink,
    agent: usize,
    sessions: Arc<Sessions>,
}

#[async_trait]
impl Link for Told {
    async fn connect(&self) -> Result<Connection, LinkError> {
        let Connection { sender, mut receiver } = self.link.connect().await?;
        let (to, through) = mpsc::channel(64);
        let (agent, sessions) = (self.agent, self.sessions.clone());
        tokio::spawn(async move {
            while let Some(message) = tokio::select! {
                message = receiver.recv() => message,
                () = to.closed() => None,
            } {
                if matches!(message, ManagerMessage::Welcome { .. }) {
                    sessions.welcomed(agent);
                }
                if to.send(message).await.is_err() {
                    return;
                }
            }
        });
        Ok(Connection { sender, receiver: through })
    }

    fn trust(&self, trust: &Trust) {
        self.link.trust(trust);
    }

    fn settings(&self, settings: &Settings) -> Result<(), LinkError> {
        self.link.settings(settings)
    }
}

async fn join(managers: &[Host], agents: usize, sessions: &Arc<Sessions>) {
    let token = managers[0].get("/swarm")["JoinTokens"]["Worker"].as_str().unwrap().to_owned();
    let remotes: Vec<_> = managers.iter().map(|host| format!("{}:2377", host.address)).collect();
    let places = Arc::new(tokio::sync::Semaphore::new(JOINING));
    let mut joining = tokio::task::JoinSet::new();
    for agent in 0..agents {
        let (places, remotes, token) = (places.clone(), remotes.clone(), token.clone());
        let sessions = sessions.clone();
        joining.spawn(async move {
            let _place = places.acquire().await.expect("it stays open");
            let joined = client::join(&remotes[0], &token, Availability::Active, "").await;
            let credentials = joined.map(Credentials::new).expect("it may join");
            let credentials = credentials.expect("it is a certificate");
            let node = credentials.identity().node;
            let link = Told { link: ManagerLink::new(credentials, remotes), agent, sessions };
            let executor = Arc::new(MemoryExecutor::steady(node));
            let running = Agent::builder(node, executor, Arc::new(link)).build();
            let running = running.expect("it has no journal");
            tokio::spawn(async move { running.run(CancellationToken::new()).await });
        });
    }
    joining.join_all().await;
}

fn lose_leader(managers: &mut [Host], agents: usize, sessions: &Sessions) {
    let lost = leader(managers);
    let before: Vec<Used> = managers.iter().map(Used::of).collect();
    let killed = Instant::now();
    managers[lost].kill();
    let back = until("all are back", || {
        let back = sessions.since(killed);
        if back.len() == agents { Ok(back) } else { Err(format!("{} are back", back.len())) }
    });
    let next = loop {
        // Any of those that are left says who leads.
        let nodes = managers[(lost + 1) % 3].get("/nodes");
        let leads = |node: &&Value| node["ManagerStatus"]["Leader"] == true;
        let name = nodes.as_array().into_iter().flatten().find(leads);
        let name = name.map(|node| node["Description"]["Hostname"].clone());
        if let Some(next) = managers.iter().position(|host| name == Some(host.name.into())) {
            break next;
        }
    };
    let used = Used::of(&managers[next]);
    let at = |share: usize| back[(back.len() * share / 100).min(back.len() - 1)];
    println!(
        "back after p50 {:.1?}, p99 {:.1?}, the last {:.1?}; at most {} within 100 ms",
        at(50),
        at(99),
        at(100),
        busiest(&back)
    );
    println!(
        "  the new leader: {:.2} s of processor time until then, {} MiB before, {} MiB after",
        used.seconds - before[next].seconds,
        before[next].resident >> 20,
        used.resident >> 20
    );
    std::thread::sleep(AFTERWARDS);
    let nodes = managers[next].get("/nodes");
    let ready = |node: &&Value| node["Status"]["State"] == "ready";
    let ready = nodes.as_array().unwrap().iter().filter(ready).count();
    assert!(ready >= agents + 2, "{ready} nodes are ready");
    managers[lost].start(&[]);
}

/// The most that came within a tenth of a second.
fn busiest(back: &[Duration]) -> usize {
    let within = |(at, first): (usize, &Duration)| {
        back[at..].partition_point(|other| *other < *first + Duration::from_millis(100))
    };
    back.iter().enumerate().map(within).max().unwrap_or_default()
}

/// What a process has used.
struct Used {
    /// Of processor time.
    seconds: f64,
    /// Bytes of memory now.
    resident: u64,
}

impl Used {
    fn of(host: &Host) -> Self {
        let pid = host.pid().as_raw_nonzero();
        let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it runs");
        let stat = read("stat");
        // The name may hold blanks; what follows its bracket does not.
        let fields: Vec<&str> = stat[stat.rfind(')').expect("a name")..].split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<u32>().expect("a number");
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.expect("memory").trim().trim_end_matches(" kB").parse::<u64>();
        // Linux reports to programs in hundredths of a second on every architecture of ours.
        let seconds = f64::from(ticks(12) + ticks(13)) / 100.0;
        Self { seconds, resident: kib.expect("a number") << 10 }
    }
}
