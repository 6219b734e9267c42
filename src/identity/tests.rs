//! Certificates, their files and their renewal.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::time::{Clock as _, SystemClock, Timestamp};

use super::renew::renew_at;
use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn somebody(role: NodeRole) -> Identity {
    let mut ids = IdSource::random();
    Identity { node: ids.next(), role, cluster: ids.next() }
}

fn certified(authority: &Authority, identity: &Identity) -> NodeIdentity {
    let KeyRequest { key, csr } = KeyRequest::generate().unwrap();
    let pem = authority.issue(&csr, identity, 90 * DAY, NOW).unwrap();
    NodeIdentity::new(authority.root().clone(), pem, key).unwrap()
}

#[test]
fn a_root_is_what_swarmkit_makes() {
    let authority = Authority::create(NOW).unwrap();
    let der = cert::chain(authority.root().pem()).unwrap();
    let (_, root) = x509_parser::parse_x509_certificate(&der[0]).unwrap();
    assert_eq!(root.subject().to_string(), "CN=swarm-ca");
    assert!(root.is_ca());
    let life = root.validity().not_after.timestamp() - root.validity().not_before.timestamp();
    assert_eq!(life, 20 * 365 * 24 * 3600 + 3600);
    let info = authority.root().tls_info().unwrap();
    assert_eq!(info.trust_root, authority.root().pem());
    // SEQUENCE { SET { SEQUENCE { 2.5.4.3, "swarm-ca" } } }, and an EC key: as Docker shows them.
    assert!(info.cert_issuer_subject.starts_with("MBMxETAPBgNVBAMMCHN3YXJtLWNh"));
    assert!(info.cert_issuer_public_key.starts_with("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE"));
}

#[test]
fn an_authority_survives_the_store_and_refuses_a_key_of_another() {
    let authority = Authority::create(NOW).unwrap();
    let again = Authority::load(&authority.stored()).unwrap();
    assert_eq!(again.root(), authority.root());
    let node = certified(&again, &somebody(NodeRole::Worker));
    NodeCertificate::from_pem(node.certificate_pem(), authority.root()).unwrap();

    let mut mixed = authority.stored();
    mixed.key = Authority::create(NOW).unwrap().stored().key;
    assert!(matches!(Authority::load(&mixed), Err(IdentityError::Key(_))));
    mixed.key = None;
    assert!(matches!(Authority::load(&mixed), Err(IdentityError::NoSigningKey)));
}

#[test]
fn certificates_live_as_long_as_the_cluster_says_but_not_too_short() {
    let authority = Authority::create(NOW).unwrap();
    let csr = KeyRequest::generate().unwrap().csr;
    for (asked, given) in
        [(2 * DAY, 2 * DAY), (ca::MIN_NODE_CERT_EXPIRY, Duration::from_secs(3600))]
    {
        let pem = authority.issue(&csr, &somebody(NodeRole::Worker), asked, NOW).unwrap();
        let read = NodeCertificate::from_pem(&pem, authority.root()).unwrap();
        assert_eq!((read.not_before, read.not_after), (NOW.before(ca::BACKDATE), NOW + given));
    }
    let short = Duration::from_secs(3599);
    let pem = authority.issue(&csr, &somebody(NodeRole::Worker), short, NOW).unwrap();
    let read = NodeCertificate::from_pem(&pem, authority.root()).unwrap();
    assert_eq!(read.not_after, NOW + 90 * DAY);
}

#[test]
fn names_in_certificates_follow_the_role() {
    let authority = Authority::create(NOW).unwrap();
    for (role, names) in [
        (NodeRole::Manager, &["swarm-manager", "swarm-ca"][..]),
        (NodeRole::Worker, &["swarm-worker"]),
    ] {
        let identity = somebody(role);
        let node = certified(&authority, &identity);
        assert_eq!(node.identity(), identity);
        let der = cert::chain(node.certificate_pem()).unwrap();
        let (_, read) = x509_parser::parse_x509_certificate(&der[0]).unwrap();
        let value = &read.subject_alternative_name().unwrap().unwrap().value;
        let found: Vec<String> = value.general_names.iter().map(|name| name.to_string()).collect();
        assert_eq!(found.len(), names.len() + 1);
        for name in names.iter().copied().chain([identity.node.as_str()]) {
            assert!(found.contains(&format!("DNSName({name})")), "{name}: {found:?}");
        }
    }
}

