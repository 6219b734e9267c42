//! Several managers in one process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::store::{Batch, CommitError, Epoch, Leadership, Store as _};

use super::{config, create, leads, names};
use crate::types::{Entry, Payload};
use crate::{LocalLinks, MemberError, Peer, RaftConfig, RaftStore};

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn settings(dir: &Path, raft_id: u64) -> RaftConfig {
    let mut settings = config(&dir.join(raft_id.to_string()));
    settings.raft_id = raft_id;
    settings.heartbeat = Duration::from_millis(50);
    settings.election = Duration::from_millis(700);
    settings.snapshot_entries = 50;
    settings.keep_entries = 5;
    settings
}

pub(super) fn peer(raft_id: u64) -> Peer {
    Peer { raft_id, address: format!("10.0.0.{raft_id}:2377") }
}

pub(super) async fn join(dir: &Path, links: &LocalLinks, raft_id: u64) -> Arc<RaftStore> {
    let store = RaftStore::open(settings(dir, raft_id), links.link(raft_id)).await.unwrap();
    links.join(&store);
    store
}

/// A group of three; the first leads.
pub(super) async fn three(dir: &Path, links: &LocalLinks) -> [Arc<RaftStore>; 3] {
    let first = join(dir, links, 1).await;
    first.initialize(&peer(1).address).await.unwrap();
    let others = [join(dir, links, 2).await, join(dir, links, 3).await];
    for store in &others {
        first.add_member(&peer(store.raft_id())).await.unwrap();
    }
    let [second, third] = others;
    [first, second, third]
}

