//! A process that is killed without warning, again and again; what it reported is there.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::store::Store as _;

use super::{config, create, leads, names, open};
use crate::RaftConfig;

const DIR: &str = "SWARM_RAFT_KILLED_IN";
const ROUND: &str = "SWARM_RAFT_KILLED_ROUND";
const ROUNDS: u64 = 20;

fn settings(dir: &Path) -> RaftConfig {
    let mut settings = config(dir);
    settings.snapshot_entries = 40;
    settings.keep_entries = 5;
    settings.segment_bytes = 16 << 10;
    settings
}

/// Not a test of its own: the process that is killed. Reports each write once it is acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let store = open(settings(Path::new(&dir))).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut ids = IdSource::seeded(1000 * round + writer);
            for number in 0.. {
                let name = format!("r{round}-w{writer}-{number}");
                store.commit(create(&mut ids, &name)).await.unwrap();
                std::io::stdout().lock().write_all(format!("acked {name}\n").as_bytes()).unwrap();
            }
        });
    }
    writers.join_next().await;
}

/// Starts the victim, kills it after a while, and returns what it reported.
fn kill_one(dir: &Path, round: u64, after: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["tests::kill::victim", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let name = |line: String| line.split_once("acked ").map(|(_, name)| name.to_owned());
    let mut reported: Vec<String> = lines.by_ref().find_map(name).into_iter().collect();
    assert!(!reported.is_empty(), "round {round}: the process must come to write");
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    // A line that the kill cut in two is not a report: it has no end.
    let mut rest: Vec<String> = lines.filter_map(name).collect();
    rest.pop();
    reported.extend(rest);
    reported
}

#[tokio::test]
async fn what_a_killed_process_reported_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut chance = IdSource::seeded(42);
    let mut reported = BTreeSet::new();
    for round in 0..ROUNDS {
        let after = Duration::from_millis(chance.below(120));
        let path = dir.path().to_owned();
        let killed = tokio::task::spawn_blocking(move || kill_one(&path, round, after));
        reported.extend(killed.await.unwrap());
        // Not after every round, so that some starts follow several kills.
        if round % 4 == 3 {
            let store = open(settings(dir.path())).await;
            leads(&store).await;
            let found: BTreeSet<String> = names(&store).into_iter().collect();
            let lost: Vec<_> = reported.difference(&found).collect();
            assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
            store.shutdown().await;
        }
    }
    println!("{} acknowledged writes survived {ROUNDS} kills", reported.len());
}
