//! Pure: the keys of the stack format: each with its type and the version that brought it.

use super::rules::Type::{Bool, Integer, Map, Null, Number, Text};
use super::rules::{
    Grammar, Key, NEVER, Names, Rule, grammar, key, list, map, named, of, one_of, open_map, set,
    since, until,
};

const TEXT: Rule = of(&[Text]);
const BOOL: Rule = of(&[Bool]);
const INTEGER: Rule = of(&[Integer]);
const NUMBER: Rule = of(&[Number]);
const DURATION: Rule = grammar(&[Text], Grammar::Duration);
const TEXTS: Rule = list(&TEXT);
const TEXT_SET: Rule = set(&TEXT);
const TEXT_OR_SET: Rule = one_of(&[&TEXT, &TEXT_SET]);
const TEXT_OR_LIST: Rule = one_of(&[&TEXT, &TEXTS]);
const SCALAR: Rule = of(&[Text, Number]);
const SCALAR_OR_NULL: Rule = of(&[Text, Number, Null]);
const OPTIONS: Rule = named(Names::NonEmpty, &SCALAR, 0);
const LIST_OR_MAP: Rule = one_of(&[&named(Names::NonEmpty, &SCALAR_OR_NULL, NEVER), &TEXT_SET]);

/// A stack file.
pub(crate) const ROOT: Rule = Rule {
    extensions_since: 4,
    ..map(&[
        key("version", &TEXT),
        key("services", &named(Names::Object, &SERVICE, NEVER)),
        key("networks", &named(Names::Object, &NETWORK, 0)),
        key("volumes", &named(Names::Object, &VOLUME, NEVER)),
        since(1, "secrets", &named(Names::Object, &SECRET, NEVER)),
        since(3, "configs", &named(Names::Object, &CONFIG, NEVER)),
    ])
};

const SERVICE: Rule = Rule { extensions_since: 7, ..map(SERVICE_KEYS) };

const SERVICE_KEYS: &[Key] = &[
    key("build", &one_of(&[&TEXT, &BUILD])),
    key("cap_add", &TEXT_SET),
    key("cap_drop", &TEXT_SET),
    key("cgroup_parent", &TEXT),
    since(9, "cgroupns_mode", &TEXT),
    key("command", &TEXT_OR_LIST),
    since(3, "configs", &FILE_REFERENCES),
    key("container_name", &TEXT),
    since(3, "credential_spec", &CREDENTIAL_SPEC),
    key("depends_on", &TEXT_SET),
    key("deploy", &DEPLOY),
    key("devices", &TEXT_SET),
    key("dns", &TEXT_OR_SET),
    key("dns_search", &TEXT_OR_SET),
    key("domainname", &TEXT),
    key("entrypoint", &TEXT_OR_LIST),
    key("env_file", &TEXT_OR_SET),
    key("environment", &LIST_OR_MAP),
    key("expose", &set(&SCALAR)),
    key("external_links", &TEXT_SET),
    key("extra_hosts", &LIST_OR_MAP),
    key("healthcheck", &HEALTHCHECK),
    key("hostname", &TEXT),
    key("image", &TEXT),
    since(7, "init", &BOOL),
    key("ipc", &TEXT),
    since(5, "isolation", &TEXT),
    key("labels", &LIST_OR_MAP),
    key("links", &TEXT_SET),
    key("logging", &LOGGING),
    key("mac_address", &TEXT),
    key("network_mode", &TEXT),
    key("networks", &SERVICE_NETWORKS),
    since(13, "oom_score_adj", &INTEGER),
    key("pid", &of(&[Text, Null])),
    until(1, "ports", &set(&grammar(&[Text, Number], Grammar::Ports))),
    since(2, "ports", &set(&PORT)),
    key("privileged", &BOOL),
    key("read_only", &BOOL),
    key("restart", &TEXT),
    since(1, "secrets", &FILE_REFERENCES),
    key("security_opt", &TEXT_SET),
    key("shm_size", &of(&[Number, Text])),
    key("stdin_open", &BOOL),
    key("stop_grace_period", &DURATION),
    key("stop_signal", &TEXT),
    key("sysctls", &LIST_OR_MAP),
    key("tmpfs", &TEXT_OR_SET),
    key("tty", &BOOL),
    key("ulimits", &named(Names::Lower, &one_of(&[&INTEGER, &ULIMIT]), 0)),
    key("user", &TEXT),
    key("userns_mode", &TEXT),
    until(1, "volumes", &TEXT_SET),
    since(2, "volumes", &list(&one_of(&[&TEXT, &MOUNT]))),
    key("working_dir", &TEXT),
];

