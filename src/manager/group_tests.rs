use swarm_core::id::IdSource;
use swarm_core::store::MemoryStore;
use swarm_core::time::Timestamp;

use super::*;
use crate::identity::ca::BACKDATE;

const PROMOTED: Timestamp = Timestamp::from_secs(10_000);
const DEMOTED: Timestamp = Timestamp::from_secs(20_000);

/// A manager's certificate, as it was issued then.
fn certificate(node: NodeId, issued: Timestamp) -> NodeCertificate {
    let identity = Identity { node, role: NodeRole::Manager, cluster: IdSource::seeded(9).next() };
    NodeCertificate {
        identity,
        not_before: issued.before(BACKDATE),
        not_after: issued + Duration::from_secs(90 * 24 * 3600),
        public_key: Vec::new(),
    }
}

/// What a manager knows that has applied this last change of a node, beside a manager with the raft id 9.
async fn knows(node: Node, at: Timestamp) -> Snapshot {
    let store = MemoryStore::default();
    let status = ManagerStatus { raft_id: 9, ..Default::default() };
    let other = Node {
        id: IdSource::seeded(2).next(),
        role: NodeRole::Manager,
        manager_status: Some(status),
        ..Node::default()
    };
    let changes = vec![Change::create(node), Change::create(other)];
    store.commit(Batch::new(at, changes)).await.unwrap();
    store.snapshot()
}

fn permits(answer: Result<(), ApiError>) -> bool {
    match answer {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.code, Code::PermissionDenied);
            false
        }
    }
}

#[tokio::test]
async fn who_was_demoted_has_no_say_under_any_raft_id() {
    let id = IdSource::seeded(1).next();
    let worker = |former_raft_ids| Node { id, former_raft_ids, ..Node::default() };
    let old = certificate(id, PROMOTED);
    // Had a place in the group, or was demoted before it got one.
    for demoted in [worker(vec![3]), worker(vec![])] {
        let view = knows(demoted, DEMOTED).await;
        for raft_id in [3, 4, 9] {
            assert!(!permits(may_speak(&view, &old, raft_id)), "{raft_id}");
        }
        assert!(!permits(may_write(&view, id)));
        // It was promoted since, and this manager has yet to hear of it.
        let new = certificate(id, DEMOTED + Duration::from_secs(5));
        assert!(permits(may_speak(&view, &new, 4)), "it may lead by now");
        assert!(!permits(may_speak(&view, &new, 9)), "that is another one's");
        assert!(!permits(may_write(&view, id)), "who leads has heard of it");
    }
    let view = knows(worker(vec![3]), DEMOTED).await;
    let new = certificate(id, DEMOTED + Duration::from_secs(5));
    assert!(!permits(may_speak(&view, &new, 3)), "an id is never used again");
}

#[tokio::test]
async fn a_manager_speaks_with_its_certificate_however_old() {
    let id = IdSource::seeded(1).next();
    let manager = Node { id, role: NodeRole::Manager, former_raft_ids: vec![3], ..Node::default() };
    let view = knows(manager, DEMOTED).await;
    let old = certificate(id, PROMOTED);
    assert!(permits(may_speak(&view, &old, 4)) && permits(may_write(&view, id)));
    assert!(!permits(may_speak(&view, &old, 3)), "the id of before it was demoted");
    let unknown = certificate(IdSource::seeded(5).next(), PROMOTED);
    assert!(permits(may_speak(&view, &unknown, 4)), "it joined through another manager");
    assert!(!permits(may_write(&view, unknown.identity.node)));
}
