//! Pure: the logical store: one committed log, a leader in each epoch, and replicas that apply it
//! at their own pace. What raft promises, without raft.
//!
//! The second tier of simulation runs the real protocol; this one is about everything above it. So
//! an election is a draw among those whom a majority reaches, and the fate of what the old leader
//! had under way is a draw too: a prefix of it is in the new leader's log, the rest is lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::store::{
    Batch, Commit, CommitError, Epoch, Leadership, MemoryStore, Snapshot, Store, Watch,
};
use swarm_core::time::Timestamp;

use super::manager::Reply;
use super::world::{Event, MANAGER, World};

/// How often the group looks at itself.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// A leader that no majority answers gives up after this time.
const LEASE: Duration = Duration::from_secs(2);
/// Entries that a follower may lack before it gets a snapshot instead.
const CATCH_UP: usize = 300;
/// Entries after which a manager saves a snapshot on its disk.
const SNAPSHOT_EVERY: usize = 150;

/// Who decided a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The planners.
    Planners,
    /// The dispatcher: nodes' states, tasks' statuses.
    Dispatcher,
    /// A client of the API, or the authority that admits nodes.
    Client,
}

/// One committed batch, as every replica applies it.
#[derive(Clone)]
pub struct Committed {
    /// Its place in the log.
    pub index: usize,
    /// The epoch in which it was committed.
    pub epoch: Epoch,
    /// The epoch in which it was decided.
    pub decided_in: Epoch,
    /// Who decided it.
    pub author: Author,
    /// What was to be done.
    pub batch: Arc<Batch>,
    /// The state before it.
    pub before: Snapshot,
    /// The state after it.
    pub after: Snapshot,
    /// What it did; an error where the state had moved on, and then nothing was done.
    pub result: Result<Arc<Commit>, CommitError>,
}

/// A batch on its way into the log.
pub(super) struct Proposal {
    host: usize,
    life: u64,
    decided_in: Epoch,
    author: Author,
    batch: Arc<Batch>,
    reply: Reply,
    ready_at: Timestamp,
}

/// The group's log.
pub(super) struct Log {
    pub(super) entries: Vec<(Epoch, Arc<Batch>)>,
    /// The batches of which clients were told that they are committed.
    pub(super) acknowledged: Vec<Arc<Batch>>,
    /// The state after all of them.
    pub(super) state: MemoryStore,
    watch: Watch,
    pub(super) leader: Option<(usize, Epoch)>,
    pub(super) epoch: Epoch,
    pending: VecDeque<Proposal>,
    leaderless_since: Option<Timestamp>,
    patience: Duration,
}

impl Log {
    pub(super) fn new() -> Self {
        let state = MemoryStore::default();
        let watch = state.watch(state.snapshot().version());
        Self {
            entries: Vec::new(),
            acknowledged: Vec::new(),
            state,
            watch,
            leader: None,
            epoch: Epoch(0),
            pending: VecDeque::new(),
            leaderless_since: None,
            patience: Duration::from_secs(1),
        }
    }
}

/// A manager's copy of the state.
pub struct Replica {
    /// The state as far as it was applied.
    pub store: Arc<MemoryStore>,
    /// How much of the log that is.
    pub applied: usize,
    /// The epoch in which it believes to lead.
    pub believes: Option<Epoch>,
    /// Since when no majority has answered it.
    unheard_since: Option<Timestamp>,
    /// The snapshot on its disk, and the place in the log that it was taken at.
    disk: (usize, Snapshot),
}

