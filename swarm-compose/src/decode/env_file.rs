//! Environment files: a variable a line, without quotes or substitution.

use std::path::{Path, PathBuf};

use super::fields::split_pair;
use crate::error::{ComposeError, Place};
use crate::interpolate::Environment;

/// The variables of a file in order of their lines. A name without a value takes the value of
/// the deployer's environment, and is left out if there is none.
pub(super) fn read(
    path: &str,
    env: &Environment,
    place: &Place,
    service: &str,
) -> Result<Vec<(String, Option<String>)>, ComposeError> {
    let bytes = std::fs::read(path).map_err(|source| ComposeError::Read {
        place: place.clone(),
        // Go opens a directory and fails to read it.
        operation: if Path::new(path).is_dir() { "read" } else { "open" },
        path: PathBuf::from(path),
        source,
    })?;
    parse(&bytes, env).map_err(|problem| ComposeError::Conflict {
        place: place.clone(),
        key: format!("services.{service}.env_file"),
        problem: format!("invalid env file ({path}): {problem}"),
    })
}

fn parse(bytes: &[u8], env: &Environment) -> Result<Vec<(String, Option<String>)>, String> {
    let mut variables = Vec::new();
    for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = std::str::from_utf8(line)
            .map_err(|_| format!("invalid utf8 bytes at line {}: {line:?}", index + 1))?;
        let line = line.strip_suffix('\r').unwrap_or(line);
        let line = if index == 0 { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = split_pair(line);
        if name.is_empty() {
            return Err(format!("no variable name on line '{line}'"));
        }
        if name.contains([' ', '\t']) {
            return Err(format!("variable '{name}' contains whitespaces"));
        }
        if let Some(value) = value.or_else(|| env.get(&name).cloned()) {
            variables.push((name, Some(value)));
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_as_they_are() {
        let env = Environment::from([("HOST".to_owned(), "h".to_owned())]);
        let text = "\u{feff}A=1 \r\n  # no\n\n B=\"x # y\"\nHOST\nNONE\nC=\n";
        let variables = parse(text.as_bytes(), &env).unwrap();
        let shown: Vec<_> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        assert_eq!(
            shown,
            [("A", Some("1 ")), ("B", Some("\"x # y\"")), ("HOST", Some("h")), ("C", Some(""))]
        );
        assert_eq!(parse(b"=1", &env).unwrap_err(), "no variable name on line '=1'");
        let error = parse(b"export A=1", &env).unwrap_err();
        assert_eq!(error, "variable 'export A' contains whitespaces");
    }
}
