//! Pure: the next step of one task, as SwarmKit's `agent/exec/controller.go` takes it: one look,
//! one step.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::executor::{ExecError, ExecErrorKind, Exit};
use swarm_core::model::{
    ContainerStatus, PublishMode, Task, TaskEndpoint, TaskState, TaskStatus, defaults,
};
use swarm_core::time::Timestamp;

/// The waiting times of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Time between the moment at which a running task with networks or published ports is told
    /// to stop and its stop signal: every node learns meanwhile that it takes no new connections.
    /// (SwarmKit's gossip convergence: 2 seconds.)
    pub drain: Duration,
    /// Time before the first retry of what failed for a moment; doubles up to `retry_max`.
    pub retry: Duration,
    /// The longest time between two retries.
    pub retry_max: Duration,
    /// How long a task waits for a network that its manager has not described yet.
    pub networks: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            drain: Duration::from_secs(2),
            retry: Duration::from_secs(1),
            retry_max: Duration::from_secs(8),
            networks: Duration::from_secs(30),
        }
    }
}

/// Work that an executor does for one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make ready and attach to networks.
    Prepare,
    /// Attach a task that outlived the agent to its networks again: a driver that lives in this
    /// process has forgotten it.
    Attach,
    /// Start, and return when healthy.
    Start,
    /// Wait for the end.
    Wait,
    /// Stop.
    Stop,
    /// Remove what is left.
    Remove,
}

/// What a task needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until its assignment changes or its work is done.
    Idle,
    /// Nothing until then.
    Until(Timestamp),
    /// To count as being in another state; costs no work.
    Become(TaskState, &'static str),
    /// To leave the load balancing before it is stopped.
    Drain,
    /// Work.
    Do(Op),
    /// To be forgotten: it is not assigned any more and nothing is left of it.
    Forget,
}

/// How a piece of work ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Of [`Op::Prepare`]: the addresses by which the node's neighbours reach the task, where
    /// its networks know them already.
    Prepared(Result<Vec<IpAddr>, ExecError>),
    /// Of [`Op::Attach`].
    Attached(Result<Vec<IpAddr>, ExecError>),
    /// Of [`Op::Start`].
    Started(Result<Launched, ExecError>),
    /// Of [`Op::Wait`].
    Exited(Result<Exit, ExecError>),
    /// Of [`Op::Stop`]: how the task ended, if it ran at all.
    Stopped(Result<Option<Exit>, ExecError>),
    /// Of [`Op::Remove`].
    Removed(Result<(), ExecError>),
    /// Of anything: a bug in an executor or a driver. It is tried again, like what failed for a
    /// moment.
    Crashed(String),
}

/// What a started task reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Launched {
    /// The container.
    pub container: ContainerStatus,
    /// The host ports.
    pub ports: Vec<swarm_core::model::PortConfig>,
    /// Where its ingress ports answer.
    pub endpoints: Vec<TaskEndpoint>,
}

/// One task on its node.
#[derive(Clone, Debug)]
pub struct Run {
    /// The task as it was assigned last; its `status` is the manager's view.
    pub task: Arc<Task>,
    /// What this node observed: the truth.
    pub status: TaskStatus,
    /// The addresses that its networks gave it.
    pub addresses: Vec<IpAddr>,
    /// Whether a manager has assigned it since this agent started: its secrets, configs and
    /// networks are here. What the journal alone knows is not prepared, only kept going.
    pub confirmed: bool,
    /// It outlived the agent, and its networks have not been told.
    pub reattach: bool,
    /// Not assigned any more.
    pub dropped: bool,
    /// Nothing is left of it on this node.
    pub removed: bool,
    /// The work in hand, and its number: outcomes of other numbers are of abandoned work.
    pub doing: Option<(Op, u64)>,
    /// Failures in a row that only called for a retry.
    pub failures: u32,
    /// No work before then.
    pub not_before: Option<Timestamp>,
    /// The end of the drain.
    pub drained_at: Option<Timestamp>,
}

