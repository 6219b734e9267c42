//! Pure: templates in a container's specification, expanded for one task on one node.
//!
//! Swarm expands environment values, the host name, and mounts (SwarmKit `template/`), with Go's
//! `text/template` in its strictest mode: a label that is not there is an error, except through
//! `index`. Of that language this file reads what specifications use: members, `index`, quoted
//! text and the trim marks. Anything else is an error that names it, never literal text.

use swarm_core::model::{ContainerSpec, Labels, Mount, NodeDescription, NodeId, Task};

/// Why a template could not be expanded. Shown as the task's error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expanding {field} failed: {problem} in template {text:?}")]
pub struct TemplateError {
    /// Which member of the specification.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// The whole text.
    pub text: String,
}

/// What templates see.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The task.
    pub task: &'a Task,
    /// Its node.
    pub node: NodeId,
    /// What the node says of itself.
    pub description: &'a NodeDescription,
}

impl Context<'_> {
    /// The specification with its templates expanded.
    ///
    /// # Errors
    /// The first template that cannot be expanded. The task must be rejected.
    pub fn expand(&self, spec: &ContainerSpec) -> Result<ContainerSpec, TemplateError> {
        let mut spec = spec.clone();
        self.apply("hostname", &mut spec.hostname)?;
        for entry in &mut spec.env {
            if let Some((name, value)) = entry.split_once('=') {
                let value = self.text(&format!("env {name}"), value)?;
                *entry = format!("{name}={value}");
            }
        }
        for mount in &mut spec.mounts {
            self.mount(mount)?;
        }
        Ok(spec)
    }

    fn mount(&self, mount: &mut Mount) -> Result<(), TemplateError> {
        self.apply("mount source", &mut mount.source)?;
        self.apply("mount target", &mut mount.target)?;
        if let Some(volume) = &mut mount.volume {
            self.labels("volume label", &mut volume.labels)?;
            if let Some(driver) = &mut volume.driver_config {
                self.labels("volume option", &mut driver.options)?;
            }
        }
        Ok(())
    }

    fn labels(&self, field: &str, labels: &mut Labels) -> Result<(), TemplateError> {
        labels
            .iter_mut()
            .try_for_each(|(name, value)| self.apply(&format!("{field} {name}"), value))
    }

    fn apply(&self, field: &str, text: &mut String) -> Result<(), TemplateError> {
        if text.contains("{{") {
            *text = self.text(field, text)?;
        }
        Ok(())
    }

    /// Expands one text; `field` names it in errors.
    ///
    /// # Errors
    /// When the text is not a template of the supported kind, or what it names does not exist.
    pub fn text(&self, field: &str, text: &str) -> Result<String, TemplateError> {
        expand(text, |action| self.action(action)).map_err(|problem| TemplateError {
            field: field.to_owned(),
            problem,
            text: text.to_owned(),
        })
    }

    fn action(&self, action: &str) -> Result<String, String> {
        match &words(action)?[..] {
            [] => Err("missing value for command".to_owned()),
            [Word::Text(text)] => Ok(text.clone()),
            [Word::Bare(path)] if path.starts_with('.') => self.member(path),
            [Word::Bare(function), Word::Bare(map), Word::Text(key)] if *function == "index" => {
                match *map {
                    // As in Go, `index` answers an absent key with the empty text.
                    ".Service.Labels" => Ok(self.labels_of_service(key).unwrap_or_default()),
                    other => Err(format!("can't index {other}")),
                }
            }
            [Word::Bare(function), ..] => Err(format!(
                "function {function:?} is not supported (only members such as .Task.Slot, and \
                 index .Service.Labels \"name\")"
            )),
            [Word::Text(text), ..] => Err(format!("unexpected arguments after {text:?}")),
        }
    }

    fn labels_of_service(&self, name: &str) -> Option<String> {
        self.task.annotations.labels.get(name).cloned()
    }

    fn member(&self, path: &str) -> Result<String, String> {
        let task = self.task;
        let platform = &self.description.platform;
        Ok(match path {
            ".Service.ID" => task.service_id.to_string(),
            ".Service.Name" => task.annotations.name.clone(),
            ".Node.ID" => self.node.to_string(),
            ".Node.Hostname" => self.description.hostname.clone(),
            ".Node.Platform.OS" => platform.os.clone(),
            ".Node.Platform.Architecture" => platform.architecture.clone(),
            ".Task.ID" => task.id.to_string(),
            ".Task.Name" => task.name(),
            // A task of a global service has its node in the place of a slot.
            ".Task.Slot" if task.slot == 0 => self.node.to_string(),
            ".Task.Slot" => task.slot.to_string(),
            _ => {
                let name = path.strip_prefix(".Service.Labels.").filter(|name| !name.contains('.'));
                let name = name.ok_or_else(|| format!("can't evaluate field {path}"))?;
                return self
                    .labels_of_service(name)
                    .ok_or_else(|| format!("map has no entry for key {name:?}"));
            }
        })
    }
}

