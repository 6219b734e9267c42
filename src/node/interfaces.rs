//! The network interfaces of this machine.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use super::address::Interface;

/// Every interface that has an address, in the kernel's order. Empty when the kernel does not say:
/// an address must be given then.
pub(super) fn list() -> Vec<Interface> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for entry in getifaddrs().into_iter().flatten() {
        let Some(address) = entry.address else { continue };
        let ip: Option<IpAddr> = address
            .as_sockaddr_in()
            .map(|v4| v4.ip().into())
            .or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()));
        let Some(ip) = ip else { continue };
        match interfaces.iter_mut().find(|known| known.name == entry.interface_name) {
            Some(known) => known.addrs.push(ip),
            None => interfaces.push(Interface { name: entry.interface_name, addrs: vec![ip] }),
        }
    }
    interfaces
}
