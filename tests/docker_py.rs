//! docker-py, unmodified, against the API: it writes JSON and queries otherwise than the CLI
//! does (lower-case modes, lists as filters, `False`, nulls, parts of settings).
//!
//! Needs `python3` with the `docker` package; without it the test says so and passes.

mod support;

use std::time::Duration;

use support::FakeNode;
use swarm::http::{ListenSpec, bind, serve};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

const SCRIPT: &str = r#"
import sys, time, docker
from docker.types import EndpointSpec, Mount, NetworkAttachmentConfig, Resources, RestartPolicy
from docker.types import SecretReference, ServiceMode, UpdateConfig

client = docker.DockerClient(base_url="unix://" + sys.argv[1], version="auto")
assert client.ping() and client.info()["Swarm"]["ControlAvailable"]
assert client.version()["ApiVersion"] == "1.50"

network = client.networks.create("pynet", driver="overlay", labels={"l": "1"})
assert [n.name for n in client.networks.list(names=["pynet"])] == ["pynet"]
secret = client.secrets.create(name="pysec", data=b"hush", labels={"l": "1"})
config = client.configs.create(name="pycfg", data=b"data")
assert client.configs.get(config.id).attrs["Spec"]["Data"] == "ZGF0YQ=="
assert "Data" not in client.secrets.get(secret.id).attrs["Spec"]

service = client.services.create(
    "nginx:1", command=["sleep", "1d"], name="pysvc", labels={"l": "1"}, env=["A=1"],
    mode=ServiceMode("replicated", 2), networks=[NetworkAttachmentConfig("pynet", aliases=["w"])],
    secrets=[SecretReference(secret.id, "pysec")],
    endpoint_spec=EndpointSpec(ports={18080: 80}), mounts=[Mount("/u", "/usr", type="bind")],
    resources=Resources(mem_limit=64 << 20), restart_policy=RestartPolicy(condition="any"),
    update_config=UpdateConfig(parallelism=1, monitor=50_000_000), constraints=["node.role==manager"])

def running(image):
    tasks = service.tasks(filters={"desired-state": "running"})
    return sum(t["Status"]["State"] == "running" and
               t["Spec"]["ContainerSpec"]["Image"].startswith(image) for t in tasks)

def wait(image, count):
    while running(image) != count:
        time.sleep(0.05)

wait("nginx:1", 2)
assert [s.name for s in client.services.list(filters={"label": ["l=1"]})] == ["pysvc"]
assert client.services.list(status=True)[0].attrs["ServiceStatus"]["DesiredTasks"] == 2
service.reload()
assert service.scale(3)
wait("nginx:1", 3)
service.reload()
service.update(image="nginx:2", force_update=True)
wait("nginx:2", 3)
service.reload()
assert service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=1"], "the rest stays"
assert set(service.logs(stdout=True, stderr=False, details=False)) != set()

node = client.nodes.list(filters={"role": "manager"})[0]
node.update(dict(node.attrs["Spec"], Labels={"zone": "a"}))
node.reload()
assert node.attrs["Spec"]["Labels"] == {"zone": "a"}
client.swarm.reload()
assert client.swarm.update(rotate_worker_token=True, task_history_retention_limit=3)
client.swarm.reload()
assert client.swarm.attrs["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"] == 3
assert client.swarm.get_unlock_key()["UnlockKey"] == ""

for call, error in [
    (lambda: client.services.get("nope"), docker.errors.NotFound),
    (lambda: client.secrets.create(name="pysec", data=b"x"), docker.errors.APIError),
    (lambda: client.api.remove_secret(secret.id), docker.errors.APIError),
]:
    try:
        call()
    except error:
        continue
    raise AssertionError("not refused")
assert service.remove()
assert secret.remove() and config.remove()
network.remove()
events = list(client.events(since=1, until=int(time.time()) + 1, decode=True, filters={"type": "service"}))
assert [e["Action"] for e in events][0] == "create" and events[-1]["Action"] == "remove", events
print("all went well")
"#;

#[tokio::test]
async fn docker_py_works_unmodified() {
    let has = Command::new("python3").args(["-c", "import docker"]).output().await;
    if !has.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no python3 with docker-py on this machine");
        return;
    }
    let node = FakeNode::alive(2).await;
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("docker.sock");
    let listeners = bind(&[ListenSpec::Unix(socket.clone())], None, false).await.expect("a socket");
    let cancel = CancellationToken::new();
    tokio::spawn(serve(listeners, node, cancel.clone()));
    let mut python = Command::new("python3");
    python.arg("-c").arg(SCRIPT).arg(&socket).env("DOCKER_CONFIG", dir.path()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(120), python.output())
        .await
        .expect("it ends")
        .expect("it starts");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    cancel.cancel();
}
