//! What a certificate opens, and what it does not.

use swarm_core::model::BlacklistedCertificate;

use super::*;
use crate::identity::TrustRoot;

fn now() -> Timestamp {
    SystemClock.now()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ApiError>, code: Code, text: &str) {
    let error = result.expect_err(text);
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(text), "{error}");
}

#[tokio::test]
async fn a_member_holds_a_session_in_the_name_of_its_certificate() {
    let world = World::start().await;
    for role in [NodeRole::Worker, NodeRole::Manager] {
        let member = world.member(role, now());
        let answer = converse(&world.addr, &member).await;
        assert_eq!(answer, Ok(member.identity().node.to_string()));
    }
}

#[tokio::test]
async fn expired_and_future_certificates_are_refused() {
    let world = World::start().await;
    let expired = world.member(NodeRole::Worker, now().before(2 * HOUR));
    // Certificates are backdated by an hour.
    let future = world.member(NodeRole::Worker, now() + 2 * HOUR);
    for credentials in [expired, future] {
        let text = "refused this node's certificate: it has expired, or a clock is wrong";
        refusal(converse(&world.addr, &credentials).await, Code::Unauthenticated, text);
    }
    world.assert_serving().await;
}

#[tokio::test]
async fn a_certificate_of_another_root_is_refused_by_both_sides() {
    let (world, other) = (World::start().await, World::start().await);
    let stranger = other.member(NodeRole::Manager, now());
    let text = "invalid peer certificate";
    refusal(converse(&world.addr, &stranger).await, Code::Unavailable, text);
    // A stranger that does not mind whose manager answers: the server's own refusal.
    let mixed = forged(&world, &stranger);
    let text = "another root signed it";
    refusal(converse(&world.addr, &mixed).await, Code::Unauthenticated, text);
    world.assert_serving().await;
}

#[tokio::test]
async fn a_certificate_of_this_root_for_another_cluster_is_refused_by_both_sides() {
    let world = World::start().await;
    let cluster = IdSource::random().next();
    let identity = Identity { node: IdSource::random().next(), role: NodeRole::Manager, cluster };
    let foreign = Credentials::new(certified(&world.authority, identity, now())).unwrap();
    let text = "belongs to another cluster";
    refusal(converse(&world.addr, &foreign).await, Code::Unavailable, text);
    let mixed = forged(&world, &foreign);
    let text = "it is of another cluster";
    refusal(converse(&world.addr, &mixed).await, Code::Unauthenticated, text);
}

#[tokio::test]
async fn a_worker_cannot_pose_as_a_manager() {
    let world = World::start().await;
    let impostor = world.member(NodeRole::Worker, now());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let store = Arc::new(StoreAuthority::new(
        world.store.clone(),
        Arc::new(SystemClock),
        IdSource::random(),
    ));
    let services = Services {
        ca: store.clone(),
        sessions: Arc::new(Echo),
        control: store.clone(),
        group: Arc::new(NoGroup),
        logs: Arc::new(Silent),
        membership: store,
        clock: Arc::new(SystemClock),
    };
    tokio::spawn(serve(listener, impostor, services, world.cancel.clone()));
    let member = world.member(NodeRole::Worker, now());
    refusal(converse(&addr, &member).await, Code::Unavailable, "not a manager");
    let error = join(&addr, world.worker_token(), Availability::Active, "").await.unwrap_err();
    assert!(error.message.contains("not a manager"), "{error}");
}

#[tokio::test]
async fn without_a_certificate_there_is_no_session_and_no_renewal() {
    let world = World::start().await;
    let anonymous = ManagerClient::anonymous(&world.addr, world.authority.root()).await.unwrap();
    let text = "needs a certificate of this cluster";
    refusal(anonymous.session().await.map(|_| ()), Code::Unauthenticated, text);
    let csr = KeyRequest::generate().unwrap().csr;
    refusal(anonymous.renew(csr).await, Code::Unauthenticated, text);
    refusal(anonymous.managers().await, Code::Unauthenticated, text);
}

#[tokio::test]
async fn a_worker_may_not_make_a_call_for_managers_and_a_manager_may() {
    let world = World::start().await;
    let worker = world.member(NodeRole::Worker, now());
    let client = ManagerClient::connect(&world.addr, &worker).await.unwrap();
    refusal(client.managers().await, Code::PermissionDenied, "only managers may make this call");
    let manager = world.member(NodeRole::Manager, now());
    let client = ManagerClient::connect(&world.addr, &manager).await.unwrap();
    let managers = client.managers().await.unwrap().managers;
    assert!(managers.len() == 1 && managers[0].leader, "{managers:?}");
}

#[tokio::test]
async fn a_removed_node_is_refused_at_once_even_on_an_open_connection() {
    let world = World::start().await;
    let member = Credentials::new(world.join(world.worker_token()).await.unwrap()).unwrap();
    let client = ManagerClient::connect(&world.addr, &member).await.unwrap();
    client.renew(KeyRequest::generate().unwrap().csr).await.unwrap();
    let node_id = member.identity().node;
    let until = now() + HOUR;
    world
        .update_cluster(|cluster| {
            cluster.blacklist.push(BlacklistedCertificate { node_id, until, ..Default::default() });
        })
        .await;
    let csr = KeyRequest::generate().unwrap().csr;
    refusal(client.renew(csr).await, Code::PermissionDenied, "was removed from the cluster");
    let refused = client.session().await.map(|_| ());
    refusal(refused, Code::PermissionDenied, "was removed from the cluster");
    world.assert_serving().await;
}

