//! Dry runs through the API: the answer says what would happen, and nothing does.

use serde_json::{Value, json};
use swarm::core::store::Store as _;

use super::{Api, service};

const CREATE: &str = "/x-swarm/dry-run/services/create";

fn replicas(number: u64, more: &str) -> String {
    service("web", &format!(r#","Mode":{{"Replicated":{{"Replicas":{number}}}}}{more}"#))
}

/// Asks, and makes sure that nothing was written.
async fn ask(api: &Api, path: &str, body: &str) -> Value {
    let before = api.node.view().version();
    let answer = api.call("POST", path, body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(api.node.view().version(), before, "a dry run writes nothing");
    let mut watch = api.node.store.watch(before);
    assert!(watch.try_next().expect("a history").is_none(), "and nobody hears of it");
    answer.json()
}

#[tokio::test]
async fn a_new_service_and_where_it_would_go() {
    let api = Api::still().await;
    let told = ask(&api, CREATE, &replicas(3, "")).await;
    assert_eq!(told["Service"], "web");
    assert_eq!(told["Complete"], true);
    let placements = told["Placements"].as_array().unwrap();
    let slots: Vec<_> = placements.iter().map(|it| (&it["Slot"], &it["Node"])).collect();
    let node = json!("manager-1");
    assert_eq!(slots, [(&json!(1), &node), (&json!(2), &node), (&json!(3), &node)]);
    assert_eq!(api.get("/services").await, json!([]));
    // With the version prefix, like every other route.
    let told = ask(&api, &format!("/v1.41{CREATE}"), &replicas(1, "")).await;
    assert_eq!(told["Placements"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_in_swarms_words_with_a_count() {
    let api = Api::still().await;
    let body = replicas(2, "").replace(
        r#""ContainerSpec""#,
        r#""Placement":{"Constraints":["node.labels.a == b"]},"ContainerSpec""#,
    );
    let told = ask(&api, CREATE, &body).await;
    let why = "no suitable node (scheduling constraints not satisfied on 1 node)";
    assert_eq!(told["Reasons"], json!({ why: 2 }), "{told}");
    assert_eq!(told["Refused"][1], json!({ "Service": "web", "Slot": 2, "Why": why }));
}

#[tokio::test]
async fn a_change_and_its_roll_out_and_then_it_happens_so() {
    let api = Api::alive(3).await;
    let delay = r#","UpdateConfig":{"Parallelism":2,"Delay":1000000000}"#;
    let id = api.create("services", replicas(4, delay)).await;
    let running = |view: &swarm::core::store::Snapshot, image: &str| {
        let tasks = view.tasks.iter().filter(|task| task.is_wanted());
        let images = tasks.filter(|task| task.running_since.is_some());
        images.filter(|task| task.spec.container.as_ref().unwrap().image == image).count()
    };
    api.node.until("all run", |view| running(view, "nginx") == 4).await;
    let version = api.get("/services/web").await["Version"]["Index"].clone();
    let body = replicas(4, delay).replace("nginx", "nginx:2");
    let path = format!("/services/{id}/update?version={version}");
    let told = ask(&api, &format!("/x-swarm/dry-run{path}"), &body).await;
    let batches: Vec<_> = told["Batches"].as_array().unwrap().iter().collect();
    assert_eq!(batches.len(), 2, "{told}");
    assert_eq!(
        batches[1],
        &json!({ "After": 1_000_000_000, "Placed": 2, "Stopped": 2, "Refused": 0 })
    );
    assert_eq!(told["Stopped"].as_array().unwrap().len(), 4);
    assert_eq!(told["UpdateStatus"]["State"], "completed");

    assert_eq!(api.call("POST", &path, &body).await.status, 200);
    api.node.until("all are new", |view| running(view, "nginx:2") == 4).await;
    let mut real: Vec<_> = (api.node.view().tasks.iter())
        .filter(|task| task.is_wanted())
        .map(|task| (json!(task.slot), json!(task.node_id)))
        .collect();
    real.sort_by_key(|(slot, _)| slot.as_u64());
    let said = told["Placements"].as_array().unwrap().iter();
    let said: Vec<_> = said.map(|it| (it["Slot"].clone(), it["NodeID"].clone())).collect();
    assert_eq!(said, real);
}

#[tokio::test]
async fn what_could_not_be_written_is_refused_in_the_same_words() {
    let api = Api::still().await;
    api.create("services", service("web", "")).await;
    let published = r#","EndpointSpec":{"Ports":[{"TargetPort":80,"PublishedPort":80}]}"#;
    api.create("services", service("front", published)).await;
    let (web, bad_name) = (service("web", ""), service("a b", ""));
    let taken = service("other", published);
    let requests = [
        ("/services/create", &*web),
        ("/services/create", &*bad_name),
        ("/services/create", &*taken),
        ("/services/create", "{}"),
        ("/services/create", "notjson"),
        ("/services/nope/update?version=1", &*web),
        ("/services/web/update", &*web),
        ("/services/web/update?version=1", &*web),
        ("/services/web/update?version=1&rollback=bogus", &*web),
    ];
    for (path, body) in requests {
        let real = api.call("POST", path, body).await;
        let dry = api.call("POST", &format!("/x-swarm/dry-run{path}"), body).await;
        assert!(real.status.as_u16() >= 400, "{path} {body}");
        assert_eq!((dry.status, dry.body), (real.status, real.body), "{path} {body}");
    }
}
