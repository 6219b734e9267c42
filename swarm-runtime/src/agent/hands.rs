//! Carries out work for tasks: the executor and the networks in their order.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use swarm_core::executor::{Assignment, ExecError, ExecErrorKind, Executor, Exit, Sandbox};
use swarm_core::model::{Task, TaskId};
use swarm_core::network::{Attachment, NetworkDriver};
use tracing::warn;

use super::assemble::endpoints;
use super::networks::Networks;
use super::state::Job;
use super::step::{Launched, Outcome};

/// How long a stopped task's exit code is waited for: one whose start was interrupted may have none.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Stops and removes every task that an executor holds, and the networks of `drivers`: for a node
/// that leaves its swarm without an agent, because it cannot take its place.
///
/// # Errors
/// The first error; everything else was removed nevertheless. Call it again.
pub async fn purge(
    executor: Arc<dyn Executor>,
    drivers: Vec<Arc<dyn NetworkDriver>>,
) -> Result<(), ExecError> {
    Hands::new(executor, Networks::new(drivers)).purge().await
}

/// What does the work.
pub(super) struct Hands {
    pub(super) executor: Arc<dyn Executor>,
    pub(super) networks: Networks,
    /// What was prepared since the agent started, for networks that know addresses only after the
    /// start.
    sandboxes: Mutex<HashMap<TaskId, Sandbox>>,
    /// One lock for each task: work that was abandoned ends before its successor begins.
    turns: Mutex<HashMap<TaskId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Hands {
    pub(super) fn new(executor: Arc<dyn Executor>, networks: Networks) -> Self {
        Self { executor, networks, sandboxes: Mutex::default(), turns: Mutex::default() }
    }

    /// Does one job. May be dropped at any await.
    pub(super) async fn perform(&self, task: TaskId, job: Job) -> Outcome {
        let turn = self.turn(task);
        let _turn = turn.lock().await;
        match job {
            Job::Prepare(assignment) => Outcome::Prepared(self.prepare(&assignment).await),
            Job::Attach(assignment) => Outcome::Attached(self.prepare(&assignment).await),
            Job::Start { task, attachments, addresses } => {
                Outcome::Started(self.start(&task, &attachments, addresses).await)
            }
            Job::Wait => {
                let exit = self.executor.wait(task).await;
                if exit.is_ok() {
                    self.detach(task).await;
                }
                Outcome::Exited(exit)
            }
            Job::Stop { grace, started } => Outcome::Stopped(self.stop(task, grace, started).await),
            Job::Remove => Outcome::Removed(self.remove(task).await),
        }
    }

    fn turn(&self, task: TaskId) -> Arc<tokio::sync::Mutex<()>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(task).or_default().clone()
    }

    async fn prepare(&self, assignment: &Assignment) -> Result<Vec<IpAddr>, ExecError> {
        let sandbox = self.executor.prepare(assignment).await?;
        let id = assignment.task.id;
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sandbox.clone());
        self.networks.attach(&assignment.attachments, &sandbox).await
    }

    async fn start(
        &self,
        task: &Task,
        attachments: &[Attachment],
        mut addresses: Vec<IpAddr>,
    ) -> Result<Launched, ExecError> {
        let started = match self.executor.start(task.id).await {
            Ok(started) => started,
            Err(error) => {
                if error.kind != ExecErrorKind::Temporary {
                    self.clear_up(task).await;
                }
                return Err(error);
            }
        };
        let asks = !attachments.is_empty() && !endpoints(task, &[[0, 0, 0, 0].into()]).is_empty();
        if addresses.is_empty() && started.endpoints.is_empty() && asks {
            let sandbox = self.sandbox(task.id);
            let sandbox = sandbox.unwrap_or_else(|| Sandbox {
                id: started.container.container_id.clone(),
                netns: None,
            });
            addresses = self.networks.attach(attachments, &sandbox).await?;
        }
        let endpoints = match started.endpoints.is_empty() {
            true => endpoints(task, &addresses),
            false => started.endpoints,
        };
        Ok(Launched { container: started.container, ports: started.ports, endpoints })
    }

    fn sandbox(&self, task: TaskId) -> Option<Sandbox> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner).get(&task).cloned()
    }

    /// What failed to start must not run on, unhealthy or half started.
    async fn clear_up(&self, task: &Task) {
        let container = task.spec.container.as_ref();
        let grace = container.and_then(|container| container.stop_grace_period);
        let grace =
            grace.map_or(swarm_core::model::defaults::STOP_GRACE_PERIOD, |grace| grace.duration());
        if let Err(error) = self.executor.stop(task.id, grace).await {
            warn!(task = %task.id, %error, "a task that failed to start could not be stopped");
        }
        self.detach(task.id).await;
    }

    async fn stop(
        &self,
        task: TaskId,
        grace: Duration,
        started: bool,
    ) -> Result<Option<Exit>, ExecError> {
        self.executor.stop(task, grace).await?;
        self.detach(task).await;
        if !started {
            return Ok(None);
        }
        let last = tokio::time::timeout(LAST_WORDS, self.executor.wait(task)).await;
        Ok(last.ok().and_then(Result::ok))
    }

    async fn remove(&self, task: TaskId) -> Result<(), ExecError> {
        self.detach(task).await;
        self.executor.remove(task).await?;
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
        Ok(())
    }

    /// A task that is gone leaves its networks. What a driver could not undo now, its next `sync`
    /// does: the task is not in it any more.
    async fn detach(&self, task: TaskId) {
        if let Err(error) = self.networks.detach(task).await {
            warn!(%task, %error, "a task was not detached from its networks");
        }
    }

    /// Stops and removes everything of this node, all at the same time.
    pub(super) async fn purge(&self) -> Result<(), ExecError> {
        let found = self.executor.inventory().await?;
        let gone = found.iter().map(|observed| async {
            let task = observed.task;
            self.executor.stop(task, swarm_core::model::defaults::STOP_GRACE_PERIOD).await?;
            self.remove(task).await
        });
        let results = futures_util::future::join_all(gone).await;
        let network = self.networks.sync(&Default::default()).await;
        if let Err(error) = network {
            warn!(%error, "the node's networks could not be removed");
        }
        results.into_iter().collect::<Result<(), ExecError>>()?;
        self.executor.close().await
    }
}
