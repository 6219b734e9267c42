//! What specifications mean for processes.

use std::sync::Arc;

use swarm_core::model::{Endpoint, NodeId, Task, TaskSpec};
use swarm_core::time::Nanos;

use super::*;

fn planned(spec: ContainerSpec) -> Result<(Plan, Vec<PathBuf>), String> {
    let endpoint = Endpoint {
        ports: vec![PortConfig { target_port: 80, ..Default::default() }],
        ..Default::default()
    };
    let task = Task {
        spec: Arc::new(TaskSpec { container: Some(spec), ..Default::default() }),
        endpoint: Some(Arc::new(endpoint)),
        ..Default::default()
    };
    let assignment = Assignment {
        task: Arc::new(task),
        node: NodeId::NIL,
        secrets: Vec::new(),
        configs: Vec::new(),
        attachments: Vec::new(),
    };
    let places = Places {
        secrets: Path::new("/s"),
        configs: Path::new("/c"),
        volumes: Path::new("/v"),
        own_volumes: Path::new("/own"),
    };
    plan(&assignment, &places).map_err(|error| error.message)
}

fn command() -> ContainerSpec {
    ContainerSpec {
        image: "nginx".into(),
        command: vec!["run".into()],
        args: vec!["-x".into()],
        ..Default::default()
    }
}

fn mount(kind: MountType, source: &str, target: &str) -> ContainerSpec {
    let mount = Mount { kind, source: source.into(), target: target.into(), ..Default::default() };
    ContainerSpec { mounts: vec![mount], ..command() }
}

#[test]
fn command_and_arguments_make_the_command() {
    assert_eq!(planned(command()).unwrap().0.command, ["run", "-x"]);
    let arguments = ContainerSpec { command: Vec::new(), ..command() };
    assert_eq!(planned(arguments).unwrap().0.command, ["-x"], "the CLI puts a command there");
    let image = ContainerSpec { image: "nginx".into(), ..Default::default() };
    assert_eq!(
        planned(image).unwrap_err(),
        "image nginx has no meaning for the process executor: give the service a command"
    );
}

#[test]
fn the_environment_is_clean_and_told_of_ports() {
    let env = ["A=1", "B=x=y", "PATH"].map(String::from).to_vec();
    let (mut plan, _) = planned(ContainerSpec { env, ..command() }).unwrap();
    plan.ports[0].published_port = 4711;
    plan.announce_ports();
    assert_eq!(plan.env["A"], "1");
    assert_eq!(plan.env["B"], "x=y");
    assert!(!plan.env.contains_key("PATH"), "a bare name removes");
    assert_eq!((&*plan.env["PORT"], &*plan.env["PORT_80"]), ("4711", "4711"));
    assert_eq!(plan.env["SWARM_SECRETS_DIR"], "/s");
    plan.ports.push(PortConfig { target_port: 81, published_port: 5, ..Default::default() });
    plan.env.remove("PORT");
    plan.announce_ports();
    assert!(!plan.env.contains_key("PORT"), "which of two?");
    assert_eq!(plan.env["PORT_81"], "5");
}

#[test]
fn volumes_are_directories_and_other_mounts_are_refused() {
    let (plan, volumes) = planned(mount(MountType::Volume, "data", "/var/lib/x")).unwrap();
    assert_eq!(volumes, [Path::new("/v/data")]);
    assert_eq!(plan.env["SWARM_VOLUME_VAR_LIB_X"], "/v/data");
    let (_, volumes) = planned(mount(MountType::Volume, "", "/var/x")).unwrap();
    assert_eq!(volumes, [Path::new("/own/var/x")]);
    assert_eq!(planned(mount(MountType::Bind, "/srv", "/srv")).unwrap().1, [] as [PathBuf; 0]);
    for (kind, source, target) in [
        (MountType::Bind, "/srv", "/data"),
        (MountType::Tmpfs, "", "/tmp/x"),
        (MountType::Volume, "../etc", "/x"),
        (MountType::Volume, "..", "/x"),
        (MountType::Volume, "", "/../x"),
    ] {
        let error = planned(mount(kind, source, target)).unwrap_err();
        assert!(error.contains("mount") || error.contains("leads out"), "{error}");
    }
}

#[test]
fn signals_have_names_and_numbers() {
    for (name, number) in [("", 15), ("SIGQUIT", 3), ("int", 2), ("9", 9)] {
        let spec = ContainerSpec { stop_signal: name.into(), ..command() };
        assert_eq!(planned(spec).unwrap().0.stop_signal, number, "{name}");
    }
    let spec = ContainerSpec { stop_signal: "SIGNOPE".into(), ..command() };
    assert_eq!(planned(spec).unwrap_err(), "invalid stop signal \"SIGNOPE\"");
}

#[test]
fn health_checks_take_dockers_defaults() {
    let with = |test: &[&str]| ContainerSpec {
        healthcheck: Some(Healthcheck {
            test: test.iter().map(|&word| word.to_owned()).collect(),
            interval: Nanos::from_secs(7),
            ..Default::default()
        }),
        ..command()
    };
    let check = planned(with(&["CMD-SHELL", "true"])).unwrap().0.check.unwrap();
    assert_eq!(check.command, ["/bin/sh", "-c", "true"]);
    let seconds = [check.interval, check.timeout, check.start_interval].map(|d| d.as_secs());
    assert_eq!((seconds, check.retries), ([7, 30, 5], 3));
    assert_eq!(planned(with(&["NONE"])).unwrap().0.check, None);
    assert_eq!(planned(with(&[])).unwrap().0.check, None);
    assert!(planned(with(&["CMD"])).is_err());
}
