//! Pure: a machine that runs containers: the ground truth that invariants compare reports with.
//!
//! What a container does is in its image's name: see [`Behaviour`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::executor::{Assignment, ExecError, Exit, Found, Observed};
use swarm_core::model::{
    ConfigId, ContainerStatus, NetworkId, PortConfig, PublishMode, SecretId, Task, TaskEndpoint,
    TaskId,
};
use swarm_runtime::agent::state::Job;
use swarm_runtime::agent::step::{Launched, Outcome};

use super::dice::Dice;

/// What an image does when it runs: the part of its name before the colon. Any other name is
/// [`Steady`](Self::Steady).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Runs until it is stopped: `steady`.
    Steady,
    /// Takes half a minute to become healthy: `slow`.
    Slow,
    /// Fails within two seconds of its start: `crash`.
    Crash,
    /// Fails every few minutes: `flaky`.
    Flaky,
    /// Never becomes healthy: `unhealthy`.
    Unhealthy,
    /// Cannot be pulled anywhere: `missing`.
    Missing,
    /// Ignores its stop signal until it is killed: `stubborn`.
    Stubborn,
    /// Ends well within twenty seconds: `done`.
    Done,
    /// A job's work that fails in one of three runs: `tries`.
    Tries,
}

impl Behaviour {
    /// Of a task.
    #[must_use]
    pub fn of(task: &Task) -> Self {
        let image = task.spec.container.as_ref().map_or("", |container| &container.image);
        match image.split(':').next().unwrap_or_default() {
            "slow" => Self::Slow,
            "crash" => Self::Crash,
            "flaky" => Self::Flaky,
            "unhealthy" => Self::Unhealthy,
            "missing" => Self::Missing,
            "stubborn" => Self::Stubborn,
            "done" => Self::Done,
            "tries" => Self::Tries,
            _ => Self::Steady,
        }
    }

    /// How long it runs by itself, and how it ends then.
    fn life(self, dice: &mut Dice) -> Option<(Duration, Exit)> {
        let exit = |code| Exit { code, error: None };
        Some(match self {
            Self::Crash => (dice.millis(50, 2_000), exit(1)),
            Self::Flaky => (dice.millis(1_000, 300_000), exit(2)),
            Self::Done => (dice.millis(500, 20_000), exit(0)),
            Self::Tries => (dice.millis(500, 10_000), exit(i64::from(dice.percent(33)))),
            _ => return None,
        })
    }
}

/// One container.
#[derive(Clone, Debug)]
pub struct Container {
    /// The task that it was prepared for.
    pub task: Arc<Task>,
    /// What it is.
    pub state: Found,
    /// The secrets that were put into it.
    pub secrets: Vec<SecretId>,
    /// The configs that were put into it.
    pub configs: Vec<ConfigId>,
    /// The networks that it was attached to.
    pub networks: Vec<NetworkId>,
    /// Which start of it this is: a planned end of an earlier one does not count.
    pub(super) life: u64,
}

/// A machine with its executor.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// What is there, running or not.
    pub containers: BTreeMap<TaskId, Container>,
    /// Work begins and does not end.
    pub(super) hung: bool,
    /// Of a hundred pieces of work, so many fail for a moment.
    pub(super) errors: u64,
    /// Of a hundred pieces of work, so many are done and reported as failed for a moment.
    pub(super) lies: u64,
    /// Nothing can be pulled.
    pub(super) offline: bool,
    /// A bug that a test may plant: it says that it stopped what it did not.
    pub(super) stops_nothing: bool,
    /// Another one: it says that it attached what it did not.
    pub(super) attaches_nothing: bool,
    lives: u64,
}

/// A container that was started ends by itself after a while.
pub(super) struct Ending {
    pub(super) task: TaskId,
    pub(super) life: u64,
    pub(super) after: Duration,
    pub(super) exit: Exit,
}

impl Machine {
    /// Whether a task's container runs.
    #[must_use]
    pub fn runs(&self, task: TaskId) -> bool {
        self.containers.get(&task).is_some_and(|container| container.state == Found::Running)
    }

    /// Grows with every container that is prepared or started.
    #[must_use]
    pub fn lives(&self) -> u64 {
        self.lives
    }

    /// What an agent finds when it starts.
    #[must_use]
    pub fn inventory(&self) -> Vec<Observed> {
        let observed = |(task, container): (&TaskId, &Container)| Observed {
            task: *task,
            found: container.state.clone(),
        };
        self.containers.iter().map(observed).collect()
    }

    /// How long a job takes; absent for one that waits for a container's end.
    pub(super) fn takes(&self, task: TaskId, job: &Job, dice: &mut Dice) -> Option<Duration> {
        Some(match job {
            Job::Prepare(_) => dice.millis(100, 3_000),
            Job::Attach(_) => dice.millis(5, 50),
            Job::Start { task, .. } => match Behaviour::of(task) {
                Behaviour::Slow => dice.millis(20_000, 40_000),
                Behaviour::Unhealthy => dice.millis(3_000, 6_000),
                _ => dice.millis(50, 800),
            },
            Job::Wait => return None,
            Job::Stop { grace, .. } if self.is_stubborn(task) => *grace,
            Job::Stop { grace, .. } => dice.millis(20, 500).min(*grace),
            Job::Remove => dice.millis(5, 200),
        })
    }

    /// Whether a container runs that does not end before it is killed.
    fn is_stubborn(&self, task: TaskId) -> bool {
        let container = self.containers.get(&task);
        container.is_some_and(|container| {
            let stubborn = Behaviour::of(&container.task) == Behaviour::Stubborn;
            stubborn && container.state == Found::Running
        })
    }

