//! Networks, addresses and published ports.

use super::{Driver, Labels, NetworkId, Version};
use crate::time::Timestamp;

crate::object! {
    /// One address range of a network.
    pub struct IpamConfig {
        /// The range as a CIDR, such as `10.0.1.0/24`.
        subnet: String = "Subnet" omit,
        /// The part of it that addresses are taken from.
        range: String = "IPRange" omit,
        /// The gateway's address, without a mask.
        gateway: String = "Gateway" omit,
    }
}

crate::object! {
    /// How a network gets its addresses.
    pub struct IpamOptions {
        /// The address manager; `default` where empty.
        driver: Driver = "Driver" omit,
        /// The ranges; empty asks for one from the cluster's pool.
        configs: Vec<IpamConfig> = "Configs" omit,
    }
}

crate::object! {
    /// What an operator says of a network. Read from Docker's create request by the API.
    pub struct NetworkSpec {
        /// Its unique name.
        name: String = "Name",
        /// Labels.
        labels: Labels = "Labels",
        /// The driver, `overlay` where empty, and its options.
        driver: Driver = "DriverConfiguration" omit,
        /// Whether it carries IPv6 too.
        ipv6: bool = "IPv6Enabled" omit,
        /// Whether it has no way out.
        internal: bool = "Internal" omit,
        /// Whether containers outside the cluster's control may join.
        attachable: bool = "Attachable" omit,
        /// Whether it is the network of the published ports.
        ingress: bool = "Ingress" omit,
        /// How it gets its addresses.
        ipam: Option<IpamOptions> = "IPAMOptions" omit,
        /// `swarm`, except for predefined node-local networks.
        scope: String = "Scope" omit,
    }
}

crate::object! {
    /// A network of the cluster.
    pub struct Network {
        /// Its id.
        id: NetworkId = "ID",
        /// The commit that last changed the specification.
        version: Version = "Version",
        /// When it was created.
        created_at: Timestamp = "CreatedAt",
        /// When it was last changed.
        updated_at: Timestamp = "UpdatedAt",
        /// The commit that last changed anything. (Ours.)
        revision: Version = "Revision" omit,
        /// What the operator says of it.
        spec: NetworkSpec = "Spec",
        /// What its driver allocated, such as the VNI; absent until then.
        driver_state: Option<Driver> = "DriverState" omit,
        /// The ranges that were allocated; absent until then.
        ipam: Option<IpamOptions> = "IPAMOptions" omit,
        /// Why nothing could be allocated. (Ours.)
        stalled: String = "Stalled" omit,
        /// Marked for removal: erased once nothing uses it. (Ours.)
        pending_delete: bool = "PendingDelete" omit,
    }
}

crate::words! {
    /// The transport of a published port.
    pub enum PortProtocol as "PortProtocol" {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// SCTP.
        Sctp = "sctp",
    }
}

crate::words! {
    /// Where a port is published.
    pub enum PublishMode as "PublishMode" {
        /// On every node, balanced over all tasks.
        Ingress = "ingress",
        /// On the nodes that run a task, straight to that task.
        Host = "host",
    }
}

crate::object! {
    /// A published port.
    pub struct PortConfig {
        /// A name of the operator's choice.
        name: String = "Name" omit,
        /// The transport.
        protocol: PortProtocol = "Protocol",
        /// The port inside the container.
        target_port: u16 = "TargetPort" omit,
        /// The port outside; 0 in a specification asks for one from 30000 to 32767.
        published_port: u16 = "PublishedPort" omit,
        /// Where it is published.
        publish_mode: PublishMode = "PublishMode",
    }
}

crate::words! {
    /// How clients find a service's tasks.
    pub enum EndpointMode as "resolution mode" {
        /// By a virtual address in front of them.
        Vip = "vip",
        /// By a name that lists all of them.
        Dnsrr = "dnsrr",
    }
}

crate::object! {
    /// How a service can be reached, as asked for.
    pub struct EndpointSpec {
        /// By virtual address (the default) or by name alone.
        mode: Option<EndpointMode> = "Mode" omit,
        /// The ports to publish.
        ports: Vec<PortConfig> = "Ports" omit,
    }
}

crate::object! {
    /// A service's virtual address in one network.
    pub struct VirtualIp {
        /// The network.
        network_id: NetworkId = "NetworkID" omit,
        /// The address as a CIDR.
        addr: String = "Addr" omit,
    }
}

crate::object! {
    /// How a service can be reached, as allocated.
    pub struct Endpoint {
        /// What this was allocated for.
        spec: EndpointSpec = "Spec",
        /// The ports, every one with a published number except host ports left to the node.
        ports: Vec<PortConfig> = "Ports" omit,
        /// One address in each network.
        virtual_ips: Vec<VirtualIp> = "VirtualIPs" omit,
    }
}

/// So that two that are the same one are equal without a look at either.
impl Eq for Endpoint {}

crate::object! {
    /// A wish to be attached to a network.
    pub struct NetworkAttachmentConfig {
        /// The network's id; its name in requests.
        target: String = "Target" omit,
        /// More names for the service in that network.
        aliases: Vec<String> = "Aliases" omit,
        /// Options for the driver.
        driver_opts: Labels = "DriverOpts" omit,
    }
}

crate::object! {
    /// The identity of a network inside an attachment. API responses put the whole network here.
    pub struct NetworkRef {
        /// The network.
        id: NetworkId = "ID",
    }
}

crate::object! {
    /// A task's place in one network.
    pub struct NetworkAttachment {
        /// Which network.
        network: NetworkRef = "Network",
        /// The task's addresses there, as CIDRs.
        addresses: Vec<String> = "Addresses",
        /// More names for the service in that network. (Ours.)
        aliases: Vec<String> = "Aliases" omit,
        /// Options for the driver. (Ours.)
        driver_opts: Labels = "DriverOpts" omit,
    }
}
