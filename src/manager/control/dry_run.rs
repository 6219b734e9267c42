//! What creating or changing a service would do. (Ours: Swarm has no such call.)

use std::sync::PoisonError;

use swarm_core::control::Ctx;
use swarm_core::id::IdSource;
use swarm_core::model::{SecretBytes, Service, ServiceSpec};
use swarm_core::store::{Epoch, Snapshot};
use swarm_sched::dry_run::{Report, dry_run};

use super::{Control, UpdateService, commit_error};
use crate::error::{ApiError, Code};

impl Control {
    /// What [`create_service`](Self::create_service) would lead to. Nothing is written.
    ///
    /// # Errors
    /// As creating it would fail.
    pub async fn dry_run_create(
        &self,
        spec: ServiceSpec,
        registry_auth: Option<SecretBytes>,
    ) -> Result<Report, ApiError> {
        let view = self.view()?;
        let service = self.created(&view, self.new_id(), spec, registry_auth)?;
        self.dry_run(view, service).await
    }

    /// What [`update_service`](Self::update_service) would lead to. Nothing is written.
    ///
    /// # Errors
    /// As the change would fail.
    pub async fn dry_run_update(
        &self,
        word: &str,
        update: UpdateService,
    ) -> Result<Report, ApiError> {
        let view = self.view()?;
        let service = self.updated(&view, word, &update)?;
        self.dry_run(view, service).await
    }

    /// Plays it on a thread of its own: on a large cluster it takes seconds.
    async fn dry_run(&self, view: Snapshot, service: Service) -> Result<Report, ApiError> {
        let (planners, now) = (self.planners.clone(), self.clock.now());
        let seed = self.ids.lock().unwrap_or_else(PoisonError::into_inner).below(u64::MAX);
        let epoch = self.store.leadership().borrow().epoch().unwrap_or(Epoch(0));
        let play = move || {
            let mut ids = IdSource::seeded(seed);
            dry_run(&view, service, &planners, &mut Ctx::new(now, &mut ids, epoch))
        };
        match tokio::task::spawn_blocking(play).await {
            Ok(report) => report.map_err(commit_error),
            Err(error) => {
                Err(ApiError::plain(Code::Unknown, format!("the dry run ended: {error}")))
            }
        }
    }
}
