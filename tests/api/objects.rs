//! Objects through the API: what goes in comes out, and what must not come out does not.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use swarm::core::model::{Cluster, Secret, Service};
use swarm::core::store::Change;

use super::support::CANARY;
use super::{Api, service};

#[tokio::test]
async fn ping_carries_what_clients_negotiate_by() {
    let api = Api::still().await;
    for (method, body) in [("GET", "OK"), ("HEAD", "")] {
        let answer = api.call(method, "/_ping", "").await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, body));
        for (name, value) in [
            ("api-version", "1.50"),
            ("ostype", "linux"),
            ("docker-experimental", "false"),
            ("builder-version", "2"),
            ("swarm", "active/manager"),
            ("cache-control", "no-cache, no-store, must-revalidate"),
            ("pragma", "no-cache"),
            ("content-length", if method == "HEAD" { "0" } else { "2" }),
        ] {
            assert_eq!(answer.headers[name], value, "{method} {name}");
        }
    }
}

#[tokio::test]
async fn members_that_nobody_knows_survive() {
    let api = Api::still().await;
    let body = json!({
        "Name": "web", "Novel": {"a": [1, null]},
        "TaskTemplate": {"ContainerSpec": {"Image": "a", "Privileges": {"NoNewPrivileges": true}}, "Odd": 1},
        "Mode": {"Global": {"Later": "x"}},
    });
    let id = api.create("services", &body).await;
    let spec = &api.get(&format!("/services/{id}")).await["Spec"];
    assert_eq!(spec["Novel"], body["Novel"]);
    assert_eq!(spec["TaskTemplate"]["Odd"], 1);
    assert_eq!(
        spec["TaskTemplate"]["ContainerSpec"]["Privileges"],
        json!({"NoNewPrivileges": true})
    );
    assert_eq!(spec["Mode"], body["Mode"]);
}

#[tokio::test]
async fn names_of_any_case_and_null_anywhere_are_taken() {
    let api = Api::still().await;
    let body = json!({
        "name": "web", "labels": null, "updateconfig": null, "EndpointSpec": null, "Networks": null,
        "tasktemplate": {"containerspec": {"image": "a", "args": null, "labels": null, "mounts": null},
                         "resources": null, "networks": null, "placement": {"constraints": null}},
        "mode": {"replicated": {"replicas": 3}},
    });
    let id = api.create("services", body).await;
    let spec = &api.get(&format!("/services/{id}")).await["Spec"];
    assert_eq!(spec["Mode"], json!({"Replicated": {"Replicas": 3}}));
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Image"], "a");
}

