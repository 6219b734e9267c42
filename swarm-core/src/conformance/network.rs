//! Checks that a [`NetworkDriver`] keeps its contract. See [`suite`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::executor::Sandbox;
use crate::id::IdSource;
use crate::model::{IpamConfig, IpamOptions, Network, NetworkSpec, NodeId, PortProtocol, TaskId};
use crate::network::{
    Attachment, Backend, InUse, NetError, NetworkDriver, NetworkView, NodeNetwork, Peer,
    PublishedPort, ServiceRecord,
};

/// What the suite uses of a driver's surroundings: sandboxes to attach, servers behind ports, and
/// a client in front of them. The suite itself opens no sockets.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The node that the driver serves, as its peers see it.
    fn peer(&self) -> Peer;

    /// A range that nothing else uses here, such as `10.99.0.0/24`; another one for each number.
    fn range(&self, number: u8) -> IpamConfig;

    /// A sandbox as an executor prepares it for a task.
    async fn sandbox(&self, task: TaskId) -> Sandbox;

    /// Takes a sandbox away again.
    async fn remove(&self, sandbox: Sandbox) {
        drop(sandbox);
    }

    /// The addresses that a sandbox has in a network; `None` where the driver gives it none.
    async fn addresses(&self, sandbox: &Sandbox, network: &Network) -> Option<BTreeSet<String>> {
        let _ = (sandbox, network);
        None
    }

    /// A server that answers every request with `name`: its `ADDRESS:PORT`. It runs as long as the
    /// fixture.
    async fn server(&self, name: &str, protocol: PortProtocol) -> String;

    /// An address at which nobody answers.
    async fn nobody(&self) -> String;

    /// A port that can be published.
    async fn free_port(&self) -> u16;

    /// Whether somebody else can take a port, so that publishing it must fail; holds it until
    /// the next call.
    async fn occupy(&self, port: u16) -> bool {
        let _ = port;
        false
    }

    /// Opens a conversation with a published port; `None` when it is refused, or closed before the
    /// first answer. The first answer is part of it.
    async fn talk(&self, port: u16, protocol: PortProtocol) -> Option<Box<dyn Talk>>;
}

/// An open connection to a published port.
#[async_trait]
pub trait Talk: Send {
    /// The last answer: the name of the server behind the port.
    fn heard(&self) -> &str;
    /// Asks again on the same connection; whether the same server answered.
    async fn again(&mut self) -> bool;
}

/// A bound against hanging, generous because machines differ; never a measurement.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not return within {PATIENCE:?}"),
    }
}

/// Runs every check on a driver, one after the other. Everything is taken away again unless a
/// check panics.
///
/// # Panics
/// With a sentence that names the broken promise.
pub async fn suite(driver: &dyn NetworkDriver, fixture: &dyn Fixture) {
    allocates_purely(driver);
    attaches_once(driver, fixture).await;
    keeps_neighbours(driver, fixture).await;
    takes_strangers_calmly(driver, fixture).await;
    balances(driver, fixture, PortProtocol::Tcp).await;
    balances(driver, fixture, PortProtocol::Udp).await;
    skips_the_dead(driver, fixture).await;
    drains(driver, fixture).await;
    tells_of_a_taken_port(driver, fixture).await;
    sync(driver, &NodeNetwork::default()).await;
}

async fn sync(driver: &dyn NetworkDriver, want: &NodeNetwork) {
    for _ in 0..2 {
        within("sync", driver.sync(want)).await.unwrap_or_else(|error| panic!("sync: {error}"));
    }
}

fn allocates_purely(driver: &dyn NetworkDriver) {
    assert!(!driver.name().is_empty(), "a driver has a name");
    let spec = NetworkSpec { name: "one".into(), ..Default::default() };
    let allocate = |in_use: &InUse| {
        driver.allocate(&spec, in_use).unwrap_or_else(|error| panic!("allocate: {error}"))
    };
    let first = allocate(&InUse::default());
    assert_eq!(first, allocate(&InUse::default()), "same arguments, same answer");
    let mut ids = IdSource::seeded(1);
    let in_use = InUse { states: vec![(ids.next(), first.state.clone())] };
    let second = allocate(&in_use);
    if !first.state.options.is_empty() {
        assert_ne!(first.state, second.state, "what one network has, another cannot get");
    }
    assert_eq!(second, allocate(&in_use), "same arguments, same answer");
}

/// One network with tasks.
struct Place {
    view: NetworkView,
    ids: IdSource,
    base: String,
}

