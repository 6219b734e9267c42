//! What clients do with the cluster itself (SwarmKit: `controlapi/cluster.go`; moby:
//! `convert.MergeSwarmSpecToGRPC`).

use swarm_core::model::{CaConfig, Cluster, ClusterSpec, RootCa, SecretBytes, Version, validate};
use swarm_core::store::Change;
use zeroize::Zeroizing;

use super::find::Find as _;
use super::{Control, ca, check_version, out_of_sequence};
use crate::error::{ApiError, Code};
use crate::identity::{JoinToken, UnlockKey};

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
        self.up_to_date().await?;
        let before = self.view()?.the_cluster()?;
        let root_ca = self.root_after(&before, version, &spec).await?;
        self.transact(|view| {
            let mut cluster = Cluster::clone(&*view.the_cluster()?);
            let merged = merge(&cluster.spec, &spec);
            validate::cluster(&merged)?;
            check_version(cluster.version, version)?;
            if root_ca != before.root_ca {
                // What services outside were asked for was meant for the root as it was then.
                if cluster.root_ca != before.root_ca {
                    return Err(out_of_sequence());
                }
                cluster.root_rotation_in_progress = root_ca.rotation.is_some();
                cluster.tls_info = ca::tls_info(&root_ca)?;
                cluster.root_ca = root_ca.clone();
            }
            cluster.spec = merged;
            // They are in the root now. As settings they would come back with the next change,
            // without the key, which is never shown.
            cluster.spec.ca_config.signing_ca_cert.clear();
            cluster.spec.ca_config.signing_ca_key.clear();
            cluster.unlock_key = unlock_key(&cluster, rotate.unlock_key);
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

    /// The root that the cluster has with these settings.
    async fn root_after(
        &self,
        cluster: &Cluster,
        version: Version,
        spec: &ClusterSpec,
    ) -> Result<RootCa, ApiError> {
        let merged = merge(&cluster.spec, spec);
        validate::cluster(&merged)?;
        check_version(cluster.version, version)?;
        let config = &merged.ca_config;
        let node_cert_expiry = config.node_cert_expiry;
        if *config == (CaConfig { node_cert_expiry, ..cluster.spec.ca_config.clone() }) {
            // Other settings change, whether or not a service outside can be reached.
            return Ok(cluster.root_ca.clone());
        }
        ca::check_services(&config.external_cas)?;
        let (external, now) = (self.external.as_ref(), self.clock.now());
        ca::RootChange { cluster, config, external, now }.decide().await
    }

    /// The key that unlocks this cluster's managers; empty while they are not locked.
    ///
    /// # Errors
    /// That there is no leader.
    pub fn unlock_key(&self) -> Result<Zeroizing<String>, ApiError> {
        let cluster = self.view()?.the_cluster()?;
        let key = cluster.unlock_key.as_ref().map(|key| UnlockKey::of(key).expose());
        Ok(key.unwrap_or_default())
    }
}

/// The key for the cluster's present settings: none without autolock, else the one that there is,
/// or a new one where there is none or it is to be replaced.
fn unlock_key(cluster: &Cluster, rotate: bool) -> Option<SecretBytes> {
    if !cluster.spec.encryption_config.auto_lock_managers {
        return None;
    }
    let old = cluster.unlock_key.clone().filter(|_| !rotate);
    old.or_else(|| Some(UnlockKey::generate().stored()))
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
