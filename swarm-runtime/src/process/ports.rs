//! Gives a process ports of the machine: it has no network of its own.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use swarm_core::executor::ExecError;
use swarm_core::model::{PortConfig, PortProtocol, PublishMode};

/// Tries for a free port.
const TRIES: usize = 64;

/// Sets every port's `published_port` to where the process shall listen: a host port where it is
/// published, an ingress port, and a host port without a number, wherever there is room.
///
/// # Errors
/// *Failed* when a host port is taken, *temporary* when no port is free.
pub(super) fn assign(
    ports: &mut [PortConfig],
    addr: IpAddr,
    taken: &[u16],
) -> Result<(), ExecError> {
    let mut taken = taken.to_vec();
    for port in ports {
        let host = port.publish_mode == PublishMode::Host;
        if host && port.published_port != 0 {
            let number = port.published_port;
            if try_bind(addr, number, port.protocol).is_none() {
                return Err(ExecError::failed(format!(
                    "host port {number}/{} is in use on {addr}",
                    port.protocol
                )));
            }
        } else {
            let free = (0..TRIES)
                .filter_map(|_| try_bind(addr, 0, port.protocol))
                .find(|free| !taken.contains(free));
            port.published_port =
                free.ok_or_else(|| ExecError::temporary(format!("no port is free on {addr}")))?;
        }
        taken.push(port.published_port);
    }
    Ok(())
}

/// Whether a port can be listened on, and which one it is.
fn try_bind(addr: IpAddr, port: u16, protocol: PortProtocol) -> Option<u16> {
    let at = SocketAddr::new(addr, port);
    let local = match protocol {
        PortProtocol::Udp => UdpSocket::bind(at).and_then(|socket| socket.local_addr()),
        // The standard library cannot try SCTP; TCP's numbers are as good a guess as any.
        PortProtocol::Tcp | PortProtocol::Sctp => {
            TcpListener::bind(at).and_then(|listener| listener.local_addr())
        }
    };
    local.ok().map(|local| local.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn ingress_ports_are_free_ones_and_host_ports_are_their_own() {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let used = listener.local_addr().unwrap().port();
        let ingress = PortConfig { target_port: 80, published_port: 8080, ..Default::default() };
        let mut ports = [ingress.clone(), PortConfig { target_port: 81, ..ingress.clone() }];
        assign(&mut ports, HERE, &[]).unwrap();
        assert_ne!(ports[0].published_port, ports[1].published_port);
        assert!(ports.iter().all(|port| ![0, used].contains(&port.published_port)));

        let host = PortConfig { publish_mode: PublishMode::Host, published_port: used, ..ingress };
        let error = assign(&mut [host.clone()], HERE, &[]).unwrap_err();
        assert_eq!(error.message, format!("host port {used}/tcp is in use on 127.0.0.1"));
        drop(listener);
        let mut ports = [host];
        assign(&mut ports, HERE, &[]).unwrap();
        assert_eq!(ports[0].published_port, used);
    }
}
