//! What may stand in a stack file: the schemas of the format's versions 3.0 to 3.13.

mod check;
mod rules;
mod table;

use std::path::Path;

use crate::error::{ComposeError, Place};
use crate::value::Node;

/// A version of the format, by its minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Format(u8);

/// The newest version, meant by `"3"`, by the empty version and by none.
pub(crate) const NEWEST: Format = Format(13);

impl Format {
    /// Version 3 with this minor number.
    pub(crate) const fn minor(number: u8) -> Self {
        Self(number)
    }
}

/// The version as text, the newest where the file leaves it open.
pub(crate) fn version_text(root: &Node) -> String {
    match root.get("version").map(|version| version.value.to_text()) {
        Some(text) if !text.is_empty() && text != "3" => text,
        _ => format!("3.{}", NEWEST.0),
    }
}

/// Checks a file against the schema of a version, and says which version that was.
pub(crate) fn check(file: &Path, root: &Node, version: &str) -> Result<Format, ComposeError> {
    let minor = version.strip_prefix("3.").and_then(|minor| {
        let canonical = minor.parse::<u8>().is_ok_and(|number| number.to_string() == minor);
        canonical.then(|| minor.parse().ok()).flatten()
    });
    let Some(format) = minor.map(Format).filter(|format| *format <= NEWEST) else {
        let line = root.get("version").map_or(1, |node| node.line);
        return Err(ComposeError::Version {
            place: Place::new(file, line),
            problem: format!("unsupported Compose file version: {version}"),
        });
    };
    match check::check(root, &table::ROOT, format.0) {
        Some(fault) => Err(ComposeError::Schema {
            place: Place::new(file, fault.line),
            problem: fault.to_string(),
        }),
        None => Ok(format),
    }
}

#[cfg(test)]
mod tests;