#[tokio::test]
async fn what_the_engine_adds_is_added() {
    let api = Api::still().await;
    let network = api.create("networks", r#"{"Name":"net1","Driver":"overlay"}"#).await;
    let body = json!({
        "TaskTemplate": {"ContainerSpec": {"Image": "a"}},
        "EndpointSpec": {}, "Networks": [{"Target": "net1", "Aliases": ["w"]}],
    });
    let id = api.create("services", body).await;
    let spec = &api.get(&format!("/services/{id}")).await["Spec"];
    assert!(
        spec["Name"].as_str().is_some_and(|name| name.contains('_')),
        "an invented name: {spec}"
    );
    let task = &spec["TaskTemplate"];
    assert_eq!(
        (&task["Runtime"], &task["ContainerSpec"]["Isolation"]),
        (&json!("container"), &json!("default"))
    );
    assert_eq!(task["Networks"], json!([{"Target": network, "Aliases": ["w"]}]));
    assert_eq!(
        (&spec["Mode"], &spec["EndpointSpec"]),
        (&json!({"Replicated": {"Replicas": 1}}), &json!({"Mode": "vip"}))
    );
    assert_eq!(spec["Networks"], Value::Null, "moved into the task");

    let with = api.get(&format!("/services/{id}?insertDefaults=1")).await;
    assert_eq!(with["Spec"]["UpdateConfig"]["Monitor"], 5_000_000_000_u64);
    assert_eq!(with["Spec"]["TaskTemplate"]["RestartPolicy"]["Condition"], "any");
    assert_eq!(spec["UpdateConfig"], Value::Null, "never stored");
}

#[tokio::test]
async fn no_response_holds_a_secret() {
    let api = Api::still().await;
    let request = Request::post("/services/create")
        .header("content-type", "application/json")
        .header("x-registry-auth", CANARY)
        .body(Body::from(service("web", "")))
        .expect("a request");
    assert_eq!(api.send(request).await.status, 201);
    let view = api.node.view();
    let canary = || Some(CANARY.as_bytes().to_vec().into());
    let web = view.services.named("web").expect("just made");
    assert!(web.registry_auth.is_some(), "the credentials are kept");
    let task = swarm::core::model::Task {
        id: "a".repeat(25).parse().expect("an id"),
        service_id: web.id,
        registry_auth: canary(),
        ..Default::default()
    };
    let web = Service { previous_registry_auth: canary(), ..Service::clone(web) };
    let mut cluster = Cluster::clone(view.cluster().expect("made"));
    cluster.unlock_key = canary();
    cluster.spec.ca_config.signing_ca_key = CANARY.into();
    let mut secret = Secret { id: "b".repeat(25).parse().expect("an id"), ..Default::default() };
    secret.spec.name = "s".into();
    secret.spec.data = canary();
    let changes = vec![
        Change::update(web),
        Change::update(cluster),
        Change::create(secret),
        Change::create(task),
    ];
    api.node.commit(changes).await;

    let in_base64 = "Y2FuYXJ5LXRoYXQtbXVzdC1ub3Qtc2luZw";
    for path in [
        "/services",
        "/services/web",
        "/services?status=1",
        "/tasks",
        "/secrets",
        "/secrets/s",
        "/swarm",
        "/info",
        "/nodes",
        "/networks",
        "/configs",
        "/events?since=1&until=2",
        "/version",
    ] {
        let answer = api.call("GET", path, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        let sings = answer.body.contains(CANARY) || answer.body.contains(in_base64);
        assert!(!sings, "{path} holds a secret: {}", answer.body);
    }
}

#[tokio::test]
async fn lists_are_filtered() {
    let api = Api::still().await;
    api.create("services", service("web", r#","Labels":{"tier":"front"}"#)).await;
    api.create("services", service("worker", r#","Mode":{"Global":{}}"#)).await;
    let names = async |filters: Value| {
        let filters: String = filters.to_string().bytes().map(|b| format!("%{b:02X}")).collect();
        let list = api.get(&format!("/v1.44/services?filters={filters}")).await;
        let names = list.as_array().expect("a list").iter();
        let mut names: Vec<_> =
            names.map(|s| s["Spec"]["Name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(json!({})).await, "web worker");
    assert_eq!(names(json!({"name": {"w": true}})).await, "web worker");
    assert_eq!(names(json!({"name": ["we", "zz"]})).await, "web");
    assert_eq!(names(json!({"label": ["tier=front"]})).await, "web");
    assert_eq!(names(json!({"label": ["tier=front", "nope"]})).await, "");
    assert_eq!(names(json!({"mode": ["global"]})).await, "worker");
    assert_eq!(names(json!({"runtime": {"container": true}, "name": {"web": false}})).await, "web");
}

#[tokio::test]
async fn an_object_is_found_by_id_name_and_beginning() {
    let api = Api::still().await;
    let first = api.create("services", service("web", "")).await;
    // A name that is another's id loses against the id.
    let second = api.create("services", service(&first, "")).await;
    let id = async |word: &str| {
        api.get(&format!("/services/{word}")).await["ID"].as_str().unwrap().to_owned()
    };
    assert_eq!(id(&first).await, first);
    assert_eq!(id("web").await, first);
    assert_eq!(id(&second[..10]).await, second);
    let missing = api.call("GET", "/services/nope", "").await;
    assert_eq!(
        (missing.status.as_u16(), missing.message()),
        (404, "service nope not found".into())
    );

    for (name, digit) in [("x1", "1"), ("x2", "2")] {
        let id = format!("zz{}", digit.repeat(23)).parse().expect("an id");
        let mut service = Service { id, ..Default::default() };
        service.spec.name = name.into();
        api.node.commit(vec![Change::create(service)]).await;
    }
    let both = api.call("GET", "/services/zz", "").await;
    assert_eq!(
        (both.status.as_u16(), both.message()),
        (400, "service zz is ambiguous (2 matches found)".into())
    );
}

#[tokio::test]
async fn a_removed_service_and_its_tasks_are_gone_at_once() {
    let api = Api::alive(1).await;
    api.create("services", service("web", r#","Mode":{"Replicated":{"Replicas":3}}"#)).await;
    api.node.until("it runs", |view| view.tasks.len() == 3).await;
    assert_eq!(api.get("/tasks").await.as_array().map(Vec::len), Some(3));
    assert_eq!(api.call("DELETE", "/services/web", "").await.status, 200);
    assert_eq!(api.get("/tasks").await, json!([]));
    assert_eq!(api.get("/services").await, json!([]));
    api.create("services", service("web", "")).await;
}

#[tokio::test]
async fn tasks_show_their_networks_whole() {
    let api = Api::alive(1).await;
    let network = api.create("networks", r#"{"Name":"net1","Driver":"overlay"}"#).await;
    let more = r#","EndpointSpec":{"Ports":[{"TargetPort":80}]}"#;
    let body =
        service("web", more).replace("}},\"End", "},\"Networks\":[{\"Target\":\"net1\"}]},\"End");
    api.create("services", body).await;
    api.node
        .until("it runs", |view| {
            let running = |task: &&std::sync::Arc<swarm::core::model::Task>| {
                task.status.state == swarm::core::model::TaskState::Running
            };
            view.tasks.iter().filter(running).count() == 1
        })
        .await;
    let tasks = api.get("/tasks").await;
    let places = tasks[0]["NetworksAttachments"].as_array().expect("networks");
    let place =
        places.iter().find(|place| place["Network"]["ID"] == network.as_str()).expect("net1");
    assert_eq!(place["Network"]["Spec"]["Name"], "net1");
    assert_eq!(place["Network"]["DriverState"]["Name"], "overlay");
    assert!(place["Addresses"][0].as_str().is_some_and(|address| address.ends_with("/24")));
    let services = api.get("/services?status=true").await;
    assert_eq!(
        services[0]["ServiceStatus"],
        json!({"RunningTasks": 1, "DesiredTasks": 1, "CompletedTasks": 0})
    );
    assert_eq!(services[0]["Endpoint"]["Ports"][0]["PublishedPort"], 30000);
    assert!(services[0]["Spec"]["EndpointSpec"]["Ports"][0].get("PublishedPort").is_none());
}
