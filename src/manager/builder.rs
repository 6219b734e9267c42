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
use super::group::{Group, NoGroup, Replicated};
use super::logs::{AgentLogs, ClusterLogs};
use super::rotation::RootRotations;
use super::secrets::StoreSecrets;
use super::session::Sessions;
use crate::identity::{Cfssl, Credentials, ExternalAuthority, StoreAuthority};
use crate::rpc::server;
use crate::rpc::service::{GroupService, Services};

/// The parts of a manager. What is not set takes its default.
pub struct ManagerBuilder {
    store: Arc<dyn Store>,
    scheduler: Arc<dyn Scheduler>,
    planners: Vec<Arc<dyn Planner>>,
    drivers: Vec<Arc<dyn NetworkDriver>>,
    secrets: Option<Arc<dyn SecretStore>>,
    external: Option<Arc<dyn ExternalAuthority>>,
    clock: Arc<dyn Clock>,
    member: Option<Replicated>,
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
            external: None,
            clock: Arc::new(SystemClock),
            member: None,
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

    /// Who signs where the cluster names authorities outside it; CFSSL's protocol by default.
    #[must_use]
    pub fn external_authority(mut self, external: Arc<dyn ExternalAuthority>) -> Self {
        self.external = Some(external);
        self
    }

    /// What time it is; the system's by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Makes it one of several managers: the store is, or is in front of, a member of their group.
    /// Without it, the manager is the only one, and refuses others.
    #[must_use]
    pub fn member_of_group(mut self, member: Replicated) -> Self {
        self.member = Some(member);
        self
    }

    /// Runs the manager: control loop, dispatcher, and the port for nodes on `listener`. It works
    /// until [`Manager::stop`]; dropping the [`Manager`] does not stop it.
    #[must_use]
    pub fn serve(self, credentials: Arc<Credentials>, listener: TcpListener) -> Manager {
        let Self { store, scheduler, planners, drivers, secrets, external, clock, member } = self;
        let readable: Arc<dyn SecretStore> = match &secrets {
            Some(secrets) => secrets.clone(),
            None => Arc::new(StoreSecrets::new(store.clone(), clock.clone())),
        };
        let sessions = Arc::new(Sessions::new(store.clone(), readable, clock.clone()));
        let external = external.unwrap_or_else(|| Arc::new(Cfssl::new(credentials.clone())));
        let mut all = swarm_sched::default_planners(drivers, scheduler);
        all.extend([Arc::new(RootRotations) as Arc<dyn Planner>].into_iter().chain(planners));
        let control = Arc::new(Control {
            store: store.clone(),
            secrets,
            logs: Arc::new(ClusterLogs {
                agents: AgentLogs(sessions.clone()),
                credentials: credentials.clone(),
            }),
            clock: clock.clone(),
            ids: Mutex::new(IdSource::random()),
            external: Some(external.clone()),
            changes_roles: member.is_some(),
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
        let planning = control::run(store.clone(), clock.clone(), all, IdSource::random());
        run_until_stopped(Box::pin(planning));
        let dispatching = sessions.clone();
        run_until_stopped(Box::pin(async move { dispatching.run().await }));

        let authority = StoreAuthority::new(store.clone(), clock.clone(), IdSource::random());
        let authority = authority.external(external);
        let services = match member {
            None => services(authority, sessions, Arc::new(NoGroup), clock),
            Some(member) => {
                let group = Arc::new(Group::new(store, member, clock.clone()));
                let keeping = group.clone();
                run_until_stopped(Box::pin(async move { keeping.run().await }));
                services(authority.admit_managers(), sessions, group, clock)
            }
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

/// What is behind the port for nodes.
fn services(
    authority: StoreAuthority,
    sessions: Arc<Sessions>,
    group: Arc<dyn GroupService>,
    clock: Arc<dyn Clock>,
) -> Services {
    let authority = Arc::new(authority);
    Services {
        ca: authority.clone(),
        control: authority.clone(),
        membership: authority,
        logs: Arc::new(AgentLogs(sessions.clone())),
        sessions,
        group,
        clock,
    }
}
