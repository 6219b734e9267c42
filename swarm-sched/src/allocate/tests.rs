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

fn publish(spec: &mut ServiceSpec, target: u16, published: u16, mode: PublishMode) {
    spec.endpoint.get_or_insert_default().ports.push(port(target, published, mode));
}

fn subnet(world: &World, network: NetworkId) -> String {
    let view = world.view();
    let network = view.networks.get(network).expect("the network exists");
    network.ipam.as_ref().map_or_else(String::new, |ipam| ipam.configs[0].subnet.clone())
}

fn small(cidr: &'static str) -> impl FnOnce(&mut Network) {
    move |network| {
        let config = IpamConfig { subnet: cidr.to_owned(), ..IpamConfig::default() };
        network.spec.ipam.get_or_insert_default().configs.push(config);
    }
}

fn service(world: &World, id: ServiceId) -> Service {
    Service::clone(world.view().services.get(id).expect("the service exists"))
}

fn network(world: &World, id: NetworkId) -> Network {
    Network::clone(world.view().networks.get(id).expect("the network exists"))
}

fn numbers(world: &World, id: ServiceId) -> Vec<u16> {
    let endpoint = service(world, id).endpoint.expect("the service is allocated");
    endpoint.ports.iter().map(|port| port.published_port).collect()
}

fn virtual_ips(world: &World, id: ServiceId) -> Vec<String> {
    let endpoint = service(world, id).endpoint.expect("the service is allocated");
    endpoint.virtual_ips.iter().map(|ip| ip.addr.clone()).collect()
}

fn addresses(world: &World, id: ServiceId) -> Vec<String> {
    let tasks = world.tasks_of(id);
    let places = tasks.iter().flat_map(|task| task.networks.clone());
    places.flat_map(|place| place.addresses).collect()
}

#[test]
fn networks_get_ranges_and_identifiers_in_a_row() {
    let mut world = World::new();
    let ingress = world.ingress();
    world.settle();
    let first = world.network("first", |_| {});
    world.settle();
    let second = world.network("second", |_| {});
    world.settle();
    let got = [ingress, first, second].map(|id| subnet(&world, id));
    assert_eq!(got, ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]);
    let vni = |id| {
        let state = network(&world, id).driver_state.unwrap();
        assert_eq!(state.name, "overlay");
        state.options["com.docker.network.driver.overlay.vxlanid_list"].clone()
    };
    assert_eq!([ingress, first, second].map(vni), ["4096", "4097", "4098"]);
    assert_eq!(network(&world, first).ipam.unwrap().configs[0].gateway, "10.0.1.1");
    // What is erased can be given again, and only that.
    world.erase(first);
    let third = world.network("third", |_| {});
    world.settle();
    assert_eq!(subnet(&world, third), "10.0.1.0/24");
}

#[test]
fn the_cluster_says_where_ranges_come_from() {
    let mut world = World::new();
    let mut cluster = Cluster { id: world.ids.next(), ..Cluster::default() };
    cluster.default_addr_pool = vec!["192.168.0.0/25".to_owned(), "172.16.0.0/26".to_owned()];
    cluster.subnet_size = 26;
    world.write(vec![swarm_core::store::Change::create(cluster)]);
    let mut got = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let id = world.network(name, |_| {});
        world.settle();
        got.push((id, subnet(&world, id)));
    }
    let ranges: Vec<_> = got.iter().map(|(_, range)| range.as_str()).collect();
    assert_eq!(ranges, ["192.168.0.0/26", "192.168.0.64/26", "172.16.0.0/26", ""]);
    let stalled = network(&world, got[3].0).stalled;
    assert_eq!(
        stalled,
        "no /26 range is left in the address pool 192.168.0.0/25, 172.16.0.0/26: remove networks"
    );
    world.erase(got[1].0);
    world.later(5);
    assert_eq!(subnet(&world, got[3].0), "192.168.0.64/26");
    assert_eq!(network(&world, got[3].0).stalled, "");
}

#[test]
fn ranges_of_ones_own_are_kept_unless_they_overlap() {
    let mut world = World::new();
    let wide = world.network("wide", small("10.0.0.0/16"));
    world.settle();
    let clash = world.network("clash", small("10.0.7.0/24"));
    let pooled = world.network("pooled", |_| {});
    let odd = world.network("odd", small("10.1.0.0/40"));
    world.settle();
    assert_eq!(subnet(&world, wide), "10.0.0.0/16");
    assert_eq!(subnet(&world, pooled), "10.1.0.0/24", "the pool goes around what is taken");
    let stalled = |id| network(&world, id).stalled;
    let overlap = "range 10.0.7.0/24 overlaps the one of network wide: choose another";
    assert_eq!(stalled(clash), overlap);
    assert_eq!(stalled(odd), "\"10.1.0.0/40\" is not an IPv4 range such as 10.0.1.0/24");
}