pub(super) async fn until(what: &str, mut done: impl FnMut() -> bool) {
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
        let leader = peer(1).address;
        assert_eq!(*follower.leadership().borrow(), Leadership::Follower { leader });
        let own = Batch { epoch: Some(Epoch(1)), ..create(&mut ids, "x") };
        let refused = follower.commit(own).await;
        let leader = peer(1).address;
        assert_eq!(refused, Err(CommitError::NotLeader { leader }), "what a leader decided");
    }
    let removed = second.remove_member(3).await;
    assert_eq!(removed, Err(MemberError::NotLeader(peer(1).address)));
    for store in [first, second, third] {
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_has_the_leader_commit_and_can_read_it_at_once() {
    let (dir, links) = (tempfile::tempdir().unwrap(), LocalLinks::default());
    let [first, second, third] = three(dir.path(), &links).await;
    let mut ids = IdSource::seeded(1);
    for number in 0..20 {
        let name = format!("s{number:02}");
        let version = second.commit(create(&mut ids, &name)).await.unwrap();
        assert!(names(&second).contains(&name), "acknowledged, and not to be read");
        assert!(second.snapshot().version() >= version);
    }
    let taken = CommitError::NameTaken { kind: "service", name: "s00".to_owned() };
    assert_eq!(third.commit(create(&mut ids, "s00")).await, Err(taken), "the leader's own answer");

    // The leader goes, and another one takes writes.
    first.shutdown().await;
    drop(first);
    let write = async {
        // Whoever asks while an election goes on is kept waiting, but not for long.
        while let Err(error) = second.commit(create(&mut ids, "after")).await {
            assert_eq!(error, CommitError::NoLeader);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, write).await.expect("another leads soon");
    until("the other one has it too", || names(&third).contains(&"after".to_owned())).await;

    // Without a majority there is a clear answer.
    third.shutdown().await;
    drop(third);
    let mut leadership = second.leadership();
    let none = leadership.wait_for(|now| *now == Leadership::None);
    tokio::time::timeout(PATIENCE, none).await.expect("no majority, no leader").unwrap();
    assert_eq!(second.commit(create(&mut ids, "lonely")).await, Err(CommitError::NoLeader));
    second.shutdown().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_members_is_whole_or_none() {
    let (dir, links) = (tempfile::tempdir().unwrap(), LocalLinks::default());
    let [first, second, third] = three(dir.path(), &links).await;
    let own = first.remove_member(1).await;
    assert!(matches!(&own, Err(MemberError::Refused(why)) if why.contains("leads")), "{own:?}");
    first.remove_member(3).await.unwrap();
    let voters = |entry: Entry| match entry.payload {
        Payload::Membership(members) => Some(members.get_joint_config().clone()),
        _ => None,
    };
    let agreed: Vec<_> = first.log_entries().into_iter().filter_map(voters).collect();
    let sets: Vec<&[u64]> = vec![&[1], &[1], &[1, 2], &[1, 2], &[1, 2, 3], &[1, 2]];
    let one = |set: &[u64]| vec![set.iter().copied().collect()];
    let expected: Vec<_> = sets.into_iter().map(one).collect();
    assert_eq!(
        agreed, expected,
        "a learner, then a vote: nothing that a lost leader leaves half done"
    );
    assert_eq!(first.status().members.len(), 2);
    for store in [first, second, third] {
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_member_says_what_to_do_and_that_helps() {
    let (dir, links) = (tempfile::tempdir().unwrap(), LocalLinks::default());
    let [first, second, third] = three(dir.path(), &links).await;
    let mut ids = IdSource::seeded(1);
    for number in 0..20 {
        first.commit(create(&mut ids, &format!("s{number:02}"))).await.unwrap();
    }
    until("it must have it all", || names(&third).len() == 20).await;
    third.shutdown().await;
    drop(third);
    let own = dir.path().join("3");
    let segments = std::fs::read_dir(&own).unwrap().map(|entry| entry.unwrap().path());
    let segment = segments.filter(|path| path.to_str().unwrap().contains("log-")).min().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[700] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let refused = RaftStore::open(settings(dir.path(), 3), links.link(3)).await.err();
    let text = refused.expect("damage is refused").to_string();
    assert!(text.contains("is damaged at byte") && text.contains("empty its directory"), "{text}");

    // As it says: the group goes on without it, and it comes back as a new member.
    first.remove_member(3).await.unwrap();
    std::fs::remove_dir_all(&own).unwrap();
    let again = join(dir.path(), &links, 4).await;
    first.add_member(&peer(4)).await.unwrap();
    until("its peers must repair it", || names(&again) == names(&first)).await;
    for store in [first, second, again] {
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_a_members_directory_is_not_followed() {
    let (dir, links) = (tempfile::tempdir().unwrap(), LocalLinks::default());
    let [first, second, third] = three(dir.path(), &links).await;
    let (own, copy) = (dir.path().join("3"), dir.path().join("copy"));
    third.shutdown().await;
    drop(third);
    std::fs::create_dir(&copy).unwrap();
    let files = || std::fs::read_dir(&own).unwrap().map(|entry| entry.unwrap().file_name());
    for name in files() {
        std::fs::copy(own.join(&name), copy.join(&name)).unwrap();
    }
    let third = join(dir.path(), &links, 3).await;
    let mut ids = IdSource::seeded(1);
    for number in 0..20 {
        first.commit(create(&mut ids, &format!("s{number:02}"))).await.unwrap();
    }
    // What it has applied it may not have confirmed yet, and only that must never be gone again.
    until("it confirms them", || first.status().members[2].matched > Some(20)).await;
    third.shutdown().await;
    drop(third);
    std::fs::remove_dir_all(&own).unwrap();
    std::fs::rename(&copy, &own).unwrap();

    let epoch = first.leadership().borrow().epoch();
    let old = join(dir.path(), &links, 3).await;
    tokio::time::sleep(4 * old.config.election).await;
    first.commit(create(&mut ids, "after")).await.unwrap();
    assert!(names(&old).is_empty(), "it is not fed as if nothing had happened");
    assert_eq!(first.leadership().borrow().epoch(), epoch, "it disturbs nobody");
    // As the leader's log says.
    first.remove_member(3).await.unwrap();
    let again = join(dir.path(), &links, 4).await;
    first.add_member(&peer(4)).await.unwrap();
    until("a new member gets it all", || names(&again) == names(&first)).await;
    for store in [first, second, old, again] {
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_says_so_to_who_waits() {
    let (dir, links) = (tempfile::tempdir().unwrap(), LocalLinks::default());
    let [first, second, third] = three(dir.path(), &links).await;
    for peer in [2, 3] {
        links.cut(1, peer);
        links.cut(peer, 1);
    }
    let started = tokio::time::Instant::now();
    let lonely = first.commit(create(&mut IdSource::seeded(1), "lonely")).await;
    let Err(CommitError::Unknown(why)) = lonely else { panic!("{lonely:?}") };
    assert!(why.contains("lost the lead, or the majority"), "{why}");
    assert!(started.elapsed() < crate::store::PATIENCE, "long before patience ends");
    assert_eq!(*first.leadership().borrow(), Leadership::None);
    links.heal();
    for store in [first, second, third] {
        store.shutdown().await;
    }
}
