//! The clients of a simulated cluster. They use the real [`Control`], whose futures are
//! driven by hand: its store is a manager's replica, and a commit waits for the logical log.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use swarm_core::executor::LogOptions;
use swarm_core::id::IdSource;
use swarm_core::model::{
    Blob, ConfigSpec, IpamConfig, IpamOptions, NetworkSpec, SecretBytes, SecretSpec, ServiceMode,
    ServiceSpec, Version,
};
use swarm_core::store::{
    Batch, CommitError, Epoch, Leadership, MemoryStore, Snapshot, Store, Watch,
};
use swarm_core::time::{Clock, Timestamp};
use tokio::sync::oneshot;

use super::consensus::Author;
use super::manager::Reply;
use super::script::{Action, Edit, Request};
use super::text::flags;
use super::world::{Event, World};
use crate::error::{ApiError, Code};
use crate::manager::control::{AuthFrom, Control, Rotate, UpdateService};
use crate::manager::logs::{LogBroker, LogSelector, TaskLogs};

/// How often a client asks again where nobody leads.
const ATTEMPTS: u32 = 10;
const ASK_AGAIN: Duration = Duration::from_secs(2);

type Answer = Result<(), ApiError>;

/// A request under way.
pub(super) struct Call {
    request: Request,
    host: usize,
    epoch: Epoch,
    future: Pin<Box<dyn Future<Output = Answer> + Send>>,
    desk: Arc<Desk>,
    attempts: u32,
}

/// A batch, and who waits for its fate.
type Written = (Batch, oneshot::Sender<Result<Version, CommitError>>);

/// A store as a client's manager sees it: reads its replica, writes into the logical log.
struct Desk {
    replica: Arc<MemoryStore>,
    written: Mutex<Vec<Written>>,
}

#[async_trait]
impl Store for Desk {
    fn snapshot(&self) -> Snapshot {
        self.replica.snapshot()
    }

    fn watch(&self, after: Version) -> Watch {
        self.replica.watch(after)
    }

    fn leadership(&self) -> tokio::sync::watch::Receiver<Leadership> {
        self.replica.leadership()
    }

    async fn commit(&self, batch: Batch) -> Result<Version, CommitError> {
        let (sender, receiver) = oneshot::channel();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push((batch, sender));
        let lost = || CommitError::Unknown("the manager is gone".to_owned());
        receiver.await.unwrap_or_else(|_| Err(lost()))
    }

    async fn barrier(&self) -> Result<(), CommitError> {
        self.replica.barrier().await
    }
}

/// A clock that stands where the world puts it.
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

struct NoLogs;

impl LogBroker for NoLogs {
    fn logs(&self, _: LogSelector, _: LogOptions) -> TaskLogs {
        Box::pin(futures_util::stream::empty())
    }
}

impl World {
    /// A client sends a request to the manager that it takes for the leader.
    pub(super) fn ask(&mut self, request: Request, attempts: u32) {
        let leads = |host: &usize| {
            let manager = self.hosts[*host].manager.as_ref();
            self.hosts[*host].is_running(self.now)
                && manager.is_some_and(|manager| manager.replica.believes.is_some())
        };
        let leaders: Vec<usize> = (0..self.script.managers).filter(leads).collect();
        let host = leaders.first().copied();
        let Some((host, manager)) = host.and_then(|h| Some((h, self.hosts[h].manager.as_ref()?)))
        else {
            return self.ask_again(request, attempts);
        };
        let epoch = manager.replica.believes.unwrap_or_default();
        let replica = manager.replica.store.clone();
        let desk = Arc::new(Desk { replica, written: Mutex::default() });
        let control = Control {
            store: desk.clone(),
            secrets: None,
            logs: Arc::new(NoLogs),
            clock: Arc::new(Hand(AtomicI64::new(self.hosts[host].local(self.now).as_nanos()))),
            ids: Mutex::new(IdSource::seeded(self.dice.below(u64::MAX))),
            external: None,
            changes_roles: false,
            planners: self.planners.clone(),
        };
        let names = self.hosts.iter().map(|host| host.id.to_string()).collect();
        let future = Box::pin(perform(control, request.clone(), names));
        self.calls.push(Call { request, host, epoch, future, desk, attempts });
        self.drive_calls();
    }

    fn ask_again(&mut self, request: Request, attempts: u32) {
        match attempts < ATTEMPTS {
            true => self.schedule(ASK_AGAIN, Event::Ask(Box::new(request), attempts + 1)),
            false => {
                let request = self.script.describe(&Action::Ask(request));
                self.note(format_args!("client: nobody answers {request}"));
            }
        }
    }

    /// Lets every request go as far as it can.
    pub(super) fn drive_calls(&mut self) {
        let mut waiting = Vec::new();
        for mut call in std::mem::take(&mut self.calls) {
            let polled = call.future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            match polled {
                Poll::Ready(answer) => self.answered(call, answer),
                Poll::Pending => {
                    let written = std::mem::take(
                        &mut *call.desk.written.lock().unwrap_or_else(PoisonError::into_inner),
                    );
                    for (batch, sender) in written {
                        let reply = Reply::Client(sender);
                        self.propose(call.host, call.epoch, Author::Client, batch, reply);
                    }
                    waiting.push(call);
                }
            }
        }
        self.calls.append(&mut waiting);
    }

    fn answered(&mut self, call: Call, answer: Answer) {
        let Call { request, attempts, .. } = call;
        let line = self.script.describe(&Action::Ask(request.clone()));
        match answer {
            Ok(()) => self.note(format_args!("client: {line}")),
            Err(error) => {
                let text = error.to_string();
                self.note(format_args!("client: {text}: {line}"));
                if ["leader", "unknown", "in use", "out of sequence"]
                    .iter()
                    .any(|w| text.contains(w))
                {
                    self.ask_again(request, attempts);
                }
            }
        }
    }
}