    /// Does a job, and says how it went.
    pub(super) fn perform(
        &mut self,
        task: TaskId,
        job: &Job,
        dice: &mut Dice,
    ) -> (Outcome, Option<Ending>) {
        if dice.percent(self.errors) {
            let error = ExecError::temporary("injected: the engine does not answer");
            return (job.failed(error), None);
        }
        let (outcome, ending) = self.do_it(task, job, dice);
        if dice.percent(self.lies) {
            let error = ExecError::temporary("injected: done, but the answer was lost");
            return (job.failed(error), ending);
        }
        (outcome, ending)
    }

    fn do_it(&mut self, task: TaskId, job: &Job, dice: &mut Dice) -> (Outcome, Option<Ending>) {
        let outcome = match job {
            Job::Prepare(assignment) => Outcome::Prepared(self.prepare(assignment)),
            Job::Attach(_) => Outcome::Attached(Ok(Vec::new())),
            Job::Start { task, .. } => {
                let (started, ending) = self.start(task, dice);
                return (Outcome::Started(started), ending);
            }
            Job::Wait => Outcome::Exited(self.exit_of(task)),
            Job::Stop { .. } if self.stops_nothing => Outcome::Stopped(Ok(None)),
            Job::Stop { .. } => {
                self.end(task, &Exit { code: 143, error: None });
                Outcome::Stopped(Ok(self.exit_of(task).ok()))
            }
            Job::Remove => {
                self.containers.remove(&task);
                Outcome::Removed(Ok(()))
            }
        };
        (outcome, None)
    }

    fn prepare(&mut self, assignment: &Assignment) -> Result<Vec<std::net::IpAddr>, ExecError> {
        let task = &assignment.task;
        if self.offline || Behaviour::of(task) == Behaviour::Missing {
            return Err(ExecError::rejected("No such image: it cannot be pulled"));
        }
        let secrets = assignment.secrets.iter().map(|(reference, _)| reference.secret_id).collect();
        let configs = assignment.configs.iter().map(|(reference, _)| reference.config_id).collect();
        let attached = assignment.attachments.iter().filter(|_| !self.attaches_nothing);
        let networks = attached.map(|place| place.network.id).collect();
        self.lives += 1;
        let life = self.lives;
        self.containers.entry(task.id).or_insert_with(|| Container {
            task: task.clone(),
            state: Found::Prepared,
            secrets,
            configs,
            networks,
            life,
        });
        Ok(Vec::new())
    }

    fn start(
        &mut self,
        task: &Arc<Task>,
        dice: &mut Dice,
    ) -> (Result<Launched, ExecError>, Option<Ending>) {
        let behaviour = Behaviour::of(task);
        let Some(container) = self.containers.get_mut(&task.id) else {
            return (Err(ExecError::failed("the container is gone")), None);
        };
        if behaviour == Behaviour::Unhealthy {
            container.state = Found::Exited(Exit { code: 137, error: None });
            return (Err(ExecError::failed("unhealthy container")), None);
        }
        let mut ending = None;
        match &container.state {
            Found::Exited(_) => {
                return (Err(ExecError::failed("the container has ended already")), None);
            }
            Found::Running => {}
            Found::Prepared => {
                self.lives += 1;
                container.life = self.lives;
                container.state = Found::Running;
                let life = container.life;
                ending = behaviour.life(dice).map(|(after, exit)| Ending {
                    task: task.id,
                    life,
                    after,
                    exit,
                });
            }
        }
        (Ok(launched(task, self.lives)), ending)
    }

    fn exit_of(&self, task: TaskId) -> Result<Exit, ExecError> {
        match self.containers.get(&task).map(|container| &container.state) {
            Some(Found::Exited(exit)) => Ok(exit.clone()),
            Some(_) => Err(ExecError::temporary("the container has not ended")),
            None => Err(ExecError::failed("the container is gone")),
        }
    }

    /// A container's end; whether there was one to end.
    pub(super) fn end(&mut self, task: TaskId, exit: &Exit) -> bool {
        let Some(container) = self.containers.get_mut(&task) else { return false };
        if matches!(container.state, Found::Exited(_)) {
            return false;
        }
        container.state = Found::Exited(exit.clone());
        true
    }

    /// Whether a start of a container is still the one that runs.
    pub(super) fn is_life(&self, task: TaskId, life: u64) -> bool {
        self.containers.get(&task).is_some_and(|container| container.life == life)
    }

    /// Power is lost: everything that ran has ended.
    pub(super) fn lose_power(&mut self) {
        let exit = Exit { code: 255, error: None };
        let running: Vec<TaskId> = self.containers.keys().copied().collect();
        for task in running {
            if self.runs(task) {
                self.end(task, &exit);
            }
        }
    }
}

fn launched(task: &Task, number: u64) -> Launched {
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    let (ingress, host): (Vec<&PortConfig>, Vec<&PortConfig>) =
        ports.partition(|port| port.publish_mode == PublishMode::Ingress);
    let endpoint = |port: &PortConfig| TaskEndpoint {
        target_port: port.target_port,
        protocol: port.protocol,
        address: format!("192.0.2.1:{}", 32_768 + number % 28_000),
        ..TaskEndpoint::default()
    };
    Launched {
        container: ContainerStatus {
            container_id: format!("{:064x}", number),
            pid: i64::try_from(number).unwrap_or(1),
            ..ContainerStatus::default()
        },
        ports: host.into_iter().cloned().collect(),
        endpoints: ingress.into_iter().map(endpoint).collect(),
    }
}
