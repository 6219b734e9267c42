//! The [`MemoryExecutor`]: tasks that do nothing but what a script says, for tests and
//! simulations of whole clusters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use swarm_core::executor::{
    Assignment, ExecError, Executor, Exit, Found, LogEntry, LogOptions, LogSource, LogStream,
    Observed, Sandbox, Started,
};
use swarm_core::model::{
    ContainerSpec, ContainerStatus, EngineDescription, NodeDescription, NodeId, Platform,
    PublishMode, Resources, TaskId,
};
use swarm_core::time::{Clock, SystemClock};
use tokio::sync::watch;

/// How one call for a task goes.
#[derive(Clone, Debug, Default)]
pub enum Phase {
    /// Well, at once.
    #[default]
    Succeeds,
    /// Well, after a while.
    After(Duration),
    /// It never returns.
    Hangs,
    /// It fails every time.
    Fails(ExecError),
    /// It fails that many times, and then goes well.
    FailsTimes(u32, ExecError),
}

/// What a task does.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// How `prepare` goes.
    pub prepare: Phase,
    /// How `start` goes. A failure stands for a health check that never succeeds, too.
    pub start: Phase,
    /// When and how the task ends by itself, counted from its start.
    pub exit: Option<(Duration, Exit)>,
    /// Whether it ends on its stop signal; a kill always ends it.
    pub obeys: bool,
    /// The lines that it writes when it starts.
    pub lines: Vec<(LogSource, String)>,
}

impl Default for Behaviour {
    /// Runs until it is told to stop.
    fn default() -> Self {
        Self {
            prepare: Phase::default(),
            start: Phase::default(),
            exit: None,
            obeys: true,
            lines: Vec::new(),
        }
    }
}

impl Behaviour {
    /// Ends by itself after a while.
    #[must_use]
    pub fn exits(code: i64, after: Duration) -> Self {
        Self { exit: Some((after, Exit { code, error: None })), ..Self::default() }
    }
}

/// What a task does, by its expanded specification.
pub type Script = dyn Fn(&ContainerSpec) -> Behaviour + Send + Sync;

/// What became of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Life {
    Prepared,
    Running,
    Ended(Exit),
}

struct Body {
    behaviour: Behaviour,
    life: watch::Sender<Life>,
    attempts: [u32; 2],
    assignment: Assignment,
    log: Vec<LogEntry>,
}

/// Tasks in memory. Clones share their tasks: a clone is what a restarted agent finds.
#[derive(Clone)]
pub struct MemoryExecutor {
    description: Arc<Mutex<NodeDescription>>,
    script: Arc<Script>,
    bodies: Arc<Mutex<BTreeMap<TaskId, Body>>>,
    clock: Arc<dyn Clock>,
}

impl MemoryExecutor {
    /// An executor whose tasks do what a script says. Its node has 8 cores and 16 GiB.
    #[must_use]
    pub fn new(
        node: NodeId,
        script: impl Fn(&ContainerSpec) -> Behaviour + Send + Sync + 'static,
    ) -> Self {
        let description = NodeDescription {
            hostname: format!("node-{}", &node.as_str()[..8]),
            platform: Platform {
                os: "linux".into(),
                architecture: "x86_64".into(),
                ..Default::default()
            },
            resources: Resources {
                nano_cpus: 8_000_000_000,
                memory_bytes: 16 << 30,
                ..Default::default()
            },
            engine: EngineDescription {
                engine_version: env!("CARGO_PKG_VERSION").into(),
                engine_id: format!("memory-{node}"),
                ..Default::default()
            },
            ..Default::default()
        };
        Self {
            description: Arc::new(Mutex::new(description)),
            script: Arc::new(script),
            bodies: Arc::default(),
            clock: Arc::new(SystemClock),
        }
    }

    /// An executor whose tasks all run until they are told to stop.
    #[must_use]
    pub fn steady(node: NodeId) -> Self {
        Self::new(node, |_| Behaviour::default())
    }

