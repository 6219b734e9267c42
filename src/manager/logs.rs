//! Collects the output of tasks from the agents that run them.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use swarm_core::executor::{LogEntry, LogOptions};
use swarm_core::model::{ServiceId, Task, TaskId};

/// Whose output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSelector {
    /// Every task of a service; with `follow`, tasks that come later too.
    Service(ServiceId),
    /// One task.
    Task(TaskId),
}

/// One line of one task. The error text of a task whose output could not be had is in the API's
/// words, ready for the client.
pub type TaskLog = Result<(Arc<Task>, LogEntry), String>;

/// Lines from many tasks, as they come.
pub type TaskLogs = Pin<Box<dyn Stream<Item = TaskLog> + Send>>;

/// Gives the output of tasks, wherever they run.
pub trait LogBroker: Send + Sync + 'static {
    /// The output; dropping the stream ends the requests on the agents.
    fn logs(&self, selector: LogSelector, options: LogOptions) -> TaskLogs;
}
