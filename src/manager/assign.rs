//! Pure: what one node shall have: its tasks, what they reference, its networks and the published
//! ports, and what changed since it was last told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_core::model::{ConfigId, NetworkId, NodeId, NodeRole, SecretId, Task, TaskId, TaskState};
use swarm_core::network::NetworkView;
use swarm_core::protocol::ItemKey;
use swarm_core::store::{Commit, Object, Snapshot};

use super::common::{Common, Ports, ingress};

/// What a node is to be told, by key. Secrets and configs are named only: their bytes never
/// change, and they are fetched when they are sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AssignmentSet {
    /// The node's tasks from `assigned` on.
    pub tasks: BTreeMap<TaskId, Arc<Task>>,
    /// What those that have not ended reference, with one referencing task each.
    pub secrets: BTreeMap<SecretId, TaskId>,
    /// What those that have not ended reference.
    pub configs: BTreeSet<ConfigId>,
    /// The networks of those that have not ended.
    pub networks: BTreeMap<NetworkId, Arc<NetworkView>>,
    /// Every published port of the cluster.
    pub ports: Arc<Ports>,
}

impl AssignmentSet {
    /// What `node` shall have.
    #[must_use]
    pub fn of(common: &Common, node: NodeId) -> Self {
        let mut set = Self { ports: common.ports(), ..Self::default() };
        for task in common.view().tasks_on(node) {
            if task.status.state < TaskState::Assigned {
                continue;
            }
            set.tasks.insert(task.id, task.clone());
            if task.status.state.is_terminal() {
                continue;
            }
            if let Some(container) = &task.spec.container {
                let secrets = container.secrets.iter().map(|s| (s.secret_id, task.id));
                set.secrets.extend(secrets);
                set.configs.extend(container.configs.iter().map(|c| c.config_id));
            }
            for attachment in &task.networks {
                let id = attachment.network.id;
                if !set.networks.contains_key(&id)
                    && let Some(network) = common.network(id)
                {
                    set.networks.insert(id, network);
                }
            }
        }
        set
    }

    /// The keys that are new or different from `before`, and those that are gone.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> (Vec<ItemKey>, Vec<ItemKey>) {
        let mut diff = (Vec::new(), Vec::new());
        compare(&mut diff, &before.tasks, &self.tasks, |id| ItemKey::Task(*id), same_task);
        compare(&mut diff, &before.secrets, &self.secrets, |id| ItemKey::Secret(*id), |_, _| true);
        let map = |set: &BTreeSet<ConfigId>| set.iter().map(|id| (*id, ())).collect();
        let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (map(&before.configs), map(&self.configs));
        compare(&mut diff, &old, &new, |id| ItemKey::Config(*id), |(), ()| true);
        compare(
            &mut diff,
            &before.networks,
            &self.networks,
            |id| ItemKey::Network(*id),
            |a, b| Arc::ptr_eq(a, b) || a == b,
        );
        if !Arc::ptr_eq(&before.ports, &self.ports) {
            compare(&mut diff, &before.ports, &self.ports, |key| *key, |a, b| a == b);
        }
        diff
    }
}

fn compare<K: Ord, V>(
    (put, drop): &mut (Vec<ItemKey>, Vec<ItemKey>),
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    key: impl Fn(&K) -> ItemKey,
    same: impl Fn(&V, &V) -> bool,
) {
    let changed = |id: &K, value: &V| before.get(id).is_none_or(|old| !same(old, value));
    put.extend(after.iter().filter(|(id, value)| changed(id, value)).map(|(id, _)| key(id)));
    drop.extend(before.keys().filter(|id| !after.contains_key(id)).map(key));
}

/// Whether an agent would do the same for both: what it reports itself does not count.
fn same_task(a: &Arc<Task>, b: &Arc<Task>) -> bool {
    Arc::ptr_eq(a, b)
        || (a.desired_state == b.desired_state
            && (Arc::ptr_eq(&a.spec, &b.spec) || a.spec == b.spec)
            && a.networks == b.networks
            && a.endpoint == b.endpoint
            && a.generic_resources == b.generic_resources)
}

/// The nodes whose sets a commit may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected {
    /// These.
    Nodes(BTreeSet<NodeId>),
    /// Every node: a published port or a tokens-and-settings change concerns all.
    All,
}

/// Which nodes have to be told something because of a commit.
#[must_use]
pub fn affected(view: &Snapshot, commit: &Commit) -> Affected {
    let mut nodes = BTreeSet::new();
    for event in &commit.events {
        match event.object() {
            Object::Task(task) => {
                if ports_of(view, task) {
                    return Affected::All;
                }
                nodes.extend(task.node_id);
                for place in &task.networks {
                    nodes.extend(view.tasks_in(place.network.id).filter_map(|task| task.node_id));
                }
            }
            Object::Service(service) if service.endpoint.is_some() => return Affected::All,
            Object::Network(network) => {
                nodes.extend(view.tasks_in(network.id).filter_map(|task| task.node_id));
            }
            // The period of heartbeats may have changed.
            Object::Cluster(_) => return Affected::All,
            // Where managers listen.
            Object::Node(node) if node.role == NodeRole::Manager => return Affected::All,
            Object::Node(node) => {
                nodes.insert(node.id);
                for place in view.tasks_on(node.id).flat_map(|task| &task.networks) {
                    nodes.extend(view.tasks_in(place.network.id).filter_map(|task| task.node_id));
                }
            }
            _ => {}
        }
    }
    Affected::Nodes(nodes)
}

