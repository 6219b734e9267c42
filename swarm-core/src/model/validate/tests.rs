use super::*;

fn spec(json: &str) -> ServiceSpec {
    serde_json::from_str(json).expect("test JSON")
}

fn text(json: &str) -> String {
    service(&spec(json)).expect_err("must be refused").message
}

#[test]
fn services_are_refused_in_swarms_words() {
    let task = r#""TaskTemplate":{"ContainerSpec":{"Image":"a"}}"#;
    let cases = [
        ("{}", "mismatched Runtime and *Spec fields"),
        (&format!("{{{task}}}"), "meta: name must be provided"),
        (&format!(r#"{{"Name":"-a",{task}}}"#), "name must be valid as a DNS name component"),
        (r#"{"Name":"a"}"#, "mismatched Runtime and *Spec fields"),
        (
            r#"{"Name":"a","TaskTemplate":{"ContainerSpec":{}}}"#,
            "ContainerSpec: image reference must be provided",
        ),
        (
            r#"{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"BAD//image"}}}"#,
            "ContainerSpec: \"BAD//image\" is not a valid repository/tag",
        ),
        (
            r#"{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"a"},"Placement":{"Constraints":["node.role"]}}}"#,
            "constraint expected one operator from ==, !=",
        ),
        (
            &format!(
                r#"{{"Name":"a",{task},"EndpointSpec":{{"Mode":"dnsrr","Ports":[{{"TargetPort":80}}]}}}}"#
            ),
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        ),
    ];
    for (json, expected) in cases {
        assert_eq!(text(json), expected, "{json}");
    }
    assert_eq!(service(&spec(&format!(r#"{{"Name":"a_b",{task}}}"#))), Ok(()));
}

#[test]
fn image_references_follow_the_distribution_grammar() {
    let digest = format!("busybox:latest@sha256:{}", "a".repeat(64));
    for good in ["a", "a/b/c:v1.2", "localhost/x", "host:5000/x", "a__b", "a---b", &digest] {
        assert!(is_image_reference(good), "{good}");
    }
    for bad in ["", "A", "a/", "/a", "a:", "a@sha256:12", "a..b", "a___b", "ho st/x", "a:é"] {
        assert!(!is_image_reference(bad), "{bad}");
    }
}

#[test]
fn secret_names_and_sizes_are_bounded() {
    let of = |name: &str, size: usize| SecretSpec {
        name: name.into(),
        data: Some(vec![0; size].into()),
        ..Default::default()
    };
    assert_eq!(secret(&of("a.b-c_d", MAX_SECRET_SIZE - 1)), Ok(()));
    assert!(secret(&of("a", 0)).is_err() && secret(&of("a", MAX_SECRET_SIZE)).is_err());
    assert!(secret(&of("-a", 1)).is_err() && secret(&of(&"a".repeat(65), 1)).is_err());
}

#[test]
fn templates_are_tried_before_they_reach_a_node() {
    let of = |container: &str| {
        format!(
            r#"{{"Name":"a","Labels":{{"x":"y"}},"TaskTemplate":{{"ContainerSpec":{container}}}}}"#
        )
    };
    let good = of(r#"{"Image":"a","Env":["A={{.Service.Labels.x}}{{.Task.Slot}}"],
        "Hostname":"{{.Node.Hostname}}"}"#);
    assert_eq!(service(&spec(&good)), Ok(()));
    assert_eq!(
        text(&of(r#"{"Image":"a","Env":["A={{.Nope}}"]}"#)),
        "expanding env failed: expanding env \"A={{.Nope}}\": template: expansion:1: \
         can't evaluate field Nope: there is no .Nope"
    );
    assert_eq!(
        text(&of(
            r#"{"Image":"a","Mounts":[{"Target":"/{{.Task.Slot}}"},{"Target":"/{{.Task.Slot}}"}]}"#
        )),
        "ContainerSpec: duplicate mount point: /1",
        "mounts are compared as they will be"
    );
}

#[test]
fn every_member_of_a_task_is_checked_in_swarms_words() {
    let container = r#""ContainerSpec":{"Image":"a"}"#;
    let of = |members: &str| {
        text(&format!(r#"{{"Name":"a","TaskTemplate":{{{container},{members}}}}}"#))
    };
    let cases = [
        (
            r#""Resources":{"Limits":{"NanoCPUs":999999}}"#,
            "invalid cpu value 0.000999999: Must be at least 0.001",
        ),
        (
            r#""Resources":{"Limits":{"NanoCPUs":1}}"#,
            "invalid cpu value 1e-09: Must be at least 0.001",
        ),
        (
            r#""Resources":{"Reservations":{"NanoCPUs":-2000000000}}"#,
            "invalid cpu value -2: Must be at least 0.001",
        ),
        (
            r#""Resources":{"Reservations":{"MemoryBytes":4194303}}"#,
            "invalid memory value 4194303: Must be at least 4MiB",
        ),
        (r#""Resources":{"SwapBytes":1}"#, "memory swap provided, but no memory-limit was set"),
        (
            r#""Resources":{"Reservations":{"GenericResources":[{"NamedResourceSpec":{"Kind":"gpu","Value":"a"}}]}}"#,
            "invalid argument for resource gpu",
        ),
        (r#""RestartPolicy":{"Delay":-1}"#, "TaskSpec: restart-delay cannot be negative"),
        (r#""RestartPolicy":{"Window":-1}"#, "TaskSpec: restart-window cannot be negative"),
        (r#""Placement":{"Constraints":["a b==c"]}"#, "key 'a b' is invalid"),
    ];
    for (members, expected) in cases {
        assert_eq!(of(members), expected, "{members}");
    }
}

/// What is said of a service whose container has these members.
fn of_container(members: &str) -> String {
    let container = format!(r#"{{"Image":"a",{members}}}"#);
    text(&format!(r#"{{"Name":"a","TaskTemplate":{{"ContainerSpec":{container}}}}}"#))
}

#[test]
fn references_to_secrets_and_configs_are_whole() {
    let of = of_container;
    let nil = "0000000000000000000000000";
    let id = "1111111111111111111111111";
    let secret = |id: &str, name: &str, more: &str| {
        of(&format!(r#""Secrets":[{{"SecretID":"{id}","SecretName":"{name}"{more}}}]"#))
    };
    assert_eq!(secret(nil, "s", r#","File":{"Name":"f"}"#), "malformed secret reference");
    assert_eq!(secret(id, "", r#","File":{"Name":"f"}"#), "malformed secret reference");
    assert_eq!(secret(id, "s", ""), "malformed secret reference, no target provided");
    assert_eq!(
        secret(id, "s", r#","File":{}"#),
        "malformed file secret reference, invalid target file name provided"
    );
    let one = |kind: &str, name: &str| {
        format!(r#"{{"{kind}ID":"{id}","{kind}Name":"{name}","File":{{"Name":"f"}}}}"#)
    };
    for kind in ["Secret", "Config"] {
        let both = format!(r#""{kind}s":[{},{}]"#, one(kind, "a"), one(kind, "b"));
        let kind = kind.to_lowercase();
        assert_eq!(
            of(&both),
            format!("{kind} references 'a' and 'b' have a conflicting target: 'f'")
        );
    }
    let config =
        |more: &str| of(&format!(r#""Configs":[{{"ConfigID":"{id}","ConfigName":"c"{more}}}]"#));
    assert_eq!(config(""), "invalid Config: either File or Runtime should be set");
    assert_eq!(
        config(r#","File":{"Name":"f"},"Runtime":{}"#),
        "invalid Config: cannot specify both File and Runtime"
    );
}

#[test]
fn mounts_health_checks_and_credentials_are_checked() {
    let of = of_container;
    let cases = [
        (r#""Mounts":[{"Type":"image","Target":"/a"}]"#, "invalid MountType: \"image\""),
        (
            r#""Mounts":[{"Type":"bind","BindOptions":{"Propagation":"x"}}]"#,
            "invalid MountPropagation: \"x\"",
        ),
        (
            r#""Mounts":[{"Target":"/a"},{"Target":"/a"}]"#,
            "ContainerSpec: duplicate mount point: /a",
        ),
        (
            r#""Healthcheck":{"Interval":999999}"#,
            "ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
        ),
        (
            r#""Healthcheck":{"Timeout":-1}"#,
            "ContainerSpec: Timeout in HealthConfig cannot be less than 1ms",
        ),
        (
            r#""Healthcheck":{"StartPeriod":1}"#,
            "ContainerSpec: StartPeriod in HealthConfig cannot be less than 1ms",
        ),
        (
            r#""Healthcheck":{"StartInterval":1}"#,
            "ContainerSpec: StartInterval in HealthConfig cannot be less than 1ms",
        ),
        (
            r#""Healthcheck":{"Retries":-1}"#,
            "ContainerSpec: Retries in HealthConfig cannot be negative",
        ),
        (
            r#""Privileges":{"CredentialSpec":{}}"#,
            "invalid CredentialSpec: must either provide \"file\", \"registry\", or \"config\" for credential spec",
        ),
        (
            r#""Privileges":{"CredentialSpec":{"Config":"c","File":"f"}}"#,
            "invalid CredentialSpec: cannot specify both \"config\" and \"file\" credential specs",
        ),
        (
            r#""Privileges":{"CredentialSpec":{"Config":"c","File":"f","Registry":"r"}}"#,
            "invalid CredentialSpec: cannot specify both \"config\", \"file\", and \"registry\" credential specs",
        ),
        (
            r#""Privileges":{"CredentialSpec":{"Config":"c"}}"#,
            "CredentialSpec references config 'c', but that config isn't in config references with RuntimeTarget",
        ),
    ];
    for (members, expected) in cases {
        assert_eq!(of(members), expected, "{members}");
    }
}

#[test]
fn modes_updates_and_endpoints_are_checked_in_swarms_words() {
    let of = |members: &str| {
        let task = r#""TaskTemplate":{"ContainerSpec":{"Image":"a"}}"#;
        text(&format!(r#"{{"Name":"a",{task},{members}}}"#))
    };
    let ports = r#"{"TargetPort":1,"PublishedPort":80},{"TargetPort":2,"PublishedPort":80}"#;
    let twice = format!(r#""EndpointSpec":{{"Ports":[{ports}]}}"#);
    let cases = [
        (
            r#""Mode":{"Replicated":{"Replicas":9223372036854775808}}"#,
            "Number of replicas must be non-negative",
        ),
        (r#""UpdateConfig":{"Delay":-1}"#, "TaskSpec: update-delay cannot be negative"),
        (r#""UpdateConfig":{"Monitor":-1}"#, "TaskSpec: update-monitor cannot be negative"),
        (
            r#""UpdateConfig":{"MaxFailureRatio":1.5}"#,
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        ),
        (&twice, "EndpointSpec: duplicate published ports provided"),
    ];
    for (members, expected) in cases {
        assert_eq!(of(members), expected, "{members}");
    }
    assert_eq!(
        text(&format!(r#"{{"Name":"{}"}}"#, "a".repeat(64))),
        "mismatched Runtime and *Spec fields"
    );
    let long = format!(
        r#"{{"Name":"{}","TaskTemplate":{{"ContainerSpec":{{"Image":"a"}}}}}}"#,
        "a".repeat(64)
    );
    assert_eq!(text(&long), "name must be 63 characters or fewer");
}

#[test]
fn ranges_of_networks_hold_together() {
    let of = |ipam: &str| {
        let json = format!(r#"{{"Name":"n","IPAMOptions":{{"Configs":[{ipam}]}}}}"#);
        network(&serde_json::from_str(&json).expect("test JSON")).map_err(|error| error.message)
    };
    let refused = |ipam: &str, text: &str| {
        assert_eq!(of(ipam), Err(format!("ipam configuration: {text}")), "{ipam}");
    };
    refused("{}", "invalid subnet ");
    refused(r#"{"Subnet":"10.0.0.0/33"}"#, "invalid subnet 10.0.0.0/33");
    refused(r#"{"Subnet":"10.0.0.0/24","IPRange":"x"}"#, "invalid range x");
    refused(
        r#"{"Subnet":"10.0.0.0/24","IPRange":"10.0.1.0/25"}"#,
        "subnet 10.0.0.0/24 does not contain range 10.0.1.0/25",
    );
    refused(r#"{"Subnet":"10.0.0.0/24","Gateway":"x"}"#, "invalid gateway x");
    refused(
        r#"{"Subnet":"10.0.0.0/24","Gateway":"10.0.1.1"}"#,
        "subnet 10.0.0.0/24 does not contain gateway 10.0.1.1",
    );
    refused(
        r#"{"Subnet":"fd00::/64","Gateway":"10.0.1.1"}"#,
        "subnet fd00::/64 does not contain gateway 10.0.1.1",
    );
    let good = r#"{"Subnet":"10.0.0.0/24","IPRange":"10.0.0.128/25","Gateway":"10.0.0.1"}"#;
    assert_eq!(of(good), Ok(()));
    assert_eq!(of(r#"{"Subnet":"fd00::/64","Gateway":"fd00::1"}"#), Ok(()));
    assert_eq!(of(r#"{"Subnet":"0.0.0.0/0","Gateway":"9.9.9.9"}"#), Ok(()));
}
