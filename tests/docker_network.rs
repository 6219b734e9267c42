//! Two nodes on one Docker Engine: executor, networks and published ports together, without a
//! manager. Run under `scripts/with-dockerd.sh`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use swarm::core::executor::{Assignment, Executor, LogOptions, Started};
use swarm::core::id::IdSource;
use swarm::core::model::{
    ClusterId, ContainerSpec, Endpoint, Healthcheck, IpamConfig, IpamOptions, Network, NetworkSpec,
    NodeId, PortConfig, ServiceAnnotations, ServiceId, Task, TaskSpec,
};
use swarm::core::network::{
    Attachment, Backend, NetworkDriver, NetworkView, NodeNetwork, Peer, PublishedPort,
};
use swarm::core::time::Nanos;
use swarm::net::{Bridge, BridgeConfig};
use swarm::runtime::docker::{DockerConfig, DockerExecutor};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PORT: u16 = 8080;

struct Node {
    id: NodeId,
    address: IpAddr,
    executor: DockerExecutor,
    network: Bridge,
    _dir: tempfile::TempDir,
}

impl Node {
    async fn open(host: &str, cluster: ClusterId, address: [u8; 4]) -> Self {
        let (id, address) = (IdSource::random().next(), IpAddr::from(address));
        let dir = tempfile::tempdir().unwrap();
        let config = DockerConfig {
            advertise: Some(address),
            prefer_offline_image: true,
            ..DockerConfig::new(host, cluster, id, dir.path())
        };
        let executor = DockerExecutor::connect(config).await.unwrap();
        let config = BridgeConfig { host: host.to_owned(), cluster, listen: address };
        let network = Bridge::connect(config).await.unwrap();
        Self { id, address, executor, network, _dir: dir }
    }

    async fn peer(&self) -> Peer {
        let engine = self.executor.describe().await.unwrap().engine.engine_id;
        Peer { node: self.id, addr: self.address.to_string(), engine }
    }

    /// As an agent does it: prepare, attach, start.
    async fn launch(&self, assignment: &Assignment) -> Started {
        let sandbox = self.executor.prepare(assignment).await.unwrap();
        for attachment in &assignment.attachments {
            self.network.attach(attachment, &sandbox).await.unwrap();
        }
        self.executor.start(assignment.task.id).await.unwrap()
    }

    async fn end(&self, assignment: &Assignment) {
        let task = assignment.task.id;
        self.executor.stop(task, Duration::from_secs(1)).await.unwrap();
        self.network.detach(task).await.unwrap();
        self.executor.remove(task).await.unwrap();
    }
}

fn network() -> NetworkView {
    let range = IpamConfig {
        subnet: "10.218.1.0/24".into(),
        gateway: "10.218.1.1".into(),
        ..Default::default()
    };
    let network = Network {
        id: IdSource::random().next(),
        spec: NetworkSpec { name: "front".into(), ..Default::default() },
        ipam: Some(IpamOptions { configs: vec![range], ..Default::default() }),
        ..Default::default()
    };
    NetworkView { network: Arc::new(network), peers: Vec::new(), services: Vec::new() }
}

fn assignment(
    node: &Node,
    view: &NetworkView,
    service: (ServiceId, &str),
    host: u8,
    spec: ContainerSpec,
) -> Assignment {
    let ports = match spec.healthcheck {
        Some(_) => vec![PortConfig { target_port: 80, published_port: PORT, ..Default::default() }],
        None => Vec::new(),
    };
    let name = service.1.to_owned();
    let task = Task {
        id: IdSource::random().next(),
        service_id: service.0,
        slot: host.into(),
        node_id: Some(node.id),
        spec: Arc::new(TaskSpec { container: Some(spec), ..Default::default() }),
        annotations: Arc::new(ServiceAnnotations { name: name.clone(), ..Default::default() }),
        endpoint: Some(Arc::new(Endpoint { ports, ..Default::default() })),
        ..Default::default()
    };
    let attachment = Attachment {
        task: task.id,
        network: view.network.clone(),
        addresses: vec![format!("10.218.1.{host}/24")],
        names: vec![name.clone(), format!("tasks.{name}")],
        driver_opts: Default::default(),
    };
    Assignment {
        node: node.id,
        task: Arc::new(task),
        secrets: Vec::new(),
        configs: Vec::new(),
        attachments: vec![attachment],
    }
}

