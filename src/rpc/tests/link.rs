//! The agent's link over real sockets: it finds a manager, and tells refusals from failures.

use swarm_core::model::BlacklistedCertificate;
use swarm_runtime::agent::link::{Connection, Link as _, LinkError};

use super::*;
use crate::identity::renew::Renewal as _;
use crate::rpc::ManagerLink;

/// Nobody listens on port 1.
const DEAD: &str = "127.0.0.1:1";

async fn answered(connection: &mut Connection) -> bool {
    connection.sender.send(AgentMessage::Heartbeat).await.is_ok()
        && connection.receiver.recv().await.is_some()
}

#[tokio::test]
async fn a_link_finds_the_manager_that_answers_and_again_after_the_stream_ended() {
    let world = World::start().await;
    let member = world.member(NodeRole::Worker, SystemClock.now());
    let link = ManagerLink::new(member, vec![DEAD.into(), world.addr.clone()]);
    for _ in 0..3 {
        let mut connection = link.connect().await.unwrap();
        assert!(answered(&mut connection).await);
    }
}

#[tokio::test]
async fn a_link_goes_where_it_is_told_and_forgets_nothing_for_an_empty_list() {
    let (world, other) = (World::start().await, World::start().await);
    let member = world.member(NodeRole::Worker, SystemClock.now());
    let link = ManagerLink::new(member, vec![DEAD.into(), other.addr.clone()]);
    assert!(matches!(link.connect().await, Err(LinkError::Unavailable(_))));
    let said = |managers: &[String], recovery| Settings {
        managers: managers.to_vec(),
        recovery,
        role: NodeRole::Worker,
        ..Settings::default()
    };
    link.settings(&said(std::slice::from_ref(&world.addr), 1)).unwrap();
    link.settings(&said(&[], 1)).unwrap();
    // A manager that has lost touch names itself first, again and again: the next one is tried.
    let stale = said(&[DEAD.into(), other.addr.clone()], 1);
    for expected in [DEAD, other.addr.as_str(), DEAD] {
        link.settings(&stale).unwrap();
        assert_eq!(link.candidates()[0], expected);
    }
    link.settings(&said(std::slice::from_ref(&world.addr), 1)).unwrap();
    // A manager of a group that was given up.
    link.settings(&said(&[DEAD.into()], 0)).unwrap_err();
    assert_eq!(link.known_managers(), std::slice::from_ref(&world.addr));
    assert!(answered(&mut link.connect().await.unwrap()).await);
}

#[tokio::test]
async fn the_receiver_closes_when_the_manager_stops() {
    let world = World::start().await;
    let member = world.member(NodeRole::Worker, SystemClock.now());
    let link = ManagerLink::new(member, vec![world.addr.clone()]);
    let mut connection = link.connect().await.unwrap();
    assert!(answered(&mut connection).await);
    world.cancel.cancel();
    assert!(connection.receiver.recv().await.is_none());
}

#[tokio::test]
async fn a_removed_node_is_refused_and_an_expired_certificate_is_not_final() {
    let world = World::start().await;
    let now = SystemClock.now();
    let expired = world.member(NodeRole::Worker, now.before(2 * HOUR));
    let link = ManagerLink::new(expired, vec![world.addr.clone()]);
    assert!(matches!(link.connect().await, Err(LinkError::Unavailable(_))));

    let removed = world.member(NodeRole::Worker, now);
    let node_id = removed.identity().node;
    let entry = BlacklistedCertificate { node_id, until: now + HOUR, ..Default::default() };
    world.update_cluster(|cluster| cluster.blacklist.push(entry)).await;
    // The refusal counts, although another manager did not answer after it.
    let link = ManagerLink::new(removed, vec![world.addr.clone(), DEAD.into()]);
    match link.connect().await {
        Err(LinkError::Refused(reason)) => assert!(reason.contains("was removed"), "{reason}"),
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn a_link_renews_the_certificate_through_any_manager() {
    let world = World::start().await;
    let joined = world.join(world.worker_token()).await.unwrap();
    let (root, identity) = (joined.root().clone(), joined.identity());
    let link =
        ManagerLink::new(Credentials::new(joined).unwrap(), vec![DEAD.into(), world.addr.clone()]);
    let KeyRequest { key, csr } = KeyRequest::generate().unwrap();
    let pem = link.renew(csr).await.unwrap();
    assert_eq!(NodeIdentity::new(root, pem, key).unwrap().identity(), identity);
}
