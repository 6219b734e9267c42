use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use swarm_core::id::IdSource;
use swarm_core::model::{ClusterSpec, Version, defaults};
use swarm_core::store::{Batch, Change, MemoryStore, Store as _};
use swarm_core::time::{Clock as _, SystemClock};

use super::*;
use crate::identity::Identity;
use crate::manager::control::{Control, Rotate};

const YEAR: u64 = 365 * 24 * 3600;

/// A root as an operator makes one: certificate and key, PEM.
fn given_ca(life: Duration) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (self_signed(&key, life), key.serialize_pem())
}

fn self_signed(key: &KeyPair, life: Duration) -> String {
    ca_params(life).self_signed(key).unwrap().pem()
}

fn ca_params(life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Example");
    params.distinguished_name.push(DnType::CommonName, "Example Root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let now = SystemClock.now().since(Timestamp::ZERO);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now;
    params.not_after = params.not_before + life;
    params
}

fn years(number: u64) -> Duration {
    Duration::from_secs(number * YEAR)
}

/// Services that hold the keys of these roots.
#[derive(Default)]
struct Outside(Mutex<Vec<(String, RootCa)>>);

impl Outside {
    fn answer(&self, service: &ExternalCa, root: &TrustRoot) -> Result<Authority, IdentityError> {
        let services = self.0.lock().unwrap();
        let found = services.iter().find(|(url, _)| *url == service.url);
        let authority = found.map(|(_, root)| Authority::load(root).unwrap());
        let gone = || IdentityError::External { url: service.url.clone(), reason: "gone".into() };
        authority.filter(|authority| authority.root() == root).ok_or_else(gone)
    }
}

#[async_trait]
impl ExternalAuthority for Outside {
    async fn probe(&self, service: &ExternalCa, root: &TrustRoot) -> Result<(), IdentityError> {
        self.answer(service, root).map(drop)
    }

    async fn sign(
        &self,
        _: &ExternalCa,
        _: &TrustRoot,
        _: &str,
        _: &Identity,
    ) -> Result<String, IdentityError> {
        panic!("nobody joins here")
    }

    async fn cross_sign(
        &self,
        service: &ExternalCa,
        root: &TrustRoot,
        csr: &str,
    ) -> Result<String, IdentityError> {
        let authority = self.answer(service, root)?;
        let mut request = rcgen::CertificateSigningRequestParams::from_pem(csr).unwrap();
        request.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::from_pem(&pem(&authority.stored())).unwrap();
        let issuer = Issuer::from_ca_cert_pem(root.pem(), key).unwrap();
        Ok(request.signed_by(&issuer).unwrap().pem())
    }
}

fn pem(root: &RootCa) -> String {
    String::from_utf8(root.key.as_ref().unwrap().expose().to_vec()).unwrap()
}

struct World {
    control: Control,
    store: Arc<MemoryStore>,
    outside: Arc<Outside>,
}

impl World {
    async fn start() -> Self {
        let authority = Authority::create(SystemClock.now()).unwrap();
        let mut ids = IdSource::seeded(1);
        let token = || JoinToken::generate(authority.root().digest(), &mut rand::rng()).expose();
        let cluster = Cluster {
            id: ids.next(),
            spec: defaults::cluster_spec(),
            root_ca: authority.stored(),
            tls_info: authority.root().tls_info().unwrap(),
            join_tokens: JoinTokens { worker: token(), manager: token(), ..Default::default() },
            ..Default::default()
        };
        let store = Arc::new(MemoryStore::default());
        let batch = Batch::new(SystemClock.now(), vec![Change::create(cluster)]);
        store.commit(batch).await.unwrap();
        let outside = Arc::new(Outside::default());
        let sessions = crate::manager::session::Sessions::new(
            store.clone(),
            Arc::new(crate::manager::secrets::StoreSecrets::new(
                store.clone(),
                Arc::new(SystemClock),
            )),
            Arc::new(SystemClock),
        );
        let control = Control {
            store: store.clone(),
            secrets: None,
            logs: Arc::new(crate::manager::logs::AgentLogs(Arc::new(sessions))),
            clock: Arc::new(SystemClock),
            ids: Mutex::new(ids),
            external: Some(outside.clone()),
            changes_roles: false,
            planners: Vec::new(),
        };
        Self { control, store, outside }
    }

    fn cluster(&self) -> Cluster {
        self.store.snapshot().cluster().unwrap().as_ref().clone()
    }

    fn serve(&self, url: &str, certificate: &str, key: &str) {
        let key = Some(key.as_bytes().to_vec().into());
        let root = RootCa { certificate: certificate.to_owned(), key, ..Default::default() };
        self.outside.0.lock().unwrap().push((url.to_owned(), root));
    }

    /// As the CLI does it: the whole specification, changed in one place.
    async fn update(&self, change: impl FnOnce(&mut ClusterSpec)) -> Result<(), ApiError> {
        let cluster = self.cluster();
        let mut spec = cluster.spec.clone();
        change(&mut spec);
        self.control.update_cluster(cluster.version, spec, Rotate::default()).await
    }

    async fn give(&self, cert: &str, key: &str) -> Result<(), ApiError> {
        self.update(|spec| {
            spec.ca_config.signing_ca_cert = cert.to_owned();
            spec.ca_config.signing_ca_key = key.to_owned();
        })
        .await
    }

    async fn refusal(&self, cert: &str, key: &str) -> String {
        let before = self.cluster();
        let error = self.give(cert, key).await.unwrap_err();
        assert_eq!(self.cluster(), before, "a refusal changes nothing");
        assert_eq!(error.code, Code::InvalidArgument, "{error}");
        error.message
    }
}

#[tokio::test]
async fn a_forced_rotation_begins_once_for_each_count_and_a_later_one_replaces_it() {
    let world = World::start().await;
    let before = world.cluster();
    world.update(|spec| spec.ca_config.force_rotate += 1).await.unwrap();
    let begun = world.cluster();
    let rotation = begun.root_ca.rotation.clone().expect("a rotation");
    assert!(begun.root_rotation_in_progress);
    assert_eq!(begun.root_ca.certificate, before.root_ca.certificate);
    assert_eq!(begun.join_tokens, before.join_tokens, "tokens name the present root to the end");
    assert_eq!(begun.tls_info.trust_root, before.tls_info.trust_root);
    assert_ne!(begun.tls_info.cert_issuer_public_key, before.tls_info.cert_issuer_public_key);
    let next: JoinToken = rotation.join_tokens.worker.parse().unwrap();
    let new = TrustRoot::parse(&rotation.certificate).unwrap();
    assert_eq!(next.root(), new.digest());
    new.is_certified_by(
        &rotation.cross_signed,
        &TrustRoot::parse(&before.root_ca.certificate).unwrap(),
    )
    .unwrap();

    world
        .update(|spec| spec.labels.insert("a".into(), "b".into()).into_iter().for_each(drop))
        .await
        .unwrap();
    assert_eq!(world.cluster().root_ca, begun.root_ca, "another setting starts nothing");
    world.update(|spec| spec.ca_config.force_rotate += 1).await.unwrap();
    let again = world.cluster().root_ca;
    assert_ne!(again.rotation.as_ref().unwrap().certificate, rotation.certificate);
    assert_eq!((again.certificate, again.last_forced_rotation), (before.root_ca.certificate, 2));
}

#[tokio::test]
async fn a_given_root_is_checked_in_swarms_words() {
    let world = World::start().await;
    let (cert, key) = given_ca(years(5));
    let (other, other_key) = given_ca(years(5));
    let (soon, soon_key) = given_ca(years(1) - Duration::from_secs(3600));
    let parent = KeyPair::from_pem(&key).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&cert, parent).unwrap();
    let (middle_key, mut params) = (KeyPair::generate().unwrap(), ca_params(years(5)));
    params.distinguished_name.push(DnType::CommonName, "Example Intermediate");
    let middle = params.signed_by(&middle_key, &issuer).unwrap().pem();
    let mut params = ca_params(years(5));
    params.is_ca = IsCa::NoCa;
    let leaf = params.self_signed(&middle_key).unwrap().pem();
    let both = format!("{cert}{other}");
    let validating = "error while validating Root CA Certificate: ";
    let rows = [
        ("", &*key, "if a signing CA key is provided, the signing CA cert must also be provided"),
        ("nonsense", &key, "no valid root CA certificates found"),
        (&both, &key, "the desired CA certificate cannot contain multiple certificates"),
        (&middle, &middle_key.serialize_pem(), validating),
        (&leaf, &middle_key.serialize_pem(), validating),
        (&soon, &soon_key, "CA certificate expires too soon"),
        (&cert, &other_key, "certificate key mismatch"),
        (&cert, "nonsense", "malformed private key: "),
        (
            &cert,
            "",
            "there must be at least one valid, reachable external CA corresponding to the desired CA certificate",
        ),
    ];
    for (cert, key, text) in rows {
        let said = world.refusal(cert, key).await;
        assert!(said.starts_with(text), "{text}: {said}");
    }
    // The present key once more, in another certificate.
    let present = world.cluster().root_ca;
    let same_key = self_signed(&KeyPair::from_pem(&pem(&present)).unwrap(), years(5));
    let said = world.refusal(&same_key, &pem(&present)).await;
    assert_eq!(said, "Cannot update to a cert with an identical key");
}

