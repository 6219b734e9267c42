//! Managers and workers as real processes that are killed, paused, cut off and filled up at random
//! from a seed, under clients that talk to all managers at once: what they were told is a history that
//! one register could have made, nothing acknowledged is lost, and once the faults are over the cluster
//! is as it shall be. See `docs/chaos.md`.
//!
//! `SWARM_CHAOS_SECONDS` is how long faults come, `SWARM_CHAOS_SEED` which ones,
//! `SWARM_CHAOS_MANAGERS` how many managers there are (three or five).

// Modules of a test are seen by nobody else.
#![allow(unreachable_pub)]

#[path = "chaos/clients.rs"]
mod clients;
#[path = "chaos/cluster.rs"]
mod cluster;
#[path = "chaos/faults.rs"]
mod faults;
#[path = "chaos/history.rs"]
mod history;
#[path = "support/machine.rs"]
mod machine;
#[path = "chaos/net.rs"]
mod net;
#[path = "chaos/rest.rs"]
mod rest;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clients::{Clients, Fate};
use cluster::{Cluster, Dice};
use faults::Faults;
use history::{Did, Outcome, Violation};

/// After so long the faults stop for once, and everything is looked at.
const ROUND: Duration = Duration::from_secs(45);
/// How much of the history around a violation is shown.
const AROUND: Duration = Duration::from_secs(4);

fn set(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// What was done and found, over all rounds.
#[derive(Default)]
struct Totals {
    rounds: u64,
    ops: usize,
    counts: BTreeMap<&'static str, u64>,
    /// How long, and until when.
    longest_without_write: (Duration, Duration),
}

#[test]
fn what_was_acknowledged_under_faults_is_one_history_and_the_cluster_recovers() {
    let drawn = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let seed = set("SWARM_CHAOS_SEED").unwrap_or_else(drawn);
    let lasts = Duration::from_secs(set("SWARM_CHAOS_SECONDS").unwrap_or(30));
    let managers = set("SWARM_CHAOS_MANAGERS").unwrap_or(3).clamp(3, 5);
    println!("SWARM_CHAOS_SEED={seed} SWARM_CHAOS_MANAGERS={managers}");

    let mut cluster = Cluster::start(usize::try_from(managers).unwrap());
    let began = Instant::now();
    let clients = Clients::new(&cluster, began);
    let mut faults = Faults::new(Dice(seed), began);
    let mut firsts = vec![0; clients.registers.len()];
    let mut totals = Totals::default();
    println!("memory in MB: {:?}", cluster.memory());
    let end = began + lasts;
    while Instant::now() < end {
        let lasts = ROUND.min(end - Instant::now());
        clients.during(seed ^ totals.rounds, || faults.rage(&mut cluster, lasts));
        let broken = round(&cluster, &clients, &mut faults, &mut firsts, &mut totals);
        if !broken.is_empty() {
            fail(seed, &cluster, &clients, &faults, &broken);
        }
        forget(&clients);
    }
    println!(
        "{} rounds, {} operations on registers; answers: {:?}; faults: {:?}; at most {:.1?} \
         without an acknowledged write (until {:.1?}); memory in MB: {:?}",
        totals.rounds,
        totals.ops,
        totals.counts,
        faults.counts,
        totals.longest_without_write.0,
        totals.longest_without_write.1,
        cluster.memory()
    );
    for (failure, times) in &clients.told().failures {
        println!("{times:6} x {failure}");
    }
    let writes = totals.counts.get("writes").copied().unwrap_or(0);
    let faults: u64 = faults.counts.values().sum();
    if writes <= 10 || faults <= 3 {
        panic!("too little happened to say anything; logs: {}", cluster.keep_logs(seed).display());
    }
}

/// Looks at everything after a round, and says what is not as it has to be.
fn round(
    cluster: &Cluster,
    clients: &Clients,
    faults: &mut Faults,
    firsts: &mut [u64],
    totals: &mut Totals,
) -> Vec<Violation> {
    let at = clients.now();
    let plain = |text| Violation { at, register: None, text };
    let mut broken: Vec<_> = rest::check(cluster, clients).into_iter().map(plain).collect();
    let last = rest::last_reads(cluster, clients);
    // Without them nobody can say what became of the last writes.
    let whole = last.is_ok();
    match last {
        Ok(reads) => clients.told().ops.extend(reads),
        Err(why) => broken.push(plain(why)),
    }
    broken.append(&mut faults.broken);
    for host in &cluster.hosts {
        let log = std::fs::read(&host.log).unwrap_or_default();
        if let Some(line) = String::from_utf8_lossy(&log).lines().find(|l| l.contains("panicked")) {
            broken.push(plain(format!("{} panicked: {line}", host.name)));
        }
    }
    let mut told = clients.told();
    broken.append(&mut told.broken);
    for (register, first) in firsts.iter_mut().enumerate() {
        let ops: Vec<_> = told.ops.iter().filter(|op| op.register == register).copied().collect();
        if whole {
            broken.extend(history::check(*first, &ops));
        }
        if let Some(Did::Read { value, .. }) = ops.last().map(|op| op.did) {
            *first = value;
        }
    }
    let done = |did: &Did| matches!(did, Did::Wrote { outcome: Outcome::Done, .. });
    let mut written: Vec<_> = told.ops.iter().filter(|op| done(&op.did)).map(|op| op.end).collect();
    written.sort();
    let gaps = written.windows(2).map(|pair| (pair[1] - pair[0], pair[1]));
    let gap = gaps.max().unwrap_or_default();
    totals.longest_without_write = totals.longest_without_write.max(gap);
    totals.rounds += 1;
    totals.ops += told.ops.len();
    totals.counts.clone_from(&told.counts);
    println!(
        "{:7.0?} round {}: {} operations, {} acknowledged writes, {} faults so far",
        at,
        totals.rounds,
        told.ops.len(),
        written.len(),
        faults.counts.values().sum::<u64>()
    );
    broken
}

/// A round that went well is not needed any more; but what nobody knows the outcome of may still
/// happen.
fn forget(clients: &Clients) {
    let (now, mut told) = (clients.now(), clients.told());
    let unknown = |did: &Did| matches!(did, Did::Wrote { outcome: Outcome::Unknown, .. });
    told.ops.retain(|op| unknown(&op.did) && op.start + 3 * ROUND > now);
    told.objects.retain(|_, fate| *fate == Fate::Kept);
}

fn fail(
    seed: u64,
    cluster: &Cluster,
    clients: &Clients,
    faults: &Faults,
    broken: &[Violation],
) -> ! {
    println!("\nfaults:");
    for (at, text) in &faults.timeline {
        println!("{at:9.3?} {text}");
    }
    let told = clients.told();
    for violation in broken.iter().filter(|violation| violation.register.is_some()).take(3) {
        println!("\nhistory around {}:", violation.text);
        let near = |at: Duration| at + AROUND >= violation.at && at <= violation.at + AROUND;
        let ops = told.ops.iter().filter(|op| Some(op.register) == violation.register);
        let mut ops: Vec<_> = ops.filter(|op| near(op.start) || near(op.end)).collect();
        ops.sort_by_key(|op| op.start);
        ops.iter().for_each(|op| println!("  {op}"));
    }
    let texts: Vec<_> = broken.iter().map(|v| format!("{:9.3?} {}", v.at, v.text)).collect();
    panic!(
        "{} violations with SWARM_CHAOS_SEED={seed}:\n{}\nthe nodes' logs are in {}",
        broken.len(),
        texts.join("\n"),
        cluster.keep_logs(seed).display()
    )
}
