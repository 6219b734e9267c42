//! Leaders that are in touch with a majority: one whose disk answers no more, and one that gets
//! nothing done.

use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use swarm_core::id::IdSource;
use swarm_core::store::Store as _;

use super::group::{peer, settings, until};
use super::sim_disk::SimDisk;
use super::{create, names};
use crate::{LinkError, LocalLinks, Message, Peer, RaftLink, RaftStore};

/// More bytes than a heartbeat has, and fewer than any entry.
const SMALL: usize = 200;

/// Long before a store has none any more.
const PATIENCE: Duration = Duration::from_secs(20);

/// A way on which what is large is lost while it is narrow, as where packets of full size are dropped
/// and nobody is told of it.
struct Way {
    link: Arc<dyn RaftLink>,
    narrow: Arc<AtomicBool>,
}

#[async_trait]
impl RaftLink for Way {
    async fn call(&self, peer: &Peer, message: Message) -> Result<Bytes, LinkError> {
        self.link.call(peer, message).await
    }

    fn stream<'a>(
        &'a self,
        peer: &Peer,
        messages: BoxStream<'static, Message>,
    ) -> BoxStream<'a, Result<Bytes, LinkError>> {
        let narrow = self.narrow.clone();
        let arriving = messages.filter(move |message| {
            ready(message.body.len() <= SMALL || !narrow.load(Ordering::Relaxed))
        });
        self.link.stream(peer, arriving.boxed())
    }
}

async fn all_have(stores: &[Arc<RaftStore>], last: &str) {
    let has = |store: &Arc<RaftStore>| names(store).iter().any(|name| name == last);
    until("all of them must have it", || stores.iter().all(has)).await;
}

/// Three, each on a disk of its own; the first leads, and its way to the others may become narrow.
async fn three(narrow: &Arc<AtomicBool>) -> (Vec<SimDisk>, Vec<Arc<RaftStore>>) {
    let links = LocalLinks::default();
    let (mut disks, mut stores) = (Vec::new(), Vec::<Arc<RaftStore>>::new());
    for raft_id in 1..=3 {
        let disk = SimDisk::default();
        let mut settings = settings(Path::new("/sim"), raft_id);
        settings.disk = Arc::new(disk.clone());
        let narrow = if raft_id == 1 { narrow.clone() } else { Arc::default() };
        let link = Arc::new(Way { link: links.link(raft_id), narrow });
        let store = RaftStore::open(settings, link).await.unwrap();
        links.join(&store);
        match stores.first() {
            None => store.initialize(&peer(raft_id).address).await.unwrap(),
            Some(first) => first.add_member(&peer(raft_id)).await.unwrap(),
        }
        disks.push(disk);
        stores.push(store);
    }
    (disks, stores)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_entries_do_not_arrive_gives_the_lead_away() {
    let narrow = Arc::<AtomicBool>::default();
    let (_, stores) = three(&narrow).await;
    let mut ids = IdSource::seeded(1);
    stores[0].commit(create(&mut ids, "before")).await.unwrap();
    all_have(&stores, "before").await;

    // Heartbeats arrive, and keep everybody else from trying.
    narrow.store(true, Ordering::Relaxed);
    let (first, batch) = (stores[0].clone(), create(&mut ids, "in doubt"));
    let waiting = tokio::spawn(async move { first.commit(batch).await });
    let leads = |store: &RaftStore| store.leadership().borrow().epoch().is_some();
    until("another must lead", || leads(&stores[1]) || leads(&stores[2])).await;
    let leader = if leads(&stores[1]) { &stores[1] } else { &stores[2] };
    leader.commit(create(&mut ids, "after")).await.unwrap();
    all_have(&stores, "after").await;
    let in_doubt = waiting.await.unwrap();
    assert!(in_doubt.is_err(), "the others have never got it: {in_doubt:?}");
    for store in &stores {
        assert_eq!(names(store), ["after", "before"]);
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_answers_no_more_commits_with_those_of_the_others() {
    let (disks, stores) = three(&Arc::default()).await;
    let mut ids = IdSource::seeded(1);
    disks[0].hang_syncs(true);
    for number in 0..20 {
        let write = stores[0].commit(create(&mut ids, &format!("s{number:02}")));
        let written = tokio::time::timeout(PATIENCE, write).await;
        written.expect("nothing waits for that disk").unwrap();
    }
    all_have(&stores, "s19").await;
    disks[0].hang_syncs(false);
    stores[0].commit(create(&mut ids, "after")).await.unwrap();
    all_have(&stores, "after").await;
    for store in stores {
        store.shutdown().await;
    }
}
