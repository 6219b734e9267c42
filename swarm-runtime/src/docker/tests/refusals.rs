//! What cannot be is refused in words that say why.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use swarm_core::executor::{ExecErrorKind, Executor as _, LogOptions};
use swarm_core::id::IdSource;
use swarm_core::model::{Driver, Mount, MountType, SecretBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Node, shell};
use crate::docker::{DockerConfig, DockerExecutor};

#[tokio::test(flavor = "multi_thread")]
async fn missing_images_and_sources_reject_a_task() {
    let Some(node) = Node::open().await else { return };
    let mut absent = shell("true");
    absent.image = "127.0.0.1:1/no/such:1".into();
    let mut unbound = shell("true");
    unbound.mounts = vec![Mount {
        kind: MountType::Bind,
        source: "/no/such/path".into(),
        target: "/x".into(),
        ..Default::default()
    }];
    for (spec, text) in [
        (absent, "No such image: 127.0.0.1:1/no/such:1"),
        (
            unbound,
            "invalid mount config for type \"bind\": bind source path does not exist: /no/such/path",
        ),
    ] {
        let task = node.task(spec, Vec::new());
        let error = node.executor.prepare(&task).await.expect_err("refused");
        assert_eq!(error.kind, ExecErrorKind::Rejected, "{error}");
        assert!(error.message.starts_with(text), "{error}");
        node.executor.remove(task.task.id).await.expect("nothing to remove");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_command_fails_the_start() {
    let Some(node) = Node::open().await else { return };
    let mut spec = shell("true");
    spec.command = vec!["no-such-command".into()];
    let task = node.task(spec, Vec::new());
    let error = node.start(&task).await.expect_err("it cannot start");
    assert_eq!(error.kind, ExecErrorKind::Failed);
    assert!(error.message.starts_with("starting container failed: "), "{error}");
    assert!(error.message.contains("no-such-command"), "{error}");
    node.executor.remove(task.task.id).await.expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_driver_that_cannot_be_read_says_so() {
    let Some(node) = Node::open().await else { return };
    let mut task = node.task(shell("true"), Vec::new());
    let inner = Arc::make_mut(&mut task.task);
    Arc::make_mut(&mut inner.spec).log_driver =
        Some(Driver { name: "none".into(), ..Default::default() });
    node.start(&task).await.expect("started");
    let options = LogOptions { stdout: true, stderr: true, ..Default::default() };
    let mut logs = node.executor.logs(task.task.id, options).await.expect("a stream");
    let error = logs.try_next().await.expect_err("nothing was kept");
    assert_eq!(error.kind, ExecErrorKind::Unsupported, "{error}");
    assert!(error.message.contains("does not support reading"), "{error}");
    node.executor.remove(task.task.id).await.expect("removed");
}

#[tokio::test]
async fn an_engine_that_is_away_is_temporary_and_an_odd_address_is_not() {
    let mut ids = IdSource::random();
    let dir = tempfile::tempdir().expect("a directory");
    for (host, kind) in [
        (format!("unix://{}/none.sock", dir.path().display()), ExecErrorKind::Temporary),
        ("tcp://127.0.0.1:1".to_owned(), ExecErrorKind::Temporary),
        ("ftp://engine".to_owned(), ExecErrorKind::Rejected),
    ] {
        let config = DockerConfig::new(host.clone(), ids.next(), ids.next(), dir.path());
        let error = DockerExecutor::connect(config).await.expect_err("nobody is there");
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(&host), "the error names the engine: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_pass_through_as_the_engine_answers_them() {
    let Some(node) = Node::open().await else { return };
    let info = node.executor.raw_info().await.expect("information");
    assert!(info["Plugins"]["Network"].is_array() && info["ID"].is_string(), "{info}");
    let absent = node.executor.get("/containers/no-such/json", None).await.expect("an answer");
    assert_eq!(absent.status, 404);
    let body: serde_json::Value = serde_json::from_slice(&absent.body).expect("JSON");
    assert_eq!(body["message"], "No such container: no-such");
    let refused = node.executor.distribution("127.0.0.1:1/no/such", None).await.expect("an answer");
    assert!(refused.status >= 400, "{refused:?}");
}

/// A registry that asks for a password, and the first authorisation that it is given.
async fn authorisation(listener: TcpListener) -> String {
    loop {
        let (mut stream, _) = listener.accept().await.expect("the engine");
        let (mut request, mut part) = (String::new(), [0; 4096]);
        while !request.contains("\r\n\r\n") {
            let length = stream.read(&mut part).await.expect("a request");
            if length == 0 {
                break;
            }
            request.push_str(&String::from_utf8_lossy(&part[..length]));
        }
        let header = request.lines().find_map(|line| line.strip_prefix("Authorization: "));
        if let Some(header) = header {
            return header.to_owned();
        }
        let answer = "HTTP/1.1 401 Unauthorized\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\
                      WWW-Authenticate: Basic realm=\"test\"\r\nContent-Length: 0\r\n\
                      Connection: close\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_reach_the_registry_and_a_present_image_serves_without_it() {
    let Some(mut node) = Node::open().await else { return };
    node.executor.config.prefer_offline_image = false;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let registry = listener.local_addr().expect("an address");
    let asked = tokio::spawn(authorisation(listener));
    let mut spec = shell("true");
    spec.image = format!("{registry}/app");
    let mut task = node.task(spec, Vec::new());
    // {"username":"??>","password":"~~~"}: in the other alphabet it would hold `/` or `+`.
    let auth = b"eyJ1c2VybmFtZSI6Ij8_PiIsInBhc3N3b3JkIjoifn5-In0=".to_vec();
    Arc::make_mut(&mut task.task).registry_auth = Some(SecretBytes::from(auth));
    let error = node.executor.prepare(&task).await.expect_err("the registry is gone by then");
    assert_eq!(error.kind, ExecErrorKind::Rejected, "{error}");
    assert_eq!(asked.await.expect("asked"), "Basic Pz8+On5+fg==");

    // The image is here: that its registry is not does no harm.
    let present = node.task(shell("echo here"), Vec::new());
    assert_eq!(node.run(&present).await.1, "here\n");
}
