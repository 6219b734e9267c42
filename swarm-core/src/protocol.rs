//! What an agent and a manager say to each other, over one two-way stream for each session.
//!
//! Messages are serde values with named members, so that neighbouring versions understand each
//! other: unknown members are ignored, missing ones take their defaults.
//!
//! A session begins with the agent's [`AgentMessage::Hello`] and the manager's
//! [`ManagerMessage::Welcome`], then a complete set of assignments. It ends when the stream does:
//! the agent opens another after a pause (100 ms, doubling to 8 s), its tasks keep running, and it
//! reports every status again. The node itself is known from its certificate, never from a message.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::executor::{LogEntry, LogOptions};
use crate::id::Id;
use crate::model::{
    Blob, ConfigId, Driver, NetworkId, NodeDescription, NodeRole, PortProtocol, SecretBytes,
    SecretId, Task, TaskId, TaskStatus,
};
use crate::network::{NetworkView, PublishedPort};
use crate::time::Nanos;

/// One session of an agent.
#[derive(Debug)]
pub struct Session;
/// The id of a [`Session`].
pub type SessionId = Id<Session>;

/// From an agent to its manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AgentMessage {
    /// Opens the session: always the first message.
    Hello {
        /// What the node is and has.
        description: NodeDescription,
        /// The address that the node advertises; empty leaves it to the manager to see.
        #[serde(default)]
        addr: String,
    },
    /// The node is alive. Sent every heartbeat period.
    Heartbeat,
    /// The node's description changed.
    Description(NodeDescription),
    /// What was observed of tasks since the last report; everything, after a `Hello`.
    Statuses(Vec<(TaskId, TaskStatus)>),
    /// Output that was asked for.
    Logs(LogChunk),
    /// The node stops on purpose: it is down at once, not after three heartbeats.
    Goodbye,
}

/// From a manager to an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ManagerMessage {
    /// Answers `Hello`.
    Welcome {
        /// This session.
        session: SessionId,
        /// What the node has to know of its cluster and of itself.
        settings: Settings,
    },
    /// The settings changed.
    Settings(Settings),
    /// Which roots the node shall trust, and whether it shall renew its certificate now. Sent only
    /// while the node's description says otherwise.
    Trust(Trust),
    /// What the node shall run.
    Assignments(Assignments),
    /// Output is wanted.
    Logs(LogRequest),
    /// Output is not wanted any more.
    CancelLogs(u64),
    /// This manager cannot serve the session: try another one.
    Redirect(Settings),
    /// The node is not welcome: it was removed, or another node uses its identity.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What a node shall believe in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// The roots to trust instead of those before, PEM.
    pub roots: String,
    /// The public key of the root that shall issue the node's certificate (in the form of
    /// [`TlsInfo::cert_issuer_public_key`](crate::model::TlsInfo)): a node that holds one of
    /// another issuer renews it now. Empty asks for nothing.
    #[serde(default)]
    pub issuer: String,
}

/// What a node has to know of its cluster and of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Time between two heartbeats.
    pub heartbeat: Nanos,
    /// Where managers listen, the leader first.
    pub managers: Vec<String>,
    /// Grows each time the cluster is begun anew: whoever has seen a higher number follows no manager
    /// that says a lower one, for it is of a group that was given up.
    pub recovery: u64,
    /// The role that the cluster gives the node; with a certificate of another one, it asks for a
    /// new certificate.
    pub role: NodeRole,
}

/// What a node shall run: everything, or what changed since the set before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Assignments {
    /// The number of the set that the changes apply to; absent for a complete set, and then
    /// whatever is not in it must go.
    pub applies_to: Option<u64>,
    /// The number of the resulting set. A gap means that a message was lost: open a new session.
    pub results_in: u64,
    /// Items that are new or changed.
    pub put: Vec<Item>,
    /// Items that are not assigned any more.
    pub drop: Vec<ItemKey>,
}

/// One thing that is assigned to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Item {
    /// A task.
    Task(Arc<Task>),
    /// A secret that one of the tasks references.
    Secret {
        /// Which.
        id: SecretId,
        /// Its bytes.
        bytes: SecretBytes,
        /// How the bytes are expanded for each task.
        #[serde(default)]
        templating: Option<Driver>,
    },
    /// A config that one of the tasks references.
    Config {
        /// Which.
        id: ConfigId,
        /// Its bytes.
        bytes: Blob,
        /// How the bytes are expanded for each task.
        #[serde(default)]
        templating: Option<Driver>,
    },
    /// A network that one of the tasks is attached to.
    Network(Arc<NetworkView>),
    /// A published port.
    Port(PublishedPort),
}

/// Which item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ItemKey {
    /// See [`Item::Task`].
    Task(TaskId),
    /// See [`Item::Secret`].
    Secret(SecretId),
    /// See [`Item::Config`].
    Config(ConfigId),
    /// See [`Item::Network`].
    Network(NetworkId),
    /// See [`Item::Port`].
    Port(u16, PortProtocol),
}

impl Item {
    /// Which item it is.
    #[must_use]
    pub fn key(&self) -> ItemKey {
        match self {
            Self::Task(task) => ItemKey::Task(task.id),
            Self::Secret { id, .. } => ItemKey::Secret(*id),
            Self::Config { id, .. } => ItemKey::Config(*id),
            Self::Network(view) => ItemKey::Network(view.network.id),
            Self::Port(port) => ItemKey::Port(port.port, port.protocol),
        }
    }
}

/// A wish for the output of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// The manager's number for it, unique within the session.
    pub id: u64,
    /// Whose output.
    pub task: TaskId,
    /// Which part.
    pub options: LogOptions,
}

/// A piece of the output that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// The number of the request.
    pub id: u64,
    /// The lines.
    pub entries: Vec<LogEntry>,
    /// Set on the last piece: the error that ended it, or empty.
    pub end: Option<String>,
}