impl Replica {
    pub(super) fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        store.set_leadership(Leadership::None);
        Self { store, applied: 0, believes: None, unheard_since: None, disk: Default::default() }
    }

    /// The replica after a restart: the disk's snapshot, and the log after it.
    pub(super) fn recover(&self, log: &Log) -> Self {
        let (index, snapshot) = &self.disk;
        let objects = snapshot.objects().map(|object| {
            let text = serde_json::to_vec(&object).expect("objects can be written");
            serde_json::from_slice(&text).expect("what was written can be read")
        });
        let state = Snapshot::from_objects(snapshot.version(), objects);
        let store = Arc::new(MemoryStore::new(state));
        store.set_leadership(Leadership::None);
        for (_, batch) in &log.entries[*index..self.applied] {
            let _ = store.apply(batch);
        }
        let (applied, disk) = (self.applied, self.disk.clone());
        Self { store, applied, believes: None, unheard_since: None, disk }
    }

    fn apply_to(&mut self, log: &Log, index: usize, by_snapshot: bool) {
        if by_snapshot && index == log.entries.len() && index > self.applied {
            self.store.restore(log.state.snapshot());
            self.applied = index;
        }
        while self.applied < index {
            let _ = self.store.apply(&log.entries[self.applied].1);
            self.applied += 1;
        }
        if self.applied >= self.disk.0 + SNAPSHOT_EVERY {
            self.disk = (self.applied, self.store.snapshot());
        }
    }
}

impl World {
    /// Puts a batch on its way into the log.
    pub(super) fn propose(
        &mut self,
        host: usize,
        decided_in: Epoch,
        author: Author,
        batch: Batch,
        reply: Reply,
    ) {
        let life = self.hosts[host].manager.as_ref().map_or(0, |manager| manager.life);
        let mut ready_at = self.now + self.dice.millis(1, 8);
        if let Some(last) = self.log.pending.back() {
            ready_at = ready_at.max(last.ready_at);
        }
        let batch = Arc::new(batch);
        let proposal = Proposal { host, life, decided_in, author, batch, reply, ready_at };
        self.log.pending.push_back(proposal);
        self.schedule_at(ready_at, Event::Flush);
    }

    /// Commits what is ready and can be.
    pub(super) fn flush(&mut self) {
        let Some((leader, epoch)) = self.log.leader else { return };
        if !self.has_majority(leader) {
            return;
        }
        while let Some(next) = self.log.pending.front() {
            if next.ready_at > self.now {
                break;
            }
            let Some(proposal) = self.log.pending.pop_front() else { break };
            if proposal.host != leader && !self.is_forwarded(&proposal, leader) {
                let unknown = CommitError::Unknown("the leader changed".to_owned());
                self.answer(proposal, Err(unknown));
                continue;
            }
            let result =
                match proposal.author == Author::Client && self.meddle.drops(&mut self.dice) {
                    true => Ok(()),
                    false => self.append(epoch, &proposal),
                };
            if let Some(manager) = &mut self.hosts[leader].manager {
                manager.replica.apply_to(&self.log, self.log.entries.len(), false);
            }
            self.answer(proposal, result);
            self.wake(leader, MANAGER, Some(self.now));
        }
        self.replicate();
    }

    /// Whether a batch of a manager that does not lead reaches the leader: a client's does where the
    /// network lets it, of those that were decided as a leader some do late, to be refused.
    fn is_forwarded(&mut self, proposal: &Proposal, leader: usize) -> bool {
        let reaches = self.net.connected(proposal.host, leader);
        let client = proposal.author == Author::Client;
        let late = !client && reaches && self.dice.percent(50);
        if late {
            self.covered("store: a batch of an earlier leader arrives");
        }
        late || (client && reaches)
    }

