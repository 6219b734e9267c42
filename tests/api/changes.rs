//! Changes through the API: what one call leaves in the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use swarm::core::model::{
    Node, NodeState, SecretBytes, SecretId, SecretReference, Service, Task, TaskState, TaskStatus,
    UpdateState, UpdateStatus,
};
use swarm::core::secret::{Reader, SecretError, SecretStore};
use swarm::core::store::Change;
use swarm::core::time::Timestamp;
use swarm::manager::control::Control;

use super::{Api, service};

/// The path of an update at the present version of the service `web`.
async fn update_path(api: &Api, more: &str) -> String {
    let web = api.get("/services/web").await;
    let (id, version) = (web["ID"].as_str().unwrap(), &web["Version"]["Index"]);
    format!("/services/{id}/update?version={version}{more}")
}

fn web(api: &Api) -> Arc<Service> {
    api.node.view().services.named("web").expect("it exists").clone()
}

#[tokio::test]
async fn a_rollback_swaps_and_an_update_forgets_the_roll_out_before() {
    let api = Api::still().await;
    api.create("services", service("web", "")).await;
    let second = service("web", "").replace("nginx", "nginx:2");
    assert_eq!(api.call("POST", &update_path(&api, "").await, &second).await.status, 200);
    let status = UpdateStatus { state: UpdateState::Completed, ..Default::default() };
    let busy = Service { update_status: Some(status), ..Service::clone(&web(&api)) };
    let path = update_path(&api, "&rollback=previous").await;
    // What the orchestrator writes meanwhile does not move the version that clients compare.
    api.node.commit(vec![Change::update(busy)]).await;
    assert_eq!(api.call("POST", &path, &second).await.status, 200);
    let after = api.get("/services/web").await;
    assert_eq!(after["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"], "nginx");
    assert_eq!(after["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Image"], "nginx:2");
    assert_eq!(after["UpdateStatus"]["State"], "rollback_started");
    assert_eq!(after["UpdateStatus"]["Message"], "manually requested rollback");
    assert_eq!(api.call("POST", &update_path(&api, "").await, &second).await.status, 200);
    assert!(api.get("/services/web").await.get("UpdateStatus").is_none());
}

#[tokio::test]
async fn of_many_writers_with_one_version_one_wins() {
    let api = Api::still().await;
    api.create("services", service("web", "")).await;
    let path = update_path(&api, "").await;
    let bodies: Vec<_> =
        (0..8).map(|n| service("web", "").replace("nginx", &format!("nginx:{n}"))).collect();
    let calls = bodies.iter().map(|body| api.call("POST", &path, body));
    let answers = futures_util::future::join_all(calls).await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(won, 1);
    let lost = answers.iter().filter(|answer| answer.status == 500);
    for answer in lost {
        assert_eq!(answer.message(), "rpc error: code = Unknown desc = update out of sequence");
    }
}

