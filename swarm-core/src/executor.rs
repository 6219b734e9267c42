//! The [`Executor`]: what really runs tasks on a node.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use crate::model::{
    ConfigReference, ContainerStatus, NodeDescription, NodeId, PortConfig, SecretBytes,
    SecretReference, Task, TaskEndpoint, TaskId,
};
use crate::network::Attachment;
use crate::time::Timestamp;

/// Everything an executor needs to run one task. Templates are expanded already.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// The task, with its expanded specification.
    pub task: Arc<Task>,
    /// The node that it was assigned to.
    pub node: NodeId,
    /// The secrets that it references, with their bytes.
    pub secrets: Vec<(SecretReference, SecretBytes)>,
    /// The configs that it references, with their bytes. They may hold secrets: templates inside
    /// configs can name them.
    pub configs: Vec<(ConfigReference, SecretBytes)>,
    /// The networks that it will be attached to.
    pub attachments: Vec<Attachment>,
}

/// What [`Executor::prepare`] made: where a network driver attaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// The executor's name for it, such as a container id.
    pub id: String,
    /// Its network namespace, where it has one of its own before the start.
    pub netns: Option<PathBuf>,
}

/// What [`Executor::start`] achieved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Started {
    /// The container or process.
    pub container: ContainerStatus,
    /// The host ports with the numbers that they really have.
    pub ports: Vec<PortConfig>,
    /// Where ingress ports answer, if the executor and not the network decides that.
    pub endpoints: Vec<TaskEndpoint>,
}

/// How a task ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 + n after signal n.
    pub code: i64,
    /// What went wrong beyond the code, such as `unhealthy container` or an out-of-memory kill.
    pub error: Option<String>,
}

impl Exit {
    /// Whether the task ended well.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == 0 && self.error.is_none()
    }
}

/// What an executor finds of a task after the agent restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Prepared, not started.
    Prepared,
    /// Running.
    Running,
    /// Ended.
    Exited(Exit),
}

/// One task that an executor holds something for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The task.
    pub task: TaskId,
    /// What is left of it.
    pub found: Found,
}

/// Which part of a task's output is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// Go on as the task writes more, until it ends.
    pub follow: bool,
    /// Only what was written since then.
    pub since: Option<Timestamp>,
    /// Only that many lines from the end; absent is all.
    pub tail: Option<u64>,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// Where a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line (or a part of a very long one) that a task wrote, with its line end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Where.
    pub source: LogSource,
    /// When.
    pub time: Timestamp,
    /// What.
    #[serde(with = "crate::executor::base64_bytes")]
    pub data: Vec<u8>,
}

/// The output of a task, line by line. Ends when the task's output ends, or, without `follow`,
/// after what there is.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<LogEntry, ExecError>> + Send>>;

/// Runs tasks.
///
/// # The contract
///
/// Checked by `conformance::executor`:
///
/// - **Keyed by task id.** Everything it makes is named and labelled with the node's and the
///   task's id, and it touches nothing else: two agents may share one engine.
/// - **Idempotent.** `prepare` of a prepared task returns its sandbox; `start` of a running one
///   succeeds; `stop` of an ended one succeeds; `remove` of an unknown one succeeds.
/// - **Cancelled by dropping.** Every future may be dropped at any await; calling again picks up
///   whatever was done. A dropped `wait` waits for nobody.
/// - **`start` returns when the task is healthy**, not when it has merely begun; it fails when the
///   health check says so or the task ends before.
/// - **`wait` returns when the task has ended**, however it ended, any number of times and also
///   after it ended; a task that turns unhealthy while running is stopped and ends with an error.
/// - **`stop` sends the stop signal, waits `grace`, kills,** and returns when the task has ended.
/// - **Errors say what to do**: see [`ExecErrorKind`].
///
/// The order of calls for one task is `prepare`, network attach, `start`, `wait`, `stop`,
/// `remove`; `stop` and `remove` may come at any time.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// What this node is and has. Called when a session opens and every 20 seconds.
    async fn describe(&self) -> Result<NodeDescription, ExecError>;

    /// Every task that this executor holds something for, after an agent's restart.
    async fn inventory(&self) -> Result<Vec<Observed>, ExecError>;

    /// Makes everything ready: image, mounts, secrets, the container itself, not started.
    async fn prepare(&self, assignment: &Assignment) -> Result<Sandbox, ExecError>;

    /// Starts a prepared task and returns once it is healthy.
    async fn start(&self, task: TaskId) -> Result<Started, ExecError>;

    /// Waits for the end of a started task.
    async fn wait(&self, task: TaskId) -> Result<Exit, ExecError>;

    /// Stops a task: stop signal, `grace`, kill.
    async fn stop(&self, task: TaskId, grace: Duration) -> Result<(), ExecError>;

    /// Removes everything that was made for a task, running or not.
    async fn remove(&self, task: TaskId) -> Result<(), ExecError>;

    /// Gives back what the executor itself holds on this machine, such as a mount: the node has
    /// left for good and every task was removed.
    async fn close(&self) -> Result<(), ExecError> {
        Ok(())
    }

    /// The output of a task.
    async fn logs(&self, task: TaskId, options: LogOptions) -> Result<LogStream, ExecError> {
        let _ = options;
        Err(ExecError::unsupported(format!("this executor keeps no logs (task {task})")))
    }
}

/// What to do about an executor's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecErrorKind {
    /// Try again after a moment: the engine does not answer, the disk is full.
    Temporary,
    /// The task can never run here: the image does not exist, the command is missing. The task is
    /// rejected.
    Rejected,
    /// The task was started and failed.
    Failed,
    /// The executor cannot do this at all. The task is rejected.
    Unsupported,
}

/// An executor's error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExecError {
    /// What to do about it.
    pub kind: ExecErrorKind,
    /// What happened, to what. Shown to users as the task's error.
    pub message: String,
    /// The exit code, where the task had one.
    pub exit_code: Option<i64>,
    /// The origin.
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        impl ExecError {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(message: impl Into<String>) -> Self {
                Self {
                    kind: ExecErrorKind::$kind,
                    message: message.into(),
                    exit_code: None,
                    source: None,
                }
            })*

            /// The same with its origin.
            #[must_use]
            pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
                self.source = Some(Arc::new(source));
                self
            }
        }
    };
}

kinds! {
    /// Try again after a moment.
    temporary => Temporary;
    /// The task can never run here.
    rejected => Rejected;
    /// The task was started and failed.
    failed => Failed;
    /// The executor cannot do this at all.
    unsupported => Unsupported;
}

/// Bytes as base64 text, for log lines in JSON.
pub(crate) mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