/// Copies the text and replaces every `{{…}}`; `{{-` and `-}}` trim the space before and after.
fn expand(
    text: &str,
    mut action: impl FnMut(&str) -> Result<String, String>,
) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (mut inner, mut next) = split_action(after)?;
        out.push_str(before);
        if let Some(trimmed) = inner.strip_prefix("- ") {
            out.truncate(out.trim_end().len());
            inner = trimmed;
        }
        if let Some(trimmed) = inner.strip_suffix(" -") {
            next = next.trim_start();
            inner = trimmed;
        }
        if !(inner.starts_with("/*") && inner.ends_with("*/")) {
            out.push_str(&action(inner)?);
        }
        rest = next;
    }
    out.push_str(rest);
    Ok(out)
}

/// Splits at the `}}` that is not inside quotes.
fn split_action(text: &str) -> Result<(&str, &str), String> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), c) if c == open && !escaped => quote = None,
            (None, '"' | '`') => quote = Some(c),
            (None, '}') if text[at..].starts_with("}}") => {
                return Ok((&text[..at], &text[at + 2..]));
            }
            _ => {}
        }
        escaped = false;
    }
    Err("unclosed action".to_owned())
}

#[derive(Debug, PartialEq)]
enum Word<'a> {
    Bare(&'a str),
    Text(String),
}

fn words(action: &str) -> Result<Vec<Word<'_>>, String> {
    let mut words = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' | '`' => quoted_end(rest, first)?,
            '|' | '(' | ')' | '$' => {
                return Err(format!("{first:?} is not supported (no pipelines or variables)"));
            }
            _ => rest.find([' ', '\t', '"', '`', '|', '(', ')']).unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at(end);
        words.push(match first {
            // Go's quoted text and JSON's agree on every escape that a label or path has.
            '"' => Word::Text(serde_json::from_str(word).map_err(|_| format!("bad text {word}"))?),
            '`' => Word::Text(word[1..word.len() - 1].to_owned()),
            _ => Word::Bare(word),
        });
        rest = after.trim_start();
    }
    Ok(words)
}

