//! Each test lays a second file over a first one.

use std::path::PathBuf;

use crate::Stack;
use crate::interpolate::Environment;

/// The merged service `a`, as YAML.
fn merged(base: &str, over: &str) -> String {
    let file = |name: &str, text: &str| {
        (PathBuf::from(name), format!("services:\n  a:\n    image: i\n    {text}\n"))
    };
    let files = [file("base.yml", base), file("over.yml", over)];
    let stack = Stack::parse(&files, "/srv", Environment::new(), "demo").unwrap();
    let yaml = stack.to_yaml().unwrap();
    let (_, service) = yaml.split_once("  a:\n").unwrap();
    service.lines().map(str::trim).filter(|line| *line != "image: i").collect::<Vec<_>>().join(" ")
}

#[test]
fn words_are_replaced_unless_empty() {
    assert_eq!(merged("hostname: x", "hostname: y"), "hostname: y");
    assert_eq!(merged("hostname: x", "hostname: ''"), "hostname: x");
    assert_eq!(merged("tty: true", "tty: false"), "tty: true");
    assert_eq!(merged("init: true", "init: false"), "init: true");
    assert_eq!(merged("user: x", "init: false"), "init: false user: x");
}

#[test]
fn pointers_to_zero_override() {
    let replicas = merged("deploy: {replicas: 3}", "deploy: {replicas: 0}");
    assert_eq!(replicas, "deploy: replicas: 0");
}

#[test]
fn lists_are_appended_and_commands_replaced() {
    assert_eq!(merged("expose: [1, 2]", "expose: [2]"), "expose: - '1' - '2' - '2'");
    assert_eq!(merged("command: a b", "command: c"), "command: - c");
    assert_eq!(merged("command: a b", "command: []"), "command: - a - b");
}

#[test]
fn variables_cannot_be_blanked() {
    assert_eq!(
        merged("environment: {A: 1, B: 1, C: }", "environment: {A: 2, B: '', C: ''}"),
        "environment: A: '2' B: '1' C: ''"
    );
}

#[test]
fn ports_and_volumes_are_matched_by_key() {
    assert_eq!(
        merged("ports: ['2:2', '1:1']", "ports: ['1:9']"),
        "ports: - mode: ingress target: 9 published: 1 protocol: tcp \
         - mode: ingress target: 2 published: 2 protocol: tcp"
    );
    assert_eq!(
        merged("volumes: ['x1:/a', 'x2:/b']", "volumes: ['y1:/a']"),
        "volumes: - type: volume source: y1 target: /a - type: volume source: x2 target: /b"
    );
}

#[test]
fn another_log_driver_drops_the_old_options() {
    let base = "logging: {driver: d, options: {a: 1}}";
    let options = |text: &str| merged(base, &format!("logging: {text}"));
    assert_eq!(options("{options: {b: 2}}"), "logging: driver: d options: a: '1' b: '2'");
    assert_eq!(options("{driver: e, options: {b: 2}}"), "logging: driver: e options: b: '2'");
}

#[test]
fn aliases_of_a_network_are_replaced() {
    assert_eq!(
        merged("networks: {n: {aliases: [x]}, m: }", "networks: {n: {aliases: [y]}, m: }"),
        "networks: m: null n: aliases: - y"
    );
}

#[test]
fn extensions_are_merged_at_every_depth() {
    assert_eq!(
        merged("x-a: {b: {c: 1}, l: [1]}", "x-a: {b: {d: 2}, l: [2]}"),
        "x-a: b: c: 1 d: 2 l: - 1 - 2"
    );
}
