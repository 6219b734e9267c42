//! Describes the node from the engine's `/info`.

use serde_json::Value;
use swarm_core::executor::ExecError;
use swarm_core::model::{
    EngineDescription, EnginePlugin, Labels, NodeDescription, Platform, Resources,
};

use super::DockerExecutor;

impl DockerExecutor {
    /// What the node is and has.
    pub(super) async fn description(&self) -> Result<NodeDescription, ExecError> {
        let mut node = describe(&self.raw_info().await?, self.config.hostname.as_deref());
        node.engine.labels.extend(self.config.labels.clone());
        Ok(node)
    }
}

fn describe(info: &Value, hostname: Option<&str>) -> NodeDescription {
    let text = |name: &str| info[name].as_str().unwrap_or_default().to_owned();
    let hostname = hostname.map_or_else(|| text("Name"), str::to_owned);
    let engine_id = match text("ID") {
        id if id.is_empty() => hostname.clone(),
        id => id,
    };
    let generic = info.get("GenericResources").cloned().unwrap_or_default();
    NodeDescription {
        hostname,
        platform: Platform {
            architecture: text("Architecture"),
            os: text("OSType"),
            ..Default::default()
        },
        resources: Resources {
            nano_cpus: info["NCPU"].as_i64().unwrap_or(0) * 1_000_000_000,
            memory_bytes: info["MemTotal"].as_i64().unwrap_or(0),
            generic: serde_json::from_value(generic).unwrap_or_default(),
            ..Default::default()
        },
        engine: EngineDescription {
            engine_version: text("ServerVersion"),
            labels: labels(&info["Labels"]),
            plugins: plugins(&info["Plugins"]),
            engine_id,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// `NAME=value` each, as the engine's configuration has them.
fn labels(list: &Value) -> Labels {
    let words = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    words
        .map(|word| word.split_once('=').unwrap_or((word, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Every kind of plugin with its names, sorted as SwarmKit sorts them.
fn plugins(kinds: &Value) -> Vec<EnginePlugin> {
    let mut plugins = Vec::new();
    for (kind, names) in kinds.as_object().into_iter().flatten() {
        for name in names.as_array().into_iter().flatten().filter_map(Value::as_str) {
            plugins.push(EnginePlugin {
                kind: kind.clone(),
                name: name.to_owned(),
                ..Default::default()
            });
        }
    }
    plugins.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
    plugins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_describes_its_node() {
        let info = serde_json::json!({
            "ID": "LNH6", "Name": "vm", "NCPU": 2, "MemTotal": 1024, "Architecture": "x86_64",
            "OSType": "linux", "ServerVersion": "20.10.24", "Labels": ["disk=ssd", "bare"],
            "Plugins": {"Volume": ["local"], "Network": ["overlay", "bridge"], "Authorization": null},
            "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}],
        });
        let node = describe(&info, None);
        assert_eq!((node.hostname.as_str(), node.engine.engine_id.as_str()), ("vm", "LNH6"));
        assert_eq!(node.resources.nano_cpus, 2_000_000_000);
        assert_eq!(node.resources.generic.len(), 1);
        assert_eq!(node.engine.labels["disk"], "ssd");
        let names: Vec<_> = node.engine.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        assert_eq!(names, ["bridge", "overlay", "local"]);
        assert_eq!(describe(&info, Some("other")).hostname, "other");
        assert_eq!(describe(&Value::Null, Some("x")).engine.engine_id, "x");
    }
}
