//! Pure: published ports in short form: `[[IP:]PUBLISHED:]TARGET[/PROTOCOL]`, with ranges.

use std::net::IpAddr;

/// One published port; 0 leaves the published number to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShortPort {
    pub(crate) target: u32,
    pub(crate) published: u32,
    pub(crate) protocol: String,
}

/// What a short form says: its ports, in the docker CLI's order, and the addresses that Swarm
/// cannot honour: a service listens on every address.
#[derive(Debug, Default)]
pub(crate) struct ShortPorts {
    pub(crate) ports: Vec<ShortPort>,
    pub(crate) ignored: Vec<String>,
}

/// Reads a short form.
pub(crate) fn parse(text: &str) -> Result<ShortPorts, String> {
    let (address, published, target) = split(text);
    let (target, protocol) = match target.split_once('/') {
        Some(("", _)) => ("", ""),
        Some((target, rest)) => (target, rest.split('/').next().unwrap_or_default()),
        None => (target, ""),
    };
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    let address = address.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(&address);
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    if target.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let (first, last) = range(target).ok_or_else(|| format!("invalid containerPort: {target}"))?;
    let outside = match published {
        "" => None,
        published => {
            Some(range(published).ok_or_else(|| format!("invalid hostPort: {published}"))?)
        }
    };
    let same_length = outside.is_none_or(|(from, to)| to - from == last - first);
    if !same_length && first != last {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {target} and {published}"
        ));
    }
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let port = |target, published| ShortPort { target, published, protocol: protocol.clone() };
    let mut ports = match outside {
        None => (first..=last).map(|target| port(target, 0)).collect::<Vec<_>>(),
        // One port inside may be published as many outside.
        Some((from, to)) if first == last => (from..=to).map(|out| port(first, out)).collect(),
        Some((from, _)) => {
            (first..=last).map(|target| port(target, from + target - first)).collect()
        }
    };
    // The docker CLI sorts by the text of the target.
    ports.sort_by_key(|port| port.target.to_string());
    let ignored = ignored(address, published, &ports);
    Ok(ShortPorts { ports, ignored })
}

/// Whether a number alone, or a text, is a port in short form: the schema's `ports` format.
pub(crate) fn is_valid(text: &str) -> bool {
    parse(text).is_ok()
}

/// `IP:PUBLISHED:TARGET`; the address may hold colons itself.
fn split(text: &str) -> (String, &str, &str) {
    let mut parts = text.rsplitn(3, ':');
    let target = parts.next().unwrap_or_default();
    let published = parts.next().unwrap_or_default();
    (parts.next().unwrap_or_default().to_owned(), published, target)
}

fn range(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok().map(u32::from)).flatten()
    };
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((from, to)) => {
            let (from, to) = (number(from)?, number(to.split('-').next()?)?);
            (from <= to).then_some((from, to))
        }
    }
}

fn ignored(address: &str, published: &str, ports: &[ShortPort]) -> Vec<String> {
    let Ok(ip) = address.parse::<IpAddr>() else { return Vec::new() };
    if ip.is_unspecified() {
        return Vec::new();
    }
    let shown = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let ports = ports.iter().map(|port| {
        let outside = match (published, port.published) {
            ("", _) => String::new(),
            (text, number) => {
                if text.contains('-') {
                    text.to_owned()
                } else {
                    number.to_string()
                }
            }
        };
        format!(
            "ignoring IP-address ({shown}:{outside}:{}/{}) service will listen on '0.0.0.0'",
            port.target, port.protocol
        )
    });
    let mut lines: Vec<_> = ports.collect();
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let ports = parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).ports;
        let port =
            |port: &ShortPort| format!("{}:{}/{}", port.published, port.target, port.protocol);
        ports.iter().map(port).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_short_form_is_read() {
        for (text, ports) in [
            ("80", "0:80/tcp"),
            ("8080:80/udp", "8080:80/udp"),
            ("127.0.0.1:8080:80", "8080:80/tcp"),
            ("127.0.0.1::80", "0:80/tcp"),
            ("[::1]:8080:80/SCTP", "8080:80/sctp"),
            ("80/", "0:80/tcp"),
            ("9-11", "0:10/tcp 0:11/tcp 0:9/tcp"),
            ("8000-8001:80-81", "8000:80/tcp 8001:81/tcp"),
            ("8000-8001:80", "8000:80/tcp 8001:80/tcp"),
        ] {
            assert_eq!(shown(text), ports, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            ":",
            "x",
            "80/xyz",
            "65536",
            "8000-8001:80-82",
            "81-80",
            "300.0.0.1:1:1",
            "1:2:",
            "-1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_ignored_with_a_warning() {
        let ignored = parse("127.0.0.1:8080:80").unwrap().ignored;
        assert_eq!(
            ignored,
            ["ignoring IP-address (127.0.0.1:8080:80/tcp) service will listen on '0.0.0.0'"]
        );
        assert!(parse("0.0.0.0:8080:80").unwrap().ignored.is_empty());
    }
}