async fn perform(control: Control, request: Request, nodes: Vec<String>) -> Answer {
    match request {
        Request::CreateService(mut spec) => {
            fill_in(&mut spec, &control.view()?);
            control.create_service(*spec, None).await.map(drop)
        }
        Request::DeployService(spec) => deploy(&control, *spec).await,
        Request::UpdateService(name, edits) => change(&control, &name, edits).await,
        Request::RollBackService(name) => {
            let view = control.view()?;
            let Some(service) = view.services.named(&name) else { return Ok(()) };
            let spec = service.spec.clone();
            control.update_service(&name, update(service.version, spec, true)).await
        }
        Request::RemoveService(name) => control.remove_service(&name).await,
        Request::CreateNetwork(name, subnet) => {
            let mut spec = NetworkSpec { name, scope: "swarm".to_owned(), ..Default::default() };
            spec.driver.name = "overlay".to_owned();
            if !subnet.is_empty() {
                let configs = vec![IpamConfig { subnet, ..Default::default() }];
                spec.ipam = Some(IpamOptions { configs, ..Default::default() });
            }
            control.create_network(spec).await.map(drop)
        }
        Request::RemoveNetwork(name) => control.remove_network(&name).await,
        Request::CreateSecret(name) => {
            let data = Some(SecretBytes::from(format!("secret of {name}").into_bytes()));
            control.create_secret(SecretSpec { name, data, ..Default::default() }).await.map(drop)
        }
        Request::RemoveSecret(name) => control.remove_secret(&name).await,
        Request::CreateConfig(name) => {
            let data = Blob(Arc::from(format!("config of {name}").into_bytes()));
            control.create_config(ConfigSpec { name, data, ..Default::default() }).await.map(drop)
        }
        Request::RemoveConfig(name) => control.remove_config(&name).await,
        Request::RemoveNode(number) => control.remove_node(&nodes[number], true).await,
        Request::SetAvailability(number, availability) => {
            edit_node(&control, &nodes[number], |spec| spec.availability = availability).await
        }
        Request::LabelNode(number, label, value) => {
            edit_node(&control, &nodes[number], |spec| match &value {
                Some(value) => {
                    spec.labels.insert(label.clone(), value.clone());
                }
                None => {
                    spec.labels.remove(&label);
                }
            })
            .await
        }
        Request::SetHistory(limit) => {
            let view = control.view()?;
            let Some(cluster) = view.cluster() else { return Ok(()) };
            let mut spec = cluster.spec.clone();
            spec.orchestration.task_history_retention_limit = Some(limit);
            control.update_cluster(cluster.version, spec, Rotate::default()).await
        }
    }
}

/// `docker stack deploy`: makes a service what it shall be, whether it was there or not.
async fn deploy(control: &Control, mut spec: ServiceSpec) -> Answer {
    let view = control.view()?;
    fill_in(&mut spec, &view);
    match view.services.named(&spec.name) {
        None => control.create_service(spec, None).await.map(drop),
        Some(service) => {
            let name = spec.name.clone();
            control.update_service(&name, update(service.version, spec, false)).await
        }
    }
}

/// `docker service update`.
async fn change(control: &Control, name: &str, edits: Vec<Edit>) -> Answer {
    let view = control.view()?;
    let Some(service) = view.services.named(name) else { return Ok(()) };
    let mut spec = service.spec.clone();
    for edit in edits {
        apply(&mut spec, edit).map_err(|wrong| ApiError::rpc(Code::InvalidArgument, wrong))?;
    }
    fill_in(&mut spec, &view);
    control.update_service(name, update(service.version, spec, false)).await
}

async fn edit_node(
    control: &Control,
    id: &str,
    edit: impl Fn(&mut swarm_core::model::NodeSpec),
) -> Answer {
    let view = control.view()?;
    let Some(node) = view.nodes.iter().find(|node| node.id.as_str() == id) else { return Ok(()) };
    let mut spec = node.spec.clone();
    edit(&mut spec);
    control.update_node(id, node.version, spec).await
}

fn update(version: Version, spec: ServiceSpec, rollback: bool) -> UpdateService {
    UpdateService { version, spec, rollback, registry_auth: None, auth_from: AuthFrom::Spec }
}

fn apply(spec: &mut ServiceSpec, edit: Edit) -> Result<(), String> {
    match edit {
        Edit::Image(image) => {
            let task = Arc::make_mut(&mut spec.task);
            task.container.get_or_insert_default().image = image;
        }
        Edit::Replicas(count) => match &mut spec.mode {
            ServiceMode::Replicated(mode) => mode.replicas = Some(count),
            ServiceMode::ReplicatedJob(mode) => mode.total_completions = Some(count),
            _ => {}
        },
        Edit::Force => Arc::make_mut(&mut spec.task).force_update += 1,
        Edit::Flag(flag, value) => return flags::set(spec, &flag, &value),
    }
    Ok(())
}

/// Fills in the ids of secrets and configs, as the CLI does.
fn fill_in(spec: &mut ServiceSpec, view: &Snapshot) {
    let Some(container) = &mut Arc::make_mut(&mut spec.task).container else { return };
    for reference in &mut container.secrets {
        let secret = view.secrets.named(&reference.secret_name);
        reference.secret_id = secret.map(|secret| secret.id).unwrap_or_default();
    }
    for reference in &mut container.configs {
        let config = view.configs.named(&reference.config_name);
        reference.config_id = config.map(|config| config.id).unwrap_or_default();
    }
}