#[tokio::test]
async fn the_end_of_the_longest_certificate_is_written_down_before_a_node_has_it() {
    let world = World::start().await;
    let joined = world.join(world.worker_token()).await.unwrap();
    let (id, ends) = (joined.identity().node, joined.certificate().not_after);
    let noted = || world.store.snapshot().nodes.get(id).unwrap().certificate_expires;
    assert_eq!(noted(), Some(ends));
    let client =
        ManagerClient::connect(&world.addr, &Credentials::new(joined).unwrap()).await.unwrap();
    for hours in [1, 5_000] {
        let life = u64::try_from(HOUR.as_nanos()).unwrap() * hours;
        let life = i64::try_from(life).unwrap();
        world.update_cluster(|cluster| cluster.spec.ca_config.node_cert_expiry.0 = life).await;
        let KeyRequest { key, csr } = KeyRequest::generate().unwrap();
        let issued = client.renew(csr).await.unwrap();
        let root = world.authority.root().clone();
        let renewed = NodeIdentity::new(root, issued.certificate, key).unwrap();
        let renewed = renewed.certificate().not_after;
        assert_eq!(renewed > ends, hours > 1, "an expiry that was set takes effect");
        assert_eq!(noted(), Some(renewed.max(ends)), "the first one is still good");
    }
}

#[tokio::test]
async fn renewal_gives_the_role_that_the_store_says_and_only_to_nodes_of_the_store() {
    let world = World::start().await;
    let joined = world.join(world.worker_token()).await.unwrap();
    let id = joined.identity().node;
    let credentials = Credentials::new(joined).unwrap();
    let mut node = world.store.snapshot().nodes.get(id).unwrap().as_ref().clone();
    node.role = NodeRole::Manager;
    world.store.commit(Batch::new(now(), vec![Change::update(node)])).await.unwrap();
    let client = ManagerClient::connect(&world.addr, &credentials).await.unwrap();
    let KeyRequest { key, csr } = KeyRequest::generate().unwrap();
    let issued = client.renew(csr).await.unwrap();
    assert_eq!((issued.node, issued.role), (id, NodeRole::Manager));
    // The new certificate serves new connections; the old connection is still the worker's.
    let root = world.authority.root().clone();
    credentials.replace(NodeIdentity::new(root, issued.certificate, key).unwrap()).unwrap();
    assert_eq!(client.managers().await.unwrap_err().code, Code::PermissionDenied);
    let again = ManagerClient::connect(&world.addr, &credentials).await.unwrap();
    again.managers().await.unwrap();

    let ghost = world.member(NodeRole::Worker, now());
    let client = ManagerClient::connect(&world.addr, &ghost).await.unwrap();
    let csr = KeyRequest::generate().unwrap().csr;
    refusal(client.renew(csr).await, Code::NotFound, "not found");
}

#[tokio::test]
async fn stopping_the_manager_ends_sessions_and_the_port() {
    let world = World::start().await;
    let member = world.member(NodeRole::Worker, now());
    let client = ManagerClient::connect(&world.addr, &member).await.unwrap();
    let (to, mut from) = client.session().await.unwrap();
    to.send(AgentMessage::Heartbeat).await.unwrap();
    assert!(matches!(from.next().await, Some(Ok(_))));
    world.cancel.cancel();
    assert!(!matches!(from.next().await, Some(Ok(_))), "the session is over");
}

/// Credentials that trust `world` and its cluster but show another's certificate: a client that
/// does not play by the rules.
fn forged(world: &World, other: &Arc<Credentials>) -> Arc<Credentials> {
    let trusting = world.member(NodeRole::Worker, now());
    trusting.show(other);
    trusting
}

#[tokio::test]
async fn an_open_connection_does_not_outlive_the_root_of_its_certificate() {
    let world = World::start().await;
    let client = |node: Arc<Credentials>| {
        let addr = world.addr.clone();
        async move { ManagerClient::connect(&addr, &node).await.unwrap() }
    };
    let member = client(world.member(NodeRole::Manager, now())).await;
    let (to, mut from) = member.session().await.unwrap();
    to.send(AgentMessage::Heartbeat).await.unwrap();
    assert!(matches!(from.next().await, Some(Ok(_))));
    assert!(member.managers().await.is_ok());

    // In the middle of a rotation both roots are trusted.
    let next = Authority::create(now()).unwrap();
    let both = format!("{}{}", world.authority.root().pem(), next.root().pem());
    let both = world.own.node().trusting(TrustRoot::parse(&both).unwrap()).unwrap();
    world.own.replace(both).unwrap();
    assert!(member.managers().await.is_ok());
    to.send(AgentMessage::Heartbeat).await.unwrap();
    assert!(matches!(from.next().await, Some(Ok(_))));

    world.own.replace(certified(&next, world.own.identity(), now())).unwrap();
    assert!(from.next().await.is_none(), "the session ends");
    let refused = member.managers().await.expect_err("it is of no root that is trusted");
    assert_eq!(refused.code, Code::Unauthenticated, "{refused}");
    assert!(refused.message.contains("of a root that was given up"), "{refused}");
}

#[tokio::test]
async fn a_session_does_not_outlive_its_certificate() {
    let world = World::start().await;
    // Good for an hour from then on: a second is left.
    let ends_soon = now().before(HOUR - Duration::from_secs(1));
    let member = world.member(NodeRole::Worker, ends_soon);
    let client = ManagerClient::connect(&world.addr, &member).await.unwrap();
    match client.session().await {
        Ok((_to, mut from)) => assert!(from.next().await.is_none_or(|last| last.is_err())),
        Err(late) => assert_eq!(late.code, Code::Unauthenticated, "on a slow machine: {late}"),
    }
}
