#[path = "../../tests/support/cfssl.rs"]
mod cfssl;

use cfssl::{Root, Service};
use swarm_core::id::IdSource;
use swarm_core::model::{NodeRole, RootCa, RootRotation, defaults};
use swarm_core::time::{Clock as _, SystemClock};

use super::*;
use crate::identity::{KeyRequest, NodeIdentity};

fn somebody(role: NodeRole) -> Identity {
    let mut ids = IdSource::random();
    Identity { node: ids.next(), role, cluster: ids.next() }
}

/// A manager's credentials under the cluster's own root, and that root.
fn manager() -> (Arc<Credentials>, Authority) {
    let now = SystemClock.now();
    let authority = Authority::create(now).unwrap();
    let KeyRequest { key, csr } = KeyRequest::generate().unwrap();
    let day = Duration::from_secs(24 * 3600);
    let pem = authority.issue(&csr, &somebody(NodeRole::Manager), day, now).unwrap();
    let own = NodeIdentity::new(authority.root().clone(), pem, key).unwrap();
    (Credentials::new(own).unwrap(), authority)
}

fn service(url: &str, root: &Root) -> ExternalCa {
    ExternalCa {
        protocol: "cfssl".into(),
        url: url.into(),
        ca_cert: root.cert.clone(),
        ..Default::default()
    }
}

/// A cluster whose root's key is with services.
fn cluster(root: &Root, services: Vec<ExternalCa>) -> Cluster {
    let mut spec = defaults::cluster_spec();
    spec.ca_config.external_cas = services;
    let root_ca = RootCa { certificate: root.cert.clone(), ..Default::default() };
    Cluster { spec, root_ca, ..Default::default() }
}

async fn ask(cfssl: &Cfssl, cluster: &Cluster) -> Result<String, IdentityError> {
    let request = KeyRequest::generate().unwrap();
    let identity = somebody(NodeRole::Worker);
    issue(cluster, Some(cfssl), &request.csr, &identity, SystemClock.now()).await
}

#[tokio::test]
async fn a_service_signs_what_the_cluster_says_of_its_nodes() {
    let (credentials, own) = manager();
    let root = Root::new("Outside");
    let running = Service::start(&root, own.root().pem()).await;
    let cluster = cluster(&root, vec![service(&running.url, &root)]);
    let cfssl = Cfssl::new(credentials);
    for (role, hosts) in [
        (NodeRole::Manager, &["swarm-manager", "", "swarm-ca"][..]),
        (NodeRole::Worker, &["swarm-worker", ""]),
    ] {
        let (request, identity) = (KeyRequest::generate().unwrap(), somebody(role));
        let now = SystemClock.now();
        let pem = issue(&cluster, Some(&cfssl), &request.csr, &identity, now).await.unwrap();
        let trusted = TrustRoot::parse(&root.cert).unwrap();
        let node = NodeIdentity::new(trusted, pem, request.key).unwrap();
        assert_eq!(node.identity(), identity);
        let asked = running.seen.lock().unwrap().pop().unwrap();
        let hosts: Vec<_> = hosts
            .iter()
            .map(|host| if host.is_empty() { identity.node.as_str() } else { host })
            .collect();
        assert_eq!(asked["hosts"], serde_json::json!(hosts));
        assert_eq!(asked["certificate_request"], request.csr);
    }
}

#[tokio::test]
async fn a_certificate_from_outside_leads_to_the_present_root_during_a_rotation() {
    let (credentials, own) = manager();
    let root = Root::new("Outside");
    let running = Service::start(&root, own.root().pem()).await;
    let mut cluster = cluster(&root, vec![service(&running.url, &root)]);
    let next = TrustRoot::parse(&root.cert).unwrap();
    cluster.root_ca = own.stored();
    cluster.root_ca.rotation = Some(RootRotation {
        certificate: root.cert.clone(),
        cross_signed: own.cross_sign(&next).unwrap(),
        ..Default::default()
    });
    let pem = ask(&Cfssl::new(credentials), &cluster).await.unwrap();
    NodeCertificate::from_pem(&pem, own.root()).unwrap();
    NodeCertificate::from_pem(&pem, &next).unwrap();
}

