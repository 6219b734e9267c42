//! A planned change of leader under load.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::store::{CommitError, Store as _};
use tokio::task::JoinSet;

use super::group::three;
use super::{create, names};
use crate::{LocalLinks, RaftStore};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_leaves_no_write_in_doubt() {
    let (dir, links) = (tempfile::tempdir().unwrap(), LocalLinks::default());
    let stores = three(dir.path(), &links).await;
    let over = Arc::<AtomicBool>::default();
    let mut writing = JoinSet::new();
    for writer in 0..12 {
        let (store, over) = (stores[writer % 3].clone(), over.clone());
        writing.spawn(async move {
            let mut ids = IdSource::seeded(writer as u64);
            let (mut written, mut refused) = (Vec::new(), Vec::new());
            for number in 0.. {
                let name = format!("w{writer:02}-{number}");
                match store.commit(create(&mut ids, &name)).await {
                    Ok(_) => written.push(name),
                    Err(CommitError::NoLeader | CommitError::NotLeader { .. }) => {
                        refused.push(name);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Err(doubtful) => panic!("{name}: {doubtful}"),
                }
                if over.load(Relaxed) {
                    break;
                }
            }
            (written, refused)
        });
    }
    let mut moved = 0;
    let handing_over = async {
        while moved < 12 {
            let leads = |store: &&Arc<RaftStore>| store.leadership().borrow().epoch().is_some();
            let Some(leader) = stores.iter().find(leads) else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let before = leader.status().term;
            leader.hand_over().await;
            moved += usize::from(leader.status().term > before);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    tokio::time::timeout(PATIENCE, handing_over).await.expect("others take the lead");
    over.store(true, Relaxed);
    for (written, refused) in writing.join_all().await {
        assert!(!written.is_empty(), "nothing was written");
        stores[0].barrier().await.unwrap();
        let names = names(&stores[0]);
        assert!(written.iter().all(|name| names.contains(name)), "acknowledged, and lost");
        assert!(!refused.iter().any(|name| names.contains(name)), "refused, and written");
    }
    for store in stores {
        store.shutdown().await;
    }
}
