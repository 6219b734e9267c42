//! Pure: what happened, line by line: a digest that two runs of a seed must share, and the
//! timeline that a person reads.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::time::Duration;

use swarm_core::store::Object;

/// Lines that are kept when nobody asked for all of them.
const KEPT: usize = 400;

/// The record of one run.
#[derive(Debug, Default)]
pub struct Trace {
    digest: Digest,
    lines: VecDeque<String>,
    /// Whether every line is kept, and not the last ones alone.
    pub(super) whole: bool,
    count: u64,
}

/// FNV-1a over everything that was written.
#[derive(Clone, Copy, Debug)]
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        Ok(())
    }
}

impl Trace {
    /// Writes a line down.
    pub(super) fn note(&mut self, at: Duration, line: fmt::Arguments<'_>) {
        self.count += 1;
        let _ = writeln!(self.digest, "{} {line}", at.as_nanos());
        if !self.whole && self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>10.3}s  {line}", at.as_secs_f64()));
    }

    /// Equal for two runs in which the same happened.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.0
    }

    /// The lines, the last ones unless the whole trace was asked for.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// How many lines were written.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// What a commit did to an object, in a few words.
pub(super) struct Described<'a>(pub(super) Option<&'a Object>, pub(super) Option<&'a Object>);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (_, Some(Object::Task(task))) => {
                write!(f, "{} {:?}/{:?}", task.name(), task.desired_state, task.status.state)?;
                if !task.status.err.is_empty() {
                    write!(f, " ({})", task.status.err)?;
                }
                Ok(())
            }
            (Some(Object::Task(task)), None) => write!(f, "{} erased", task.name()),
            (_, Some(Object::Node(node))) => write!(f, "node {} {:?}", node.id, node.status.state),
            (_, Some(Object::Service(service))) => {
                write!(f, "service {} v{}", service.spec.name, service.version.0)?;
                if let Some(status) = &service.update_status {
                    write!(f, " {:?}: {}", status.state, status.message)?;
                }
                Ok(())
            }
            (old, Some(new)) => {
                write!(f, "{} {}", new.id(), if old.is_some() { "changed" } else { "created" })
            }
            (Some(old), None) => write!(f, "{} erased", old.id()),
            (None, None) => Ok(()),
        }
    }
}
