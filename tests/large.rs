//! What would be larger than an entry of the log: it is written in several, or refused in words.

#[path = "support/machine.rs"]
mod machine;

use machine::{Swarm, id_of, sleeper, until};
use serde_json::{Value, json};

/// Four kilobytes for each task, and 2,000 of them.
const REPLICAS: usize = 2_000;

/// A service that suits no node until one has the label.
fn wordy(bytes: usize) -> Value {
    json!({
        "Name": "wordy",
        "Mode": { "Replicated": { "Replicas": REPLICAS } },
        "TaskTemplate": {
            "ContainerSpec": { "Image": "sleep", "Env": [format!("WORDS={}", "x".repeat(bytes))] },
            "Placement": { "Constraints": ["node.labels.large==yes"] },
        },
    })
}

/// The errors of a service's tasks.
fn errors(swarm: &Swarm, service: &str) -> Vec<String> {
    let tasks =
        swarm.manager.get(&format!("/tasks?filters=%7B%22service%22:%5B%22{service}%22%5D%7D"));
    let error = |task: &Value| task["Status"]["Err"].as_str().unwrap_or_default().to_owned();
    tasks.as_array().into_iter().flatten().map(error).collect()
}

#[test]
fn services_of_many_large_tasks_hold_nobody_up() {
    let swarm = Swarm::start(&[]);
    let wordy_id = id_of(&swarm.manager.call("POST", "/services/create", wordy(4_000)));
    let small = swarm.manager.create("services", &sleeper("small", 2));
    swarm.manager.running(&small, 2);
    let refused = |text: &str| {
        until(text, || {
            let errors = errors(&swarm, &wordy_id);
            let right = errors.iter().filter(|error| *error == text).count();
            let others = errors.iter().find(|error| *error != text);
            if right == REPLICAS { Ok(()) } else { Err(format!("{right}, and {others:?}")) }
        });
    };
    refused("no suitable node (scheduling constraints not satisfied on 1 node)");
    // Every refusal says something else now.
    let node = &swarm.manager.get("/nodes")[0];
    let (id, version) = (node["ID"].as_str().unwrap(), &node["Version"]["Index"]);
    let spec = json!({ "Role": "manager", "Availability": "pause" });
    let updated =
        swarm.manager.call("POST", &format!("/nodes/{id}/update?version={version}"), spec);
    assert_eq!(updated.status, 200, "{updated:?}");
    refused("no suitable node (1 node not available for new tasks)");
    let removed = swarm.manager.call("DELETE", "/services/wordy", "");
    assert_eq!(removed.status, 200, "{removed:?}");
    until("its tasks are erased", || {
        let left = swarm.manager.get("/tasks").as_array().map_or(0, Vec::len);
        if left == 2 { Ok(()) } else { Err(format!("{left} tasks are left, two are small's")) }
    });
    let larger = swarm.manager.call("POST", "/services/create", wordy(400 << 10));
    assert_eq!(larger.status, 400, "{larger:?}");
    let text = "393216 are the most: give large values to its tasks as configs or secrets";
    assert!(larger.message().ends_with(text), "{larger:?}");
    swarm.manager.assert_no_panic();
}