    /// Another clock, for log lines.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Changes what the node says of itself.
    pub fn describe_as(&self, change: impl FnOnce(&mut NodeDescription)) {
        change(&mut self.description.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends a running task as if it had ended by itself; whether it ran.
    pub fn kill(&self, task: TaskId, exit: Exit) -> bool {
        self.bodies().get(&task).is_some_and(|body| end(&body.life, exit))
    }

    /// What the task was prepared with.
    #[must_use]
    pub fn assignment(&self, task: TaskId) -> Option<Assignment> {
        self.bodies().get(&task).map(|body| body.assignment.clone())
    }

    /// The tasks that run.
    #[must_use]
    pub fn running(&self) -> Vec<TaskId> {
        let bodies = self.bodies();
        let running = bodies.iter().filter(|(_, body)| *body.life.borrow() == Life::Running);
        running.map(|(task, _)| *task).collect()
    }

    fn bodies(&self) -> MutexGuard<'_, BTreeMap<TaskId, Body>> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn life(&self, task: TaskId) -> Result<watch::Receiver<Life>, ExecError> {
        let bodies = self.bodies();
        let body = bodies.get(&task).ok_or_else(|| unknown(task))?;
        Ok(body.life.subscribe())
    }

    /// Counts an attempt and says how it goes.
    fn attempt(&self, task: TaskId, start: bool) -> Result<Phase, ExecError> {
        let mut bodies = self.bodies();
        let body = bodies.get_mut(&task).ok_or_else(|| unknown(task))?;
        let phase = if start { &body.behaviour.start } else { &body.behaviour.prepare };
        let attempts = &mut body.attempts[usize::from(start)];
        *attempts += 1;
        Ok(match phase {
            Phase::FailsTimes(times, error) if *attempts <= *times => Phase::Fails(error.clone()),
            Phase::FailsTimes(..) => Phase::Succeeds,
            phase => phase.clone(),
        })
    }

    fn begin(&self, task: TaskId) -> Result<Started, ExecError> {
        let mut bodies = self.bodies();
        let body = bodies.get_mut(&task).ok_or_else(|| unknown(task))?;
        let endpoint = body.assignment.task.endpoint.clone();
        let ports = endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        let host = ports.filter(|port| port.publish_mode == PublishMode::Host);
        let started = Started {
            container: ContainerStatus { container_id: task.to_string(), ..Default::default() },
            ports: host.cloned().collect(),
            endpoints: Vec::new(),
        };
        if *body.life.borrow() != Life::Prepared {
            return Ok(started);
        }
        body.life.send_replace(Life::Running);
        let time = self.clock.now();
        let entry = |(source, line): &(LogSource, String)| LogEntry {
            source: *source,
            time,
            data: format!("{line}\n").into_bytes(),
        };
        body.log = body.behaviour.lines.iter().map(entry).collect();
        match body.behaviour.exit.clone() {
            Some((after, exit)) if after.is_zero() => {
                end(&body.life, exit);
            }
            Some((after, exit)) => {
                let life = body.life.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    end(&life, exit);
                });
            }
            None => {}
        }
        Ok(started)
    }
}

fn unknown(task: TaskId) -> ExecError {
    ExecError::failed(format!("task {task} was not prepared here"))
}

/// Ends a running task; whether it ran.
fn end(life: &watch::Sender<Life>, exit: Exit) -> bool {
    life.send_if_modified(|life| {
        let ran = *life == Life::Running;
        if ran {
            *life = Life::Ended(exit);
        }
        ran
    })
}

async fn play(phase: Phase) -> Result<(), ExecError> {
    match phase {
        Phase::Succeeds | Phase::FailsTimes(..) => Ok(()),
        Phase::After(time) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        Phase::Hangs => std::future::pending().await,
        Phase::Fails(error) => Err(error),
    }
}

