//! The lock of a manager: what opens it, how it follows the cluster, and crashes in between.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use swarm_core::id::IdSource;
use swarm_core::model::{Cluster, NodeRole, SecretBytes};
use swarm_core::store::{Batch, Change, MemoryStore};
use swarm_core::time::{Clock as _, SystemClock};
use swarm_raft::FsDisk;

use super::*;
use crate::crash_disk::{Crash, CrashDisk, calm};
use crate::identity::{Authority, Identity, KeyRequest, NodeIdentity};

fn key(byte: u8) -> SealKey {
    SealKey::from_bytes(&[byte; 32]).unwrap()
}

fn identity() -> NodeIdentity {
    let (now, mut ids) = (SystemClock.now(), IdSource::random());
    let authority = Authority::create(now).unwrap();
    let who = Identity { node: ids.next(), role: NodeRole::Manager, cluster: ids.next() };
    let KeyRequest { key, csr } = KeyRequest::generate().unwrap();
    let pem = authority.issue(&csr, &who, std::time::Duration::from_secs(86_400), now).unwrap();
    NodeIdentity::new(authority.root().clone(), pem, key).unwrap()
}

/// A store of one key, kept as a node's key is.
struct OneKey(IdentityFiles);

#[async_trait]
impl SealStore for OneKey {
    async fn seal_keys(&self, key: Option<SealKey>) -> Result<(), String> {
        self.0.seal_with(key).map_err(|error| error.to_string())
    }
}

/// A node's directory as one process has it.
struct Process {
    lock: Arc<Lock>,
    protected: Protected,
    files: [IdentityFiles; 2],
}

impl Process {
    /// Starts it: tries the keys that its operator has, and reads what is there.
    fn start(disk: &CrashDisk, dir: &Path, keys: &[SealKey]) -> Self {
        let disk = Arc::new(disk.clone());
        let lock = Arc::new(Lock::new(disk.clone(), dir.to_owned()));
        if lock.is_locked().unwrap() {
            let opens = |key: &SealKey| lock.unlock(key).unwrap();
            assert_eq!(keys.iter().filter(|key| opens(key)).count(), 1, "one key opens it");
            assert!(!lock.is_locked().unwrap());
        }
        let files = ["certificates", "store"]
            .map(|name| IdentityFiles::with(disk.clone(), dir.join(name), lock.node_key()));
        let [identity, store] = files.clone();
        let store: Option<Arc<dyn SealStore>> = Some(Arc::new(OneKey(store)));
        let protected = Protected { identity, store, renew: Arc::default() };
        Self { lock, protected, files }
    }

    async fn change(&self, revision: u64, key: Option<&SealKey>) -> Result<(), String> {
        change(&self.lock, revision, key.cloned(), &self.protected).await
    }

    fn has(&self, node: &NodeIdentity) -> bool {
        let keeps = |files: &IdentityFiles| files.load().unwrap().unwrap().key() == node.key();
        self.files.iter().all(keeps)
    }
}

