//! Tests against a real engine: `scripts/with-dockerd.sh cargo test -p swarm-net bridge`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use swarm_core::conformance::network::{Fixture, Talk, suite};
use swarm_core::id::IdSource;
use swarm_core::model::{IpamConfig, IpamOptions, PortProtocol};
use swarm_core::network::Peer;

use super::*;
use crate::testing::Traffic;

/// Real containers as sandboxes, and the host's own traffic.
struct World {
    host: String,
    docker: Docker,
    engine: String,
    traffic: Traffic,
}

impl World {
    /// On the engine of `SWARM_TEST_DOCKER`, or nothing, loudly.
    async fn open() -> Option<Self> {
        let Ok(host) = std::env::var("SWARM_TEST_DOCKER") else {
            println!("skipped: SWARM_TEST_DOCKER is not set; run under scripts/with-dockerd.sh");
            return None;
        };
        let docker = Docker::connect_with_host(&host).expect("an address");
        let docker = docker.negotiate_version().await.expect("the engine answers");
        let engine = docker.info().await.expect("information").id.expect("an id");
        Some(Self { host, docker, engine, traffic: Traffic::new([127, 0, 0, 2].into()) })
    }

    async fn driver(&self, cluster: ClusterId) -> Bridge {
        let config = BridgeConfig { host: self.host.clone(), cluster, listen: self.traffic.listen };
        Bridge::connect(config).await.expect("connected")
    }

    async fn container(&self, task: TaskId, cmd: &[&str]) -> Sandbox {
        let options = CreateContainerOptionsBuilder::new().name(&format!("test-{task}")).build();
        let label = ("com.docker.swarm.task.id".to_owned(), task.to_string());
        let body = ContainerCreateBody {
            image: Some("busybox:latest".into()),
            cmd: Some(cmd.iter().map(|word| (*word).to_owned()).collect()),
            labels: Some(HashMap::from([label])),
            ..Default::default()
        };
        let made = self.docker.create_container(Some(options), body).await.expect("a container");
        Sandbox { id: made.id, netns: None }
    }

    async fn networks(&self, cluster: ClusterId) -> usize {
        let prefix = format!("swarm.{cluster}.");
        let networks = self.docker.list_networks(None).await.expect("networks");
        let ours = |name: Option<String>| name.is_some_and(|name| name.starts_with(&prefix));
        networks.into_iter().filter(|network| ours(network.name.clone())).count()
    }
}