    /// Takes one batch into the log.
    fn append(&mut self, epoch: Epoch, proposal: &Proposal) -> Result<(), CommitError> {
        if proposal.batch.epoch.is_some_and(|decided| decided != epoch) && !self.meddle.no_fence {
            self.covered("store: a stale epoch is refused");
            return Err(CommitError::StaleEpoch(proposal.decided_in));
        }
        if let Some(limit) = self.script.room
            && proposal.author == Author::Planners
            && proposal.batch.changes.len() > limit
        {
            self.covered("store: a batch is too large");
            return Err(CommitError::TooLarge { bytes: proposal.batch.changes.len(), limit });
        }
        let before = self.log.state.snapshot();
        let index = self.log.entries.len();
        self.log.entries.push((epoch, proposal.batch.clone()));
        let result = self.log.state.apply(&proposal.batch);
        let commit = match self.log.watch.try_next() {
            Ok(Some(commit)) => Ok(commit),
            _ => Err(result.err().unwrap_or(CommitError::Unknown("nothing to do".to_owned()))),
        };
        let error = commit.as_ref().err().cloned();
        let committed = Committed {
            index,
            epoch,
            decided_in: proposal.decided_in,
            author: proposal.author,
            batch: proposal.batch.clone(),
            before,
            after: self.log.state.snapshot(),
            result: commit,
        };
        self.note_commit(&committed);
        self.cover(&committed);
        self.committed.push(committed);
        match error {
            Some(CommitError::Unknown(_)) | None => Ok(()),
            Some(error) => {
                self.covered("store: a conflict is decided again");
                Err(error)
            }
        }
    }

    fn answer(&mut self, proposal: Proposal, result: Result<(), CommitError>) {
        let Proposal { host, life, decided_in, batch, reply, .. } = proposal;
        if let Reply::Client(sender) = reply {
            if result.is_ok() {
                self.log.acknowledged.push(batch);
            }
            let _ = sender.send(result.map(|()| self.log.state.snapshot().version()));
            return self.schedule(Duration::ZERO, Event::Client);
        }
        if self.hosts[host].manager.as_ref().is_some_and(|manager| manager.life == life) {
            let result = result.map(|()| self.log.state.snapshot().version());
            self.manager_learns(host, decided_in, &batch, reply, result);
        }
    }

    /// Tells followers of what was committed.
    fn replicate(&mut self) {
        let Some((leader, _)) = self.log.leader else { return };
        let upto = self.log.entries.len();
        for host in 0..self.script.managers {
            if host != leader && self.net.reaches(leader, host) {
                let after = self.net.latency(leader, host, &mut self.dice);
                self.schedule(after, Event::Apply { host, upto });
            }
        }
    }

    /// A follower hears how far the log is committed.
    pub(super) fn apply(&mut self, host: usize, upto: usize) {
        if !self.hosts[host].is_running(self.now) {
            return;
        }
        let Some(manager) = &mut self.hosts[host].manager else { return };
        let by_snapshot = upto.saturating_sub(manager.replica.applied) > CATCH_UP;
        if self.meddle.skips(&mut self.dice) {
            manager.replica.applied = upto.min(manager.replica.applied + 1);
        }
        manager.replica.apply_to(&self.log, upto, by_snapshot);
        if by_snapshot {
            self.covered("store: a follower is caught up by a snapshot");
        }
        self.manager_turn(host);
    }

    /// Replaces a manager's state by a snapshot of the latest.
    pub(super) fn install_snapshot(&mut self, host: usize) {
        let Some(manager) = &mut self.hosts[host].manager else { return };
        manager.replica.store.restore(self.log.state.snapshot());
        manager.replica.applied = self.log.entries.len();
        self.manager_turn(host);
    }

    fn is_up(&self, host: usize) -> bool {
        self.hosts[host].manager.is_some() && self.hosts[host].is_running(self.now)
    }

    /// Whether a manager is up and hears a majority that hears it.
    pub(super) fn has_majority(&self, host: usize) -> bool {
        let hears = |other: &usize| {
            *other == host || (self.is_up(*other) && self.net.connected(host, *other))
        };
        self.is_up(host)
            && (0..self.script.managers).filter(hears).count() * 2 > self.script.managers
    }

    /// The group looks at itself: who leads, who does not any more.
    pub(super) fn tick(&mut self) {
        self.schedule(TICK, Event::Tick);
        if let Some((leader, epoch)) = self.log.leader
            && self.has_majority(leader)
        {
            self.log.leaderless_since = None;
            self.flush();
            self.replicate();
            for host in (0..self.script.managers).filter(|host| *host != leader) {
                let old = self.hosts[host].manager.as_ref().and_then(|m| m.replica.believes);
                let hears = self.is_up(host) && self.net.reaches(leader, host);
                if hears && old.is_some_and(|old| old < epoch) {
                    self.covered("leader: an earlier leader learns of its successor");
                    self.step_down(host);
                }
                if hears {
                    self.follow(host, leader);
                }
            }
        } else {
            let since = *self.log.leaderless_since.get_or_insert(self.now);
            if self.now.since(since) > self.log.patience {
                self.elect(None);
            }
        }
        for host in 0..self.script.managers {
            self.check_lease(host);
        }
    }

