//! Pure: placement constraints such as `node.role == manager`, read and matched as SwarmKit's
//! `manager/constraint` does.

use std::net::IpAddr;

use swarm_core::model::{Labels, Node, NodeDescription};

/// The start of a key that names a label of the node's specification.
pub const NODE_LABELS: &str = "node.labels.";
/// The start of a key that names a label of the node's engine.
pub const ENGINE_LABELS: &str = "engine.labels.";

/// A constraint that cannot be read. Swarm's texts; the API returns them as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// Neither `==` nor `!=` is in it.
    #[error("constraint expected one operator from ==, !=")]
    NoOperator,
    /// The left side is not a key: a letter or `_`, then letters, digits, `-`, `_` and `.`.
    #[error("key '{0}' is invalid")]
    Key(String),
    /// The right side is empty or has a character that no value has.
    #[error("value '{0}' is invalid")]
    Value(String),
}

/// One condition on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    subject: Subject,
    /// Whether the operator is `==`.
    equal: bool,
    value: String,
}

/// What a constraint looks at. Keys are compared without regard to case, names of labels with it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Id,
    Hostname,
    Ip,
    Role,
    Os,
    Arch,
    NodeLabel(String),
    EngineLabel(String),
    /// Accepted, as Swarm does, and never satisfied, whatever the operator.
    Unknown,
}

/// Reads constraints, all of which must hold.
///
/// # Errors
/// [`ConstraintError`] for the first that cannot be read.
pub fn parse_all(texts: &[String]) -> Result<Vec<Constraint>, ConstraintError> {
    texts.iter().map(|text| text.parse()).collect()
}

impl std::str::FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        // `==` is looked for first, wherever it stands, as in SwarmKit.
        let (equal, (key, value)) = (text.split_once("==").map(|sides| (true, sides)))
            .or_else(|| text.split_once("!=").map(|sides| (false, sides)))
            .ok_or(ConstraintError::NoOperator)?;
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(ConstraintError::Key(key.to_owned()));
        }
        if !is_value(value) {
            return Err(ConstraintError::Value(value.to_owned()));
        }
        Ok(Self { subject: Subject::of(key), equal, value: value.to_owned() })
    }
}

impl Constraint {
    /// Whether the node satisfies it. Values are compared without regard to case; what a node
    /// does not have (a label, a description) counts as the empty text.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        let described = node.description.as_ref();
        let actual = match &self.subject {
            Subject::Id => node.id.as_str(),
            Subject::Hostname => described.map_or("", |node| &node.hostname),
            Subject::Role => node.role.as_str(),
            Subject::Os => described.map_or("", |node| &node.platform.os),
            Subject::Arch => described.map_or("", |node| &node.platform.architecture),
            Subject::NodeLabel(name) => label(&node.spec.labels, name),
            Subject::EngineLabel(name) => engine_label(described, name),
            Subject::Ip => return self.matches_ip(&node.status.addr),
            Subject::Unknown => return false,
        };
        actual.eq_ignore_ascii_case(&self.value) == self.equal
    }

    /// A value that is neither an address nor a range is never satisfied.
    fn matches_ip(&self, addr: &str) -> bool {
        let addr = addr.parse::<IpAddr>().ok();
        if let Ok(wanted) = self.value.parse::<IpAddr>() {
            return (addr == Some(wanted)) == self.equal;
        }
        let Some((base, prefix)) = parse_cidr(&self.value) else { return false };
        addr.is_some_and(|addr| within(addr, base, prefix)) == self.equal
    }
}

impl Subject {
    fn of(key: &str) -> Self {
        match key.to_ascii_lowercase().as_str() {
            "node.id" => Self::Id,
            "node.hostname" => Self::Hostname,
            "node.ip" => Self::Ip,
            "node.role" => Self::Role,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Arch,
            _ => match (strip(key, NODE_LABELS), strip(key, ENGINE_LABELS)) {
                (Some(name), _) => Self::NodeLabel(name.to_owned()),
                (_, Some(name)) => Self::EngineLabel(name.to_owned()),
                _ => Self::Unknown,
            },
        }
    }
}

/// The value that a node has for a `node.labels.NAME` or `engine.labels.NAME` descriptor, empty
/// where it has none; `None` for any other descriptor.
#[must_use]
pub fn label_of<'a>(node: &'a Node, descriptor: &str) -> Option<&'a str> {
    if let Some(name) = strip(descriptor, NODE_LABELS) {
        return Some(label(&node.spec.labels, name));
    }
    strip(descriptor, ENGINE_LABELS).map(|name| engine_label(node.description.as_ref(), name))
}

/// The rest of a key after a prefix in any case, if there is a rest.
fn strip<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = key.split_at_checked(prefix.len())?;
    (start.eq_ignore_ascii_case(prefix) && !rest.is_empty()).then_some(rest)
}

fn label<'a>(labels: &'a Labels, name: &str) -> &'a str {
    labels.get(name).map_or("", String::as_str)
}

fn engine_label<'a>(described: Option<&'a NodeDescription>, name: &str) -> &'a str {
    described.map_or("", |node| label(&node.engine.labels, name))
}

