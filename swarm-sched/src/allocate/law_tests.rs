//! The invariants of allocation under random histories: no address and no port is held twice, and
//! what is allocated lies inside its network.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use swarm_core::model::*;
use swarm_core::store::{Change, Snapshot};

use super::desk::holds_addresses;
use super::ipam::{Cidr, is_of};
use crate::world::{World, port, template};

/// What happens next; numbers choose among what exists.
#[derive(Clone, Debug)]
enum Happens {
    Network(u8),
    Service { networks: Vec<usize>, ports: Vec<(bool, u16)>, tasks: u64, dnsrr: bool },
    Republish { service: usize, ports: Vec<(bool, u16)> },
    MarkService(usize),
    EraseService(usize),
    Task(usize),
    Stop(usize),
    Confirm(usize),
    EraseTask(usize),
    EraseNode(usize),
    MarkNetwork(usize),
    Wait(i64),
}

fn ports() -> impl Strategy<Value = Vec<(bool, u16)>> {
    proptest::collection::vec((any::<bool>(), 0_u16..4), 0..3)
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens::*;
    prop_oneof![
        1 => (27_u8..30).prop_map(Network),
        4 => (proptest::collection::vec(0_usize..8, 0..3), ports(), 0_u64..5, any::<bool>())
            .prop_map(|(networks, ports, tasks, dnsrr)| Service { networks, ports, tasks, dnsrr }),
        2 => (any::<usize>(), ports()).prop_map(|(service, ports)| Republish { service, ports }),
        1 => any::<usize>().prop_map(MarkService),
        1 => any::<usize>().prop_map(EraseService),
        3 => any::<usize>().prop_map(Task),
        3 => any::<usize>().prop_map(Stop),
        3 => any::<usize>().prop_map(Confirm),
        1 => any::<usize>().prop_map(EraseTask),
        1 => any::<usize>().prop_map(EraseNode),
        1 => any::<usize>().prop_map(MarkNetwork),
        2 => (1_i64..40).prop_map(Wait),
    ]
}

fn chosen<T: Clone>(mut all: Vec<T>, index: usize) -> Option<T> {
    let index = index.checked_rem(all.len())?;
    Some(all.swap_remove(index))
}

fn endpoint(ports: &[(bool, u16)]) -> Vec<PortConfig> {
    let publish = |(number, (host, offset)): (usize, &(bool, u16))| {
        let mode = if *host { PublishMode::Host } else { PublishMode::Ingress };
        let target = u16::try_from(number).expect("few ports") + 80;
        // Offset 0 asks for an automatic port; the others collide with those.
        port(target, if *offset == 0 { 0 } else { 29_999 + offset }, mode)
    };
    ports.iter().enumerate().map(publish).collect()
}

fn service_at(view: &Snapshot, index: usize) -> Option<Arc<Service>> {
    chosen(view.services.iter().cloned().collect(), index)
}

fn task_at(view: &Snapshot, index: usize) -> Option<Arc<Task>> {
    chosen(view.tasks.iter().cloned().collect(), index)
}

fn network_at(view: &Snapshot, index: usize) -> Option<Arc<Network>> {
    let networks = view.networks.iter().filter(|network| !network.spec.ingress);
    chosen(networks.cloned().collect(), index)
}

fn add_network(world: &mut World, prefix: u8) {
    let number = world.ids.below(1 << 40);
    // Some share a range, so that one of them stalls.
    let subnet = format!("10.7.{}.0/{prefix}", number % 3);
    world.network(&format!("net{number}"), |network| {
        let config = IpamConfig { subnet, ..IpamConfig::default() };
        network.spec.ipam.get_or_insert_default().configs.push(config);
    });
}

fn add_service(
    world: &mut World,
    networks: &[usize],
    ports: &[(bool, u16)],
    tasks: u64,
    dnsrr: bool,
) {
    let (number, view) = (world.ids.below(1 << 40), world.view());
    let targets = networks.iter().filter_map(|index| network_at(&view, *index));
    world.service(&format!("s{number}"), tasks, |spec| {
        let endpoint_spec = spec.endpoint.get_or_insert_default();
        endpoint_spec.ports = endpoint(ports);
        endpoint_spec.mode = dnsrr.then_some(EndpointMode::Dnsrr);
        for network in targets.filter(|network| !network.pending_delete) {
            let target = network.id.to_string();
            let wish = NetworkAttachmentConfig { target, ..Default::default() };
            template(spec, |task| task.networks.push(wish));
        }
    });
}

