//! Every call × every kind of identity, over real TLS: who reaches what is behind a manager's port.
//!
//! Nothing here is a list of calls: they are those of [`Method::ALL`], and `opens` does not compile
//! before a new one is in it. Whoever is in no row of `may` is refused.

use std::collections::BTreeSet;
use std::sync::Mutex;

use bytes::Bytes;
use swarm_core::model::{BlacklistedCertificate, RootCa, RootRotation};
use swarm_raft::{Message, MessageKind};

use super::frames::{post, whole};
use super::*;
use crate::identity::NodeCertificate;
use crate::rpc::authorize::Method;
use crate::rpc::message::{IssueRequest, Issued, JoinGroup, Managers, RenewRequest};
use crate::rpc::raft::RaftCall;
use crate::rpc::service::{CaService, ControlService, GroupService, Peer, RaftAnswers, RaftCalls};

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// Without a certificate.
    Nobody,
    /// With one that another root signed, which otherwise says the same.
    OfAnotherRoot,
    /// With one of this root, for another cluster.
    OfAnotherCluster,
    ExpiredManager,
    /// With one that is valid from tomorrow on.
    FutureManager,
    Worker,
    Manager,
    /// Not in this manager's store, which may lag behind.
    UnknownManager,
    RemovedWorker,
    RemovedManager,
    /// With a manager's certificate, and a worker by the store.
    Demoted,
    /// With a worker's certificate, and a manager by the store.
    PromotedNotYetRenewed,
    /// With one of the root before the last rotation.
    OfTheFormerRoot,
    /// With one of the root to come, of a rotation that was given up.
    OfARootThatNeverCame,
    /// With one of the present root by way of the one before.
    RenewedInTheRotation,
    /// A worker that signs a manager's certificate with its own key.
    OwnAuthority,
}

impl Who {
    const ALL: [Self; 16] = [
        Self::Nobody,
        Self::OfAnotherRoot,
        Self::OfAnotherCluster,
        Self::ExpiredManager,
        Self::FutureManager,
        Self::Worker,
        Self::Manager,
        Self::UnknownManager,
        Self::RemovedWorker,
        Self::RemovedManager,
        Self::Demoted,
        Self::PromotedNotYetRenewed,
        Self::OfTheFormerRoot,
        Self::OfARootThatNeverCame,
        Self::RenewedInTheRotation,
        Self::OwnAuthority,
    ];
}

/// What a call is open to, written out a second time: a slip in `authorize` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Public,
    Members,
    Managers,
    /// For managers, and the group itself refuses those that it has put out.
    Group,
}

const fn opens(method: Method) -> Class {
    match method {
        Method::GetRootCertificate | Method::IssueCertificate => Class::Public,
        Method::RenewCertificate | Method::Session => Class::Members,
        Method::Managers | Method::Logs | Method::JoinGroup => Class::Managers,
        Method::Raft | Method::RaftStream => Class::Group,
    }
}

/// Who reaches what. Whoever is not named here does not even finish the handshake.
fn may(who: Who, class: Class) -> bool {
    let allowed: &[Class] = match who {
        Who::Nobody | Who::RemovedWorker | Who::RemovedManager => &[Class::Public],
        Who::Worker | Who::PromotedNotYetRenewed => &[Class::Public, Class::Members],
        Who::Manager | Who::UnknownManager | Who::RenewedInTheRotation => {
            &[Class::Public, Class::Members, Class::Managers, Class::Group]
        }
        Who::Demoted => &[Class::Public, Class::Members, Class::Group],
        _ => &[],
    };
    allowed.contains(&class)
}

/// Notes which calls arrive behind the port.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<BTreeSet<&'static str>>>);

impl Arrivals {
    fn note<T>(&self, method: Method) -> Result<T, ApiError> {
        self.0.lock().unwrap().insert(method.path());
        Err(ApiError::plain(Code::Unknown, "it arrived"))
    }

    fn take(&self) -> bool {
        !std::mem::take(&mut *self.0.lock().unwrap()).is_empty()
    }
}

#[async_trait]
impl CaService for Arrivals {
    async fn root(&self) -> Result<String, ApiError> {
        self.note(Method::GetRootCertificate)
    }

    async fn issue(&self, _: IssueRequest, _: Peer) -> Result<Issued, ApiError> {
        self.note(Method::IssueCertificate)
    }

    async fn renew(&self, _: RenewRequest, _: Identity) -> Result<Issued, ApiError> {
        self.note(Method::RenewCertificate)
    }
}

#[async_trait]
impl SessionService for Arrivals {
    async fn session(
        &self,
        _: Identity,
        _: SocketAddr,
        _: BoxStream<'static, Result<AgentMessage, ApiError>>,
        _: mpsc::Sender<ManagerMessage>,
    ) {
        let _: Result<(), _> = self.note(Method::Session);
    }
}

