//! Pure: how a leader goes on: when it looks at everything, and what it does about a write that was
//! not committed. The shells keep to it, and so does a simulation of them.

use std::time::Duration;

use crate::store::CommitError;

/// How often everything is looked at, whatever the events said.
pub const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How long to wait after a write that failed for a reason that time may cure.
pub const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What to do about a plan that was not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The state moved on: decide again.
    AtOnce,
    /// Decide again after [`RETRY_AFTER`].
    Later,
    /// The epoch is over, or the store is: whoever leads next decides.
    Never,
}

impl Retry {
    /// What to do after this error.
    #[must_use]
    pub fn after(error: &CommitError) -> Self {
        match error {
            CommitError::StaleEpoch(_)
            | CommitError::NotLeader { .. }
            | CommitError::Stopped(_) => Self::Never,
            CommitError::Conflict { .. }
            | CommitError::Missing(_)
            | CommitError::TooLarge { .. }
            | CommitError::NameTaken { .. } => Self::AtOnce,
            _ => Self::Later,
        }
    }
}
