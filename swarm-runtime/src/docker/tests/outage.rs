//! An engine that goes away and comes back, as when it is upgraded under its containers.

use std::path::Path;
use std::time::Duration;

use swarm_core::executor::{ExecErrorKind, Executor as _, Found, LogOptions};
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::{Node, shell};
use crate::docker::{DockerConfig, DockerExecutor};

/// Stands between an executor and its engine until it is dropped.
struct Wire {
    _connections: JoinSet<()>,
}

impl Wire {
    fn new(socket: &Path, engine: &str) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket");
        let engine = engine.strip_prefix("unix://").expect("a local engine").to_owned();
        let mut all = JoinSet::new();
        all.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let engine = engine.clone();
                connections.spawn(async move {
                    let mut server = UnixStream::connect(engine).await.expect("the engine");
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { _connections: all }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_outlive_an_outage_and_calls_say_try_again() {
    let Some(node) = Node::open().await else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("engine.sock");
    let engine = node.executor.config.host.clone();
    let wire = Wire::new(&socket, &engine);
    let config = DockerConfig {
        host: format!("unix://{}", socket.display()),
        ..node.executor.config.clone()
    };
    let executor = DockerExecutor::connect(config).await.expect("connected");
    let task = node.task(shell("trap 'exit 4' TERM; while :; do sleep 0.1; done"), Vec::new());
    let id = task.task.id;
    executor.prepare(&task).await.expect("prepared");
    executor.start(id).await.expect("started");

    let waiting = tokio::spawn({
        let executor = executor.clone();
        async move { executor.wait(id).await }
    });
    tokio::task::yield_now().await;
    drop(wire);
    let error = waiting.await.expect("no panic").expect_err("nobody knows how it ended");
    assert_eq!(error.kind, ExecErrorKind::Temporary, "{error}");
    for error in [
        executor.inventory().await.err(),
        executor.describe().await.err(),
        executor.prepare(&task).await.err(),
        executor.start(id).await.err(),
        executor.stop(id, Duration::ZERO).await.err(),
        executor.remove(id).await.err(),
        executor.logs(id, LogOptions { stdout: true, ..Default::default() }).await.err(),
    ] {
        let kind = error.as_ref().map(|error| error.kind);
        assert_eq!(kind, Some(ExecErrorKind::Temporary), "{error:?}");
    }

    let _wire = Wire::new(&socket, &engine);
    let inventory = executor.inventory().await.expect("the engine is back");
    assert_eq!(inventory.iter().map(|one| &one.found).collect::<Vec<_>>(), [&Found::Running]);
    executor.stop(id, Duration::from_secs(30)).await.expect("stopped");
    assert_eq!(executor.wait(id).await.expect("ended").code, 4);
    executor.remove(id).await.expect("removed");
}
