//! Who may join, and what a joining node can and cannot decide.

use swarm_core::model::{NodeRole, SecretBytes};

use super::*;
use crate::identity::NodeCertificate;
use crate::rpc::client::{fetch_root, request_certificate};
use crate::rpc::message::IssueRequest;

#[tokio::test]
async fn a_worker_and_a_manager_join_by_their_tokens_and_are_nodes_of_the_store() {
    let world = World::start().await;
    let tokens = &world.cluster.join_tokens;
    for (token, role) in [(&tokens.worker, NodeRole::Worker), (&tokens.manager, NodeRole::Manager)]
    {
        let joined =
            join(&world.addr, token, Availability::Pause, "10.0.0.7").await.unwrap().identity();
        assert_eq!((joined.role, joined.cluster), (role, world.cluster.id));
        let view = world.store.snapshot();
        let node = view.nodes.get(joined.node).expect("the node is in the store");
        assert_eq!((node.role, node.spec.role), (role, role));
        assert_eq!(node.spec.availability, Availability::Pause);
        assert_eq!(node.status.addr, "10.0.0.7");
        assert_eq!(node.cluster_id, world.cluster.id);
    }
    world.assert_serving().await;
}

#[tokio::test]
async fn a_node_that_names_no_address_gets_the_one_that_the_manager_sees() {
    let world = World::start().await;
    let joined = world.join(world.worker_token()).await.unwrap().identity();
    assert_eq!(world.store.snapshot().nodes.get(joined.node).unwrap().status.addr, "127.0.0.1");
}

#[tokio::test]
async fn a_wrong_token_is_refused_in_docker_words_and_leaves_no_trace() {
    let world = World::start().await;
    let before = world.version();
    let error = world.join(&token(world.authority.root().digest()).expose()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster"
    );
    assert_eq!(error.code.http_status(), 400);
    assert_eq!(world.version(), before);
    world.assert_serving().await;
}

#[tokio::test]
async fn a_malformed_token_is_refused_before_anything_is_sent() {
    // Nobody listens there: the text must not depend on it.
    let error = join("127.0.0.1:1", "SWMTKN-1-x-y", Availability::Active, "").await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.code.http_status()), ("invalid join token", 500));
}

#[tokio::test]
async fn a_token_that_pins_another_root_trusts_nobody_here() {
    let (world, other) = (World::start().await, World::start().await);
    let before = world.version();
    let error = world.join(other.worker_token()).await.unwrap_err();
    let expected = other.authority.root().digest();
    let start = format!("remote CA does not match fingerprint. Expected: {expected}");
    assert!(error.to_string().starts_with(&start), "{error}");
    assert_eq!(world.version(), before);
}

#[tokio::test]
async fn the_root_that_was_fetched_is_what_the_manager_must_prove() {
    // An impostor shows the true root, which is public, but cannot prove to be signed by it.
    let (world, impostor) = (World::start().await, World::start().await);
    let root = fetch_root(&world.addr, world.authority.root().digest()).await.unwrap();
    let csr = KeyRequest::generate().unwrap().csr;
    let request = request(csr, world.worker_token());
    let error = request_certificate(&impostor.addr, &root, request).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn a_rotated_token_gives_nothing_any_more() {
    let world = World::start().await;
    let old = world.worker_token().to_owned();
    let new = token(world.authority.root().digest()).expose();
    world.update_cluster(|cluster| cluster.join_tokens.worker.clone_from(&new)).await;
    assert!(world.join(&old).await.unwrap_err().message.starts_with("A valid join token"));
    world.join(&new).await.unwrap();
}

#[tokio::test]
async fn a_cluster_without_tokens_lets_nobody_in() {
    let world = World::start().await;
    world.update_cluster(|cluster| cluster.join_tokens = JoinTokens::default()).await;
    let root = world.authority.root();
    for token in ["", world.worker_token()] {
        let csr = KeyRequest::generate().unwrap().csr;
        let error = request_certificate(&world.addr, root, request(csr, token)).await.unwrap_err();
        assert!(error.message.starts_with("A valid join token"), "{error}");
    }
}

#[tokio::test]
async fn a_signing_request_cannot_say_who_the_node_is() {
    let world = World::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut wish = rcgen::CertificateParams::new(vec!["swarm-manager".to_owned()]).unwrap();
    for (kind, value) in [
        (rcgen::DnType::OrganizationalUnitName, "swarm-manager"),
        (rcgen::DnType::OrganizationName, "another"),
        (rcgen::DnType::CommonName, "chosen"),
    ] {
        wish.distinguished_name.push(kind, value);
    }
    wish.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = wish.serialize_request(&key).unwrap().pem().unwrap();
    let root = world.authority.root();
    let request = request(csr, world.worker_token());
    let issued = request_certificate(&world.addr, root, request).await.unwrap();
    let certificate = NodeCertificate::from_pem(&issued.certificate, root).unwrap();
    let identity =
        Identity { node: issued.node, role: NodeRole::Worker, cluster: world.cluster.id };
    assert_eq!(certificate.identity, identity);
    assert_eq!(certificate.public_key, key.public_key_raw());
    let der = pem_to_der(&issued.certificate);
    let (_, x509) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(!x509.is_ca());
    let names = format!("{:?}", x509.subject_alternative_name().unwrap().unwrap().value);
    assert!(!names.contains("swarm-manager") && !names.contains("swarm-ca"), "{names}");
}

#[tokio::test]
async fn a_damaged_signing_request_leaves_no_node_behind() {
    let world = World::start().await;
    let before = world.version();
    let good = KeyRequest::generate().unwrap().csr;
    // A flipped byte in the middle: the request's own signature must not hold any more.
    let mut der = pem_to_der(&good);
    der[60] ^= 1;
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &der);
    let forged =
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    for csr in ["", "garbage", &good[..good.len() / 2], &forged, world.authority.root().pem()] {
        let request = request(csr.to_owned(), world.worker_token());
        let error =
            request_certificate(&world.addr, world.authority.root(), request).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{error}");
        assert!(error.message.contains("certificate signing request is refused"), "{error}");
    }
    assert_eq!(world.version(), before);
    world.assert_serving().await;
}

#[test]
fn a_request_does_not_show_its_token() {
    let shown = format!("{:?}", request("csr".into(), "SWMTKN-1-root-secret"));
    assert!(!shown.contains("SWMTKN"), "{shown}");
}

fn request(csr: String, token: &str) -> IssueRequest {
    let token = SecretBytes::from(token.as_bytes().to_vec());
    IssueRequest { csr, token, availability: Availability::Active, addr: String::new() }
}

fn pem_to_der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap()
}
