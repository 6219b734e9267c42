//! The cluster object: settings, join tokens and the root of trust.

use std::sync::Arc;

use super::{ClusterId, Driver, Labels, NodeId, SecretBytes, TlsInfo, Version};
use crate::time::{Nanos, Timestamp};

crate::object! {
    /// Settings of the orchestrators.
    pub struct OrchestrationConfig {
        /// Ended tasks to keep for each slot; negative keeps all.
        task_history_retention_limit: Option<i64> = "TaskHistoryRetentionLimit" omit,
    }
}

crate::object! {
    /// Settings of the replicated log. Ticks are of one second in Docker's unit.
    pub struct RaftConfig {
        /// Entries between two snapshots.
        snapshot_interval: u64 = "SnapshotInterval" omit,
        /// Old snapshots to keep.
        keep_old_snapshots: Option<u64> = "KeepOldSnapshots" omit,
        /// Entries to keep behind a snapshot for slow followers.
        log_entries_for_slow_followers: u64 = "LogEntriesForSlowFollowers" omit,
        /// Ticks without a leader before an election.
        election_tick: u64 = "ElectionTick" omit,
        /// Ticks between two heartbeats.
        heartbeat_tick: u64 = "HeartbeatTick" omit,
    }
}

crate::object! {
    /// Settings of the dispatcher.
    pub struct DispatcherConfig {
        /// Time between two heartbeats of an agent.
        heartbeat_period: Nanos = "HeartbeatPeriod" omit,
    }
}

crate::object! {
    /// A certificate authority outside the cluster.
    pub struct ExternalCa {
        /// `cfssl`.
        protocol: String = "Protocol" omit,
        /// Where it answers, `https` only.
        url: String = "URL" omit,
        /// Options.
        options: Labels = "Options" omit,
        /// Its root certificate, PEM.
        ca_cert: String = "CACert" omit,
    }
}

crate::object! {
    /// Settings of the certificate authority.
    pub struct CaConfig {
        /// The life of a node certificate.
        node_cert_expiry: Nanos = "NodeCertExpiry" omit,
        /// External signers.
        external_cas: Vec<ExternalCa> = "ExternalCAs" omit,
        /// The root to rotate to.
        signing_ca_cert: String = "SigningCACert" omit,
        /// Its key; never returned.
        signing_ca_key: String = "SigningCAKey" omit secret,
        /// A counter that forces a rotation.
        force_rotate: u64 = "ForceRotate" omit,
    }
}

crate::object! {
    /// Defaults for tasks.
    pub struct TaskDefaults {
        /// The log driver where a service names none.
        log_driver: Option<Arc<Driver>> = "LogDriver" omit,
    }
}

crate::object! {
    /// Settings of the encryption at rest.
    pub struct EncryptionConfig {
        /// Whether managers stay locked after a restart until they are given a key.
        auto_lock_managers: bool = "AutoLockManagers",
    }
}

crate::object! {
    /// What an operator says of the cluster.
    pub struct ClusterSpec {
        /// Always `default`.
        name: String = "Name" omit,
        /// Labels.
        labels: Labels = "Labels",
        /// Settings of the orchestrators.
        orchestration: OrchestrationConfig = "Orchestration",
        /// Settings of the replicated log.
        raft: RaftConfig = "Raft",
        /// Settings of the dispatcher.
        dispatcher: DispatcherConfig = "Dispatcher",
        /// Settings of the certificate authority.
        ca_config: CaConfig = "CAConfig",
        /// Defaults for tasks.
        task_defaults: TaskDefaults = "TaskDefaults",
        /// Settings of the encryption at rest.
        encryption_config: EncryptionConfig = "EncryptionConfig",
    }
}

crate::object! {
    /// The tokens that let a node join.
    pub struct JoinTokens {
        /// As a worker.
        worker: String = "Worker" omit secret,
        /// As a manager.
        manager: String = "Manager" omit secret,
    }
}

crate::object! {
    /// A root that is being rolled out: it becomes the root once every node holds a certificate
    /// that it issued. (Ours.)
    pub struct RootRotation {
        /// The certificate of the root to come, PEM.
        certificate: String = "Certificate" omit,
        /// Its private key, PKCS #8 PEM; absent with an external authority.
        key: Option<SecretBytes> = "Key" omit,
        /// The same name and key certified by the present root, PEM: with it, a certificate of the
        /// root to come is good for whoever trusts the present one alone.
        cross_signed: String = "CrossSigned" omit,
        /// The tokens from then on, made with the root: the decision to finish draws no secrets.
        join_tokens: JoinTokens = "JoinTokens" omit,
    }
}

crate::object! {
    /// The cluster's root of trust. Never part of an API response. (Ours.)
    pub struct RootCa {
        /// The root certificate, PEM.
        certificate: String = "Certificate" omit,
        /// Its private key, PKCS #8 PEM; absent with an external authority.
        key: Option<SecretBytes> = "Key" omit,
        /// The root to come, while one is being rolled out.
        rotation: Option<RootRotation> = "Rotation" omit,
        /// The counter of [`CaConfig::force_rotate`] that was acted on last.
        last_forced_rotation: u64 = "LastForcedRotation" omit,
    }
}

impl RootCa {
    /// Every root that nodes shall trust now, PEM: during a rotation the present one and the one
    /// to come, in this order.
    #[must_use]
    pub fn trusted(&self) -> String {
        match &self.rotation {
            Some(rotation) => format!("{}{}", self.certificate, rotation.certificate),
            None => self.certificate.clone(),
        }
    }
}

crate::object! {
    /// A node that was removed: its certificate is refused until it has expired. (Ours.)
    pub struct BlacklistedCertificate {
        /// The node that it was issued to.
        node_id: NodeId = "NodeID",
        /// When the entry may be dropped.
        until: Timestamp = "Until",
    }
}

crate::object! {
    /// The one object that describes the cluster.
    pub struct Cluster {
        /// Its id, which every certificate carries.
        id: ClusterId = "ID",
        /// The commit that last changed the specification.
        version: Version = "Version",
        /// When it was created.
        created_at: Timestamp = "CreatedAt",
        /// When it was last changed.
        updated_at: Timestamp = "UpdatedAt",
        /// The commit that last changed anything. (Ours.)
        revision: Version = "Revision" omit,
        /// What the operator says of it.
        spec: ClusterSpec = "Spec",
        /// What the cluster trusts, and which root issues: during a rotation the one to come.
        tls_info: TlsInfo = "TLSInfo" omit,
        /// Whether a new root is being rolled out.
        root_rotation_in_progress: bool = "RootRotationInProgress",
        /// Where networks without ranges of their own get them from; empty is 10.0.0.0/8.
        default_addr_pool: Vec<String> = "DefaultAddrPool" omit,
        /// The mask length of a range taken from the pool.
        subnet_size: u32 = "SubnetSize",
        /// The UDP port of the data plane.
        data_path_port: u32 = "DataPathPort",
        /// The tokens that let a node join.
        join_tokens: JoinTokens = "JoinTokens" omit,
        /// The root of trust. (Ours; never in an API response.)
        root_ca: RootCa = "RootCA" omit,
        /// The key that unlocks managers; empty without autolock. (Ours; never in a response.)
        unlock_key: Option<SecretBytes> = "UnlockKey" omit,
        /// Grows each time it is begun anew, with what one manager had or with a backup: 0 at first, then
        /// at least the Unix time of that. (Ours.)
        recovery: u64 = "Recovery" omit,
        /// Certificates that are refused. (Ours.)
        blacklist: Vec<BlacklistedCertificate> = "Blacklist" omit,
    }
}
