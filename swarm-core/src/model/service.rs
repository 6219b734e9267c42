//! Services: what shall run, how often, and how changes roll out.

use std::sync::Arc;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    ContainerSpec, Driver, Endpoint, EndpointSpec, Labels, NetworkAttachmentConfig, Platform,
    ResourceRequirements, SecretBytes, ServiceId, TaskId, Version,
};
use crate::json::Extra;
use crate::time::{Nanos, Timestamp};

crate::words! {
    /// When a task that ended is replaced.
    pub enum RestartCondition as "RestartCondition" {
        /// Always.
        Any = "any",
        /// Unless it ended well.
        OnFailure = "on-failure",
        /// Never.
        None = "none",
    }
}

crate::object! {
    /// When and how often a task that ended is replaced.
    pub struct RestartPolicy {
        /// When; absent is `any`.
        condition: Option<RestartCondition> = "Condition" omit,
        /// How long after the end; absent is 5 seconds.
        delay: Option<Nanos> = "Delay" omit,
        /// How often within the window; 0 or absent is without limit.
        max_attempts: Option<u64> = "MaxAttempts" omit,
        /// The window in which attempts count; 0 or absent is all time.
        window: Option<Nanos> = "Window" omit,
    }
}

crate::object! {
    /// Spread tasks over the values of a label.
    pub struct SpreadOver {
        /// `node.labels.NAME` or `engine.labels.NAME`.
        descriptor: String = "SpreadDescriptor" omit,
    }
}

crate::object! {
    /// A wish, not a condition, about where tasks run.
    pub struct PlacementPreference {
        /// Spread; the only kind that Docker has.
        spread: Option<SpreadOver> = "Spread" omit,
    }
}

crate::object! {
    /// Where tasks may run.
    pub struct Placement {
        /// Conditions such as `node.role == manager`; all must hold.
        constraints: Vec<String> = "Constraints" omit,
        /// Wishes, the most important first.
        preferences: Vec<PlacementPreference> = "Preferences" omit,
        /// Tasks of the service on one node at most; 0 is without limit.
        max_replicas: u64 = "MaxReplicas" omit,
        /// Platforms that the image runs on; empty is any.
        platforms: Vec<Platform> = "Platforms" omit,
    }
}

crate::object! {
    /// What a task runs and under which conditions.
    pub struct TaskSpec {
        /// The container. Absent only for runtimes that are not containers.
        container: Option<ContainerSpec> = "ContainerSpec" omit,
        /// Limits and reservations.
        resources: Option<ResourceRequirements> = "Resources" omit,
        /// When a task that ended is replaced.
        restart_policy: Option<RestartPolicy> = "RestartPolicy" omit,
        /// Where tasks may run.
        placement: Option<Placement> = "Placement" omit,
        /// The networks to attach to.
        networks: Vec<NetworkAttachmentConfig> = "Networks" omit,
        /// The log driver.
        log_driver: Option<Driver> = "LogDriver" omit,
        /// A counter: a change of it replaces every task.
        force_update: u64 = "ForceUpdate",
        /// `container`, the default.
        runtime: String = "Runtime" omit,
    }
}

/// So that two that are the same one are equal without a look at either.
impl Eq for TaskSpec {}

impl TaskSpec {
    /// The constraints, or none.
    #[must_use]
    pub fn constraints(&self) -> &[String] {
        self.placement.as_ref().map_or(&[], |placement| &placement.constraints)
    }
}

crate::object! {
    /// A fixed number of tasks.
    pub struct ReplicatedMode {
        /// How many; absent is 1.
        replicas: Option<u64> = "Replicas" omit,
    }
}

crate::object! {
    /// A fixed number of tasks that run to completion.
    pub struct ReplicatedJobMode {
        /// How many at the same time; absent is 1.
        max_concurrent: Option<u64> = "MaxConcurrent" omit,
        /// How many in all; absent is `max_concurrent`.
        total_completions: Option<u64> = "TotalCompletions" omit,
    }
}

/// How many tasks a service has. Its JSON is an object with one member.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceMode {
    /// A fixed number.
    Replicated(ReplicatedMode),
    /// One on every eligible node. What the JSON held in it is kept.
    Global(Extra),
    /// A fixed number that run to completion.
    ReplicatedJob(ReplicatedJobMode),
    /// One on every eligible node that runs to completion.
    GlobalJob(Extra),
}

