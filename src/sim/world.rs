//! The world: every process of a cluster in one queue of events, with virtual time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::Planner;
use swarm_core::executor::Exit;
use swarm_core::id::IdSource;
use swarm_core::model::{NodeId, TaskId};
use swarm_core::store::{Snapshot, Store as _};
use swarm_core::time::Timestamp;
use swarm_sched::orchestrate::Rebalance;

use super::client::Call;
use super::consensus::{Committed, Log, Replica};
use super::dice::Dice;
use super::host::Host;
use super::invariant::{self, Invariant, Violation};
use super::link::{Message, Net, StreamId};
use super::meddle::Meddle;
use super::script::{Action, FaultKind, Request, Script, Wanted};
use super::trace::{Described, Trace};

/// When a world begins.
pub(super) const START: Timestamp = Timestamp::from_secs(1_800_000_000);
/// A seed has some ten thousand events: with so many it hangs.
const MOST_EVENTS: u64 = 20_000_000;
/// Which of a host's processes is to be woken.
pub(super) const AGENT: usize = 0;
pub(super) const MANAGER: usize = 1;

/// Something that will happen.
pub(super) enum Event {
    Wake(usize, usize),
    Deliver { stream: StreamId, to_manager: bool, message: Box<Message> },
    Break(StreamId),
    Flush,
    Apply { host: usize, upto: usize },
    Tick,
    Work { host: usize, life: u64, task: TaskId, ticket: u64 },
    Exit { host: usize, task: TaskId, life: u64, exit: Exit },
    Boot(usize),
    Rejoin(usize),
    Entry(usize),
    Ask(Box<Request>, u32),
    Client,
    Heal(Box<FaultKind>),
    HealAll,
}

/// A simulated cluster.
pub struct World {
    pub(super) script: Script,
    pub(super) now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Event>,
    sequence: u64,
    pub(super) dice: Dice,
    pub(super) ids: IdSource,
    pub(super) net: Net,
    pub(super) log: Log,
    pub(super) hosts: Vec<Host>,
    pub(super) disks: BTreeMap<usize, Replica>,
    pub(super) planners: Vec<Arc<dyn Planner>>,
    pub(super) calls: Vec<Call>,
    pub(super) committed: Vec<Committed>,
    pub(super) meddle: Meddle,
    pub(super) trace: Trace,
    coverage: BTreeMap<&'static str, u64>,
    invariants: Vec<Box<dyn Invariant>>,
    events: u64,
    healed: bool,
    /// What a hand-written script wants to be true until these times.
    standing: Vec<(Timestamp, Wanted)>,
}

impl World {
    /// A cluster that has just been set up, with this library's planners and invariants.
    #[must_use]
    pub fn new(script: Script) -> Self {
        let driver = Arc::new(swarm_net::MemoryNetwork::default());
        let scheduler = Arc::<swarm_sched::place::StrategyScheduler>::default();
        let mut planners = swarm_sched::default_planners([driver as _], scheduler.clone());
        if let Some((moves, interval)) = script.rebalance {
            let scheduler = scheduler.clone();
            planners.push(Arc::new(Rebalance::new(scheduler, moves, interval)));
        }
        let mut invariants = invariant::all();
        invariants.push(invariant::memory_of(scheduler));
        Self::with(script, planners, invariants)
    }

    /// A cluster with planners and invariants of one's own.
    #[must_use]
    pub fn with(
        script: Script,
        planners: Vec<Arc<dyn Planner>>,
        invariants: Vec<Box<dyn Invariant>>,
    ) -> Self {
        let seed = script.seed;
        let mut world = Self {
            now: START,
            queue: BTreeMap::new(),
            sequence: 0,
            dice: Dice::new(seed, "world"),
            ids: IdSource::seeded(seed),
            net: Net::default(),
            log: Log::new(),
            hosts: Vec::new(),
            disks: BTreeMap::new(),
            planners,
            calls: Vec::new(),
            committed: Vec::new(),
            meddle: Meddle::default(),
            trace: Trace::default(),
            coverage: BTreeMap::new(),
            invariants,
            events: 0,
            healed: false,
            standing: Vec::new(),
            script,
        };
        world.set_up();
        world
    }

