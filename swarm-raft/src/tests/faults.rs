//! openraft itself, the second tier of the simulation: three and five stores on simulated disks and
//! a simulated network. Messages are lost, late, repeated and cut one way or both; machines
//! lose their power and what they had not synced, and come back from their disks; leaders hand
//! over; new members take the places of old ones. Clients write and read all the time, at any member.
//!
//! What must hold: a write that was acknowledged is never lost, one that was refused for certain
//! never happens, reads behind a barrier are linearizable, no term has two leaders, and the logs
//! and states of all agree at the end.
//!
//! A seed decides the faults, the clients' steps and the fate of the messages in their order;
//! threads and the clock decide what they meet. So a seed is a scenario that can be played again,
//! not a run that repeats itself bit by bit. `SWARM_TEST_SEEDS=N` plays more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::store::{CommitError, Leadership, Store as _};
use tokio::task::JoinHandle;

use super::group::{peer, until};
use super::sim_disk::{Crash, SimDisk};
use super::sim_net::{Counts, SimNet};
use super::{config, create, leads, names};
use crate::{RaftConfig, RaftStore};

/// How long faults happen.
const STORMY: Duration = Duration::from_secs(10);
const CLIENTS: u64 = 6;
/// How long a client waits for an answer before it asks somebody else.
const IMPATIENCE: Duration = Duration::from_millis(300);
/// How long one attempt to change the members may take.
const CHANGE_WITHIN: Duration = Duration::from_secs(2);

fn settings(raft_id: u64, disk: &SimDisk) -> RaftConfig {
    let mut settings = config(&PathBuf::from("/sim"));
    settings.raft_id = raft_id;
    settings.disk = Arc::new(disk.clone());
    settings.heartbeat = Duration::from_millis(80);
    settings.election = Duration::from_millis(900);
    settings.snapshot_entries = 60;
    settings.keep_entries = 10;
    settings.segment_bytes = 16 << 10;
    settings.reserve_bytes = 16 << 10;
    settings
}

/// The members that are up, with their disks.
type Up = Arc<Mutex<BTreeMap<u64, (Arc<RaftStore>, SimDisk)>>>;

async fn start(raft_id: u64, disk: SimDisk, net: &SimNet, up: &Up) -> Arc<RaftStore> {
    let opened = RaftStore::open(settings(raft_id, &disk), net.link(raft_id)).await;
    let store = opened.unwrap_or_else(|error| panic!("a start of {raft_id} failed: {error}"));
    net.join(&store);
    up.lock().unwrap().insert(raft_id, (store.clone(), disk));
    store
}

/// What clients saw. Times are numbers of a common counter.
#[derive(Default)]
struct History {
    clock: AtomicU64,
    /// Names by the time of the acknowledgement.
    acknowledged: Mutex<Vec<(u64, String)>>,
    refused: Mutex<Vec<String>>,
    unknown: AtomicU64,
    /// Begin, end and what was seen.
    reads: Mutex<Vec<(u64, u64, BTreeSet<String>)>>,
}