impl ServiceMode {
    /// Docker's word for the mode, as filters and tables have it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Replicated(_) => "replicated",
            Self::Global(_) => "global",
            Self::ReplicatedJob(_) => "replicated-job",
            Self::GlobalJob(_) => "global-job",
        }
    }

    /// The number of replicas, in replicated mode.
    #[must_use]
    pub fn replicas(&self) -> Option<u64> {
        match self {
            Self::Replicated(mode) => Some(mode.replicas.unwrap_or(1)),
            _ => None,
        }
    }

    /// Whether there is one task for each eligible node, rather than a number of them.
    #[must_use]
    pub const fn is_global(&self) -> bool {
        matches!(self, Self::Global(_) | Self::GlobalJob(_))
    }

    /// Whether tasks run to completion.
    #[must_use]
    pub const fn is_job(&self) -> bool {
        matches!(self, Self::ReplicatedJob(_) | Self::GlobalJob(_))
    }
}

impl Default for ServiceMode {
    fn default() -> Self {
        Self::Replicated(ReplicatedMode::default())
    }
}

crate::object! {
    /// The members that a [`ServiceMode`]'s JSON may have.
    pub struct Modes {
        /// See [`ServiceMode::Replicated`].
        replicated: Option<ReplicatedMode> = "Replicated" omit,
        /// See [`ServiceMode::Global`].
        global: Option<Empty> = "Global" omit,
        /// See [`ServiceMode::ReplicatedJob`].
        replicated_job: Option<ReplicatedJobMode> = "ReplicatedJob" omit,
        /// See [`ServiceMode::GlobalJob`].
        global_job: Option<Empty> = "GlobalJob" omit,
    }
}

crate::object! {
    /// An object without members that are known.
    pub struct Empty {}
}

impl Serialize for ServiceMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let empty = |extra: &Extra| Empty { extra: extra.clone() };
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::Replicated(mode) => map.serialize_entry("Replicated", mode)?,
            Self::Global(extra) => map.serialize_entry("Global", &empty(extra))?,
            Self::ReplicatedJob(mode) => map.serialize_entry("ReplicatedJob", mode)?,
            Self::GlobalJob(extra) => map.serialize_entry("GlobalJob", &empty(extra))?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ServiceMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let modes = Modes::deserialize(deserializer)?;
        match (modes.replicated, modes.global, modes.replicated_job, modes.global_job) {
            (Some(mode), None, None, None) => Ok(Self::Replicated(mode)),
            (None, Some(mode), None, None) => Ok(Self::Global(mode.extra)),
            (None, None, Some(mode), None) => Ok(Self::ReplicatedJob(mode)),
            (None, None, None, Some(mode)) => Ok(Self::GlobalJob(mode.extra)),
            (None, None, None, None) => Ok(Self::default()),
            _ => Err(de::Error::custom("must specify only one service mode")),
        }
    }
}

crate::words! {
    /// What happens when an update fails.
    pub enum FailureAction as "unrecognized update failure action {}" {
        /// It pauses.
        Pause = "pause",
        /// It goes on.
        Continue = "continue",
        /// The previous specification comes back.
        Rollback = "rollback",
    }
}

crate::words! {
    /// Which comes first when a task is replaced.
    pub enum UpdateOrder as "unrecognized update order {}" {
        /// The old one stops before the new one starts.
        StopFirst = "stop-first",
        /// The new one runs before the old one stops.
        StartFirst = "start-first",
    }
}

crate::object! {
    /// How changes roll out.
    pub struct UpdateConfig {
        /// Tasks at the same time; 0 is all.
        parallelism: u64 = "Parallelism",
        /// Pause after each task.
        delay: Nanos = "Delay" omit,
        /// What happens on failure; absent is `pause`.
        failure_action: Option<FailureAction> = "FailureAction" omit,
        /// How long a new task is watched for failure; 0 or absent is 5 seconds.
        monitor: Option<Nanos> = "Monitor" omit,
        /// The tolerated ratio of failures.
        max_failure_ratio: f32 = "MaxFailureRatio",
        /// Which comes first; absent is `stop-first`.
        order: Option<UpdateOrder> = "Order" omit,
    }
}

crate::object! {
    /// What an operator says of a service.
    pub struct ServiceSpec {
        /// Its unique name, a DNS label.
        name: String = "Name",
        /// Labels.
        labels: Labels = "Labels",
        /// What its tasks run. Shared with every task that was made from it.
        task: Arc<TaskSpec> = "TaskTemplate",
        /// How many tasks.
        mode: ServiceMode = "Mode",
        /// How changes roll out.
        update_config: Option<UpdateConfig> = "UpdateConfig" omit,
        /// How going back rolls out.
        rollback_config: Option<UpdateConfig> = "RollbackConfig" omit,
        /// The networks to attach to: the form before API 1.25, moved into the task by the API.
        networks: Vec<NetworkAttachmentConfig> = "Networks" omit,
        /// How it can be reached.
        endpoint: Option<EndpointSpec> = "EndpointSpec" omit,
    }
}

