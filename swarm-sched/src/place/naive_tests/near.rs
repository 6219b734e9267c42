//! The definition of affinities: Swarm v1's expressions, as `docs/scheduling.md` has them.

use swarm_core::model::*;

use super::definition::Cluster;
use super::filters::{At, is_label, label};

/// One expression.
pub(super) struct Affinity {
    pub(super) soft: bool,
    equal: bool,
    key: String,
    pattern: String,
    /// Whether it began with `constraint:`, and so is about the node.
    on_node: bool,
}

/// Those of the service's label, then those of the container's environment.
pub(super) fn read(task: &Task, in_label: Option<&str>) -> Result<Vec<Affinity>, String> {
    let in_label = in_label.unwrap_or("").split(';').map(str::trim).filter(|it| !it.is_empty());
    let env = task.spec.container.iter().flat_map(|it| &it.env).map(String::as_str);
    let env = env.filter(|it| it.starts_with("affinity:") || it.starts_with("constraint:"));
    in_label.chain(env).map(read_one).collect()
}

fn read_one(text: &str) -> Result<Affinity, String> {
    let unreadable = || {
        format!(
            "affinity {text:?} cannot be read: KEY==VALUE or KEY!=VALUE is expected, with ~ if soft"
        )
    };
    let bare = text.strip_prefix("affinity:").unwrap_or(text);
    let bare = bare.strip_prefix("constraint:").unwrap_or(bare);
    let (key, value) =
        bare.split_once("==").or_else(|| bare.split_once("!=")).ok_or_else(unreadable)?;
    let (key, value) = (key.trim(), value.trim());
    let pattern = value.trim_start_matches('~');
    if key.is_empty() || pattern.is_empty() {
        return Err(unreadable());
    }
    if pattern.len() > 1 && pattern.starts_with('/') && pattern.ends_with('/') {
        let why = "has a regular expression, which is not supported: use *";
        return Err(format!("affinity {text:?} {why}"));
    }
    Ok(Affinity {
        soft: value.starts_with('~'),
        equal: bare.contains("=="),
        key: key.to_owned(),
        pattern: pattern.to_owned(),
        on_node: text.starts_with("constraint:"),
    })
}

impl Affinity {
    /// Whether a node is as it says.
    pub(super) fn holds(&self, cluster: &Cluster, at: &At<'_>) -> bool {
        let node = at.node;
        let is = |text: &str| glob(self.pattern.as_bytes(), text.as_bytes());
        let any = |means: &dyn Fn(&Task) -> bool| at.count(means) > 0;
        let found = match self.key.as_str() {
            "node" => {
                let host = node.description.as_ref().map_or("", |it| it.hostname.as_str());
                is(host) || is(node.id.as_str())
            }
            key if self.on_node => is(label(node, &format!("engine.labels.{key}"))),
            key if is_label(key) => is(label(node, key)),
            "container" => any(&|task| is(&task.name()) || is(task.id.as_str())),
            key => any(&|task| cluster.service(task).is_some_and(|it| means(it, key, &is))),
        };
        found == self.equal
    }
}

/// Whether an expression about tasks means those of a service.
fn means(service: &Service, key: &str, is: &dyn Fn(&str) -> bool) -> bool {
    let container = service.spec.task.container.clone().unwrap_or_default();
    let has = |labels: &Labels| labels.get(key).is_some_and(|value| is(value));
    match key {
        "service" => is(&service.spec.name) || is(service.id.as_str()),
        "image" => {
            // With tag and digest, with the tag alone, with neither. No registry here has a port.
            let image = container.image.as_str();
            let tagged = image.split('@').next().unwrap_or("");
            let named = service.spec.task.container.is_some();
            named && [image, tagged, tagged.split(':').next().unwrap_or("")].into_iter().any(is)
        }
        _ => has(&service.spec.labels) || has(&container.labels),
    }
}

/// Whether a text is as a pattern says, in which `*` stands for any text.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|from| glob(rest, &text[from..])),
        Some((byte, rest)) => text.first() == Some(byte) && glob(rest, &text[1..]),
    }
}
