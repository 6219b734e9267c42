//! One task that is prepared, runs or has ended: starting it, watching it, stopping it.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use swarm_core::executor::{ExecError, Exit, Found, Started};
use swarm_core::model::{ContainerStatus, PublishMode, TaskEndpoint};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::warn;

use super::log::Log;
use super::plan::{Check, Plan};
use super::supervise::{Process, TaskDir, kill_rest, launch, probe};
use super::{Config, cgroup, ports};

/// How often output is moved into the log, and files are looked for that a process will write.
const PUMP: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(5);
/// How long a supervisor may take from its start to its first file.
const BIRTH: Duration = Duration::from_secs(30);
/// Rounds of killing what is left of a task.
const ROUNDS: usize = 100;

/// What the health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Unknown,
    Healthy,
    Unhealthy,
}

/// The supervisor, as far as it is a child of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Child {
    None,
    Alive,
    Ended,
}

/// A task of this executor.
pub(super) struct Live {
    config: Arc<Config>,
    pub(super) dir: TaskDir,
    /// Ports get their numbers at the start.
    plan: Mutex<Plan>,
    pub(super) log: Arc<Log>,
    ended: watch::Sender<Option<Exit>>,
    health: watch::Sender<Health>,
    child: watch::Sender<Child>,
    /// One caller at a time starts it.
    starting: tokio::sync::Mutex<()>,
    watchers: Mutex<Vec<AbortHandle>>,
}

impl Live {
    /// A prepared task, or one that an earlier executor left.
    pub(super) fn new(config: Arc<Config>, dir: TaskDir, plan: Plan) -> Arc<Self> {
        let log = Arc::new(Log::open(dir.log(), config.log_bytes / 2));
        let health = if dir.was_healthy() { Health::Healthy } else { Health::Unknown };
        Arc::new(Self {
            config,
            dir,
            plan: Mutex::new(plan),
            log,
            ended: watch::Sender::new(None),
            health: watch::Sender::new(health),
            child: watch::Sender::new(Child::None),
            starting: tokio::sync::Mutex::default(),
            watchers: Mutex::default(),
        })
    }

    fn plan(&self) -> Plan {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ports that the task listens on, or will.
    pub(super) fn listens_on(&self) -> Vec<u16> {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.ports.iter().map(|port| port.published_port).collect()
    }

    pub(super) fn found(&self) -> Found {
        match self.ended.borrow().clone() {
            Some(exit) => Found::Exited(exit),
            None if self.dir.is_launched() => Found::Running,
            None => Found::Prepared,
        }
    }

    /// Whether the task ended, seen by this executor or not.
    pub(super) fn has_exited(&self) -> bool {
        self.dir.is_launched() && self.dir.exit(&self.plan().boot).is_some()
    }

    /// Watches a task that was launched, by this executor or an earlier one; once.
    pub(super) fn watch(self: &Arc<Self>) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if watchers.is_empty() {
            watchers.push(tokio::spawn(self.clone().keep()).abort_handle());
            if let Some(check) = self.plan().check {
                watchers.push(tokio::spawn(self.clone().examine(check)).abort_handle());
            }
        }
    }

    /// Looks away; the task runs on.
    pub(super) fn abandon(&self) {
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.iter().for_each(AbortHandle::abort);
    }

    /// Moves output until the task ends, then clears up behind it.
    async fn keep(self: Arc<Self>) {
        let plan = self.plan();
        let (supervisor, mut child) = (self.dir.supervisor(&plan.boot), self.child.subscribe());
        while supervisor.is_some_and(|supervisor| supervisor.is_there()) {
            // The end of an own child is told at once, that of an adopted one is looked for.
            let _ = tokio::time::timeout(PUMP, child.changed()).await;
            self.pump(false);
        }
        let mut exit = self.dir.exit(&plan.boot).unwrap_or_default();
        self.kill(&plan, None).await;
        self.pump(true);
        if let Some(parent) = &self.config.cgroup {
            if exit.code != 0 && exit.error.is_none() && cgroup::ran_out_of_memory(parent, &plan) {
                exit.error = Some("out of memory".to_owned());
            }
            cgroup::remove(parent, &plan);
        }
        self.log.finish();
        self.ended.send_replace(Some(exit));
    }

