//! Pure: which addresses a node listens on and advertises, as `docker swarm init` reads them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use swarm_core::model::defaults::LISTEN_PORT;

use crate::error::{ApiError, Code};

/// One network interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    /// Its name.
    pub(super) name: String,
    /// Its addresses.
    pub(super) addrs: Vec<IpAddr>,
}

fn refused(text: impl Into<String>) -> ApiError {
    ApiError::plain(Code::InvalidArgument, text)
}

/// Where a manager listens, with the usual port if none is said.
pub(super) fn at_usual_port(addr: &str) -> String {
    match addr.rsplit_once(':') {
        Some(_) => addr.to_owned(),
        None => format!("{addr}:{LISTEN_PORT}"),
    }
}

/// Where to listen: an address, or an interface's name, with an optional port. Empty is every
/// address.
///
/// # Errors
/// With the engine's text, when it is neither.
pub(super) fn listen(text: &str, interfaces: &[Interface]) -> Result<SocketAddr, ApiError> {
    if text.is_empty() {
        return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), LISTEN_PORT));
    }
    resolve(text, interfaces).ok_or_else(|| {
        refused(
            "listen address must be an IP address or network interface (with optional port number)",
        )
    })
}

/// What others should use: an address or an interface's name; empty takes the listening address
/// if it is a particular one, else the only address that this machine has.
///
/// # Errors
/// With the engine's text, when it is none, the unspecified address, or the choice is ambiguous.
pub(super) fn advertise(
    text: &str,
    listen: SocketAddr,
    interfaces: &[Interface],
) -> Result<SocketAddr, ApiError> {
    if !text.is_empty() {
        let chosen = resolve(text, interfaces).filter(|addr| !addr.ip().is_unspecified());
        return chosen.map(|addr| with_port(addr, text, listen)).ok_or_else(|| {
            refused("advertise address must be a non-zero IP address or network interface (with optional port number)")
        });
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen);
    }
    let candidates: Vec<(&str, IpAddr)> = interfaces
        .iter()
        .flat_map(|interface| interface.addrs.iter().map(|addr| (interface.name.as_str(), *addr)))
        .filter(|(_, addr)| !addr.is_loopback() && addr.is_ipv4())
        .collect();
    match candidates.as_slice() {
        [] => Err(refused(
            "could not find the system's IP address - specify one with --advertise-addr",
        )),
        [(_, only)] => Ok(SocketAddr::new(*only, listen.port())),
        [(first_name, first), (second_name, second), ..] => Err(refused(format!(
            "could not choose an IP address to advertise since this system has multiple addresses \
             on different interfaces ({first} on {first_name} and {second} on {second_name}) - \
             specify one with --advertise-addr"
        ))),
    }
}

fn with_port(addr: SocketAddr, text: &str, listen: SocketAddr) -> SocketAddr {
    let given = text.parse::<SocketAddr>().is_ok()
        || text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    SocketAddr::new(addr.ip(), if given { addr.port() } else { listen.port() })
}

fn resolve(text: &str, interfaces: &[Interface]) -> Option<SocketAddr> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Some(addr);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, LISTEN_PORT));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()?),
        None => (text, LISTEN_PORT),
    };
    let interface = interfaces.iter().find(|interface| interface.name == name)?;
    let addr = interface.addrs.iter().find(|addr| addr.is_ipv4()).or(interface.addrs.first())?;
    Some(SocketAddr::new(*addr, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(list: &[(&str, &str)]) -> Vec<Interface> {
        list.iter()
            .map(|(name, addr)| Interface {
                name: (*name).into(),
                addrs: vec![addr.parse().unwrap()],
            })
            .collect()
    }

    #[test]
    fn an_ambiguous_address_is_an_error_and_not_a_guess() {
        let all = listen("", &[]).unwrap();
        let one = interfaces(&[("lo", "127.0.0.1"), ("eth0", "10.0.0.5")]);
        assert_eq!(advertise("", all, &one).unwrap(), "10.0.0.5:2377".parse().unwrap());
        let two = interfaces(&[("eth0", "10.0.0.5"), ("eth1", "10.1.0.5")]);
        let error = advertise("", all, &two).unwrap_err();
        assert!(error.message.contains("10.0.0.5 on eth0 and 10.1.0.5 on eth1"), "{error}");
    }

    #[test]
    fn an_interface_name_stands_for_its_address_and_a_port_may_follow() {
        let own = interfaces(&[("eth0", "10.0.0.5")]);
        let at = listen("eth0:4000", &own).unwrap();
        assert_eq!(at, "10.0.0.5:4000".parse().unwrap());
        assert_eq!(advertise("eth0", at, &own).unwrap(), at);
        assert_eq!(advertise("1.2.3.4:99", at, &own).unwrap(), "1.2.3.4:99".parse().unwrap());
        assert!(advertise("0.0.0.0", at, &own).is_err());
        assert!(listen("nope", &own).is_err());
    }
}