#[async_trait]
impl ControlService for Arrivals {
    async fn managers(&self) -> Result<Managers, ApiError> {
        self.note(Method::Managers)
    }
}

impl LogBroker for Arrivals {
    fn logs(&self, _: LogSelector, _: LogOptions) -> TaskLogs {
        let _: Result<(), _> = self.note(Method::Logs);
        futures_util::stream::empty().boxed()
    }
}

#[async_trait]
impl GroupService for Arrivals {
    async fn receive(&self, _: &NodeCertificate, _: RaftCall) -> Result<Bytes, ApiError> {
        self.note(Method::Raft)
    }

    fn stream(&self, _: NodeCertificate, calls: RaftCalls) -> RaftAnswers {
        let arrived = self.clone();
        calls.map(move |call| call.and_then(|_| arrived.note(Method::RaftStream))).boxed()
    }

    async fn join(&self, _: &NodeCertificate, _: SocketAddr, _: JoinGroup) -> Result<(), ApiError> {
        self.note(Method::JoinGroup)
    }
}

/// What a well-meaning client sends: a refusal must be for who it is and not for what it says.
fn body(method: Method) -> Vec<u8> {
    let json = match method {
        Method::GetRootCertificate | Method::Managers => r#"{}"#,
        Method::IssueCertificate => r#"{"csr":"","token":""}"#,
        Method::RenewCertificate => r#"{"csr":""}"#,
        Method::Session => r#""Heartbeat""#,
        Method::JoinGroup => r#"{"raft_id":1,"addr":"127.0.0.1:1"}"#,
        Method::Logs => {
            r#"{"selector":{"Task":"abcdefghij0123456789abcde"},"options":{"follow":false,"since":null,"tail":null,"stdout":true,"stderr":true}}"#
        }
        Method::Raft | Method::RaftStream => {
            let message = Message { kind: MessageKind::Vote, body: Bytes::new() };
            return whole(&RaftCall { from: 1, to: 1, message }.encode());
        }
    };
    whole(json.as_bytes())
}

/// A world in which the root was rotated once, with everyone who may call.
struct Matrix {
    world: World,
    arrivals: Arc<Arrivals>,
    former: Authority,
    never: RootCa,
    rotation: RootCa,
}