#[async_trait]
impl Executor for MemoryExecutor {
    async fn describe(&self) -> Result<NodeDescription, ExecError> {
        Ok(self.description.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn inventory(&self) -> Result<Vec<Observed>, ExecError> {
        let found = |body: &Body| match &*body.life.borrow() {
            Life::Prepared => Found::Prepared,
            Life::Running => Found::Running,
            Life::Ended(exit) => Found::Exited(exit.clone()),
        };
        let bodies = self.bodies();
        Ok(bodies.iter().map(|(task, body)| Observed { task: *task, found: found(body) }).collect())
    }

    async fn prepare(&self, assignment: &Assignment) -> Result<Sandbox, ExecError> {
        let id = assignment.task.id;
        {
            let mut bodies = self.bodies();
            bodies.entry(id).or_insert_with(|| {
                let spec = assignment.task.spec.container.clone().unwrap_or_default();
                Body {
                    behaviour: (self.script)(&spec),
                    life: watch::Sender::new(Life::Prepared),
                    attempts: [0; 2],
                    assignment: assignment.clone(),
                    log: Vec::new(),
                }
            });
        }
        play(self.attempt(id, false)?).await?;
        Ok(Sandbox { id: id.to_string(), netns: None })
    }

    async fn start(&self, task: TaskId) -> Result<Started, ExecError> {
        if *self.life(task)?.borrow() == Life::Prepared {
            play(self.attempt(task, true)?).await?;
        }
        self.begin(task)
    }

    async fn wait(&self, task: TaskId) -> Result<Exit, ExecError> {
        let mut life = self.life(task)?;
        let ended = life.wait_for(|life| matches!(life, Life::Ended(_))).await;
        match ended.as_deref() {
            Ok(Life::Ended(exit)) => Ok(exit.clone()),
            _ => Err(ExecError::failed(format!("task {task} was removed while it ran"))),
        }
    }

    async fn stop(&self, task: TaskId, grace: Duration) -> Result<(), ExecError> {
        let Ok(mut life) = self.life(task) else { return Ok(()) };
        let (obeys, sender) = match self.bodies().get(&task) {
            Some(body) => (body.behaviour.obeys, body.life.clone()),
            None => return Ok(()),
        };
        if obeys {
            end(&sender, Exit { code: 143, error: None });
        }
        let runs = |life: &Life| *life == Life::Running;
        if tokio::time::timeout(grace, life.wait_for(|life| !runs(life))).await.is_err() {
            end(&sender, Exit { code: 137, error: None });
        }
        Ok(())
    }

    async fn remove(&self, task: TaskId) -> Result<(), ExecError> {
        if let Some(body) = self.bodies().remove(&task) {
            end(&body.life, Exit { code: 137, error: None });
        }
        Ok(())
    }

    async fn logs(&self, task: TaskId, options: LogOptions) -> Result<LogStream, ExecError> {
        let log = self.bodies().get(&task).ok_or_else(|| unknown(task))?.log.clone();
        let wanted = |entry: &LogEntry| {
            let source = match entry.source {
                LogSource::Stdout => options.stdout,
                LogSource::Stderr => options.stderr,
            };
            source && options.since.is_none_or(|since| entry.time >= since)
        };
        let mut entries: Vec<_> = log.into_iter().filter(wanted).collect();
        if let Some(tail) = options.tail.and_then(|tail| usize::try_from(tail).ok()) {
            entries.drain(..entries.len().saturating_sub(tail));
        }
        let ended = self.life(task)?;
        let entries = futures_util::stream::iter(entries.into_iter().map(Ok));
        if !options.follow {
            return Ok(Box::pin(entries));
        }
        // Everything is written at the start; following is waiting for the end.
        let end = futures_util::stream::once(async move {
            let mut ended = ended;
            let _ = ended.wait_for(|life| matches!(life, Life::Ended(_))).await;
            futures_util::stream::empty()
        });
        Ok(Box::pin(futures_util::StreamExt::chain(entries, futures_util::StreamExt::flatten(end))))
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
