//! Turns a checked tree into the [`model`](crate::model): short forms become long, units are
//! parsed, environment files are read, paths become absolute.

mod env_file;
mod fields;
mod objects;
mod service;

use std::path::Path;

use crate::error::{ComposeError, Place};
use crate::interpolate::Environment;
use crate::model::{Config, Extensions};
use crate::schema::Format;
use crate::stack::Warning;
use crate::value::{Mapping, Node};
use fields::Faults;

/// What the reading of a file needs to know besides the file.
pub(crate) struct Context<'a> {
    /// The file, for errors.
    pub(crate) file: &'a Path,
    /// The version of the format.
    pub(crate) format: Format,
    /// The absolute directory that relative paths begin at.
    pub(crate) dir: &'a str,
    /// The environment of whoever deploys.
    pub(crate) env: &'a Environment,
    /// What is worth saying although it is no error.
    pub(crate) warnings: &'a mut Vec<Warning>,
}

impl Context<'_> {
    fn place(&self, node: &Node) -> Place {
        Place::new(self.file, node.line)
    }

    fn conflict(&self, node: &Node, key: String, problem: String) -> ComposeError {
        ComposeError::Conflict { place: self.place(node), key, problem }
    }

    /// An error if there were faults.
    fn judge(&self, node: &Node, key: &str, faults: Faults) -> Result<(), ComposeError> {
        match faults.into_text() {
            None => Ok(()),
            Some(problems) => {
                Err(ComposeError::Decode { place: self.place(node), key: key.to_owned(), problems })
            }
        }
    }
}

/// Reads one file.
pub(crate) fn decode(root: &Node, ctx: &mut Context<'_>) -> Result<Config, ComposeError> {
    let mut config = Config { extensions: extensions(root), ..Config::default() };
    for (name, node) in section(root, "services") {
        config.services.insert(name.clone(), service::decode(name, node, ctx)?);
    }
    for (name, node) in section(root, "networks") {
        config.networks.insert(name.clone(), objects::network(name, node, ctx)?);
    }
    for (name, node) in section(root, "volumes") {
        config.volumes.insert(name.clone(), objects::volume(name, node, ctx)?);
    }
    for (name, node) in section(root, "secrets") {
        config.secrets.insert(name.clone(), objects::file_object("secret", name, node, ctx)?);
    }
    for (name, node) in section(root, "configs") {
        config.configs.insert(name.clone(), objects::file_object("config", name, node, ctx)?);
    }
    Ok(config)
}

fn section<'a>(root: &'a Node, key: &str) -> impl Iterator<Item = (&'a String, &'a Node)> {
    root.get(key).and_then(|node| node.value.as_map()).into_iter().flatten()
}

/// The members that begin with `x-`.
fn extensions(node: &Node) -> Extensions {
    let empty = Mapping::new();
    let map = node.value.as_map().unwrap_or(&empty);
    map.iter()
        .filter(|(key, _)| key.starts_with("x-"))
        .map(|(key, node)| (key.clone(), node.value.to_json()))
        .collect()
}
