use swarm_core::id::IdSource;
use swarm_core::model::{JoinTokens, NodeDescription, NodeId, RootRotation};
use swarm_core::store::Epoch;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_000);

fn info(root: &str) -> TlsInfo {
    TlsInfo {
        trust_root: root.to_owned(),
        cert_issuer_subject: "swarm-ca".to_owned(),
        cert_issuer_public_key: format!("key of {root}"),
        ..Default::default()
    }
}

struct World {
    ids: IdSource,
    view: Snapshot,
    now: Timestamp,
}

impl World {
    /// A cluster of some nodes, in a rotation from the root "old" to "new".
    fn rotating(nodes: usize) -> Self {
        let mut ids = IdSource::seeded(1);
        let tokens = |of: &str| JoinTokens { worker: format!("{of} token"), ..Default::default() };
        let rotation = RootRotation {
            certificate: "new".to_owned(),
            key: Some(b"new key".to_vec().into()),
            join_tokens: tokens("new"),
            ..Default::default()
        };
        let cluster = Cluster {
            id: ids.next(),
            root_ca: RootCa {
                certificate: "old".to_owned(),
                key: Some(b"old key".to_vec().into()),
                rotation: Some(rotation),
                last_forced_rotation: 7,
                ..Default::default()
            },
            tls_info: TlsInfo { trust_root: "old".to_owned(), ..info("new") },
            root_rotation_in_progress: true,
            join_tokens: tokens("old"),
            ..Default::default()
        };
        let mut objects = vec![Object::from(cluster)];
        for _ in 0..nodes {
            let description = NodeDescription { tls_info: info("old"), ..Default::default() };
            let node = Node { id: ids.next(), description: Some(description), ..Node::default() };
            objects.push(node.into());
        }
        Self { ids, view: Snapshot::from_objects(Default::default(), objects), now: NOW }
    }

    fn cluster(&self) -> &Cluster {
        self.view.cluster().unwrap()
    }

    fn change(&mut self, change: impl Into<Object>) {
        self.apply(vec![Change::Update(change.into())]);
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for staged in self.view.stage_all(changes, self.now).iter() {
            staged.as_ref().unwrap();
        }
    }

    /// Plans once and writes that; the nodes that were asked, and when to plan again.
    fn step(&mut self) -> (Vec<NodeId>, Option<Timestamp>) {
        let mut ctx = Ctx::new(self.now, &mut self.ids, Epoch::default());
        let plan = RootRotations.plan(&self.view, &Key::Cluster, &mut ctx);
        let asked = |change: &Change| match change {
            Change::Update(Object::Node(node)) => Some(node.id),
            _ => None,
        };
        let nodes = plan.changes.iter().filter_map(asked).collect();
        self.apply(plan.changes);
        (nodes, plan.again_at)
    }

    fn node(&self, id: NodeId) -> Node {
        self.view.nodes.get(id).unwrap().as_ref().clone()
    }

    /// The node does what it is told, and says so.
    fn obeys(&mut self, id: NodeId) {
        let mut node = self.node(id);
        let Some(told) = trust(&self.view, &node) else { return };
        let held = &mut node.description.as_mut().unwrap().tls_info;
        held.trust_root = told.roots;
        if !told.issuer.is_empty() {
            held.cert_issuer_public_key = told.issuer;
        }
        self.change(node);
    }

    fn all(&self) -> Vec<NodeId> {
        self.view.nodes.iter().map(|node| node.id).collect()
    }
}

#[test]
fn nodes_are_asked_in_batches_and_the_root_changes_when_the_last_one_has_renewed() {
    let mut world = World::rotating(65);
    let mut asked = Vec::new();
    for size in [30, 30, 5] {
        let (batch, again) = world.step();
        assert_eq!(batch.len(), size);
        assert!(batch.iter().all(|id| !asked.contains(id)), "nobody is asked twice");
        asked.extend(batch);
        let next = (asked.len() < 65).then(|| world.now + BATCH_EVERY);
        assert_eq!(again, next);
        assert_eq!(world.step(), (vec![], next), "not before the time has come");
        world.now = world.now + BATCH_EVERY;
    }
    let (last, others) = asked.split_last().unwrap();
    for id in others {
        world.obeys(*id);
        world.step();
        assert!(world.cluster().root_ca.rotation.is_some(), "one is missing");
        assert_eq!(world.cluster().join_tokens.worker, "old token");
    }
    world.obeys(*last);
    world.step();
    let cluster = world.cluster();
    assert_eq!(cluster.root_ca.certificate, "new");
    assert_eq!(cluster.root_ca.key.as_ref().unwrap().expose(), b"new key");
    assert_eq!((&cluster.root_ca.rotation, cluster.root_ca.last_forced_rotation), (&None, 7));
    assert_eq!((cluster.tls_info.clone(), cluster.root_rotation_in_progress), (info("new"), false));
    assert_eq!(cluster.join_tokens.worker, "new token");
    assert_eq!(world.step(), (vec![], None), "a rotation ends once");
}

