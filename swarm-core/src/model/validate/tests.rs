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
        ("{}", "meta: name must be provided"),
        (r#"{"Name":"-a"}"#, "name must be valid as a DNS name component"),
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
