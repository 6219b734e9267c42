//! How a cluster begins anew with what one of its managers has, when most of them are gone for good:
//! `docker swarm init --force-new-cluster`.
//!
//! The order is written down first, so that a crash in between does not lose it, and every step can be
//! repeated: the store begins a group of its own (`swarm_raft`'s recovery), which this manager leads;
//! then the cluster's objects say so. The other managers are workers from then on: whichever turns up
//! again is refused by its former raft id, and learns of its new role.

use std::sync::Arc;

use swarm_core::model::{
    Cluster, ManagerStatus, Node as NodeObject, NodeId, NodeRole, Reachability,
};
use swarm_core::store::{Batch, Change, Snapshot, Store};
use swarm_core::time::{Clock as _, SystemClock, Timestamp};
use tracing::warn;

use super::member::{Managing, bind, commit_first, until_leading};
use super::seat::new_raft_id;
use super::{Membership, Node, status};
use crate::error::{ApiError, Code};
use crate::http::InitRequest;
use crate::identity::Credentials;
use crate::manager::roles;

impl Node {
    /// Begins the cluster anew, on a manager of it.
    ///
    /// # Errors
    /// That the node is no manager; otherwise as when it starts.
    pub(super) async fn force_new_cluster(
        &self,
        request: &InitRequest,
    ) -> Result<NodeId, ApiError> {
        let mut member = self.member.lock().await;
        let known = self.dir.membership().map_err(|e| status::local("the membership", e))?;
        let Some(known) = known.filter(|known| known.manager) else {
            return Err(status::not_manager());
        };
        let listen =
            if request.listen_addr.is_empty() { &known.listen } else { &request.listen_addr };
        let told = request.advertise_addr.is_empty() && self.config.advertise.is_none();
        let (listen, advertise) = match told {
            true => (known.listen.clone(), known.advertise.clone()),
            false => {
                let (listen, advertise) = self.addresses(listen, &request.advertise_addr)?;
                (listen.to_string(), advertise.to_string())
            }
        };
        // The id is drawn once, and kept before it is used.
        let raft_id = if known.begins_anew { known.raft_id } else { new_raft_id() };
        let managers = vec![advertise.clone()];
        let membership =
            Membership { raft_id, listen, advertise, managers, begins_anew: true, ..known };
        self.dir
            .remember(&membership)
            .map_err(|error| status::local("the membership was not kept", error))?;
        self.joining().cancel();
        if let Some(member) = member.take() {
            member.stop().await;
        }
        self.resume_into(&mut member, membership).await
    }

    /// Carries the order out, as far as that has not happened yet.
    pub(super) async fn begin_anew(
        &self,
        membership: &mut Membership,
        credentials: &Arc<Credentials>,
    ) -> Result<Managing, ApiError> {
        warn!(node = %membership.node, "the cluster begins anew with what this manager has");
        self.recover_store(membership, credentials).await?;
        let listener = bind(&membership.listen).await?;
        let opened = self.open_store(membership, credentials, false).await?;
        // Before anything looks after the group: it would take back the managers that are given up.
        let written = write_down(&*opened.store, membership).await.and_then(|()| {
            membership.begins_anew = false;
            let kept = self.dir.remember(membership);
            kept.map_err(|error| status::local("the membership was not kept", error))
        });
        if let Err(error) = written {
            opened.close.await;
            return Err(error);
        }
        self.start_managing(membership, credentials, Some((opened, listener))).await
    }
}

async fn write_down(store: &dyn Store, membership: &Membership) -> Result<(), ApiError> {
    until_leading(store).await;
    let changes = changes(&store.snapshot(), membership).ok_or_else(|| {
        let text = "this manager's state has no cluster in it: restore a backup instead";
        ApiError::plain(Code::Unknown, text)
    })?;
    commit_first(store, Batch::new(SystemClock.now(), changes)).await
}

/// The cluster once more, with one manager: this node, which is a new one where a backup was restored.
fn changes(view: &Snapshot, membership: &Membership) -> Option<Vec<Change>> {
    let cluster = view.cluster()?;
    let recovery = recovery_after(cluster.recovery, SystemClock.now());
    let cluster = Cluster { recovery, ..Cluster::clone(cluster) };
    let others = view.nodes.iter().filter(|node| node.id != membership.node);
    let managers = others
        .filter(|node| node.role == NodeRole::Manager || node.spec.role == NodeRole::Manager)
        .map(|node| {
            let mut now = roles::demoted(node);
            now.spec.role = NodeRole::Worker;
            Change::update(now)
        });
    let own = match view.nodes.get(membership.node) {
        Some(node) => Change::update(the_manager(roles::demoted(node), membership)),
        None => Change::create(the_manager(NodeObject::default(), membership)),
    };
    Some([Change::update(cluster), own].into_iter().chain(managers).collect())
}

/// A number that no cluster which began anew from the same state, or from an older one, has had: with
/// a count alone, two that were restored from one backup could not be told apart.
fn recovery_after(before: u64, now: Timestamp) -> u64 {
    (before + 1).max(now.since(Timestamp::ZERO).as_secs())
}

fn the_manager(mut node: NodeObject, membership: &Membership) -> NodeObject {
    (node.id, node.cluster_id) = (membership.node, membership.cluster);
    (node.spec.role, node.role) = (NodeRole::Manager, NodeRole::Manager);
    // The order may be carried out a second time.
    node.former_raft_ids.retain(|id| *id != membership.raft_id);
    node.manager_status = Some(ManagerStatus {
        leader: true,
        addr: membership.advertise.clone(),
        raft_id: membership.raft_id,
        reachability: Reachability::Reachable,
        ..Default::default()
    });
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recovery_grows_whatever_the_clock_says_and_two_of_one_backup_differ() {
        let at = Timestamp::from_secs;
        assert_eq!(recovery_after(0, at(1_000)), 1_000);
        assert_eq!(recovery_after(0, at(2_000)), 2_000, "the same backup, restored later");
        assert_eq!(recovery_after(2_000, at(1_500)), 2_001, "a clock that is behind");
    }
}
