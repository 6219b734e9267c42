//! Pure: an agent's process in a simulated cluster: what the shell and the sessions of
//! `swarm-runtime` do around an [`AgentState`], with virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_core::executor::Exit;
use swarm_core::id::IdSource;
use swarm_core::model::{NodeDescription, TaskId};
use swarm_core::protocol::{AgentMessage, Item, ManagerMessage};
use swarm_core::time::Timestamp;
use swarm_runtime::agent::backoff::{Backoff, Ended, PATIENCE};
use swarm_runtime::agent::state::{AgentState, Entry, Job, Todo, Work};
use swarm_runtime::agent::{REPORT_AFTER, REPORTS, Timing};

use super::link::{End, Message, StreamId};
use super::machine::Ending;
use super::world::{AGENT, Event, World};

/// A node that the cluster refused is set up anew after this time.
const REJOIN_AFTER: Duration = Duration::from_secs(30);

/// An agent's process.
pub struct Agent {
    /// Everything that it knows.
    pub state: AgentState,
    pub(super) life: u64,
    /// The work in hand for each task.
    work: BTreeMap<TaskId, (u64, Job)>,
    phase: Phase,
    backoff: Backoff,
    /// The managers that it knows, the one to try next first.
    managers: Vec<usize>,
    report_at: Option<Timestamp>,
}

/// How an agent stands with a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle { until: Timestamp },
    Opening { stream: StreamId, until: Timestamp },
    Open { stream: StreamId, period: Duration, beat_at: Timestamp },
    Refused,
}

impl Agent {
    /// Whether it is in session with a manager, as far as it knows.
    #[must_use]
    pub fn in_session(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// Whether the cluster refused its node.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.phase == Phase::Refused
    }

    fn stream(&self) -> Option<StreamId> {
        match self.phase {
            Phase::Opening { stream, .. } | Phase::Open { stream, .. } => Some(stream),
            _ => None,
        }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let session = match self.phase {
            Phase::Idle { until } | Phase::Opening { until, .. } => Some(until),
            Phase::Open { beat_at, .. } => Some(beat_at),
            Phase::Refused => None,
        };
        [session, self.report_at].into_iter().flatten().min()
    }
}

impl World {
    /// Starts an agent on a host: it takes up what the journal and the executor know.
    pub(super) fn start_agent(&mut self, index: usize) {
        let managers = (0..self.script.managers).collect();
        let (now, description) = (self.now, self.description(index));
        let host = &mut self.hosts[index];
        host.lives += 1;
        let mut state = AgentState::new(host.id, Timing::default());
        let journal = host.journal.values().cloned().collect();
        state.restore(journal, host.machine.inventory(), host.local(now));
        state.describe(description);
        // Not of the dice: nothing else is drawn otherwise.
        let pauses = (host.lives << 16) | index as u64;
        host.agent = Some(Agent {
            state,
            life: host.lives,
            work: BTreeMap::new(),
            phase: Phase::Idle { until: now },
            backoff: Backoff::new(IdSource::seeded(pauses)),
            managers,
            report_at: None,
        });
        self.note_of(index, format_args!("the agent starts"));
        self.agent_turn(index);
    }

    /// What a node says of itself.
    pub(super) fn description(&self, index: usize) -> NodeDescription {
        let mut description = NodeDescription::default();
        description.hostname.clone_from(&self.hosts[index].name);
        description.platform.os = "linux".to_owned();
        let architecture = if index % 5 == 4 { "aarch64" } else { "x86_64" };
        description.platform.architecture = architecture.to_owned();
        description.resources.nano_cpus = 8_000_000_000;
        description.resources.memory_bytes = 16 << 30;
        description.engine.engine_id.clone_from(&self.hosts[index].name);
        description
    }

    /// Lets an agent do what is due.
    pub(super) fn agent_turn(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        if !host.is_running(now) {
            return;
        }
        let Some(mut agent) = host.agent.take() else { return };
        self.session_timers(index, &mut agent);
        let local = self.hosts[index].local(now);
        let todo = agent.state.poll(local);
        self.carry_out(index, &mut agent, todo);
        self.report(&mut agent);
        let host = &mut self.hosts[index];
        let wake = agent.state.wake_at().map(|at| host.clock.when(at, now));
        let wake = [wake, agent.wake_at()].into_iter().flatten().min();
        host.agent = Some(agent);
        self.wake(index, AGENT, wake);
    }

