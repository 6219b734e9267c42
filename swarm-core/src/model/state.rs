//! Pure: the states of a task and the transitions that are legal.

crate::words! {
    /// The state of a task, observed or desired. States are ordered and only advance; the order
    /// is SwarmKit's (`api/types.proto`), with its gaps left out.
    ///
    /// Who writes what: an orchestrator creates a task as `new`, the allocator makes it `pending`,
    /// the scheduler `assigned`, and from there the agent of its node advances it. The manager
    /// writes `rejected` and `orphaned` itself in the two cases where no agent can.
    pub enum TaskState as "TaskState" {
        /// Created by an orchestrator; nothing is allocated.
        New = "new",
        /// Addresses and ports are allocated; waits for a node.
        Pending = "pending",
        /// Placed on a node.
        Assigned = "assigned",
        /// The agent has taken it.
        Accepted = "accepted",
        /// Its image, mounts and networks are being made ready.
        Preparing = "preparing",
        /// Prepared; starts when its desired state says so.
        Ready = "ready",
        /// Starting, or started and not yet healthy.
        Starting = "starting",
        /// Running and healthy.
        Running = "running",
        /// Ended with exit code 0.
        Complete = "complete",
        /// Stopped because it was told to.
        Shutdown = "shutdown",
        /// Ended on its own with an error, after it had been started.
        Failed = "failed",
        /// Could not be started at all.
        Rejected = "rejected",
        /// Only ever desired: to be erased once its executor has confirmed the stop.
        Remove = "remove",
        /// Its node has been gone for so long that it is given up.
        Orphaned = "orphaned",
    }
}

impl TaskState {
    /// Whether the task has ended for good: it holds nothing and never runs again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        self as u8 > Self::Running as u8
    }

    /// Whether an observed state may follow `self`. States may be skipped (reports are batched)
    /// and never go back; nothing follows a terminal state except [`Orphaned`](Self::Orphaned)
    /// when a node that was given up is concerned; `remove` is never observed.
    ///
    /// ```
    /// use swarm_core::model::TaskState::*;
    /// assert!(Assigned.may_become(Running));
    /// assert!(!Running.may_become(Ready) && !Failed.may_become(Running));
    /// ```
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        !self.is_terminal() && next as u8 > self as u8 && !matches!(next, Self::Remove)
    }

    /// Whether a desired state may be set: `ready`, `running`, `complete`, `shutdown`, `remove`,
    /// and never back.
    #[must_use]
    pub const fn may_be_desired_after(self, previous: Self) -> bool {
        let legal = matches!(
            self,
            Self::Ready | Self::Running | Self::Complete | Self::Shutdown | Self::Remove
        );
        legal && self as u8 >= previous as u8
    }

    /// Every state, in order.
    pub const ALL: [Self; 14] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Remove,
        Self::Orphaned,
    ];
}
