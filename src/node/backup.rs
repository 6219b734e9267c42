//! A manager as one file, and a node that begins its cluster anew with one.
//!
//! The first line of the file is JSON ([`Lid`]): which cluster it is of, and the key that seals the rest,
//! itself sealed with the unlock key where the cluster has autolock. Without autolock the key is plain,
//! as it is in a manager's directory: whoever reads the file has the cluster. The rest is the whole
//! state, as `swarm_raft` writes it.
//!
//! No node's identity is in it. Who restores becomes a new node, certified with the root's key from the
//! state, and then begins the cluster anew like a manager that was told `--force-new-cluster`: so
//! every manager of before, should it still live, is of a group that was given up.

use std::io::{self, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use swarm_core::id::IdSource;
use swarm_core::model::{Cluster, ClusterId, NodeId, NodeRole};
use swarm_core::store::Store as _;
use swarm_core::time::{Clock as _, SystemClock, Timestamp};
use swarm_raft::{Backup, SealKey};
use tokio::sync::mpsc;
use tracing::info;

use super::member::{bind, with_real_port};
use super::seat::new_raft_id;
use super::{Membership, Node, RaftStores, StoreFactory as _, root, status};
use crate::error::{ApiError, Code};
use crate::http;
use crate::identity::{Credentials, Identity, IdentityError, UnlockKey};

const FORMAT: u32 = 1;
const PURPOSE: &str = "swarm backup";
/// Parts that wait for a slow reader, of 256 KiB each.
const WAITING: usize = 4;

/// The first line of a backup.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Lid {
    swarm_backup: u32,
    cluster: ClusterId,
    taken: Timestamp,
    /// Whether it takes the unlock key of then to open it.
    locked: bool,
    /// What seals the rest, in base64.
    key: String,
}

impl Lid {
    fn new(cluster: &Cluster, key: &SealKey) -> Self {
        let unlock = cluster.unlock_key.as_ref().and_then(|key| UnlockKey::of(key).seal_key());
        let stored = match &unlock {
            Some(unlock) => STANDARD.encode(unlock.seal(PURPOSE, key.expose())),
            None => STANDARD.encode(key.expose()),
        };
        let (cluster, taken) = (cluster.id, SystemClock.now());
        Self { swarm_backup: FORMAT, cluster, taken, locked: unlock.is_some(), key: stored }
    }

    /// What seals the rest.
    fn open(&self, unlock: Option<&UnlockKey>) -> Result<SealKey, String> {
        let damaged = || "its first line is damaged".to_owned();
        let stored = STANDARD.decode(&self.key).map_err(|_| damaged())?;
        if !self.locked {
            return SealKey::from_bytes(&stored).ok_or_else(damaged);
        }
        let Some(unlock) = unlock.and_then(UnlockKey::seal_key) else {
            return Err("it takes the unlock key that the cluster had then".to_owned());
        };
        let opened = unlock.open(PURPOSE, &stored).and_then(|key| SealKey::from_bytes(&key));
        opened.ok_or_else(|| "it does not open with this unlock key".to_owned())
    }
}

/// Reads a backup and finds it whole. Blocks.
fn read(file: &Path, unlock: Option<&UnlockKey>) -> Result<Backup, String> {
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let lid: Lid = serde_json::from_slice(&bytes[..end])
        .map_err(|_| "its first line is not that of a backup".to_owned())?;
    if lid.swarm_backup != FORMAT {
        return Err(format!("it is of format {}, this program reads {FORMAT}", lid.swarm_backup));
    }
    let key = lid.open(unlock)?;
    let backup = Backup::read(&bytes[end + 1..], file, &key).map_err(|error| error.to_string())?;
    match backup.state().cluster() {
        Some(cluster) if cluster.id == lid.cluster => Ok(backup),
        _ => Err("its first line is of another cluster".to_owned()),
    }
}