    fn session_timers(&mut self, index: usize, agent: &mut Agent) {
        match agent.phase {
            Phase::Idle { until } if until <= self.now => self.open_session(index, agent),
            Phase::Opening { stream, until } if until <= self.now => {
                self.close(stream, true);
                self.session_lost(agent);
            }
            Phase::Open { stream, period, beat_at } if beat_at <= self.now => {
                agent.phase = Phase::Open { stream, period, beat_at: self.now + period };
                self.send(stream, true, Message::Agent(AgentMessage::Heartbeat));
            }
            _ => {}
        }
    }

    fn open_session(&mut self, index: usize, agent: &mut Agent) {
        let target = agent.managers.first().copied().unwrap_or_default();
        let end = End { host: index, life: agent.life };
        let life = self.hosts[target].manager.as_ref().map_or(0, |manager| manager.life);
        let stream = self.net.open(end, End { host: target, life });
        agent.phase = Phase::Opening { stream, until: self.now + PATIENCE };
        let (description, addr) = (self.description(index), format!("192.0.2.{}", index + 1));
        self.send(stream, true, Message::Agent(AgentMessage::Hello { description, addr }));
    }

    /// The session ended or did not begin: the next manager is tried after a pause.
    fn session_lost(&mut self, agent: &mut Agent) {
        let ended = if agent.in_session() { Ended::Lost } else { Ended::Unopened };
        self.session_ended(agent, ended);
        if !agent.managers.is_empty() {
            agent.managers.rotate_left(1);
        }
    }

    fn session_ended(&mut self, agent: &mut Agent, ended: Ended) {
        agent.report_at = None;
        agent.phase = Phase::Idle { until: self.now + agent.backoff.after(ended) };
    }

    /// A message for an agent.
    pub(super) fn agent_hears(&mut self, index: usize, stream: StreamId, message: Message) {
        let Some(mut agent) = self.hosts[index].agent.take() else { return };
        if agent.stream() == Some(stream) {
            self.agent_reads(index, &mut agent, stream, message);
        }
        self.hosts[index].agent = Some(agent);
        self.agent_turn(index);
    }

    fn agent_reads(&mut self, index: usize, agent: &mut Agent, stream: StreamId, message: Message) {
        let Message::Manager(message) = message else {
            self.net.streams.remove(&stream);
            return self.session_lost(agent);
        };
        match message {
            ManagerMessage::Welcome { settings, .. } => {
                let period = settings.heartbeat.duration();
                agent.phase = Phase::Open { stream, period, beat_at: self.now + period };
                agent.managers = self.indexes(&settings.managers);
                agent.state.begin_session();
                agent.report_at = Some(self.now);
                self.note_of(index, format_args!("in session"));
            }
            ManagerMessage::Settings(settings) => {
                let period = settings.heartbeat.duration();
                agent.phase = Phase::Open { stream, period, beat_at: self.now + period };
                agent.managers = self.indexes(&settings.managers);
            }
            // Simulated nodes have no certificates.
            ManagerMessage::Trust(_) => {}
            ManagerMessage::Assignments(mut set) => {
                if self.meddle.never_drops && set.applies_to.is_none() {
                    let kept = self.hosts[index].journal.values();
                    set.put.extend(kept.map(|record| Item::Task(record.task.clone())));
                }
                let local = self.hosts[index].local(self.now);
                if let Err(gap) = agent.state.assign(set, local) {
                    self.covered("agent: a gap in the assignments opens a new session");
                    self.note_of(index, format_args!("{gap}"));
                    self.close(stream, true);
                    self.session_lost(agent);
                }
            }
            ManagerMessage::Redirect(settings) => {
                self.close(stream, true);
                self.session_ended(agent, Ended::Redirected);
                agent.managers = self.indexes(&settings.managers);
                self.covered("agent: redirected to the leader");
            }
            ManagerMessage::Refused { reason } => {
                self.note_of(index, format_args!("refused: {reason}"));
                self.covered("agent: a removed node is refused");
                self.net.streams.remove(&stream);
                agent.phase = Phase::Refused;
                agent.report_at = None;
                self.schedule(REJOIN_AFTER, Event::Rejoin(index));
            }
            ManagerMessage::Logs(_) | ManagerMessage::CancelLogs(_) => {}
        }
    }

