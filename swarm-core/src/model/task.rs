//! Tasks: one run of a service's specification, in one slot, on one node.

use std::borrow::Cow;
use std::sync::Arc;

use super::{
    Driver, Endpoint, GenericResource, Labels, NetworkAttachment, NodeId, PortConfig, PortProtocol,
    SecretBytes, ServiceId, TaskId, TaskSpec, TaskState, Version,
};
use crate::time::Timestamp;

crate::object! {
    /// What is known of a task's container.
    pub struct ContainerStatus {
        /// The executor's name for it.
        container_id: String = "ContainerID",
        /// Its first process; 0 when it does not run.
        pid: i64 = "PID",
        /// How it ended; 0 while it runs.
        exit_code: i64 = "ExitCode",
    }
}

crate::object! {
    /// The host ports of a task.
    pub struct PortStatus {
        /// The ports with the numbers that they really have.
        ports: Vec<PortConfig> = "Ports" omit,
    }
}

crate::object! {
    /// Where one of a task's ports answers, as seen from its node's neighbours. (Ours.)
    pub struct TaskEndpoint {
        /// The port inside the container.
        target_port: u16 = "TargetPort",
        /// The transport.
        protocol: PortProtocol = "Protocol",
        /// Where to connect to: `ADDRESS:PORT`.
        address: String = "Address",
    }
}

crate::object! {
    /// What is observed of a task. Written by the manager up to `assigned`, by the agent after it.
    pub struct TaskStatus {
        /// When the state was reached, by the clock of who observed it.
        timestamp: Timestamp = "Timestamp" omit,
        /// The state.
        state: TaskState = "State",
        /// How it came about, in words: mostly one of few, which cost nothing to say again.
        message: Cow<'static, str> = "Message" omit,
        /// What went wrong, in words.
        err: String = "Err" omit,
        /// The container, once there is one.
        container: Option<Box<ContainerStatus>> = "ContainerStatus" omit,
        /// The host ports.
        port_status: PortStatus = "PortStatus",
        /// Where published ports answer. (Ours.)
        endpoints: Vec<TaskEndpoint> = "Endpoints" omit,
    }
}

impl TaskStatus {
    /// A status with a state and its message.
    #[must_use]
    pub fn new(
        state: TaskState,
        timestamp: Timestamp,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { state, timestamp, message: message.into(), ..Self::default() }
    }
}

crate::object! {
    /// What a task needs to know of its service, for templates and names.
    pub struct ServiceAnnotations {
        /// The service's name.
        name: String = "Name" omit,
        /// The service's labels.
        labels: Labels = "Labels" omit,
    }
}

crate::object! {
    /// Where and when tasks of one slot failed. (Ours.)
    pub struct NodeFailures {
        /// The node.
        node_id: NodeId = "NodeID",
        /// The times, in order.
        at: Vec<Timestamp> = "At",
    }
}

