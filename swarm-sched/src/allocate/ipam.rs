//! Pure: which range a network gets and which address of it a task or service.
//!
//! Nothing is remembered: what is in use is read from the view each time, so that a new leader
//! cannot hand out an address twice. Addresses are IPv4, as Swarm's are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use swarm_core::model::{Cluster, IpamConfig, IpamOptions, Network, defaults};

use swarm_core::time::Timestamp;

use super::Stall;

/// An IPv4 range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    base: u32,
    prefix: u8,
}

impl Cidr {
    /// The range of this length that an address is in; `None` for a mask longer than 32 bits.
    #[must_use]
    pub fn around(addr: Ipv4Addr, prefix: u8) -> Option<Self> {
        let host_bits = 32_u32.checked_sub(prefix.into())?;
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        Some(Self { base: u32::from(addr) & mask, prefix })
    }

    /// The last address of the range.
    fn end(self) -> u32 {
        self.base | u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0)
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, addr: u32) -> bool {
        (self.base..=self.end()).contains(&addr)
    }

    /// Its addresses but for the first and the last, which are the network's and the broadcast's.
    pub fn hosts(self) -> impl Iterator<Item = u32> {
        self.base + 1..self.end()
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.base <= other.end() && other.base <= self.end()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = Stall;

    fn from_str(text: &str) -> Result<Self, Stall> {
        parse_interface(text)
            .and_then(|(addr, prefix)| Self::around(addr, prefix))
            .ok_or_else(|| Stall::BadRange(text.to_owned()))
    }
}

/// An address with the length of its network's mask, such as `10.0.1.5/24`.
fn parse_interface(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (addr, prefix) = text.split_once('/')?;
    Some((addr.parse().ok()?, prefix.parse().ok()?))
}

/// The address of a CIDR text, without the mask.
fn addr_of(cidr: &str) -> Option<u32> {
    parse_interface(cidr).map(|(addr, _)| addr.into())
}

/// Whether ranges written by hand are IPv6, which is passed through and not allocated from.
fn is_v6(config: &IpamConfig) -> bool {
    config.subnet.contains(':')
}

/// The IPv4 ranges that a network holds or asks for.
fn ranges(ipam: &IpamOptions) -> impl Iterator<Item = Cidr> {
    ipam.configs.iter().filter_map(|config| config.subnet.parse().ok())
}

/// The ranges for a network: those it asks for, if they are free, with gateways; or the first
/// free one of the cluster's pool.
///
/// # Errors
/// [`Stall::Overlap`], [`Stall::BadRange`], [`Stall::PoolExhausted`].
pub(super) fn ranges_for(
    wanted: Option<&IpamOptions>,
    cluster: Option<&Cluster>,
    others: &[&Network],
) -> Result<IpamOptions, Stall> {
    let held = || {
        others.iter().flat_map(|other| {
            let ipam = other.ipam.as_ref();
            ipam.into_iter().flat_map(ranges).map(move |range| (range, &other.spec.name))
        })
    };
    let mut ipam = wanted.cloned().unwrap_or_default();
    if ipam.driver.name.is_empty() {
        ipam.driver.name = "default".to_owned();
    }
    if !ipam.configs.iter().any(|config| !config.subnet.is_empty() && !is_v6(config)) {
        let taken: BTreeSet<Cidr> = held().map(|(range, _)| range).collect();
        let subnet = free_range(cluster, &taken)?.to_string();
        // A client that wants the pool may send one configuration without a subnet.
        match ipam.configs.iter_mut().find(|config| config.subnet.is_empty()) {
            Some(config) => config.subnet = subnet,
            None => ipam.configs.push(IpamConfig { subnet, ..IpamConfig::default() }),
        }
    }
    for config in ipam.configs.iter_mut().filter(|config| !is_v6(config)) {
        let range: Cidr = config.subnet.parse()?;
        if let Some((_, name)) = held().find(|(other, _)| other.overlaps(range)) {
            return Err(Stall::Overlap { range, network: name.clone() });
        }
        if config.gateway.is_empty() {
            config.gateway = Ipv4Addr::from(range.base.saturating_add(1)).to_string();
        }
    }
    Ok(ipam)
}