#[tokio::test]
async fn whatever_a_service_does_wrong_is_an_error_that_names_it() {
    let (credentials, own) = manager();
    let (root, other) = (Root::new("Outside"), Root::new("Another"));
    let running = Service::start(&root, own.root().pem()).await;
    let url = running.url.as_str();
    let cluster = cluster(&root, vec![service(url, &root)]);
    let cfssl = Cfssl::new(credentials.clone());
    let signed_elsewhere = {
        let stored = RootCa {
            certificate: other.cert.clone(),
            key: Some(other.key.clone().into_bytes().into()),
            ..Default::default()
        };
        let csr = KeyRequest::generate().unwrap().csr;
        let authority = Authority::load(&stored).unwrap();
        let day = Duration::from_secs(24 * 3600);
        let pem = authority.issue(&csr, &somebody(NodeRole::Worker), day, SystemClock.now());
        serde_json::json!({"success": true, "result": {"certificate": pem.unwrap()}}).to_string()
    };
    for (code, body, text) in [
        (500, "out of order", "unexpected status code in CSR response: 500 - out of order"),
        (200, "nonsense", "unable to parse JSON response"),
        (200, r#"{"success":false,"errors":[]}"#, "certificate signing request failed"),
        (
            200,
            r#"{"success":false,"result":null,"errors":[{"code":5100,"message":"no"}]}"#,
            "response errors: no (5100)",
        ),
        (200, &"x".repeat(MAX_ANSWER + 1), "length limit exceeded"),
        (200, &signed_elsewhere, "another root signed it"),
    ] {
        *running.instead.lock().unwrap() = Some((code, body.to_owned()));
        let error = ask(&cfssl, &cluster).await.unwrap_err().to_string();
        assert!(error.contains(text), "{text}: {error}");
    }
    // Another's name: a service that ignores what it is asked makes no members.
    let csr = KeyRequest::generate().unwrap().csr;
    *running.instead.lock().unwrap() = None;
    let theirs = cfssl
        .sign(
            &service(url, &root),
            &TrustRoot::parse(&root.cert).unwrap(),
            &csr,
            &somebody(NodeRole::Manager),
        )
        .await
        .unwrap();
    let answer = serde_json::json!({"success": true, "result": {"certificate": theirs}});
    *running.instead.lock().unwrap() = Some((200, answer.to_string()));
    let error = ask(&cfssl, &cluster).await.unwrap_err().to_string();
    assert!(error.contains(url) && error.contains("another name or key"), "{error}");
}

#[tokio::test]
async fn a_service_is_believed_only_over_tls_of_its_root_and_the_next_one_is_asked() {
    let (credentials, own) = manager();
    let (root, other) = (Root::new("Outside"), Root::new("Another"));
    let running = Service::start(&root, own.root().pem()).await;
    let impostor = Service::start(&other, own.root().pem()).await;
    let cfssl = Cfssl::new(credentials);
    let trusted = TrustRoot::parse(&root.cert).unwrap();
    let nobody = "https://127.0.0.1:1/sign";
    let plain = running.url.replace("https", "http");
    for (url, text) in [
        (impostor.url.as_str(), "invalid peer certificate"),
        (nobody, "refused"),
        (&plain, "invalid HTTP scheme"),
        ("not a url", "not a url"),
    ] {
        let error = cfssl.probe(&service(url, &root), &trusted).await.unwrap_err().to_string();
        assert!(error.contains(text), "{text}: {error}");
    }
    cfssl.probe(&service(&running.url, &root), &trusted).await.unwrap();
    let both = vec![service(nobody, &root), service(&running.url, &root)];
    ask(&cfssl, &cluster(&root, both)).await.unwrap();
    // A service that is named for another root is not asked: its certificates would lead nowhere.
    let error = ask(&cfssl, &cluster(&root, vec![service(&impostor.url, &other)])).await;
    assert!(matches!(error, Err(IdentityError::NoSigningKey)), "{error:?}");
    assert_eq!(impostor.seen.lock().unwrap().len(), 0);
}