    fn pump(&self, last: bool) {
        if let Err(error) = self.log.pump(last) {
            warn!(dir = %self.dir.root.display(), %error, "a task's output was not moved to its log");
        }
    }

    /// Kills everything of the task but its supervisor, which tells the exit code.
    async fn kill(&self, plan: &Plan, supervisor: Option<Process>) {
        if let Some(parent) = &self.config.cgroup {
            cgroup::kill(parent, plan);
        }
        for _ in 0..ROUNDS {
            if kill_rest(plan, supervisor) == 0 {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
        warn!(task = %plan.task, "processes of a task survive their kill");
    }

    /// Starts the task, if nobody did, and returns once it is healthy.
    pub(super) async fn start(self: &Arc<Self>, taken: &[u16]) -> Result<Started, ExecError> {
        let _turn = self.starting.lock().await;
        if !self.dir.is_launched() {
            if !self.is_being_launched() {
                self.launch(taken)?;
            }
            self.until_launched().await?;
        }
        self.watch();
        let plan = self.plan();
        if plan.check.is_some() {
            self.until_healthy().await?;
        }
        let leader = self.until_led(&plan).await;
        Ok(self.started(&plan, leader))
    }

    /// Whether a start, which may have been interrupted since, is on its way.
    fn is_being_launched(&self) -> bool {
        *self.child.borrow() == Child::Alive && !self.dir.is_launched()
    }

    fn launch(&self, taken: &[u16]) -> Result<(), ExecError> {
        let mut plan = self.plan();
        ports::assign(&mut plan.ports, self.config.addr, taken)?;
        plan.announce_ports();
        super::write_plan(&self.dir, &plan)?;
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan.clone();
        let group = self.limits(&plan);
        let user = super::user(&plan)?;
        let failed = |error: io::Error| {
            ExecError::failed(format!("starting the process failed: {error}")).caused_by(error)
        };
        let mut child = launch(&self.dir, &plan, user, group.as_deref()).map_err(failed)?;
        let ended = self.child.clone();
        ended.send_replace(Child::Alive);
        tokio::spawn(async move {
            let _ = child.wait().await;
            ended.send_replace(Child::Ended);
        });
        Ok(())
    }

    fn limits(&self, plan: &Plan) -> Option<PathBuf> {
        if plan.limits == [0; 3] {
            return None;
        }
        let Some(parent) = &self.config.cgroup else {
            warn!(task = %plan.task, "limits are not enforced: no writable control groups (version 2)");
            return None;
        };
        cgroup::make(parent, plan).unwrap_or_else(|error| {
            warn!(task = %plan.task, %error, "limits are not enforced");
            None
        })
    }

    async fn until_launched(&self) -> Result<(), ExecError> {
        let (mut child, deadline) = (self.child.subscribe(), Instant::now() + BIRTH);
        loop {
            // In this order: it may end between the two looks.
            let ended = *child.borrow_and_update() == Child::Ended;
            if self.dir.is_launched() {
                return Ok(());
            }
            let why = match (ended, Instant::now() > deadline) {
                (true, _) => "the supervisor could not write down that it runs: is the disk full?",
                (_, true) => "the supervisor did not start in time",
                _ => {
                    let _ = tokio::time::timeout(LOOK, child.changed()).await;
                    continue;
                }
            };
            return Err(ExecError::temporary(why));
        }
    }

    /// The command itself; nothing if it has ended already.
    async fn until_led(&self, plan: &Plan) -> Option<Process> {
        loop {
            let leader = self.dir.leader(&plan.boot);
            if leader.is_some() || self.dir.exit(&plan.boot).is_some() {
                return leader;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn until_healthy(&self) -> Result<(), ExecError> {
        let (mut health, mut ended) = (self.health.subscribe(), self.ended.subscribe());
        let decided = tokio::select! {
            biased;
            health = health.wait_for(|health| *health != Health::Unknown) => {
                health.map_or(Health::Unknown, |health| *health)
            }
            _ = ended.wait_for(Option::is_some) => Health::Unknown,
        };
        match decided {
            Health::Healthy => Ok(()),
            Health::Unhealthy => Err(ExecError::failed("unhealthy container")),
            Health::Unknown => {
                let code = self.ended.borrow().as_ref().map(|exit| exit.code);
                let text = format!("task: non-zero exit ({})", code.unwrap_or_default());
                let error = match code {
                    Some(0) => ExecError::failed("task: ended before it was healthy"),
                    _ => ExecError::failed(text),
                };
                Err(ExecError { exit_code: code, ..error })
            }
        }
    }

    fn started(&self, plan: &Plan, leader: Option<Process>) -> Started {
        let endpoint = |port: &swarm_core::model::PortConfig| TaskEndpoint {
            target_port: port.target_port,
            protocol: port.protocol,
            address: std::net::SocketAddr::new(self.config.addr, port.published_port).to_string(),
            ..Default::default()
        };
        Started {
            container: ContainerStatus {
                container_id: plan.task.to_string(),
                pid: leader.map_or(0, |leader| i64::from(leader.pid)),
                ..Default::default()
            },
            ports: plan.ports_in(PublishMode::Host).cloned().collect(),
            endpoints: plan.ports_in(PublishMode::Ingress).map(endpoint).collect(),
        }
    }

    /// Tests the task's health again and again, as Docker does; stops it when it is unhealthy.
    async fn examine(self: Arc<Self>, check: Check) {
        let plan = self.plan();
        let Ok(user) = super::user(&plan) else { return };
        let born = Instant::now();
        let mut failures = 0;
        while self.ended.borrow().is_none() {
            let healthy = *self.health.borrow() == Health::Healthy;
            let starting = !healthy && born.elapsed() < check.start_period;
            let pause = if starting { check.start_interval } else { check.interval };
            tokio::time::sleep(pause).await;
            if probe(&self.dir, &plan, user, &check.command, check.timeout).await {
                failures = 0;
                self.conclude(Health::Healthy);
            } else if !starting {
                failures += 1;
            }
            if failures >= check.retries {
                self.conclude(Health::Unhealthy);
                self.stop(plan.grace).await;
                return;
            }
        }
    }

    fn conclude(&self, health: Health) {
        let changed = self.health.send_if_modified(|old| std::mem::replace(old, health) != health);
        if changed && let Err(error) = self.dir.mark(health == Health::Healthy) {
            warn!(dir = %self.dir.root.display(), %error, "a task's health was not written down");
        }
    }

    /// Waits for the end.
    pub(super) async fn wait(&self) -> Result<Exit, ExecError> {
        let mut ended = self.ended.subscribe();
        let exit = ended.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
        exit.ok_or_else(|| ExecError::temporary("the executor is going away"))
    }

    /// Sends the stop signal, waits, kills; returns when the task has ended. A prepared task has
    /// nothing to stop.
    pub(super) async fn stop(self: &Arc<Self>, grace: Duration) {
        let starts = self.starting.try_lock().is_err() || self.is_being_launched();
        if !starts && !self.dir.is_launched() {
            return;
        }
        if self.until_launched().await.is_err() {
            return;
        }
        self.watch();
        let plan = self.plan();
        if let Some(leader) = self.until_led(&plan).await {
            leader.signal(plan.stop_signal);
        }
        let mut ended = self.ended.subscribe();
        let end = ended.wait_for(Option::is_some);
        if tokio::time::timeout(grace, end).await.is_err() {
            self.kill(&plan, self.dir.supervisor(&plan.boot)).await;
            let _ = self.ended.subscribe().wait_for(Option::is_some).await;
        }
    }
}
