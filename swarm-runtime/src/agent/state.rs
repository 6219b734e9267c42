//! Pure: everything an agent knows and decides. Assignments, outcomes of work and the time go in;
//! work, journal entries, the desired network state and status reports come out.
//!
//! The [`shell`](super::shell) around it only carries out. A simulation drives this type directly.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use swarm_core::executor::{Assignment, ExecError, ExecErrorKind, Found, Observed};
use swarm_core::model::{
    NetworkId, NodeDescription, NodeId, SecretId, Task, TaskId, TaskState, TaskStatus,
};
use swarm_core::network::{Attachment, NodeNetwork};
use swarm_core::protocol::{Assignments, Item, ItemKey};
use swarm_core::time::Timestamp;

use super::assemble::Shelf;
use super::step::{Op, Outcome, Run, Step, Timing};

/// What the journal keeps of a task, so that a restarted agent resumes it. Secrets, configs and
/// registry credentials are not in it: the manager sends them again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The task as it was assigned last.
    pub task: Arc<Task>,
    /// What was observed of it.
    pub status: TaskStatus,
    /// The addresses that its networks gave it.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// A change of the journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Keep, in place of what was kept of the task.
    Put(Box<Record>),
    /// Keep nothing of the task.
    Forget(TaskId),
}

impl Entry {
    /// What is to be kept, if anything.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Put(record) => Some(record),
            Self::Forget(_) => None,
        }
    }
}

/// Work for one task. New work for a task replaces whatever is done for it.
#[derive(Clone, Debug)]
pub struct Work {
    /// The task.
    pub task: TaskId,
    /// The number to give back with the outcome.
    pub ticket: u64,
    /// What is to be done.
    pub job: Job,
}

/// What is to be done for a task, with everything that it takes.
#[derive(Clone, Debug)]
pub enum Job {
    /// Prepare it and attach it to its networks. Answer: [`Outcome::Prepared`].
    Prepare(Box<Assignment>),
    /// Attach it again; it is prepared already. Answer: [`Outcome::Attached`].
    Attach(Box<Assignment>),
    /// Start it. Answer: [`Outcome::Started`].
    Start {
        /// The task.
        task: Arc<Task>,
        /// Its places in networks.
        attachments: Vec<Attachment>,
        /// The addresses that they gave it already.
        addresses: Vec<IpAddr>,
    },
    /// Wait for its end. Answer: [`Outcome::Exited`].
    Wait,
    /// Stop it and detach it. Answer: [`Outcome::Stopped`].
    Stop {
        /// Time between the stop signal and the kill.
        grace: Duration,
        /// Whether it may have run, and so has an exit code to tell.
        started: bool,
    },
    /// Remove what is left. Answer: [`Outcome::Removed`].
    Remove,
}

impl Job {
    /// The outcome of this job where it fails.
    #[must_use]
    pub fn failed(&self, error: ExecError) -> Outcome {
        match self {
            Self::Prepare(_) => Outcome::Prepared(Err(error)),
            Self::Attach(_) => Outcome::Attached(Err(error)),
            Self::Start { .. } => Outcome::Started(Err(error)),
            Self::Wait => Outcome::Exited(Err(error)),
            Self::Stop { .. } => Outcome::Stopped(Err(error)),
            Self::Remove => Outcome::Removed(Err(error)),
        }
    }
}

/// What to do now, in this order: the journal first, so that a restart finds what was begun.
#[derive(Clone, Debug, Default)]
pub struct Todo {
    /// Write these down, durably.
    pub journal: Vec<Entry>,
    /// Make the node's networks so. Only ever the latest counts.
    pub network: Option<NodeNetwork>,
    /// Begin this work.
    pub work: Vec<Work>,
}

/// A set of changes does not apply to what the agent has: open a new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("changes for set {applies_to} came while set {have:?} was in hand: a message was lost")]
pub struct Gap {
    /// The set that the changes apply to.
    pub applies_to: u64,
    /// The set that the agent has.
    pub have: Option<u64>,
}

/// Everything an agent knows.
#[derive(Clone, Debug)]
pub struct AgentState {
    node: NodeId,
    timing: Timing,
    description: NodeDescription,
    /// The set in hand; absent from the beginning of a session to its first.
    set: Option<u64>,
    shelf: Shelf,
    runs: BTreeMap<TaskId, Run>,
    strays: BTreeMap<TaskId, Found>,
    dirty: BTreeSet<TaskId>,
    timers: BTreeSet<(Timestamp, TaskId)>,
    unwritten: BTreeSet<TaskId>,
    forgotten: Vec<TaskId>,
    unreported: BTreeSet<TaskId>,
    network_changed: bool,
    tickets: u64,
    /// The time of the last look.
    looked_at: Timestamp,
}