#[async_trait]
impl Fixture for World {
    fn peer(&self) -> Peer {
        Peer { engine: self.engine.clone(), ..self.traffic.peer() }
    }
    fn range(&self, number: u8) -> IpamConfig {
        let base = format!("10.217.{number}");
        IpamConfig {
            subnet: format!("{base}.0/24"),
            gateway: format!("{base}.1"),
            ..Default::default()
        }
    }
    async fn sandbox(&self, task: TaskId) -> Sandbox {
        self.container(task, &["true"]).await
    }
    async fn remove(&self, sandbox: Sandbox) {
        let force = RemoveContainerOptionsBuilder::new().force(true).build();
        self.docker.remove_container(&sandbox.id, Some(force)).await.expect("removed");
    }
    async fn addresses(&self, sandbox: &Sandbox, network: &Network) -> Option<BTreeSet<String>> {
        let container = self.docker.inspect_container(&sandbox.id, None).await.expect("there");
        let networks = container.network_settings?.networks.unwrap_or_default();
        let ours = networks.iter().filter(|(name, _)| name.ends_with(network.id.as_str()));
        Some(ours.filter_map(|(_, at)| at.ipam_config.as_ref()?.ipv4_address.clone()).collect())
    }
    async fn server(&self, name: &str, protocol: PortProtocol) -> String {
        self.traffic.server(name, protocol).await
    }
    async fn nobody(&self) -> String {
        self.traffic.nobody().await
    }
    async fn free_port(&self) -> u16 {
        self.traffic.free_port().await
    }
    async fn occupy(&self, port: u16) -> bool {
        self.traffic.occupy(port).await
    }
    async fn talk(&self, port: u16, protocol: PortProtocol) -> Option<Box<dyn Talk>> {
        self.traffic.talk(port, protocol).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    let Some(world) = World::open().await else { return };
    let cluster = IdSource::random().next();
    suite(&world.driver(cluster).await, &world).await;
    assert_eq!(world.networks(cluster).await, 0, "nothing is left");
}

fn view(world: &World, internal: bool, range: u8) -> NetworkView {
    let ipam = IpamOptions { configs: vec![world.range(range)], ..Default::default() };
    let network = Network {
        id: IdSource::random().next(),
        spec: NetworkSpec { name: "backend".into(), internal, ..Default::default() },
        ipam: Some(ipam),
        ..Default::default()
    };
    NetworkView { network: Arc::new(network), peers: vec![world.peer()], services: Vec::new() }
}

fn attachment(view: &NetworkView, address: &str, name: &str) -> Attachment {
    Attachment {
        task: IdSource::random().next(),
        network: view.network.clone(),
        addresses: vec![format!("{address}/24")],
        names: vec![name.to_owned(), format!("tasks.{name}")],
        driver_opts: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_find_each_other_by_name_and_nodes_share_a_network() {
    let Some(world) = World::open().await else { return };
    let cluster = IdSource::random().next();
    let (one, two) = (world.driver(cluster).await, world.driver(cluster).await);
    let view = view(&world, true, 20);
    let want = NodeNetwork { networks: vec![view.clone()], published: Vec::new() };
    let (first, second) = tokio::join!(one.sync(&want), two.sync(&want));
    first.and(second).expect("both nodes may make the network");
    assert_eq!(world.networks(cluster).await, 1, "nodes on one engine share a network");

    let server = attachment(&view, "10.217.20.10", "web");
    let serve = "echo hello >/var/www/index.html; exec httpd -f -h /var/www";
    let web = world.container(server.task, &["sh", "-c", serve]).await;
    one.attach(&server, &web).await.expect("attached");
    world.docker.start_container(&web.id, None).await.expect("started");

    // The other node forgets the network before it attaches: it is in use, and stays.
    two.sync(&NodeNetwork::default()).await.expect("nothing to do");
    assert_eq!(world.networks(cluster).await, 1, "a network in use stays");
    let client = attachment(&view, "10.217.20.11", "client");
    let script = "wget -qO- http://web && wget -qO- http://tasks.web && nslookup -type=a web";
    let asker = world.container(client.task, &["sh", "-c", script]).await;
    two.attach(&client, &asker).await.expect("attached");
    world.docker.start_container(&asker.id, None).await.expect("started");
    let ended: Vec<_> =
        futures_util::StreamExt::collect(world.docker.wait_container(&asker.id, None)).await;
    assert!(ended[0].is_ok(), "the service is found by both of its names: {ended:?}");

    one.detach(server.task).await.expect("detached");
    two.detach(client.task).await.expect("detached");
    world.remove(web).await;
    world.remove(asker).await;
    one.sync(&NodeNetwork::default()).await.expect("removed");
    assert_eq!(world.networks(cluster).await, 0, "an unused network goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_over_two_engines_is_refused_in_words() {
    let Some(world) = World::open().await else { return };
    let driver = world.driver(IdSource::random().next()).await;
    let mut view = view(&world, false, 21);
    let elsewhere = Peer { engine: "another".into(), ..world.peer() };
    view.peers.push(elsewhere);
    let want = NodeNetwork { networks: vec![view.clone()], published: Vec::new() };
    let error = driver.sync(&want).await.expect_err("there is no overlay");
    assert!(matches!(&error, NetError::Missing(text) if text.contains("backend")), "{error}");
    let at = attachment(&view, "10.217.21.9", "x");
    let sandbox = world.container(at.task, &["true"]).await;
    assert_eq!(driver.attach(&at, &sandbox).await, Err(error));
    world.remove(sandbox).await;

    // The network of the published ports may span engines.
    let mut network = Network::clone(&view.network);
    network.spec.ingress = true;
    view.network = Arc::new(network);
    let want = NodeNetwork { networks: vec![view], published: Vec::new() };
    driver.sync(&want).await.expect("published ports need no overlay");
    driver.sync(&NodeNetwork::default()).await.expect("removed");
}