#[tokio::test]
async fn registry_credentials_are_kept_replaced_and_taken_back() {
    let api = Api::still().await;
    api.create("services", service("web", "")).await;
    let update = async |more: &str, auth: Option<&str>| {
        let mut request =
            Request::post(update_path(&api, more).await).header("content-type", "application/json");
        if let Some(auth) = auth {
            request = request.header("x-registry-auth", auth);
        }
        let answer = api.send(request.body(Body::from(service("web", ""))).unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let held = web(&api).registry_auth.clone();
        held.map(|auth| String::from_utf8(auth.expose().to_vec()).unwrap())
    };
    assert_eq!(update("", Some("first")).await.as_deref(), Some("first"));
    assert_eq!(update("", None).await.as_deref(), Some("first"));
    assert_eq!(update("", Some("second")).await.as_deref(), Some("second"));
    assert_eq!(update("&registryAuthFrom=spec", None).await.as_deref(), Some("second"));
    assert_eq!(update("&registryAuthFrom=spec", Some("third")).await.as_deref(), Some("third"));
    assert_eq!(update("&registryAuthFrom=previous-spec", None).await.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_removed_node_is_shut_out_and_its_tasks_given_up_at_once() {
    let api = Api::still().await;
    let mut ids = swarm::core::id::IdSource::seeded(9);
    let mut node = Node { id: ids.next(), ..Default::default() };
    node.status.state = NodeState::Ready;
    let task = |state| Task {
        id: swarm::core::id::IdSource::seeded(state as u64).next(),
        node_id: Some(node.id),
        status: TaskStatus::new(state, Timestamp::from_secs(1), "as it was"),
        desired_state: TaskState::Running,
        ..Default::default()
    };
    let (running, failed) = (task(TaskState::Running), task(TaskState::Failed));
    let made = vec![
        Change::create(node.clone()),
        Change::create(running.clone()),
        Change::create(failed.clone()),
    ];
    let before = api.node.commit(made).await;
    let path = format!("/nodes/{}", node.id);
    let refused = api.call("DELETE", &path, "").await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert_eq!(api.call("DELETE", &format!("{path}?force=1"), "").await.status, 200);
    let view = api.node.view();
    assert_eq!(view.version().0, before.0 + 1, "one transaction");
    assert!(view.nodes.get(node.id).is_none());
    assert_eq!(view.tasks.get(running.id).unwrap().status.state, TaskState::Orphaned);
    assert_eq!(view.tasks.get(failed.id).unwrap().status.state, TaskState::Failed);
    let blacklist = &view.cluster().unwrap().blacklist;
    let life = std::time::Duration::from_secs((90 + 7) * 24 * 3600);
    assert_eq!(blacklist[0].node_id, node.id);
    assert!(blacklist[0].until >= view.cluster().unwrap().created_at + life);

    // The certificate counts, and not what new ones would get.
    let expires = Timestamp::from_secs(9_000_000_000);
    node.id = ids.next();
    node.certificate_expires = Some(expires);
    api.node.commit(vec![Change::create(node.clone())]).await;
    assert_eq!(api.call("DELETE", &format!("/nodes/{}?force=1", node.id), "").await.status, 200);
    let week = std::time::Duration::from_secs(7 * 24 * 3600);
    assert_eq!(api.node.view().cluster().unwrap().blacklist[1].until, expires + week);
}

#[tokio::test]
async fn pruning_takes_what_nobody_uses() {
    let api = Api::still().await;
    api.create("networks", r#"{"Name":"used","Driver":"overlay"}"#).await;
    api.create("networks", r#"{"Name":"idle","Driver":"overlay"}"#).await;
    let body = json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "a"}, "Networks": [{"Target": "used"}]}});
    api.create("services", body).await;
    let pruned = api.call("POST", "/networks/prune", "").await.json();
    assert_eq!(pruned, json!({"NetworksDeleted": ["idle"]}));
    assert_eq!(api.get("/networks").await.as_array().map(Vec::len), Some(2), "ingress stays");
}

/// A store of secrets outside the cluster.
#[derive(Default)]
struct Vault(Mutex<BTreeMap<SecretId, SecretBytes>>);

#[async_trait]
impl SecretStore for Vault {
    async fn get(&self, secret: &SecretReference, _: &Reader) -> Result<SecretBytes, SecretError> {
        let id = secret.secret_id;
        self.0.lock().unwrap().get(&id).cloned().ok_or(SecretError::NotFound(id))
    }

    async fn put(&self, id: SecretId, bytes: SecretBytes) -> Result<(), SecretError> {
        let mut all = self.0.lock().unwrap();
        match all.get(&id) {
            Some(held) if *held != bytes => Err(SecretError::Immutable(id)),
            _ => {
                all.insert(id, bytes);
                Ok(())
            }
        }
    }

    async fn remove(&self, id: SecretId) -> Result<(), SecretError> {
        self.0.lock().unwrap().remove(&id);
        Ok(())
    }
}

#[tokio::test]
async fn with_a_vault_the_store_holds_names_only() {
    let api = Api::still().await;
    let vault = Arc::new(Vault::default());
    let inner = &api.node.control;
    let control = Control {
        store: inner.store.clone(),
        secrets: Some(vault.clone()),
        logs: inner.logs.clone(),
        clock: inner.clock.clone(),
        ids: Mutex::new(swarm::core::id::IdSource::seeded(5)),
        external: None,
        changes_roles: false,
        planners: Vec::new(),
    };
    let spec = |json: &str| serde_json::from_str(json).expect("a specification");
    let id = control.create_secret(spec(r#"{"Name":"s","Data":"eA=="}"#)).await.expect("created");
    let stored = |id| control.store.snapshot().secrets.get(id).cloned().expect("listed");
    assert!(stored(id).spec.data.is_none());
    assert_eq!(vault.0.lock().unwrap()[&id].expose(), b"x");
    let version = stored(id).version;
    control
        .update_secret("s", version, spec(r#"{"Name":"s","Data":"eA==","Labels":{"a":"b"}}"#))
        .await
        .expect("the same bytes");
    let other =
        control.update_secret("s", stored(id).version, spec(r#"{"Name":"s","Data":"eHg="}"#));
    assert_eq!(other.await.unwrap_err().message, "only updates to Labels are allowed");
    let taken = control.create_secret(spec(r#"{"Name":"s","Data":"eQ=="}"#)).await;
    assert_eq!(taken.unwrap_err().message, "secret s already exists");
    assert_eq!(vault.0.lock().unwrap().len(), 1, "the bytes of a refused secret are taken back");
    control.remove_secret("s").await.expect("removed");
    assert!(vault.0.lock().unwrap().is_empty());
}