#[tokio::test]
async fn a_given_root_is_rotated_to_kept_when_given_again_and_given_up_for_the_present_one() {
    let world = World::start().await;
    let present = world.cluster().root_ca;
    let (cert, key) = given_ca(years(5));
    world.give(&format!("# mine\n\n{cert}\n"), &key).await.unwrap();
    let begun = world.cluster();
    let rotation = begun.root_ca.rotation.clone().unwrap();
    assert_eq!(rotation.certificate, given::normalized(&cert));
    assert_eq!(begun.spec.ca_config.signing_ca_cert, "", "nothing is left to be sent back");
    assert_eq!(begun.spec.ca_config.signing_ca_key, "", "and the key is in one place alone");
    world.give(&cert, &key).await.unwrap();
    assert_eq!(world.cluster().root_ca, begun.root_ca, "it goes on");
    world.give(&present.certificate, &pem(&present)).await.unwrap();
    let aborted = world.cluster();
    assert_eq!((aborted.root_ca.rotation, aborted.root_rotation_in_progress), (None, false));
    assert_eq!(aborted.root_ca.certificate, present.certificate);
    assert_eq!(aborted.tls_info.trust_root, present.certificate);
}

#[tokio::test]
async fn a_rotation_to_and_from_an_authority_outside() {
    let world = World::start().await;
    let (cert, key) = given_ca(years(5));
    let named = |url: &str, cert: &str| ExternalCa {
        protocol: "cfssl".into(),
        url: url.into(),
        ca_cert: cert.into(),
        ..Default::default()
    };
    let external = |url: &'static str, cert: &str| {
        let (service, cert) = (named(url, cert), cert.to_owned());
        move |spec: &mut ClusterSpec| {
            spec.ca_config.external_cas = vec![service];
            spec.ca_config.signing_ca_cert = cert;
        }
    };
    let error = world.update(external("https://one", &cert)).await.unwrap_err();
    assert!(error.message.contains("valid, reachable external CA"), "{error}");
    world.serve("https://one", &cert, &key);
    world.update(external("https://one", &cert)).await.unwrap();
    let begun = world.cluster();
    assert_eq!(begun.root_ca.rotation.as_ref().unwrap().key, None, "the key is not in the store");

    // As if it had ended.
    let mut ended = begun.clone();
    let rotation = ended.root_ca.rotation.take().unwrap();
    ended.root_ca = RootCa { certificate: rotation.certificate, key: None, ..ended.root_ca };
    world.store.commit(Batch::new(SystemClock.now(), vec![Change::update(ended)])).await.unwrap();
    let (second, second_key) = given_ca(years(5));
    world.serve("https://two", &second, &second_key);
    let error = world
        .update(|spec| {
            spec.ca_config.external_cas.push(named("https://two", &second));
            spec.ca_config.signing_ca_cert = second.clone();
        })
        .await
        .unwrap_err();
    let text = "rotating from one external CA to a different external CA is not supported";
    assert_eq!(error.message, text);
    // Every other change needs the service, too.
    let error = world.update(|spec| spec.ca_config.external_cas.clear()).await.unwrap_err();
    assert!(error.message.ends_with("corresponding to the current CA certificate"), "{error}");

    world.update(|spec| spec.ca_config.force_rotate += 1).await.unwrap();
    let back = world.cluster().root_ca;
    let rotation = back.rotation.as_ref().expect("a rotation to a root of our own");
    let (old, new) = (&back.certificate, TrustRoot::parse(&rotation.certificate).unwrap());
    new.is_certified_by(&rotation.cross_signed, &TrustRoot::parse(old).unwrap()).unwrap();
    // The key of the present root comes into the store: no rotation is needed for that.
    world.give(&cert, &key).await.unwrap();
    let root = world.cluster().root_ca;
    assert_eq!((root.rotation.is_none(), pem(&root)), (true, key));
}

#[tokio::test]
async fn services_of_another_protocol_and_stale_versions_are_refused() {
    let world = World::start().await;
    let other = ExternalCa { protocol: "acme".into(), ..Default::default() };
    let error = world.update(|spec| spec.ca_config.external_cas.push(other)).await.unwrap_err();
    assert_eq!((error.message.as_str(), error.prefixed), ("invalid protocol: \"acme\"", false));
    let mut spec = world.cluster().spec;
    spec.ca_config.force_rotate = 1;
    let stale = Version::default();
    let error = world.control.update_cluster(stale, spec, Rotate::default()).await.unwrap_err();
    assert_eq!(error.message, "update out of sequence");
    assert_eq!(world.cluster().root_ca.rotation, None);
}
