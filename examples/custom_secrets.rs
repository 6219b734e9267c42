//! A secret store of one's own: bytes in a vault instead of the cluster's log. The vault sees who
//! reads, and why; the cluster keeps names only.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::json;
use swarm::core::conformance;
use swarm::core::model::{SecretBytes, SecretId, SecretReference, TaskState};
use swarm::core::secret::{Reader, SecretError, SecretStore};
use swarm::http::{InitRequest, LocalNode as _};
use swarm::node::{MemoryRuntime, Node, NodeConfig};

/// Stands for a client of a real vault.
#[derive(Default)]
struct Vault(Mutex<BTreeMap<SecretId, SecretBytes>>);

#[async_trait]
impl SecretStore for Vault {
    async fn get(&self, secret: &SecretReference, by: &Reader) -> Result<SecretBytes, SecretError> {
        let (id, name) = (secret.secret_id, &secret.secret_name);
        let bytes = self.0.lock().unwrap().get(&id).cloned().ok_or(SecretError::NotFound(id))?;
        if !name.is_empty() {
            println!("vault: {name} is read for task {} on node {}", by.task, by.node);
        }
        Ok(bytes)
    }

    async fn put(&self, id: SecretId, bytes: SecretBytes) -> Result<(), SecretError> {
        let mut all = self.0.lock().unwrap();
        let kept = all.entry(id).or_insert_with(|| bytes.clone());
        if *kept == bytes { Ok(()) } else { Err(SecretError::Immutable(id)) }
    }

    async fn remove(&self, id: SecretId) -> Result<(), SecretError> {
        self.0.lock().unwrap().remove(&id);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let vault = Arc::new(Vault::default());
    conformance::secret::suite(&*vault).await;
    println!("the vault keeps the contract of secret stores");

    let dir = tempfile::tempdir()?;
    let runtime = Arc::new(MemoryRuntime::new(|_| Default::default()));
    let mut config = NodeConfig::new(dir.path(), runtime.clone());
    config.listen = Some("127.0.0.1:0".parse()?);
    config.parts.secrets = Some(vault);
    let node = Node::start(config).await?;
    let id = node.init(InitRequest::default()).await?;
    let control = node.control().ok_or("the first node is a manager")?;

    let spec = json!({"Name": "password", "Data": "aHVudGVyMg=="});
    let secret = control.create_secret(serde_json::from_value(spec)?).await?;
    let container = json!({"Image": "db:1", "Secrets": [
        {"SecretID": secret, "SecretName": "password", "File": {"Name": "password"}}]});
    let spec = json!({"Name": "db", "TaskTemplate": {"ContainerSpec": container}});
    control.create_service(serde_json::from_value(spec)?, None).await?;
    let runs = |view: &swarm::core::store::Snapshot| {
        view.tasks.iter().any(|task| task.status.state == TaskState::Running)
    };
    let view = control.store.until(runs).await;
    let executor = runtime.executor(id);
    let assignment = executor.assignment(executor.running()[0]).ok_or("it runs")?;
    println!("the task got {:?}", assignment.secrets[0].1);
    println!("the cluster keeps {:?}", view.secrets.get(secret).and_then(|s| s.spec.data.clone()));
    node.leave(true).await?;
    Ok(())
}