fn quoted_end(text: &str, quote: char) -> Result<usize, String> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\\' if quote == '"' && !escaped => {
                escaped = true;
                continue;
            }
            c if c == quote && !escaped => return Ok(at + 1),
            _ => escaped = false,
        }
    }
    Err("unterminated quoted text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use swarm_core::id::IdSource;
    use swarm_core::model::{MountType, Platform, ServiceAnnotations, VolumeOptions};

    use super::*;

    fn task(slot: u64) -> Task {
        let mut ids = IdSource::seeded(1);
        let labels = [("tier", "db"), ("com.example/x", "dotted")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let annotations =
            ServiceAnnotations { name: "web".into(), labels: labels.into(), ..Default::default() };
        Task {
            id: ids.next(),
            service_id: ids.next(),
            node_id: Some(ids.next()),
            slot,
            annotations: Arc::new(annotations),
            ..Default::default()
        }
    }

    fn expanded(task: &Task, text: &str) -> Result<String, String> {
        let description = NodeDescription {
            hostname: "host-1".into(),
            platform: Platform {
                os: "linux".into(),
                architecture: "x86_64".into(),
                ..Default::default()
            },
            ..Default::default()
        };
        let context = Context { task, node: task.node_id.unwrap(), description: &description };
        context.text("env A", text).map_err(|error| error.problem)
    }

    #[test]
    fn every_member_of_swarms_templates() {
        let task = task(3);
        let node = task.node_id.unwrap();
        let table = [
            ("plain", "plain".to_owned()),
            ("{{.Service.ID}}", task.service_id.to_string()),
            ("{{ .Service.Name }}-x", "web-x".into()),
            ("{{.Service.Labels.tier}}", "db".into()),
            (r#"{{index .Service.Labels "com.example/x"}}"#, "dotted".into()),
            (r#"{{index .Service.Labels "absent"}}"#, String::new()),
            ("{{.Node.ID}}", node.to_string()),
            ("{{.Node.Hostname}}", "host-1".into()),
            ("{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "linux/x86_64".into()),
            ("{{.Task.ID}}", task.id.to_string()),
            ("{{.Task.Name}}", format!("web.3.{}", task.id)),
            ("{{.Task.Slot}}", "3".into()),
            ("a {{- .Task.Slot -}} b", "a3b".into()),
            (r#"{{"}}"}}{{/* nothing */}}"#, "}}".into()),
            ("{not a template}", "{not a template}".into()),
        ];
        for (text, expected) in table {
            assert_eq!(expanded(&task, text), Ok(expected), "{text}");
        }
        let global = self::task(0);
        let node = global.node_id.unwrap().to_string();
        assert_eq!(expanded(&global, "{{.Task.Slot}}"), Ok(node), "a global task's slot");
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        let table = [
            ("{{.Task.Slot", "unclosed action"),
            ("{{.Node.Labels.x}}", "can't evaluate field .Node.Labels.x"),
            ("{{.Service.Labels.absent}}", "map has no entry for key \"absent\""),
            ("{{env \"HOME\"}}", "function \"env\" is not supported"),
            ("{{if .Task.ID}}a{{end}}", "function \"if\" is not supported"),
            ("{{.Task.ID | printf}}", "'|' is not supported"),
            ("{{}}", "missing value for command"),
        ];
        for (text, expected) in table {
            let problem = expanded(&task(1), text).unwrap_err();
            assert!(problem.starts_with(expected), "{text}: {problem}");
        }
    }

    #[test]
    fn a_specification_is_expanded_where_swarm_expands_it() {
        let task = task(2);
        let volume = VolumeOptions {
            labels: [("slot".to_owned(), "{{.Task.Slot}}".to_owned())].into(),
            ..Default::default()
        };
        let spec = ContainerSpec {
            hostname: "{{.Service.Name}}-{{.Task.Slot}}".into(),
            env: vec!["SLOT={{.Task.Slot}}".into(), "BARE".into()],
            args: vec!["{{.Task.Slot}}".into()],
            mounts: vec![Mount {
                kind: MountType::Volume,
                source: "data-{{.Task.Slot}}".into(),
                target: "/data".into(),
                volume: Some(volume),
                ..Default::default()
            }],
            ..Default::default()
        };
        let description = NodeDescription::default();
        let context = Context { task: &task, node: NodeId::NIL, description: &description };
        let spec = context.expand(&spec).unwrap();
        assert_eq!(spec.hostname, "web-2");
        assert_eq!(spec.env, ["SLOT=2", "BARE"]);
        assert_eq!(spec.args, ["{{.Task.Slot}}"], "Swarm leaves arguments alone");
        assert_eq!(spec.mounts[0].source, "data-2");
        assert_eq!(spec.mounts[0].volume.as_ref().unwrap().labels["slot"], "2");

        let broken = ContainerSpec { env: vec!["A={{.Nope}}".into()], ..Default::default() };
        assert_eq!(
            context.expand(&broken).unwrap_err().to_string(),
            "expanding env A failed: can't evaluate field .Nope in template \"{{.Nope}}\""
        );
    }
}
