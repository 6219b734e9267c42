//! The control API: what clients may do with the cluster's objects. Each call validates, decides
//! on a snapshot, and commits one batch (SwarmKit: `manager/controlapi`; the engine's own share:
//! `daemon/cluster`).

mod ca;
mod cluster;
mod dry_run;
mod find;
mod names;
mod networks;
mod nodes;
mod secrets;
mod services;
mod spec;

use std::sync::{Arc, Mutex, PoisonError};

use swarm_core::control::Planner;
use swarm_core::id::{Id, IdSource};
use swarm_core::model::Version;
use swarm_core::model::validate::{SpecError, SpecErrorKind};
use swarm_core::secret::SecretStore;
use swarm_core::store::{Batch, Change, CommitError, Leadership, Snapshot, Store};
use swarm_core::time::Clock;

pub(crate) use ca::check_services;
pub use cluster::Rotate;
pub(crate) use find::{Find, host_name};
pub use services::{AuthFrom, UpdateService};

use super::logs::LogBroker;
use crate::error::{ApiError, Code};
use crate::identity::ExternalAuthority;

/// How often a call decides again when the state moves on under it.
const ATTEMPTS: usize = 16;

/// What clients may do.
///
/// Calls are atomic: they happen as a whole or fail. Dropping a call's future leaves its outcome
/// unknown, as with [`Store::commit`].
pub struct Control {
    /// Where everything is.
    pub store: Arc<dyn Store>,
    /// Where secrets' bytes are; absent keeps them in `store`, inside the secrets themselves.
    pub secrets: Option<Arc<dyn SecretStore>>,
    /// The output of tasks.
    pub logs: Arc<dyn LogBroker>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// New ids.
    pub ids: Mutex<IdSource>,
    /// Who asks authorities outside the cluster; absent where none can be.
    pub external: Option<Arc<dyn ExternalAuthority>>,
    /// Whether a role that an operator changes is acted on: whether a manager that is promoted or
    /// demoted joins or leaves the management group. Without it such a change is refused.
    pub changes_roles: bool,
    /// What decides about the objects, in its order: asked what a change would lead to, before it is
    /// made. Without any, a dry run says that nothing happens.
    pub planners: Vec<Arc<dyn Planner>>,
}

impl Control {
    /// The present state, unless no manager leads: like Swarm, answers then only say so.
    ///
    /// # Errors
    /// That there is no leader.
    pub fn view(&self) -> Result<Snapshot, ApiError> {
        match *self.store.leadership().borrow() {
            Leadership::None => Err(commit_error(CommitError::NoLeader)),
            _ => Ok(self.store.snapshot()),
        }
    }

    /// Returns once [`view`](Self::view) shows every write that was acknowledged anywhere before.
    ///
    /// # Errors
    /// That there is no leader, or that it does not answer.
    pub async fn up_to_date(&self) -> Result<(), ApiError> {
        self.view()?;
        self.store.barrier().await.map_err(|error| match error {
            CommitError::Unknown(_) => {
                ApiError::rpc(Code::DeadlineExceeded, "context deadline exceeded")
            }
            error => commit_error(error),
        })
    }

    /// What the state says. Before anything is refused it is looked at again: a follower may not have
    /// seen yet what was acknowledged elsewhere.
    ///
    /// # Errors
    /// What `look` answers, or that there is no leader.
    pub async fn look<T>(
        &self,
        look: impl Fn(&Snapshot) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        if let Ok(found) = look(&self.view()?) {
            return Ok(found);
        }
        self.up_to_date().await?;
        look(&self.view()?)
    }

    fn new_id<T: ?Sized>(&self) -> Id<T> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// Decides on a snapshot and commits; decides again when the state moved on meanwhile, and before
    /// anything is refused, as [`look`](Self::look) does.
    async fn transact<T>(
        &self,
        decide: impl Fn(&Snapshot) -> Result<(Vec<Change>, T), ApiError>,
    ) -> Result<T, ApiError> {
        let mut seen_all = false;
        for _ in 0..ATTEMPTS {
            let (changes, answer) = match decide(&self.view()?) {
                Ok(decided) => decided,
                Err(refused) if seen_all => return Err(refused),
                Err(_) => {
                    self.up_to_date().await?;
                    seen_all = true;
                    continue;
                }
            };
            match self.store.commit(Batch::new(self.clock.now(), changes)).await {
                Ok(_) => return Ok(answer),
                Err(CommitError::Conflict { .. } | CommitError::Missing(_)) => {
                    // A follower may not have seen yet what the leader refused us for.
                    self.store.barrier().await.map_err(commit_error)?;
                }
                Err(error) => return Err(commit_error(error)),
            }
        }
        Err(out_of_sequence())
    }
}

/// The client's copy is not the present one.
fn out_of_sequence() -> ApiError {
    ApiError::rpc(Code::Unknown, "update out of sequence")
}

/// Refuses a version that is not the object's.
fn check_version(stored: Version, given: Version) -> Result<(), ApiError> {
    if stored == given { Ok(()) } else { Err(out_of_sequence()) }
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::rpc(Code::InvalidArgument, message)
}

fn precondition(message: impl Into<String>) -> ApiError {
    ApiError::rpc(Code::FailedPrecondition, message)
}

fn unimplemented(message: impl Into<String>) -> ApiError {
    ApiError::rpc(Code::Unimplemented, message)
}

impl From<SpecError> for ApiError {
    fn from(error: SpecError) -> Self {
        match error.kind {
            SpecErrorKind::Invalid => invalid(error.message),
            SpecErrorKind::Unclassified => Self::rpc(Code::Unknown, error.message),
            SpecErrorKind::Unsupported => unimplemented(error.message),
            SpecErrorKind::Denied => Self::rpc(Code::PermissionDenied, error.message),
            SpecErrorKind::Malformed => Self::plain(Code::InvalidArgument, error.message),
            SpecErrorKind::NotOffered => Self::plain(Code::Unknown, error.message),
        }
    }
}

fn commit_error(error: CommitError) -> ApiError {
    match error {
        CommitError::NameTaken { kind: "service", name } => ApiError::rpc(
            Code::AlreadyExists,
            format!("name conflicts with an existing object: service {name} already exists"),
        ),
        CommitError::NameTaken { kind: "network", name } => {
            ApiError::plain(Code::AlreadyExists, format!("network with name {name} already exists"))
        }
        CommitError::NameTaken { kind, name } => {
            ApiError::rpc(Code::AlreadyExists, format!("{kind} {name} already exists"))
        }
        CommitError::TooLarge { .. } => invalid(error.to_string()),
        CommitError::ReadOnly(_) | CommitError::Stopped(_) => {
            ApiError::rpc(Code::Unavailable, error.to_string())
        }
        error => ApiError::rpc(Code::Unknown, error.to_string()),
    }
}