    /// Keeps every line of the trace, and not the last ones alone.
    #[must_use]
    pub fn traced(mut self) -> Self {
        self.trace.whole = true;
        self
    }

    /// Plants a bug: see [`Meddle`].
    #[must_use]
    pub fn meddled(mut self, meddle: Meddle) -> Self {
        for host in &mut self.hosts {
            host.machine.stops_nothing = meddle.stops_nothing;
            host.machine.attaches_nothing = meddle.attaches_nothing;
        }
        self.meddle = meddle;
        self
    }

    pub(super) fn schedule(&mut self, after: Duration, event: Event) {
        self.schedule_at(self.now + after, event);
    }

    pub(super) fn schedule_at(&mut self, at: Timestamp, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    /// Wakes a process at a time, if it is not woken earlier anyway.
    pub(super) fn wake(&mut self, host: usize, process: usize, at: Option<Timestamp>) {
        let Some(at) = at else { return };
        let at = at.max(self.now);
        let planned = &mut self.hosts[host].wakes[process];
        if planned.is_none_or(|planned| at < planned) {
            *planned = Some(at);
            self.schedule_at(at, Event::Wake(host, process));
        }
    }

    /// Every process looks again: something outside of it has changed.
    pub(super) fn touch_all(&mut self) {
        for host in 0..self.hosts.len() {
            self.wake(host, AGENT, Some(self.now));
            self.wake(host, MANAGER, Some(self.now));
        }
    }

    /// Lets the next thing happen.
    ///
    /// # Errors
    /// The invariant that does not hold any more.
    pub fn step(&mut self) -> Result<bool, Violation> {
        let Some(((at, _), event)) = self.queue.pop_first() else { return Ok(false) };
        self.now = at;
        self.events += 1;
        if self.events > MOST_EVENTS {
            return Err(self.violated("end", "events beget events without an end".to_owned()));
        }
        self.committed.clear();
        self.happen(event)?;
        self.check()?;
        Ok(true)
    }

    /// Lets things happen until so long after the start.
    ///
    /// # Errors
    /// The invariant that does not hold any more.
    pub fn run_until(&mut self, since_start: Duration) -> Result<(), Violation> {
        let end = START + since_start;
        while self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= end) {
            self.step()?;
        }
        self.now = self.now.max(end);
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            // Another wake-up was planned before or after this one.
            Event::Wake(host, process) if self.hosts[host].wakes[process] != Some(self.now) => {}
            Event::Wake(host, process) => {
                self.hosts[host].wakes[process] = None;
                match self.hosts[host].paused_until.filter(|until| *until > self.now) {
                    Some(until) => self.wake(host, process, Some(until)),
                    None if process == AGENT => self.agent_turn(host),
                    None => self.manager_turn(host),
                }
            }
            Event::Deliver { stream, to_manager, message } => {
                self.deliver(stream, to_manager, message);
            }
            Event::Break(stream) => self.break_stream(stream),
            Event::Flush => self.flush(),
            Event::Apply { host, upto } => self.apply(host, upto),
            Event::Tick => self.tick(),
            Event::Work { host, life, task, ticket } => {
                match self.hosts[host].paused_until.filter(|until| *until > self.now) {
                    Some(until) => {
                        self.schedule_at(until, Event::Work { host, life, task, ticket });
                    }
                    None => self.work_done(host, life, task, ticket),
                }
            }
            Event::Exit { host, task, life, exit } => {
                if self.hosts[host].machine.is_life(task, life) {
                    self.container_ends(host, task, &exit);
                }
            }
            Event::Boot(host) => self.start_agent(host),
            Event::Rejoin(host) => self.rejoin(host),
            Event::Entry(number) => return self.enter(number),
            Event::Ask(request, attempts) => self.ask(*request, attempts),
            Event::Client => self.drive_calls(),
            Event::Heal(kind) if !self.healed => self.heal(&kind),
            Event::Heal(_) => {}
            Event::HealAll => {
                self.healed = true;
                self.heal_all();
            }
        }
        Ok(())
    }

    fn enter(&mut self, number: usize) -> Result<(), Violation> {
        match self.script.entries[number].action.clone() {
            Action::Ask(request) => self.ask(request, 0),
            Action::Break(fault) if !self.healed => self.break_it(&fault),
            Action::Break(_) => {}
            Action::Expect(wanted) => {
                self.expect(&wanted).map_err(|seen| self.violated("expected", seen))?;
            }
            Action::Always(wanted, lasts) => self.standing.push((self.now + lasts, wanted)),
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), Violation> {
        self.standing.retain(|(until, _)| *until >= self.now);
        for (_, wanted) in &self.standing {
            self.expect(wanted).map_err(|seen| self.violated("always", seen))?;
        }
        let mut invariants = std::mem::take(&mut self.invariants);
        let checked = invariants.iter_mut().try_for_each(|invariant| {
            invariant.after_step(self).map_err(|seen| self.violated(invariant.name(), seen))
        });
        self.invariants = invariants;
        checked
    }

    /// Checks what must be true once a healed cluster has had time to settle.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn check_at_rest(&mut self) -> Result<(), Violation> {
        let mut invariants = std::mem::take(&mut self.invariants);
        let checked = invariants.iter_mut().try_for_each(|invariant| {
            invariant.at_rest(self).map_err(|seen| self.violated(invariant.name(), seen))
        });
        self.invariants = invariants;
        checked
    }

    fn violated(&self, invariant: &str, seen: String) -> Violation {
        Violation { invariant: invariant.to_owned(), at: self.elapsed(), seen }
    }

    /// Writes a line of the trace.
    pub(super) fn note(&mut self, line: fmt::Arguments<'_>) {
        let at = self.now.since(START);
        self.trace.note(at, line);
    }

    /// Writes a line about a host.
    pub(super) fn note_of(&mut self, host: usize, line: fmt::Arguments<'_>) {
        let at = self.now.since(START);
        self.trace.note(at, format_args!("{}: {line}", self.hosts[host].name));
    }

    pub(super) fn note_commit(&mut self, commit: &Committed) {
        let at = self.now.since(START);
        let Ok(done) = &commit.result else {
            return self.trace.note(at, format_args!("#{} refused", commit.index));
        };
        for event in &done.events {
            let what = Described(event.old.as_ref(), event.new.as_ref());
            self.trace.note(at, format_args!("#{} {:?}: {what}", commit.index, commit.author));
        }
    }

    /// Counts that something happened that a run shall cover.
    pub(super) fn covered(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    /// How a task is called in the trace.
    pub(super) fn name_of(&self, task: TaskId) -> String {
        let state = self.log.state.snapshot();
        state.tasks.get(task).map_or_else(|| task.to_string(), |task| task.name())
    }

    /// The script that this world plays.
    #[must_use]
    pub fn script(&self) -> &Script {
        &self.script
    }

    /// The true time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now.since(START)
    }

    /// The committed state.
    #[must_use]
    pub fn state(&self) -> Snapshot {
        self.log.state.snapshot()
    }

    /// What was committed in this step, in order.
    #[must_use]
    pub fn committed(&self) -> &[Committed] {
        &self.committed
    }

    /// The hosts, managers first.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of a node.
    #[must_use]
    pub fn host_of(&self, node: NodeId) -> Option<&Host> {
        self.hosts.iter().find(|host| host.id == node)
    }

    /// The manager that leads, if one does.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        self.log.leader.map(|(host, _)| host)
    }

    /// Whether the faults have ended.
    #[must_use]
    pub fn is_healed(&self) -> bool {
        self.healed
    }

    /// What happened.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// How often each thing happened that a run shall cover.
    #[must_use]
    pub fn coverage(&self) -> &BTreeMap<&'static str, u64> {
        &self.coverage
    }

    /// How many events have happened.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }
}
