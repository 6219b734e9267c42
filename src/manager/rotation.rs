//! Pure: rolls a new root out: asks nodes to renew, a few at a time, and puts the new root in the
//! old one's place once every node holds a certificate of it.
//!
//! What is wanted is in the cluster (`tls_info` says which root shall have issued everyone's
//! certificate), what is, in the nodes' descriptions, and whom was asked when, in the nodes: so a
//! new leader goes on where the old one was. A node that is down holds the rotation up until it
//! comes back or is removed: it would be shut out otherwise (SwarmKit: `ca/reconciler.go`).

use std::time::Duration;

use swarm_core::control::{Ctx, Key, Plan, Planner};
use swarm_core::model::{CertificateRenewal, Cluster, Node, RootCa, TlsInfo};
use swarm_core::protocol::Trust;
use swarm_core::store::{Change, Event, Object, Snapshot};
use swarm_core::time::Timestamp;

/// Nodes that are asked to renew at one time.
const BATCH: usize = 30;
/// The time between two batches.
const BATCH_EVERY: Duration = Duration::from_secs(3);

/// Carries a rotation of the cluster's root through.
#[derive(Clone, Copy, Debug, Default)]
pub struct RootRotations;

impl Planner for RootRotations {
    fn name(&self) -> &'static str {
        "root rotation"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        let matters = match (&event.old, &event.new) {
            (Some(Object::Cluster(_)), _) | (_, Some(Object::Cluster(_))) => true,
            // Whom nobody asked has nothing to do with a rotation, but for coming and going.
            (Some(Object::Node(old)), Some(Object::Node(new))) => tls_info(old) != tls_info(new),
            (Some(Object::Node(_)), _) | (_, Some(Object::Node(_))) => true,
            _ => false,
        };
        if matters {
            keys.push(Key::Cluster);
        }
    }

    fn keys(&self, _: &Snapshot, keys: &mut Vec<Key>) {
        keys.push(Key::Cluster);
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut plan = Plan::none();
        let (Key::Cluster, Some(cluster)) = (key, view.cluster()) else { return plan };
        let mut behind = view.nodes.iter().filter(|node| is_behind(cluster, node)).peekable();
        if behind.peek().is_none() {
            if let Some(finished) = finished(cluster) {
                plan.because(Key::Cluster, "every node has a certificate of the new root");
                plan.changes.push(Change::update(finished));
            }
            return plan;
        }
        let behind: Vec<_> = behind.collect();
        let unasked: Vec<_> = behind.iter().filter(|node| !is_asked(cluster, node)).collect();
        if unasked.is_empty() {
            return plan;
        }
        let asked = behind.iter().filter_map(|node| node.renewal.as_ref());
        let last = asked.map(|renewal| renewal.at).max().unwrap_or(Timestamp::ZERO);
        // A clock that was set back does not hold the next batch up for longer than one period.
        if last <= ctx.now && ctx.now < last + BATCH_EVERY {
            plan.look_again(last + BATCH_EVERY);
            return plan;
        }
        for node in unasked.iter().take(BATCH) {
            let issuer = cluster.tls_info.cert_issuer_public_key.clone();
            let renewal = CertificateRenewal { issuer, at: ctx.now, ..Default::default() };
            plan.changes.push(Change::update(Node { renewal: Some(renewal), ..Node::clone(node) }));
        }
        if unasked.len() > BATCH {
            plan.look_again(ctx.now + BATCH_EVERY);
        }
        plan
    }
}

fn tls_info(node: &Node) -> Option<&TlsInfo> {
    node.description.as_ref().map(|description| &description.tls_info)
}

/// Whether a node has to renew its certificate. Without a rotation that is a node that was asked
/// for a root which has been given up since; one that says nothing of its issuer is let be.
fn is_behind(cluster: &Cluster, node: &Node) -> bool {
    let wanted = &cluster.tls_info;
    match tls_info(node) {
        Some(held) if cluster.root_ca.rotation.is_none() => {
            !held.cert_issuer_public_key.is_empty() && !same_issuer(held, wanted)
        }
        Some(held) => !same_issuer(held, wanted),
        None => cluster.root_ca.rotation.is_some(),
    }
}

fn same_issuer(held: &TlsInfo, wanted: &TlsInfo) -> bool {
    held.cert_issuer_public_key == wanted.cert_issuer_public_key
        && held.cert_issuer_subject == wanted.cert_issuer_subject
}

fn is_asked(cluster: &Cluster, node: &Node) -> bool {
    let wanted = &cluster.tls_info.cert_issuer_public_key;
    node.renewal.as_ref().is_some_and(|renewal| renewal.issuer == *wanted)
}

/// The cluster with the new root in its place: only now do join tokens name it.
fn finished(cluster: &Cluster) -> Option<Cluster> {
    let rotation = cluster.root_ca.rotation.clone()?;
    let mut cluster = cluster.clone();
    cluster.tls_info.trust_root.clone_from(&rotation.certificate);
    cluster.join_tokens = rotation.join_tokens;
    cluster.root_rotation_in_progress = false;
    cluster.root_ca = RootCa {
        certificate: rotation.certificate,
        key: rotation.key,
        rotation: None,
        ..cluster.root_ca
    };
    Some(cluster)
}

/// What a node's session has to tell it of roots and renewal; absent while it knows.
#[must_use]
pub fn trust(view: &Snapshot, node: &Node) -> Option<Trust> {
    let cluster = view.cluster()?;
    let roots = cluster.root_ca.trusted();
    let held = tls_info(node)?;
    let renews = is_asked(cluster, node) && !same_issuer(held, &cluster.tls_info);
    let issuer = match renews {
        true => cluster.tls_info.cert_issuer_public_key.clone(),
        false => String::new(),
    };
    let knows = held.trust_root == roots && issuer.is_empty();
    (!roots.is_empty() && !knows).then_some(Trust { roots, issuer })
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
