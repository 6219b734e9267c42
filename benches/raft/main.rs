//! The replicated log beside etcd: committed writes per second and their latency, bytes written,
//! processor time; then large states.
//!
//! Both run in processes of their own on the loopback interface, three of them for three members,
//! and sync every write. Ours are whole managers: mutual TLS between them, planners and agents
//! included; their clients call the leader's store in its process, as an embedder does. etcd's have
//! TLS between them too (`--peer-auto-tls`: encrypted, but nobody shows a certificate of an
//! authority), and clients that call the leader over gRPC without it, sixteen on a connection; what
//! the clients use is not counted there, and is with ours.
//!
//! ```text
//! apt-get install etcd-server etcd-client       # the rows beside ours; without them only ours
//! cargo bench -p swarm --bench raft             # or: -- --quick
//! cargo bench -p swarm --bench raft -- large    # 500 MB to a new manager; takes 4 GB of memory
//! ```

mod etcd;
mod load;
mod member;
mod process;
mod snapshot;

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use etcd::Etcd;
use load::Achieved;
use process::{Process, Used};

/// The size of a value in bytes.
const VALUE: usize = 256;
const CLIENTS: [usize; 3] = [1, 16, 256];

/// The value of a client's write with this number.
fn value(turn: usize) -> [u8; VALUE] {
    let mut value = [b'v'; VALUE];
    value[..8].copy_from_slice(&(turn as u64).to_le_bytes());
    value
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["member", dir] => runtime.block_on(member::run(Path::new(dir))),
        ["take", dir] => runtime.block_on(snapshot::take(Path::new(dir))),
        ["restore", dir] => runtime.block_on(snapshot::restore(Path::new(dir))),
        ["large", ..] => runtime.block_on(snapshot::catch_up(place().path())),
        _ => runtime.block_on(run(arguments.iter().any(|argument| argument == "--quick"))),
    }
}

/// A directory on the disk to measure.
fn place() -> tempfile::TempDir {
    let base = std::env::var_os("SWARM_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(base).expect("the directory can be written")
}

async fn run(quick: bool) {
    let dir = place();
    let length = Duration::from_millis(if quick { 500 } else { 5_000 });
    println!(
        "{:28} {:>7} {:>9} {:>9} {:>9} {:>12} {:>12}",
        "what", "clients", "writes/s", "p50 ms", "p99 ms", "bytes/write", "cpu us/write"
    );
    sync_alone(dir.path(), length);
    let etcd = etcd::version();
    for count in [1, 3] {
        let mut ours = group(&dir.path().join(format!("ours-{count}")), count);
        for clients in CLIENTS {
            let before = used(&ours);
            let answer = ours[0].ask(&format!("load {clients} {}", length.as_millis()));
            let achieved: Achieved = serde_json::from_str(&answer).expect("JSON");
            row(&format!("ours, {count}"), clients, &achieved, used(&ours).since(before));
        }
        drop(ours);
        let Some(version) = &etcd else {
            println!("etcd: not installed (Debian has etcd-server and etcd-client)");
            continue;
        };
        let etcd = Etcd::start(&dir.path().join(format!("etcd-{count}")), count).await;
        for clients in CLIENTS {
            let before = used(&etcd.members);
            let achieved = etcd.load(clients, length).await;
            row(
                &format!("{version}, {count}"),
                clients,
                &achieved,
                used(&etcd.members).since(before),
            );
        }
    }
    let tasks = dir.path().join("tasks");
    for step in ["take", "restore"] {
        let ended = this(&[step], &tasks, Command::status).expect("it can be started");
        assert!(ended.success(), "{step}: {ended}");
    }
}

fn used(members: &[Process]) -> Used {
    members.iter().map(Process::used).sum()
}

/// Managers in processes of their own; the first one leads.
fn group(dir: &Path, count: usize) -> Vec<Process> {
    let start = |number: usize| this(&["member"], &dir.join(number.to_string()), Process::talking);
    let mut members: Vec<Process> = (0..count).map(start).collect();
    let seat = members[0].ask("init");
    for member in &mut members[1..] {
        member.ask(&format!("join {seat}"));
    }
    members[0].ask(&format!("managers {count}"));
    members
}

/// This program again, in another process.
fn this<T>(words: &[&str], dir: &Path, start: impl FnOnce(&mut Command) -> T) -> T {
    let program = std::env::current_exe().expect("this program");
    start(Command::new(program).args(words).arg(dir))
}

/// Ports that nobody uses at the moment.
fn free_ports(count: usize) -> Vec<u16> {
    let bind = |_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listeners: Vec<_> = (0..count).map(bind).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("bound").port()).collect()
}

/// What the disk does by itself: a value appended and synced, again and again.
fn sync_alone(dir: &Path, length: Duration) {
    let file = std::fs::File::create(dir.join("sync")).expect("the directory can be written");
    let (started, mut latencies) = (Instant::now(), Vec::new());
    while started.elapsed() < length {
        let begun = Instant::now();
        let at = (latencies.len() * VALUE) as u64;
        file.write_all_at(&value(latencies.len()), at).expect("room");
        file.sync_data().expect("a sync");
        latencies.push(begun.elapsed());
    }
    row(
        "write and fdatasync alone",
        1,
        &load::measure(latencies, started.elapsed()),
        Used::default(),
    );
}

fn row(what: &str, clients: usize, achieved: &Achieved, used: Used) {
    #[allow(clippy::cast_precision_loss)]
    let (writes, written) = (achieved.writes as f64, used.written as f64);
    println!(
        "{what:28} {clients:>7} {:>9.0} {:>9.2} {:>9.2} {:>12.0} {:>12.1}",
        achieved.rate(),
        achieved.p50,
        achieved.p99,
        written / writes,
        used.cpu_seconds * 1e6 / writes,
    );
}
