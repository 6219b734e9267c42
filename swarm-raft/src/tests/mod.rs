//! The store as a whole: the contract, restarts, crashes, damage, a full disk, several managers.

mod crash;
mod damage;
mod faults;
mod full;
mod group;
mod handover;
mod kill;
mod pipeline;
mod points;
mod recover;
mod restart;
mod seal;
pub(crate) mod sim_disk;
mod sim_net;
mod stuck;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::model::{Secret, SecretBytes, Service};
use swarm_core::store::{Batch, Change, Leadership, Store};
use swarm_core::time::Timestamp;

use crate::{NoPeers, RaftConfig, RaftStore};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// Small files and quick elections.
fn config(dir: &Path) -> RaftConfig {
    let mut config = RaftConfig::new(dir, 1);
    config.heartbeat = Duration::from_millis(20);
    config.election = Duration::from_millis(250);
    config.segment_bytes = 64 << 10;
    config.reserve_bytes = 64 << 10;
    config
}

async fn leads(store: &RaftStore) {
    let mut leadership = store.leadership();
    let leads = leadership.wait_for(|now| matches!(now, Leadership::Leader(_)));
    tokio::time::timeout(Duration::from_secs(30), leads).await.expect("it leads soon").unwrap();
}

/// Opens a store that leads.
async fn open(config: RaftConfig) -> Arc<RaftStore> {
    let store = RaftStore::open(config, Arc::new(NoPeers)).await.unwrap();
    store.initialize("127.0.0.1:1").await.unwrap();
    leads(&store).await;
    store
}

fn service(ids: &mut IdSource, name: &str) -> Service {
    let mut service = Service { id: ids.next(), ..Service::default() };
    service.spec.name = name.to_owned();
    service
}

fn create(ids: &mut IdSource, name: &str) -> Batch {
    Batch::new(NOW, vec![Change::create(service(ids, name))])
}

fn secret(ids: &mut IdSource, name: &str, bytes: &[u8]) -> Batch {
    let mut secret = Secret { id: ids.next(), ..Secret::default() };
    secret.spec.name = name.to_owned();
    secret.spec.data = Some(SecretBytes::from(bytes.to_vec()));
    Batch::new(NOW, vec![Change::create(secret)])
}

fn names(store: &RaftStore) -> Vec<String> {
    let mut names: Vec<_> =
        store.snapshot().services.iter().map(|service| service.spec.name.clone()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_raft_store_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicU32::new(0);
    swarm_core::conformance::store::suite(|| async {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        open(config(&dir.path().join(number.to_string()))).await as Arc<dyn Store>
    })
    .await;
}