impl Place {
    fn new(fixture: &dyn Fixture, number: u8) -> Self {
        let mut ids = IdSource::random();
        let range = fixture.range(number);
        let base = range.subnet.rsplit_once('.').expect("an IPv4 range").0.to_owned();
        let ipam = IpamOptions { configs: vec![range], ..Default::default() };
        let network = Network {
            id: ids.next(),
            spec: NetworkSpec { name: format!("conformance{number}"), ..Default::default() },
            ipam: Some(ipam),
            ..Default::default()
        };
        let view = NetworkView {
            network: Arc::new(network),
            peers: vec![fixture.peer()],
            services: Vec::new(),
        };
        Self { view, ids, base }
    }

    /// An attachment of a new task, with a record of its service.
    fn task(&mut self, node: NodeId, host: u8) -> Attachment {
        let task = self.ids.next();
        let address = format!("{}.{host}", self.base);
        self.view.services.push(ServiceRecord {
            service: self.ids.next(),
            names: vec![format!("service{host}")],
            virtual_ip: None,
            backends: vec![Backend { task, node, address: address.clone() }],
        });
        Attachment {
            task,
            network: self.view.network.clone(),
            addresses: vec![format!("{address}/24")],
            names: vec![format!("service{host}"), format!("tasks.service{host}")],
            driver_opts: Default::default(),
        }
    }

    fn want(&self) -> NodeNetwork {
        NodeNetwork { networks: vec![self.view.clone()], published: Vec::new() }
    }
}

async fn attach(driver: &dyn NetworkDriver, want: &Attachment, sandbox: &Sandbox) {
    let attach = || async {
        within("attach", driver.attach(want, sandbox))
            .await
            .unwrap_or_else(|error| panic!("attach: {error}"))
    };
    assert_eq!(attach().await, attach().await, "a second attach answers the same");
}

async fn detach(driver: &dyn NetworkDriver, task: TaskId) {
    for _ in 0..2 {
        within("detach", driver.detach(task)).await.unwrap_or_else(|error| {
            panic!("detach: {error}");
        });
    }
}

async fn expect(fixture: &dyn Fixture, sandbox: &Sandbox, at: &Attachment, attached: bool) {
    let Some(addresses) = fixture.addresses(sandbox, &at.network).await else { return };
    let bare = |address: &String| address.split('/').next().unwrap_or_default().to_owned();
    let have: BTreeSet<_> = addresses.iter().map(bare).collect();
    let want: BTreeSet<_> = at.addresses.iter().filter(|_| attached).map(bare).collect();
    assert_eq!(have, want, "the sandbox's addresses in the network");
}

async fn attaches_once(driver: &dyn NetworkDriver, fixture: &dyn Fixture) {
    let mut place = Place::new(fixture, 1);
    let at = place.task(fixture.peer().node, 10);
    let sandbox = fixture.sandbox(at.task).await;
    sync(driver, &place.want()).await;
    attach(driver, &at, &sandbox).await;
    expect(fixture, &sandbox, &at, true).await;
    sync(driver, &place.want()).await;
    expect(fixture, &sandbox, &at, true).await;
    detach(driver, at.task).await;
    expect(fixture, &sandbox, &at, false).await;
    fixture.remove(sandbox).await;
    sync(driver, &NodeNetwork::default()).await;
}

/// Calls come in any order, and one task's never touch another's.
async fn keeps_neighbours(driver: &dyn NetworkDriver, fixture: &dyn Fixture) {
    let (mut one, mut two) = (Place::new(fixture, 1), Place::new(fixture, 2));
    let node = fixture.peer().node;
    let (mine, theirs) = (one.task(node, 10), one.task(node, 11));
    // The same task in a second network.
    let other = Attachment { task: mine.task, ..two.task(node, 10) };
    let (here, there) = (fixture.sandbox(mine.task).await, fixture.sandbox(theirs.task).await);
    attach(driver, &mine, &here).await;
    attach(driver, &theirs, &there).await;
    attach(driver, &other, &here).await;
    let both =
        NodeNetwork { networks: vec![two.view.clone(), one.view.clone()], published: Vec::new() };
    sync(driver, &both).await;
    for (sandbox, at) in [(&here, &mine), (&there, &theirs), (&here, &other)] {
        expect(fixture, sandbox, at, true).await;
    }
    detach(driver, mine.task).await;
    expect(fixture, &here, &mine, false).await;
    expect(fixture, &here, &other, false).await;
    expect(fixture, &there, &theirs, true).await;
    sync(driver, &one.want()).await;
    expect(fixture, &there, &theirs, true).await;
    detach(driver, theirs.task).await;
    fixture.remove(here).await;
    fixture.remove(there).await;
    sync(driver, &NodeNetwork::default()).await;
}

async fn takes_strangers_calmly(driver: &dyn NetworkDriver, fixture: &dyn Fixture) {
    detach(driver, IdSource::random().next()).await;
    let place = Place::new(fixture, 3);
    sync(driver, &place.want()).await;
    sync(driver, &NodeNetwork::default()).await;
}

