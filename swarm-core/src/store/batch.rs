//! Pure: what can be written. Transactions are data, so that a replicated log holds them as they
//! are and no closure has to cross an await.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Epoch, index::Kind};
use crate::model::{
    Cluster, ClusterId, Config, ConfigId, Network, NetworkId, Node, NodeId, Secret, SecretId,
    Service, ServiceId, Task, TaskId, TaskState, TaskStatus, Version,
};
use crate::time::Timestamp;

macro_rules! objects {
    ($( $(#[$doc:meta])* $kind:ident($id:ident), $word:literal; )*) => {
        /// One object of the store, of any kind. Clones share it.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum Object {
            $( $(#[$doc])* $kind(Arc<$kind>), )*
        }

        /// The identity of one object.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum ObjectRef {
            $( $(#[$doc])* $kind($id), )*
        }

        impl Object {
            /// Its identity.
            #[must_use]
            pub fn id(&self) -> ObjectRef {
                match self { $( Self::$kind(object) => ObjectRef::$kind(object.id), )* }
            }

            /// The commit that last changed it.
            #[must_use]
            pub fn revision(&self) -> Version {
                match self { $( Self::$kind(object) => object.revision, )* }
            }

            /// Whether both are the very same object, and not merely equal.
            #[must_use]
            pub fn is(&self, other: &Self) -> bool {
                match (self, other) {
                    $( (Self::$kind(one), Self::$kind(other)) => Arc::ptr_eq(one, other), )*
                    _ => false,
                }
            }

            /// Docker's word for its kind.
            #[must_use]
            pub const fn kind(&self) -> &'static str {
                match self { $( Self::$kind(_) => $word, )* }
            }

            /// The unique name that it holds, if it holds one.
            #[must_use]
            pub fn name(&self) -> Option<&str> {
                match self { $( Self::$kind(object) => Kind::name(object.as_ref()), )* }
            }
        }

        impl ObjectRef {
            /// Docker's word for the object's kind.
            #[must_use]
            pub const fn kind(&self) -> &'static str {
                match self { $( Self::$kind(_) => $word, )* }
            }
        }

        const KINDS: &[&str] = &[$( $word, )*];

        impl fmt::Display for ObjectRef {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $( Self::$kind(id) => write!(f, concat!($word, " {}"), id), )* }
            }
        }

        $(
            impl From<$kind> for Object {
                fn from(object: $kind) -> Self {
                    Self::$kind(Arc::new(object))
                }
            }

            impl From<Arc<$kind>> for Object {
                fn from(object: Arc<$kind>) -> Self {
                    Self::$kind(object)
                }
            }

            impl From<$id> for ObjectRef {
                fn from(id: $id) -> Self {
                    Self::$kind(id)
                }
            }
        )*
    };
}

objects! {
    /// The cluster.
    Cluster(ClusterId), "cluster";
    /// A node.
    Node(NodeId), "node";
    /// A service.
    Service(ServiceId), "service";
    /// A task.
    Task(TaskId), "task";
    /// A network.
    Network(NetworkId), "network";
    /// A secret.
    Secret(SecretId), "secret";
    /// A config.
    Config(ConfigId), "config";
}

/// Reads the word for a kind of objects.
pub(super) fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
    let word = String::deserialize(deserializer)?;
    Ok(KINDS.iter().copied().find(|kind| *kind == word).unwrap_or("object"))
}

/// One write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// A new object. Its id and its name must be free.
    Create(Object),
    /// The object as it shall be; its `revision` is the one that the writer read. For a task,
    /// desired state may only advance, its node is set once, and observed status past
    /// `assigned` belongs to the agent.
    Update(Object),
    /// Erase the object if it is at this revision, or whatever its revision.
    Remove(ObjectRef, Option<Version>),
    /// Observed status of a task, moved forward. Ignored where it would move back.
    Advance(TaskId, Box<TaskStatus>),
    /// Desired state of a task, moved forward. Ignored where it would move back. The manager's
    /// way to stop or start a task whose status its agent reports at the same time.
    Desire(TaskId, TaskState),
}

impl Change {
    /// Creates an object.
    pub fn create(object: impl Into<Object>) -> Self {
        Self::Create(object.into())
    }

    /// Updates an object that was read at its present `revision`.
    pub fn update(object: impl Into<Object>) -> Self {
        Self::Update(object.into())
    }

    /// Erases an object whatever its revision.
    pub fn remove(id: impl Into<ObjectRef>) -> Self {
        Self::Remove(id.into(), None)
    }

    /// The object that it concerns.
    #[must_use]
    pub fn target(&self) -> ObjectRef {
        match self {
            Self::Create(object) | Self::Update(object) => object.id(),
            Self::Remove(id, _) => *id,
            Self::Advance(task, _) | Self::Desire(task, _) => ObjectRef::Task(*task),
        }
    }
}

/// Changes that are applied as a whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The time of the decision; becomes the objects' `created_at` and `updated_at`.
    pub at: Timestamp,
    /// The leadership epoch of the decision; absent for writes that any leader may commit.
    pub epoch: Option<Epoch>,
    /// The writes, in order.
    pub changes: Vec<Change>,
}

impl Batch {
    /// A batch decided at `at`, for any leader.
    #[must_use]
    pub fn new(at: Timestamp, changes: Vec<Change>) -> Self {
        Self { at, epoch: None, changes }
    }
}

/// What one commit did to one object: `old` is absent for a creation, `new` for a removal.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The object before.
    pub old: Option<Object>,
    /// The object after.
    pub new: Option<Object>,
}

impl Event {
    /// The object: as it is, or as it was before it was removed.
    ///
    /// # Panics
    /// Never: an event has at least one side.
    #[inline]
    #[must_use]
    pub fn object(&self) -> &Object {
        self.new.as_ref().or(self.old.as_ref()).expect("an event has at least one side")
    }

    /// The task before, if it is about a task that existed.
    #[inline]
    #[must_use]
    pub fn old_task(&self) -> Option<&Arc<Task>> {
        match &self.old {
            Some(Object::Task(task)) => Some(task),
            _ => None,
        }
    }

    /// The task after, if it is about a task that exists.
    #[inline]
    #[must_use]
    pub fn new_task(&self) -> Option<&Arc<Task>> {
        match &self.new {
            Some(Object::Task(task)) => Some(task),
            _ => None,
        }
    }
}