#[test]
fn files_are_private_whatever_the_umask_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("certificates");
    assert!(NodeIdentity::load(&dir).unwrap().is_none());
    let node = certified(&Authority::create(NOW).unwrap(), &somebody(NodeRole::Worker));
    for umask in [0o000, 0o077] {
        // The umask is the process's: other tests may create files more openly for an instant.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
        let saved = node.save(&dir);
        rustix::process::umask(before);
        saved.unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(dir.clone()), 0o700);
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(mode(entry.path()), 0o600, "{entry:?}");
            names.push(entry.file_name().into_string().unwrap());
        }
        names.sort();
        assert_eq!(names, ["swarm-node.crt", "swarm-node.key", "swarm-root-ca.crt"]);
    }
    let loaded = NodeIdentity::load(&dir).unwrap().unwrap();
    assert_eq!(loaded.identity(), node.identity());
    assert_eq!(loaded.key().expose(), node.key().expose());
}

#[test]
fn a_crash_anywhere_in_a_save_leaves_the_old_or_the_new_identity() {
    let authority = Authority::create(NOW).unwrap();
    let identity = somebody(NodeRole::Worker);
    let (old, new) = (certified(&authority, &identity), certified(&authority, &identity));
    let new_dir = tempfile::tempdir().unwrap();
    new.save(new_dir.path()).unwrap();
    let take = |name: &str| fs::read(new_dir.path().join(name)).unwrap();
    // The state of the directory after each rename of a save.
    let steps: [&[(&str, Vec<u8>)]; 3] = [
        &[("swarm-node.key.next", take("swarm-node.key"))],
        &[
            ("swarm-node.key.next", take("swarm-node.key")),
            ("swarm-node.crt", take("swarm-node.crt")),
        ],
        &[("swarm-node.key", take("swarm-node.key")), ("swarm-node.crt", take("swarm-node.crt"))],
    ];
    for (n, step) in steps.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        old.save(dir.path()).unwrap();
        for (name, bytes) in step {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let found = NodeIdentity::load(dir.path()).unwrap().unwrap();
        let expected = if n == 0 { &old } else { &new };
        assert_eq!(found.certificate_pem(), expected.certificate_pem(), "step {n}");
        assert_eq!(found.key().expose(), expected.key().expose(), "step {n}");
        // And the next renewal works from there.
        let next = certified(&authority, &identity);
        next.save(dir.path()).unwrap();
        let found = NodeIdentity::load(dir.path()).unwrap().unwrap();
        assert_eq!(found.key().expose(), next.key().expose());
    }
}

#[test]
fn damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(NOW).unwrap();
    certified(&authority, &somebody(NodeRole::Worker)).save(dir.path()).unwrap();
    fs::remove_file(dir.path().join("swarm-node.key")).unwrap();
    let error = NodeIdentity::load(dir.path()).unwrap_err();
    assert!(error.to_string().contains("swarm-node.key"), "{error}");
    fs::write(dir.path().join("swarm-node.key"), "garbage").unwrap();
    assert!(matches!(NodeIdentity::load(dir.path()), Err(IdentityError::Key(_))));
    let other = certified(&authority, &somebody(NodeRole::Worker));
    fs::write(dir.path().join("swarm-node.key"), other.key().expose()).unwrap();
    assert!(matches!(NodeIdentity::load(dir.path()), Err(IdentityError::Key(_))));
    let foreign = Authority::create(NOW).unwrap();
    fs::write(dir.path().join("swarm-root-ca.crt"), foreign.root().pem()).unwrap();
    let error = NodeIdentity::load(dir.path()).unwrap_err();
    assert!(error.to_string().contains("another root signed it"), "{error}");
    fs::write(dir.path().join("swarm-node.crt"), [0xff, 0xfe]).unwrap();
    assert!(NodeIdentity::load(dir.path()).is_err());
}

