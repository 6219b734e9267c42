//! Pure: networks: those to create, those that must exist, and a service's places in them.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::{Body, Namespace, table};
use crate::model::{Config, Network, Service, ServiceNetwork};

/// The network of services that name none.
const DEFAULT: &str = "default";

/// The keys of the networks that services use. A network that none uses is not created; one that
/// is used but not declared is, and the deployment fails after it.
fn used(config: &Config) -> BTreeSet<&str> {
    let of = |service| attachments(service).into_iter().map(|(name, _)| name);
    config.services.values().flat_map(of).collect()
}

fn attachments(service: &Service) -> Vec<(&str, Option<&ServiceNetwork>)> {
    if service.networks.is_empty() {
        return vec![(DEFAULT, None)];
    }
    service.networks.iter().map(|(name, network)| (name.as_str(), network.as_ref())).collect()
}

/// The names of networks that must exist, with scope `swarm`, before the stack is deployed.
/// Networks that every node has by itself are not among them.
pub(crate) fn external_networks(config: &Config) -> Vec<String> {
    let networks = used(config).into_iter().filter_map(|key| config.networks.get(key));
    let external = networks.filter(|network| network.external.external);
    let names = external.map(|network| network.name.clone());
    names.filter(|name| is_user_defined(name)).collect()
}

/// The bodies of the requests that create networks.
pub(crate) fn create_networks(config: &Config, namespace: Namespace<'_>) -> Vec<Json> {
    let undeclared = Network::default();
    let networks = used(config).into_iter().filter_map(|key| {
        let network = config.networks.get(key).unwrap_or(&undeclared);
        let name = namespace.scope(key, &network.name);
        (!network.external.external).then(|| create(name, network, namespace))
    });
    networks.collect()
}

fn create(name: String, network: &Network, namespace: Namespace<'_>) -> Json {
    let pools = network.ipam.config.iter();
    let pools: Vec<Json> =
        pools.map(|pool| Body::default().with("Subnet", pool.subnet.as_str()).into()).collect();
    let ipam = Body::default().with("Driver", network.ipam.driver.as_str()).with("Config", pools);
    let driver = if network.driver.is_empty() { "overlay" } else { &network.driver };
    Body::default()
        .always("Name", name)
        .always("Driver", driver)
        .with("Internal", network.internal)
        .with("Attachable", network.attachable)
        .with("IPAM", ipam)
        .with("Options", table(&network.driver_opts))
        .always("Labels", namespace.label(&network.labels))
        .into()
}

/// A service's places in networks, ordered by the networks' names.
pub(super) fn attach(
    key: &str,
    service: &Service,
    config: &Config,
    namespace: Namespace<'_>,
) -> Result<Vec<Json>, String> {
    let mut places = Vec::new();
    for (name, attachment) in attachments(service) {
        let network = config.networks.get(name);
        if network.is_none() && name != DEFAULT {
            return Err(format!("undefined network {name:?}"));
        }
        let target = namespace.scope(name, network.map_or("", |network| &network.name));
        let mut aliases = attachment.map(|place| place.aliases.clone()).unwrap_or_default();
        if is_user_defined(&target) {
            aliases.push(key.to_owned());
        }
        let options = attachment.map(|place| table(&place.driver_opts));
        let body = Body::default()
            .with("Target", target.as_str())
            .with("Aliases", aliases)
            .with("DriverOpts", options.unwrap_or_default());
        places.push((target, Json::from(body)));
    }
    places.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(places.into_iter().map(|(_, body)| body).collect())
}

/// Whether a network is not one that the engine makes on every node. Those know no aliases.
fn is_user_defined(name: &str) -> bool {
    !matches!(name, "default" | "bridge" | "host" | "none") && !name.starts_with("container:")
}
