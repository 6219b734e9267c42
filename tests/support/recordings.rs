//! The exchanges recorded between Docker's clients and its engines, where they are at hand: in
//! `$SWARM_FIXTURES/docker-api`, or in `../shared/fixtures/docker-api` beside the repository.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub struct Recordings(BTreeMap<u64, Value>);

fn folder() -> PathBuf {
    match std::env::var_os("SWARM_FIXTURES") {
        Some(folder) => PathBuf::from(folder).join("docker-api"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures/docker-api"),
    }
}

impl Recordings {
    /// `None`, with a loud word, where they are not.
    pub fn load() -> Option<Self> {
        let file = folder().join("recordings.jsonl");
        let Ok(text) = std::fs::read_to_string(&file) else {
            eprintln!("skipped: no recordings at {}", file.display());
            return None;
        };
        let rows = text.lines().map(|line| serde_json::from_str(line).expect("recorded JSON"));
        let rows: Vec<Value> = rows.collect();
        Some(Self(rows.into_iter().map(|row| (row["id"].as_u64().expect("an id"), row)).collect()))
    }

    /// The requests of a method to a path (without its version) with a status, and their number.
    pub fn of(&self, method: &str, path: &str, status: u64) -> impl Iterator<Item = (u64, &Value)> {
        self.0.iter().filter_map(move |(id, row)| {
            let fits = row["method"] == method
                && bare(row["path"].as_str().unwrap_or_default()) == path
                && row["status"] == status;
            fits.then_some((*id, row))
        })
    }

    /// What a request was answered with.
    pub fn answer<'a>(&'a self, row: &'a Value) -> &'a Value {
        match row["resp_same_as"].as_u64() {
            Some(other) => self.answer(&self.0[&other]),
            None => &row["resp"],
        }
    }

    /// The object with this id in the first answer to a `GET` below `path` after request `after`.
    pub fn read_back(&self, path: &str, id: &str, after: u64) -> Option<&Value> {
        self.0.range(after + 1..).find_map(|(_, row)| {
            let read = row["method"] == "GET"
                && row["status"] == 200
                && bare(row["path"].as_str()?).starts_with(path)
                && !matches!(row["query"]["insertDefaults"].as_str(), Some("true" | "True"));
            if !read {
                return None;
            }
            let is_it = |object: &&Value| object["ID"] == id || object["Id"] == id;
            match self.answer(row) {
                Value::Array(list) => list.iter().find(is_it),
                object => Some(object).filter(is_it),
            }
        })
    }

    /// The id that the network of that name had when request `before` was made.
    pub fn network(&self, name: &str, before: u64) -> Option<&str> {
        let made = self.of("POST", "/networks/create", 201);
        let made = made.filter(|(id, row)| *id < before && row["req"]["Name"] == name);
        made.last().and_then(|(_, row)| self.answer(row)["Id"].as_str())
    }
}

/// A path without its version.
fn bare(path: &str) -> &str {
    let rest = path.strip_prefix("/v").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    rest.unwrap_or(path)
}