/// The lowest range of the pool that overlaps none that is taken.
fn free_range(cluster: Option<&Cluster>, taken: &BTreeSet<Cidr>) -> Result<Cidr, Stall> {
    let standard = [defaults::ADDR_POOL.to_owned()];
    let pools = match cluster {
        Some(cluster) if !cluster.default_addr_pool.is_empty() => &cluster.default_addr_pool[..],
        _ => &standard,
    };
    let size = cluster.map_or(0, |cluster| cluster.subnet_size);
    let size = if size == 0 { defaults::SUBNET_SIZE } else { size };
    let prefix = u8::try_from(size).unwrap_or(u8::MAX);
    for pool in pools {
        let pool: Cidr = pool.parse()?;
        let mut next = Cidr::around(pool.base.into(), prefix.max(pool.prefix));
        while let Some(range) = next.filter(|range| pool.contains(range.base)) {
            // Ranges that are taken overlap each other nowhere, so their ends are in order too.
            let Some(other) = taken.iter().find(|other| other.overlaps(range)) else {
                return Ok(range);
            };
            let after = other.end().max(range.end()).checked_add(1);
            next = after.and_then(|after| Cidr::around(after.into(), range.prefix));
        }
    }
    Err(Stall::PoolExhausted { pools: pools.join(", "), size })
}

/// Whether an address that a network gave out lies in its ranges still.
pub(super) fn is_of(network: &Network, cidr: &str) -> bool {
    let ipam = network.ipam.as_ref();
    addr_of(cidr)
        .is_some_and(|addr| ipam.into_iter().flat_map(ranges).any(|range| range.contains(addr)))
}

/// The addresses of one network during one plan.
pub(super) struct Addresses {
    name: String,
    spans: Vec<Span>,
    used: BTreeSet<u32>,
    /// Free, but in use until a moment ago; larger is more recent. Taken when nothing else is
    /// left: caches and open connections of others may still point to the former holder.
    resting: BTreeMap<u32, Timestamp>,
}

/// A part of a range that addresses are taken from.
struct Span {
    range: Cidr,
    /// Everything below was used or resting when it was last looked at.
    next: u32,
    last: u32,
}

impl Addresses {
    /// The addresses of an allocated network, none but the gateways in use.
    pub(super) fn of(network: &Network) -> Self {
        let mut addresses = Self {
            name: network.spec.name.clone(),
            spans: Vec::new(),
            used: BTreeSet::new(),
            resting: BTreeMap::new(),
        };
        for config in network.ipam.iter().flat_map(|ipam| &ipam.configs) {
            let Ok(range) = config.subnet.parse::<Cidr>() else { continue };
            let part: Cidr = config.range.parse().unwrap_or(range);
            // The first and the last address of a range are the network's own and broadcast.
            let next = part.base.max(range.base.saturating_add(1));
            let last = part.end().min(range.end().saturating_sub(1));
            addresses.spans.push(Span { range, next, last });
            let gateway = config.gateway.split('/').next().unwrap_or_default();
            addresses.used.extend(gateway.parse::<Ipv4Addr>().ok().map(u32::from));
        }
        addresses
    }

    /// Marks an address as in use.
    pub(super) fn occupy(&mut self, cidr: &str) {
        self.used.extend(addr_of(cidr));
    }

    /// Marks an address as free since `ended`, a moment ago.
    pub(super) fn rest(&mut self, cidr: &str, ended: Timestamp) {
        if let Some(addr) = addr_of(cidr) {
            let since = self.resting.entry(addr).or_default();
            *since = ended.max(*since);
        }
    }

    /// Takes the lowest free address; among resting ones the one that rested longest.
    ///
    /// # Errors
    /// [`Stall::NoAddress`].
    pub(super) fn take(&mut self) -> Result<String, Stall> {
        for span in &mut self.spans {
            while span.next <= span.last {
                let addr = span.next;
                span.next += 1;
                if !self.resting.contains_key(&addr) && self.used.insert(addr) {
                    return Ok(interface(addr, span.range));
                }
            }
        }
        let rested = |(addr, since): (&u32, &Timestamp)| {
            let span = self.spans.iter().find(|span| span.range.contains(*addr))?;
            (!self.used.contains(addr) && *addr <= span.last).then_some((*since, *addr, span.range))
        };
        let Some((_, addr, range)) = self.resting.iter().filter_map(rested).min() else {
            let ranges: Vec<_> = self.spans.iter().map(|span| span.range.to_string()).collect();
            return Err(Stall::NoAddress { network: self.name.clone(), ranges: ranges.join(", ") });
        };
        self.used.insert(addr);
        Ok(interface(addr, range))
    }
}

fn interface(addr: u32, range: Cidr) -> String {
    format!("{}/{}", Ipv4Addr::from(addr), range.prefix)
}
