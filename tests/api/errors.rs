//! Refusals: statuses and texts as the engine gives them.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use swarm::core::store::Leadership;
use swarm::http::{LocalState, LocalStatus};

use super::{Api, service};

/// Sends every request and compares status and text.
async fn refused(api: &Api, table: &[(&str, &str, &str, u16, &str)]) {
    for (method, path, body, status, text) in table {
        let answer = api.call(method, path, body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.message().as_str()),
            (*status, *text),
            "{method} {path} {body}"
        );
        assert_eq!(answer.headers["content-type"], "application/json", "exactly, for the CLI");
        assert!(answer.body.ends_with("}\n"));
    }
}

#[tokio::test]
async fn routes_and_versions_that_do_not_exist() {
    let api = Api::still().await;
    refused(&api, &[
        ("GET", "/nosuch", "", 404, "page not found"),
        ("PUT", "/services", "", 404, "page not found"),
        ("GET", "/nodes/", "", 404, "page not found"),
        ("GET", "/v1.99/services", "", 400, "client version 1.99 is too new. Maximum supported API version is 1.50"),
        ("GET", "/v1.23/services", "", 400, "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"),
        ("GET", "/containers/x/json", "", 404, "No such container: x"),
        ("GET", "/images/a/b/json", "", 404, "No such image: a/b:latest"),
        ("GET", "/volumes/v", "", 404, "get v: no such volume"),
        ("POST", "/networks/ingress/connect", r#"{"Container":"x"}"#, 404, "No such container: x"),
    ]).await;
}

#[tokio::test]
async fn services_that_are_refused() {
    let api = Api::still().await;
    let id = api
        .create(
            "services",
            service(
                "full",
                r#","EndpointSpec":{"Ports":[{"TargetPort":80,"PublishedPort":18080}]}"#,
            ),
        )
        .await;
    let clash = format!(
        "rpc error: code = InvalidArgument desc = port '18080' is already in use by service 'full' ({id}) as an ingress port"
    );
    let create = "/services/create";
    let named = |image: &str| {
        format!(r#"{{"Name":"x","TaskTemplate":{{"ContainerSpec":{{"Image":"{image}"}}}}}}"#)
    };
    let template = |members: &str| format!(r#"{{"Name":"x","TaskTemplate":{{{members}}}}}"#);
    refused(&api, &[
        ("POST", create, "", 400, "got EOF while reading request body"),
        ("POST", create, r#"{"Name":"#, 400, "unexpected EOF"),
        ("POST", create, "notjson", 400, "invalid character 'o' in literal null (expecting 'u')"),
        ("POST", create, "{} {}", 400, "unexpected content after JSON"),
        ("POST", create, r#"{"Name":"x"}"#, 400, "mismatched Runtime and *Spec fields"),
        ("POST", create, &named(""), 400, "rpc error: code = InvalidArgument desc = ContainerSpec: image reference must be provided"),
        ("POST", create, &named("BAD//image"), 400, "rpc error: code = InvalidArgument desc = ContainerSpec: \"BAD//image\" is not a valid repository/tag"),
        ("POST", create, &service("-x", ""), 400, "rpc error: code = InvalidArgument desc = name must be valid as a DNS name component"),
        ("POST", create, &service("full", ""), 409, "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service full already exists"),
        ("POST", create, &service("x", r#","EndpointSpec":{"Ports":[{"TargetPort":1,"PublishedPort":18080}]}"#), 400, &clash),
        ("POST", create, &service("x", r#","EndpointSpec":{"Mode":"dnsrr","Ports":[{"TargetPort":1}]}"#), 400, "rpc error: code = InvalidArgument desc = EndpointSpec: port published with ingress mode can't be used with dnsrr mode"),
        ("POST", create, &service("x", r#","TaskTemplate":{"ContainerSpec":{"Image":"a"},"Placement":{"Constraints":["node.role"]}}"#), 500, "rpc error: code = Unknown desc = constraint expected one operator from ==, !="),
        ("POST", create, &service("x", r#","Networks":[{"Target":"nosuch"}]"#), 404, "network nosuch not found"),
        ("POST", create, &service("x", r#","Mode":{"GlobalJob":{}},"UpdateConfig":{}"#), 400, "rpc error: code = InvalidArgument desc = Jobs may not have an update config"),
        ("POST", create, &service("x", r#","Mode":{"ReplicatedJob":{"MaxConcurrent":9223372036854775808}}"#), 400, "rpc error: code = InvalidArgument desc = Maximum concurrent jobs must not be negative"),
        ("POST", create, &service("x", r#","Mode":{"ReplicatedJob":{"TotalCompletions":9223372036854775808}}"#), 400, "rpc error: code = InvalidArgument desc = Total completed jobs must not be negative"),
        ("POST", create, &template(r#""ContainerSpec":{"Image":"a","Env":["A={{.Nope}}"]}"#), 400, "rpc error: code = InvalidArgument desc = expanding env failed: expanding env \"A={{.Nope}}\": template: expansion:1: can't evaluate field Nope: there is no .Nope"),
        ("POST", create, &template(r#""ContainerSpec":{"Image":"a"},"Runtime":"attachment""#), 400, "unsupported runtime"),
        ("POST", create, &template(r#""PluginSpec":{"Name":"p"},"Runtime":"plugin""#), 500, "runtime type \"plugin\" only supported in experimental"),
        ("POST", create, &template(r#""ContainerSpec":{"Image":"a"},"RestartPolicy":{"Condition":"bogus"}"#), 400, "invalid RestartCondition: \"bogus\""),
        ("POST", create, &service("x", r#","UpdateConfig":{"Order":"bogus"}"#), 400, "unrecognized update order bogus"),
        ("POST", create, &service("x", r#","UpdateConfig":{"FailureAction":"bogus"}"#), 400, "unrecognized update failure action bogus"),
        ("POST", create, &service("x", r#","EndpointSpec":{"Mode":"bogus"}"#), 400, "invalid resolution mode: \"bogus\""),
        ("POST", create, &service("x", r#","Networks":[{"Target":"ingress"}]"#), 400, "rpc error: code = InvalidArgument desc = Service cannot be explicitly attached to the ingress network \"ingress\""),
    ]).await;
}

#[tokio::test]
async fn updates_that_are_refused() {
    let api = Api::still().await;
    let id = api.create("services", service("web", "")).await;
    let version = api.get("/services/web").await["Version"]["Index"].clone();
    let at = |more: &str| format!("/services/{id}/update?version={version}{more}");
    let spec = service("web", "");
    let sequence = "rpc error: code = Unknown desc = update out of sequence";
    refused(&api, &[
        ("POST", &format!("/services/{id}/update"), &spec, 400, "invalid service version '': strconv.ParseUint: parsing \"\": invalid syntax"),
        ("POST", &format!("/services/{id}/update?version=x"), &spec, 400, "invalid service version 'x': strconv.ParseUint: parsing \"x\": invalid syntax"),
        ("POST", &format!("/services/{id}/update?version=1"), &spec, 500, sequence),
        ("POST", &format!("/services/{id}/update?version=999"), &spec, 500, sequence),
        ("POST", "/services/nope/update?version=1", &spec, 404, "service nope not found"),
        ("POST", &at(""), &service("other", ""), 501, "rpc error: code = Unimplemented desc = renaming services is not supported"),
        ("POST", &at(""), &service("web", r#","Mode":{"Global":{}}"#), 501, "rpc error: code = Unimplemented desc = service mode change is not allowed"),
        ("POST", &at("&registryAuthFrom=bogus"), &spec, 500, "unsupported registryAuthFrom value"),
        ("POST", &at("&rollback=bogus"), &spec, 500, "unrecognized rollback option bogus"),
        ("POST", &at("&rollback=previous"), &spec, 400, &format!("rpc error: code = FailedPrecondition desc = service {id} does not have a previous spec")),
        ("GET", "/services/web?insertDefaults=bogus", "", 400, "invalid value for insertDefaults: bogus: strconv.ParseBool: parsing \"bogus\": invalid syntax"),
        ("GET", "/services/web/logs", "", 500, "Bad parameters: you must choose at least one stream"),
        ("GET", "/services/web/logs?stdout=1&tail=abc", "", 500, "tail value must be a positive integer or \"all\""),
        ("DELETE", "/services/nope", "", 404, "service nope not found"),
    ]).await;
    // The version moves with the specification: the second of two writers learns of the first.
    assert_eq!(api.call("POST", &at(""), &spec.replace("nginx", "nginx:2")).await.status, 200);
    refused(&api, &[("POST", &at(""), &spec, 500, sequence)]).await;
}

#[tokio::test]
async fn secrets_configs_and_networks_that_are_refused() {
    let api = Api::still().await;
    let id = api.create("secrets", r#"{"Name":"s1","Data":"eA==","Labels":{"a":"1"}}"#).await;
    let version = api.get("/secrets/s1").await["Version"]["Index"].clone();
    let at = format!("/secrets/{id}/update?version={version}");
    let large = format!(r#"{{"Name":"s2","Data":"{}"}}"#, "AAAA".repeat(170_667));
    let bad_name = "rpc error: code = InvalidArgument desc = invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]";
    let bad_size = "rpc error: code = InvalidArgument desc = secret data must be larger than 0 and less than 512000 bytes";
    let only_labels = "rpc error: code = InvalidArgument desc = only updates to Labels are allowed";
    refused(&api, &[
        ("POST", "/secrets/create", r#"{"Name":"s1","Data":"eA=="}"#, 409, "rpc error: code = AlreadyExists desc = secret s1 already exists"),
        ("POST", "/secrets/create", r#"{"Name":"-","Data":"eA=="}"#, 400, bad_name),
        ("POST", "/secrets/create", r#"{"Name":"s2"}"#, 400, bad_size),
        ("POST", "/secrets/create", &large, 400, bad_size),
        ("POST", "/secrets/create", r#"{"Name":"s2","Data":"*"}"#, 400, "illegal base64 data"),
        ("POST", "/secrets/create", r#"{"Name":"s2","Driver":{"Name":"bogusdriver"}}"#, 500, "rpc error: code = Unknown desc = plugin \"bogusdriver\" not found"),
        ("POST", "/secrets/s1/update", r#"{"Name":"s1"}"#, 400, "invalid secret version"),
        ("POST", &at, r#"{"Name":"s1","Data":"eHg="}"#, 400, only_labels),
        ("POST", &at, r#"{"Name":"other"}"#, 400, only_labels),
        ("POST", "/secrets/s1/update?version=9999", r#"{"Name":"s1"}"#, 500, "rpc error: code = Unknown desc = update out of sequence"),
        ("DELETE", "/secrets/nope", "", 404, "secret nope not found"),
        ("POST", "/configs/create", r#"{"Name":"c"}"#, 400, "rpc error: code = InvalidArgument desc = config data must be larger than 0 and less than 1024000 bytes"),
        ("POST", "/networks/create", r#"{"Name":"ingress","Driver":"overlay"}"#, 409, "network with name ingress already exists"),
        ("POST", "/networks/create", r#"{"Name":"x","Driver":"nosuch"}"#, 404, "plugin \"nosuch\" not found"),
        ("POST", "/networks/create", r#"{"Name":"host","Driver":"overlay"}"#, 403, "host is a pre-defined network and cannot be created"),
        ("GET", "/networks?filters=%7B%22bogus%22:%5B%22x%22%5D%7D", "", 400, "invalid filter 'bogus'"),
        ("GET", "/tasks?filters=%7B%22desired-state%22:%5B%22bogus%22%5D%7D", "", 500, "Invalid desired-state filter: 'bogus'"),
        ("GET", "/nodes?filters=%7B%22role%22:%5B%22bad%22%5D%7D", "", 500, "Invalid role filter: 'bad'"),
        ("GET", "/services?filters=notjson", "", 400, "invalid filter"),
    ]).await;
    let ingress = api.get("/networks/ingress").await["Id"].as_str().unwrap().to_owned();
    let again = format!(
        "rpc error: code = AlreadyExists desc = ingress network ({ingress}) is already present"
    );
    refused(
        &api,
        &[(
            "POST",
            "/networks/create",
            r#"{"Name":"ing2","Driver":"overlay","Ingress":true}"#,
            409,
            &again,
        )],
    )
    .await;
    // What a redeployed stack sends: the same data once more.
    let same = api.call("POST", &at, r#"{"Name":"s1","Data":"eA==","Labels":{"b":"2"}}"#).await;
    assert_eq!(same.status, 200, "{}", same.body);
    assert_eq!(api.get("/secrets/s1").await["Spec"]["Labels"], json!({"b": "2"}));
}

#[tokio::test]
async fn nodes_and_settings_that_are_refused() {
    let api = Api::still().await;
    let node = api.get("/nodes").await[0].clone();
    let id = node["ID"].as_str().unwrap();
    let version = &node["Version"]["Index"];
    let at = format!("/nodes/{id}/update?version={version}");
    let swarm = api.get("/swarm").await;
    let settings = format!("/swarm/update?version={}", swarm["Version"]["Index"]);
    refused(&api, &[
        ("POST", &at, r#"{"Role":"bogus","Availability":"active"}"#, 400, "invalid Role: \"bogus\""),
        ("POST", &at, r#"{"Role":"manager","Availability":"bogus"}"#, 400, "invalid Availability: \"bogus\""),
        ("POST", &at, r#"{"Availability":"active"}"#, 400, "invalid Role: \"\""),
        ("POST", &at, r#"{"Role":"worker","Availability":"active"}"#, 400, "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm"),
        ("POST", &format!("/nodes/{id}/update?version=abc"), "{}", 400, "invalid node version 'abc': strconv.ParseUint: parsing \"abc\": invalid syntax"),
        ("POST", &format!("/nodes/{id}/update?version=99999"), r#"{"Role":"manager","Availability":"drain"}"#, 500, "rpc error: code = Unknown desc = update out of sequence"),
        ("DELETE", &format!("/nodes/{id}"), "", 400, &format!("rpc error: code = FailedPrecondition desc = node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal")),
        ("GET", "/nodes/nope", "", 404, "node nope not found"),
        ("POST", &settings, r#"{"Name":"other"}"#, 400, "rpc error: code = InvalidArgument desc = modification of cluster name is not allowed"),
        ("POST", &settings, r#"{"CAConfig":{"NodeCertExpiry":1}}"#, 400, "rpc error: code = InvalidArgument desc = minimum certificate expiry time is: 1h0m0s"),
        ("POST", "/swarm/update?version=99999", "{}", 500, "rpc error: code = Unknown desc = update out of sequence"),
        ("POST", "/swarm/unlock", r#"{"UnlockKey":"x"}"#, 409, "swarm is not locked"),
    ]).await;
    // What docker-py sends: a part of the settings; the rest stays.
    let part =
        api.call("POST", &settings, r#"{"Orchestration":{"TaskHistoryRetentionLimit":2}}"#).await;
    assert_eq!(part.status, 200, "{}", part.body);
    let spec = &api.get("/swarm").await["Spec"];
    assert_eq!(spec["Orchestration"]["TaskHistoryRetentionLimit"], 2);
    assert_eq!(spec["CAConfig"], swarm["Spec"]["CAConfig"]);
}

#[tokio::test]
async fn a_node_that_does_not_manage_says_so() {
    let api = Api::still().await;
    let outside = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
    let worker = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
    let locked = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";
    for (state, text, ping) in [
        (LocalState::Inactive, outside, "inactive"),
        (LocalState::Active, worker, "active/worker"),
        (LocalState::Locked, locked, "locked"),
    ] {
        *api.node.status.lock().unwrap() = LocalStatus { state, ..Default::default() };
        refused(
            &api,
            &[
                ("GET", "/nodes", "", 503, text),
                ("GET", "/services", "", 503, text),
                ("GET", "/swarm", "", 503, text),
                ("POST", "/services/create", &service("x", ""), 503, text),
                ("POST", "/networks/create", r#"{"Name":"x","Driver":"overlay"}"#, 500, text),
                ("GET", "/tasks", "", 503, text),
                ("GET", "/secrets", "", 503, text),
                ("GET", "/configs", "", 503, text),
                ("GET", "/swarm/unlockkey", "", 503, text),
                ("POST", "/swarm/update?version=1", "{}", 503, text),
            ],
        )
        .await;
        let again = "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.";
        let force = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.";
        let more: &[_] = match state {
            LocalState::Locked => &[
                ("POST", "/swarm/init", "{}", 503, again),
                ("POST", "/swarm/join", "{}", 503, again),
                ("POST", "/swarm/leave", "", 503, force),
            ],
            LocalState::Active => &[("POST", "/swarm/unlock", r#"{"UnlockKey":"x"}"#, 503, worker)],
            _ => &[(
                "POST",
                "/swarm/unlock",
                r#"{"UnlockKey":"x"}"#,
                503,
                "This node is not part of a swarm",
            )],
        };
        refused(&api, more).await;
        assert_eq!(api.call("GET", "/_ping", "").await.headers["swarm"], ping);
        assert_eq!(api.get("/info").await["Swarm"]["LocalNodeState"], state.as_str());
        assert_eq!(api.get("/networks").await, Value::Array(Vec::new()));
    }
}

#[tokio::test]
async fn without_a_leader_only_the_node_itself_answers() {
    let api = Api::still().await;
    api.node.store.set_leadership(Leadership::None);
    let text = "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";
    refused(
        &api,
        &[
            ("GET", "/services", "", 500, text),
            ("GET", "/nodes", "", 500, text),
            ("POST", "/services/create", &service("x", ""), 500, text),
        ],
    )
    .await;
    assert_eq!(api.call("GET", "/_ping", "").await.status, 200);
    assert_eq!(api.get("/info").await["Swarm"]["ControlAvailable"], true);
}

#[tokio::test]
async fn bodies_of_the_wrong_kind_or_size() {
    let api = Api::still().await;
    let of = |kind: Option<&str>, body: String| {
        let mut request = Request::post("/services/create");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        request.body(Body::from(body)).expect("a request")
    };
    let text = api.send(of(Some("text/plain"), service("x", ""))).await;
    assert_eq!(
        text.message(),
        "unsupported Content-Type header (text/plain): must be 'application/json'"
    );
    assert_eq!(text.status, 400);
    let none = api.send(of(None, service("x", ""))).await;
    assert_eq!(none.message(), "malformed Content-Type header (): mime: no media type");
    let charset = api.send(of(Some("application/json; charset=utf-8"), service("x", ""))).await;
    assert_eq!(charset.status, 201);
    let huge = api.send(of(Some("application/json"), " ".repeat(5 << 20))).await;
    assert_eq!(huge.status, 413, "{}", huge.body);
}

#[tokio::test]
async fn ports_for_everybody_need_the_ingress_network() {
    let api = Api::still().await;
    let ports = |name: &str, mode: &str| {
        let ports = format!(r#"[{{"TargetPort":80,"PublishMode":"{mode}"}}]"#);
        service(name, &format!(r#","EndpointSpec":{{"Ports":{ports}}}"#))
    };
    assert_eq!(api.call("DELETE", "/networks/ingress", "").await.status, 204);
    let text = "rpc error: code = FailedPrecondition desc = service needs ingress network, but no ingress network is present";
    refused(&api, &[("POST", "/services/create", &ports("x", "ingress"), 400, text)]).await;
    api.create("services", ports("y", "host")).await;
}

/// A service that uses these secrets or configs, by id and name.
fn using(name: &str, kind: &str, references: &[(&str, &str)]) -> String {
    let one = |(n, (id, name)): (usize, &(&str, &str))| {
        let file = format!(r#"{{"Name":"f{n}","UID":"0","GID":"0","Mode":292}}"#);
        format!(r#"{{"{kind}ID":"{id}","{kind}Name":"{name}","File":{file}}}"#)
    };
    let all: Vec<_> = references.iter().enumerate().map(one).collect();
    let container = format!(r#"{{"Image":"a","{kind}s":[{}]}}"#, all.join(","));
    format!(r#"{{"Name":"{name}","TaskTemplate":{{"ContainerSpec":{container}}}}}"#)
}

#[tokio::test]
async fn references_must_lead_somewhere_and_keep_what_they_name() {
    let api = Api::still().await;
    let secret = api.create("secrets", r#"{"Name":"s1","Data":"eA=="}"#).await;
    let config = api.create("configs", r#"{"Name":"c1","Data":"eA=="}"#).await;
    let nobody = "1111111111111111111111111";
    let create = "/services/create";
    let invalid = |text: &str| format!("rpc error: code = InvalidArgument desc = {text}");
    refused(
        &api,
        &[
            (
                "POST",
                create,
                &using("a", "Secret", &[(nobody, "x")]),
                400,
                &invalid("secret not found: x"),
            ),
            (
                "POST",
                create,
                &using("a", "Secret", &[(nobody, "x"), (nobody, "y")]),
                400,
                &invalid("secrets not found: x, y"),
            ),
            (
                "POST",
                create,
                &using("a", "Secret", &[(&secret, "other")]),
                400,
                &invalid("secret not found: other"),
            ),
            (
                "POST",
                create,
                &using("a", "Config", &[(&secret, "s1")]),
                400,
                &invalid("config not found: s1"),
            ),
        ],
    )
    .await;
    for name in ["one", "two"] {
        api.create("services", using(name, "Secret", &[(&secret, "s1")])).await;
    }
    api.create("services", using("three", "Config", &[(&config, "c1")])).await;
    refused(
        &api,
        &[
            (
                "DELETE",
                "/secrets/s1",
                "",
                400,
                &invalid("secret 's1' is in use by the following services: one, two"),
            ),
            (
                "DELETE",
                "/configs/c1",
                "",
                400,
                &invalid("config 'c1' is in use by the following service: three"),
            ),
        ],
    )
    .await;
    assert_eq!(api.call("DELETE", "/services/three", "").await.status, 200);
    assert_eq!(api.call("DELETE", "/configs/c1", "").await.status, 204);
}

#[tokio::test]
async fn a_bad_specification_is_told_before_a_stale_version() {
    let api = Api::still().await;
    let id = api.create("services", service("web", "")).await;
    let path = format!("/services/{id}/update?version=999");
    let bad = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":""}}}"#;
    let text =
        "rpc error: code = InvalidArgument desc = ContainerSpec: image reference must be provided";
    refused(
        &api,
        &[
            ("POST", &path, bad, 400, text),
            (
                "POST",
                &path,
                &service("other", ""),
                501,
                "rpc error: code = Unimplemented desc = renaming services is not supported",
            ),
        ],
    )
    .await;
}
