//! Pure: what a dry run says, as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use swarm_core::model::{NodeId, TaskId, UpdateConfig, UpdateStatus};
use swarm_core::time::Nanos;

/// What a specification would do. Its JSON is written like Docker's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// The service's name.
    pub service: String,
    /// Where its tasks would be in the end, in order of slot and node; those that stay as they are
    /// included.
    pub placements: Vec<Placement>,
    /// Every task that would be told to stop, of this service or of others, in that order.
    pub stopped: Vec<Stopped>,
    /// The tasks that would find no node, or no address: those of this service in order of slot,
    /// then those of others that wait because of it.
    pub refused: Vec<Refused>,
    /// How many tasks each reason in `refused` stands for.
    pub reasons: BTreeMap<String, usize>,
    /// Tasks of other services that would get a node because of it.
    pub others: Vec<Placement>,
    /// Why the service would get no ports or no virtual addresses; empty where it does.
    pub stalled: String,
    /// Completions of a job that come after those that can run at the same time.
    pub to_follow: u64,
    /// How the roll-out goes, where there is one: how many at a time, with which pauses.
    pub update: Option<UpdateConfig>,
    /// How the roll-out would end, or what keeps it from ending.
    pub update_status: Option<UpdateStatus>,
    /// What would happen together, in order. The first is what the planners write before any agent
    /// has answered, and so holds for certain; the others assume that every task which is told to
    /// start runs at once, every task which is told to stop does so at once, and nothing fails.
    pub batches: Vec<Batch>,
    /// Commits that it took.
    pub commits: usize,
    /// Whether it was followed to its end, and not cut short for its length.
    pub complete: bool,
}

/// A task that has a node, or would get one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Placement {
    /// Its service's name.
    pub service: String,
    /// Its slot; 0 in the global modes.
    pub slot: u64,
    /// The node.
    #[serde(rename = "NodeID")]
    pub node_id: NodeId,
    /// The node's name.
    pub node: String,
    /// The task, if there is one already.
    #[serde(rename = "TaskID", skip_serializing_if = "Option::is_none", default)]
    pub task_id: Option<TaskId>,
    /// Whether it runs what the service asks for. If not, the roll-out did not get to it.
    pub up_to_date: bool,
    /// The batch in which it gets its node, from 1; 0 where it has it already.
    pub batch: usize,
}

/// A task that would be told to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Stopped {
    /// Its service's name.
    pub service: String,
    /// Its slot; 0 in the global modes.
    pub slot: u64,
    /// Its node; absent while it waits for one.
    #[serde(rename = "NodeID", skip_serializing_if = "Option::is_none", default)]
    pub node_id: Option<NodeId>,
    /// The node's name.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub node: String,
    /// The task.
    #[serde(rename = "TaskID")]
    pub task_id: TaskId,
    /// Why.
    pub why: String,
    /// The batch in which it happens, from 1.
    pub batch: usize,
}

/// A task that would wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Refused {
    /// Its service's name.
    pub service: String,
    /// Its slot; 0 in the global modes.
    pub slot: u64,
    /// The node that it is bound to, in the global modes.
    #[serde(rename = "NodeID", skip_serializing_if = "Option::is_none", default)]
    pub node_id: Option<NodeId>,
    /// Why, in Swarm's words.
    pub why: String,
}

/// What happens together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Batch {
    /// How long after the specification was accepted, apart from what agents take.
    pub after: Nanos,
    /// Tasks that get a node.
    pub placed: usize,
    /// Tasks that are told to stop.
    pub stopped: usize,
    /// Tasks that are refused a node, though they may get one later.
    pub refused: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.placed + self.stopped + self.refused == 0
    }
}