fn shell(script: &str) -> ContainerSpec {
    ContainerSpec {
        image: "busybox:latest".into(),
        command: vec!["sh".into(), "-c".into(), script.into()],
        ..Default::default()
    }
}

fn web(answer: &str) -> ContainerSpec {
    let script = format!("echo {answer} >/var/www/index.html; exec httpd -f -h /var/www");
    ContainerSpec {
        healthcheck: Some(Healthcheck {
            test: vec!["CMD-SHELL".into(), "wget -qO- http://127.0.0.1".into()],
            interval: Nanos(200_000_000),
            retries: 50,
            ..Default::default()
        }),
        ..shell(&script)
    }
}

/// The body of `GET /` at a published port; nothing when it is refused or closed.
async fn get(address: IpAddr) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect((address, PORT)).await.ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer.lines().last()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_two_nodes_find_each_other_and_answer_at_both() {
    let Ok(host) = std::env::var("SWARM_TEST_DOCKER") else {
        println!("skipped: SWARM_TEST_DOCKER is not set; run under scripts/with-dockerd.sh");
        return;
    };
    let cluster = IdSource::random().next();
    let one = Node::open(&host, cluster, [127, 0, 0, 4]).await;
    let two = Node::open(&host, cluster, [127, 0, 0, 5]).await;
    let mut view = network();
    view.peers = vec![one.peer().await, two.peer().await];
    let service: (ServiceId, _) = (IdSource::random().next(), "web");
    let mut want = NodeNetwork { networks: vec![view.clone()], published: Vec::new() };
    for node in [&one, &two] {
        node.network.sync(&want).await.unwrap();
    }

    // One task on each node, behind one published port on both.
    let here = assignment(&one, &view, service, 10, web("one"));
    let there = assignment(&two, &view, service, 11, web("two"));
    let mut backends = Vec::new();
    for (node, task) in [(&one, &here), (&two, &there)] {
        let started = node.launch(task).await;
        let address = started.endpoints[0].address.clone();
        backends.push(Backend { task: task.task.id, node: node.id, address });
    }
    want.published = vec![PublishedPort {
        service: service.0,
        port: PORT,
        protocol: Default::default(),
        backends,
    }];
    for node in [&one, &two] {
        node.network.sync(&want).await.unwrap();
        let mut heard = [get(node.address).await.unwrap(), get(node.address).await.unwrap()];
        heard.sort();
        assert_eq!(heard, ["one", "two"], "each node balances over both");
    }

    // A client finds the service by its name, whichever node it runs on.
    let script =
        "nslookup -type=a tasks.web | grep -c '^Address: 10.218.1.1[01]$'; wget -qO- http://web";
    let client = assignment(&two, &view, (IdSource::random().next(), "client"), 12, shell(script));
    two.launch(&client).await;
    let exit = two.executor.wait(client.task.id).await.unwrap();
    let options = LogOptions { stdout: true, stderr: true, ..Default::default() };
    let logs = two.executor.logs(client.task.id, options).await.unwrap();
    let lines: Vec<_> = logs.try_collect().await.unwrap();
    let output: String =
        lines.iter().map(|line| String::from_utf8_lossy(&line.data).into_owned()).collect();
    assert!(exit.is_success() && output.starts_with("2\n"), "{exit:?}: {output}");

    // A task leaves: nobody is sent to it.
    want.published[0].backends.remove(0);
    for node in [&one, &two] {
        node.network.sync(&want).await.unwrap();
        assert_eq!(get(node.address).await.as_deref(), Some("two"));
    }
    for (node, task) in [(&one, &here), (&two, &there), (&two, &client)] {
        node.end(task).await;
    }
    for node in [&one, &two] {
        node.network.sync(&NodeNetwork::default()).await.unwrap();
        assert_eq!(get(node.address).await, None, "the port is withdrawn");
        assert_eq!(node.executor.inventory().await.unwrap(), []);
    }
}
