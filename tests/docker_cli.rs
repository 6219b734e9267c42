//! The unmodified docker CLI against the API: what it prints and how it exits.
//!
//! Needs `docker` on the path (28.2.2 is what the transcripts were taken with); without it every
//! test here says so and passes.

mod support;

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use support::FakeNode;
use swarm::http::{ListenSpec, bind, serve};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// How long one command may take: far beyond what it needs, for loaded machines.
const PATIENCE: Duration = Duration::from_secs(90);

/// A node behind a socket, and the CLI pointed at it.
struct Cli {
    node: Arc<FakeNode>,
    dir: tempfile::TempDir,
    cancel: CancellationToken,
}

/// What a command did.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Cli {
    /// `None`, with a loud word, where there is no CLI.
    async fn with(node: Arc<FakeNode>) -> Option<Self> {
        if Command::new("docker").arg("--version").output().await.is_err() {
            eprintln!("skipped: no docker CLI on this machine");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let spec = ListenSpec::Unix(dir.path().join("docker.sock"));
        let listeners = bind(&[spec], None, false).await.expect("a free socket");
        let cancel = CancellationToken::new();
        tokio::spawn(serve(listeners, node.clone(), cancel.clone()));
        Some(Self { node, dir, cancel })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("DOCKER_CONFIG", self.dir.path())
            .env("DOCKER_HOST", format!("unix://{}/docker.sock", self.dir.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn fed(&self, words: &[&str], input: &str) -> Ran {
        let mut child = self.command(words).spawn().expect("docker starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).await.expect("docker reads");
        drop(stdin);
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("docker {words:?} did not end"))
            .expect("docker ends");
        Ran {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that must succeed and returns what it printed.
    async fn ok(&self, words: &str) -> String {
        let words: Vec<_> = words.split(' ').collect();
        let ran = self.fed(&words, "").await;
        assert_eq!(ran.code, Some(0), "docker {words:?}: {ran:?}");
        ran.out
    }

    /// Runs a command that must fail and returns what it complained.
    async fn fails(&self, words: &str) -> String {
        let words: Vec<_> = words.split(' ').collect();
        let ran = self.fed(&words, "").await;
        assert_ne!(ran.code, Some(0), "docker {words:?}: {ran:?}");
        ran.err
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[tokio::test]
async fn a_swarm_is_begun_shown_and_left() {
    let Some(cli) = Cli::with(FakeNode::outside()).await else { return };
    let version = cli.ok("version").await;
    assert_has(&version, &["Server:", "API version:      1.50 (minimum version 1.24)"]);
    assert_has(&cli.ok("info").await, &["Swarm: inactive"]);
    assert_has(&cli.fails("node ls").await, &["This node is not a swarm manager. Use"]);
    assert_has(&cli.fails("swarm leave").await, &["This node is not part of a swarm"]);

    let init = cli.ok("swarm init --advertise-addr 10.0.0.9").await;
    assert_has(
        &init,
        &[
            "Swarm initialized: current node (",
            ") is now a manager.",
            "docker swarm join --token SWMTKN-1-",
            " 10.0.0.9:2377",
        ],
    );
    assert_has(&cli.fails("swarm init").await, &["This node is already part of a swarm."]);
    let info = cli.ok("info").await;
    assert_has(
        &info,
        &[
            "Swarm: active",
            "Is Manager: true",
            "Managers: 1",
            "Nodes: 3",
            "Task History Retention Limit: 5",
        ],
    );
    let token = cli.ok("swarm join-token -q worker").await;
    assert!(token.starts_with("SWMTKN-1-"), "{token}");
    let rotated = cli.ok("swarm join-token --rotate -q worker").await;
    assert_ne!(token, rotated);
    assert_eq!(token[..60], rotated[..60], "the pinned authority stays");
    assert_has(&cli.ok("swarm update --task-history-limit 3").await, &["Swarm updated."]);
    assert_has(&cli.ok("info").await, &["Task History Retention Limit: 3"]);
    assert_has(
        &cli.fails("swarm update --cert-expiry 10m").await,
        &["minimum certificate expiry time is: 1h0m0s"],
    );
    assert_has(&cli.ok("swarm ca").await, &["root"]);
    locks_are_set_and_changed(&cli).await;
    assert_has(
        &cli.fails("swarm leave").await,
        &["Removing the last manager erases all current state of the swarm."],
    );
    assert_has(&cli.ok("swarm leave --force").await, &["Node left the swarm."]);
    assert_has(&cli.ok("info").await, &["Swarm: inactive"]);
}

/// The unlock key from the first command that gives one to the last that takes it away.
async fn locks_are_set_and_changed(cli: &Cli) {
    assert_has(&cli.fed(&["swarm", "unlock-key"], "").await.err, &["no unlock key is set"]);
    let update = cli.ok("swarm update --autolock=true").await;
    assert_has(
        &update,
        &[
            "Swarm updated.",
            "To unlock a swarm manager after it restarts, run the `docker swarm unlock`",
            "    SWMKEY-1-",
        ],
    );
    let key = cli.ok("swarm unlock-key -q").await;
    assert!(key.starts_with("SWMKEY-1-") && key.trim().len() == 9 + 43, "{key}");
    assert_has(&update, &[key.trim()]);
    assert_has(&cli.ok("swarm update --task-history-limit 4").await, &["Swarm updated."]);
    assert_eq!(cli.ok("swarm unlock-key -q").await, key, "other settings leave it alone");
    let rotated = cli.ok("swarm unlock-key --rotate -q").await;
    assert!(rotated.starts_with("SWMKEY-1-") && rotated != key, "{rotated}");
    assert_has(
        &cli.ok("swarm unlock-key").await,
        &["To unlock a swarm manager after it restarts", rotated.trim()],
    );
    assert_has(&cli.fails("swarm unlock").await, &["swarm is not locked"]);
    cli.ok("swarm update --autolock=false").await;
    assert_has(&cli.fed(&["swarm", "unlock-key"], "").await.err, &["no unlock key is set"]);
    cli.ok("swarm update --autolock=true").await;
    assert_ne!(cli.ok("swarm unlock-key -q").await, rotated, "an old key does not come back");
    cli.ok("swarm update --autolock=false").await;
}

#[tokio::test]
async fn nodes_are_listed_changed_and_removed() {
    let Some(cli) = Cli::with(FakeNode::alive(3).await).await else { return };
    let nodes = cli.ok("node ls").await;
    assert_has(
        &nodes,
        &["MANAGER STATUS", "manager-1", "worker-2", "Ready", "Active", "Leader", " * "],
    );
    assert_has(
        &cli.ok("node inspect --pretty self").await,
        &["Hostname:", "manager-1", "Raft Status: Reachable".split(':').next().unwrap()],
    );
    assert_eq!(cli.ok("node update --availability drain worker-1").await.trim(), "worker-1");
    assert_has(&cli.ok("node ls").await, &["Drain"]);
    assert_eq!(cli.ok("node update --label-add zone=a worker-1").await.trim(), "worker-1");
    assert_eq!(cli.ok("node ls -q --filter node.label=zone=a").await.lines().count(), 1);
    assert_has(&cli.fails("node rm worker-2").await, &["is not down and can't be removed"]);
    assert_has(
        &cli.fails("node rm manager-1").await,
        &["It must be demoted to worker before removal"],
    );
    assert_has(
        &cli.fails("node demote manager-1").await,
        &["attempting to demote the last manager of the swarm"],
    );
    assert_eq!(cli.ok("node rm --force worker-2").await.trim(), "worker-2");
    assert_eq!(cli.ok("node ls -q").await.lines().count(), 2);
    assert_has(&cli.fails("node inspect worker-2").await, &["node worker-2 not found"]);
}

#[tokio::test]
async fn a_service_lives_with_the_progress_display() {
    let Some(cli) = Cli::with(FakeNode::alive(3).await).await else { return };
    let created = cli
        .ok("service create --name web --replicas 3 --publish 8080:80 --update-monitor 50ms --rollback-monitor 50ms --label tier=front nginx:1")
        .await;
    assert_has(&created, &["verify: Service ", " converged"]);
    assert_has(
        &cli.ok("service ls").await,
        &["web", "replicated", "3/3", "nginx:1", "*:8080->80/tcp"],
    );
    assert_has(&cli.ok("service ps web").await, &["web.1", "web.3", "nginx:1", "Running"]);
    let pretty = cli.ok("service inspect --pretty web").await;
    assert_has(
        &pretty,
        &["Name:\t\tweb", "Replicas:\t3", "Image:\t\tnginx:1", "PublishedPort = 8080"],
    );
    assert_has(
        &cli.fails("service create -d --name web nginx").await,
        &["name conflicts with an existing object: service web already exists"],
    );
    assert_has(
        &cli.fails("service create -d --name other --publish 8080:80 nginx").await,
        &["port '8080' is already in use by service 'web' (", ") as an ingress port"],
    );

    assert_has(&cli.ok("service scale web=5").await, &["web scaled to 5", "converged"]);
    assert_has(&cli.ok("service logs web").await, &["web.1.", "| out"]);
    assert_has(&cli.ok("service ls --filter label=tier=front").await, &["5/5"]);
    assert_eq!(cli.ok("service rm web").await.trim(), "web");
    assert_has(&cli.fails("service inspect web").await, &["no such service: web"]);
    assert_has(&cli.fails("service ps web").await, &["no such service: web"]);
    cli.node
        .until("the service is erased", |view| view.services.is_empty() && view.tasks.is_empty())
        .await;
}

#[tokio::test]
async fn a_service_rolls_forward_and_back() {
    let Some(cli) = Cli::with(FakeNode::alive(2).await).await else { return };
    cli.ok("service create --name web --replicas 2 --update-monitor 50ms --rollback-monitor 50ms --update-parallelism 0 --restart-delay 10ms nginx:1").await;
    assert_has(&cli.fails("service rollback web").await, &["does not have a previous spec"]);
    assert_has(&cli.ok("service update --image nginx:2 web").await, &["converged"]);
    assert_has(&cli.ok("service ps --filter desired-state=running web").await, &["nginx:2"]);
    assert_has(&cli.ok("service update --force web").await, &["converged"]);
    assert_has(&cli.ok("service update --image nginx:3 web").await, &["converged"]);
    cli.ok("service rollback web").await;
    assert_has(&cli.ok("service ls").await, &["nginx:2"]);
}

#[tokio::test]
async fn jobs_run_until_they_are_complete_and_again() {
    let Some(cli) = Cli::with(FakeNode::alive(3).await).await else { return };
    let created = cli
        .ok("service create --name dump --mode replicated-job --replicas 4 --max-concurrent 2 busybox true")
        .await;
    assert_has(&created, &["job complete"]);
    assert_has(
        &cli.ok("service ls").await,
        &["dump", "replicated job", "0/2 (4/4 completed)", "busybox:latest"],
    );
    let tasks = cli.ok("service ps dump").await;
    assert_has(&tasks, &["dump.1", "dump.2", "dump.3", "Complete"]);
    assert_eq!(tasks.lines().count(), 1 + 4);
    let pretty = cli.ok("service inspect --pretty dump").await;
    assert_has(&pretty, &["Name:\t\tdump", "Image:\t\tbusybox:latest", "UpdateConfig:"]);
    assert_has(&cli.ok("service update --force dump").await, &["job complete"]);
    let iteration = "service inspect --format {{.JobStatus.JobIteration.Index}} dump";
    assert_eq!(cli.ok(iteration).await.trim(), "1");
    let tasks = cli.ok("service ps dump").await;
    assert_eq!(tasks.lines().count(), 1 + 4 + 4, "the run before is history:\n{tasks}");
    assert_has(&cli.ok("service scale dump=5").await, &["dump scaled to 5", "job complete"]);
    assert_has(&cli.ok("service ls").await, &["0/2 (5/5 completed)"]);
    assert_has(&cli.ok("service rollback dump").await, &["job complete"]);
    assert_has(&cli.ok("service ls").await, &["0/2 (4/4 completed)"]);
    assert_eq!(cli.ok(iteration).await.trim(), "3");

    let created = cli.ok("service create --name check --mode global-job busybox true").await;
    assert_has(&created, &["job complete"]);
    assert_has(
        &cli.ok("service ls --filter mode=global-job").await,
        &["check", "global job", "0/0 (3/3 completed)"],
    );
    assert_has(
        &cli.fails("service scale check=2").await,
        &["scale can only be used with replicated or replicated-job mode"],
    );
    cli.ok("service rm dump check").await;
    cli.node
        .until("the jobs are erased", |view| view.services.is_empty() && view.tasks.is_empty())
        .await;
}

#[tokio::test]
async fn secrets_configs_and_networks_live() {
    let Some(cli) = Cli::with(FakeNode::alive(1).await).await else { return };
    let made = cli.fed(&["secret", "create", "-l", "a=b", "s1", "-"], "hush").await;
    assert_eq!(made.out.trim().len(), 25, "{made:?}");
    assert_eq!(cli.fed(&["config", "create", "c1", "-"], "data").await.out.trim().len(), 25);
    assert_has(&cli.ok("secret ls").await, &["s1"]);
    assert_has(&cli.ok("config inspect --pretty c1").await, &["Name:\t\t\tc1", "data"]);
    let secret = cli.ok("secret inspect s1").await;
    assert!(!secret.contains("aHVzaA") && secret.contains("\"a\": \"b\""), "{secret}");

    assert_eq!(cli.ok("network create -d overlay --attachable net1").await.trim().len(), 25);
    assert_has(
        &cli.fails("network create -d overlay net1").await,
        &["network with name net1 already exists"],
    );
    assert_has(&cli.ok("network ls").await, &["net1", "ingress", "overlay", "swarm"]);
    cli.node
        .until("the network has its range", |view| view.networks.iter().all(|n| n.ipam.is_some()))
        .await;
    assert_has(
        &cli.ok("network inspect net1").await,
        &["\"Subnet\": \"10.0.", "\"Attachable\": true"],
    );

    cli.ok("service create --name web --secret s1 --config c1 --network net1 --update-monitor 50ms nginx").await;
    assert_has(
        &cli.fails("secret rm s1").await,
        &["secret 's1' is in use by the following service: web"],
    );
    assert_has(
        &cli.fails("config rm c1").await,
        &["config 'c1' is in use by the following service: web"],
    );
    assert_has(&cli.fails("network rm net1").await, &["is in use by service"]);
    cli.ok("service rm web").await;
    assert_eq!(cli.ok("secret rm s1").await.trim(), "s1");
    assert_eq!(cli.ok("config rm c1").await.trim(), "c1");
    assert_eq!(cli.ok("network rm net1").await.trim(), "net1");
    cli.node.until("the network is erased", |view| view.networks.len() == 1).await;
    assert_has(&cli.fails("inspect nothing").await, &["No such object: nothing"]);
}

const STACK: &str = "
services:
  web:
    image: nginx:1
    ports: ['8088:80']
    networks: [front]
    secrets: [pw]
    configs: [conf]
    deploy: {replicas: 2, update_config: {monitor: 50ms}, restart_policy: {delay: 10ms}}
  db:
    image: postgres:16
    networks: [front]
    deploy: {update_config: {monitor: 50ms}}
networks: {front: {}}
secrets: {pw: {file: ./pw}}
configs: {conf: {file: ./pw}}
";

#[tokio::test]
async fn a_stack_is_deployed_again_and_removed() {
    let Some(cli) = Cli::with(FakeNode::alive(2).await).await else { return };
    let file = cli.dir.path().join("stack.yml");
    std::fs::write(&file, STACK).expect("a file");
    std::fs::write(cli.dir.path().join("pw"), "hush").expect("a file");
    let deploy = format!("stack deploy --detach=false -c {} shop", file.display());
    let first = cli.ok(&deploy).await;
    assert_has(
        &first,
        &[
            "Creating network shop_front",
            "Creating secret shop_pw",
            "Creating config shop_conf",
            "Creating service shop_web",
            "converged",
        ],
    );
    assert_has(&cli.ok("stack ls").await, &["shop", "2"]);
    assert_has(&cli.ok("stack services shop").await, &["shop_web", "2/2", "shop_db", "1/1"]);
    assert_has(&cli.ok("stack ps shop").await, &["shop_web.1", "shop_db.1", "Running"]);
    let before: Vec<_> = cli.node.view().tasks.iter().map(|task| task.id).collect();
    assert_has(&cli.ok(&deploy).await, &["Updating service shop_web", "converged"]);
    let after: Vec<_> = cli.node.view().tasks.iter().map(|task| task.id).collect();
    assert_eq!(before, after, "an unchanged stack restarts nothing");
    let removed = cli.ok("stack rm --detach=false shop").await;
    assert_has(
        &removed,
        &["Removing service shop_web", "Removing secret shop_pw", "Removing network shop_front"],
    );
    cli.node
        .until("nothing is left", |view| {
            view.tasks.is_empty() && view.services.is_empty() && view.networks.len() == 1
        })
        .await;
    assert_has(&cli.fed(&["stack", "ps", "shop"], "").await.err, &["nothing found in stack: shop"]);
}

#[tokio::test]
async fn events_are_told_as_they_come_and_afterwards() {
    let Some(cli) = Cli::with(FakeNode::alive(1).await).await else { return };
    cli.ok("network create -d overlay net1").await;
    cli.ok("service create -d --name web nginx").await;
    cli.ok("service scale -d web=2").await;
    cli.ok("service rm web").await;
    let events = cli.ok("events --since 10m --until=-2s --filter type=service").await;
    assert_has(
        &events,
        &[
            "service create",
            "service update",
            "replicas.new=2",
            "replicas.old=1",
            "service remove",
            "name=web",
        ],
    );
    assert!(!events.contains("network"), "{events}");
    assert_has(&cli.ok("system df").await, &["Containers", "0B"]);
    assert_has(&cli.ok("volume ls").await, &["VOLUME NAME"]);
}

#[tokio::test]
async fn logs_follow_until_the_reader_leaves() {
    use tokio::io::AsyncBufReadExt as _;
    let Some(cli) = Cli::with(FakeNode::alive(1).await).await else { return };
    cli.ok("service create --name web --replicas 2 --update-monitor 50ms nginx").await;
    let mut child = cli.command(&["service", "logs", "-f", "--timestamps", "web"]).spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let reading = async {
        for _ in 0..2 {
            let line = lines.next_line().await.expect("readable").expect("it goes on");
            assert_has(&line, &["2023-11-14T22:13:20.000000000Z", "web.", "@manager-1", "| out"]);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("lines come as they are written");
    assert!(child.try_wait().unwrap().is_none(), "it goes on");
    child.kill().await.expect("it ends");
}

#[tokio::test]
async fn tools_read_what_they_expect() {
    let Some(cli) = Cli::with(FakeNode::alive(2).await).await else { return };
    cli.ok("service create --name web --replicas 2 --update-monitor 50ms --publish 80 --env A=1 --mount type=bind,src=/usr,dst=/u --limit-memory 64m --constraint node.role==worker nginx:1").await;
    cli.ok("service create -d --name everywhere --mode global nginx:1").await;
    let inspected = async |field: &str| {
        let format = format!("{{{{json .{field}}}}}");
        cli.fed(&["service", "inspect", "--format", &format, "web"], "").await.out
    };
    assert_has(&inspected("Spec.Mode").await, &["{\"Replicated\":{\"Replicas\":2}}"]);
    assert_has(&inspected("Endpoint.Ports").await, &["\"TargetPort\":80,\"PublishedPort\":30000"]);
    assert_has(&inspected("Spec.TaskTemplate.Placement").await, &["node.role==worker"]);
    assert_has(
        &cli.ok("service ps --format {{.Name}}@{{.Node}} web").await,
        &["web.1@worker-1", "web.2@worker-1"],
    );
    assert_has(&cli.ok("node ps worker-1").await, &["web.1", "web.2", "Running"]);
    let task = cli.ok("service ps -q web").await;
    assert_has(
        &cli.ok(&format!("inspect {}", task.lines().next().unwrap())).await,
        &["\"Slot\"", "\"ContainerStatus\""],
    );
    assert_has(
        &cli.ok("service update -d --env-add B=2 --publish-add 9090:90 --label-add x=y web").await,
        &["web"],
    );
    assert_has(
        &cli.ok("service inspect --pretty web").await,
        &["B=2", "PublishedPort = 9090", "x=y"],
    );
    assert_has(
        &cli.fails("service scale everywhere=2").await,
        &["scale can only be used with replicated"],
    );
    assert_has(&cli.fails("node promote worker-1").await, &["does not change the roles of nodes"]);
    assert_has(
        &cli.fails("network create lonely").await,
        &["this manager creates overlay networks only"],
    );
    assert_has(&cli.fed(&["ps"], "").await.out, &["CONTAINER ID"]);
}
