//! Certificates, their files and their renewal.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::time::{Clock, SystemClock, Timestamp};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::renew::renew_at;
use super::*;

pub(super) const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn somebody(role: NodeRole) -> Identity {
    let mut ids = IdSource::random();
    Identity { node: ids.next(), role, cluster: ids.next() }
}

pub(super) fn certified(authority: &Authority, identity: &Identity) -> NodeIdentity {
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

/// An authority that says when it is asked, and answers when a test says for whom.
struct Asked {
    authority: Authority,
    clock: Arc<dyn Clock>,
    asked: mpsc::UnboundedSender<()>,
    answers: tokio::sync::Mutex<mpsc::UnboundedReceiver<Option<Identity>>>,
}

#[async_trait::async_trait]
impl renew::Renewal for Asked {
    async fn renew(&self, csr: String) -> Result<String, crate::error::ApiError> {
        self.asked.send(()).unwrap();
        let answer = self.answers.lock().await.recv().await.expect("the test goes on");
        let identity = answer.ok_or(IdentityError::NoSigningKey)?;
        Ok(self.authority.issue(&csr, &identity, 90 * DAY, self.clock.now()).unwrap())
    }
}

/// A renewer at work.
struct Renewing {
    _dir: tempfile::TempDir,
    old: NodeIdentity,
    files: IdentityFiles,
    credentials: Arc<Credentials>,
    now: Arc<Notify>,
    role: watch::Sender<Option<NodeRole>>,
    renewed: watch::Receiver<Identity>,
    asked: mpsc::UnboundedReceiver<()>,
    answer: mpsc::UnboundedSender<Option<Identity>>,
    cancel: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Renewing {
    fn begin(identity: Identity) -> Self {
        Self::begin_by(Arc::new(SystemClock), identity)
    }

    fn begin_by(clock: Arc<dyn Clock>, identity: Identity) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(clock.now()).unwrap();
        let KeyRequest { key, csr } = KeyRequest::generate().unwrap();
        let pem = authority.issue(&csr, &identity, 90 * DAY, clock.now()).unwrap();
        let old = NodeIdentity::new(authority.root().clone(), pem, key).unwrap();
        let files = IdentityFiles::new(dir.path());
        files.save(&old).unwrap();
        let credentials = Credentials::new(old.clone()).unwrap();
        let (ask, asked) = mpsc::unbounded_channel();
        let (answer, answers) = mpsc::unbounded_channel();
        let (now, role) = (Arc::<Notify>::default(), watch::Sender::default());
        let (told, renewed) = watch::channel(identity);
        let renewer = renew::Renewer {
            credentials: credentials.clone(),
            files: files.clone(),
            renewal: Arc::new(Asked {
                authority,
                clock: clock.clone(),
                asked: ask,
                answers: answers.into(),
            }),
            clock,
            now: now.clone(),
            role: role.subscribe(),
            trust: watch::Sender::default().subscribe(),
            renewed: told,
        };
        let cancel = CancellationToken::new();
        let running = tokio::spawn(renewer.run(cancel.clone()));
        Self {
            _dir: dir,
            old,
            files,
            credentials,
            now,
            role,
            renewed,
            asked,
            answer,
            cancel,
            running,
        }
    }

    async fn asked(&mut self) {
        let asked = tokio::time::timeout(Duration::from_secs(30), self.asked.recv()).await;
        asked.expect("a certificate is asked for").expect("the renewer runs");
    }

    async fn end(self) {
        self.cancel.cancel();
        self.running.await.unwrap();
    }
}

#[tokio::test]
async fn a_renewer_keeps_the_old_certificate_until_it_has_a_new_one_on_disk_and_in_use() {
    let identity = somebody(NodeRole::Worker);
    let promoted = Identity { role: NodeRole::Manager, ..identity };
    let mut node = Renewing::begin(identity);
    node.now.notify_one();
    node.asked().await;
    node.answer.send(None).unwrap();
    assert_eq!(node.credentials.node().certificate_pem(), node.old.certificate_pem());
    node.now.notify_one();
    node.asked().await;
    node.answer.send(Some(promoted)).unwrap();
    node.renewed.changed().await.unwrap();
    assert_eq!(*node.renewed.borrow(), promoted);
    assert_eq!(node.credentials.identity(), promoted);
    let kept = node.files.load().unwrap().unwrap();
    assert_eq!(kept.certificate_pem(), node.credentials.node().certificate_pem());
    assert_ne!(kept.key().expose(), node.old.key().expose(), "each certificate has its own key");
    node.end().await;
}

#[tokio::test]
async fn a_role_that_changes_back_while_a_certificate_is_under_way_is_not_missed() {
    let manager = somebody(NodeRole::Manager);
    let demoted = Identity { role: NodeRole::Worker, ..manager };
    let mut node = Renewing::begin(manager);
    node.role.send_replace(Some(NodeRole::Manager));
    node.role.send_replace(Some(NodeRole::Worker));
    node.asked().await;
    // For a node that has a manager's certificate still, and is about to get a worker's.
    node.role.send_replace(Some(NodeRole::Manager));
    node.answer.send(Some(demoted)).unwrap();
    node.asked().await;
    assert_eq!(node.credentials.identity(), demoted);
    node.answer.send(Some(manager)).unwrap();
    node.renewed.wait_for(|now| now.role == NodeRole::Manager).await.unwrap();
    assert_eq!(node.credentials.identity(), manager);
    node.end().await;
}

/// A clock that a test sets.
struct Set(Mutex<Timestamp>);

impl Clock for Set {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

impl Renewing {
    /// Lets the renewer look at the clock, as it does once a minute; whether it asks then.
    async fn looks(&mut self) -> bool {
        let role = self.credentials.identity().role;
        self.role.send_replace(Some(role));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.asked.try_recv().is_ok()
    }
}

#[tokio::test]
async fn each_certificate_is_renewed_when_its_time_has_come_and_again_after_a_failure() {
    let clock = Arc::new(Set(Mutex::new(SystemClock.now())));
    let set = |now: Timestamp| *clock.0.lock().unwrap() = now;
    let identity = somebody(NodeRole::Worker);
    let mut node = Renewing::begin_by(clock.clone(), identity);
    let mut points = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let node_now = node.credentials.node();
        let held = node_now.certificate();
        let permille = held.not_after.since(held.not_before) / 1000;
        let mut point = 0;
        while {
            point += 1;
            set(held.not_before + permille * point);
            !node.looks().await
        } {
            assert!(point < 1000, "it never asks");
        }
        assert!((500..=801).contains(&point), "at {point} thousandths of its life");
        points.insert(point);

        node.answer.send(None).unwrap();
        assert!(!node.looks().await, "not again at once");
        set(clock.now() + Duration::from_secs(4));
        assert!(!node.looks().await, "nor within five seconds");
        set(clock.now() + Duration::from_secs(1));
        assert!(node.looks().await, "but then");
        node.answer.send(Some(identity)).unwrap();
        node.renewed.changed().await.unwrap();
        assert!(node.credentials.node().certificate().not_after > held.not_after);
    }
    assert!(points.len() > 1, "each at a point of its own");
    node.end().await;
}
