//! Stacks from text to plan.

use swarm_core::id::IdSource;
use swarm_core::model::{PublishMode, ServiceMode};

use super::*;

fn load(text: &str) -> Result<Stack, ComposeError> {
    let files = [(PathBuf::from("s.yml"), text.to_owned())];
    let env = Environment::from([("HOME".to_owned(), "/root".to_owned())]);
    Stack::parse(&files, "/srv", env, "demo")
}

fn plan(text: &str) -> Result<DeployPlan, String> {
    load(text).and_then(|stack| stack.plan()).map_err(|error| error.to_string())
}

const WEB: &str = "
services:
  web:
    image: nginx
    ports: ['8080:80', {target: 81, mode: host}]
    networks: {front: {aliases: [www]}, out: }
    secrets: [key]
    volumes: ['data:/d', '~/x:/x:ro']
    deploy: {replicas: 3, labels: {tier: front}}
  job:
    image: docker.io/library/busybox:1
    command: sh -c 'echo hi'
    deploy: {mode: global}
networks:
  front: {driver_opts: {encrypted: ''}, ipam: {config: [{subnet: 10.1.0.0/16}]}}
  out: {external: true}
  unused: {}
volumes: {data: }
secrets: {key: {external: true, name: real-key}}
";

#[test]
fn a_plan_holds_what_the_docker_cli_creates() {
    let plan = plan(WEB).unwrap();
    let networks: Vec<_> = plan.networks.iter().map(|network| network.name.as_str()).collect();
    assert_eq!(networks, ["demo_default", "demo_front"]);
    assert_eq!(plan.external_networks, ["out"]);
    assert_eq!(plan.networks[1].driver.name, "overlay");
    assert_eq!(plan.networks[1].ipam.as_ref().unwrap().configs[0].subnet, "10.1.0.0/16");
    assert!(plan.secrets.is_empty());

    let [job, web] = plan.services.as_slice() else { panic!("{:?}", plan.services) };
    assert!(matches!(job.mode, ServiceMode::Global(_)));
    let container = job.task.container.as_ref().unwrap();
    assert_eq!((container.image.as_str(), container.args[2].as_str()), ("busybox:1", "echo hi"));
    assert_eq!(job.task.networks[0].target, "demo_default");

    assert_eq!(web.mode.replicas(), Some(3));
    assert_eq!(web.labels[crate::LABEL_NAMESPACE], "demo");
    assert_eq!(web.labels[crate::LABEL_IMAGE], "nginx");
    let ports = &web.endpoint.as_ref().unwrap().ports;
    assert_eq!((ports[0].target_port, ports[0].publish_mode), (81, PublishMode::Host));
    assert_eq!((ports[1].target_port, ports[1].published_port), (80, 8080));
    assert_eq!(web.task.networks[0].aliases, ["www", "web"]);
    let container = web.task.container.as_ref().unwrap();
    assert_eq!(container.image, "nginx:latest");
    assert_eq!(container.mounts[0].source, "demo_data");
    assert_eq!(
        (container.mounts[1].source.as_str(), container.mounts[1].read_only),
        ("/root/x", true)
    );
    assert_eq!(container.secrets[0].secret_name, "real-key");
}

#[test]
fn references_are_bound_to_ids() {
    let text = "
services: {a: {image: i, credential_spec: {config: c}, configs: [c]}}
configs: {c: {external: true, name: demo_c}}";
    let mut plan = plan(text).unwrap();
    assert_eq!(plan.bind(|_| None, |_| None), Err(vec!["config not found: demo_c".to_owned()]));
    let id: ConfigId = IdSource::seeded(7).next();
    plan.bind(|_| None, |name| (name == "demo_c").then_some(id)).unwrap();
    let container = plan.services[0].task.container.as_ref().unwrap();
    assert!(container.configs.iter().all(|config| config.config_id == id));
    let privileges = container.extra.get("Privileges").unwrap();
    assert_eq!(privileges["CredentialSpec"]["Config"], id.to_string());
}

#[test]
fn errors_name_file_line_and_key() {
    for (text, expected) in [
        (
            "services:\n  a:\n    image: i\n    mem_limit: 1g",
            "s.yml:4: services.a.mem_limit: Configuration contains forbidden properties: \
             Compose file contains unsupported options:\n\n\
             mem_limit: Set resource limits using deploy.resources\n",
        ),
        (
            "services:\n  a:\n    build: .",
            "s.yml:2: services.a.image: invalid image reference for service a: no image specified",
        ),
        (
            "services:\n  a:\n    image: i\n    networks: [n]",
            "s.yml:2: services.a: service a: undefined network \"n\"",
        ),
        (
            "services:\n  a:\n    image: i\n    command: \"'\"",
            "s.yml:2: services.a: decoding failed due to the following error(s):\n\n\
             error decoding 'Command': EOF found when expecting closing quote",
        ),
        (
            "services:\n  a:\n    image: i\n    env_file:\n      - nope.env",
            "s.yml:4: open /srv/nope.env: no such file or directory",
        ),
        ("secrets:\n  s:\n    file: nope", "s.yml:2: open /srv/nope: no such file or directory"),
        (
            "services:\n  a:\n    image: i\n    deploy: {endpoint_mode: foo}",
            "s.yml:2: services.a: service a: invalid resolution mode: \"foo\"",
        ),
    ] {
        assert_eq!(plan(text).unwrap_err(), expected);
    }
}

#[test]
fn what_swarm_ignores_is_warned_of() {
    let text = "
services:
  a: {image: i, restart: always, build: ., expose: [1], ports: ['127.0.0.1:1:1']}
  b: {image: i, privileged: true}
networks: {n: {external: {name: x}}}";
    let stack = load(text).unwrap();
    let warnings: Vec<_> = stack.warnings().iter().map(Warning::to_string).collect();
    assert_eq!(
        warnings,
        [
            "ignoring IP-address (127.0.0.1:1:1/tcp) service will listen on '0.0.0.0'",
            "network n: network.external.name is deprecated in favor of network.name",
            "Ignoring unsupported options: build, privileged, restart",
            "Ignoring deprecated options:\n\nexpose: Exposing ports is unnecessary - services on \
             the same network can access each other's containers on any port.",
        ]
    );
}

#[test]
fn files_of_different_versions_do_not_merge() {
    let files = [("a.yml", "version: '3.8'"), ("b.yml", "version: '3.7'")]
        .map(|(name, text)| (PathBuf::from(name), text.to_owned()));
    let error = Stack::parse(&files, "/", Environment::new(), "demo").unwrap_err().to_string();
    assert_eq!(
        error,
        "b.yml:1: version: version mismatched between two composefiles : 3.8 and 3.7"
    );
}

#[test]
fn a_stack_needs_files_and_a_name() {
    let none: [(PathBuf, String); 0] = [];
    let load = |name| Stack::parse(&none, "/", Environment::new(), name).unwrap_err();
    assert!(matches!(load("demo"), ComposeError::NoFiles));
    assert!(matches!(load(" '"), ComposeError::Name { .. }));
}