crate::object! {
    /// One run of a service's specification, in one slot, on one node.
    pub struct Task {
        /// Its id.
        id: TaskId = "ID",
        /// The commit that last changed it.
        version: Version = "Version",
        /// When it was created.
        created_at: Timestamp = "CreatedAt",
        /// When it was last changed.
        updated_at: Timestamp = "UpdatedAt",
        /// The commit that last changed it; equals `version`. (Ours.)
        revision: Version = "Revision" omit,
        /// Labels.
        labels: Labels = "Labels",
        /// What it runs. Shared with the service while it is current.
        spec: Arc<TaskSpec> = "Spec",
        /// Whose it is.
        service_id: ServiceId = "ServiceID" omit,
        /// Its place among the replicas, from 1, in a job from 0; 0 in the global modes.
        slot: u64 = "Slot" omit,
        /// Which task of its slot it is, in the global modes of its node, counted from 0: of two the
        /// higher one is the newer, whatever the clocks of the leaders that made them said. (Ours.)
        turn: u64 = "Turn" omit,
        /// Where it runs; set once.
        node_id: Option<NodeId> = "NodeID" omit,
        /// What is observed of it.
        status: TaskStatus = "Status",
        /// What it shall be.
        desired_state: TaskState = "DesiredState",
        /// Its places in networks.
        networks: Vec<NetworkAttachment> = "NetworksAttachments" omit,
        /// The generic resources that it holds.
        generic_resources: Vec<GenericResource> = "GenericResources" omit,
        /// The run of a job that it belongs to.
        job_iteration: Option<Version> = "JobIteration" omit,
        /// The version of the service that it was made from. (Ours.)
        spec_version: Version = "SpecVersion" omit,
        /// Its service's name and labels when it was made. (Ours.)
        annotations: Arc<ServiceAnnotations> = "ServiceAnnotations" omit,
        /// Where its log goes if its specification does not say: the cluster's default when it was
        /// made. (Ours.)
        log_driver: Option<Arc<Driver>> = "LogDriver" omit,
        /// Its service's ports when it was allocated. (Ours.)
        endpoint: Option<Arc<Endpoint>> = "Endpoint" omit,
        /// A desired `ready` becomes `running` at this time… (Ours.)
        start_after: Option<Timestamp> = "StartAfter" omit,
        /// …and once this task has stopped. (Ours.)
        start_after_stop_of: Option<TaskId> = "StartAfterStopOf" omit,
        /// When the manager saw it run. (Ours.)
        running_since: Option<Timestamp> = "RunningSince" omit,
        /// When the manager saw it end. (Ours.)
        ended_at: Option<Timestamp> = "EndedAt" omit,
        /// When its predecessors in the slot were restarted, for attempts within a window:
        /// carried along so that neither history limits nor a new leader forget it. (Ours.)
        restarts: Vec<Timestamp> = "Restarts" omit,
        /// Where its predecessors in the slot failed lately, of the same version of the service:
        /// carried along for the same reason, and read where nodes are ranked. (Ours.)
        failures: Vec<NodeFailures> = "Failures" omit,
        /// The roll-out that made it, named by the `started_at` of the service's update status;
        /// absent for a task that was made in any other way. (Ours.)
        rollout: Option<Timestamp> = "RollOut" omit,
        /// The task in the same slot that it was made to take over from, on another node: not because
        /// that is out of date or has ended, but to spread the service more evenly. (Ours.)
        relieves: Option<TaskId> = "Relieves" omit,
        /// Why it may not stay on its node, although it runs: it is stopped, and the store records
        /// its end as a rejection with this text. (Ours: Swarm rejects first and stops afterwards,
        /// and until then takes what still runs for ended.)
        eviction: Option<String> = "Eviction" omit,
        /// Which task of higher priority it had to make room for, in words: the store records it as
        /// the error of its end. (Ours.)
        preempted: Option<String> = "Preempted" omit,
        /// The tasks that make room for it. While it is pending, and has these, its node is promised
        /// to it: what it needs there is given to nobody else. (Ours.)
        room_from: Vec<TaskId> = "RoomFrom" omit,
        /// Whether nobody makes room for it: it came after a task that had to, and has had no node
        /// since; or after one for which others did, and which did not last. (Ours.)
        displaced: bool = "Displaced" omit,
        /// The client's registry credentials; never in an API response. (Ours.)
        registry_auth: Option<SecretBytes> = "RegistryAuth" omit,
    }
}

impl Task {
    /// The name that tables and containers show: `service.slot.id`, without a slot
    /// `service.node.id`: in the global modes, and for a job's slot 0 as in Docker.
    #[must_use]
    pub fn name(&self) -> String {
        let service = &self.annotations.name;
        match (self.slot, self.node_id) {
            (0, Some(node)) => format!("{service}.{node}.{}", self.id),
            (slot, _) => format!("{service}.{slot}.{}", self.id),
        }
    }

    /// Whether it shall do its work, now or later, or shall have done it: its desired state is at
    /// most `running`, or `complete`, which is what a job's tasks are to become.
    #[inline]
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.desired_state <= TaskState::Complete
    }

    /// Whether it waits on a node that is promised to it, for others to leave.
    #[must_use]
    pub fn is_promised(&self) -> bool {
        self.status.state == TaskState::Pending && !self.room_from.is_empty() && self.is_wanted()
    }

    /// Whether it may hold anything on a node: it was assigned and has not ended.
    #[must_use]
    pub fn holds_resources(&self) -> bool {
        self.node_id.is_some() && !self.status.state.is_terminal()
    }
}
