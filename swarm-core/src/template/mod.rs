//! Pure: templates in a container's specification, and inside secrets and configs, expanded for
//! one task on one node.
//!
//! Swarm expands environment values, the host name and mounts, and the bytes of secrets and
//! configs whose templating driver is `golang` (SwarmKit `template/`), with Go's `text/template`
//! in its strictest mode: a label that is not there is an error, except through `index`. Of that
//! language this reads everything but numbers with a fraction and formats beyond `%s`, `%v`, `%d`,
//! `%q` and `%t`, which are errors, never literal text.
//!
//! The agent expands; the manager tries it when a specification is created or changed, with made-up
//! ids, so that most mistakes are refused at once.

mod eval;
mod functions;
mod parse;

use crate::model::{
    Blob, ContainerSpec, Driver, Labels, Mount, NodeDescription, NodeId, SecretBytes, Task,
};
use eval::Value;

/// The one templating driver that there is.
pub const DRIVER: &str = "golang";

/// Why a template could not be expanded. Shown as the task's error, or to the client who gave it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: template: expansion:{line}: {problem}")]
pub struct TemplateError {
    /// Which member of the specification, in Swarm's words.
    pub place: String,
    /// The line of the text, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

/// What is wrong, and on which line once that is known.
#[derive(Debug, PartialEq)]
struct Problem {
    line: Option<usize>,
    text: String,
}

impl Problem {
    fn at(line: usize, text: impl Into<String>) -> Self {
        Self { line: Some(line), text: text.into() }
    }

    fn or_at(mut self, line: usize) -> Self {
        self.line.get_or_insert(line);
        self
    }

    fn in_place(self, place: impl Into<String>) -> TemplateError {
        let line = self.line.unwrap_or(1);
        TemplateError { place: place.into(), line, problem: self.text }
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self { line: None, text }
    }
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
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

/// What templates inside secrets and configs can ask for as well: what their own task has. Bytes
/// are those before expansion, so that templates cannot go round in circles.
#[derive(Clone, Debug, Default)]
pub struct Functions<'a> {
    /// The expanded environment.
    pub env: &'a [String],
    /// The secrets, by the name of the file that each appears as.
    pub secrets: Vec<(&'a str, &'a SecretBytes)>,
    /// The configs, likewise.
    pub configs: Vec<(&'a str, &'a Blob)>,
}

impl Context<'_> {
    /// The specification with its templates expanded.
    ///
    /// # Errors
    /// The first template that cannot be expanded. The task must be rejected.
    pub fn expand(&self, spec: &ContainerSpec) -> Result<ContainerSpec, TemplateError> {
        let mut spec = spec.clone();
        for entry in &mut spec.env {
            if let Some((name, value)) = entry.split_once('=').filter(|(_, value)| is_one(value)) {
                let place = || format!("expanding env failed: expanding env {entry:?}");
                let value = self.text(value).map_err(|problem| problem.in_place(place()))?;
                *entry = format!("{name}={value}");
            }
        }
        for mount in &mut spec.mounts {
            self.mount(mount)?;
        }
        self.apply(&mut spec.hostname, |_| "expanding hostname failed".to_owned())?;
        Ok(spec)
    }

    fn mount(&self, mount: &mut Mount) -> Result<(), TemplateError> {
        const MOUNTS: &str = "expanding mounts failed: expanding";
        self.apply(&mut mount.source, |text| format!("{MOUNTS} mount source {text:?}"))?;
        self.apply(&mut mount.target, |text| format!("{MOUNTS} mount target {text:?}"))?;
        if let Some(volume) = &mut mount.volume {
            self.labels(&mut volume.labels, &format!("{MOUNTS} volume labels"))?;
            if let Some(driver) = &mut volume.driver_config {
                self.labels(&mut driver.options, &format!("{MOUNTS} volume driver config"))?;
            }
        }
        Ok(())
    }

    fn labels(&self, labels: &mut Labels, place: &str) -> Result<(), TemplateError> {
        labels.iter_mut().try_for_each(|(name, value)| {
            self.apply(value, |text| format!("{place}: expanding map entry {name:?}={text:?}"))
        })
    }

    fn apply(
        &self,
        text: &mut String,
        place: impl FnOnce(&str) -> String,
    ) -> Result<(), TemplateError> {
        if is_one(text) {
            *text = self.text(text).map_err(|problem| problem.in_place(place(text)))?;
        }
        Ok(())
    }

    fn text(&self, text: &str) -> Result<String, Problem> {
        let bytes = eval::run(&parse::parse(text)?, self, None)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The bytes of a secret or config with its template expanded. They may hold secrets even
    /// where a config is expanded. Errors of a secret (`is_secret`) say where, but not what is
    /// wrong: that would quote it.
    ///
    /// # Errors
    /// An unknown driver, or a template that cannot be expanded. The task must be rejected.
    pub fn payload(
        &self,
        place: &str,
        templating: &Driver,
        bytes: &[u8],
        functions: &Functions<'_>,
        is_secret: bool,
    ) -> Result<SecretBytes, TemplateError> {
        let place = format!("failed to expand templated {place}");
        if templating.name != DRIVER {
            return Err(Problem::from("unrecognized template type").in_place(place));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".into());
        let expanded = text
            .and_then(parse::parse)
            .and_then(|template| eval::run(&template, self, Some(functions)));
        let expanded = expanded.map_err(|mut problem| {
            if is_secret {
                "the template cannot be expanded".clone_into(&mut problem.text);
            }
            problem.in_place(place)
        })?;
        Ok(SecretBytes::from(expanded))
    }

    /// A member of the context by its path, without the first dot.
    fn member(&self, path: &str) -> Option<Value<'_>> {
        let task = self.task;
        let platform = &self.description.platform;
        let text = match path {
            "Service" | "Node" | "Task" | "Node.Platform" => {
                return Some(Value::Struct(path.to_owned()));
            }
            "Service.Labels" => return Some(Value::Labels(&task.annotations.labels)),
            "Service.ID" => task.service_id.as_str(),
            "Service.Name" => &task.annotations.name,
            "Node.ID" => self.node.as_str(),
            "Node.Hostname" => &self.description.hostname,
            "Node.Platform.OS" => &platform.os,
            "Node.Platform.Architecture" => &platform.architecture,
            "Task.ID" => task.id.as_str(),
            "Task.Name" => return Some(eval::text(&task.name())),
            // A task of a global service has its node in the place of a slot.
            "Task.Slot" if task.slot == 0 => self.node.as_str(),
            "Task.Slot" => return Some(eval::text(&task.slot.to_string())),
            _ => return None,
        };
        Some(eval::text(text))
    }
}

/// Whether a text has anything to expand.
fn is_one(text: &str) -> bool {
    text.contains("{{")
}

#[cfg(test)]
mod tests;
