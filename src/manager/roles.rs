//! Pure: what the leader does so that the managers' group has those members that the cluster's nodes
//! say (SwarmKit: `manager/role_manager.go`).
//!
//! A node's specification says which role it shall have, `Node.role` which one its certificate gets,
//! and `ManagerStatus` where a manager listens. A promotion is written at once: the node is told, gets
//! a manager's certificate and asks for a place in the group, which is `ManagerStatus`. The leader then
//! admits it without a vote, and lets it vote once it is up to date. A demotion goes the other way: out
//! of the group first, then the role. So a worker is never in the group, and whoever leads after a crash
//! in between goes on from what is written.

use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{ManagerStatus, Node, NodeRole, Reachability};
use swarm_core::store::{Change, Snapshot};
use swarm_raft::{Member, Peer, RaftStatus};

/// A member that the leader has not heard from for this long is unreachable. (SwarmKit: as long as an
/// election takes; here that is shorter.)
const UNREACHABLE_AFTER: Duration = Duration::from_secs(5);
/// So many entries behind, and no more, may one be that is let to vote: it catches up while the
/// others go on.
const CAUGHT_UP: u64 = 100;

/// What to do next. One thing at a time: each changes what is to do after it.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write this.
    Write(Vec<Change>),
    /// Admit a manager that does not vote yet.
    Admit(Peer),
    /// Let a member vote.
    LetVote(u64),
    /// A member listens elsewhere.
    Relocate(Peer),
    /// Take a member out of the group.
    Remove(u64),
    /// Have another manager lead: this one is to leave the group.
    HandOver(u64),
}

/// A demotion that has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose.
    pub node: swarm_core::model::NodeId,
    /// Why.
    pub why: &'static str,
}

/// The next step of the leader `me`, which leads for `led_for`, if there is one, and the demotions that
/// cannot be made now.
#[must_use]
pub fn next(
    view: &Snapshot,
    group: &RaftStatus,
    me: u64,
    led_for: Duration,
) -> (Option<Step>, Vec<Held>) {
    let mut held = Vec::new();
    if group.leader != Some(me) {
        return (None, held);
    }
    for node in view.nodes.iter() {
        match step_for(node, group, me) {
            Ok(Some(step)) => return (Some(step), held),
            Ok(None) => {}
            Err(why) => held.push(Held { node: node.id, why }),
        }
    }
    let known = |id| view.nodes.iter().any(|node| raft_id(node) == Some(id));
    let stray = group.members.iter().find(|m| m.peer.raft_id != me && !known(m.peer.raft_id));
    if let Some(stray) = stray.filter(|stray| can_lose(group, stray.peer.raft_id, me)) {
        return (Some(Step::Remove(stray.peer.raft_id)), held);
    }
    let changes: Vec<Change> = view
        .nodes
        .iter()
        .filter_map(|node| as_seen(node, group, me, led_for))
        .map(Change::update)
        .collect();
    ((!changes.is_empty()).then_some(Step::Write(changes)), held)
}

/// Whether the group goes on without a member: a majority of those who are left is reachable.
#[must_use]
pub fn can_lose(group: &RaftStatus, member: u64, me: u64) -> bool {
    let left = || group.members.iter().filter(|m| m.voter && m.peer.raft_id != member);
    let reachable = left().filter(|m| is_reachable(m, me)).count();
    left().count() > 0 && reachable > left().count() / 2
}

fn step_for(node: &Arc<Node>, group: &RaftStatus, me: u64) -> Result<Option<Step>, &'static str> {
    match (node.spec.role, node.role) {
        (NodeRole::Worker, NodeRole::Worker) => Ok(None),
        (NodeRole::Manager, NodeRole::Worker) => {
            let promoted = Node { role: NodeRole::Manager, ..Node::clone(node) };
            Ok(Some(Step::Write(vec![Change::update(promoted)])))
        }
        (NodeRole::Manager, NodeRole::Manager) => Ok(belong(node, group)),
        (NodeRole::Worker, NodeRole::Manager) => demote(node, group, me).map(Some),
    }
}

/// A manager is to be a member, at its address, with a vote.
fn belong(node: &Node, group: &RaftStatus) -> Option<Step> {
    let status = node.manager_status.as_ref()?;
    let peer = Peer { raft_id: status.raft_id, address: status.addr.clone() };
    let Some(member) = find(group, status.raft_id) else { return Some(Step::Admit(peer)) };
    if member.peer.address != peer.address {
        return Some(Step::Relocate(peer));
    }
    let behind = group.last_log_index.unwrap_or(0).saturating_sub(member.matched?);
    (!member.voter && behind <= CAUGHT_UP).then_some(Step::LetVote(status.raft_id))
}

