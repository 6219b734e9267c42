//! Which files the schema accepts, and how it words its refusals.

use std::path::Path;

use super::{check, version_text};
use crate::parse::parse;

/// The refusal of a file, without the name of the file.
fn refusal(text: &str) -> String {
    let file = Path::new("s.yml");
    let root = parse(file, text).unwrap();
    match check(file, &root, &version_text(&root)) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string().replacen("s.yml:", "", 1),
    }
}

fn service(version: &str, entry: &str) -> String {
    refusal(&format!("version: '{version}'\nservices:\n  a:\n    {entry}"))
}

#[test]
fn versions_3_0_to_3_13_are_known() {
    for version in ["", "3", "3.0", "3.13"] {
        assert_eq!(service(version, "image: x"), "accepted", "{version}");
    }
    for version in ["2", "2.4", "3.14", "4", "3.01", "3.+1", "latest", "${V}"] {
        let expected = format!("1: version: unsupported Compose file version: {version}");
        assert_eq!(service(version, "image: x"), expected);
    }
    assert_eq!(refusal("version: 3.8"), "1: version must be a string");
    assert_eq!(refusal("services: {}"), "accepted");
}

#[test]
fn unknown_keys_are_named_with_their_line() {
    for (entry, expected) in [
        ("foo: 1", "4: services.a Additional property foo is not allowed"),
        ("deploy: {foo: 1}", "4: services.a.deploy Additional property foo is not allowed"),
        (
            "deploy:\n      resources:\n        limits: {x: 1}",
            "6: services.a.deploy.resources.limits Additional property x is not allowed",
        ),
        ("ports: [{name: x}]", "4: services.a.ports.0 Additional property name is not allowed"),
        ("depends_on: {b: {}}", "4: services.a.depends_on must be a list"),
    ] {
        assert_eq!(service("3.8", entry), expected);
    }
    assert_eq!(refusal("foo: 1"), "1: (root) Additional property foo is not allowed");
}

#[test]
fn keys_are_unknown_before_the_version_that_brought_them() {
    for (version, entry) in [
        ("3.7", "init: true"),
        ("3.3", "configs: [c]"),
        ("3.12", "healthcheck: {start_interval: 1s}"),
        ("3.8", "deploy: {placement: {max_replicas_per_node: 1}}"),
        ("3.2", "ports: [{target: 80}]"),
        ("3.11", "build: {x: 1}"),
        ("3.7", "x-a: 1"),
    ] {
        assert_eq!(service(version, entry), "accepted", "{entry}");
        let minor: u8 = version[2..].parse().unwrap();
        let before = format!("3.{}", minor - 1);
        assert_ne!(service(&before, entry), "accepted", "{entry} in {before}");
    }
}

#[test]
fn wrong_types_are_told_in_the_docker_clis_words() {
    for (entry, expected) in [
        ("image: 1", "services.a.image must be a string"),
        ("environment: {A: true}", "services.a.environment.A must be a string, number or null"),
        ("environment: x", "services.a.environment must be a mapping"),
        ("command: [1]", "services.a.command.0 must be a string"),
        ("deploy: {replicas: '3'}", "services.a.deploy.replicas must be a integer"),
        ("deploy: {replicas: 1.5}", "services.a.deploy.replicas must be a integer"),
        ("ports: ['80:x']", "services.a.ports.0 Does not match format 'ports'"),
        ("stop_grace_period: 1d", "services.a.stop_grace_period Does not match format 'duration'"),
        ("cap_add: [A, B, A]", "services.a.cap_add array items[0,2] must be unique"),
        ("volumes: [{source: x}]", "services.a.volumes.0 type is required"),
        (
            "volumes: [{type: tmpfs, tmpfs: {size: -1}}]",
            "services.a.volumes.0.tmpfs.size Must be greater than or equal to 0",
        ),
        (
            "deploy: {update_config: {order: x}}",
            "services.a.deploy.update_config.order services.a.deploy.update_config.order must be \
             one of the following: \"start-first\", \"stop-first\"",
        ),
    ] {
        assert_eq!(service("3.8", entry), format!("4: {expected}"));
    }
    assert_eq!(service("3.8", "deploy: {replicas: 2.0}"), "accepted");
}