fn is_key(key: &str) -> bool {
    let mut bytes = key.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && key.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_value(value: &str) -> bool {
    const OTHERS: &[u8] = b":-_.*()?+[]\\^$|/ \t\n\r\x0c";
    !value.is_empty()
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || OTHERS.contains(&byte))
}

/// An address and the length of its mask.
fn parse_cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (addr, prefix) = text.split_once('/')?;
    let (addr, prefix) = (addr.parse::<IpAddr>().ok()?, prefix.parse().ok()?);
    (prefix <= if addr.is_ipv4() { 32 } else { 128 }).then_some((addr, prefix))
}

fn within(addr: IpAddr, base: IpAddr, prefix: u32) -> bool {
    match (addr, base) {
        (IpAddr::V4(addr), IpAddr::V4(base)) => {
            let differing = u32::from(addr) ^ u32::from(base);
            differing.checked_shr(32 - prefix).unwrap_or(0) == 0
        }
        (IpAddr::V6(addr), IpAddr::V6(base)) => {
            let differing = u128::from(addr) ^ u128::from(base);
            differing.checked_shr(128 - prefix).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_core::id::IdSource;
    use swarm_core::model::NodeRole;

    fn node() -> Node {
        let mut node = Node { id: IdSource::seeded(1).next(), ..Node::default() };
        node.role = NodeRole::Manager;
        node.status.addr = "10.20.30.40".to_owned();
        node.spec.labels.insert("Zone".to_owned(), "East-1".to_owned());
        let description = node.description.get_or_insert_default();
        description.hostname = "Web01".to_owned();
        description.platform.os = "linux".to_owned();
        description.platform.architecture = "x86_64".to_owned();
        description.engine.labels.insert("storage".to_owned(), "ssd".to_owned());
        node
    }

    fn holds(constraint: &str) -> bool {
        constraint.parse::<Constraint>().unwrap().matches(&node())
    }

    #[test]
    fn every_key_matches_as_in_swarm() {
        let id = node().id;
        let table = [
            (format!("node.id=={id}"), true),
            (format!("node.id!={id}"), false),
            ("node.hostname == web01".into(), true),
            ("NODE.Hostname!=WEB01".into(), false),
            ("node.role==manager".into(), true),
            ("node.role == Manager".into(), true),
            ("node.role==worker".into(), false),
            ("node.platform.os==linux".into(), true),
            ("node.platform.arch==x86_64".into(), true),
            ("node.platform.arch==amd64".into(), false),
            ("node.labels.Zone==east-1".into(), true),
            ("Node.Labels.Zone!=east-1".into(), false),
            ("node.labels.zone==east-1".into(), false),
            ("node.labels.zone!=east-1".into(), true),
            ("node.labels.none==x".into(), false),
            ("node.labels.none!=x".into(), true),
            ("engine.labels.storage==SSD".into(), true),
            ("engine.labels.none!=x".into(), true),
            ("node.ip==10.20.30.40".into(), true),
            ("node.ip!=10.20.30.40".into(), false),
            ("node.ip==10.20.0.0/16".into(), true),
            ("node.ip==10.20.30.40/32".into(), true),
            ("node.ip==10.20.30.41/32".into(), false),
            ("node.ip!=10.21.0.0/16".into(), true),
            ("node.ip==0.0.0.0/0".into(), true),
            ("node.ip==2001:db8::/32".into(), false),
            ("node.ip!=2001:db8::1".into(), true),
            ("node.ip!=not-an-address".into(), false),
            ("node.ip!=10.0.0.0/33".into(), false),
            ("node.colour==x".into(), false),
            ("node.colour!=x".into(), false),
            ("node.labels.==x".into(), false),
            ("node.labels.!=x".into(), false),
        ];
        for (constraint, expected) in table {
            assert_eq!(holds(&constraint), expected, "{constraint}");
        }
    }

    #[test]
    fn a_node_without_a_description_has_empty_values() {
        let blank = Node::default();
        for constraint in ["node.hostname!=a", "node.platform.os!=linux", "engine.labels.a!=b"] {
            assert!(constraint.parse::<Constraint>().unwrap().matches(&blank), "{constraint}");
        }
        assert!(!"node.hostname==a".parse::<Constraint>().unwrap().matches(&blank));
        assert!("node.ip!=10.0.0.1".parse::<Constraint>().unwrap().matches(&blank));
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_swarms_words() {
        let table = [
            ("node.role", "constraint expected one operator from ==, !="),
            ("node.role=manager", "constraint expected one operator from ==, !="),
            ("1node==a", "key '1node' is invalid"),
            ("n==a", "key 'n' is invalid"),
            ("a b==c", "key 'a b' is invalid"),
            ("node.role!=a==b", "key 'node.role!=a' is invalid"),
            ("node.role==", "value '' is invalid"),
            ("node.role==>2", "value '>2' is invalid"),
            ("node.role==a==b", "value 'a==b' is invalid"),
        ];
        for (text, error) in table {
            let refused = parse_all(&["node.id==a".to_owned(), text.to_owned()]);
            assert_eq!(refused.unwrap_err().to_string(), error, "{text}");
        }
        assert_eq!(parse_all(&["node.role == a b.*(c)".to_owned()]).unwrap().len(), 1);
    }
}