    /// A leader that no majority answers gives up.
    fn check_lease(&mut self, host: usize) {
        let (now, majority) = (self.now, self.has_majority(host));
        if !self.is_up(host) {
            return;
        }
        let Some(manager) = &mut self.hosts[host].manager else { return };
        if majority {
            manager.replica.unheard_since = None;
            return;
        }
        let since = *manager.replica.unheard_since.get_or_insert(now);
        if manager.replica.believes.is_some() && now.since(since) >= LEASE {
            self.covered("leader: gives up without a majority");
            self.step_down(host);
        }
    }

    fn follow(&mut self, host: usize, leader: usize) {
        let name = self.hosts[leader].name.clone();
        if let Some(manager) = &mut self.hosts[host].manager {
            manager.replica.store.set_leadership(Leadership::Follower { leader: name });
        }
    }

    pub(super) fn step_down(&mut self, host: usize) {
        let name = self.hosts[host].name.clone();
        let Some(manager) = &mut self.hosts[host].manager else { return };
        manager.replica.believes = None;
        manager.replica.store.set_leadership(Leadership::None);
        manager.leading = None;
        // Who gave up by itself leads again only if it is elected.
        self.log.leader = self.log.leader.filter(|(leader, _)| *leader != host);
        self.note(format_args!("{name}: leads no more"));
    }

    /// Makes somebody the leader of a new epoch: `wanted`, or one of those who can be.
    pub(super) fn elect(&mut self, wanted: Option<usize>) {
        let able: Vec<usize> =
            (0..self.script.managers).filter(|host| self.has_majority(*host)).collect();
        let new = match wanted.filter(|host| able.contains(host)) {
            Some(host) => host,
            None if able.is_empty() => return,
            None => *self.dice.pick(&able),
        };
        let old = self.log.epoch;
        self.log.leaderless_since = None;
        self.log.patience = self.dice.millis(1_000, 2_500);
        self.settle_pending(old);
        self.log.epoch = Epoch(old.0 + 1);
        let epoch = self.log.epoch;
        self.log.leader = Some((new, epoch));
        self.note_of(new, format_args!("leads in epoch {}", epoch.0));
        let Some(manager) = &mut self.hosts[new].manager else { return };
        manager.leading = None;
        manager.replica.apply_to(&self.log, self.log.entries.len(), false);
        manager.replica.believes = Some(epoch);
        manager.replica.unheard_since = None;
        manager.replica.store.set_leadership(Leadership::Leader(epoch));
        self.start_leading(new, epoch);
    }

    /// Of what the old leader had under way, a prefix is committed; of the rest, something may
    /// still arrive at the new leader, and everything else is lost.
    fn settle_pending(&mut self, old: Epoch) {
        let pending: Vec<Proposal> = self.log.pending.drain(..).collect();
        let kept = self.dice.below(pending.len() as u64 + 1) as usize;
        for (number, proposal) in pending.into_iter().enumerate() {
            let unknown = CommitError::Unknown("the leader changed".to_owned());
            if number < kept {
                self.covered("store: a write survives its leader without an answer");
                let _ = self.append(old, &proposal);
                self.answer(proposal, Err(unknown));
            } else if self.dice.percent(30) {
                let ready_at = self.now + Duration::from_millis(5);
                self.log.pending.push_back(Proposal { ready_at, ..proposal });
                self.schedule_at(ready_at, Event::Flush);
            } else {
                self.covered("store: a write is lost with its leader");
                self.answer(proposal, Err(unknown));
            }
        }
    }
}
