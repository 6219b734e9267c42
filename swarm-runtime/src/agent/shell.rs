//! The [`Agent`]: a thin tokio shell around [`AgentState`]. It holds the session, runs the work
//! and writes the journal; it decides nothing.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use swarm_core::executor::{ExecError, ExecErrorKind, Executor, Observed};
use swarm_core::model::{NodeDescription, NodeId, TaskId};
use swarm_core::network::NetworkDriver;
use swarm_core::protocol::{AgentMessage, ManagerMessage};
use swarm_core::time::{Clock, SystemClock};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::hands::Hands;
use super::journal::Journal;
use super::link::Link;
use super::logs::LogRequests;
use super::networks::Networks;
use super::session::{Event, Outbox, Sessions};
use super::state::{AgentState, Work};
use super::step::{Outcome, Timing};

/// How long changed statuses wait for company before they are reported (SwarmKit: 100 ms).
pub const REPORT_AFTER: Duration = Duration::from_millis(100);
/// Statuses in one message at most.
pub const REPORTS: usize = 2000;
/// How often the node looks at itself (SwarmKit: 20 s).
const DESCRIBE_EVERY: Duration = Duration::from_secs(20);
/// The pause before an executor that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why an agent ended on its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The cluster refuses the node: it was removed, or another node uses its identity. Join
    /// again with a new identity.
    #[error("the cluster refuses this node: {0}")]
    Refused(String),
    /// The executor cannot work at all.
    #[error("the executor does not work: {0}")]
    Executor(#[source] ExecError),
    /// The journal's directory cannot be used.
    #[error("the journal cannot be used: {0}")]
    Journal(#[source] io::Error),
}

/// Puts an [`Agent`] together.
pub struct AgentBuilder {
    node: NodeId,
    executor: Arc<dyn Executor>,
    link: Arc<dyn Link>,
    drivers: Vec<Arc<dyn NetworkDriver>>,
    journal: Option<PathBuf>,
    addr: String,
    timing: Timing,
    clock: Arc<dyn Clock>,
    amend: Arc<Amend>,
}

/// What a node says of itself beyond what its executor knows.
type Amend = dyn Fn(&mut NodeDescription) + Send + Sync;

impl AgentBuilder {
    /// Adds a network driver for the networks that carry its name. The first one also carries the
    /// published ports. Without any, tasks reach no networks.
    #[must_use]
    pub fn network(mut self, driver: Arc<dyn NetworkDriver>) -> Self {
        self.drivers.push(driver);
        self
    }

    /// Where the journal lives. Without one, a restarted agent knows its tasks only from the
    /// executor and the manager.
    #[must_use]
    pub fn journal(mut self, dir: impl Into<PathBuf>) -> Self {
        self.journal = Some(dir.into());
        self
    }

    /// The address that the node advertises; the manager takes the one it sees by default.
    #[must_use]
    pub fn addr(mut self, addr: impl Into<String>) -> Self {
        self.addr = addr.into();
        self
    }

    /// Other waiting times.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Another clock, for the times of statuses.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Amends what the executor says of the node, each time it is asked: the operator's host name
    /// and labels, what the node trusts.
    #[must_use]
    pub fn describe_with(
        mut self,
        amend: impl Fn(&mut NodeDescription) + Send + Sync + 'static,
    ) -> Self {
        self.amend = Arc::new(amend);
        self
    }

    /// The agent.
    ///
    /// # Errors
    /// [`AgentError::Journal`] when the journal's directory cannot be made.
    pub fn build(self) -> Result<Agent, AgentError> {
        let journal = match self.journal {
            Some(dir) => Journal::open(dir).map_err(AgentError::Journal)?,
            None => Journal::none(),
        };
        Ok(Agent {
            node: self.node,
            hands: Arc::new(Hands::new(self.executor, Networks::new(self.drivers))),
            link: self.link,
            journal,
            addr: self.addr,
            timing: self.timing,
            clock: self.clock,
            amend: self.amend,
            look: Notify::new(),
            leaving: Arc::default(),
        })
    }
}

/// Runs on a node what its manager assigns.
pub struct Agent {
    node: NodeId,
    hands: Arc<Hands>,
    link: Arc<dyn Link>,
    journal: Journal,
    addr: String,
    timing: Timing,
    clock: Arc<dyn Clock>,
    amend: Arc<Amend>,
    look: Notify,
    leaving: Arc<AtomicBool>,
}

impl Agent {
    /// An agent of a node, with what runs its tasks and how it reaches a manager.
    #[must_use]
    pub fn builder(node: NodeId, executor: Arc<dyn Executor>, link: Arc<dyn Link>) -> AgentBuilder {
        AgentBuilder {
            node,
            executor,
            link,
            drivers: Vec::new(),
            journal: None,
            addr: String::new(),
            timing: Timing::default(),
            clock: Arc::new(SystemClock),
            amend: Arc::new(|_| {}),
        }
    }

    /// The node leaves for good: when [`run`](Self::run) is cancelled, the manager is told, and
    /// the node is down at once. Otherwise a node that stops is given three heartbeats to come
    /// back, as one that broke.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Describes the node again now, and not at the next regular look: what
    /// [`describe_with`](AgentBuilder::describe_with) adds has changed.
    pub fn describe_now(&self) {
        self.look.notify_one();
    }

    /// Runs until it is cancelled or the cluster refuses the node. Either way tasks run on: the
    /// end of an agent is not the end of its tasks. Dropping the future is like cancelling, but
    /// the manager is not told.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn run(&self, cancel: CancellationToken) -> Result<(), AgentError> {
        tokio::select! {
            result = self.run_sessions(&cancel) => result,
            // The session has its own eye on `cancel` and says goodbye; this is for the time
            // before there is one.
            () = async { cancel.cancelled().await; tokio::time::sleep(ASK_AGAIN).await } => Ok(()),
        }
    }

    async fn run_sessions(&self, cancel: &CancellationToken) -> Result<(), AgentError> {
        let records = self.journal.load().map_err(AgentError::Journal)?;
        let found = self.inventory().await?;
        let description = watch::Sender::new(self.describe().await?);
        let mut state = AgentState::new(self.node, self.timing);
        state.restore(records, found, self.clock.now());
        state.describe(description.borrow().clone());

        let (events, inbox) = mpsc::channel(64);
        let sessions = Sessions {
            link: self.link.clone(),
            addr: self.addr.clone(),
            description: description.subscribe(),
            events,
            cancel: cancel.clone(),
            leaving: self.leaving.clone(),
        };
        let shell = Shell {
            agent: self,
            state,
            work: JoinSet::new(),
            by_task: HashMap::new(),
            session: None,
            report_at: None,
        };
        let descriptions = description.subscribe();
        tokio::select! {
            refused = sessions.keep_open() => match refused {
                Some(reason) => Err(AgentError::Refused(reason)),
                None => Ok(()),
            },
            never = shell.run(inbox, descriptions) => match never {},
            () = self.hands.networks.keep() => Ok(()),
            () = self.keep_describing(&description) => Ok(()),
        }
    }

    async fn inventory(&self) -> Result<Vec<Observed>, AgentError> {
        loop {
            match self.hands.executor.inventory().await {
                Ok(found) => return Ok(found),
                Err(error) => self.ask_again(error).await?,
            }
        }
    }

    async fn describe(&self) -> Result<NodeDescription, AgentError> {
        loop {
            match self.hands.executor.describe().await {
                Ok(mut description) => {
                    (self.amend)(&mut description);
                    return Ok(description);
                }
                Err(error) => self.ask_again(error).await?,
            }
        }
    }

    async fn ask_again(&self, error: ExecError) -> Result<(), AgentError> {
        if error.kind != ExecErrorKind::Temporary {
            return Err(AgentError::Executor(error));
        }
        warn!(%error, "the executor does not answer; asking again");
        tokio::time::sleep(ASK_AGAIN).await;
        Ok(())
    }

    async fn keep_describing(&self, description: &watch::Sender<NodeDescription>) {
        loop {
            let _ = tokio::time::timeout(DESCRIBE_EVERY, self.look.notified()).await;
            match self.hands.executor.describe().await {
                Ok(mut new) => {
                    (self.amend)(&mut new);
                    description.send_if_modified(|old| {
                        let changed = *old != new;
                        *old = new;
                        changed
                    });
                }
                Err(error) => warn!(%error, "the executor does not describe the node"),
            }
        }
    }

    /// Stops and removes every task of this node and its networks, and clears the journal: what
    /// leaving a swarm does. Call it when [`run`](Self::run) has ended.
    ///
    /// # Errors
    /// The first error; everything else was removed nevertheless. Call it again.
    pub async fn purge(&self) -> Result<(), AgentError> {
        self.hands.purge().await.map_err(AgentError::Executor)?;
        self.journal.clear().map_err(AgentError::Journal)
    }
}

