//! Pure: what clients ask for, as the command lines of `docker`.

use super::Nodes;
use super::flags::{self, pairs, spec, spec_text};
use super::words::{number, pair, quoted};
use crate::sim::script::{Edit, Request};

pub(super) fn parse(words: &[&str], nodes: &Nodes) -> Result<Request, String> {
    let own = |name: &str| name.to_owned();
    let words: Vec<&str> = words.iter().flat_map(apart).collect();
    Ok(match *words.as_slice() {
        ["service", "create", ref rest @ ..] => Request::CreateService(Box::new(spec(rest)?)),
        ["stack", "deploy", ref rest @ ..] => Request::DeployService(Box::new(spec(rest)?)),
        ["service", "update", "--rollback", name] | ["service", "rollback", name] => {
            Request::RollBackService(own(name))
        }
        ["service", "update", ref rest @ .., name] => {
            Request::UpdateService(own(name), edits(rest)?)
        }
        ["service", "scale", scale] => {
            let (name, replicas) = pair(scale)?;
            Request::UpdateService(own(name), vec![Edit::Replicas(number(replicas)?)])
        }
        ["service", "rm", name] => Request::RemoveService(own(name)),
        ["network", "create", ref rest @ .., name] => {
            Request::CreateNetwork(own(name), subnet(rest)?)
        }
        ["network", "rm", name] => Request::RemoveNetwork(own(name)),
        ["secret", "create", name, "-"] => Request::CreateSecret(own(name)),
        ["secret", "rm", name] => Request::RemoveSecret(own(name)),
        ["config", "create", name, "-"] => Request::CreateConfig(own(name)),
        ["config", "rm", name] => Request::RemoveConfig(own(name)),
        ["node", "update", "--availability", availability, node] => {
            Request::SetAvailability(nodes.number(node)?, availability.parse()?)
        }
        ["node", "update", "--label-add", label, node] => {
            let (label, value) = pair(label)?;
            Request::LabelNode(nodes.number(node)?, own(label), Some(own(value)))
        }
        ["node", "update", "--label-rm", label, node] => {
            Request::LabelNode(nodes.number(node)?, own(label), None)
        }
        ["node", "rm", "--force", node] => Request::RemoveNode(nodes.number(node)?),
        ["swarm", "update", "--task-history-limit", limit] => Request::SetHistory(number(limit)?),
        _ => return Err(format!("`docker {}` is nothing that a script asks for", words.join(" "))),
    })
}

pub(super) fn text(request: &Request, nodes: &Nodes) -> String {
    let line = match request {
        Request::CreateService(spec) => format!("service create {}", spec_text(spec)),
        Request::DeployService(spec) => format!("stack deploy {}", spec_text(spec)),
        Request::UpdateService(name, edits) => match edits.as_slice() {
            [Edit::Replicas(replicas)] => format!("service scale {name}={replicas}"),
            edits => format!("service update {}{name}", edits_text(edits)),
        },
        Request::RollBackService(name) => format!("service rollback {name}"),
        Request::RemoveService(name) => format!("service rm {name}"),
        Request::CreateNetwork(name, subnet) => {
            let flag = if subnet.is_empty() { "" } else { " --subnet " };
            format!("network create --driver overlay{flag}{subnet} {name}")
        }
        Request::RemoveNetwork(name) => format!("network rm {name}"),
        Request::CreateSecret(name) => format!("secret create {name} -"),
        Request::RemoveSecret(name) => format!("secret rm {name}"),
        Request::CreateConfig(name) => format!("config create {name} -"),
        Request::RemoveConfig(name) => format!("config rm {name}"),
        Request::SetAvailability(node, availability) => {
            format!("node update --availability {availability} {}", nodes.name(*node))
        }
        Request::LabelNode(node, label, Some(value)) => {
            let label = quoted(&format!("{label}={value}"));
            format!("node update --label-add {label} {}", nodes.name(*node))
        }
        Request::LabelNode(node, label, None) => {
            format!("node update --label-rm {} {}", quoted(label), nodes.name(*node))
        }
        Request::RemoveNode(node) => format!("node rm --force {}", nodes.name(*node)),
        Request::SetHistory(limit) => format!("swarm update --task-history-limit {limit}"),
    };
    format!("docker {line}")
}

/// `--flag=value` is two words.
fn apart<'a>(word: &'a &str) -> impl Iterator<Item = &'a str> {
    let split = word.split_once('=').filter(|(flag, _)| flag.starts_with("--"));
    let (first, second) = split.map_or((*word, None), |(flag, value)| (flag, Some(value)));
    std::iter::once(first).chain(second)
}

fn edits(words: &[&str]) -> Result<Vec<Edit>, String> {
    let mut edits = Vec::new();
    let mut rest = words;
    while let Some((first, after)) = rest.split_first() {
        if *first == "--force" {
            edits.push(Edit::Force);
            rest = after;
            continue;
        }
        for (flag, value) in pairs(&rest[..rest.len().min(2)])? {
            edits.push(match flag {
                "image" => Edit::Image(value.to_owned()),
                "replicas" => Edit::Replicas(number(value)?),
                flag => {
                    let mut trial = Default::default();
                    let tried = flags::set(&mut trial, flag, value);
                    // Whether a service has something in its mode is seen when it is played.
                    tried.or_else(
                        |wrong| if flag == "max-concurrent" { Ok(()) } else { Err(wrong) },
                    )?;
                    Edit::Flag(flag.to_owned(), value.to_owned())
                }
            });
        }
        rest = &rest[rest.len().min(2)..];
    }
    match edits.is_empty() {
        true => Err("the flags are missing: to run the same again, write --force".to_owned()),
        false => Ok(edits),
    }
}

fn edits_text(edits: &[Edit]) -> String {
    edits.iter().fold(String::new(), |text, edit| {
        text + &match edit {
            Edit::Image(image) => format!("--image {} ", quoted(image)),
            Edit::Replicas(replicas) => format!("--replicas {replicas} "),
            Edit::Force => "--force ".to_owned(),
            Edit::Flag(flag, value) => format!("--{flag} {} ", quoted(value)),
        }
    })
}

fn subnet(words: &[&str]) -> Result<String, String> {
    let mut subnet = String::new();
    for (flag, value) in pairs(words)? {
        match (flag, value) {
            ("driver", "overlay") => {}
            ("subnet", value) => value.clone_into(&mut subnet),
            (flag, value) => return Err(format!("a network takes no --{flag} {value} here")),
        }
    }
    Ok(subnet)
}
