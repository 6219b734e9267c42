//! Nodes: the machines (or processes) that run tasks and, as managers, the cluster.

use super::{ClusterId, Labels, NodeId, Platform, Resources, Version};
use crate::time::Timestamp;

crate::words! {
    /// What a node is allowed to be.
    pub enum NodeRole as "Role" {
        /// Runs tasks.
        Worker = "worker",
        /// Runs tasks and takes part in the cluster's management.
        Manager = "manager",
    }
}

crate::words! {
    /// Whether a node takes tasks.
    pub enum Availability as "Availability" {
        /// Takes new tasks.
        Active = "active",
        /// Keeps its tasks, takes no new ones.
        Pause = "pause",
        /// Gives its tasks up.
        Drain = "drain",
    }
}

crate::words! {
    /// What the manager knows of a node's agent.
    pub enum NodeState as "NodeState" {
        /// Registered, not heard of since the leader changed.
        Unknown = "unknown",
        /// Silent for three heartbeats.
        Down = "down",
        /// In session.
        Ready = "ready",
        /// Told to find another manager.
        Disconnected = "disconnected",
    }
}

crate::words! {
    /// Whether the leader reaches a manager.
    pub enum Reachability as "Reachability" {
        /// Not yet tried.
        Unknown = "unknown",
        /// Not reached.
        Unreachable = "unreachable",
        /// Reached.
        Reachable = "reachable",
    }
}

crate::object! {
    /// What an operator says of a node.
    pub struct NodeSpec {
        /// A name of the operator's choice; the host name serves where there is none.
        name: String = "Name" omit,
        /// Labels for placement constraints.
        labels: Labels = "Labels",
        /// The role that the node shall have.
        role: NodeRole = "Role",
        /// Whether it takes tasks.
        availability: Availability = "Availability",
    }
}

crate::object! {
    /// A plugin of a node's engine.
    pub struct EnginePlugin {
        /// `Network`, `Volume`, `Log`, …
        kind: String = "Type" omit,
        /// Its name.
        name: String = "Name" omit,
    }
}

crate::object! {
    /// The executor behind a node.
    pub struct EngineDescription {
        /// The version that `docker node ls` shows.
        engine_version: String = "EngineVersion" omit,
        /// Labels for `engine.labels.*` constraints.
        labels: Labels = "Labels" omit,
        /// What it has beyond the basics.
        plugins: Vec<EnginePlugin> = "Plugins" omit,
        /// Which engine this is: equal on two nodes that share one Docker Engine. (Ours.)
        engine_id: String = "EngineID" omit,
    }
}

crate::object! {
    /// What a node trusts and who issued its certificate, so that the manager can watch a rotation
    /// of the root.
    pub struct TlsInfo {
        /// The trusted root certificates, PEM.
        trust_root: String = "TrustRoot" omit,
        /// The issuer's subject, DER in base64.
        cert_issuer_subject: String = "CertIssuerSubject" omit,
        /// The issuer's public key, DER in base64.
        cert_issuer_public_key: String = "CertIssuerPublicKey" omit,
    }
}

crate::object! {
    /// What a node says of itself when its session opens and whenever it changes.
    pub struct NodeDescription {
        /// The host name.
        hostname: String = "Hostname" omit,
        /// Operating system and architecture.
        platform: Platform = "Platform" omit,
        /// What it has in total.
        resources: Resources = "Resources" omit,
        /// The executor behind it.
        engine: EngineDescription = "Engine" omit,
        /// What it trusts.
        tls_info: TlsInfo = "TLSInfo" omit,
    }
}

crate::object! {
    /// What the manager knows of a node's agent.
    pub struct NodeStatus {
        /// In session or not.
        state: NodeState = "State",
        /// Why, in words.
        message: String = "Message" omit,
        /// The address that it advertises, without a port.
        addr: String = "Addr" omit,
        /// Since when it has been down: after 24 hours its tasks are orphaned. (Ours.)
        down_since: Option<Timestamp> = "DownSince" omit,
    }
}

crate::object! {
    /// A manager's place among the managers.
    pub struct ManagerStatus {
        /// Whether it leads.
        leader: bool = "Leader" omit,
        /// Whether the leader reaches it.
        reachability: Reachability = "Reachability",
        /// Where it listens, with the port.
        addr: String = "Addr" omit,
        /// Its id among the members of the raft group; never used again. (Ours.)
        raft_id: u64 = "RaftID" omit,
        /// The last start that it said: a count in the upper half, random below; 0 before it said any.
        /// A state directory that knows none as late is an old copy. (Ours.)
        start: u64 = "Start" omit,
    }
}

crate::object! {
    /// That a node was asked to have its certificate issued again, by another root. (Ours.)
    pub struct CertificateRenewal {
        /// The public key of the root that shall issue it, as in
        /// [`TlsInfo::cert_issuer_public_key`].
        issuer: String = "Issuer" omit,
        /// When it was asked.
        at: Timestamp = "At",
    }
}

crate::object! {
    /// A member of the cluster.
    pub struct Node {
        /// Its id, which its certificate carries.
        id: NodeId = "ID",
        /// The commit that last changed the specification.
        version: Version = "Version",
        /// When it was first seen.
        created_at: Timestamp = "CreatedAt",
        /// When it was last changed.
        updated_at: Timestamp = "UpdatedAt",
        /// The commit that last changed anything. (Ours.)
        revision: Version = "Revision" omit,
        /// What the operator says of it.
        spec: NodeSpec = "Spec",
        /// What it says of itself; absent until its first session.
        description: Option<NodeDescription> = "Description" omit,
        /// What the manager knows of its agent.
        status: NodeStatus = "Status",
        /// Only on managers.
        manager_status: Option<ManagerStatus> = "ManagerStatus" omit,
        /// What its raft ids were before it was demoted: whoever speaks with one is refused. (Ours.)
        former_raft_ids: Vec<u64> = "FormerRaftIDs" omit,
        /// The role that its certificate carries, which `node.role` constraints see. (Ours.)
        role: NodeRole = "CertifiedRole",
        /// The cluster that it belongs to. (Ours.)
        cluster_id: ClusterId = "ClusterID" omit,
        /// The last request to renew its certificate, during a rotation of the root. (Ours.)
        renewal: Option<CertificateRenewal> = "CertificateRenewal" omit,
        /// When the last of the certificates that it was given expires; absent for a node that made
        /// its own with the cluster. (Ours.)
        certificate_expires: Option<Timestamp> = "CertificateExpires" omit,
    }
}

impl Node {
    /// The name to show: the operator's, else the host's, else the id.
    #[must_use]
    pub fn display_name(&self) -> &str {
        if !self.spec.name.is_empty() {
            return &self.spec.name;
        }
        match &self.description {
            Some(description) if !description.hostname.is_empty() => &description.hostname,
            _ => self.id.as_str(),
        }
    }
}