/// Out of the group first, then the role.
fn demote(node: &Arc<Node>, group: &RaftStatus, me: u64) -> Result<Step, &'static str> {
    let Some(id) = raft_id(node).filter(|id| find(group, *id).is_some()) else {
        return Ok(Step::Write(vec![Change::update(demoted(node))]));
    };
    if !can_lose(group, id, me) {
        return Err("quorum would be lost");
    }
    if id != me {
        return Ok(Step::Remove(id));
    }
    let others = group.members.iter().filter(|m| m.voter && m.peer.raft_id != me);
    let next = others.filter(|m| is_reachable(m, me)).max_by_key(|m| m.matched);
    next.map(|next| Step::HandOver(next.peer.raft_id)).ok_or("no other manager can lead")
}

/// The node as a worker: who was a manager is known by what its raft id was.
pub(crate) fn demoted(node: &Node) -> Node {
    let mut demoted = Node { role: NodeRole::Worker, ..node.clone() };
    demoted.former_raft_ids.extend(demoted.manager_status.take().map(|status| status.raft_id));
    demoted
}

/// The node as `docker node ls` is to show it, if it shows something else.
fn as_seen(node: &Arc<Node>, group: &RaftStatus, me: u64, led_for: Duration) -> Option<Node> {
    let status = node.manager_status.as_ref()?;
    let member = find(group, status.raft_id);
    let reachability = match member {
        Some(member) if is_reachable(member, me) => Reachability::Reachable,
        // A new leader has not heard from anybody yet.
        Some(member) if member.silent_for.is_none() && led_for < UNREACHABLE_AFTER => {
            status.reachability
        }
        Some(_) => Reachability::Unreachable,
        None => Reachability::Unknown,
    };
    let seen = ManagerStatus { leader: status.raft_id == me, reachability, ..status.clone() };
    (seen != *status).then(|| Node { manager_status: Some(seen), ..Node::clone(node) })
}

fn raft_id(node: &Arc<Node>) -> Option<u64> {
    node.manager_status.as_ref().map(|status| status.raft_id)
}

fn find(group: &RaftStatus, raft_id: u64) -> Option<&Member> {
    group.members.iter().find(|member| member.peer.raft_id == raft_id)
}

