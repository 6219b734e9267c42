//! The root of a swarm is rotated, with nodes that are down, managers that restart, and operators
//! who change their minds: real nodes, real sockets, real mutual TLS.

#[path = "support/cfssl.rs"]
mod cfssl;

use std::fs;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use swarm::core::model::{ClusterSpec, ExternalCa, NodeState, TlsInfo};
use swarm::core::store::Snapshot;
use swarm::http::{InitRequest, JoinRequest, LocalNode as _, LocalState};
use swarm::http::{ListenSpec, bind, serve};
use swarm::identity::{IdentityFiles, NodeIdentity, TrustRoot};
use swarm::manager::control::{Control, Rotate};
use swarm::node::{MemoryRuntime, Node, NodeConfig};
use swarm::runtime::memory::Behaviour;
use tempfile::TempDir;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// How long anything may take on a busy machine before the test gives up; nothing is asserted
/// about less.
const PATIENCE: Duration = Duration::from_secs(60);

struct Swarm {
    dir: TempDir,
    runtime: Arc<MemoryRuntime>,
    manager: Arc<Node>,
    addr: String,
}

impl Swarm {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Arc::new(MemoryRuntime::new(|_| Behaviour::default()));
        let manager = node(&dir, "manager", &runtime).await;
        manager.init(InitRequest::default()).await.unwrap();
        let addr = manager.status().remote_managers[0].addr.clone();
        Self { dir, runtime, manager, addr }
    }

    /// A node of this name: as it was, if there was one.
    async fn node(&self, name: &str) -> Arc<Node> {
        node(&self.dir, name, &self.runtime).await
    }

    async fn join(&self, name: &str) -> Arc<Node> {
        let node = self.node(name).await;
        node.join(self.join_request()).await.unwrap();
        let id = node.status().node_id;
        let ready = |view: &Snapshot| {
            view.nodes.get(id).is_some_and(|node| node.status.state == NodeState::Ready)
        };
        self.until("the node is ready", ready).await;
        node
    }

    fn join_request(&self) -> JoinRequest {
        let cluster = self.view().cluster().unwrap().clone();
        let (remote_addrs, join_token) =
            (vec![self.addr.clone()], cluster.join_tokens.worker.clone());
        JoinRequest { remote_addrs, join_token, ..Default::default() }
    }

    fn control(&self) -> Arc<Control> {
        self.manager.control().expect("the first node is a manager")
    }

    fn view(&self) -> Snapshot {
        self.control().store.snapshot()
    }

    async fn update(&self, change: impl FnOnce(&mut ClusterSpec)) {
        let cluster = self.view().cluster().unwrap().clone();
        let mut spec = cluster.spec.clone();
        change(&mut spec);
        self.control().update_cluster(cluster.version, spec, Rotate::default()).await.unwrap();
    }

    /// `docker swarm ca --rotate`
    async fn rotate(&self) {
        self.update(|spec| spec.ca_config.force_rotate += 1).await;
    }

    async fn until(&self, what: &str, done: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let store = self.control().store.clone();
        match tokio::time::timeout(PATIENCE, store.until(done)).await {
            Ok(view) => view,
            Err(_) => {
                let held: Vec<_> = store.snapshot().nodes.iter().map(|n| held(n).clone()).collect();
                panic!("not within {PATIENCE:?}: {what}; {held:#?}")
            }
        }
    }

    async fn until_rotated(&self) -> Snapshot {
        self.until("the rotation has ended and every node knows", |view| {
            let cluster = view.cluster().unwrap();
            !cluster.root_rotation_in_progress
                && view.nodes.iter().all(|node| *held(node) == cluster.tls_info)
        })
        .await
    }

    fn certificates(&self, name: &str) -> NodeIdentity {
        let dir = self.dir.path().join(name).join("certificates");
        IdentityFiles::new(&dir).load().unwrap().expect("the node has certificates")
    }
}