fn publish(port: u16, protocol: PortProtocol, servers: &[String]) -> NodeNetwork {
    let mut ids = IdSource::random();
    let backends = servers
        .iter()
        .map(|address| Backend { task: ids.next(), node: ids.next(), address: address.clone() })
        .collect();
    let published = PublishedPort { service: ids.next(), port, protocol, backends };
    NodeNetwork { networks: Vec::new(), published: vec![published] }
}

async fn ask(fixture: &dyn Fixture, port: u16, protocol: PortProtocol) -> Option<String> {
    let talk = within("a published port", fixture.talk(port, protocol)).await?;
    Some(talk.heard().to_owned())
}

async fn balances(driver: &dyn NetworkDriver, fixture: &dyn Fixture, protocol: PortProtocol) {
    let port = fixture.free_port().await;
    let names = ["one", "two", "three"];
    let mut servers = Vec::new();
    for name in names {
        servers.push(fixture.server(name, protocol).await);
    }
    assert_eq!(ask(fixture, port, protocol).await, None, "nothing answers before it is published");
    sync(driver, &publish(port, protocol, &servers)).await;
    let mut heard = BTreeSet::new();
    for _ in 0..names.len() {
        heard.extend(ask(fixture, port, protocol).await);
    }
    let all: BTreeSet<_> = names.map(str::to_owned).into();
    assert_eq!(heard, all, "as many {protocol} clients as tasks reach every task");
    sync(driver, &publish(port, protocol, &servers[..1])).await;
    for _ in 0..3 {
        let heard = ask(fixture, port, protocol).await;
        assert_eq!(heard.as_deref(), Some("one"), "new {protocol} clients reach what is left");
    }
    sync(driver, &publish(port, protocol, &[])).await;
    assert_eq!(ask(fixture, port, protocol).await, None, "without tasks clients are refused");
    sync(driver, &publish(port, protocol, &servers[1..2])).await;
    assert_eq!(ask(fixture, port, protocol).await.as_deref(), Some("two"), "a task came back");
    sync(driver, &NodeNetwork::default()).await;
    assert_eq!(ask(fixture, port, protocol).await, None, "nothing answers when it is withdrawn");
}

async fn skips_the_dead(driver: &dyn NetworkDriver, fixture: &dyn Fixture) {
    let port = fixture.free_port().await;
    let servers = [fixture.nobody().await, fixture.server("alive", PortProtocol::Tcp).await];
    sync(driver, &publish(port, PortProtocol::Tcp, &servers)).await;
    for _ in 0..4 {
        let heard = ask(fixture, port, PortProtocol::Tcp).await;
        assert_eq!(heard.as_deref(), Some("alive"), "a dead task costs no client its answer");
    }
    let dead = [fixture.nobody().await];
    sync(driver, &publish(port, PortProtocol::Tcp, &dead)).await;
    assert_eq!(ask(fixture, port, PortProtocol::Tcp).await, None, "dead tasks alone");
    sync(driver, &NodeNetwork::default()).await;
}

async fn drains(driver: &dyn NetworkDriver, fixture: &dyn Fixture) {
    let port = fixture.free_port().await;
    let old = fixture.server("old", PortProtocol::Tcp).await;
    let new = fixture.server("new", PortProtocol::Tcp).await;
    sync(driver, &publish(port, PortProtocol::Tcp, &[old])).await;
    let talk = within("a published port", fixture.talk(port, PortProtocol::Tcp)).await;
    let mut talk = talk.expect("a task answers");
    assert_eq!(talk.heard(), "old");
    for want in [publish(port, PortProtocol::Tcp, &[new]), NodeNetwork::default()] {
        sync(driver, &want).await;
        assert!(within("the old task", talk.again()).await, "open connections go on: {want:?}");
        let heard = ask(fixture, port, PortProtocol::Tcp).await;
        assert_ne!(heard.as_deref(), Some("old"), "new connections go elsewhere at once");
    }
}

async fn tells_of_a_taken_port(driver: &dyn NetworkDriver, fixture: &dyn Fixture) {
    let (taken, free) = (fixture.free_port().await, fixture.free_port().await);
    if !fixture.occupy(taken).await {
        return;
    }
    let server = [fixture.server("other", PortProtocol::Tcp).await];
    let mut want = publish(taken, PortProtocol::Tcp, &server);
    want.published.extend(publish(free, PortProtocol::Tcp, &server).published);
    match within("sync", driver.sync(&want)).await {
        Err(NetError::System(text)) => {
            assert!(text.contains(&taken.to_string()), "the error names the port: {text}");
        }
        other => panic!("publishing a port that is taken: {other:?}"),
    }
    let heard = ask(fixture, free, PortProtocol::Tcp).await;
    assert_eq!(heard.as_deref(), Some("other"), "what can be done is done despite an error");
    sync(driver, &NodeNetwork::default()).await;
}
