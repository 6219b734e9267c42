//! What a container is made from. Members that no executor of ours acts on stay in `extra` and
//! so survive a round trip.

use super::{ConfigId, Labels, SecretId};
use crate::time::Nanos;

crate::object! {
    /// How the health of a container is tested.
    pub struct Healthcheck {
        /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`; empty takes the image's.
        test: Vec<String> = "Test" omit,
        /// Time between two tests; 0 takes the engine's default.
        interval: Nanos = "Interval" omit,
        /// Time that one test may take.
        timeout: Nanos = "Timeout" omit,
        /// Time in which failures do not count.
        start_period: Nanos = "StartPeriod" omit,
        /// Time between two tests within the start period.
        start_interval: Nanos = "StartInterval" omit,
        /// Failures in a row that make the container unhealthy.
        retries: i64 = "Retries" omit,
    }
}

crate::object! {
    /// Where a secret or config appears as a file.
    pub struct FileTarget {
        /// The path; relative to `/run/secrets` for secrets, to `/` for configs.
        name: String = "Name",
        /// The owner.
        uid: String = "UID",
        /// The owner's group.
        gid: String = "GID",
        /// The mode bits.
        mode: u32 = "Mode",
    }
}

crate::object! {
    /// The use of a secret.
    pub struct SecretReference {
        /// Where it appears.
        file: Option<FileTarget> = "File" omit,
        /// Which secret.
        secret_id: SecretId = "SecretID" omit,
        /// Its name when the reference was made.
        secret_name: String = "SecretName" omit,
    }
}

crate::object! {
    /// The use of a config.
    pub struct ConfigReference {
        /// Where it appears.
        file: Option<FileTarget> = "File" omit,
        /// Which config.
        config_id: ConfigId = "ConfigID" omit,
        /// Its name when the reference was made.
        config_name: String = "ConfigName" omit,
    }
}

crate::words! {
    /// What is mounted.
    pub enum MountType as "MountType" {
        /// A path of the host.
        Bind = "bind",
        /// A named or anonymous volume.
        Volume = "volume",
        /// Memory.
        Tmpfs = "tmpfs",
        /// A Windows pipe.
        Npipe = "npipe",
        /// A cluster volume.
        Cluster = "cluster",
        /// An image.
        Image = "image",
    }
}

crate::object! {
    /// Options of a bind mount.
    pub struct BindOptions {
        /// `rprivate`, `private`, `rshared`, …
        propagation: String = "Propagation" omit,
        /// Whether mounts below the source stay out.
        non_recursive: bool = "NonRecursive" omit,
        /// Whether a missing source is created.
        create_mountpoint: bool = "CreateMountpoint" omit,
    }
}

crate::object! {
    /// Options of a volume mount.
    pub struct VolumeOptions {
        /// Whether the image's content is not copied into an empty volume.
        no_copy: bool = "NoCopy" omit,
        /// Labels of a volume that is made for the mount.
        labels: Labels = "Labels" omit,
        /// Its driver.
        driver_config: Option<super::Driver> = "DriverConfig" omit,
        /// The part of the volume to mount.
        subpath: String = "Subpath" omit,
    }
}

crate::object! {
    /// Options of a mount in memory.
    pub struct TmpfsOptions {
        /// Its size; 0 is no limit.
        size_bytes: i64 = "SizeBytes" omit,
        /// Its mode bits.
        mode: u32 = "Mode" omit,
    }
}

crate::object! {
    /// One mount.
    pub struct Mount {
        /// What is mounted.
        kind: MountType = "Type",
        /// The host path or the volume's name.
        source: String = "Source" omit,
        /// The path inside.
        target: String = "Target" omit,
        /// Whether it cannot be written.
        read_only: bool = "ReadOnly" omit,
        /// `consistent`, `cached`, `delegated`.
        consistency: String = "Consistency" omit,
        /// For bind mounts.
        bind: Option<BindOptions> = "BindOptions" omit,
        /// For volumes.
        volume: Option<VolumeOptions> = "VolumeOptions" omit,
        /// For memory.
        tmpfs: Option<TmpfsOptions> = "TmpfsOptions" omit,
    }
}

crate::object! {
    /// Name resolution inside the container.
    pub struct DnsConfig {
        /// Servers' addresses.
        nameservers: Vec<String> = "Nameservers" omit,
        /// Search domains.
        search: Vec<String> = "Search" omit,
        /// Options of the resolver.
        options: Vec<String> = "Options" omit,
    }
}

crate::object! {
    /// A resource limit of the kernel.
    pub struct Ulimit {
        /// Its name, such as `nofile`.
        name: String = "Name",
        /// The hard limit.
        hard: i64 = "Hard",
        /// The soft limit.
        soft: i64 = "Soft",
    }
}

crate::object! {
    /// What a container is made from.
    pub struct ContainerSpec {
        /// The image, usually pinned to a digest by the client.
        image: String = "Image" omit,
        /// Labels of the container.
        labels: Labels = "Labels" omit,
        /// Replaces the image's entry point.
        command: Vec<String> = "Command" omit,
        /// Replaces the image's command, or the arguments of `command`.
        args: Vec<String> = "Args" omit,
        /// The host name; a template.
        hostname: String = "Hostname" omit,
        /// `NAME=value`; templates. A bare `NAME` removes it.
        env: Vec<String> = "Env" omit,
        /// The working directory.
        dir: String = "Dir" omit,
        /// The user, by name or number, optionally with a group.
        user: String = "User" omit,
        /// More groups.
        groups: Vec<String> = "Groups" omit,
        /// Whether an init process reaps children; absent takes the engine's default.
        init: Option<bool> = "Init" omit,
        /// The signal that stops it; empty takes the image's, else SIGTERM.
        stop_signal: String = "StopSignal" omit,
        /// Whether it gets a terminal.
        tty: bool = "TTY" omit,
        /// Whether its standard input stays open.
        open_stdin: bool = "OpenStdin" omit,
        /// Whether its root file system cannot be written.
        read_only: bool = "ReadOnly" omit,
        /// What is mounted; sources and targets are templates.
        mounts: Vec<Mount> = "Mounts" omit,
        /// Time between the stop signal and the kill; absent is 10 seconds.
        stop_grace_period: Option<Nanos> = "StopGracePeriod" omit,
        /// How its health is tested; gates `running`.
        healthcheck: Option<Healthcheck> = "Healthcheck" omit,
        /// Lines for `/etc/hosts`: `ADDRESS NAME…`.
        hosts: Vec<String> = "Hosts" omit,
        /// Name resolution.
        dns_config: Option<DnsConfig> = "DNSConfig" omit,
        /// Secrets as files.
        secrets: Vec<SecretReference> = "Secrets" omit,
        /// Configs as files.
        configs: Vec<ConfigReference> = "Configs" omit,
        /// Windows isolation.
        isolation: String = "Isolation" omit,
        /// Kernel parameters of its namespaces.
        sysctls: Labels = "Sysctls" omit,
        /// Capabilities to add.
        capability_add: Vec<String> = "CapabilityAdd" omit,
        /// Capabilities to drop.
        capability_drop: Vec<String> = "CapabilityDrop" omit,
        /// Kernel limits.
        ulimits: Vec<Ulimit> = "Ulimits" omit,
        /// The kernel's eagerness to kill it when memory is short.
        oom_score_adj: i64 = "OomScoreAdj" omit,
    }
}