const BUILD: Rule = Rule {
    open_since: 11,
    ..map(&[
        key("context", &TEXT),
        key("dockerfile", &TEXT),
        key("args", &LIST_OR_MAP),
        since(2, "cache_from", &TEXT_SET),
        since(3, "labels", &LIST_OR_MAP),
        since(4, "network", &TEXT),
        since(4, "target", &TEXT),
        since(5, "shm_size", &of(&[Integer, Text])),
        since(9, "extra_hosts", &LIST_OR_MAP),
    ])
};

const FILE_REFERENCES: Rule = list(&one_of(&[
    &TEXT,
    &open_map(&[
        key("source", &TEXT),
        key("target", &TEXT),
        key("uid", &TEXT),
        key("gid", &TEXT),
        key("mode", &NUMBER),
    ]),
]));

const CREDENTIAL_SPEC: Rule =
    map(&[since(8, "config", &TEXT), key("file", &TEXT), key("registry", &TEXT)]);

const HEALTHCHECK: Rule = map(&[
    key("disable", &BOOL),
    until(3, "interval", &TEXT),
    since(4, "interval", &DURATION),
    key("retries", &NUMBER),
    key("test", &TEXT_OR_LIST),
    until(3, "timeout", &TEXT),
    since(4, "timeout", &DURATION),
    since(4, "start_period", &DURATION),
    since(12, "start_interval", &DURATION),
]);

const LOGGING: Rule =
    map(&[key("driver", &TEXT), key("options", &named(Names::NonEmpty, &SCALAR_OR_NULL, 0))]);

const SERVICE_NETWORKS: Rule =
    one_of(&[&TEXT_SET, &named(Names::Object, &one_of(&[&SERVICE_NETWORK, &of(&[Null])]), NEVER)]);

const SERVICE_NETWORK: Rule = map(&[
    key("aliases", &TEXT_SET),
    since(13, "driver_opts", &OPTIONS),
    key("ipv4_address", &TEXT),
    key("ipv6_address", &TEXT),
]);

const PORT: Rule = one_of(&[
    &grammar(&[Number], Grammar::Ports),
    &grammar(&[Text], Grammar::Ports),
    &map(&[
        key("mode", &TEXT),
        key("target", &INTEGER),
        key("published", &INTEGER),
        key("protocol", &TEXT),
    ]),
]);

const ULIMIT: Rule =
    Rule { required: &["soft", "hard"], ..map(&[key("hard", &INTEGER), key("soft", &INTEGER)]) };

const MOUNT: Rule = Rule {
    required: &["type"],
    ..map(&[
        key("type", &TEXT),
        key("source", &TEXT),
        key("target", &TEXT),
        key("read_only", &BOOL),
        key("consistency", &TEXT),
        key("bind", &open_map(&[key("propagation", &TEXT)])),
        key("volume", &open_map(&[key("nocopy", &BOOL)])),
        since(6, "tmpfs", &open_map(&[key("size", &Rule { minimum: Some(0), ..of(&[Integer]) })])),
    ])
};

const DEPLOY: Rule = Rule {
    types: &[Map, Null],
    ..map(&[
        key("mode", &TEXT),
        since(2, "endpoint_mode", &TEXT),
        key("replicas", &INTEGER),
        key("labels", &LIST_OR_MAP),
        since(7, "rollback_config", &UPDATE),
        key("update_config", &UPDATE),
        key("resources", &map(&[key("limits", &LIMITS), key("reservations", &RESERVATIONS)])),
        key("restart_policy", &RESTART_POLICY),
        key("placement", &PLACEMENT),
    ])
};

