use std::process::Command;

use swarm_core::id::IdSource;
use swarm_core::model::{NodeRole, RootRotation};
use swarm_core::time::{Clock as _, SystemClock};

use super::*;
use crate::identity::{Identity, KeyRequest, NodeCertificate, NodeIdentity};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A leaf of a rotation from one root to another, and both roots.
fn rotating() -> (TrustRoot, TrustRoot, String, KeyRequest) {
    let now = SystemClock.now();
    let (old, new) = (Authority::create(now).unwrap(), Authority::create(now).unwrap());
    let mut stored = old.stored();
    stored.rotation = Some(RootRotation {
        certificate: new.root().pem().to_owned(),
        key: new.stored().key,
        cross_signed: old.cross_sign(new.root()).unwrap(),
        ..Default::default()
    });
    let mut ids = IdSource::random();
    let identity = Identity { node: ids.next(), role: NodeRole::Worker, cluster: ids.next() };
    let request = KeyRequest::generate().unwrap();
    let issuing = Authority::issuing(&stored).unwrap();
    let pem = issuing.issue(&request.csr, &identity, 90 * DAY, now).unwrap();
    (old.root().clone(), new.root().clone(), pem, request)
}

#[test]
fn a_certificate_of_a_rotation_holds_for_whoever_trusts_either_root_or_both() {
    let (old, new, pem, request) = rotating();
    let both = TrustRoot::parse(&format!("{}{}", old.pem(), new.pem())).unwrap();
    for roots in [&old, &new, &both] {
        let node = NodeIdentity::new(roots.clone(), pem.clone(), request.key.clone()).unwrap();
        let info = node.tls_info();
        assert_eq!(info.trust_root, roots.pem());
        let issuer = new.tls_info().unwrap();
        assert_eq!(info.cert_issuer_public_key, issuer.cert_issuer_public_key);
        assert_eq!(info.cert_issuer_subject, issuer.cert_issuer_subject);
        assert!(node.trusting(new.clone()).is_ok());
    }
    let stranger = Authority::create(SystemClock.now()).unwrap().root().clone();
    let error = NodeCertificate::from_pem(&pem, &stranger).unwrap_err();
    assert!(error.to_string().contains("another root signed it"), "{error}");
    // Without the link between them, the old root alone knows nothing of the new one.
    let leaf = pem.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    assert!(NodeCertificate::from_pem(leaf, &old).is_err());
    NodeCertificate::from_pem(leaf, &new).unwrap();
}

#[test]
fn a_member_cannot_pass_its_own_certificate_off_as_a_link_between_roots() {
    let now = SystemClock.now();
    let authority = Authority::create(now).unwrap();
    let mut ids = IdSource::random();
    let identity = Identity { node: ids.next(), role: NodeRole::Worker, cluster: ids.next() };
    let own = KeyRequest::generate().unwrap();
    let link = authority.issue(&own.csr, &identity, 90 * DAY, now).unwrap();
    // It signs a manager's certificate with its own key, under the name of the root.
    let key = KeyPair::from_pem(std::str::from_utf8(own.key.expose()).unwrap()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&link, key).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, identity.cluster.as_str());
    params.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-manager");
    params.distinguished_name.push(DnType::CommonName, identity.node.as_str());
    let forged = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().pem();
    let error = NodeCertificate::from_pem(&(forged + &link), authority.root()).unwrap_err();
    assert!(error.to_string().contains("another root signed it"), "{error}");
}

#[test]
fn one_form_of_pem_for_every_way_to_write_it() {
    let root = Authority::create(SystemClock.now()).unwrap().root().clone();
    let once = normalized(root.pem());
    assert_eq!(normalized(&format!("text\n\n{}\n \n", root.pem().replace('\n', "\r\n"))), once);
    assert_eq!(normalized(&once), once);
    assert_eq!(normalized("nonsense"), "");
}

/// Certificates and keys as operators make them.
#[test]
fn what_openssl_makes_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(dir.path()).args(line.split('|'));
        command.output().is_ok_and(|output| output.status.success())
    };
    if !run("version") {
        return eprintln!("skipped: there is no openssl on this machine");
    }
    let make =
        "req|-x509|-new|-key|key|-days|3000|-out|cert|-subj|/C=SE/O=Example Org/CN=Root é|-utf8";
    for key in [
        "ecparam|-name|prime256v1|-genkey|-noout|-out|key",
        "ecparam|-name|secp384r1|-genkey|-noout|-out|key",
        "genpkey|-algorithm|EC|-pkeyopt|ec_paramgen_curve:P-256|-out|key",
        "genpkey|-algorithm|ED25519|-out|key",
        "genrsa|-traditional|-out|key|2048",
        "genpkey|-algorithm|RSA|-pkeyopt|rsa_keygen_bits:2048|-out|key",
    ] {
        assert!(run(key) && run(make), "{key}");
        let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let (cert, pem) = (read("cert"), read("key"));
        let now = SystemClock.now();
        let authority = authority(&cert, &pem, now).unwrap_or_else(|e| panic!("{key}: {e}"));
        let mut ids = IdSource::random();
        let identity = Identity { node: ids.next(), role: NodeRole::Manager, cluster: ids.next() };
        let request = KeyRequest::generate().unwrap();
        let leaf = authority.issue(&request.csr, &identity, DAY, now).unwrap();
        NodeIdentity::new(authority.root().clone(), leaf, request.key).unwrap();
        // It comes back from the store, and can be rotated to and from.
        let stored = Authority::load(&authority.stored()).unwrap();
        let other = Authority::create(now).unwrap();
        other.cross_sign(stored.root()).unwrap();
        stored.cross_sign(other.root()).unwrap();
    }
}