impl AgentState {
    /// The state of an agent that knows nothing yet.
    #[must_use]
    pub fn new(node: NodeId, timing: Timing) -> Self {
        Self {
            node,
            timing,
            description: NodeDescription::default(),
            set: None,
            shelf: Shelf::default(),
            runs: BTreeMap::new(),
            strays: BTreeMap::new(),
            dirty: BTreeSet::new(),
            timers: BTreeSet::new(),
            unwritten: BTreeSet::new(),
            forgotten: Vec::new(),
            unreported: BTreeSet::new(),
            network_changed: false,
            tickets: 0,
            looked_at: Timestamp::ZERO,
        }
    }

    /// Takes up what an earlier agent of this node left: its journal and what the executor finds.
    /// Tasks that still run are waited for, tasks whose container is gone have failed. What the
    /// journal does not know is kept until a complete set tells whether it is assigned.
    pub fn restore(&mut self, journal: Vec<Record>, found: Vec<Observed>, now: Timestamp) {
        self.strays = found.into_iter().map(|observed| (observed.task, observed.found)).collect();
        for record in journal {
            let id = record.task.id;
            let found = self.strays.remove(&id);
            let mut run = Run::new(record.task, record.status);
            run.addresses = record.addresses;
            resume(&mut run, found, now);
            self.take_in(id, run);
        }
    }

    /// What the node says of itself, for templates.
    pub fn describe(&mut self, description: NodeDescription) {
        self.description = description;
    }

    /// Takes a set of assignments.
    ///
    /// # Errors
    /// [`Gap`] when changes do not apply to the set in hand; nothing was changed.
    pub fn assign(&mut self, set: Assignments, now: Timestamp) -> Result<(), Gap> {
        match set.applies_to {
            // It was delivered twice: what it says is out of date.
            None if self.set.is_some_and(|have| set.results_in <= have) => return Ok(()),
            None => self.begin_complete_set(&set.put),
            Some(applies_to) if self.set == Some(applies_to) => {}
            Some(applies_to) => return Err(Gap { applies_to, have: self.set }),
        }
        for key in &set.drop {
            self.network_changed |= self.shelf.drop(key);
            if let ItemKey::Task(id) = key {
                self.drop_task(*id);
            }
        }
        let (tasks, others): (Vec<_>, Vec<_>) =
            set.put.into_iter().partition(|item| matches!(item, Item::Task(_)));
        for item in others {
            if let Item::Network(view) = &item {
                self.network_arrived(view.network.id);
            }
            self.network_changed |= self.shelf.put(item);
        }
        for item in tasks {
            if let Item::Task(task) = item {
                self.put_task(task, now);
            }
        }
        self.set = Some(set.results_in);
        Ok(())
    }

    /// Whatever is not in a complete set must go.
    fn begin_complete_set(&mut self, put: &[Item]) {
        let listed: BTreeSet<ItemKey> = put.iter().map(Item::key).collect();
        self.shelf = Shelf::default();
        self.network_changed = true;
        let gone = |id: &&TaskId| !listed.contains(&ItemKey::Task(**id));
        let runs: Vec<TaskId> = self.runs.keys().filter(gone).copied().collect();
        runs.into_iter().for_each(|id| self.drop_task(id));
        let strays: Vec<TaskId> = self.strays.keys().filter(gone).copied().collect();
        for id in strays {
            self.strays.remove(&id);
            let task = Task { id, node_id: Some(self.node), ..Default::default() };
            let mut run = Run::new(Arc::new(task), TaskStatus::default());
            run.status.state = TaskState::Running;
            run.dropped = true;
            self.runs.insert(id, run);
            self.dirty.insert(id);
        }
    }

