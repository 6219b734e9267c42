//! What can be wrong with a stack: where, what, and in the words of the docker CLI.

use std::fmt;
use std::path::PathBuf;

/// A line of a stack file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as it was named to [`Stack::load`](crate::Stack::load).
    pub file: PathBuf,
    /// The line, from 1; 0 when the whole file is meant.
    pub line: usize,
}

impl Place {
    pub(crate) fn new(file: impl Into<PathBuf>, line: usize) -> Self {
        Self { file: file.into(), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.line {
            0 => write!(f, "{file}"),
            line => write!(f, "{file}:{line}"),
        }
    }
}

/// Why a stack cannot be loaded or deployed. The text names file, line and key, and holds the
/// docker CLI's own message, so that people find the advice that the web has for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComposeError {
    /// No file was named.
    #[error("Specify a Compose file (with --compose-file)")]
    NoFiles,
    /// The stack's name is blank.
    #[error("invalid stack name: {name:?}")]
    Name {
        /// The name.
        name: String,
    },
    /// A stack, secret, config or environment file cannot be read.
    #[error("{place}: {operation} {}: {}", path.display(), io_text(source))]
    Read {
        /// Where the stack refers to the file; the file itself if it is the stack file.
        place: Place,
        /// `open` or `read`, as the docker CLI says it.
        operation: &'static str,
        /// The file that cannot be read.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not YAML, or not the YAML that stacks are made of.
    #[error("{place}: {problem}")]
    Yaml {
        /// Where.
        place: Place,
        /// What, and which key.
        problem: String,
    },
    /// The version is none of 3.0 to 3.13, or two files disagree.
    #[error("{place}: version: {problem}")]
    Version {
        /// Where the version is, or would be.
        place: Place,
        /// What.
        problem: String,
    },
    /// Keys that Swarm cannot honour; ignoring them would be dangerous.
    #[error(
        "{place}: services.{service}.{key}: Configuration contains forbidden properties: \
         Compose file contains unsupported options:\n\n{advice}\n"
    )]
    Forbidden {
        /// Where the first of them is.
        place: Place,
        /// The service that has the first of them.
        service: String,
        /// The first of them.
        key: String,
        /// Every one of them, each with what to do instead.
        advice: String,
    },
    /// A variable cannot be substituted, or what came of it has the wrong type.
    #[error("{place}: {problem}")]
    Interpolation {
        /// Where.
        place: Place,
        /// What, and in which key.
        problem: String,
    },
    /// A key is unknown to this version of the format, or its value has the wrong form.
    #[error("{place}: {problem}")]
    Schema {
        /// Where.
        place: Place,
        /// Which key, and what is wrong with it.
        problem: String,
    },
    /// Values have the right form and yet cannot be read: sizes, volumes, shell words.
    #[error("{place}: {key}: decoding failed due to the following error(s):\n\n{problems}")]
    Decode {
        /// Where the service or object begins.
        place: Place,
        /// The service or object.
        key: String,
        /// What, one problem a line.
        problems: String,
    },
    /// Keys contradict each other, or an environment file is malformed.
    #[error("{place}: {key}: {problem}")]
    Conflict {
        /// Where.
        place: Place,
        /// The service or object.
        key: String,
        /// What.
        problem: String,
    },
    /// A service is well formed but cannot be deployed: it refers to nothing, or names no image.
    #[error("{place}: {problem}")]
    Service {
        /// Where the service begins.
        place: Place,
        /// The service.
        service: String,
        /// What.
        problem: String,
    },
}

/// The errors that users meet, in the words that every Unix tool (and Go) has for them; Rust's
/// own text adds a number that the docker CLI does not print.
fn io_text(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{IsADirectory, NotFound, PermissionDenied};
    match error.kind() {
        NotFound => "no such file or directory".to_owned(),
        IsADirectory => "is a directory".to_owned(),
        PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
