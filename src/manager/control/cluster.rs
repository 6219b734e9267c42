//! What clients do with the cluster itself (SwarmKit: `controlapi/cluster.go`; moby:
//! `convert.MergeSwarmSpecToGRPC`).

use swarm_core::model::{CaConfig, Cluster, ClusterSpec, Version, validate};
use swarm_core::store::Change;

use super::find::Find as _;
use super::{Control, check_version, unimplemented};
use crate::error::{ApiError, Code};
use crate::identity::JoinToken;

/// Which of the cluster's keys to replace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotate {
    /// The token for workers.
    pub worker_token: bool,
    /// The token for managers.
    pub manager_token: bool,
    /// The key that unlocks managers.
    pub unlock_key: bool,
}

impl Control {
    /// Changes the cluster's settings and replaces keys. Settings that the request leaves out
    /// stay as they are.
    ///
    /// # Errors
    /// That the version is not the present one, or what is wrong with the settings.
    pub async fn update_cluster(
        &self,
        version: Version,
        spec: ClusterSpec,
        rotate: Rotate,
    ) -> Result<(), ApiError> {
        self.transact(|view| {
            let mut cluster = Cluster::clone(&*view.the_cluster()?);
            let merged = merge(&cluster.spec, &spec);
            validate::cluster(&merged)?;
            check_version(cluster.version, version)?;
            supported(&cluster.spec, &merged)?;
            cluster.spec = merged;
            if rotate.worker_token {
                cluster.join_tokens.worker = rotated(&cluster.join_tokens.worker)?;
            }
            if rotate.manager_token {
                cluster.join_tokens.manager = rotated(&cluster.join_tokens.manager)?;
            }
            Ok((vec![Change::update(cluster)], ()))
        })
        .await
    }

    /// The key that unlocks this cluster's managers; empty while they are not locked.
    ///
    /// # Errors
    /// That there is no leader.
    pub fn unlock_key(&self) -> Result<String, ApiError> {
        let cluster = self.view()?.the_cluster()?;
        let key =
            cluster.unlock_key.as_ref().map(|key| String::from_utf8_lossy(key.expose()).into());
        Ok(key.unwrap_or_default())
    }
}

/// A token that pins the same authority, with a new secret.
fn rotated(token: &str) -> Result<String, ApiError> {
    let old: JoinToken = token.parse().map_err(|error: crate::identity::IdentityError| {
        ApiError::rpc(Code::Unknown, format!("the stored join token is damaged: {error}"))
    })?;
    // Not from the control API's source of ids, which a simulation seeds: this is a secret.
    let mut rng: rand::rngs::StdRng = rand::make_rng();
    Ok(JoinToken::generate(old.root(), &mut rng).expose())
}

/// The settings with what a client gave in place of what was.
fn merge(old: &ClusterSpec, given: &ClusterSpec) -> ClusterSpec {
    fn pick<T: PartialEq + Default + Clone>(given: &T, old: &T) -> T {
        if *given == T::default() { old.clone() } else { given.clone() }
    }
    let mut merged = given.clone();
    merged.name = pick(&given.name, &old.name);
    merged.labels = pick(&given.labels, &old.labels);
    merged.orchestration.task_history_retention_limit = given
        .orchestration
        .task_history_retention_limit
        .or(old.orchestration.task_history_retention_limit);
    merged.raft.snapshot_interval =
        pick(&given.raft.snapshot_interval, &old.raft.snapshot_interval);
    merged.raft.keep_old_snapshots = given.raft.keep_old_snapshots.or(old.raft.keep_old_snapshots);
    merged.raft.log_entries_for_slow_followers =
        pick(&given.raft.log_entries_for_slow_followers, &old.raft.log_entries_for_slow_followers);
    merged.raft.election_tick = pick(&given.raft.election_tick, &old.raft.election_tick);
    merged.raft.heartbeat_tick = pick(&given.raft.heartbeat_tick, &old.raft.heartbeat_tick);
    merged.dispatcher.heartbeat_period =
        pick(&given.dispatcher.heartbeat_period, &old.dispatcher.heartbeat_period);
    let log_driver = given.task_defaults.log_driver.as_ref();
    merged.task_defaults.log_driver = log_driver.or(old.task_defaults.log_driver.as_ref()).cloned();
    merged.ca_config = CaConfig {
        node_cert_expiry: pick(&given.ca_config.node_cert_expiry, &old.ca_config.node_cert_expiry),
        ..given.ca_config.clone()
    };
    merged
}

/// Refuses what would be stored without effect.
fn supported(old: &ClusterSpec, new: &ClusterSpec) -> Result<(), ApiError> {
    let rotates = new.ca_config.force_rotate != old.ca_config.force_rotate
        || !new.ca_config.signing_ca_cert.is_empty()
        || !new.ca_config.signing_ca_key.is_empty();
    if rotates {
        return Err(unimplemented("rotating the root certificate is not supported yet"));
    }
    if !new.ca_config.external_cas.is_empty() {
        return Err(unimplemented("external certificate authorities are not supported yet"));
    }
    if new.encryption_config.auto_lock_managers && !old.encryption_config.auto_lock_managers {
        return Err(unimplemented("autolock is not supported yet"));
    }
    Ok(())
}
