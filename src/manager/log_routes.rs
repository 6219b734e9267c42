//! Whose request the output is for that agents send.

use std::collections::BTreeMap;

use swarm_core::model::NodeId;
use swarm_core::protocol::LogChunk;
use tokio::sync::mpsc;

/// Chunks that may wait for a reader, before its agent has to wait.
const QUEUE: usize = 16;

/// The requests for output that are open, by number.
#[derive(Default)]
pub(super) struct LogRoutes {
    routes: BTreeMap<u64, LogRoute>,
    next: u64,
}

/// Where a node's output goes. Dropping it tells the reader that no more will come.
struct LogRoute {
    node: NodeId,
    to: mpsc::Sender<LogChunk>,
}

impl LogRoutes {
    /// The number of the next request.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Opens the next request, of a node's output.
    pub(super) fn open(&mut self, node: NodeId) -> mpsc::Receiver<LogChunk> {
        let (to, chunks) = mpsc::channel(QUEUE);
        self.routes.insert(self.next, LogRoute { node, to });
        self.next += 1;
        chunks
    }

    /// Where a chunk goes; the last one of a request closes it.
    pub(super) fn of(&mut self, chunk: &LogChunk) -> Option<mpsc::Sender<LogChunk>> {
        match chunk.end {
            Some(_) => self.routes.remove(&chunk.id).map(|route| route.to),
            None => self.routes.get(&chunk.id).map(|route| route.to.clone()),
        }
    }

    /// Closes a request that nobody waits for any more; says of which node it was.
    pub(super) fn close(&mut self, id: u64) -> Option<NodeId> {
        self.routes.remove(&id).map(|route| route.node)
    }

    /// Closes every request of a node, which is gone.
    pub(super) fn close_all_of(&mut self, node: NodeId) {
        self.routes.retain(|_, route| route.node != node);
    }
}
