//! The stores that a manager of ours may have.

use std::sync::Arc;

use async_trait::async_trait;
use swarm_core::store::MemoryStore;
use swarm_raft::{Backup, RaftConfig, RaftStore, SealKey};

use tracing::info;

use super::config::{OpenStore, SealStore, StoreFactory, StorePlace};
use crate::manager::group::Replicated;
use crate::rpc::RpcLink;

/// Opens a replicated log on disk, which other managers can share: the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct RaftStores;

#[async_trait]
impl StoreFactory for RaftStores {
    async fn open(&self, place: &StorePlace) -> Result<OpenStore, String> {
        let config = raft_config(place);
        let link = Arc::new(RpcLink::new(place.raft_id, place.credentials.clone()));
        let raft = RaftStore::open(config, link.clone()).await.map_err(|e| e.to_string())?;
        if place.new_cluster {
            raft.initialize(&place.advertise).await.map_err(|error| error.to_string())?;
        }
        let closing = raft.clone();
        let close = Box::pin(async move { closing.shutdown().await });
        let (store, keys) = (raft.clone(), raft.clone());
        let member = Some(Replicated { raft, link });
        Ok(OpenStore { store, member, close, keys: Some(keys) })
    }

    async fn force_new_cluster(&self, place: &StorePlace) -> Result<(), String> {
        let begun = RaftStore::force_new_cluster(&raft_config(place), &place.advertise).await;
        let recovered = begun.map_err(|error| error.to_string())?;
        info!(epoch = recovered.epoch, given_up = recovered.former.len(), "a new group of one");
        Ok(())
    }

    async fn restore(&self, place: &StorePlace, backup: Backup) -> Result<(), String> {
        let restored = backup.restore(&raft_config(place), &place.advertise).await;
        restored.map(drop).map_err(|error| error.to_string())
    }
}

fn raft_config(place: &StorePlace) -> RaftConfig {
    let mut config = RaftConfig::new(&place.dir, place.raft_id);
    config.disk = place.disk.clone();
    config.seal.clone_from(&place.seal);
    config
}

#[async_trait]
impl SealStore for RaftStore {
    async fn seal_keys(&self, key: Option<SealKey>) -> Result<(), String> {
        Self::seal_keys(self, key).await.map_err(|error| error.to_string())
    }
}

/// Opens a store in memory: for tests and for clusters that may be gone when the process is.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStores;

#[async_trait]
impl StoreFactory for MemoryStores {
    async fn open(&self, place: &StorePlace) -> Result<OpenStore, String> {
        if !place.new_cluster {
            let text = "this cluster was kept in memory and went with its process: leave it with \
                        \"docker swarm leave --force\"";
            return Err(text.to_owned());
        }
        let store = Arc::new(MemoryStore::default());
        Ok(OpenStore { store, member: None, close: Box::pin(async {}), keys: None })
    }
}