    fn indexes(&self, names: &[String]) -> Vec<usize> {
        let index = |name: &String| self.hosts.iter().position(|host| host.name == *name);
        names.iter().filter_map(index).collect()
    }

    fn carry_out(&mut self, index: usize, agent: &mut Agent, todo: Todo) {
        let host = &mut self.hosts[index];
        for entry in todo.journal {
            match entry {
                Entry::Put(record) => {
                    host.journal.insert(record.task.id, *record);
                }
                Entry::Forget(task) => {
                    host.journal.remove(&task);
                }
            }
        }
        for Work { task, ticket, job } in todo.work {
            let former = agent.work.insert(task, (ticket, job.clone()));
            if let Some((_, former)) = former {
                self.abandon(index, task, &former);
            }
            self.begin(index, agent.life, task, ticket, &job);
        }
        if agent.report_at.is_none() && agent.in_session() && agent.state.has_reports() {
            agent.report_at = Some(self.now + REPORT_AFTER);
        }
    }

    /// Work that is dropped while it is done: it may have been done already.
    fn abandon(&mut self, index: usize, task: TaskId, job: &Job) {
        if !matches!(job, Job::Wait) && self.dice.percent(50) {
            let (_, ending) = self.hosts[index].machine.perform(task, job, &mut self.dice);
            self.covered("agent: abandoned work was done nevertheless");
            self.schedule_ending(index, ending);
        }
    }

    fn begin(&mut self, index: usize, life: u64, task: TaskId, ticket: u64, job: &Job) {
        let machine = &self.hosts[index].machine;
        let takes = machine.takes(task, job, &mut self.dice);
        let takes = match takes {
            Some(takes) => takes,
            None if machine.runs(task) => return,
            None => Duration::from_millis(1),
        };
        self.schedule(takes, Event::Work { host: index, life, task, ticket });
    }

    /// The time that a piece of work takes has passed.
    pub(super) fn work_done(&mut self, index: usize, life: u64, task: TaskId, ticket: u64) {
        let local = self.hosts[index].local(self.now);
        let host = &mut self.hosts[index];
        if host.machine.hung {
            self.covered("executor: work hangs");
            return;
        }
        let Some(agent) = host.agent.as_mut().filter(|agent| agent.life == life) else { return };
        let Some((_, job)) = agent.work.get(&task).filter(|(latest, _)| *latest == ticket) else {
            return;
        };
        let job = job.clone();
        agent.work.remove(&task);
        let (outcome, ending) = host.machine.perform(task, &job, &mut self.dice);
        agent.state.finished(task, ticket, outcome, local);
        self.schedule_ending(index, ending);
        self.agent_turn(index);
    }

    fn schedule_ending(&mut self, host: usize, ending: Option<Ending>) {
        if let Some(Ending { task, life, after, exit }) = ending {
            self.schedule(after, Event::Exit { host, task, life, exit });
        }
    }

    /// A container ends by itself.
    pub(super) fn container_ends(&mut self, index: usize, task: TaskId, exit: &Exit) {
        let host = &mut self.hosts[index];
        if !host.machine.runs(task) || !host.machine.end(task, exit) {
            return;
        }
        let name = host.name.clone();
        let work = host.agent.as_ref().and_then(|agent| {
            let (ticket, job) = agent.work.get(&task)?;
            matches!(job, Job::Wait).then_some((agent.life, *ticket))
        });
        let called = self.name_of(task);
        self.note(format_args!("{name}: {called} exits with {}", exit.code));
        if let Some((life, ticket)) = work {
            let soon = self.dice.millis(1, 20);
            self.schedule(soon, Event::Work { host: index, life, task, ticket });
        }
    }

    /// Work that hung goes on.
    pub(super) fn resume_work(&mut self, index: usize) {
        let Some(agent) = self.hosts[index].agent.take() else { return };
        for (task, (ticket, job)) in &agent.work {
            self.begin(index, agent.life, *task, *ticket, job);
        }
        self.hosts[index].agent = Some(agent);
    }

    fn report(&mut self, agent: &mut Agent) {
        let Phase::Open { stream, .. } = agent.phase else { return };
        if agent.report_at.is_none_or(|at| at > self.now) {
            return;
        }
        agent.report_at = None;
        let reports = agent.state.take_reports(REPORTS);
        if !reports.is_empty() {
            self.send(stream, true, Message::Agent(AgentMessage::Statuses(reports)));
        }
    }
}
