//! Serves the output of tasks to the manager.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use swarm_core::executor::{ExecError, Executor, LogEntry};
use swarm_core::protocol::{AgentMessage, LogChunk, LogRequest};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// Lines in one message at most.
const LINES: usize = 256;
/// A message is sent once its lines have this many bytes.
const BYTES: usize = 64 * 1024;

/// The requests of one session; dropping it ends them.
#[derive(Default)]
pub(super) struct LogRequests {
    tasks: JoinSet<()>,
    by_id: HashMap<u64, AbortHandle>,
}

impl LogRequests {
    /// Begins to serve a request.
    pub(super) fn serve(
        &mut self,
        executor: Arc<dyn Executor>,
        request: LogRequest,
        to: mpsc::Sender<AgentMessage>,
    ) {
        while self.tasks.try_join_next().is_some() {}
        self.by_id.retain(|_, handle| !handle.is_finished());
        let id = request.id;
        let handle = self.tasks.spawn(serve(executor, request, to));
        self.by_id.insert(id, handle);
    }

    /// Ends a request.
    pub(super) fn cancel(&mut self, id: u64) {
        if let Some(handle) = self.by_id.remove(&id) {
            handle.abort();
        }
    }
}

async fn serve(executor: Arc<dyn Executor>, request: LogRequest, to: mpsc::Sender<AgentMessage>) {
    let id = request.id;
    let mut end = Some(String::new());
    match executor.logs(request.task, request.options).await {
        Err(error) => end = Some(error.to_string()),
        Ok(stream) => {
            // Lines that are there already go together; a lone line does not wait for company.
            let mut batches = stream.ready_chunks(LINES);
            while let Some(batch) = batches.next().await {
                let (chunks, error) = chunks(batch);
                for entries in chunks {
                    let chunk = LogChunk { id, entries, end: None };
                    if to.send(AgentMessage::Logs(chunk)).await.is_err() {
                        return;
                    }
                }
                if let Some(error) = error {
                    end = Some(error.to_string());
                    break;
                }
            }
        }
    }
    let _ = to.send(AgentMessage::Logs(LogChunk { id, entries: Vec::new(), end })).await;
}

/// Cuts lines into messages of a bearable size, up to the first error.
fn chunks(batch: Vec<Result<LogEntry, ExecError>>) -> (Vec<Vec<LogEntry>>, Option<ExecError>) {
    let mut chunks = vec![Vec::new()];
    let mut size = 0;
    for entry in batch {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return (chunks, Some(error)),
        };
        if size >= BYTES {
            chunks.push(Vec::new());
            size = 0;
        }
        size += entry.data.len();
        chunks.last_mut().expect("there is one from the start").push(entry);
    }
    (chunks, None)
}
