//! What a specification says is what the container gets.

use std::time::Duration;

use swarm_core::executor::{Executor as _, LogOptions};
use swarm_core::model::{
    Blob, ConfigReference, DnsConfig, Driver, FileTarget, Healthcheck, Labels, Limits, Mount,
    MountType, PortConfig, PublishMode, ResourceRequirements, SecretBytes, SecretReference,
    TmpfsOptions, Ulimit, VolumeOptions,
};
use swarm_core::time::Nanos;
use tokio::io::AsyncReadExt as _;

use super::{Node, shell};
use crate::docker::{DockerConfig, DockerExecutor, OWNER_LABEL};

#[tokio::test(flavor = "multi_thread")]
async fn the_process_sees_its_specification() {
    let Some(node) = Node::open().await else { return };
    let mut spec = shell(
        "echo $A; id -u; id -G; pwd; hostname; ulimit -n; cat /proc/sys/net/core/somaxconn; \
         grep -w box /etc/hosts; grep -c example.org /etc/resolv.conf; \
         touch /x 2>/dev/null || echo read-only; df -h /scratch | tail -1 | tr -s ' '; \
         stat -c %a /scratch; cat /proc/1/comm; cat /proc/self/oom_score_adj; \
         grep CapBnd /proc/self/status; test -t 0 || echo no-tty",
    );
    spec.env = vec!["A=b".into()];
    spec.user = "1000:1001".into();
    spec.groups = vec!["2000".into()];
    spec.dir = "/tmp".into();
    spec.hostname = "boxy".into();
    spec.read_only = true;
    spec.init = Some(true);
    spec.sysctls = Labels::from([("net.core.somaxconn".into(), "77".into())]);
    spec.hosts = vec!["10.1.2.3 box".into()];
    spec.dns_config = Some(DnsConfig { search: vec!["example.org".into()], ..Default::default() });
    spec.ulimits = vec![Ulimit { name: "nofile".into(), soft: 99, hard: 99, ..Default::default() }];
    spec.capability_drop = vec!["ALL".into()];
    spec.capability_add = vec!["CAP_CHOWN".into()];
    spec.oom_score_adj = 123;
    spec.mounts = vec![Mount {
        kind: MountType::Tmpfs,
        target: "/scratch".into(),
        tmpfs: Some(TmpfsOptions { size_bytes: 1 << 20, mode: 0o700, ..Default::default() }),
        ..Default::default()
    }];
    let (exit, output) = node.run(&node.task(spec, Vec::new())).await;
    assert!(exit.is_success(), "{exit:?}: {output}");
    let lines: Vec<_> = output.lines().collect();
    let expected = [
        "b",
        "1000",
        "1001 2000",
        "/tmp",
        "boxy",
        "99",
        "77",
        "10.1.2.3\tbox",
        "1",
        "read-only",
        "tmpfs 1.0M 0 1.0M 0% /scratch",
        "700",
        "docker-init",
        "123",
        "CapBnd:\t0000000000000001",
        "no-tty",
    ];
    // The init process has had different names.
    let alike = |(have, want): (&&str, &&str)| have == want || have.contains("init");
    assert!(lines.len() == expected.len() && lines.iter().zip(&expected).all(alike), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_outlive_tasks_and_carry_labels() {
    let Some(node) = Node::open().await else { return };
    let volume = format!("test-{}", node.executor.config.node);
    let run = async |script: &str, read_only: bool| {
        let mut spec = shell(script);
        spec.mounts = vec![Mount {
            kind: MountType::Volume,
            source: volume.clone(),
            target: "/data".into(),
            read_only,
            volume: Some(VolumeOptions {
                labels: Labels::from([("kept".into(), "yes".into())]),
                driver_config: Some(Driver { name: "local".into(), ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }];
        node.run(&node.task(spec, Vec::new())).await
    };
    assert!(run("echo kept >/data/file", false).await.0.is_success());
    let (exit, output) = run("cat /data/file; touch /data/other", true).await;
    assert_eq!((exit.is_success(), output.contains("kept\n")), (false, true), "{output}");
    let made = node.executor.docker.inspect_volume(&volume).await.expect("it outlives the tasks");
    assert_eq!((made.driver.as_str(), made.labels["kept"].as_str()), ("local", "yes"));
    node.executor
        .docker
        .remove_volume(&volume, None::<bollard::query_parameters::RemoveVolumeOptions>)
        .await
        .expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_configs_are_files_in_memory() {
    let Some(node) = Node::open().await else { return };
    let mut task = node.task(
        shell(
            "stat -c '%n %a %u %g' /run/secrets/key /etc/app.conf; cat /run/secrets/key /etc/app.conf; \
             grep -q ' /run/secrets/key tmpfs ' /proc/mounts && echo memory; \
             echo x 2>/dev/null >/etc/app.conf || echo read-only",
        ),
        Vec::new(),
    );
    let file = |name: &str, mode, uid: &str, gid: &str| {
        let (uid, gid) = (uid.to_owned(), gid.to_owned());
        Some(FileTarget { name: name.to_owned(), mode, uid, gid, ..Default::default() })
    };
    let secret = SecretReference { file: file("key", 0o440, "1000", "1001"), ..Default::default() };
    let config =
        ConfigReference { file: file("/etc/app.conf", 0o644, "", ""), ..Default::default() };
    task.secrets = vec![(secret, SecretBytes::from(b"hunter2\n".to_vec()))];
    task.configs = vec![(config, SecretBytes::from(b"a = 1\n".to_vec()))];
    let (exit, output) = node.run(&task).await;
    assert!(exit.is_success(), "{exit:?}: {output}");
    assert_eq!(
        output,
        "/run/secrets/key 440 1000 1001\n/etc/app.conf 644 0 0\nhunter2\na = 1\nmemory\nread-only\n"
    );
    let left = std::fs::read_dir(&node.secrets).expect("the tmpfs").count();
    assert_eq!(left, 0, "nothing is left of a removed task's files");
}

fn port(target: u16, published: u16, mode: PublishMode) -> PortConfig {
    PortConfig {
        target_port: target,
        published_port: published,
        publish_mode: mode,
        ..Default::default()
    }
}

async fn read(address: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_answer_where_the_executor_says() {
    let Some(mut node) = Node::open().await else { return };
    node.executor.config.advertise = Some([127, 0, 0, 3].into());
    let free = std::net::TcpListener::bind("127.0.0.3:0").and_then(|at| at.local_addr());
    let fixed = free.expect("a free port").port();
    let ports = vec![
        port(80, fixed, PublishMode::Host),
        port(80, 0, PublishMode::Host),
        port(80, 8080, PublishMode::Ingress),
        port(81, 8081, PublishMode::Ingress),
    ];
    let mut spec = shell("nc -ll -p 81 -e echo other & exec nc -ll -p 80 -e echo hello");
    spec.healthcheck = Some(Healthcheck {
        test: vec!["CMD-SHELL".into(), "netstat -ltn | grep :80 && netstat -ltn | grep :81".into()],
        interval: Nanos(200_000_000),
        retries: 100,
        ..Default::default()
    });
    let task = node.task(spec, ports);
    let started = node.start(&task).await.expect("started");
    assert_eq!(started.ports.len(), 2, "{started:?}");
    assert_eq!(started.ports[0].published_port, fixed);
    assert_ne!(started.ports[1].published_port, 0, "an ephemeral port has its number");
    assert_eq!(started.endpoints.len(), 2, "{started:?}");
    for address in [
        format!("127.0.0.3:{fixed}"),
        format!("127.0.0.3:{}", started.ports[1].published_port),
        started.endpoints[0].address.clone(),
    ] {
        assert!(address.starts_with("127.0.0.3:"), "{address}");
        assert_eq!(read(&address).await, "hello\n", "{address}");
    }
    assert_eq!(read(&started.endpoints[1].address).await, "other\n");
    let again = node.executor.start(task.task.id).await.expect("it runs");
    assert_eq!(again.endpoints, started.endpoints, "an adopted task keeps its endpoints");
    node.executor.remove(task.task.id).await.expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_a_kill_for_memory_is_told() {
    let Some(node) = Node::open().await else { return };
    let limited = |script: &str| {
        let mut task = node.task(shell(script), Vec::new());
        let inner = std::sync::Arc::make_mut(&mut task.task);
        std::sync::Arc::make_mut(&mut inner.spec).resources = Some(ResourceRequirements {
            limits: Some(Limits {
                memory_bytes: 8 << 20,
                nano_cpus: 500_000_000,
                pids: 10,
                ..Default::default()
            }),
            ..Default::default()
        });
        task
    };
    let (exit, _) = node.run(&limited("x=a; while :; do x=$x$x; done")).await;
    assert_eq!(exit.code, 137);
    assert!(exit.error.as_deref().is_some_and(|text| text.contains("memory")), "{exit:?}");
    let task = limited("true");
    node.executor.prepare(&task).await.expect("prepared");
    let id = node.executor.container_of(task.task.id).await.expect("there");
    let host = node.executor.inspect(&id).await.expect("inspected").host_config.expect("host");
    assert_eq!(
        (host.memory, host.nano_cpus, host.pids_limit),
        (Some(8 << 20), Some(500_000_000), Some(10))
    );
    node.executor.remove(task.task.id).await.expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_named_and_labelled_as_swarm_does() {
    let Some(node) = Node::open().await else { return };
    let mut spec = shell("true");
    spec.labels = Labels::from([
        ("mine".into(), "yes".into()),
        // Nobody can pretend to be another node's.
        (OWNER_LABEL.into(), "someone".into()),
    ]);
    let task = node.task(spec, Vec::new());
    node.executor.prepare(&task).await.expect("prepared");
    let id = node.executor.container_of(task.task.id).await.expect("there");
    let container = node.executor.inspect(&id).await.expect("inspected");
    assert_eq!(container.name, Some(format!("/web.3.{}", task.task.id)));
    let labels = container.config.and_then(|config| config.labels).expect("labels");
    for (label, value) in [
        ("mine", "yes"),
        ("com.docker.swarm.service.name", "web"),
        ("com.docker.swarm.task.id", task.task.id.as_str()),
        ("com.docker.swarm.node.id", task.node.as_str()),
        ("com.docker.swarm.task.name", &task.task.name()),
    ] {
        assert_eq!(labels[label], value);
    }

    // Another node on the same engine sees and touches nothing of it.
    let config = DockerConfig {
        node: swarm_core::id::IdSource::random().next(),
        ..node.executor.config.clone()
    };
    let other = DockerExecutor::connect(config).await.expect("connected");
    assert_eq!(other.inventory().await.expect("an inventory"), []);
    other.stop(task.task.id, Duration::ZERO).await.expect("nothing to stop");
    other.remove_container(task.task.id).await.expect("nothing to remove");
    assert_eq!(node.executor.inventory().await.expect("an inventory").len(), 1);
    node.executor.remove(task.task.id).await.expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_logs_too() {
    let Some(node) = Node::open().await else { return };
    let mut spec = shell("test -t 1 && echo terminal; echo two");
    spec.tty = true;
    let task = node.task(spec, Vec::new());
    let (exit, output) = node.run(&task).await;
    assert!(exit.is_success());
    assert_eq!(output.lines().map(str::trim_end).collect::<Vec<_>>(), ["terminal", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_followed_from_a_tail_of_one_source() {
    let Some(node) = Node::open().await else { return };
    let spec = shell("echo 1; echo a >&2; echo 2; echo b >&2; sleep 1; echo 3");
    let task = node.task(spec, Vec::new());
    node.start(&task).await.expect("started");
    let options = LogOptions { stdout: true, follow: true, tail: Some(5), ..Default::default() };
    let logs = node.executor.logs(task.task.id, options).await.expect("logs");
    let entries: Vec<_> = futures_util::TryStreamExt::try_collect(logs).await.expect("lines");
    let entries: Vec<swarm_core::executor::LogEntry> = entries;
    let text: String =
        entries.iter().map(|entry| String::from_utf8_lossy(&entry.data).into_owned()).collect();
    assert_eq!(text, "1\n2\n3\n", "each line once");
    node.executor.remove(task.task.id).await.expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_a_health_check_that_ends_first_tells_its_code() {
    let Some(node) = Node::open().await else { return };
    let mut spec = shell("exit 3");
    spec.healthcheck = Some(Healthcheck {
        test: vec!["CMD-SHELL".into(), "true".into()],
        interval: Nanos::from_secs(60),
        ..Default::default()
    });
    let task = node.task(spec, Vec::new());
    let error = node.start(&task).await.expect_err("it ends before it is healthy");
    assert_eq!(error.exit_code, Some(3), "{error}");
    assert!(error.message.contains("non-zero exit (3)"), "{error}");
    node.executor.remove(task.task.id).await.expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seccomp_profile_of_ones_own_holds() {
    let Some(node) = Node::open().await else { return };
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let privileges = serde_json::json!({
        "Seccomp": {"Mode": "custom", "Profile": Blob(profile.as_bytes().into())},
    });
    let mut spec = shell("mkdir /tmp/x 2>/dev/null && echo made; touch /tmp/y && echo touched");
    spec.extra.insert("Privileges".to_owned(), privileges);
    let (_, output) = node.run(&node.task(spec, Vec::new())).await;
    assert_eq!(output, "touched\n");
}
