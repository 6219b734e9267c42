//! Pure: a stack file after reading: every short form is long, every unit is parsed.
//!
//! The serde shape is what `docker stack config` prints: empty members are left out, durations and
//! sizes are text again. Members that the docker CLI reads and drops are here as well, since that
//! command prints them.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::error::Place;
use crate::units;

/// Names to values, in order of the names.
pub(crate) type Table<T> = BTreeMap<String, T>;

/// What stands under keys that begin with `x-`.
pub(crate) type Extensions = Table<serde_json::Value>;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares a section of a stack file, whose members are printed unless they are empty.
macro_rules! section {
    (
        $(#[$meta:meta])*
        $name:ident { $( $(#[$field_meta:meta])* $field:ident: $ty:ty, )* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize)]
        pub(crate) struct $name {
            $( $(#[$field_meta])* #[serde(skip_serializing_if = "is_default")] pub(crate) $field: $ty, )*
        }
    };
}

/// A span of time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Duration(pub(crate) i64);

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&units::duration_text(self.0))
    }
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) i64);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// All files of a stack, merged.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Config {
    pub(crate) version: String,
    pub(crate) services: Table<Service>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) networks: Table<Network>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) volumes: Table<Volume>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) secrets: Table<FileObject>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) configs: Table<FileObject>,
    #[serde(flatten)]
    pub(crate) extensions: Extensions,
}

section! {
    /// A service.
    Service {
        build: Build,
        cap_add: Vec<String>,
        cap_drop: Vec<String>,
        cgroupns_mode: String,
        cgroup_parent: String,
        command: Vec<String>,
        configs: Vec<FileReference>,
        container_name: String,
        credential_spec: CredentialSpec,
        depends_on: Vec<String>,
        deploy: Deploy,
        devices: Vec<String>,
        dns: Vec<String>,
        dns_search: Vec<String>,
        domainname: String,
        entrypoint: Vec<String>,
        environment: Table<Option<String>>,
        env_file: Vec<String>,
        expose: Vec<String>,
        external_links: Vec<String>,
        extra_hosts: Vec<String>,
        hostname: String,
        healthcheck: Option<Healthcheck>,
        image: String,
        init: Option<bool>,
        ipc: String,
        isolation: String,
        labels: Table<String>,
        links: Vec<String>,
        logging: Option<Logging>,
        mac_address: String,
        network_mode: String,
        networks: Table<Option<ServiceNetwork>>,
        pid: String,
        ports: Vec<Port>,
        privileged: bool,
        read_only: bool,
        restart: String,
        secrets: Vec<FileReference>,
        security_opt: Vec<String>,
        shm_size: String,
        stdin_open: bool,
        stop_grace_period: Option<Duration>,
        stop_signal: String,
        sysctls: Table<String>,
        tmpfs: Vec<String>,
        tty: bool,
        ulimits: Table<Ulimit>,
        user: String,
        userns_mode: String,
        volumes: Vec<ServiceVolume>,
        working_dir: String,
        #[serde(flatten)]
        extensions: Extensions,
        /// Where the service begins, for errors.
        #[serde(skip)]
        place: Place,
    }
}

section! {
    /// How an image would be built; Swarm does not build.
    Build {
        context: String,
        dockerfile: String,
        args: Table<Option<String>>,
        labels: Table<String>,
        cache_from: Vec<String>,
        extra_hosts: Vec<String>,
        network: String,
        target: String,
    }
}

section! {
    /// The log driver.
    Logging {
        driver: String,
        options: Table<String>,
    }
}

section! {
    /// How a service is deployed.
    Deploy {
        mode: String,
        replicas: Option<u64>,
        labels: Table<String>,
        update_config: Option<Update>,
        rollback_config: Option<Update>,
        resources: Resources,
        restart_policy: Option<RestartPolicy>,
        placement: Placement,
        endpoint_mode: String,
    }
}

section! {
    /// How health is tested.
    Healthcheck {
        test: Vec<String>,
        timeout: Option<Duration>,
        interval: Option<Duration>,
        retries: Option<u64>,
        start_period: Option<Duration>,
        start_interval: Option<Duration>,
        disable: bool,
    }
}

section! {
    /// How changes roll out.
    Update {
        parallelism: Option<u64>,
        delay: Duration,
        failure_action: String,
        monitor: Duration,
        max_failure_ratio: f32,
        order: String,
    }
}

section! {
    /// Limits and reservations.
    Resources {
        limits: Option<Limits>,
        reservations: Option<Reservations>,
    }
}