#[test]
fn nodes_trust_both_roots_until_the_end_and_then_the_new_one_alone() {
    let mut world = World::rotating(1);
    let id = world.all()[0];
    let told = trust(&world.view, &world.node(id)).unwrap();
    assert_eq!((told.roots.as_str(), told.issuer.as_str()), ("oldnew", ""), "not its turn yet");
    world.step();
    let told = trust(&world.view, &world.node(id)).unwrap();
    assert_eq!((told.roots.as_str(), told.issuer.as_str()), ("oldnew", "key of new"));
    world.obeys(id);
    assert_eq!(trust(&world.view, &world.node(id)), None, "it knows");
    world.step();
    let told = trust(&world.view, &world.node(id)).unwrap();
    assert_eq!((told.roots.as_str(), told.issuer.as_str()), ("new", ""));
    world.obeys(id);
    assert_eq!(world.node(id).description.unwrap().tls_info, world.cluster().tls_info);
}

#[test]
fn a_node_that_is_down_or_was_never_seen_holds_a_rotation_up_until_it_is_removed() {
    let mut world = World::rotating(3);
    let [up, down, new] = world.all()[..] else { panic!() };
    world.change(Node { description: None, ..world.node(new) });
    world.step();
    world.obeys(up);
    assert_eq!(world.step(), (vec![], None));
    assert!(world.cluster().root_ca.rotation.is_some());
    for gone in [down, new] {
        assert!(world.cluster().root_ca.rotation.is_some());
        world.apply(vec![Change::Remove(gone.into(), None)]);
        world.step();
    }
    assert_eq!(world.cluster().root_ca.certificate, "new");
}

#[test]
fn a_new_leader_asks_nobody_again_and_a_clock_set_back_delays_nothing() {
    let mut world = World::rotating(40);
    let (first, _) = world.step();
    world.now = Timestamp::from_secs(10);
    let (second, again) = world.step();
    assert_eq!((first.len(), second.len(), again), (30, 10, None));
    assert!(second.iter().all(|id| !first.contains(id)));
}

#[test]
fn a_rotation_that_is_given_up_takes_the_nodes_back() {
    let mut world = World::rotating(2);
    let [renewed, other] = world.all()[..] else { panic!() };
    world.step();
    world.obeys(renewed);
    let mut cluster = world.cluster().clone();
    cluster.root_ca.rotation = None;
    cluster.root_rotation_in_progress = false;
    cluster.tls_info = info("old");
    world.change(cluster);
    world.now = world.now + BATCH_EVERY;
    assert_eq!(world.step(), (vec![renewed], None), "the other one kept the old root's");
    let told = trust(&world.view, &world.node(renewed)).unwrap();
    assert_eq!((told.roots.as_str(), told.issuer.as_str()), ("old", "key of old"));
    assert_eq!(trust(&world.view, &world.node(other)), None);
    world.obeys(renewed);
    assert_eq!(world.step(), (vec![], None));
    // Once more to the same root: those who were asked the first time are asked again.
    let again = World::rotating(0).cluster().root_ca.rotation.clone();
    let mut cluster = world.cluster().clone();
    cluster.root_ca.rotation = again;
    cluster.tls_info = TlsInfo { trust_root: "old".to_owned(), ..info("new") };
    world.change(cluster);
    world.step();
    world.now = world.now + BATCH_EVERY;
    world.step();
    world.obeys(renewed);
    world.obeys(other);
    world.step();
    assert_eq!(world.cluster().root_ca.certificate, "new");
}

#[test]
fn nodes_without_certificates_are_let_be_while_nothing_rotates() {
    let mut world = World::rotating(2);
    let mut cluster = world.cluster().clone();
    cluster.root_ca.rotation = None;
    cluster.tls_info = info("old");
    world.change(cluster);
    let [silent, unseen] = world.all()[..] else { panic!() };
    world.change(Node { description: Some(NodeDescription::default()), ..world.node(silent) });
    world.change(Node { description: None, ..world.node(unseen) });
    assert_eq!(world.step(), (vec![], None));
}

#[test]
fn what_matters_is_looked_at_and_nothing_else() {
    let world = World::rotating(2);
    let mut keys = Vec::new();
    let id = world.all()[0];
    let node = world.node(id);
    let described = |tls_info| Node {
        description: Some(NodeDescription { tls_info, ..Default::default() }),
        ..node.clone()
    };
    let dirty = |old: Node, new: Option<Node>, keys: &mut Vec<Key>| {
        keys.clear();
        let event = Event { old: Some(old.into()), new: new.map(Object::from) };
        RootRotations.dirty(&event, keys);
        !keys.is_empty()
    };
    assert!(dirty(node.clone(), Some(described(info("new"))), &mut keys));
    assert!(dirty(node.clone(), None, &mut keys));
    let ready = Node { status: Default::default(), ..node.clone() };
    assert!(!dirty(node.clone(), Some(ready), &mut keys));
}
