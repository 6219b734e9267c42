//! What clients do with services (SwarmKit: `controlapi/service.go`).

use std::sync::PoisonError;

use swarm_core::model::{
    JobStatus, SecretBytes, Service, ServiceId, ServiceSpec, UpdateState, UpdateStatus, Version,
};
use swarm_core::store::{Change, Snapshot};
use swarm_core::time::Timestamp;

use super::find::Find as _;
use super::{Control, check_version, names, precondition, spec, unimplemented};
use crate::error::{ApiError, Code};

/// Which registry credentials a changed service keeps where the request brings none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthFrom {
    /// Those of the present specification.
    #[default]
    Spec,
    /// Those of the one before.
    PreviousSpec,
}

/// A change of a service.
#[derive(Clone, Debug)]
pub struct UpdateService {
    /// The version that the client read.
    pub version: Version,
    /// What the service shall be; ignored when rolling back.
    pub spec: ServiceSpec,
    /// Whether to go back to the previous specification instead.
    pub rollback: bool,
    /// The client's registry credentials.
    pub registry_auth: Option<SecretBytes>,
    /// Which ones to keep where it brings none.
    pub auth_from: AuthFrom,
}

impl Control {
    /// Creates a service; one without a name gets an invented one.
    ///
    /// # Errors
    /// What is wrong with the specification, or that the name or a port is taken.
    pub async fn create_service(
        &self,
        spec: ServiceSpec,
        registry_auth: Option<SecretBytes>,
    ) -> Result<ServiceId, ApiError> {
        let id = self.new_id();
        self.transact(|view| {
            let service = self.created(view, id, spec.clone(), registry_auth.clone())?;
            Ok((vec![Change::create(service)], id))
        })
        .await
    }

    /// Changes a service, or brings its previous specification back.
    ///
    /// # Errors
    /// That it does not exist, that the version is not the present one, or what is wrong with
    /// the specification.
    pub async fn update_service(&self, word: &str, update: UpdateService) -> Result<(), ApiError> {
        self.transact(|view| Ok((vec![Change::update(self.updated(view, word, &update)?)], ())))
            .await
    }

    /// Removes a service: gone for every client at once, erased once its tasks are.
    ///
    /// # Errors
    /// That it does not exist.
    pub async fn remove_service(&self, word: &str) -> Result<(), ApiError> {
        self.transact(|view| {
            let mut service = Service::clone(&*view.find_service(word)?);
            service.pending_delete = true;
            Ok((vec![Change::update(service)], ()))
        })
        .await
    }
}

impl Control {
    /// A new service as it would be written.
    pub(super) fn created(
        &self,
        view: &Snapshot,
        id: ServiceId,
        mut spec: ServiceSpec,
        registry_auth: Option<SecretBytes>,
    ) -> Result<Service, ApiError> {
        if spec.name.is_empty() {
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            spec.name = names::invent(&mut ids, |name| view.services.named(name).is_some());
        }
        spec::normalise(&mut spec, view)?;
        spec::check(&spec, view, ServiceId::NIL)?;
        let job_status = spec.mode.is_job().then(|| first_run(self.clock.now()));
        Ok(Service { id, spec, job_status, registry_auth, ..Default::default() })
    }

    /// A changed service as it would be written.
    pub(super) fn updated(
        &self,
        view: &Snapshot,
        word: &str,
        update: &UpdateService,
    ) -> Result<Service, ApiError> {
        let old = view.find_service(word)?;
        let mut new = Service::clone(&old);
        if update.rollback {
            roll_back(&mut new, self.clock.now())?;
        } else {
            change(&mut new, update, view)?;
        }
        check_version(old.version, update.version)?;
        if let Some(job) = &mut new.job_status {
            job.job_iteration = Version(job.job_iteration.0 + 1);
            job.last_execution = Some(self.clock.now());
        }
        Ok(new)
    }
}

fn first_run(now: Timestamp) -> JobStatus {
    JobStatus { last_execution: Some(now), ..Default::default() }
}

fn roll_back(service: &mut Service, now: Timestamp) -> Result<(), ApiError> {
    let Some(previous) = service.previous_spec.take() else {
        let text = format!("service {} does not have a previous spec", service.id);
        return Err(precondition(text));
    };
    let current = std::mem::replace(&mut service.spec, *previous);
    service.previous_spec = Some(Box::new(current));
    std::mem::swap(&mut service.registry_auth, &mut service.previous_registry_auth);
    // A job has no roll-out that could ever complete: it runs again. (SwarmKit leaves it at
    // `rollback_started`.)
    service.update_status = (!service.spec.mode.is_job()).then(|| UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: Some(now),
        message: "manually requested rollback".to_owned(),
        ..Default::default()
    });
    Ok(())
}

fn change(service: &mut Service, update: &UpdateService, view: &Snapshot) -> Result<(), ApiError> {
    let mut spec = update.spec.clone();
    spec::normalise(&mut spec, view)?;
    spec::check(&spec, view, service.id)?;
    if spec.mode.name() != service.spec.mode.name() {
        return Err(unimplemented("service mode change is not allowed"));
    }
    if spec.name != service.spec.name {
        return Err(unimplemented("renaming services is not supported"));
    }
    let auth = match (&update.registry_auth, update.auth_from) {
        (Some(auth), _) => Some(auth.clone()),
        (None, AuthFrom::Spec) => service.registry_auth.clone(),
        (None, AuthFrom::PreviousSpec) if service.previous_spec.is_none() => {
            let text = "service does not have a previous spec";
            return Err(ApiError::plain(Code::Unknown, text));
        }
        (None, AuthFrom::PreviousSpec) => service.previous_registry_auth.clone(),
    };
    service.previous_spec = Some(Box::new(std::mem::replace(&mut service.spec, spec)));
    service.previous_registry_auth = std::mem::replace(&mut service.registry_auth, auth);
    // In the same write as the specification: a client that waits for the roll-out must never see
    // the end of the one before.
    service.update_status = None;
    Ok(())
}