section! {
    /// What a task may use.
    Limits {
        cpus: String,
        memory: Bytes,
        pids: i64,
    }
}

section! {
    /// What is set aside for a task.
    Reservations {
        cpus: String,
        memory: Bytes,
        generic_resources: Vec<GenericResource>,
    }
}

section! {
    /// A resource of the operator's own kind.
    GenericResource {
        discrete_resource_spec: Option<DiscreteResource>,
    }
}

/// A number of interchangeable resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct DiscreteResource {
    pub(crate) kind: String,
    pub(crate) value: i64,
}

section! {
    /// When an ended task is replaced.
    RestartPolicy {
        condition: String,
        delay: Option<Duration>,
        max_attempts: Option<u64>,
        window: Option<Duration>,
    }
}

section! {
    /// Where tasks may run.
    Placement {
        constraints: Vec<String>,
        preferences: Vec<Preference>,
        max_replicas_per_node: u64,
    }
}

section! {
    /// A wish about where tasks run.
    Preference {
        spread: String,
    }
}

section! {
    /// A service's place in a network.
    ServiceNetwork {
        aliases: Vec<String>,
        driver_opts: Table<String>,
        ipv4_address: String,
        ipv6_address: String,
    }
}

section! {
    /// A published port.
    Port {
        mode: String,
        target: u32,
        published: u32,
        protocol: String,
    }
}

section! {
    /// A mount.
    ServiceVolume {
        #[serde(rename = "type")]
        kind: String,
        source: String,
        target: String,
        read_only: bool,
        consistency: String,
        bind: Option<BindOptions>,
        volume: Option<VolumeOptions>,
        image: Option<ImageOptions>,
        tmpfs: Option<TmpfsOptions>,
        cluster: Option<ClusterOptions>,
    }
}

section! {
    /// Options of a bind mount.
    BindOptions {
        propagation: String,
    }
}

section! {
    /// Options of a volume mount.
    VolumeOptions {
        nocopy: bool,
        subpath: String,
    }
}

section! {
    /// Options of an image mount.
    ImageOptions {
        subpath: String,
    }
}

section! {
    /// Options of a mount in memory.
    TmpfsOptions {
        size: i64,
    }
}

section! {
    /// Options of a cluster volume's mount: none so far.
    ClusterOptions {}
}

section! {
    /// The use of a secret or config.
    FileReference {
        source: String,
        target: String,
        uid: String,
        gid: String,
        mode: Option<u32>,
    }
}

/// A resource limit of the kernel: one number for both limits, or one for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ulimit {
    pub(crate) single: i64,
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

impl Serialize for Ulimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.single != 0 {
            return serializer.serialize_i64(self.single);
        }
        let mut map = serializer.serialize_map(None)?;
        for (name, limit) in [("soft", self.soft), ("hard", self.hard)] {
            if limit != 0 {
                map.serialize_entry(name, &limit)?;
            }
        }
        map.end()
    }
}

section! {
    /// A network of the stack.
    Network {
        name: String,
        driver: String,
        driver_opts: Table<String>,
        ipam: Ipam,
        external: External,
        internal: bool,
        attachable: bool,
        labels: Table<String>,
        #[serde(flatten)]
        extensions: Extensions,
    }
}

section! {
    /// How a network gets its addresses.
    Ipam {
        driver: String,
        config: Vec<Pool>,
    }
}

section! {
    /// A range of addresses.
    Pool {
        subnet: String,
    }
}

section! {
    /// A volume of the stack.
    Volume {
        name: String,
        driver: String,
        driver_opts: Table<String>,
        external: External,
        labels: Table<String>,
        #[serde(flatten)]
        extensions: Extensions,
        #[serde(rename = "x-cluster-spec")]
        cluster_spec: Option<serde_json::Value>,
    }
}

/// Whether an object exists outside of the stack, and the name that an old form gave for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct External {
    pub(crate) name: String,
    pub(crate) external: bool,
}

impl Serialize for External {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.name.is_empty() {
            return serializer.serialize_bool(self.external);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("name", &self.name)?;
        map.end()
    }
}

section! {
    /// A Windows credential spec.
    CredentialSpec {
        config: String,
        file: String,
        registry: String,
    }
}

section! {
    /// A secret or config of the stack.
    FileObject {
        name: String,
        file: String,
        external: External,
        labels: Table<String>,
        #[serde(flatten)]
        extensions: Extensions,
        driver: String,
        driver_opts: Table<String>,
        template_driver: String,
        /// Where the object begins, for errors.
        #[serde(skip)]
        place: Place,
    }
}
