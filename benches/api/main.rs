//! The whole system, from the Docker API's socket to running tasks, beside what Docker Engine
//! 20.10 needs for the same on such a machine (two cores).
//!
//! Real nodes on a log on disk (`SWARM_BENCH_DIR` chooses the disk), HTTP over a Unix socket,
//! mutual TLS between manager and workers:
//!
//! ```text
//! cargo build --release --example manager --example worker     # for the rows about memory
//! cargo bench --bench api                                      # or: -- --quick
//! ```

mod client;
mod cluster;
mod processes;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, service};
use cluster::Cluster;
use processes::Process;
use swarm::node::{MemoryRuntime, ProcessRuntime, Runtime};

/// How much is measured.
struct Sizes {
    /// Services that one client creates, and how many there are once eight clients are done.
    services: [usize; 2],
    lists: usize,
    tasks: usize,
    deploys: usize,
    idle: Duration,
}

const FULL: Sizes = Sizes {
    services: [500, 5_000],
    lists: 20,
    tasks: 100,
    deploys: 5,
    idle: Duration::from_secs(20),
};
const QUICK: Sizes =
    Sizes { services: [20, 100], lists: 3, tasks: 10, deploys: 1, idle: Duration::from_secs(1) };

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let sizes = if quick { QUICK } else { FULL };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(run(&sizes));
}