/// Hands parts on to a reader, and waits for it.
struct Parts(mpsc::Sender<io::Result<Bytes>>);

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Node {
    /// The cluster as this manager has it now.
    pub(super) async fn take_backup(&self) -> Result<http::Backup, ApiError> {
        let raft = {
            let member = self.member.lock().await;
            let managing = member.as_ref().and_then(|member| member.managing.as_ref());
            let managing = managing.ok_or_else(status::not_manager)?;
            managing.member.as_ref().map(|member| member.raft.clone())
        };
        let raft = raft.ok_or_else(|| {
            let text = "this manager's store makes no backups";
            ApiError::plain(Code::Unimplemented, text)
        })?;
        let view = raft.snapshot();
        let cluster = view.cluster().ok_or_else(status::not_manager)?;
        let key = SealKey::generate();
        let lid = serde_json::to_string(&Lid::new(cluster, &key));
        let lid = lid.map_err(|error| status::local("the backup", error))? + "\n";
        let (parts, written) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let failed = raft.backup_into(Parts(parts.clone()), &key).await.err();
            if let Some(error) = failed {
                let _ = parts.send(Err(error)).await;
            }
        });
        let parts =
            stream::unfold(written, async |mut written| Some((written.recv().await?, written)));
        Ok(stream::once(async { Ok(Bytes::from(lid)) }).chain(parts).boxed())
    }

    /// Makes this node, which is in no swarm, the only manager of the cluster in a backup, which begins
    /// anew with it. With autolock, `unlock` is the cluster's unlock key at the time of the backup.
    ///
    /// # Errors
    /// What is wrong with the file, or as when a node starts. Once the directory holds everything, the
    /// next start goes on; before that the node is in no swarm, and can be told again.
    pub async fn restore(
        &self,
        file: &Path,
        unlock: Option<&UnlockKey>,
    ) -> Result<NodeId, ApiError> {
        let mut member = self.member.lock().await;
        if member.is_some() || self.has_place() {
            return Err(status::already_member());
        }
        let (from, given) = (file.to_owned(), unlock.cloned());
        let backup = tokio::task::spawn_blocking(move || read(&from, given.as_ref())).await;
        let backup = backup.unwrap_or_else(|error| Err(error.to_string()));
        let backup = backup.map_err(|error| {
            let text = format!("the backup {} cannot be restored: {error}", file.display());
            ApiError::plain(Code::InvalidArgument, text)
        })?;
        let membership = self.put(backup, unlock).await?;
        self.resume_into(&mut member, membership).await
    }

    /// Puts everything into the directory; what makes it count comes last.
    async fn put(
        &self,
        backup: Backup,
        unlock: Option<&UnlockKey>,
    ) -> Result<Membership, ApiError> {
        let cluster = backup.state().cluster().cloned().ok_or_else(status::not_manager)?;
        let (listen, advertise) = self.addresses("", "")?;
        let (listen, advertise) =
            with_real_port(&bind(&listen.to_string()).await?, listen, advertise);
        self.dir.forget().map_err(|e| status::local("the state directory cannot be cleared", e))?;
        self.lock.forget();
        let locks = cluster.unlock_key.is_some();
        if let Some(key) = unlock.filter(|_| locks).and_then(UnlockKey::seal_key) {
            let locked = self.lock.lock_with(0, key);
            locked.map_err(|e| status::local("this node's lock", e))?;
        }
        self.seal_as_locked(true)?;
        let node = IdSource::random().next();
        let identity = Identity { node, role: NodeRole::Manager, cluster: cluster.id };
        let broken = |error: IdentityError| status::local("no certificate could be made", error);
        let own = root::certified(&cluster, &identity).await.map_err(broken)?;
        self.certificates.save(&own).map_err(broken)?;
        let membership = Membership {
            cluster: cluster.id,
            node,
            manager: true,
            raft_id: new_raft_id(),
            listen: listen.to_string(),
            advertise: advertise.to_string(),
            managers: vec![advertise.to_string()],
            recovery: cluster.recovery,
            begins_anew: true,
            start: 0,
            heard_start: 0,
        };
        let credentials = Credentials::new(own).map_err(broken)?;
        let place = self.store_place(&membership, &credentials, false);
        let restored = match &self.config.parts.store {
            Some(stores) => stores.restore(&place, backup).await,
            None => RaftStores.restore(&place, backup).await,
        };
        restored.map_err(|error| status::local("the manager's store", error))?;
        self.dir
            .remember(&membership)
            .map_err(|e| status::local("the membership was not kept", e))?;
        info!(%node, cluster = %cluster.id, "a backup was restored");
        Ok(membership)
    }
}