    fn drop_task(&mut self, id: TaskId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.dropped = true;
            run.not_before = None;
            self.unreported.remove(&id);
            self.dirty.insert(id);
        }
    }

    fn network_arrived(&mut self, network: NetworkId) {
        let waiting = self.runs.iter_mut().filter(|(_, run)| {
            run.status.state == TaskState::Preparing
                && run.task.networks.iter().any(|place| place.network.id == network)
        });
        for (id, run) in waiting {
            run.not_before = None;
            self.dirty.insert(*id);
        }
    }

    fn put_task(&mut self, task: Arc<Task>, now: Timestamp) {
        let id = task.id;
        let Some(run) = self.runs.get_mut(&id) else {
            let status = task.status.clone();
            let mut run = Run::new(task, status);
            let found = self.strays.remove(&id);
            let assigned = run.status.clone();
            begin(&mut run, found, now);
            run.confirmed = true;
            self.take_in(id, run);
            if self.runs[&id].status == assigned {
                self.unreported.remove(&id);
            }
            return;
        };
        let was_ending = run.is_ending();
        if *run.task != *task {
            self.unwritten.insert(id);
        }
        // What became of it while it was not assigned, nobody was told.
        if run.dropped {
            self.unreported.insert(id);
        }
        run.task = task;
        run.confirmed = true;
        run.dropped = false;
        if run.is_ending() && !was_ending {
            run.not_before = None;
            run.failures = 0;
        }
        self.dirty.insert(id);
    }

    fn take_in(&mut self, id: TaskId, run: Run) {
        self.runs.insert(id, run);
        self.dirty.insert(id);
        self.unwritten.insert(id);
        self.unreported.insert(id);
    }

    /// Takes the outcome of work; that of abandoned work is ignored.
    pub fn finished(&mut self, task: TaskId, ticket: u64, outcome: Outcome, now: Timestamp) {
        let Some(run) = self.runs.get_mut(&task) else { return };
        if run.doing.is_none_or(|(_, doing)| doing != ticket) {
            return;
        }
        let before = run.status.clone();
        run.finish(outcome, now, &self.timing);
        let changed = run.status != before;
        self.note(task, changed);
    }

    fn note(&mut self, task: TaskId, changed: bool) {
        self.dirty.insert(task);
        if changed {
            self.unwritten.insert(task);
            if !self.runs[&task].dropped {
                self.unreported.insert(task);
            }
        }
    }

    /// Everything that is to be done now.
    pub fn poll(&mut self, now: Timestamp) -> Todo {
        if now < self.looked_at {
            self.turn_back(self.looked_at.since(now));
        }
        self.looked_at = now;
        while let Some((at, task)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            self.dirty.insert(task);
        }
        let mut todo = Todo::default();
        while let Some(task) = self.dirty.pop_first() {
            self.advance(task, now, &mut todo);
        }
        todo.journal.extend(self.forgotten.drain(..).map(Entry::Forget));
        for task in std::mem::take(&mut self.unwritten) {
            if let Some(run) = self.runs.get(&task) {
                todo.journal.push(Entry::Put(Box::new(record(run))));
            }
        }
        // Before the first set, nothing is known of networks: what runs keeps what it has.
        if self.set.is_some() && std::mem::take(&mut self.network_changed) {
            todo.network = Some(self.shelf.node_network());
        }
        todo
    }

    /// The clock was set back: whatever waits for a time keeps its pause, not its hour.
    fn turn_back(&mut self, by: Duration) {
        let timers = std::mem::take(&mut self.timers);
        self.timers = timers.into_iter().map(|(at, task)| (at.before(by), task)).collect();
        for run in self.runs.values_mut() {
            run.not_before = run.not_before.map(|at| at.before(by));
            run.drained_at = run.drained_at.map(|at| at.before(by));
        }
    }

    /// Takes one step of one task.
    fn advance(&mut self, id: TaskId, now: Timestamp, todo: &mut Todo) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        match run.step(now, &self.timing) {
            Step::Idle => {}
            Step::Until(at) => {
                self.timers.insert((at, id));
            }
            Step::Drain => {
                run.drained_at = Some(now + self.timing.drain);
                self.dirty.insert(id);
            }
            Step::Become(state, message) => {
                run.become_state(state, message, now);
                self.note(id, true);
            }
            Step::Forget => {
                self.runs.remove(&id);
                self.unreported.remove(&id);
                self.forgotten.push(id);
            }
            Step::Do(op) => self.begin_work(id, op, now, todo),
        }
    }

    fn begin_work(&mut self, id: TaskId, op: Op, now: Timestamp, todo: &mut Todo) {
        self.tickets += 1;
        let ticket = self.tickets;
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.doing = Some((op, ticket));
        let assignment = || {
            let assignment = self.shelf.assignment(&run.task, self.node, &self.description);
            assignment.map(Box::new).map_err(|error| patience(run, error, now, &self.timing))
        };
        let job = match op {
            Op::Prepare => assignment().map(Job::Prepare).map_err(|e| Outcome::Prepared(Err(e))),
            Op::Attach => assignment().map(Job::Attach).map_err(|e| Outcome::Attached(Err(e))),
            Op::Start => Ok(Job::Start {
                task: run.task.clone(),
                attachments: self.shelf.attachments(&run.task),
                addresses: run.addresses.clone(),
            }),
            Op::Wait => Ok(Job::Wait),
            Op::Stop => Ok(Job::Stop {
                grace: run.grace(),
                started: run.status.state >= TaskState::Starting,
            }),
            Op::Remove => Ok(Job::Remove),
        };
        match job {
            Ok(job) => todo.work.push(Work { task: id, ticket, job }),
            Err(outcome) => self.finished(id, ticket, outcome, now),
        }
    }

    /// When [`poll`](Self::poll) has something to do although nothing came in.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether statuses changed that were not reported.
    #[must_use]
    pub fn has_reports(&self) -> bool {
        !self.unreported.is_empty()
    }

    /// Statuses that changed since they were last taken, that many at most: a message has a
    /// bearable size, and what is left goes with the next one.
    pub fn take_reports(&mut self, most: usize) -> Vec<(TaskId, TaskStatus)> {
        let mut ids = std::mem::take(&mut self.unreported);
        if let Some(rest) = ids.iter().nth(most).copied() {
            self.unreported = ids.split_off(&rest);
        }
        let status = |id| Some((id, self.runs.get(&id)?.status.clone()));
        ids.into_iter().filter_map(status).collect()
    }

    /// A new session began: every status is to be reported again, and a complete set comes first.
    pub fn begin_session(&mut self) {
        self.set = None;
        let kept = self.runs.iter().filter(|(_, run)| !run.dropped);
        self.unreported = kept.map(|(id, _)| *id).collect();
    }

    /// What this node observed of a task.
    #[must_use]
    pub fn status(&self, task: TaskId) -> Option<&TaskStatus> {
        self.runs.get(&task).map(|run| &run.status)
    }

    /// Whether it knows of a task: assigned, to be removed, or found by the executor and kept until
    /// a complete set tells what it is.
    #[must_use]
    pub fn holds(&self, task: TaskId) -> bool {
        self.runs.contains_key(&task) || self.strays.contains_key(&task)
    }

    /// What it does for a task, and what it last was told about it.
    #[must_use]
    pub fn run(&self, task: TaskId) -> Option<&Run> {
        self.runs.get(&task)
    }

    /// The secrets whose bytes are here.
    pub fn secrets(&self) -> impl Iterator<Item = SecretId> + '_ {
        self.shelf.secrets()
    }

    /// The tasks that this node holds something for.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.runs.keys().copied()
    }
}