async fn node(dir: &TempDir, name: &str, runtime: &Arc<MemoryRuntime>) -> Arc<Node> {
    let mut config = NodeConfig::new(dir.path().join(name), runtime.clone());
    config.hostname = Some(name.to_owned());
    config.listen = Some("127.0.0.1:0".parse().unwrap());
    Node::start(config).await.unwrap()
}

fn held(node: &swarm::core::model::Node) -> &TlsInfo {
    static NONE: std::sync::LazyLock<TlsInfo> = std::sync::LazyLock::new(TlsInfo::default);
    node.description.as_ref().map_or(&NONE, |description| &description.tls_info)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_gets_a_certificate_of_the_new_root_and_only_then_tokens_change() {
    let swarm = Swarm::start().await;
    let workers = [swarm.join("one").await, swarm.join("two").await];
    let old = swarm.join_request();
    let before = swarm.view().cluster().unwrap().clone();
    swarm.rotate().await;
    let view = swarm.until_rotated().await;
    let after = view.cluster().unwrap();
    assert_ne!(after.root_ca.certificate, before.root_ca.certificate);
    let new_root = TrustRoot::parse(&after.root_ca.certificate).unwrap();
    for name in ["manager", "one", "two"] {
        let kept = swarm.certificates(name);
        assert_eq!(kept.root(), &new_root, "{name} trusts the new root alone");
        assert_eq!(*kept.tls_info(), after.tls_info, "{name}");
    }
    let outside = swarm.node("three").await;
    let refused = outside.join(old).await.unwrap_err();
    assert!(refused.message.starts_with("remote CA does not match fingerprint"), "{refused}");
    outside.join(swarm.join_request()).await.unwrap();
    // The nodes come back with what they have on disk.
    for (worker, name) in workers.into_iter().zip(["one", "two"]) {
        worker.stop().await;
        drop(worker);
        let again = swarm.node(name).await;
        assert_eq!(again.status().state, LocalState::Active);
        swarm
            .until("it is in session", |view| {
                let node = view.nodes.get(again.status().node_id).unwrap();
                node.status.state == NodeState::Ready && *held(node) == after.tls_info
            })
            .await;
        again.stop().await;
    }
    outside.stop().await;
    swarm.manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_waits_for_a_node_that_is_down_through_restarts_of_the_manager() {
    let mut swarm = Swarm::start().await;
    let (up, down) = (swarm.join("up").await, swarm.join("down").await);
    let before = swarm.view().cluster().unwrap().clone();
    let down_id = down.status().node_id;
    down.stop().await;
    drop(down);
    swarm.rotate().await;
    let has_new = |view: &Snapshot| {
        let wanted = &view.cluster().unwrap().tls_info.cert_issuer_public_key;
        let renewed =
            |node: &&Arc<swarm::core::model::Node>| held(node).cert_issuer_public_key == *wanted;
        view.nodes.iter().filter(renewed).count()
    };
    swarm.until("the others have renewed", |view| has_new(view) == 2).await;

    // Its directory is free for the next process when nobody holds the node any more.
    let nobody = swarm.node("nobody").await;
    let manager = std::mem::replace(&mut swarm.manager, nobody);
    manager.stop().await;
    drop(manager);
    swarm.manager = swarm.node("manager").await;
    let mut leadership = swarm.control().store.leadership();
    leadership.wait_for(|now| now.epoch().is_some()).await.unwrap();
    let view = swarm.view();
    let cluster = view.cluster().unwrap();
    assert!(cluster.root_rotation_in_progress, "one is missing");
    assert_eq!(cluster.join_tokens, before.join_tokens);
    // With the token of the old root a node still joins, and gets a certificate of the new one.
    let late = swarm.join("late").await;
    swarm.until("it has the new root's", |view| has_new(view) == 3).await;

    let back = swarm.node("down").await;
    assert_eq!(back.status().node_id, down_id);
    let view = swarm.until_rotated().await;
    assert_ne!(view.cluster().unwrap().root_ca.certificate, before.root_ca.certificate);

    // And one that never returns is removed.
    back.stop().await;
    swarm.rotate().await;
    swarm.until("the others have renewed", |view| has_new(view) == 3).await;
    assert!(swarm.view().cluster().unwrap().root_rotation_in_progress);
    swarm.control().remove_node(down_id.as_str(), true).await.unwrap();
    swarm.until_rotated().await;
    for node in [up, late, swarm.manager] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_given_up_by_giving_the_present_root_and_begun_again() {
    let swarm = Swarm::start().await;
    let (up, down) = (swarm.join("up").await, swarm.join("down").await);
    let before = swarm.view().cluster().unwrap().clone();
    down.stop().await;
    drop(down);
    swarm.rotate().await;
    let up_id = up.status().node_id;
    swarm
        .until("the node has renewed", |view| {
            let wanted = &view.cluster().unwrap().tls_info;
            held(view.nodes.get(up_id).unwrap()).cert_issuer_public_key
                == wanted.cert_issuer_public_key
        })
        .await;
    let key = before.root_ca.key.as_ref().unwrap().expose().to_vec();
    swarm
        .update(|spec| {
            spec.ca_config.signing_ca_cert.clone_from(&before.root_ca.certificate);
            spec.ca_config.signing_ca_key = String::from_utf8(key).unwrap();
        })
        .await;
    let view = swarm.until_rotated().await;
    let cluster = view.cluster().unwrap();
    assert_eq!(cluster.root_ca.certificate, before.root_ca.certificate);
    assert_eq!((&cluster.join_tokens, &cluster.tls_info), (&before.join_tokens, &before.tls_info));
    swarm.rotate().await;
    let back = swarm.node("down").await;
    let view = swarm.until_rotated().await;
    assert_ne!(view.cluster().unwrap().root_ca.certificate, before.root_ca.certificate);
    for node in [up, back, swarm.manager] {
        node.stop().await;
    }
}

/// The unmodified CLI at a manager's socket.
struct Cli(TempDir);

impl Cli {
    /// `None`, with a loud word, where there is no CLI.
    async fn at(node: &Arc<Node>) -> Option<Self> {
        if Command::new("docker").arg("--version").output().await.is_err() {
            eprintln!("skipped: no docker CLI on this machine");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let spec = ListenSpec::Unix(dir.path().join("docker.sock"));
        let listeners = bind(&[spec], None, false).await.unwrap();
        tokio::spawn(serve(listeners, node.clone(), CancellationToken::new()));
        Some(Self(dir))
    }

    async fn run(&self, words: &str) -> Output {
        let running = Command::new("docker")
            .args(words.split(' '))
            .env_clear()
            .env("HOME", self.0.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("DOCKER_HOST", format!("unix://{}/docker.sock", self.0.path().display()))
            .current_dir(self.0.path())
            .kill_on_drop(true)
            .output();
        tokio::time::timeout(PATIENCE, running).await.expect("the CLI comes to an end").unwrap()
    }

    async fn ok(&self, words: &str) -> String {
        let output = self.run(words).await;
        assert!(output.status.success(), "docker {words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn fails(&self, words: &str) -> String {
        let output = self.run(words).await;
        assert!(!output.status.success(), "docker {words}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_docker_cli_shows_a_root_rotates_it_and_waits_for_the_nodes() {
    let swarm = Swarm::start().await;
    let Some(cli) = Cli::at(&swarm.manager).await else { return };
    let worker = swarm.join("one").await;
    let root = || swarm.view().cluster().unwrap().root_ca.certificate.clone();
    let before = root();
    assert_eq!(cli.ok("swarm ca").await.trim_end(), before.trim_end());
    let shown = cli.ok("swarm ca --rotate --cert-expiry 48h").await;
    for part in
        ["desired root digest: sha256:", "rotated TLS certificates:", "rotated CA certificates:"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let after = root();
    assert!(
        after != before && shown.contains(&after),
        "the new root is printed at the end: {shown}"
    );
    assert_eq!(cli.ok("node ls --format {{.TLSStatus}}").await, "Ready\nReady\n");
    let life = swarm.certificates("one");
    let life = life.certificate().not_after.since(life.certificate().not_before);
    assert_eq!(life, Duration::from_secs(49 * 3600), "two days, and an hour for slow clocks");

    // A root that is given.
    let given = cfssl::Root::new("Given");
    cli.file("cert.pem", &given.cert);
    cli.file("key.pem", &given.key);
    cli.file("other.pem", &cfssl::Root::new("Other").key);
    let said = cli.fails("swarm ca --rotate --ca-cert cert.pem --ca-key other.pem").await;
    assert!(said.contains("certificate key mismatch"), "{said}");
    assert_eq!(
        cli.ok("swarm ca --rotate --quiet --ca-cert cert.pem --ca-key key.pem").await.trim(),
        ""
    );
    swarm.until_rotated().await;
    assert_eq!(root(), given.cert.replace('\r', ""));
    // Other settings leave it alone, although the CLI sends every setting back.
    cli.ok("swarm update --task-history-limit 3").await;
    assert_eq!(swarm.view().cluster().unwrap().root_ca.rotation, None);
    let detached = cli.ok("swarm ca --rotate --detach").await;
    assert!(!detached.contains("rotated"), "{detached}");
    swarm.until_rotated().await;
    let tokens = cli.ok("swarm join-token -q worker").await;
    assert_eq!(tokens.trim(), swarm.join_request().join_token);
    worker.stop().await;
    swarm.manager.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_moves_to_an_authority_outside_and_back() {
    let swarm = Swarm::start().await;
    let Some(cli) = Cli::at(&swarm.manager).await else { return };
    let worker = swarm.join("one").await;
    let outside = cfssl::Root::new("Outside");
    let clients =
        format!("{}{}", swarm.view().cluster().unwrap().root_ca.certificate, outside.cert);
    let service = cfssl::Service::start(&outside, &clients).await;
    cli.file("cert.pem", &outside.cert);
    let rotate = format!(
        "--ca-cert cert.pem --external-ca protocol=cfssl,url={},cacert=cert.pem",
        service.url
    );
    let elsewhere = rotate.replace("https://127.0.0.1:", "https://127.0.0.1:1");
    let said = cli.fails(&format!("swarm ca --rotate {elsewhere}")).await;
    assert!(said.contains("at least one valid, reachable external CA"), "{said}");
    cli.ok(&format!("swarm ca --rotate {rotate}")).await;
    let view = swarm.until_rotated().await;
    let root_ca = &view.cluster().unwrap().root_ca;
    assert_eq!((&root_ca.certificate, &root_ca.key), (&outside.cert, &None));
    assert_eq!(service.seen.lock().unwrap().len(), 2, "each node's certificate was signed outside");
    let late = swarm.join("late").await;
    assert_eq!(service.seen.lock().unwrap().len(), 3, "and so is that of whoever joins");
    // While it is out of order nobody joins, and whoever wants to tries on.
    *service.instead.lock().unwrap() = Some((500, "closed".to_owned()));
    let waiting = swarm.node("waiting").await;
    let request = swarm.join_request();
    let joining = {
        let waiting = waiting.clone();
        tokio::spawn(async move { waiting.join(request).await })
    };
    let refused = async {
        while !waiting.status().error.contains("closed") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the node says what it waits for");
    *service.instead.lock().unwrap() = None;
    joining.await.unwrap().unwrap();

    cli.ok("swarm ca --rotate").await;
    let view = swarm.until_rotated().await;
    assert!(view.cluster().unwrap().root_ca.key.is_some(), "a root of our own again");
    for node in [worker, late, waiting, swarm.manager] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_begins_with_a_root_that_is_given_or_an_authority_outside() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Arc::new(MemoryRuntime::new(|_| Behaviour::default()));
    let outside = cfssl::Root::new("Outside");
    let service = cfssl::Service::start(&outside, "").await;
    let manager = node(&dir, "manager", &runtime).await;
    let Some(cli) = Cli::at(&manager).await else { return };
    cli.file("cert.pem", &outside.cert);
    let external = |url: &str| format!("swarm init --external-ca protocol=cfssl,url={url}");
    let said = cli.fails(&external(&service.url)).await;
    assert!(said.contains("of an unknown root: give its certificate"), "{said}");
    let elsewhere = service.url.replace("https://127.0.0.1:", "https://127.0.0.1:1");
    let said = cli.fails(&format!("{},cacert=cert.pem", external(&elsewhere))).await;
    assert!(said.contains("external certificate authority"), "{said}");
    assert_eq!(manager.status().state, LocalState::Inactive, "nothing is left of it");
    cli.ok(&format!("{},cacert=cert.pem", external(&service.url))).await;
    let addr = manager.status().remote_managers[0].addr.clone();
    let swarm = Swarm { dir, runtime, manager, addr };
    let cluster = swarm.view().cluster().unwrap().clone();
    assert_eq!((&cluster.root_ca.certificate, &cluster.root_ca.key), (&outside.cert, &None));
    let worker = swarm.join("one").await;
    assert_eq!(service.seen.lock().unwrap().len(), 2, "each certificate was signed outside");
    swarm.rotate().await;
    swarm.until_rotated().await;

    // A root with its key, which is nowhere but in the root.
    let given = cfssl::Root::new("Given");
    let mut request = InitRequest::default();
    request.spec.ca_config.signing_ca_cert.clone_from(&given.cert);
    request.spec.ca_config.signing_ca_key.clone_from(&given.key);
    let another = swarm.node("another").await;
    another.init(request).await.unwrap();
    let cluster = another.control().unwrap().store.snapshot().cluster().unwrap().clone();
    assert_eq!(cluster.root_ca.certificate, given.cert);
    assert!(cluster.root_ca.key.is_some() && cluster.spec.ca_config.signing_ca_key.is_empty());
    for node in [worker, another, swarm.manager] {
        node.stop().await;
    }
}

/// CFSSL itself, where it is installed.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_cfssl_signs_for_a_swarm() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let outside = cfssl::Root::new("Outside");
    let (cert, key) = outside.server();
    for (name, text) in
        [("ca", &outside.cert), ("ca-key", &outside.key), ("tls", &cert), ("tls-key", &key)]
    {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let mut command = Command::new("cfssl");
    command.current_dir(dir.path()).kill_on_drop(true);
    command.args(["serve", "-address=127.0.0.1", &format!("-port={port}"), "-ca=ca"]);
    command.args(["-ca-key=ca-key", "-tls-cert=tls", "-tls-key=tls-key", "-loglevel=4"]);
    let Ok(_running) = command.spawn() else {
        return eprintln!("skipped: there is no cfssl on this machine");
    };
    let up = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, up).await.expect("cfssl listens");

    let swarm = Swarm::start().await;
    let worker = swarm.join("one").await;
    let service = ExternalCa {
        protocol: "cfssl".into(),
        url: format!("https://127.0.0.1:{port}/api/v1/cfssl/sign"),
        ca_cert: outside.cert.clone(),
        ..Default::default()
    };
    swarm
        .update(|spec| {
            spec.ca_config.external_cas.push(service);
            spec.ca_config.signing_ca_cert.clone_from(&outside.cert);
        })
        .await;
    let view = swarm.until_rotated().await;
    assert_eq!(view.cluster().unwrap().root_ca.certificate, outside.cert);
    assert_eq!(view.cluster().unwrap().root_ca.key, None);
    let late = swarm.join("late").await;
    for node in [worker, late, swarm.manager] {
        node.stop().await;
    }
}