#[test]
fn renewal_falls_between_half_and_four_fifths_of_life() {
    let node = certified(&Authority::create(NOW).unwrap(), &somebody(NodeRole::Worker));
    let read = node.certificate();
    let life = read.not_after.since(read.not_before);
    assert_eq!(renew_at(read, 0), read.not_before + life / 1000 * 500);
    for point in [300, 301, u64::MAX / 2] {
        assert_eq!(renew_at(read, point), read.not_before + life / 1000 * 800);
    }
    let mut ids = IdSource::seeded(3);
    let times: std::collections::BTreeSet<_> =
        (0..50).map(|_| renew_at(read, ids.below(301))).collect();
    assert!(times.len() > 30, "nodes that joined together do not renew together");
    assert!(times.last().unwrap().since(read.not_before) < life);
}

#[test]
fn credentials_take_no_certificate_of_another_node() {
    let authority = Authority::create(SystemClock.now()).unwrap();
    let (one, other) = (somebody(NodeRole::Worker), somebody(NodeRole::Worker));
    let credentials = Credentials::new(certified(&authority, &one)).unwrap();
    let error = credentials.replace(certified(&authority, &other)).unwrap_err();
    assert!(error.to_string().contains(other.node.as_str()), "{error}");
    assert_eq!(credentials.identity(), one);
    let promoted = Identity { role: NodeRole::Manager, ..one };
    credentials.replace(certified(&authority, &promoted)).unwrap();
    assert_eq!(credentials.identity(), promoted);
}

#[test]
fn nothing_prints_a_key() {
    let authority = Authority::create(NOW).unwrap();
    let node = certified(&authority, &somebody(NodeRole::Worker));
    let request = KeyRequest::generate().unwrap();
    let stored = authority.stored();
    let shown = format!("{authority:?} {stored:?} {node:?} {request:?}");
    for key in [node.key(), &request.key, stored.key.as_ref().unwrap()] {
        let text = std::str::from_utf8(key.expose()).unwrap();
        let line = text.lines().nth(1).unwrap();
        assert!(!shown.contains(line));
    }
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}

/// An authority that refuses the first attempt, and reports each.
struct Moody {
    authority: Authority,
    identity: Identity,
    attempts: tokio::sync::mpsc::UnboundedSender<u32>,
    count: std::sync::atomic::AtomicU32,
}

#[async_trait::async_trait]
impl renew::Renewal for Moody {
    async fn renew(&self, csr: String) -> Result<String, crate::error::ApiError> {
        let count = self.count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.attempts.send(count).unwrap();
        if count == 0 {
            return Err(IdentityError::NoSigningKey.into());
        }
        Ok(self.authority.issue(&csr, &self.identity, 90 * DAY, SystemClock.now()).unwrap())
    }
}

#[tokio::test]
async fn a_renewer_keeps_the_old_certificate_until_it_has_a_new_one_on_disk_and_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(SystemClock.now()).unwrap();
    let identity = somebody(NodeRole::Worker);
    let promoted = Identity { role: NodeRole::Manager, ..identity };
    let KeyRequest { key, csr } = KeyRequest::generate().unwrap();
    let pem = authority.issue(&csr, &identity, 90 * DAY, SystemClock.now()).unwrap();
    let old = NodeIdentity::new(authority.root().clone(), pem, key).unwrap();
    old.save(dir.path()).unwrap();
    let credentials = Credentials::new(old.clone()).unwrap();
    let (attempts, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let now = std::sync::Arc::new(tokio::sync::Notify::new());
    let (renewed, mut told) = tokio::sync::watch::channel(identity);
    let count = Default::default();
    let renewer = renew::Renewer {
        credentials: credentials.clone(),
        dir: dir.path().to_owned(),
        renewal: std::sync::Arc::new(Moody { authority, identity: promoted, attempts, count }),
        clock: std::sync::Arc::new(SystemClock),
        now: now.clone(),
        renewed,
    };
    let cancel = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(renewer.run(cancel.clone()));

    now.notify_one();
    assert_eq!(seen.recv().await, Some(0));
    assert_eq!(credentials.node().certificate_pem(), old.certificate_pem());
    now.notify_one();
    assert_eq!(seen.recv().await, Some(1));
    told.changed().await.unwrap();
    assert_eq!(*told.borrow(), promoted);
    assert_eq!(credentials.identity(), promoted);
    let kept = NodeIdentity::load(dir.path()).unwrap().unwrap();
    assert_eq!(kept.certificate_pem(), credentials.node().certificate_pem());
    assert_ne!(kept.key().expose(), old.key().expose(), "each certificate has a key of its own");
    cancel.cancel();
    running.await.unwrap();
}