#[test]
fn a_driver_that_nobody_knows_is_named() {
    let mut world = World::new();
    let lost = world.network("lost", |network| network.spec.driver.name = "weave".to_owned());
    let service_in = world.service("web", 1, |spec| attach(spec, lost));
    world.settle();
    let why = "no network driver \"weave\" is registered with the managers";
    assert_eq!(network(&world, lost).stalled, why);
    let blocked = format!("network lost is not allocated yet: {why}");
    assert_eq!(service(&world, service_in).stalled, blocked);
    assert_eq!(world.errors(service_in), [blocked]);
}

#[test]
fn predefined_networks_pass_through_without_addresses() {
    let mut world = World::new();
    world.node("a", |_| {});
    let host = world.network("host", |network| {
        network.spec.driver.name = "host".to_owned();
        network.spec.scope = "local".to_owned();
    });
    let id = world.service("web", 1, |spec| attach(spec, host));
    world.settle();
    assert_eq!(network(&world, host).driver_state.unwrap().name, "host");
    assert_eq!(network(&world, host).ipam, None);
    assert_eq!(virtual_ips(&world, id), Vec::<String>::new());
    let task = world.tasks_of(id).remove(0);
    assert_eq!(task.status.state, TaskState::Assigned);
    assert_eq!(task.networks[0].network.id, host);
    assert_eq!(task.networks[0].addresses, Vec::<String>::new());
}

#[test]
fn virtual_addresses_stay_through_updates_and_go_with_their_reason() {
    let mut world = World::new();
    world.ingress();
    world.settle();
    let web = world.network("web", |_| {});
    let id = world.service("front", 0, |spec| {
        attach(spec, web);
        publish(spec, 80, 8080, PublishMode::Ingress);
    });
    world.settle();
    let before = virtual_ips(&world, id);
    assert_eq!(before, ["10.0.0.2/24", "10.0.1.2/24"]);
    world.edit_service(id, |service| publish(&mut service.spec, 443, 8443, PublishMode::Ingress));
    world.settle();
    assert_eq!(virtual_ips(&world, id), before);
    world.edit_service(id, |service| {
        service.spec.endpoint.as_mut().unwrap().ports.clear();
    });
    world.settle();
    assert_eq!(virtual_ips(&world, id), before[1..]);
    world.edit_service(id, |service| {
        service.spec.endpoint.as_mut().unwrap().mode = Some(EndpointMode::Dnsrr);
    });
    world.settle();
    assert_eq!(virtual_ips(&world, id), Vec::<String>::new());
}

#[test]
fn an_address_is_held_until_its_task_has_stopped() {
    let mut world = World::new();
    let node = world.node("a", |_| {});
    let net = world.network("net", small("10.9.0.0/29"));
    // Eight addresses: network, gateway, broadcast and the virtual one leave four.
    let id = world.service("web", 5, |spec| attach(spec, net));
    world.settle();
    let full = "no address is left in network net (10.9.0.0/29)";
    assert_eq!(world.errors(id), [full]);
    let [first, .., last] = &world.tasks_of(id)[..] else { panic!("five tasks") };
    assert_eq!(last.status.state, TaskState::New);
    world.write(vec![swarm_core::store::Change::Desire(first.id, TaskState::Shutdown)]);
    world.later(60);
    assert_eq!(world.errors(id), [full], "it was told to stop, and has not");
    world.observe(first.id, TaskState::Shutdown);
    world.settle();
    assert_eq!(world.errors(id), Vec::<String>::new());
    assert_eq!(world.get(last.id).networks[0].addresses, first.networks[0].addresses);
    assert_eq!(world.get(last.id).node_id, Some(node));
}

#[test]
fn a_node_that_is_gone_holds_no_addresses() {
    let mut world = World::new();
    let node = world.node("a", |_| {});
    let net = world.network("net", small("10.9.0.0/30"));
    let id = world.service("web", 2, |spec| {
        attach(spec, net);
        spec.endpoint.get_or_insert_default().mode = Some(EndpointMode::Dnsrr);
    });
    world.settle();
    assert_eq!(world.errors(id).len(), 1);
    world.edit_node(node, |node| node.status.state = NodeState::Down);
    world.later(60);
    assert_eq!(addresses(&world, id).len(), 1, "a node that is down may come back");
    world.erase(node);
    world.later(60);
    assert_eq!(addresses(&world, id), ["10.9.0.2/30", "10.9.0.2/30"]);
}

#[test]
fn an_address_rests_before_it_is_given_again() {
    let mut world = World::new();
    world.node("a", |_| {});
    let net = world.network("net", |_| {});
    let id = world.service("web", 2, |spec| attach(spec, net));
    world.settle();
    assert_eq!(addresses(&world, id), ["10.0.0.3/24", "10.0.0.4/24"]);
    let first = world.tasks_of(id)[0].id;
    world.observe(first, TaskState::Failed);
    let next = world.task(id, 1, |_| {});
    world.settle();
    assert_eq!(world.get(next).networks[0].addresses, ["10.0.0.5/24"]);
    world.later(31);
    let later = world.task(id, 3, |_| {});
    world.settle();
    assert_eq!(world.get(later).networks[0].addresses, ["10.0.0.3/24"]);
}

