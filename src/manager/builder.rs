//! Puts a manager together from its parts and runs it.

use std::sync::{Arc, Mutex};

use swarm_core::control::{self, Planner};
use swarm_core::id::IdSource;
use swarm_core::network::NetworkDriver;
use swarm_core::scheduler::Scheduler;
use swarm_core::secret::SecretStore;
use swarm_core::store::Store;
use swarm_core::time::{Clock, SystemClock};
use swarm_sched::place::StrategyScheduler;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use super::control::Control;
use super::logs::AgentLogs;
use super::secrets::StoreSecrets;
use super::session::Sessions;
use crate::identity::{Credentials, StoreAuthority};
use crate::rpc::server;
use crate::rpc::service::Services;

/// The parts of a manager. What is not set takes its default.
pub struct ManagerBuilder {
    store: Arc<dyn Store>,
    scheduler: Arc<dyn Scheduler>,
    planners: Vec<Arc<dyn Planner>>,
    drivers: Vec<Arc<dyn NetworkDriver>>,
    secrets: Option<Arc<dyn SecretStore>>,
    clock: Arc<dyn Clock>,
}

/// A running manager.
pub struct Manager {
    control: Arc<Control>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Manager {
    /// A manager over a store that holds a cluster object (see [`bootstrap`](super::bootstrap)).
    pub fn builder(store: Arc<dyn Store>) -> ManagerBuilder {
        ManagerBuilder {
            store,
            scheduler: Arc::new(StrategyScheduler::default()),
            planners: Vec::new(),
            drivers: Vec::new(),
            secrets: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// What clients may do with the cluster.
    #[must_use]
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Stops: sessions end, agents keep their tasks running. The store is the caller's.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl ManagerBuilder {
    /// Where tasks run; Swarm's spread by default.
    #[must_use]
    pub fn scheduler(mut self, scheduler: Arc<dyn Scheduler>) -> Self {
        self.scheduler = scheduler;
        self
    }

    /// One more planner, run after the default ones.
    #[must_use]
    pub fn planner(mut self, planner: Arc<dyn Planner>) -> Self {
        self.planners.push(planner);
        self
    }

    /// A network driver, for the allocation of networks that name it.
    #[must_use]
    pub fn network_driver(mut self, driver: Arc<dyn NetworkDriver>) -> Self {
        self.drivers.push(driver);
        self
    }

    /// Where secrets' bytes are; in the store by default.
    #[must_use]
    pub fn secrets(mut self, secrets: Arc<dyn SecretStore>) -> Self {
        self.secrets = Some(secrets);
        self
    }

    /// What time it is; the system's by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Runs the manager: control loop, dispatcher, and the port for nodes on `listener`. It works
    /// until [`Manager::stop`]; dropping the [`Manager`] does not stop it.
    #[must_use]
    pub fn serve(self, credentials: Arc<Credentials>, listener: TcpListener) -> Manager {
        let Self { store, scheduler, planners, drivers, secrets, clock } = self;
        let readable: Arc<dyn SecretStore> = match &secrets {
            Some(secrets) => secrets.clone(),
            None => Arc::new(StoreSecrets::new(store.clone(), clock.clone())),
        };
        let sessions = Arc::new(Sessions::new(store.clone(), readable, clock.clone()));
        let mut all = swarm_sched::default_planners(drivers, scheduler);
        all.extend(planners);
        let control = Arc::new(Control {
            store: store.clone(),
            secrets,
            logs: Arc::new(AgentLogs(sessions.clone())),
            clock: clock.clone(),
            ids: Mutex::new(IdSource::random()),
            changes_roles: false,
            planners: all.clone(),
        });

        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let run_until_stopped = |work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let stopped = cancel.clone().cancelled_owned();
            tasks.spawn(async move {
                tokio::select! {
                    () = work => {}
                    () = stopped => {}
                }
            });
        };
        run_until_stopped(Box::pin(control::run(
            store.clone(),
            clock.clone(),
            all,
            IdSource::random(),
        )));
        let dispatching = sessions.clone();
        run_until_stopped(Box::pin(async move { dispatching.run().await }));

        let authority = Arc::new(StoreAuthority::new(store, clock.clone(), IdSource::random()));
        let services = Services {
            ca: authority.clone(),
            sessions,
            control: authority.clone(),
            membership: authority,
            clock,
        };
        let serving = server::serve(listener, credentials, services, cancel.clone());
        tasks.spawn(async move {
            if let Err(error) = serving.await {
                error!(%error, "the port for nodes is closed");
            }
        });
        Manager { control, cancel, tasks }
    }
}