async fn run(sizes: &Sizes) {
    let base = std::env::var_os("SWARM_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(base).expect("the directory can be written");
    let place = |name: &str| {
        let place = dir.path().join(name);
        std::fs::create_dir(&place).expect("the directory can be written");
        place
    };
    row("work", "measured", "Docker 20.10", "aim");
    let memory: Arc<dyn Runtime> = Arc::new(MemoryRuntime::new(|_| Default::default()));
    let cluster = Cluster::start(&place("api"), memory.clone(), 0).await;
    api(&cluster, sizes).await;
    cluster.stop().await;
    for (name, runtime) in [("memory", memory), ("processes", Arc::new(ProcessRuntime))] {
        let cluster = Cluster::start(&place(name), runtime, 2).await;
        deploys(&cluster, name, sizes).await;
        cluster.stop().await;
    }
    match processes::examples() {
        Some(examples) => idle(&examples, &place("idle"), sizes).await,
        None => println!("idle nodes: not measured: build the examples first (same profile)"),
    }
}

/// Services created by one client, then by eight; and all of them listed after each.
async fn api(cluster: &Cluster, sizes: &Sizes) {
    let docker = ["580-990 /s, p50 1.0", "950-1,070 /s, p50 7, p99 19-24"];
    let lists = ["6 ms", "234 ms"];
    let mut there = 0;
    for (at, clients) in [1, 8].into_iter().enumerate() {
        let each = (sizes.services[at] - there) / clients;
        let started = Instant::now();
        let mut running = tokio::task::JoinSet::new();
        for client in 0..clients {
            running.spawn(create(cluster.socket.clone(), there + client * each, each));
        }
        let latencies: Vec<Duration> = running.join_all().await.concat();
        #[allow(clippy::cast_precision_loss)]
        let rate = latencies.len() as f64 / started.elapsed().as_secs_f64();
        let latencies = sorted(latencies);
        there += latencies.len();
        let (p50, p99) = (millis(percentile(&latencies, 50)), millis(percentile(&latencies, 99)));
        let ours = format!("{rate:.0} /s, p50 {p50}, p99 {p99}");
        let work = format!("POST /services/create, {clients} client(s)");
        row(&work, &ours, docker[at], "faster");

        let (median, bytes) = list(cluster, there, sizes.lists).await;
        let work = format!("GET /services, {there} services, {} KiB", bytes / 1024);
        row(&work, &millis(median), lists[at], ["6 ms", "50 ms"][at]);
    }
}

async fn create(socket: PathBuf, first: usize, count: usize) -> Vec<Duration> {
    let mut client = Client::connect(&socket).await.expect("the API listens");
    let mut latencies = Vec::with_capacity(count);
    for number in first..first + count {
        let spec = service(&format!("service{number}"), 0);
        let started = Instant::now();
        client.create(&spec).await;
        latencies.push(started.elapsed());
    }
    latencies
}

async fn list(cluster: &Cluster, services: usize, times: usize) -> (Duration, usize) {
    let mut client = Client::connect(&cluster.socket).await.expect("the API listens");
    let (mut latencies, mut bytes) = (Vec::new(), 0);
    for _ in 0..times {
        let started = Instant::now();
        let body = client.get("/v1.41/services").await;
        latencies.push(started.elapsed());
        bytes = body.len();
    }
    let body = client.get("/v1.41/services").await;
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(listed.len(), services, "every service is listed");
    (percentile(&sorted(latencies), 50), bytes)
}

async fn deploys(cluster: &Cluster, executor: &str, sizes: &Sizes) {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..sizes.deploys {
        let measured = cluster.deploy(sizes.tasks).await;
        times.iter_mut().zip(measured).for_each(|(times, time)| times.push(time));
    }
    let [assigned, running] = times.map(sorted);
    let range = |times: &[Duration]| {
        let ends = (millis(times[0]), millis(times[times.len() - 1]));
        format!("{} ({} to {})", millis(percentile(times, 50)), ends.0, ends.1)
    };
    let tasks = sizes.tasks;
    row(&format!("{tasks} tasks assigned, {executor}"), &range(&assigned), "73-124 ms", "20 ms");
    let docker = if executor == "memory" { "" } else { "12 s (containers)" };
    row(&format!("{tasks} tasks running, {executor}"), &range(&running), docker, "");
}

/// A manager and a worker that do nothing, each in a process of its own; then the manager with
/// services.
async fn idle(examples: &Path, dir: &Path, sizes: &Sizes) {
    let listen = ["--init", "--advertise", "127.0.0.1", "--listen", "127.0.0.1:0"];
    let manager = Process::start(&examples.join("manager"), dir, "manager", &listen);
    let mut client = processes::until_active(&dir.join("manager.sock")).await;
    let json = async |client: &mut Client, path| -> serde_json::Value {
        serde_json::from_slice(&client.get(path).await).expect("JSON")
    };
    let swarm = json(&mut client, "/v1.41/swarm").await;
    let info = json(&mut client, "/v1.41/info").await;
    let token = swarm["JoinTokens"]["Worker"].as_str().expect("a token");
    let addr = info["Swarm"]["RemoteManagers"][0]["Addr"].as_str().expect("an address");
    let join = ["--advertise", "127.0.0.1", "--join", addr, "--token", token];
    let worker = Process::start(&examples.join("worker"), dir, "worker", &join);
    processes::until_active(&dir.join("worker.sock")).await;
    tokio::time::sleep(sizes.idle / 4).await;

    let before = [manager.cpu_seconds(), worker.cpu_seconds()];
    tokio::time::sleep(sizes.idle).await;
    let share = |now: f64, before: f64| {
        format!("{:.2} % of a core", 100.0 * (now - before) / sizes.idle.as_secs_f64())
    };
    row("idle manager, memory", &mega(manager.memory()), "86 MB", "40 MB");
    row("idle worker, memory", &mega(worker.memory()), "", "40 MB");
    let docker = "0.15-0.3 %";
    row("idle manager, processor", &share(manager.cpu_seconds(), before[0]), docker, "");
    row("idle worker, processor", &share(worker.cpu_seconds(), before[1]), docker, "");
    let mut there = 0;
    for (count, docker) in sizes.services.into_iter().zip(["98 MB", "126 MB"]) {
        for number in there..count {
            client.create(&service(&format!("service{number}"), 0)).await;
        }
        there = count;
        row(&format!("manager with {count} services, memory"), &mega(manager.memory()), docker, "");
    }
}

fn row(work: &str, ours: &str, docker: &str, aim: &str) {
    println!("{work:42} {ours:42} {docker:32} {aim}");
}

fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort_unstable();
    times
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn mega(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let mega = bytes as f64 / 1e6;
    format!("{mega:.1} MB")
}
