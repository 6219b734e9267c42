//! The stores that a manager of ours may have.

use std::sync::Arc;

use async_trait::async_trait;
use swarm_core::store::MemoryStore;
use swarm_raft::{NoPeers, RaftConfig, RaftStore};

use super::config::{OpenStore, StoreFactory, StorePlace};

/// Opens a replicated log on disk: the default. One member for now.
#[derive(Clone, Copy, Debug, Default)]
pub struct RaftStores;

#[async_trait]
impl StoreFactory for RaftStores {
    async fn open(&self, place: &StorePlace) -> Result<OpenStore, String> {
        let config = RaftConfig::new(&place.dir, place.raft_id);
        let store = RaftStore::open(config, Arc::new(NoPeers)).await.map_err(|e| e.to_string())?;
        if place.new_cluster {
            store.initialize(&place.advertise).await.map_err(|error| error.to_string())?;
        }
        let closing = store.clone();
        Ok(OpenStore { store, close: Box::pin(async move { closing.shutdown().await }) })
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
        Ok(OpenStore { store: Arc::new(MemoryStore::default()), close: Box::pin(async {}) })
    }
}
