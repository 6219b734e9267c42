//! The world: every process of a cluster in one queue of events, with virtual time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::Planner;
use swarm_core::executor::Exit;
use swarm_core::id::IdSource;
use swarm_core::model::{
    Availability, CaConfig, ClusterSpec, JoinTokens, Node, NodeId, NodeRole, NodeSpec, RootCa,
    TaskId, TlsInfo,
};
use swarm_core::store::{Batch, Change, Object, Snapshot, Store as _};
use swarm_core::time::Timestamp;

use super::client::Call;
use super::consensus::{Author, Committed, Log, Replica, TICK};
use super::dice::Dice;
use super::host::{Host, WallClock};
use super::invariant::{self, Invariant, Violation};
use super::link::{Fate, Message, Net, StreamId};
use super::machine::Machine;
use super::manager::Reply;
use super::meddle::Meddle;
use super::script::{Action, FaultKind, Request, Script, Wanted};
use super::trace::Trace;
use crate::manager::bootstrap::NewCluster;

/// When a world begins.
const START: Timestamp = Timestamp::from_secs(1_800_000_000);
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
    ids: IdSource,
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
        let scheduler = Arc::<swarm_sched::place::SpreadScheduler>::default();
        let planners = swarm_sched::default_planners([driver as _], scheduler);
        Self::with(script, planners, invariant::all())
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
        }
        self.meddle = meddle;
        self
    }

    fn set_up(&mut self) {
        for index in 0..self.script.nodes() {
            let name = match index < self.script.managers {
                true => format!("manager{}", index + 1),
                false => format!("worker{}", index + 1 - self.script.managers),
            };
            self.hosts.push(Host {
                index,
                name,
                id: self.ids.next(),
                machine: Machine::default(),
                journal: BTreeMap::new(),
                agent: None,
                manager: None,
                clock: WallClock::new(self.now),
                paused_until: None,
                off: false,
                lost: false,
                lives: 0,
                wakes: [None; 2],
            });
        }
        for index in 0..self.script.managers {
            self.start_manager(index, None);
        }
        self.elect(Some(0));
        let first = self.first_objects();
        self.submit(first);
        for index in 0..self.script.nodes() {
            let soon = self.dice.millis(20, 500);
            self.schedule(soon, Event::Boot(index));
        }
        self.schedule(TICK, Event::Tick);
        for number in 0..self.script.entries.len() {
            self.schedule_at(START + self.script.entries[number].at, Event::Entry(number));
        }
        self.schedule_at(START + self.script.heal_at, Event::HealAll);
    }

    /// What `docker swarm init` and the joins of the other nodes write.
    fn first_objects(&mut self) -> Vec<Change> {
        let cluster = NewCluster {
            id: self.ids.next(),
            spec: ClusterSpec { ca_config: CaConfig::default(), ..ClusterSpec::default() },
            addr_pool: Vec::new(),
            subnet_size: 0,
            data_path_port: 0,
            root_ca: RootCa::default(),
            tls_info: TlsInfo::default(),
            join_tokens: JoinTokens::default(),
            node: self.hosts[0].id,
            raft_id: 1,
            advertise: self.hosts[0].name.clone(),
            availability: Availability::Active,
        };
        let mut changes = cluster.changes(&mut self.ids);
        let nodes = self.hosts.iter().skip(1);
        changes.extend(nodes.map(|host| Change::create(joined(host, self.script.managers))));
        changes
    }

    /// A node that was refused is set up anew and joins with a new identity.
    fn rejoin(&mut self, index: usize) {
        if self.hosts[index].off || self.hosts[index].lost {
            return;
        }
        let host = &mut self.hosts[index];
        host.agent = None;
        host.journal.clear();
        host.machine.containers.clear();
        host.id = self.ids.next();
        let node = joined(host, self.script.managers);
        self.note_of(index, format_args!("joins again"));
        self.submit(vec![Change::create(node)]);
        self.schedule(Duration::from_millis(500), Event::Boot(index));
    }

    /// Writes without a client: what the authority does when a node joins.
    fn submit(&mut self, changes: Vec<Change>) {
        let host = self.log.leader.map_or(0, |(host, _)| host);
        let (sender, _) = tokio::sync::oneshot::channel();
        let batch = Batch::new(self.now, changes);
        self.propose(host, self.log.epoch, Author::Client, batch, Reply::Client(sender));
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

    /// Sends a message on a stream.
    pub(super) fn send(&mut self, stream: StreamId, to_manager: bool, message: Message) {
        let Some(fate) = self.net.send(stream, to_manager, self.now, &mut self.dice) else {
            return;
        };
        match fate {
            Fate::Arrives(times) => {
                for at in times {
                    let message = Box::new(message.clone());
                    self.schedule_at(at, Event::Deliver { stream, to_manager, message });
                }
            }
            Fate::Lost => self.lose(stream),
        }
    }

    /// Somebody notices, after a while, that nothing comes through a stream any more.
    fn lose(&mut self, stream: StreamId) {
        if let Some(lost) = self.net.streams.get_mut(&stream)
            && !std::mem::replace(&mut lost.breaking, true)
        {
            let noticed = self.dice.millis(5_000, 15_000);
            self.schedule(noticed, Event::Break(stream));
        }
    }

    /// Closes a stream from one side.
    pub(super) fn close(&mut self, stream: StreamId, to_manager: bool) {
        self.send(stream, to_manager, Message::Close);
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

    fn deliver(&mut self, stream: StreamId, to_manager: bool, message: Box<Message>) {
        let Some(known) = self.net.streams.get(&stream) else { return };
        let end = if to_manager { known.manager } else { known.agent };
        let host = &self.hosts[end.host];
        if let Some(until) = host.paused_until.filter(|until| *until > self.now) {
            return self.schedule_at(until, Event::Deliver { stream, to_manager, message });
        }
        let life = match to_manager {
            true => host.manager.as_ref().map(|manager| manager.life),
            false => host.agent.as_ref().map(|agent| agent.life),
        };
        if host.off {
            return self.lose(stream);
        }
        if life != Some(end.life) {
            match *message {
                Message::Close => drop(self.net.streams.remove(&stream)),
                _ => self.close(stream, !to_manager),
            }
            return;
        }
        match to_manager {
            true => self.manager_hears(end.host, stream, *message),
            false => self.agent_hears(end.host, stream, *message),
        }
    }

    /// Both ends learn that a stream is broken.
    fn break_stream(&mut self, stream: StreamId) {
        let Some(known) = self.net.streams.get(&stream) else { return };
        let (agent, manager) = (known.agent, known.manager);
        if self.hosts[manager.host].manager.as_ref().is_some_and(|m| m.life == manager.life) {
            self.manager_hears(manager.host, stream, Message::Close);
        }
        if self.hosts[agent.host].agent.as_ref().is_some_and(|a| a.life == agent.life) {
            self.agent_hears(agent.host, stream, Message::Close);
        }
        self.net.streams.remove(&stream);
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

/// The node object of a host that joins.
fn joined(host: &Host, managers: usize) -> Node {
    let manager = host.index < managers;
    let role = if manager { NodeRole::Manager } else { NodeRole::Worker };
    let mut node = Node {
        id: host.id,
        role,
        spec: NodeSpec { role, ..NodeSpec::default() },
        ..Node::default()
    };
    if manager {
        node.manager_status = Some(swarm_core::model::ManagerStatus {
            addr: host.name.clone(),
            raft_id: host.index as u64 + 1,
            ..Default::default()
        });
    }
    node
}

/// What a commit did to an object, in a few words.
struct Described<'a>(Option<&'a Object>, Option<&'a Object>);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (_, Some(Object::Task(task))) => {
                write!(f, "{} {:?}/{:?}", task.name(), task.desired_state, task.status.state)?;
                if !task.status.err.is_empty() {
                    write!(f, " ({})", task.status.err)?;
                }
                Ok(())
            }
            (Some(Object::Task(task)), None) => write!(f, "{} erased", task.name()),
            (_, Some(Object::Node(node))) => write!(f, "node {} {:?}", node.id, node.status.state),
            (_, Some(Object::Service(service))) => {
                write!(f, "service {} v{}", service.spec.name, service.version.0)?;
                if let Some(status) = &service.update_status {
                    write!(f, " {:?}: {}", status.state, status.message)?;
                }
                Ok(())
            }
            (old, Some(new)) => {
                write!(f, "{} {}", new.id(), if old.is_some() { "changed" } else { "created" })
            }
            (Some(old), None) => write!(f, "{} erased", old.id()),
            (None, None) => Ok(()),
        }
    }
}
