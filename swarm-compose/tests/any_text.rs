//! No text makes the reader panic or hang: neither noise nor a stack file with some of it damaged.

use std::path::PathBuf;

use proptest::prelude::*;
use swarm_compose::{Environment, Stack};

const GOOD: &str = r#"version: "3.8"
x-a: &a {logging: {driver: json-file, options: {max-size: 10m}}}
services:
  web:
    <<: *a
    image: "nginx:${TAG:-1}"
    command: sh -c 'echo "$$HOME" \' done'
    environment: [A=1, B, "C=${C?c}"]
    ports: ["8080-8081:80-81/udp", "127.0.0.1::5", {target: 9, published: 9}]
    volumes: ["data:/d:ro", "./x:/x", {type: tmpfs, target: /t, tmpfs: {size: 10}}]
    healthcheck: {test: curl -f x, interval: 1m30s, timeout: 1.5s, retries: 3}
    deploy:
      replicas: 0x2
      resources: {limits: {cpus: "0.5", memory: 50M}, reservations: {cpus: 1e-3}}
      restart_policy: {condition: on-failure, delay: 5s}
    ulimits: {nofile: {soft: 1, hard: 2020-01-02}}
    networks: {n: {aliases: [x]}}
networks: {n: {ipam: {config: [{subnet: 10.0.0.0/8}]}}}
volumes: {data: {driver_opts: {a: 1_000}}}
"#;

/// Reads a text as far as it goes.
fn read(text: String) {
    let env = Environment::from([("C".to_owned(), "c".to_owned())]);
    let files = [(PathBuf::from("s.yml"), text)];
    if let Ok(stack) = Stack::parse(&files, "/nowhere", env, "demo") {
        let _ = stack.to_yaml();
        let _ = stack.plan();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_is_refused(text in "\\PC{0,200}") {
        read(text);
    }

    #[test]
    fn damage_is_survived(
        damage in proptest::collection::vec((0..GOOD.len(), 0..8_usize, "[ -~\n]{0,6}"), 1..6)
    ) {
        let mut text = GOOD.to_owned();
        for (at, length, new) in damage {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.replace_range(at..end, &new);
        }
        read(text);
    }
}

#[test]
fn the_good_file_is_good() {
    let env = Environment::from([("C".to_owned(), "c".to_owned())]);
    let text = GOOD.replace("2020-01-02", "2").replace("cpus: 1e-3", "cpus: '1e-3'");
    let text = text.replace(r"\' done'", "done'");
    let stack = Stack::parse(&[("s.yml".into(), text)], "/nowhere", env, "demo").unwrap();
    assert_eq!(stack.plan().unwrap().services.len(), 1);
}
