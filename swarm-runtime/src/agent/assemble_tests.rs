//! What executors are given, from what the manager assigned.

use swarm_core::id::IdSource;
use swarm_core::model::{
    DiscreteResource, GenericResource, NamedResource, ServiceAnnotations, TaskSpec,
};

use super::*;

fn named(kind: &str, value: &str) -> GenericResource {
    let named = NamedResource { kind: kind.into(), value: value.into(), ..Default::default() };
    GenericResource { named: Some(named), ..Default::default() }
}

fn file(name: &str) -> Option<FileTarget> {
    Some(FileTarget { name: name.into(), mode: 0o444, ..Default::default() })
}

/// A task of the service `web` with this container, and a shelf for it.
fn assemble(
    container: ContainerSpec,
    items: Vec<Item>,
    claims: Vec<GenericResource>,
) -> Result<Assignment, ExecError> {
    let annotations = ServiceAnnotations { name: "web".into(), ..Default::default() };
    let task = Task {
        slot: 2,
        spec: Arc::new(TaskSpec { container: Some(container), ..Default::default() }),
        annotations: Arc::new(annotations),
        generic_resources: claims,
        ..Default::default()
    };
    let mut shelf = Shelf::default();
    items.into_iter().for_each(|item| _ = shelf.put(item));
    let description = NodeDescription { hostname: "host-1".into(), ..Default::default() };
    shelf.assignment(&task, NodeId::NIL, &description)
}

#[test]
fn claimed_resources_are_in_every_executors_environment() {
    let discrete = DiscreteResource { kind: "ssd".into(), value: 3, ..Default::default() };
    let claims = vec![
        named("gpu", "UUID-2"),
        GenericResource { discrete: Some(discrete), ..Default::default() },
        named("gpu", "UUID-1"),
    ];
    let spec = ContainerSpec { env: vec!["A={{.Task.Slot}}".into()], ..Default::default() };
    let assignment = assemble(spec, Vec::new(), claims).unwrap();
    assert_eq!(
        assignment.task.spec.container.as_ref().unwrap().env,
        ["A=2", "DOCKER_RESOURCE_GPU=UUID-2,UUID-1", "DOCKER_RESOURCE_SSD=3"]
    );
}

#[test]
fn secrets_and_configs_are_expanded_for_their_task() {
    let mut ids = IdSource::seeded(7);
    let (password, url, app) = (ids.next(), ids.next(), ids.next());
    let golang = Some(Driver { name: "golang".into(), ..Default::default() });
    let secret =
        |id, name: &str| SecretReference { file: file(name), secret_id: id, ..Default::default() };
    let container = ContainerSpec {
        env: vec!["USER={{.Service.Name}}".into()],
        secrets: vec![secret(password, "password"), secret(url, "url")],
        configs: vec![ConfigReference {
            file: file("/app.conf"),
            config_id: app,
            ..Default::default()
        }],
        ..Default::default()
    };
    let items = |config: &str| {
        vec![
            Item::Secret { id: password, bytes: b"{{raw}}".to_vec().into(), templating: None },
            Item::Secret {
                id: url,
                bytes: br#"db://{{env "USER"}}:{{secret "password"}}@x"#.to_vec().into(),
                templating: golang.clone(),
            },
            Item::Config {
                id: app,
                bytes: Blob(config.as_bytes().into()),
                templating: golang.clone(),
            },
        ]
    };
    let text = "url={{secret \"url\"}} on {{.Node.Hostname}} slot {{.Task.Slot}}";
    let assignment = assemble(container.clone(), items(text), Vec::new()).unwrap();
    let secrets: Vec<_> = assignment.secrets.iter().map(|(_, bytes)| bytes.expose()).collect();
    assert_eq!(secrets, [&b"{{raw}}"[..], b"db://web:{{raw}}@x"]);
    assert_eq!(
        std::str::from_utf8(assignment.configs[0].1.expose()).unwrap(),
        "url=db://{{env \"USER\"}}:{{secret \"password\"}}@x on host-1 slot 2",
        "what a template inserts is not expanded again"
    );

    let error = assemble(container, items("{{config \"/nope\"}}"), Vec::new()).unwrap_err();
    assert_eq!(
        error.message,
        format!(
            "failed to expand templated config {app}: template: expansion:1: \
             config target /nope not found"
        )
    );
}

#[test]
fn the_clusters_log_driver_serves_where_the_specification_names_none() {
    let driver = |name: &str| Some(Driver { name: name.into(), ..Default::default() });
    let log_driver = |own, default: Option<Driver>| {
        let spec = TaskSpec {
            container: Some(ContainerSpec::default()),
            log_driver: own,
            ..Default::default()
        };
        let task =
            Task { spec: Arc::new(spec), log_driver: default.map(Arc::new), ..Default::default() };
        let assignment =
            Shelf::default().assignment(&task, NodeId::NIL, &NodeDescription::default()).unwrap();
        assignment.task.spec.log_driver.clone()
    };
    assert_eq!(log_driver(None, driver("syslog")), driver("syslog"));
    assert_eq!(log_driver(driver("local"), driver("syslog")), driver("local"));
    assert_eq!(log_driver(None, None), None);
}