impl Matrix {
    async fn start() -> Self {
        let mut world = World::start().await;
        let now = SystemClock.now();
        let (former, never) = (Authority::create(now).unwrap(), Authority::create(now).unwrap());
        let towards = |from: &Authority, to: &Authority| RootCa {
            rotation: Some(RootRotation {
                certificate: to.root().pem().to_owned(),
                key: to.stored().key,
                cross_signed: from.cross_sign(to.root()).unwrap(),
                ..Default::default()
            }),
            ..from.stored()
        };
        let rotation = towards(&former, &world.authority);
        // It was crossed by the former root alone: that leads nowhere any more.
        let never = towards(&former, &never);
        let arrivals = Arc::new(Arrivals::default());
        let stored =
            StoreAuthority::new(world.store.clone(), Arc::new(SystemClock), IdSource::random());
        let services = Services {
            ca: arrivals.clone(),
            sessions: arrivals.clone(),
            control: arrivals.clone(),
            logs: arrivals.clone(),
            group: arrivals.clone(),
            membership: Arc::new(stored),
            clock: Arc::new(SystemClock),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        world.addr = listener.local_addr().unwrap().to_string();
        let own = world.member(NodeRole::Manager, now);
        tokio::spawn(serve(listener, own, services, world.cancel.clone()));
        Self { world, arrivals, former, never, rotation }
    }

    fn identity(&self, role: NodeRole) -> Identity {
        Identity { node: IdSource::random().next(), role, cluster: self.world.cluster.id }
    }

    /// Credentials that show what `authority` signs for this identity.
    fn signed_by(&self, authority: &Authority, identity: Identity) -> Arc<Credentials> {
        Credentials::new(certified(authority, identity, SystemClock.now())).unwrap()
    }

    async fn stored(&self, credentials: Arc<Credentials>, role: NodeRole) -> Arc<Credentials> {
        let node = Node { id: credentials.identity().node, role, ..Node::default() };
        let batch = Batch::new(SystemClock.now(), vec![Change::create(node)]);
        self.world.store.commit(batch).await.unwrap();
        credentials
    }

    async fn removed(&self, role: NodeRole) -> Arc<Credentials> {
        let credentials = self.world.member(role, SystemClock.now());
        let node_id = credentials.identity().node;
        let entry = BlacklistedCertificate {
            node_id,
            until: SystemClock.now() + HOUR,
            ..Default::default()
        };
        self.world.update_cluster(|cluster| cluster.blacklist.push(entry)).await;
        credentials
    }

    /// What this kind of caller shows; nothing for nobody.
    async fn credentials(&self, who: Who) -> Option<Arc<Credentials>> {
        let (world, now) = (&self.world, SystemClock.now());
        let manager = self.identity(NodeRole::Manager);
        Some(match who {
            Who::Nobody => return None,
            Who::OfAnotherRoot => self.signed_by(&Authority::create(now).unwrap(), manager),
            Who::OfAnotherCluster => {
                let cluster = IdSource::random().next();
                self.signed_by(&world.authority, Identity { cluster, ..manager })
            }
            Who::ExpiredManager => world.member(NodeRole::Manager, now.before(2 * HOUR)),
            Who::FutureManager => world.member(NodeRole::Manager, now + 24 * HOUR),
            Who::Worker => self.stored(world.member(NodeRole::Worker, now), NodeRole::Worker).await,
            Who::Manager => {
                self.stored(world.member(NodeRole::Manager, now), NodeRole::Manager).await
            }
            Who::UnknownManager => world.member(NodeRole::Manager, now),
            Who::RemovedWorker => self.removed(NodeRole::Worker).await,
            Who::RemovedManager => self.removed(NodeRole::Manager).await,
            Who::Demoted => {
                self.stored(world.member(NodeRole::Manager, now), NodeRole::Worker).await
            }
            Who::PromotedNotYetRenewed => {
                self.stored(world.member(NodeRole::Worker, now), NodeRole::Manager).await
            }
            Who::OfTheFormerRoot => self.signed_by(&self.former, manager),
            Who::OfARootThatNeverCame => self.issued_in(&self.never, manager),
            Who::RenewedInTheRotation => {
                let own = self.issued_in(&self.rotation, manager);
                self.stored(own, NodeRole::Manager).await
            }
            Who::OwnAuthority => self.own_authority(manager),
        })
    }

    /// Credentials from the middle of a rotation, which trust the root before it.
    fn issued_in(&self, rotation: &RootCa, identity: Identity) -> Arc<Credentials> {
        let authority = Authority::issuing(rotation).unwrap();
        let KeyRequest { key, csr } = KeyRequest::generate().unwrap();
        let pem = authority.issue(&csr, &identity, HOUR, SystemClock.now()).unwrap();
        let root = self.former.root().clone();
        Credentials::new(NodeIdentity::new(root, pem, key).unwrap()).unwrap()
    }

    /// A worker that takes its own certificate for an authority's.
    fn own_authority(&self, identity: Identity) -> Arc<Credentials> {
        let now = SystemClock.now();
        let worker = self.world.member(NodeRole::Worker, now).node();
        let key = std::str::from_utf8(worker.key().expose()).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(
            worker.certificate_pem(),
            rcgen::KeyPair::from_pem(key).unwrap(),
        );
        let mut params = rcgen::CertificateParams::new(vec!["swarm-manager".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in [
            (rcgen::DnType::OrganizationName, identity.cluster.as_str()),
            (rcgen::DnType::OrganizationalUnitName, "swarm-manager"),
            (rcgen::DnType::CommonName, identity.node.as_str()),
        ] {
            params.distinguished_name.push(kind, value);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &issuer.unwrap()).unwrap().pem();
        let pem = leaf + worker.certificate_pem();
        let own = self.world.member(NodeRole::Worker, now);
        own.show_chain(&pem, key.serialize_pem().as_bytes());
        own
    }

    /// Makes one call and says whether it arrived, and what the caller heard.
    async fn call(&self, shows: Option<&Arc<Credentials>>, method: Method) -> (bool, String) {
        // Everyone trusts this manager: it is the server that has to refuse.
        let trusting = self.world.member(NodeRole::Worker, SystemClock.now());
        let tls = match shows {
            None => crate::identity::tls::joining_config(self.world.authority.root()).unwrap(),
            Some(shows) => {
                trusting.show(shows);
                trusting.client_config().unwrap()
            }
        };
        let heard = post(&self.world.addr, tls, method.path(), body(method)).await;
        (self.arrivals.take(), format!("{heard:?}"))
    }
}

#[tokio::test]
async fn every_call_is_open_to_whom_it_should_be_and_closed_to_everyone_else() {
    let matrix = Matrix::start().await;
    let mut wrong = Vec::new();
    for who in Who::ALL {
        let shows = matrix.credentials(who).await;
        for method in Method::ALL {
            let (arrived, heard) = matrix.call(shows.as_ref(), method).await;
            if arrived != may(who, opens(method)) {
                wrong.push(format!("{who:?} × {method:?}: arrived: {arrived}, heard: {heard}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(Who::ALL.iter().collect::<BTreeSet<_>>().len(), Who::ALL.len());
}