/// Nothing happens where there is nothing to choose from.
fn play(world: &mut World, happens: Happens) -> Option<()> {
    let view = world.view();
    match happens {
        Happens::Network(prefix) => add_network(world, prefix),
        Happens::Service { networks, ports, tasks, dnsrr } => {
            add_service(world, &networks, &ports, tasks, dnsrr);
        }
        Happens::Republish { service, ports } => {
            world.edit_service(service_at(&view, service)?.id, |service| {
                service.spec.endpoint.get_or_insert_default().ports = endpoint(&ports);
            });
        }
        Happens::MarkService(index) => {
            world.edit_service(service_at(&view, index)?.id, |service| {
                service.pending_delete = true
            });
        }
        Happens::EraseService(index) => {
            world.erase(service_at(&view, index).filter(|service| service.pending_delete)?.id);
        }
        Happens::Task(index) => {
            world.task(service_at(&view, index)?.id, 9, |_| {});
        }
        Happens::Stop(index) => {
            world.write(vec![Change::Desire(task_at(&view, index)?.id, TaskState::Shutdown)]);
        }
        Happens::Confirm(index) => {
            let task = task_at(&view, index).filter(|task| task.node_id.is_some())?;
            world.observe(task.id, TaskState::Failed);
        }
        Happens::EraseTask(index) => {
            world.erase(task_at(&view, index).filter(|task| !holds_addresses(&view, task))?.id);
        }
        Happens::EraseNode(index) => {
            world.erase(chosen(view.nodes.iter().cloned().collect(), index)?.id);
            world.node("fresh", |_| {});
        }
        Happens::MarkNetwork(index) => {
            let mut network = Network::clone(&*network_at(&view, index)?);
            network.pending_delete = true;
            world.write(vec![Change::update(network)]);
        }
        Happens::Wait(secs) => world.later(secs),
    }
    Some(())
}

/// Everyone who holds each address of each network.
fn holders(view: &Snapshot) -> BTreeMap<(NetworkId, String), Vec<String>> {
    let mut holders: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let mut hold = |network: NetworkId, addr: &str, who: String| {
        let bare = addr.split('/').next().unwrap_or_default().to_owned();
        holders.entry((network, bare)).or_default().push(who);
    };
    for network in view.networks.iter() {
        for config in network.ipam.iter().flat_map(|ipam| &ipam.configs) {
            hold(network.id, &config.gateway, "gateway".to_owned());
        }
    }
    for service in view.services.iter() {
        for ip in service.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips) {
            hold(ip.network_id, &ip.addr, format!("service {}", service.id));
        }
    }
    for task in view.tasks.iter().filter(|task| holds_addresses(view, task)) {
        for place in &task.networks {
            for addr in &place.addresses {
                hold(place.network.id, addr, format!("task {}", task.id));
            }
        }
    }
    holders
}

fn check(view: &Snapshot) {
    for ((network, addr), who) in holders(view) {
        assert_eq!(who.len(), 1, "{addr} of {network} is held by {who:?}");
        let network = view.networks.get(network).expect("an address outlives no network");
        assert!(is_of(network, &format!("{addr}/32")), "{addr} is outside its network");
    }
    let networks: Vec<_> = view.networks.iter().collect();
    for (index, network) in networks.iter().enumerate() {
        for other in &networks[index + 1..] {
            let ranges = |network: &Network| -> Vec<Cidr> {
                let configs = network.ipam.iter().flat_map(|ipam| ipam.configs.clone());
                configs.map(|config| config.subnet.parse().expect("allocated")).collect()
            };
            let overlap =
                ranges(network).iter().any(|a| ranges(other).iter().any(|b| a.overlaps(*b)));
            assert!(!overlap, "{} and {} overlap", network.spec.name, other.spec.name);
            let same = network.driver_state.is_some() && network.driver_state == other.driver_state;
            assert!(!same, "{} and {} share an identifier", network.spec.name, other.spec.name);
        }
    }
    check_ports(view);
}

/// No two services hold one port, unless both publish it on the host.
fn check_ports(view: &Snapshot) {
    let mut held: Vec<(ServiceId, PortConfig)> = Vec::new();
    for service in view.services.iter().filter(|service| !service.pending_delete) {
        let ports = service.endpoint.iter().flat_map(|endpoint| endpoint.ports.clone());
        held.extend(ports.map(|port| (service.id, port)));
    }
    for (index, (owner, port)) in held.iter().enumerate() {
        let ingress = port.publish_mode == PublishMode::Ingress;
        assert!(!ingress || port.published_port != 0, "an ingress port has a number");
        let rival = held[index + 1..].iter().find(|(other, rival)| {
            other != owner
                && (rival.protocol, rival.published_port) == (port.protocol, port.published_port)
                && (ingress || rival.publish_mode == PublishMode::Ingress)
        });
        assert_eq!(rival, None, "{owner} has port {} too", port.published_port);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_held_twice(history in proptest::collection::vec(happens(), 1..40)) {
        let mut world = World::new();
        world.ingress();
        world.node("a", |_| {});
        world.node("b", |_| {});
        for step in history {
            let _ = play(&mut world, step);
            world.settle();
            check(&world.view());
        }
    }
}