const UPDATE: Rule = map(&[
    key("parallelism", &INTEGER),
    key("delay", &DURATION),
    key("failure_action", &TEXT),
    key("monitor", &DURATION),
    key("max_failure_ratio", &NUMBER),
    since(4, "order", &Rule { words: &["start-first", "stop-first"], ..of(&[Text]) }),
]);

const LIMITS: Rule = map(&[key("cpus", &TEXT), key("memory", &TEXT), since(9, "pids", &INTEGER)]);

const RESERVATIONS: Rule = map(&[
    key("cpus", &TEXT),
    key("memory", &TEXT),
    since(5, "generic_resources", &list(&GENERIC_RESOURCE)),
]);

const GENERIC_RESOURCE: Rule =
    map(&[key("discrete_resource_spec", &map(&[key("kind", &TEXT), key("value", &NUMBER)]))]);

const RESTART_POLICY: Rule = map(&[
    key("condition", &TEXT),
    key("delay", &DURATION),
    key("max_attempts", &INTEGER),
    key("window", &DURATION),
]);

const PLACEMENT: Rule = map(&[
    key("constraints", &TEXTS),
    since(3, "preferences", &list(&map(&[key("spread", &TEXT)]))),
    since(8, "max_replicas_per_node", &INTEGER),
]);

/// `external: true`, or the deprecated form with a name.
const EXTERNAL: Rule = Rule { types: &[Bool, Map], ..map(&[key("name", &TEXT)]) };
const OPEN_EXTERNAL: Rule = Rule { types: &[Bool, Map], ..open_map(&[key("name", &TEXT)]) };

const NETWORK: Rule = Rule {
    types: &[Map, Null],
    extensions_since: 7,
    ..map(&[
        since(5, "name", &TEXT),
        key("driver", &TEXT),
        key("driver_opts", &OPTIONS),
        key("ipam", &IPAM),
        key("external", &EXTERNAL),
        key("internal", &BOOL),
        since(2, "attachable", &BOOL),
        key("labels", &LIST_OR_MAP),
    ])
};

const IPAM: Rule =
    map(&[key("driver", &TEXT), key("config", &list(&map(&[key("subnet", &TEXT)])))]);

const VOLUME: Rule = Rule {
    types: &[Map, Null],
    extensions_since: 7,
    ..map(&[
        since(4, "name", &TEXT),
        key("driver", &TEXT),
        key("driver_opts", &OPTIONS),
        key("external", &EXTERNAL),
        key("labels", &LIST_OR_MAP),
        since(10, "x-cluster-spec", &CLUSTER_VOLUME),
    ])
};

const CLUSTER_VOLUME: Rule = open_map(&[
    key("group", &TEXT),
    key(
        "access_mode",
        &open_map(&[
            key("scope", &TEXT),
            key("sharing", &TEXT),
            key("block_volume", &of(&[Map])),
            key("mount_volume", &open_map(&[key("fs_type", &TEXT), key("mount_flags", &TEXTS)])),
        ]),
    ),
    key(
        "accessibility_requirements",
        &open_map(&[key("requisite", &TOPOLOGIES), key("preferred", &TOPOLOGIES)]),
    ),
    key("capacity_range", &open_map(&[key("required_bytes", &TEXT), key("limit_bytes", &TEXT)])),
    key("availability", &TEXT),
]);

const TOPOLOGIES: Rule = list(&open_map(&[key("segments", &LIST_OR_MAP)]));

const SECRET: Rule = Rule {
    extensions_since: 7,
    ..map(&[
        since(5, "name", &TEXT),
        key("file", &TEXT),
        key("external", &OPEN_EXTERNAL),
        key("labels", &LIST_OR_MAP),
        since(8, "driver", &TEXT),
        since(8, "driver_opts", &OPTIONS),
        since(8, "template_driver", &TEXT),
    ])
};

const CONFIG: Rule = Rule {
    extensions_since: 7,
    ..map(&[
        since(5, "name", &TEXT),
        key("file", &TEXT),
        key("external", &OPEN_EXTERNAL),
        key("labels", &LIST_OR_MAP),
        since(8, "template_driver", &TEXT),
    ])
};
