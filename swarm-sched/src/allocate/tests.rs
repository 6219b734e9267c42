//! Allocation end to end: networks, endpoints, tasks.

use swarm_core::model::*;

use crate::world::{World, port, template};

fn attach(spec: &mut ServiceSpec, network: NetworkId) {
    template(spec, |task| {
        task.networks.push(NetworkAttachmentConfig {
            target: network.to_string(),
            ..NetworkAttachmentConfig::default()
        });
    });
}

#[test]
fn a_new_service_reaches_its_nodes_in_one_step() {
    let mut world = World::new();
    let ingress = world.ingress();
    let nodes = [world.node("a", |_| {}), world.node("b", |_| {})];
    let web = world.network("web", |_| {});
    let service = world.service("front", 4, |spec| {
        attach(spec, web);
        let endpoint = spec.endpoint.get_or_insert_default();
        endpoint.ports.push(port(80, 8080, PublishMode::Ingress));
    });
    let before = world.view().version();
    world.settle();
    assert_eq!(world.view().version().0, before.0 + 1, "one commit");
    assert_eq!(world.counts(service, &nodes), [2, 2]);
    let view = world.view();
    let stored = view.services.get(service).unwrap();
    let ips: Vec<_> = (stored.endpoint.as_ref().unwrap().virtual_ips.iter())
        .map(|ip| (ip.network_id, ip.addr.as_str()))
        .collect();
    assert_eq!(ips.len(), 2);
    assert_eq!(ips[0].0, ingress);
    assert_eq!(ips[1].0, web);
    for task in world.tasks_of(service) {
        assert_eq!(task.status.state, TaskState::Assigned);
        assert_eq!(task.status.message, "scheduler assigned task to node");
        assert_eq!(task.networks.len(), 2, "ingress and web");
        assert_eq!(task.endpoint, stored.endpoint);
    }
}
