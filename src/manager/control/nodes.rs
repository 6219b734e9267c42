//! What clients do with nodes (SwarmKit: `controlapi/node.go`).

use std::time::Duration;

use swarm_core::model::defaults::NODE_CERT_EXPIRY;
use swarm_core::model::{
    BlacklistedCertificate, Cluster, Node, NodeRole, NodeSpec, NodeState, Reachability, TaskState,
    TaskStatus, Version,
};
use swarm_core::store::{Change, Snapshot};
use swarm_core::time::Timestamp;

use super::find::Find as _;
use super::{Control, check_version, precondition, unimplemented};
use crate::error::ApiError;

/// A removed node's certificate is refused for this long beyond its life.
const BLACKLIST_MARGIN: Duration = Duration::from_secs(7 * 24 * 3600);

impl Control {
    /// Changes a node's name, labels, role or availability.
    ///
    /// # Errors
    /// That it does not exist, that the version is not the present one, or that the role cannot
    /// change.
    pub async fn update_node(
        &self,
        word: &str,
        version: Version,
        spec: NodeSpec,
    ) -> Result<(), ApiError> {
        self.transact(|view| {
            let old = view.find_node(word)?;
            self.check_role(view, &old, spec.role)?;
            check_version(old.version, version)?;
            let node = Node { spec: spec.clone(), ..Node::clone(&old) };
            Ok((vec![Change::update(node)], ()))
        })
        .await
    }

    /// Removes a node: its certificate is refused from now on and its tasks are given up.
    ///
    /// # Errors
    /// That it does not exist, manages the cluster, or, without `force`, is not down.
    pub async fn remove_node(&self, word: &str, force: bool) -> Result<(), ApiError> {
        self.transact(|view| {
            let node = view.find_node(word)?;
            if node.spec.role == NodeRole::Manager || node.manager_status.is_some() {
                return Err(precondition(format!(
                    "node {} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
                    node.id
                )));
            }
            if !force && node.status.state == NodeState::Ready {
                let text = format!("node {} is not down and can't be removed", node.id);
                return Err(precondition(text));
            }
            let cluster = view.the_cluster()?;
            Ok((removal(view, &node, &cluster, self.clock.now()), ()))
        })
        .await
    }

    fn check_role(&self, view: &Snapshot, node: &Node, role: NodeRole) -> Result<(), ApiError> {
        if node.spec.role == role {
            return Ok(());
        }
        let managers = view.nodes.iter().filter(|node| node.spec.role == NodeRole::Manager);
        if role == NodeRole::Worker && managers.count() <= 1 {
            return Err(precondition("attempting to demote the last manager of the swarm"));
        }
        if role == NodeRole::Worker && costs_quorum(view, node) {
            return Err(precondition(
                "can't remove member from the raft: this would result in a loss of quorum",
            ));
        }
        if !self.changes_roles {
            return Err(unimplemented(
                "this manager does not change the roles of nodes, for its state is not replicated: join workers with the token of \"docker swarm join-token worker\"",
            ));
        }
        Ok(())
    }
}

/// Whether the managers that would be left lack a majority that the leader can reach. A manager that has
/// no place among them yet costs nothing.
fn costs_quorum(view: &Snapshot, manager: &Node) -> bool {
    let others = view.nodes.iter().filter(|other| other.id != manager.id);
    let left: Vec<_> = others.filter_map(|other| other.manager_status.as_ref()).collect();
    let reachable = left.iter().filter(|s| s.reachability == Reachability::Reachable).count();
    manager.manager_status.is_some() && reachable <= left.len() / 2
}

/// Erases a node and everything that depends on it, in one transaction: a node that came back
/// between the steps would otherwise go on as if nothing had happened.
fn removal(view: &Snapshot, node: &Node, cluster: &Cluster, now: Timestamp) -> Vec<Change> {
    let mut cluster = cluster.clone();
    // The setting may be shorter now than when the node made its certificate.
    let longest = cluster.spec.ca_config.node_cert_expiry.duration().max(NODE_CERT_EXPIRY);
    let expires = node.certificate_expires.unwrap_or(now + longest).max(now);
    cluster.blacklist.retain(|entry| entry.until > now && entry.node_id != node.id);
    cluster.blacklist.push(BlacklistedCertificate {
        node_id: node.id,
        until: expires + BLACKLIST_MARGIN,
        ..Default::default()
    });
    let orphans = view.tasks_on(node.id).filter(|task| !task.status.state.is_terminal());
    let orphaned = orphans.map(|task| {
        let status = TaskStatus {
            state: TaskState::Orphaned,
            timestamp: now,
            message: "Task belonged to a node that has been deleted".into(),
            ..task.status.clone()
        };
        Change::Advance(task.id, Box::new(status))
    });
    let mut changes =
        vec![Change::Remove(node.id.into(), Some(node.revision)), Change::update(cluster)];
    changes.extend(orphaned);
    changes
}