#[test]
fn automatic_ports_are_the_lowest_free_and_stay() {
    let mut world = World::new();
    world.ingress();
    let fixed = world.service("fixed", 0, |spec| publish(spec, 1, 30_001, PublishMode::Ingress));
    let host = world.service("host", 0, |spec| publish(spec, 1, 30_002, PublishMode::Host));
    let auto = world.service("auto", 0, |spec| {
        publish(spec, 80, 0, PublishMode::Ingress);
        publish(spec, 443, 0, PublishMode::Ingress);
        publish(spec, 22, 0, PublishMode::Host);
    });
    world.settle();
    assert_eq!(numbers(&world, auto), [30_000, 30_003, 0]);
    world.erase(fixed);
    world.erase(host);
    world.edit_service(auto, |service| {
        let ports = &mut service.spec.endpoint.as_mut().unwrap().ports;
        ports.swap(0, 1);
        ports.push(port(8080, 0, PublishMode::Ingress));
    });
    world.settle();
    assert_eq!(numbers(&world, auto), [30_003, 30_000, 0, 30_001]);
}

#[test]
fn two_services_never_share_a_port() {
    let mut world = World::new();
    world.ingress();
    let first = world.service("first", 0, |spec| publish(spec, 80, 8080, PublishMode::Ingress));
    world.settle();
    let second = world.service("second", 1, |spec| publish(spec, 80, 8080, PublishMode::Ingress));
    world.settle();
    let why =
        format!("port '8080' is already in use by service 'first' ({first}) as an ingress port");
    assert_eq!(service(&world, second).stalled, why);
    assert_eq!(world.errors(second), [why]);
    // A service that is marked for removal has given its ports up.
    world.edit_service(first, |service| service.pending_delete = true);
    world.later(5);
    assert_eq!(numbers(&world, second), [8080]);
    assert_eq!(service(&world, second).stalled, "");
}

#[test]
fn the_api_can_ask_before_it_accepts() {
    use crate::allocate::port_conflict;
    let mut world = World::new();
    world.ingress();
    let ingress = world.service("in", 0, |spec| publish(spec, 80, 8080, PublishMode::Ingress));
    let host = world.service("out", 0, |spec| publish(spec, 80, 9090, PublishMode::Host));
    let ask = |of: ServiceId, number: u16, mode: PublishMode| {
        let spec = EndpointSpec { ports: vec![port(1, number, mode)], ..EndpointSpec::default() };
        port_conflict(&world.view(), of, &spec).map(|conflict| conflict.to_string())
    };
    let by_ingress =
        format!("port '8080' is already in use by service 'in' ({ingress}) as an ingress port");
    let by_host =
        format!("port '9090' is already in use by service 'out' ({host}) as a host-published port");
    let (new, in_mode, host_mode) = (ServiceId::NIL, PublishMode::Ingress, PublishMode::Host);
    assert_eq!(ask(new, 8080, in_mode), Some(by_ingress.clone()));
    assert_eq!(ask(new, 8080, host_mode), Some(by_ingress));
    assert_eq!(ask(new, 9090, in_mode), Some(by_host));
    assert_eq!(ask(new, 9090, host_mode), None, "the scheduler keeps these apart");
    assert_eq!(ask(ingress, 8080, in_mode), None, "its own");
    assert_eq!(ask(new, 0, in_mode), None);
}

#[test]
fn published_ports_need_the_ingress_network() {
    let mut world = World::new();
    let id = world.service("web", 1, |spec| publish(spec, 80, 8080, PublishMode::Ingress));
    world.settle();
    let why = "service needs ingress network, but no ingress network is present";
    assert_eq!(world.errors(id), [why]);
    world.ingress();
    world.later(5);
    assert_eq!(world.tasks_of(id)[0].status.state, TaskState::Pending);
    assert_eq!(addresses(&world, id).len(), 1);
}

#[test]
fn a_network_is_erased_once_nothing_uses_it() {
    let mut world = World::new();
    world.node("a", |_| {});
    let net = world.network("net", |_| {});
    let id = world.service("web", 1, |spec| attach(spec, net));
    world.settle();
    let mut doomed = network(&world, net);
    doomed.pending_delete = true;
    world.write(vec![swarm_core::store::Change::update(doomed)]);
    world.settle();
    let task = world.tasks_of(id)[0].id;
    world.erase(id);
    world.settle();
    assert!(world.view().networks.get(net).is_some(), "its task may still run");
    world.observe(task, TaskState::Shutdown);
    world.settle();
    assert!(world.view().networks.get(net).is_none());
}
