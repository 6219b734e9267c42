//! Several managers in one process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::store::{Batch, CommitError, Leadership, Store as _};

use super::{config, create, leads, names};
use crate::{LocalLinks, MemberError, Peer, RaftConfig, RaftStore};

const PATIENCE: Duration = Duration::from_secs(60);

fn settings(dir: &Path, raft_id: u64) -> RaftConfig {
    let mut settings = config(&dir.join(raft_id.to_string()));
    settings.raft_id = raft_id;
    settings.heartbeat = Duration::from_millis(50);
    settings.election = Duration::from_millis(300);
    settings.snapshot_entries = 50;
    settings.keep_entries = 5;
    settings
}

fn peer(raft_id: u64) -> Peer {
    Peer { raft_id, address: format!("10.0.0.{raft_id}:2377") }
}

async fn join(dir: &Path, links: &LocalLinks, raft_id: u64) -> Arc<RaftStore> {
    let store = RaftStore::open(settings(dir, raft_id), links.link(raft_id)).await.unwrap();
    links.join(&store);
    store
}

/// A group of three; the first leads.
async fn three(dir: &Path, links: &LocalLinks) -> [Arc<RaftStore>; 3] {
    let first = join(dir, links, 1).await;
    first.initialize(&peer(1).address).await.unwrap();
    let others = [join(dir, links, 2).await, join(dir, links, 3).await];
    for store in &others {
        first.add_member(&peer(store.raft_id())).await.unwrap();
    }
    let [second, third] = others;
    [first, second, third]
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_follow_and_say_who_leads() {
    let (dir, links) = (tempfile::tempdir().unwrap(), LocalLinks::default());
    let [first, second, third] = three(dir.path(), &links).await;
    let mut ids = IdSource::seeded(1);
    for number in 0..20 {
        first.commit(create(&mut ids, &format!("s{number:02}"))).await.unwrap();
    }
    for follower in [&second, &third] {
        follower.barrier().await.unwrap();
        assert_eq!(names(follower), names(&first), "after a barrier a read is linearizable");
        let refused = follower.commit(create(&mut ids, "x")).await;
        let leader = peer(1).address;
        assert_eq!(refused, Err(CommitError::NotLeader { leader: leader.clone() }));
        assert_eq!(*follower.leadership().borrow(), Leadership::Follower { leader });
    }
    let removed = second.remove_member(3).await;
    assert_eq!(removed, Err(MemberError::NotLeader(peer(1).address)));
    for store in [first, second, third] {
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_replaced_and_its_epoch_is_over() {
    let (dir, links) = (tempfile::tempdir().unwrap(), LocalLinks::default());
    let [first, second, third] = three(dir.path(), &links).await;
    let mut ids = IdSource::seeded(1);
    first.commit(create(&mut ids, "kept")).await.unwrap();
    let epoch = first.leadership().borrow().epoch();
    first.shutdown().await;
    let epoch_of = |store: &RaftStore| store.leadership().borrow().epoch();
    until("another must lead", || epoch_of(&second).or(epoch_of(&third)).is_some()).await;
    let (leader, other) =
        if epoch_of(&second).is_some() { (&second, &third) } else { (&third, &second) };
    assert!(epoch_of(leader) > epoch, "an epoch never repeats");
    assert_eq!(names(leader), ["kept"], "what was acknowledged is there when it leads");
    let stale = Batch { epoch, ..create(&mut ids, "stale") };
    assert_eq!(leader.commit(stale).await, Err(CommitError::StaleEpoch(epoch.unwrap())));
    leader.commit(create(&mut ids, "new")).await.unwrap();

    let first = join(dir.path(), &links, 1).await;
    until("the old leader must catch up", || names(&first) == ["kept", "new"]).await;
    other.barrier().await.unwrap();
    assert_eq!(names(other), ["kept", "new"]);
    for store in [first, second, third] {
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_acknowledges_nothing_and_disturbs_nobody() {
    let (dir, links) = (tempfile::tempdir().unwrap(), LocalLinks::default());
    let [first, second, third] = three(dir.path(), &links).await;
    let mut ids = IdSource::seeded(1);
    for peer in [1, 2] {
        links.cut(3, peer);
        links.cut(peer, 3);
    }
    let epoch = first.leadership().borrow().epoch();
    first.commit(create(&mut ids, "majority")).await.unwrap();
    assert!(third.barrier().await.is_err(), "a member that is cut off cannot read linearizably");
    tokio::time::sleep(4 * third.config.election).await;
    links.heal();
    until("the member must catch up", || names(&third) == ["majority"]).await;
    assert_eq!(first.leadership().borrow().epoch(), epoch, "pre-vote keeps the leader");

    for peer in [2, 3] {
        links.cut(1, peer);
        links.cut(peer, 1);
    }
    let lonely = tokio::time::timeout(2 * first.config.election, {
        let batch = create(&mut ids, "lonely");
        let first = first.clone();
        async move { first.commit(batch).await }
    });
    let acknowledged = matches!(lonely.await, Ok(Ok(_)));
    assert!(!acknowledged, "a leader without a majority acknowledges nothing");
    let leads = |store: &RaftStore| store.leadership().borrow().epoch().is_some();
    until("the majority must elect", || leads(&second) || leads(&third)).await;
    let leader = if leads(&second) { &second } else { &third };
    leader.commit(create(&mut ids, "other side")).await.unwrap();
    links.heal();
    until("the old leader must follow", || names(&first).contains(&"other side".to_owned())).await;
    assert_eq!(names(&first), names(leader), "one history");
    for store in [first, second, third] {
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_gets_a_snapshot_and_leadership_moves_by_request() {
    let (dir, links) = (tempfile::tempdir().unwrap(), LocalLinks::default());
    let first = join(dir.path(), &links, 1).await;
    first.initialize(&peer(1).address).await.unwrap();
    let mut ids = IdSource::seeded(1);
    for number in 0..200 {
        first.commit(create(&mut ids, &format!("s{number:03}"))).await.unwrap();
    }
    until("the log must be purged", || first.status().purged_index > Some(100)).await;
    let second = join(dir.path(), &links, 2).await;
    let mut watch = second.watch(swarm_core::model::Version(0));
    first.add_member(&peer(2)).await.unwrap();
    until("the snapshot must arrive", || names(&second).len() == 200).await;
    assert!(watch.next().await.is_err(), "a watch from before a snapshot lags");
    assert!(second.snapshot().objects().eq(first.snapshot().objects()));

    first.transfer_leadership(2).await.unwrap();
    leads(&second).await;
    second.commit(create(&mut ids, "second")).await.unwrap();
    second.remove_member(1).await.unwrap();
    until("one member must be left", || second.status().members.len() == 1).await;
    second.commit(create(&mut ids, "alone")).await.unwrap();
    first.shutdown().await;
    second.shutdown().await;

    let second = join(dir.path(), &links, 2).await;
    leads(&second).await;
    assert_eq!(names(&second).len(), 202, "an installed snapshot survives a restart");
    second.shutdown().await;
}