fn ports_of(view: &Snapshot, task: &Task) -> bool {
    let service = view.services.get(task.service_id);
    let endpoint = service.and_then(|service| service.endpoint.as_ref()).or(task.endpoint.as_ref());
    endpoint.is_some_and(|endpoint| ingress(endpoint).next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_core::id::IdSource;
    use swarm_core::model::{
        Endpoint, NetworkAttachment, NetworkRef, Node, PortConfig, Service, TaskEndpoint,
    };
    use swarm_core::store::Object;

    struct World {
        ids: IdSource,
        objects: Vec<Object>,
    }

    impl World {
        fn view(&self) -> Common {
            Common::of(&Snapshot::from_objects(Default::default(), self.objects.clone()))
        }

        fn task(&mut self, node: NodeId, service: &Service, network: NetworkId) -> Task {
            let mut task = Task {
                id: self.ids.next(),
                node_id: Some(node),
                service_id: service.id,
                desired_state: TaskState::Running,
                networks: vec![NetworkAttachment {
                    network: NetworkRef { id: network, ..Default::default() },
                    addresses: vec!["10.0.1.7/24".into()],
                    ..Default::default()
                }],
                ..Default::default()
            };
            task.status.state = TaskState::Running;
            task.status.endpoints = vec![TaskEndpoint {
                target_port: 80,
                address: "10.0.0.9:80".into(),
                ..Default::default()
            }];
            task
        }
    }

    fn world() -> (World, NodeId, Service, NetworkId) {
        let mut ids = IdSource::seeded(1);
        let node = Node { id: ids.next(), ..Default::default() };
        let network = swarm_core::model::Network { id: ids.next(), ..Default::default() };
        let mut service = Service { id: ids.next(), ..Default::default() };
        service.spec.name = "web".into();
        service.endpoint = Some(Arc::new(Endpoint {
            ports: vec![PortConfig { target_port: 80, published_port: 8080, ..Default::default() }],
            ..Default::default()
        }));
        let (node_id, network_id) = (node.id, network.id);
        let objects = vec![node.into(), network.into(), service.clone().into()];
        (World { ids, objects }, node_id, service, network_id)
    }

    #[test]
    fn a_draining_task_leaves_the_balancer_but_stays_assigned() {
        let (mut world, node, service, network) = world();
        let mut task = world.task(node, &service, network);
        world.objects.push(task.clone().into());
        let before = AssignmentSet::of(&world.view(), node);
        let port = ItemKey::Port(8080, Default::default());
        assert_eq!(before.ports[&port].backends.len(), 1);
        assert_eq!(before.networks[&network].services[0].backends[0].address, "10.0.1.7");

        task.desired_state = TaskState::Shutdown;
        world.objects.pop();
        world.objects.push(task.clone().into());
        let after = AssignmentSet::of(&world.view(), node);
        assert!(after.ports[&port].backends.is_empty());
        assert!(after.tasks.contains_key(&task.id));
        let (put, drop) = after.changes_since(&before);
        assert_eq!(put, [ItemKey::Task(task.id), ItemKey::Network(network), port]);
        assert!(drop.is_empty());
    }

    #[test]
    fn a_jobs_task_answers_for_its_service_while_it_runs() {
        let (mut world, node, service, network) = world();
        let mut task = world.task(node, &service, network);
        task.desired_state = TaskState::Complete;
        world.objects.push(task.into());
        let set = AssignmentSet::of(&world.view(), node);
        assert_eq!(set.ports[&ItemKey::Port(8080, Default::default())].backends.len(), 1);
        assert_eq!(set.networks[&network].services[0].backends.len(), 1);
    }

    #[test]
    fn what_the_agent_reports_is_not_sent_back_to_it() {
        let (mut world, node, service, network) = world();
        let mut task = world.task(node, &service, network);
        world.objects.push(task.clone().into());
        let before = AssignmentSet::of(&world.view(), node);
        task.status.message = "started".into();
        world.objects.pop();
        world.objects.push(task.into());
        let after = AssignmentSet::of(&world.view(), node);
        assert_eq!(after.changes_since(&before), (vec![], vec![]));
    }

    #[test]
    fn tasks_that_are_not_assigned_yet_are_not_sent_and_ended_ones_need_no_network() {
        let (mut world, node, service, network) = world();
        let mut early = world.task(node, &service, network);
        early.status.state = TaskState::Pending;
        let mut ended = world.task(node, &service, network);
        ended.status.state = TaskState::Failed;
        let ended_id = ended.id;
        world.objects.extend([Object::from(early), Object::from(ended)]);
        let set = AssignmentSet::of(&world.view(), node);
        assert_eq!(set.tasks.keys().collect::<Vec<_>>(), [&ended_id]);
        assert!(set.networks.is_empty());
    }
}