impl History {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// Writes and reads at random members until it is told to stop.
async fn client(seed: u64, up: Up, history: Arc<History>, stop: Arc<AtomicBool>) {
    let mut chance = IdSource::seeded(seed);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(chance.below(20))).await;
        let some = {
            let up = up.lock().unwrap();
            let at = chance.below(up.len().max(1) as u64) as usize;
            up.values().nth(at).map(|(store, _)| store.clone())
        };
        let Some(store) = some else { continue };
        if chance.below(3) == 0 {
            let begin = history.now();
            let read = tokio::time::timeout(IMPATIENCE, store.barrier()).await;
            if matches!(read, Ok(Ok(()))) {
                let seen = names(&store).into_iter().collect();
                history.reads.lock().unwrap().push((begin, history.now(), seen));
            }
            continue;
        }
        let name = format!("{seed}-{number}");
        let write = store.commit(create(&mut chance, &name));
        match tokio::time::timeout(IMPATIENCE, write).await {
            Ok(Ok(_)) => history.acknowledged.lock().unwrap().push((history.now(), name)),
            Ok(Err(CommitError::NoLeader | CommitError::NotLeader { .. })) => {
                history.refused.lock().unwrap().push(name);
            }
            // It may still happen.
            _ => drop(history.unknown.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// Notes who leads in which term; two in one are a failure.
async fn watch_leaders(up: Up, stop: Arc<AtomicBool>) -> usize {
    let mut leaders: BTreeMap<u64, u64> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        for (id, (store, _)) in up.lock().unwrap().iter() {
            if let Leadership::Leader(epoch) = *store.leadership().borrow() {
                let first = *leaders.entry(epoch.0).or_insert(*id);
                assert_eq!(first, *id, "term {} has two leaders", epoch.0);
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    leaders.len()
}

/// One change of members after the other: the ids that are members no more, and the next new one.
struct Turnover {
    gone: Arc<Mutex<BTreeSet<u64>>>,
    next: u64,
    under_way: Option<JoinHandle<()>>,
}

impl Turnover {
    fn is_gone(&self, id: u64) -> bool {
        self.gone.lock().unwrap().contains(&id)
    }

    /// Lets a new member take the place of `old`, unless another such change is under way.
    fn begin(&mut self, old: u64, net: &SimNet, up: &Up) -> bool {
        let free = self.under_way.as_ref().is_none_or(JoinHandle::is_finished);
        if free {
            let new = self.next;
            self.next += 1;
            let gone = self.gone.clone();
            self.under_way = Some(tokio::spawn(replace(old, new, gone, net.clone(), up.clone())));
        }
        free
    }
}

/// Whatever goes wrong, it is tried again: the outcome of what was interrupted is not known.
async fn replace(old: u64, new: u64, gone: Arc<Mutex<BTreeSet<u64>>>, net: SimNet, up: Up) {
    drop(start(new, SimDisk::default(), &net, &up).await);
    let leads =
        |(store, _): &&(Arc<RaftStore>, SimDisk)| store.leadership().borrow().epoch().is_some();
    for admits in [true, false] {
        loop {
            let leader = up.lock().unwrap().values().find(leads).map(|(store, _)| store.clone());
            let change = async {
                let Some(leader) = leader else { return false };
                match (admits, leader.raft_id() == old) {
                    (true, _) => leader.add_member(&peer(new)).await.is_ok(),
                    (false, false) => leader.remove_member(old).await.is_ok(),
                    (false, true) => {
                        drop(leader.transfer_leadership(new).await);
                        false
                    }
                }
            };
            if tokio::time::timeout(CHANGE_WITHIN, change).await == Ok(true) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    gone.lock().unwrap().insert(old);
    retire(old, &net, &up).await;
}

/// What is no member any more is switched off.
async fn retire(id: u64, net: &SimNet, up: &Up) {
    let retired = up.lock().unwrap().remove(&id);
    if let Some((store, _)) = retired {
        net.leave(id);
        store.shutdown().await;
    }
}

/// How often what was done to them.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    crashes: u64,
    cuts: u64,
    one_way: u64,
    storms: u64,
    transfers: u64,
    replaced: u64,
}

fn pick(chance: &mut IdSource, some: &[u64]) -> u64 {
    some[chance.below(some.len() as u64) as usize]
}

/// Faults, drawn from the seed, until the time is over; then everything is healed and up.
async fn storm(seed: u64, members: u64, net: &SimNet, up: &Up) -> Faults {
    let (mut chance, mut faults) = (IdSource::seeded(seed ^ 0xfa17), Faults::default());
    let mut down: Vec<(u64, SimDisk)> = Vec::new();
    let mut turnover = Turnover { gone: Arc::default(), next: members + 1, under_way: None };
    let until = tokio::time::Instant::now() + STORMY;
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(100 + chance.below(500))).await;
        let mut known: Vec<u64> = up.lock().unwrap().keys().copied().collect();
        known.extend(down.iter().map(|(id, _)| *id).filter(|id| !turnover.is_gone(*id)));
        let (some, other) = (pick(&mut chance, &known), pick(&mut chance, &known));
        match chance.below(13) {
            // Mostly a minority, so that there is something to lose.
            0 | 1 if (down.len() as u64) < members / 2 || chance.below(4) == 0 => {
                let crash = Crash::ALL[chance.below(3) as usize];
                let Some((store, disk)) = up.lock().unwrap().remove(&some) else { continue };
                net.leave(some);
                down.push((some, disk.crash_now(crash, chance.below(u64::MAX))));
                tokio::spawn(async move { store.shutdown().await });
                faults.crashes += 1;
            }
            2 => {
                for peer in known.into_iter().filter(|peer| *peer != some) {
                    net.cut(some, peer);
                    net.cut(peer, some);
                }
                faults.cuts += 1;
            }
            3 => {
                net.cut(some, other);
                faults.one_way += 1;
            }
            4 => {
                net.weather(chance.below(25), 1 + chance.below(60));
                faults.storms += 1;
            }
            5 => {
                let store = up.lock().unwrap().get(&some).map(|(store, _)| store.clone());
                if let Some(store) = store.filter(|_| some != other) {
                    tokio::spawn(async move { drop(store.transfer_leadership(other).await) });
                    faults.transfers += 1;
                }
            }
            6..9 => net.heal(),
            9 | 10 => faults.replaced += u64::from(turnover.begin(some, net, up)),
            _ => {
                if let Some((id, disk)) = down.pop() {
                    come_back(id, disk, &turnover, net, up).await;
                }
            }
        }
    }
    net.heal();
    for (id, disk) in down {
        come_back(id, disk, &turnover, net, up).await;
    }
    if let Some(under_way) = turnover.under_way {
        under_way.await.unwrap();
    }
    faults
}

async fn come_back(id: u64, disk: SimDisk, turnover: &Turnover, net: &SimNet, up: &Up) {
    drop(start(id, disk, net, up).await);
    // It may have been replaced just now, or while it was down.
    if turnover.is_gone(id) {
        retire(id, net, up).await;
    }
}

/// Plays one seed.
async fn play(seed: u64) -> (Faults, Counts, usize, usize) {
    let members = if seed.is_multiple_of(3) { 5 } else { 3 };
    let (net, up) = (SimNet::new(seed), Up::default());
    let first = start(1, SimDisk::default(), &net, &up).await;
    first.initialize(&peer(1).address).await.unwrap();
    leads(&first).await;
    for id in 2..=members {
        start(id, SimDisk::default(), &net, &up).await;
        // On a busy machine even a healthy leader may be unsure for a moment.
        while first.add_member(&peer(id)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    drop(first);
    let (history, stop) = (Arc::<History>::default(), Arc::<AtomicBool>::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| seed * CLIENTS + number)
        .map(|seed| tokio::spawn(client(seed, up.clone(), history.clone(), stop.clone())))
        .collect();
    let leaders = tokio::spawn(watch_leaders(up.clone(), stop.clone()));
    let faults = storm(seed, members, &net, &up).await;
    // Clients go on for a while in good weather.
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let terms = leaders.await.unwrap();
    let up: Vec<_> = up.lock().unwrap().values().map(|(store, _)| store.clone()).collect();
    assert_eq!(up.len() as u64, members, "seed {seed}: all are back");
    let same = || up.iter().all(|s| s.status().applied_index == up[0].status().last_log_index);
    until(&format!("seed {seed}: the members must agree"), || {
        same() && up.iter().any(|store| store.leadership().borrow().epoch().is_some())
    })
    .await;
    agree(seed, &up);
    let acknowledged = check(seed, &history, &names(&up[0]).into_iter().collect());
    let counts = net.counts();
    for store in up {
        net.leave(store.raft_id());
        store.shutdown().await;
    }
    (faults, counts, terms, acknowledged)
}

/// States and logs are the same.
fn agree(seed: u64, up: &[Arc<RaftStore>]) {
    let mut log = BTreeMap::new();
    for store in up {
        assert!(store.snapshot().objects().eq(up[0].snapshot().objects()), "seed {seed}: states");
        for entry in store.log_entries() {
            let index = entry.log_id.index;
            let same = log.entry(index).or_insert_with(|| entry.clone());
            assert_eq!(*same, entry, "seed {seed}: entry {index} differs");
        }
    }
}

/// The clients' history can be explained by one set that everybody adds to. Returns how many
/// additions were acknowledged.
fn check(seed: u64, history: &History, last: &BTreeSet<String>) -> usize {
    let acknowledged = history.acknowledged.lock().unwrap();
    let lost: Vec<_> = acknowledged.iter().filter(|(_, name)| !last.contains(name)).collect();
    assert!(lost.is_empty(), "seed {seed}: acknowledged and lost: {lost:?}");
    let refused = history.refused.lock().unwrap();
    let happened: Vec<_> = refused.iter().filter(|name| last.contains(*name)).collect();
    assert!(happened.is_empty(), "seed {seed}: refused for certain, and there: {happened:?}");

    let mut reads = history.reads.lock().unwrap();
    for (begin, _, seen) in reads.iter() {
        let missed = acknowledged.iter().find(|(at, name)| at < begin && !seen.contains(name));
        assert_eq!(missed, None, "seed {seed}: a read misses what was acknowledged before it");
    }
    // Nothing is ever removed, so what reads see must grow in one order, which is also that of time.
    reads.sort_by_key(|(_, _, seen)| seen.len());
    for pair in reads.windows(2) {
        assert!(pair[0].2.is_subset(&pair[1].2), "seed {seed}: two reads saw different orders");
    }
    for (begin, _, seen) in reads.iter() {
        let stale = reads.iter().find(|(_, end, more)| end < begin && more.len() > seen.len());
        assert!(stale.is_none(), "seed {seed}: a read saw less than one before it");
    }
    println!(
        "seed {seed}: {} acknowledged, {} refused, {} unknown, {} reads",
        acknowledged.len(),
        refused.len(),
        history.unknown.load(Ordering::Relaxed),
        reads.len()
    );
    acknowledged.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_loses_a_write_or_splits_the_group() {
    let seeds = std::env::var("SWARM_TEST_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let first = std::env::var("SWARM_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let (first, seeds): (u64, u64) = (first.unwrap_or(0), seeds.unwrap_or(8));
    let (mut all, mut messages) = (Faults::default(), Counts::default());
    let (mut terms, mut acknowledged) = (0, 0);
    // Mostly they wait, so four at once.
    for some in (first..first + seeds).collect::<Vec<_>>().chunks(4) {
        let playing: Vec<_> = some.iter().map(|seed| tokio::spawn(play(*seed))).collect();
        for played in playing {
            let (faults, counts, led, written) = played.await.unwrap();
            all.crashes += faults.crashes;
            all.cuts += faults.cuts;
            all.one_way += faults.one_way;
            all.storms += faults.storms;
            all.transfers += faults.transfers;
            all.replaced += faults.replaced;
            messages.delivered += counts.delivered;
            messages.lost += counts.lost;
            messages.repeated += counts.repeated;
            messages.cut += counts.cut;
            messages.pipelined += counts.pipelined;
            terms += led;
            acknowledged += written;
        }
    }
    println!("{seeds} seeds: {acknowledged} acknowledged, {all:?}, {messages:?}, {terms} terms");
    if seeds >= 8 {
        let Faults { crashes, cuts, one_way, storms, transfers, replaced } = all;
        let changes = [transfers, replaced];
        let broken = [crashes, cuts, one_way, storms, messages.lost, messages.repeated];
        let mut fired = broken.iter().chain(&changes);
        assert!(messages.pipelined > 0, "messages must overtake the answers to those before");
        assert!(fired.all(|count| *count > 0), "a run that breaks nothing proves nothing");
        assert!(terms as u64 > seeds, "leaders must change");
        assert!(acknowledged as u64 > 10 * seeds, "writes must go on between faults");
    }
}
