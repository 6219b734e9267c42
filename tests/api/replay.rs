//! Recorded bodies: what the engine stored of them, we store.

use serde_json::Value;
use swarm::core::model::{Config, ConfigId, Network, NetworkSpec, Secret, SecretId};
use swarm::core::store::Change;

use super::Api;
use super::support::recordings::Recordings;

/// Makes everything that a recorded service refers to, under the recorded ids.
async fn provide(api: &Api, recordings: &Recordings, number: u64, body: &Value) {
    let mut changes = Vec::new();
    let task = &body["TaskTemplate"];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for network in list(&task["Networks"]).iter().chain(&list(&body["Networks"])) {
        let target = network["Target"].as_str().expect("a target");
        let by_id = target.len() == 25;
        let id = if by_id { target } else { recordings.network(target, number).expect("recorded") };
        let name = if by_id { format!("n-{}", &target[..8]) } else { target.to_owned() };
        let spec = NetworkSpec { name, ..Default::default() };
        let id = id.parse().expect("an id");
        changes.push(Change::create(Network { id, spec, ..Default::default() }));
    }
    let container = &task["ContainerSpec"];
    for secret in list(&container["Secrets"]) {
        let id: SecretId = secret["SecretID"].as_str().expect("an id").parse().expect("an id");
        let mut secret_object = Secret { id, ..Default::default() };
        secret_object.spec.name = secret["SecretName"].as_str().expect("a name").to_owned();
        changes.push(Change::create(secret_object));
    }
    for config in list(&container["Configs"]) {
        let id: ConfigId = config["ConfigID"].as_str().expect("an id").parse().expect("an id");
        let mut config_object = Config { id, ..Default::default() };
        config_object.spec.name = config["ConfigName"].as_str().expect("a name").to_owned();
        changes.push(Change::create(config_object));
    }
    changes.dedup_by_key(|change| change.target());
    if !changes.is_empty() {
        api.node.commit(changes).await;
    }
}

#[tokio::test]
async fn services_read_back_as_the_engine_returned_them() {
    let Some(recordings) = Recordings::load() else { return };
    let (mut compared, mut jobs) = (0, 0);
    for (number, row) in recordings.of("POST", "/services/create", 201) {
        let id = recordings.answer(row)["ID"].as_str().expect("an id");
        let Some(engine) = recordings.read_back("/services", id, number) else { continue };
        let body = &row["req"];
        let mode = body["Mode"].as_object();
        jobs += u32::from(mode.is_some_and(|mode| mode.keys().any(|key| key.ends_with("Job"))));
        // Recordings that try what SwarmKit cannot store; we keep it.
        if body["TaskTemplate"]["ContainerSpec"]["Privileges"].is_object() {
            continue;
        }
        let api = Api::still().await;
        provide(&api, &recordings, number, body).await;
        // With the recorded version: members that are newer than it are dropped.
        let made = api.call("POST", row["path"].as_str().expect("a path"), body).await;
        assert_eq!(made.status, 201, "recording {number}: {}", made.body);
        let ours = made.json()["ID"].as_str().expect("an id").to_owned();
        let ours = api.get(&format!("/services/{ours}")).await;
        let mut expected = engine["Spec"].clone();
        if body["Name"].is_null() {
            expected["Name"] = ours["Spec"]["Name"].clone();
        }
        let (mut ours, expected) = (plain(&ours["Spec"]), plain(&expected));
        // One recording tries a member that nobody knows: the engine drops it, we keep it.
        ours.as_object_mut().expect("a specification").remove("Bogus");
        assert_eq!(ours, expected, "recording {number}: {}", row["cmd"]);
        compared += 1;
    }
    assert!(compared >= 20 && jobs >= 4, "only {compared} compared, {jobs} of them jobs");
}

/// The same value with every whole number written without a fraction: Go writes 0, we write 0.0.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        Value::Array(list) => list.iter().map(plain).collect(),
        #[allow(clippy::cast_possible_truncation)]
        Value::Number(number) => match number.as_f64().filter(|n| n.fract() == 0.0) {
            Some(whole) if number.is_f64() => (whole as i64).into(),
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

#[tokio::test]
async fn a_recorded_specification_survives_an_update() {
    let Some(recordings) = Recordings::load() else { return };
    let mut updated = 0;
    for (number, row) in recordings.of("POST", "/services/create", 201) {
        let body = &row["req"];
        let api = Api::still().await;
        provide(&api, &recordings, number, body).await;
        let id = api.create("services", body).await;
        let before = api.get(&format!("/services/{id}")).await;
        let version = before["Version"]["Index"].as_u64().expect("a version");
        let path = format!("/services/{id}/update?version={version}&registryAuthFrom=spec");
        let answer = api.call("POST", &path, &before["Spec"]).await;
        assert_eq!(answer.status, 200, "recording {number}: {}", answer.body);
        assert_eq!(answer.body, "{\"Warnings\":null}\n");
        let after = api.get(&format!("/services/{id}")).await;
        assert_eq!(after["Spec"], before["Spec"], "recording {number}");
        assert_eq!(after["PreviousSpec"], before["Spec"], "recording {number}");
        updated += 1;
    }
    assert!(updated >= 40, "only {updated} updated");
}

#[tokio::test]
async fn recorded_networks_secrets_and_configs_are_accepted() {
    let Some(recordings) = Recordings::load() else { return };
    for kind in ["networks", "secrets", "configs"] {
        let path = format!("/{kind}/create");
        let mut made = 0;
        for (number, row) in recordings.of("POST", &path, 201) {
            let body = &row["req"];
            let local = kind == "networks" && body["Driver"] != "overlay";
            // Large bytes were left out of the recordings.
            let elided = body["Data"].as_str().is_some_and(|data| data.starts_with('<'));
            if local || elided || body["ConfigOnly"] == true || body["ConfigFrom"].is_object() {
                continue;
            }
            let api = Api::still().await;
            let id = api.create(kind, body).await;
            let ours = api.get(&format!("/{kind}/{id}")).await;
            let recorded = recordings.answer(row);
            let their_id = recorded.get("ID").or_else(|| recorded.get("Id"));
            let their_id = their_id.and_then(Value::as_str).expect("an id");
            if let Some(theirs) = recordings.read_back(&format!("/{kind}"), their_id, number) {
                let members: &[&str] = match kind {
                    "networks" => &[
                        "Name",
                        "Driver",
                        "Scope",
                        "Internal",
                        "Attachable",
                        "Labels",
                        "EnableIPv6",
                    ],
                    _ => &["Spec"],
                };
                for member in members {
                    assert_eq!(ours[member], theirs[member], "recording {number}: {member}");
                }
            }
            made += 1;
        }
        assert!(made > 0, "no {kind} were recorded");
    }
}
