//! Collects the output of tasks from the agents that run them.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use swarm_core::executor::{LogEntry, LogOptions};
use swarm_core::model::{ServiceId, Task, TaskId, TaskState};
use swarm_core::protocol::LogRequest;
use swarm_core::store::{Leadership, Snapshot};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::session::Sessions;
use crate::identity::Credentials;
use crate::rpc::client::ManagerClient;
use crate::rpc::message::LogsRequest;

/// Whose output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Asks the agents itself where this manager leads, and otherwise has the leader ask them.
pub struct ClusterLogs {
    /// The sessions with this manager.
    pub agents: AgentLogs,
    /// Whom this manager can prove to be.
    pub credentials: Arc<Credentials>,
}

impl LogBroker for ClusterLogs {
    fn logs(&self, selector: LogSelector, options: LogOptions) -> TaskLogs {
        let leadership = self.agents.0.store.leadership().borrow().clone();
        let Leadership::Follower { leader } = leadership else {
            return self.agents.logs(selector, options);
        };
        let (credentials, failed) = (self.credentials.clone(), leader.clone());
        let opening = async move {
            let leader = ManagerClient::connect(&leader, &credentials).await?;
            leader.logs(LogsRequest { selector, options }).await
        };
        let lines = opening.map(move |opened| match opened {
            Ok(lines) => lines,
            Err(error) => {
                let text = format!("the leader at {failed} gives no logs: {error}");
                futures_util::stream::iter([Err(text)]).boxed()
            }
        });
        lines.flatten_stream().boxed()
    }
}

/// Asks the agents in session with this manager.
pub struct AgentLogs(
    /// The sessions.
    pub Arc<Sessions>,
);

impl LogBroker for AgentLogs {
    fn logs(&self, selector: LogSelector, options: LogOptions) -> TaskLogs {
        let (sender, receiver) = mpsc::channel(64);
        let collect = collect(self.0.clone(), selector, options, sender.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = collect => {}
                () = sender.closed() => {}
            }
        });
        Box::pin(ReceiverStream::new(receiver))
    }
}

/// Reads every selected task side by side; with `follow`, goes on until the reader leaves.
async fn collect(
    sessions: Arc<Sessions>,
    selector: LogSelector,
    options: LogOptions,
    to: mpsc::Sender<TaskLog>,
) {
    let mut asked = BTreeSet::new();
    let mut readers = JoinSet::new();
    let mut watch = sessions.store.watch(sessions.store.snapshot().version());
    loop {
        for task in selected(&sessions.store.snapshot(), selector) {
            if asked.insert(task.id) {
                readers.spawn(read(sessions.clone(), task, options.clone(), to.clone()));
            }
        }
        if !options.follow || matches!(selector, LogSelector::Task(_)) {
            while readers.join_next().await.is_some() {}
            return;
        }
        if watch.next().await.is_err() {
            watch = sessions.store.watch(sessions.store.snapshot().version());
        }
    }
}

/// The tasks that may have written something: those whose agent got as far as starting them.
fn selected(view: &Snapshot, selector: LogSelector) -> Vec<Arc<Task>> {
    let started = |task: &&Arc<Task>| task.status.state >= TaskState::Starting;
    match selector {
        LogSelector::Task(id) => view.tasks.get(id).into_iter().cloned().collect(),
        LogSelector::Service(id) => view.tasks_of(id).filter(started).cloned().collect(),
    }
}

async fn read(
    sessions: Arc<Sessions>,
    task: Arc<Task>,
    options: LogOptions,
    to: mpsc::Sender<TaskLog>,
) {
    let Some(node) = task.node_id else { return };
    let request = |id| LogRequest { id, task: task.id, options };
    let Some((id, mut chunks)) = sessions.request_logs(node, request) else {
        let name = node_name(&sessions, node);
        let _ = to.send(Err(format!("node {name} is not available"))).await;
        return;
    };
    let _cancel = Cancel { sessions: &sessions, id };
    while let Some(chunk) = chunks.recv().await {
        for entry in chunk.entries {
            if to.send(Ok((task.clone(), entry))).await.is_err() {
                return;
            }
        }
        if let Some(error) = chunk.end {
            if !error.is_empty() {
                let _ = to.send(Err(format!("task {}: {error}", task.id))).await;
            }
            return;
        }
    }
    let name = node_name(&sessions, node);
    let _ = to.send(Err(format!("node {name} disconnected unexpectedly"))).await;
}

fn node_name(sessions: &Sessions, id: swarm_core::model::NodeId) -> String {
    let view = sessions.store.snapshot();
    view.nodes.get(id).map_or_else(|| id.to_string(), |node| node.display_name().to_owned())
}

/// Ends the request on the agent, however the reading ends.
struct Cancel<'a> {
    sessions: &'a Sessions,
    id: u64,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        self.sessions.cancel_logs(self.id);
    }
}
