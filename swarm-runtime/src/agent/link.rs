//! How an agent reaches a manager: the [`Link`], and one within a process.

use async_trait::async_trait;
use swarm_core::protocol::{AgentMessage, ManagerMessage, Settings, Trust};
use tokio::sync::mpsc;

/// An open stream to a manager. It ends when either channel does: the link closes the receiver
/// when the stream ends, and ends the stream when the connection is dropped.
#[derive(Debug)]
pub struct Connection {
    /// To the manager.
    pub sender: mpsc::Sender<AgentMessage>,
    /// From the manager.
    pub receiver: mpsc::Receiver<ManagerMessage>,
}

/// Opens streams to managers.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// Opens a stream to some manager. Called again, after a pause, whenever a stream ended; a
    /// link that knows several managers tries another one each time. May be dropped at any await.
    ///
    /// # Errors
    /// [`LinkError::Unavailable`] is tried again; [`LinkError::Refused`] ends the agent.
    async fn connect(&self) -> Result<Connection, LinkError>;

    /// Tells the link which roots the cluster trusts now and whether the node's certificate must
    /// be renewed. Ignored by links that use no certificates.
    fn trust(&self, trust: &Trust) {
        let _ = trust;
    }

    /// Tells the link what the manager said of the cluster and of this node: where managers listen,
    /// above all, the one to prefer first. It replaces what was said before.
    ///
    /// # Errors
    /// [`LinkError::Unavailable`] when this manager must not be followed: the stream is given up.
    fn settings(&self, settings: &Settings) -> Result<(), LinkError> {
        let _ = settings;
        Ok(())
    }
}

/// Why no stream could be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// No manager answers. Try again after a pause.
    #[error("no manager answers: {0}")]
    Unavailable(String),
    /// The node is not welcome: it was removed, or its certificate is no good.
    #[error("the cluster refuses this node: {0}")]
    Refused(String),
}

/// The manager's end of a stream within a process.
#[derive(Debug)]
pub struct ManagerEnd {
    /// To the agent.
    pub sender: mpsc::Sender<ManagerMessage>,
    /// From the agent.
    pub receiver: mpsc::Receiver<AgentMessage>,
}

/// A link to a manager in the same process. The streams that it opens come out of the receiver
/// that [`channel`] returned with it.
#[derive(Clone, Debug)]
pub struct ChannelLink(mpsc::Sender<ManagerEnd>);

/// A link within the process, and where its streams come out.
#[must_use]
pub fn channel() -> (ChannelLink, mpsc::Receiver<ManagerEnd>) {
    let (sender, receiver) = mpsc::channel(1);
    (ChannelLink(sender), receiver)
}

/// Messages that may be under way in each direction within a process.
const CAPACITY: usize = 64;

#[async_trait]
impl Link for ChannelLink {
    async fn connect(&self) -> Result<Connection, LinkError> {
        let (sender, from_agent) = mpsc::channel(CAPACITY);
        let (to_agent, receiver) = mpsc::channel(CAPACITY);
        let end = ManagerEnd { sender: to_agent, receiver: from_agent };
        let unavailable = |_| LinkError::Unavailable("the manager's end is gone".to_owned());
        self.0.send(end).await.map_err(unavailable)?;
        Ok(Connection { sender, receiver })
    }
}