impl Run {
    /// A task with what was observed of it so far.
    #[must_use]
    pub fn new(task: Arc<Task>, status: TaskStatus) -> Self {
        Self {
            task,
            status,
            addresses: Vec::new(),
            confirmed: false,
            reattach: false,
            dropped: false,
            removed: false,
            doing: None,
            failures: 0,
            not_before: None,
            drained_at: None,
        }
    }

    /// Whether the task shall end: it is told to, it is not assigned any more, or the manager has
    /// given it up.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.dropped
            || self.task.desired_state >= TaskState::Shutdown
            || self.task.status.state.is_terminal()
    }

    /// The time between the stop signal and the kill.
    #[must_use]
    pub fn grace(&self) -> Duration {
        let container = self.task.spec.container.as_ref();
        container
            .and_then(|container| container.stop_grace_period)
            .map_or(defaults::STOP_GRACE_PERIOD, |grace| grace.duration())
    }

    /// Whether connections may come in that a drain must turn away first.
    fn is_reached(&self) -> bool {
        let ingress = |endpoint: &Arc<swarm_core::model::Endpoint>| {
            endpoint.ports.iter().any(|port| port.publish_mode == PublishMode::Ingress)
        };
        self.status.state == TaskState::Running
            && (!self.task.networks.is_empty() || self.task.endpoint.as_ref().is_some_and(ingress))
    }

    /// What the task needs next.
    #[must_use]
    pub fn step(&self, now: Timestamp, timing: &Timing) -> Step {
        if self.is_ending() {
            return self.step_to_the_end(now, timing);
        }
        let waits = matches!(self.doing, None | Some((Op::Wait, _)));
        let due = self.not_before.is_none_or(|at| at <= now);
        if self.reattach && self.confirmed && waits && due && !self.status.state.is_terminal() {
            return Step::Do(Op::Attach);
        }
        match (self.doing, self.not_before) {
            (Some(_), _) => return Step::Idle,
            (None, Some(at)) if now < at => return Step::Until(at),
            _ => {}
        }
        match self.status.state {
            TaskState::New | TaskState::Pending | TaskState::Assigned => {
                Step::Become(TaskState::Accepted, "accepted")
            }
            TaskState::Accepted | TaskState::Preparing if !self.confirmed => Step::Idle,
            TaskState::Accepted => Step::Become(TaskState::Preparing, "preparing"),
            TaskState::Preparing => Step::Do(Op::Prepare),
            TaskState::Ready if self.task.desired_state < TaskState::Running => Step::Idle,
            TaskState::Ready => Step::Become(TaskState::Starting, "starting"),
            TaskState::Starting => Step::Do(Op::Start),
            TaskState::Running => Step::Do(Op::Wait),
            _ => Step::Idle,
        }
    }

    fn step_to_the_end(&self, now: Timestamp, timing: &Timing) -> Step {
        // Stopping interrupts every other work; nothing interrupts stopping.
        if matches!(self.doing, Some((Op::Stop | Op::Remove, _))) {
            return Step::Idle;
        }
        if let Some(at) = self.not_before.filter(|at| now < *at) {
            return Step::Until(at);
        }
        if !self.status.state.is_terminal() {
            if self.status.state <= TaskState::Accepted {
                return Step::Become(TaskState::Shutdown, "shutdown");
            }
            return match self.drained_at {
                None if self.is_reached() && !timing.drain.is_zero() => Step::Drain,
                Some(at) if now < at => Step::Until(at),
                _ => Step::Do(Op::Stop),
            };
        }
        let unwanted = self.dropped || self.task.desired_state == TaskState::Remove;
        match (self.removed, self.dropped) {
            (false, _) if unwanted => Step::Do(Op::Remove),
            (_, true) => Step::Forget,
            _ => Step::Idle,
        }
    }

    /// Counts as being in another state from now on.
    pub fn become_state(
        &mut self,
        state: TaskState,
        message: impl Into<Cow<'static, str>>,
        now: Timestamp,
    ) {
        self.status.state = state;
        self.status.message = message.into();
        self.status.err.clear();
        self.status.timestamp = now;
    }

    /// Takes the outcome of work. The status may change.
    pub fn finish(&mut self, outcome: Outcome, now: Timestamp, timing: &Timing) {
        self.doing = None;
        let failures = std::mem::take(&mut self.failures);
        self.not_before = None;
        let error = match outcome {
            Outcome::Prepared(Ok(addresses)) => {
                self.addresses = addresses;
                return self.become_state(TaskState::Ready, "prepared", now);
            }
            Outcome::Attached(Ok(addresses)) => {
                self.addresses = addresses;
                self.reattach = false;
                return;
            }
            // A task that runs is not given up for that.
            Outcome::Attached(Err(error)) => {
                self.reattach = error.kind == ExecErrorKind::Temporary;
                self.status.err.clone_from(&error.message);
                if self.reattach {
                    self.retry(&error, failures, now, timing);
                }
                return;
            }
            Outcome::Started(Ok(launched)) => {
                self.status.container = Some(Box::new(launched.container));
                self.status.port_status.ports = launched.ports;
                self.status.endpoints = launched.endpoints;
                return self.become_state(TaskState::Running, "started", now);
            }
            Outcome::Exited(Ok(exit)) => return self.exited(&exit, now),
            Outcome::Stopped(Ok(exit)) => {
                if let (Some(container), Some(exit)) = (&mut self.status.container, exit) {
                    container.exit_code = exit.code;
                }
                return self.end(TaskState::Shutdown, "shutdown", now);
            }
            Outcome::Removed(Ok(())) => {
                self.removed = true;
                return;
            }
            // What could not be stopped or removed must never count as gone.
            Outcome::Stopped(Err(error)) | Outcome::Removed(Err(error)) => {
                return self.retry(&error, failures, now, timing);
            }
            Outcome::Crashed(text) => {
                return self.retry(&ExecError::temporary(text), failures, now, timing);
            }
            Outcome::Prepared(Err(error))
            | Outcome::Started(Err(error))
            | Outcome::Exited(Err(error)) => error,
        };
        match error.kind {
            ExecErrorKind::Temporary => self.retry(&error, failures, now, timing),
            _ => self.fail(&error, now),
        }
    }

    fn retry(&mut self, error: &ExecError, failures: u32, now: Timestamp, timing: &Timing) {
        let pause = timing.retry.saturating_mul(1 << failures.min(16)).min(timing.retry_max);
        self.not_before = Some(now + pause);
        self.failures = failures + 1;
        self.status.err.clone_from(&error.message);
    }

    /// Rejected before the start, failed after it. The message stays what it was: it tells how
    /// far the task came.
    pub fn fail(&mut self, error: &ExecError, now: Timestamp) {
        let message = std::mem::take(&mut self.status.message);
        if let Some(code) = error.exit_code {
            self.status.container.get_or_insert_default().exit_code = code;
        }
        let state = match self.status.state {
            state if state < TaskState::Starting => TaskState::Rejected,
            _ => TaskState::Failed,
        };
        self.end(state, message, now);
        self.status.err.clone_from(&error.message);
    }

    /// The task ended by itself.
    pub fn exited(&mut self, exit: &Exit, now: Timestamp) {
        self.status.container.get_or_insert_default().exit_code = exit.code;
        if exit.is_success() {
            return self.end(TaskState::Complete, "finished", now);
        }
        let err = match (&exit.error, exit.code) {
            (Some(error), 0) => format!("task: {error}"),
            (Some(error), code) => format!("task: non-zero exit ({code}): {error}"),
            (None, code) => format!("task: non-zero exit ({code})"),
        };
        self.end(TaskState::Failed, "started", now);
        self.status.err = err;
    }

    fn end(&mut self, state: TaskState, message: impl Into<Cow<'static, str>>, now: Timestamp) {
        self.become_state(state, message, now);
        self.status.endpoints.clear();
        self.status.port_status.ports.clear();
        if let Some(container) = &mut self.status.container {
            container.pid = 0;
        }
    }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