/// A task waits for a network for a while, not for ever.
fn patience(run: &Run, error: ExecError, now: Timestamp, timing: &Timing) -> ExecError {
    let temporary = error.kind == ExecErrorKind::Temporary;
    match temporary && now.since(run.status.timestamp) >= timing.networks {
        true => ExecError { kind: ExecErrorKind::Rejected, ..error },
        false => error,
    }
}

fn gone() -> ExecError {
    ExecError::failed("the task's container is gone: it was removed while no agent watched it")
}

/// Takes up a task from the journal.
fn resume(run: &mut Run, found: Option<Found>, now: Timestamp) {
    let state = run.status.state;
    if state.is_terminal() || state < TaskState::Ready {
        return;
    }
    run.reattach = !run.task.networks.is_empty();
    match (state, found) {
        (_, Some(Found::Exited(exit))) => run.exited(&exit, now),
        (_, None) | (TaskState::Running, Some(Found::Prepared)) => run.fail(&gone(), now),
        _ => {}
    }
}

/// Takes up a task that the journal does not know: new, as a rule.
fn begin(run: &mut Run, found: Option<Found>, now: Timestamp) {
    let state = run.status.state;
    match found {
        _ if state.is_terminal() => {}
        Some(Found::Exited(exit)) => run.exited(&exit, now),
        // The journal was lost, the container was not. Every step is idempotent, and what it
        // reports the manager knows already.
        Some(_) => run.become_state(TaskState::Accepted, "accepted", now),
        None if state >= TaskState::Ready => run.fail(&gone(), now),
        None => {}
    }
}

fn record(run: &Run) -> Record {
    let mut task = run.task.clone();
    if task.registry_auth.is_some() {
        Arc::make_mut(&mut task).registry_auth = None;
    }
    Record { task, status: run.status.clone(), addresses: run.addresses.clone() }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