crate::words! {
    /// How far a roll-out is.
    pub enum UpdateState as "UpdateState" {
        /// Going on.
        Updating = "updating",
        /// Stopped after failures.
        Paused = "paused",
        /// Done.
        Completed = "completed",
        /// Going back.
        RollbackStarted = "rollback_started",
        /// Going back stopped after failures.
        RollbackPaused = "rollback_paused",
        /// Gone back.
        RollbackCompleted = "rollback_completed",
    }
}

crate::object! {
    /// How far a roll-out is, with the facts that a new leader needs to carry on.
    pub struct UpdateStatus {
        /// How far.
        state: UpdateState = "State",
        /// When it began.
        started_at: Option<Timestamp> = "StartedAt" omit,
        /// When it ended.
        completed_at: Option<Timestamp> = "CompletedAt" omit,
        /// Why it is so, in words.
        message: String = "Message" omit,
        /// New tasks that failed within their monitor window, each counted once. (Ours.)
        failed: Vec<TaskId> = "Failed" omit,
        /// Tasks that this roll-out has to replace in all, for the failure ratio. (Ours.)
        total: u64 = "Total" omit,
    }
}

crate::object! {
    /// Counts that `GET /services?status=true` adds; never stored.
    pub struct ServiceStatus {
        /// Tasks that run.
        running_tasks: u64 = "RunningTasks",
        /// Tasks that shall run.
        desired_tasks: u64 = "DesiredTasks",
        /// Tasks of a job that are done.
        completed_tasks: u64 = "CompletedTasks",
    }
}

crate::object! {
    /// Which run of a job is the current one.
    pub struct JobStatus {
        /// A counter of runs.
        job_iteration: Version = "JobIteration",
        /// When the current one began.
        last_execution: Option<Timestamp> = "LastExecution" omit,
    }
}

crate::object! {
    /// A service of the cluster.
    pub struct Service {
        /// Its id.
        id: ServiceId = "ID",
        /// The commit that last changed the specification.
        version: Version = "Version",
        /// When it was created.
        created_at: Timestamp = "CreatedAt",
        /// When it was last changed.
        updated_at: Timestamp = "UpdatedAt",
        /// The commit that last changed anything. (Ours.)
        revision: Version = "Revision" omit,
        /// What the operator says of it.
        spec: ServiceSpec = "Spec",
        /// What it was before the last update.
        previous_spec: Option<Box<ServiceSpec>> = "PreviousSpec" omit,
        /// How it can be reached, as allocated; absent until then.
        endpoint: Option<Arc<Endpoint>> = "Endpoint" omit,
        /// How far the last roll-out is.
        update_status: Option<UpdateStatus> = "UpdateStatus" omit,
        /// The current run of a job.
        job_status: Option<JobStatus> = "JobStatus" omit,
        /// Marked for removal: gone for every client, erased once its tasks are. (Ours.)
        pending_delete: bool = "PendingDelete" omit,
        /// Why nothing could be allocated. (Ours.)
        stalled: String = "Stalled" omit,
        /// The client's registry credentials; never in an API response. (Ours.)
        registry_auth: Option<SecretBytes> = "RegistryAuth" omit,
        /// Those of the previous specification; never in an API response. (Ours.)
        previous_registry_auth: Option<SecretBytes> = "PreviousRegistryAuth" omit,
    }
}

impl Service {
    /// The run that a job is in, which its tasks carry; absent for services that are no jobs.
    #[must_use]
    pub fn job_iteration(&self) -> Option<Version> {
        let status = self.job_status.as_ref();
        let run = status.map_or_else(Version::default, |status| status.job_iteration);
        self.spec.mode.is_job().then_some(run)
    }
}

impl ReplicatedJobMode {
    /// How many tasks at the same time.
    #[must_use]
    pub fn max_concurrent(&self) -> u64 {
        self.max_concurrent.unwrap_or(1)
    }

    /// How many tasks are to complete.
    #[must_use]
    pub fn total_completions(&self) -> u64 {
        self.total_completions.unwrap_or_else(|| self.max_concurrent())
    }
}