enum Never {}

/// A running agent.
struct Shell<'a> {
    agent: &'a Agent,
    state: AgentState,
    work: JoinSet<(TaskId, u64, Outcome)>,
    by_task: HashMap<TaskId, (u64, AbortHandle)>,
    session: Option<(Outbox, LogRequests)>,
    report_at: Option<Instant>,
}

impl Shell<'_> {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Event>,
        mut descriptions: watch::Receiver<NodeDescription>,
    ) -> Never {
        loop {
            self.carry_out().await;
            let wake = self.wake_at();
            tokio::select! {
                Some(done) = self.work.join_next() => {
                    self.done(done);
                    // Whatever else is done shares one write of the journal with it.
                    while let Some(done) = self.work.try_join_next() {
                        self.done(done);
                    }
                }
                Some(event) = inbox.recv() => self.event(event),
                Ok(()) = descriptions.changed() => {
                    self.state.describe(descriptions.borrow_and_update().clone());
                }
                () = pin!(sleep_until(wake)) => {}
                () = pin!(sleep_until(self.report_at)) => self.report(),
            }
        }
    }

    fn now(&self) -> swarm_core::time::Timestamp {
        self.agent.clock.now()
    }

    fn wake_at(&self) -> Option<Instant> {
        self.state.wake_at().map(|at| Instant::now() + at.since(self.now()))
    }

    /// Does what the state says: journal, networks, work.
    async fn carry_out(&mut self) {
        let todo = self.state.poll(self.now());
        if !todo.journal.is_empty() {
            let journal = self.agent.journal.clone();
            let written = tokio::task::spawn_blocking(move || journal.apply(&todo.journal)).await;
            if let Ok(Err(error)) = written {
                error!(%error, "the journal was not written: a restart would not resume this");
            }
        }
        if let Some(network) = todo.network {
            self.agent.hands.networks.want(network);
        }
        for Work { task, ticket, job } in todo.work {
            let hands = self.agent.hands.clone();
            let work = async move { (task, ticket, hands.perform(task, job).await) };
            let handle = self.work.spawn(work);
            if let Some((_, former)) = self.by_task.insert(task, (ticket, handle)) {
                former.abort();
            }
        }
        if self.report_at.is_none() && self.session.is_some() && self.state.has_reports() {
            self.report_at = Some(Instant::now() + REPORT_AFTER);
        }
    }

    fn done(&mut self, done: Result<(TaskId, u64, Outcome), tokio::task::JoinError>) {
        let (task, ticket, outcome) = match done {
            Ok(done) => done,
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                error!(%error, "work for a task panicked");
                let mut all = self.by_task.iter();
                let Some((task, (ticket, _))) = all.find(|(_, (_, h))| h.id() == error.id()) else {
                    return;
                };
                (*task, *ticket, Outcome::Crashed(error.to_string()))
            }
        };
        if self.by_task.get(&task).is_some_and(|(latest, _)| *latest == ticket) {
            self.by_task.remove(&task);
        }
        self.state.finished(task, ticket, outcome, self.now());
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Opened(outbox) => {
                self.session = Some((outbox, LogRequests::default()));
                self.state.begin_session();
                self.report();
            }
            Event::Closed => {
                self.session = None;
                self.report_at = None;
            }
            Event::Message(message) => self.message(message),
        }
    }

    fn message(&mut self, message: ManagerMessage) {
        let now = self.now();
        let Some((outbox, logs)) = &mut self.session else { return };
        match message {
            ManagerMessage::Assignments(set) => {
                if let Err(gap) = self.state.assign(set, now) {
                    warn!(%gap, "opening a new session");
                    outbox.abandon.cancel();
                }
            }
            ManagerMessage::Logs(request) => {
                logs.serve(self.agent.hands.executor.clone(), request, outbox.logs.clone());
            }
            ManagerMessage::CancelLogs(id) => logs.cancel(id),
            // The session took the others.
            _ => {}
        }
    }

    fn report(&mut self) {
        self.report_at = None;
        let Some((outbox, _)) = &self.session else { return };
        // Waiting for room here while the session waits for room in the inbox would be a deadlock.
        let Ok(room) = outbox.reports.try_reserve() else {
            self.report_at = Some(Instant::now() + REPORT_AFTER);
            return;
        };
        let reports = self.state.take_reports(REPORTS);
        if !reports.is_empty() {
            // When the session is gone already, the next one reports everything.
            room.send(AgentMessage::Statuses(reports));
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "shell_tests.rs"]
mod tests;