/// Every file below the directory that holds the bytes.
fn holding(dir: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, bytes));
        } else if std::fs::read(&path).unwrap().windows(bytes.len()).any(|at| at == bytes) {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn a_crash_at_any_step_leaves_a_node_that_the_old_or_the_new_key_opens() {
    let node = identity();
    let calm = calm();
    let mut total = 0;
    for (from, to) in [(None, Some(1)), (Some(1), Some(2)), (Some(2), None)] {
        let (from, to) = (from.map(key), to.map(key));
        let keys: Vec<_> = from.iter().chain(&to).cloned().collect();
        let (mut at, mut points) = (0, 1);
        while at <= points {
            for crash in Crash::ALL {
                let dir = tempfile::tempdir().unwrap();
                let before = Process::start(&calm, dir.path(), &[]);
                before.files.iter().for_each(|files| files.save(&node).unwrap());
                before.change(1, from.as_ref()).await.unwrap();
                let disk = CrashDisk::new(at, crash);
                let changed = Process::start(&disk, dir.path(), &keys).change(2, to.as_ref()).await;
                let point = format!("{from:?} to {to:?}, change {at}, {crash:?}");
                assert_eq!(changed.is_ok(), at == 0, "{point}: {changed:?}");
                if at == 0 {
                    points = disk.changes();
                }
                // The next process reads everything, and goes on to where it shall be.
                let after = Process::start(&calm, dir.path(), &keys);
                assert!(after.has(&node), "{point}");
                after.change(2, to.as_ref()).await.unwrap();
                let last = Process::start(&calm, dir.path(), to.as_slice());
                assert!(last.has(&node) && last.lock.node_key().is_some() == to.is_some());
                let plain = holding(dir.path(), &node.key().expose()[40..80]);
                assert_eq!(plain.is_empty(), to.is_some(), "{point}: {plain:?}");
                total += usize::from(at > 0);
            }
            at += 1;
        }
    }
    println!("{total} crashes");
    assert!(total > 60, "{total}");
}

#[test]
fn a_lock_opens_with_its_key_alone_and_says_when_it_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let lock = || Lock::new(Arc::new(FsDisk), dir.path().to_owned());
    assert!(!lock().is_locked().unwrap(), "no file, no lock");
    lock().lock_with(7, key(1)).unwrap();
    let locked = lock();
    assert!(locked.is_locked().unwrap());
    assert!(!locked.unlock(&key(2)).unwrap());
    assert!(locked.is_locked().unwrap() && locked.node_key().is_none());
    assert!(locked.unlock(&key(1)).unwrap());
    assert!(!locked.is_locked().unwrap() && locked.node_key().is_some());
    let node_key = locked.node_key().unwrap();
    locked.lock_with(8, key(2)).unwrap();
    assert_eq!(locked.node_key(), Some(node_key.clone()), "a rotation changes this file alone");
    assert_eq!(holding(dir.path(), node_key.expose()), Vec::<PathBuf>::new());
    locked.open_for_good(9).unwrap();
    locked.lock_with(10, key(2)).unwrap();
    assert_ne!(locked.node_key(), Some(node_key), "what was sealed with it is plain now");

    let file = dir.path().join("unlock.json");
    let old = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, old.replace("10", "11")).unwrap();
    assert!(!lock().unlock(&key(2)).unwrap(), "the revision is sealed too");
    std::fs::write(&file, "{").unwrap();
    let error = lock().is_locked().unwrap_err().to_string();
    assert!(error.contains("unlock.json is damaged") && error.contains("leave --force"), "{error}");
}

async fn set(store: &dyn Store, key: Option<u8>) -> u64 {
    let stored = key.map(|byte| SecretBytes::from(vec![byte; 32]));
    let change = match store.snapshot().cluster() {
        Some(cluster) => Change::update(Cluster { unlock_key: stored, ..Cluster::clone(cluster) }),
        None => {
            let id = IdSource::random().next();
            Change::create(Cluster { id, unlock_key: stored, ..Cluster::default() })
        }
    };
    store.commit(Batch::new(SystemClock.now(), vec![change])).await.unwrap().0
}

/// Waits until a new process would open the directory with this key, or without any.
async fn opens_with(dir: &Path, expected: Option<u8>) {
    let is_so = || {
        let lock = Lock::new(Arc::new(FsDisk), dir.to_owned());
        match expected {
            None => !lock.is_locked().unwrap(),
            Some(byte) => lock.is_locked().unwrap() && lock.unlock(&key(byte)).unwrap(),
        }
    };
    let wait = async {
        while !is_so() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.expect("it follows");
}

#[tokio::test]
async fn a_manager_that_was_down_opens_with_the_old_key_and_follows_to_the_new_one() {
    let (dir, node) = (tempfile::tempdir().unwrap(), identity());
    let calm = calm();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let follow = |keys: &[SealKey]| {
        let process = Process::start(&calm, dir.path(), keys);
        let (lock, renew) = (process.lock.clone(), process.protected.renew.clone());
        (Following::start(lock, store.clone(), process.protected), process.files, renew)
    };
    let first = Process::start(&calm, dir.path(), &[]);
    first.files.iter().for_each(|files| files.save(&node).unwrap());

    let (following, _, renew) = follow(&[]);
    set(&*store, None).await;
    let old = set(&*store, Some(1)).await;
    opens_with(dir.path(), Some(1)).await;
    renew.notified().await; // What was plain on the disk is replaced.
    following.stop().await;

    set(&*store, Some(2)).await;
    opens_with(dir.path(), Some(1)).await; // It was down.
    let (following, files, _) = follow(&[key(1)]);
    assert!(files.iter().all(|files| files.load().unwrap().is_some()));
    opens_with(dir.path(), Some(2)).await;
    following.stop().await;

    // A log that is replayed shows the old key first: it does not come back.
    let replayed = Process::start(&calm, dir.path(), &[key(2)]);
    assert!(replayed.lock.follows(old, Some(&key(1))), "an older revision is no news");
    let (following, ..) = follow(&[key(2)]);
    set(&*store, None).await;
    opens_with(dir.path(), None).await;
    following.stop().await;
    assert!(Process::start(&calm, dir.path(), &[]).has(&node));
    let open = Process::start(&calm, dir.path(), &[]);
    assert!(open.lock.follows(old, Some(&key(1))), "nor does a lock");
}