fn is_reachable(member: &Member, me: u64) -> bool {
    member.peer.raft_id == me
        || member.silent_for.is_some_and(|silence| silence < UNREACHABLE_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_core::id::IdSource;
    use swarm_core::model::NodeSpec;
    use swarm_core::store::Object;

    const ME: u64 = 1;
    const LONG: Duration = Duration::from_secs(60);

    fn node(ids: &mut IdSource, raft_id: u64, wanted: NodeRole, role: NodeRole) -> Node {
        let status = ManagerStatus {
            leader: raft_id == ME,
            reachability: Reachability::Reachable,
            addr: format!("10.0.0.{raft_id}:2377"),
            raft_id,
            ..Default::default()
        };
        Node {
            id: ids.next(),
            role,
            spec: NodeSpec { role: wanted, ..Default::default() },
            manager_status: (raft_id != 0).then_some(status),
            ..Default::default()
        }
    }

    fn managers(ids: &mut IdSource, count: u64) -> Vec<Node> {
        (1..=count).map(|id| node(ids, id, NodeRole::Manager, NodeRole::Manager)).collect()
    }

    fn member(raft_id: u64) -> Member {
        Member {
            peer: Peer { raft_id, address: format!("10.0.0.{raft_id}:2377") },
            voter: true,
            silent_for: (raft_id != ME).then_some(Duration::from_millis(100)),
            matched: Some(1_000),
        }
    }

    fn group(count: u64) -> RaftStatus {
        let mut group = RaftStatus::default();
        group.leader = Some(ME);
        group.last_log_index = Some(1_000);
        group.members = (1..=count).map(member).collect();
        group
    }

    fn step(nodes: &[Node], group: &RaftStatus) -> Option<Step> {
        next(&view(nodes), group, ME, LONG).0
    }

    fn view(nodes: &[Node]) -> Snapshot {
        Snapshot::from_objects(Default::default(), nodes.iter().cloned().map(Object::from))
    }

    fn written(step: Option<Step>) -> Node {
        match step {
            Some(Step::Write(changes)) => match changes.as_slice() {
                [Change::Update(Object::Node(node))] => Node::clone(node),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_group_as_it_shall_be_is_left_alone() {
        let nodes = managers(&mut IdSource::seeded(1), 3);
        assert_eq!(next(&view(&nodes), &group(3), ME, LONG), (None, vec![]));
    }

    #[test]
    fn a_promoted_node_gets_the_role_then_a_place_then_a_vote() {
        let mut ids = IdSource::seeded(1);
        let mut nodes = managers(&mut ids, 1);
        nodes.push(node(&mut ids, 0, NodeRole::Manager, NodeRole::Worker));
        assert_eq!(written(step(&nodes, &group(1))).role, NodeRole::Manager);
        nodes[1].role = NodeRole::Manager;
        assert_eq!(step(&nodes, &group(1)), None, "it has not asked for a place yet");
        nodes[1] =
            Node { id: nodes[1].id, ..node(&mut ids, 2, NodeRole::Manager, NodeRole::Manager) };
        let peer = member(2).peer;
        assert_eq!(step(&nodes, &group(1)), Some(Step::Admit(peer)));
        let mut group = group(2);
        (group.members[1].voter, group.members[1].matched) = (false, Some(100));
        assert_eq!(step(&nodes, &group), None, "it is far behind");
        group.members[1].matched = Some(950);
        assert_eq!(step(&nodes, &group), Some(Step::LetVote(2)));
    }

    #[test]
    fn a_demoted_manager_leaves_the_group_before_it_loses_the_role() {
        let mut nodes = managers(&mut IdSource::seeded(1), 3);
        nodes[2].spec.role = NodeRole::Worker;
        assert_eq!(step(&nodes, &group(3)), Some(Step::Remove(3)));
        let demoted = written(step(&nodes, &group(2)));
        assert_eq!((demoted.role, demoted.manager_status), (NodeRole::Worker, None));
        assert_eq!(demoted.former_raft_ids, [3], "what it says with it is refused from now on");
    }

    #[test]
    fn a_leader_that_is_demoted_hands_over_to_who_is_most_up_to_date() {
        let mut nodes = managers(&mut IdSource::seeded(1), 3);
        nodes[0].spec.role = NodeRole::Worker;
        let mut group = group(3);
        group.members[1].matched = Some(900);
        assert_eq!(step(&nodes, &group), Some(Step::HandOver(3)));
    }

    #[test]
    fn a_demotion_waits_while_it_would_cost_the_quorum() {
        let mut nodes = managers(&mut IdSource::seeded(1), 3);
        nodes[2].spec.role = NodeRole::Worker;
        let mut group = group(3);
        group.members[1].silent_for = Some(Duration::from_secs(60));
        let (step, held) = next(&view(&nodes), &group, ME, LONG);
        assert_eq!(held, [Held { node: nodes[2].id, why: "quorum would be lost" }]);
        let Some(Step::Write(changes)) = step else { panic!("{step:?}") };
        assert_eq!(changes.len(), 1, "the lost one is shown as unreachable");
        // The lost one itself can go.
        nodes[2].spec.role = NodeRole::Manager;
        nodes[1].spec.role = NodeRole::Worker;
        assert_eq!(next(&view(&nodes), &group, ME, LONG).0, Some(Step::Remove(2)));
    }

    #[test]
    fn a_new_leader_calls_nobody_unreachable_whom_it_has_had_no_time_to_hear() {
        let nodes = managers(&mut IdSource::seeded(1), 3);
        let mut group = group(3);
        group.members[2].silent_for = None;
        assert_eq!(next(&view(&nodes), &group, ME, Duration::from_secs(1)).0, None);
        assert_eq!(written(step(&nodes, &group)).id, nodes[2].id);
        group.leader = None;
        assert_eq!(step(&nodes, &group), None, "who does not lead does nothing");
    }

    #[test]
    fn who_moved_is_looked_for_at_the_new_address_and_a_stray_goes() {
        let mut nodes = managers(&mut IdSource::seeded(1), 3);
        nodes[1].manager_status.as_mut().unwrap().addr = "10.9.9.9:2377".into();
        let moved = Peer { raft_id: 2, address: "10.9.9.9:2377".into() };
        assert_eq!(step(&nodes, &group(3)), Some(Step::Relocate(moved)));
        let nodes = managers(&mut IdSource::seeded(1), 3);
        assert_eq!(step(&nodes, &group(4)), Some(Step::Remove(4)));
    }
}
