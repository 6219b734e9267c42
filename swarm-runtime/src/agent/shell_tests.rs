//! An agent with a memory executor against a manager that is played by the test.

use swarm_core::executor::{Exit, LogOptions, LogSource};
use swarm_core::id::IdSource;
use swarm_core::model::{ContainerSpec, Task, TaskSpec, TaskState, TaskStatus};
use swarm_core::protocol::{Assignments, Item, ItemKey, LogRequest, Settings};
use swarm_core::time::Nanos;

use super::super::link::{ManagerEnd, channel};
use super::*;
use crate::memory::{Behaviour, MemoryExecutor};

/// A bound against hanging.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}

struct World {
    ids: IdSource,
    executor: MemoryExecutor,
    streams: mpsc::Receiver<ManagerEnd>,
    cancel: CancellationToken,
    agent: Arc<Agent>,
    running: tokio::task::JoinHandle<Result<(), AgentError>>,
}

fn quick() -> Timing {
    Timing {
        drain: Duration::ZERO,
        retry: Duration::from_millis(5),
        retry_max: Duration::from_millis(20),
        ..Timing::default()
    }
}

impl World {
    fn start(executor: MemoryExecutor, journal: Option<&std::path::Path>) -> Self {
        let mut ids = IdSource::random();
        let (link, streams) = channel();
        let node = ids.next();
        let mut builder =
            Agent::builder(node, Arc::new(executor.clone()), Arc::new(link)).timing(quick());
        if let Some(journal) = journal {
            builder = builder.journal(journal);
        }
        let agent = Arc::new(builder.build().unwrap());
        let cancel = CancellationToken::new();
        let running = tokio::spawn({
            let (agent, cancel) = (agent.clone(), cancel.clone());
            async move { agent.run(cancel).await }
        });
        Self { ids, executor, streams, cancel, agent, running }
    }

    async fn session(&mut self) -> Manager {
        let mut end = soon(self.streams.recv()).await.expect("the agent connects");
        let hello = soon(end.receiver.recv()).await;
        assert!(matches!(hello, Some(AgentMessage::Hello { .. })), "{hello:?}");
        let welcome = ManagerMessage::Welcome {
            session: self.ids.next(),
            settings: Settings { heartbeat: Nanos(20_000_000), ..Settings::default() },
        };
        end.sender.send(welcome).await.unwrap();
        Manager { end, set: 0, beats: 0 }
    }

    fn task(&mut self, image: &str) -> Task {
        let container = ContainerSpec { image: image.into(), ..Default::default() };
        Task {
            id: self.ids.next(),
            service_id: self.ids.next(),
            slot: 1,
            desired_state: TaskState::Running,
            status: TaskStatus { state: TaskState::Assigned, ..Default::default() },
            spec: Arc::new(TaskSpec { container: Some(container), ..Default::default() }),
            ..Default::default()
        }
    }

    async fn stop(self) -> Result<(), AgentError> {
        self.cancel.cancel();
        soon(self.running).await.unwrap()
    }
}

struct Manager {
    end: ManagerEnd,
    set: u64,
    beats: u32,
}

impl Manager {
    async fn assign(&mut self, complete: bool, put: Vec<Item>, drop: Vec<ItemKey>) {
        let applies_to = (!complete).then_some(self.set);
        self.set += 1;
        let set = Assignments { applies_to, results_in: self.set, put, drop };
        self.end.sender.send(ManagerMessage::Assignments(set)).await.unwrap();
    }

    async fn next(&mut self) -> AgentMessage {
        loop {
            match soon(self.end.receiver.recv()).await.expect("the session is open") {
                AgentMessage::Heartbeat => self.beats += 1,
                message => return message,
            }
        }
    }

    /// Reads reports until the task has the state; its status.
    async fn until(&mut self, task: TaskId, state: TaskState) -> TaskStatus {
        loop {
            let AgentMessage::Statuses(statuses) = self.next().await else { continue };
            let of_task = statuses.into_iter().find(|(id, _)| *id == task);
            match of_task {
                Some((_, status)) if status.state == state => return status,
                Some((_, status)) if status.state.is_terminal() => panic!("{status:?}"),
                _ => {}
            }
        }
    }
}

fn put(task: &Task) -> Item {
    Item::Task(Arc::new(task.clone()))
}

fn script(spec: &ContainerSpec) -> Behaviour {
    match spec.image.as_str() {
        "fails" => Behaviour::exits(3, Duration::from_millis(5)),
        "prints" => Behaviour {
            lines: vec![(LogSource::Stdout, "hello".into()), (LogSource::Stderr, "oops".into())],
            ..Default::default()
        },
        _ => Behaviour::default(),
    }
}

fn executor() -> MemoryExecutor {
    MemoryExecutor::new(NodeId::NIL, script)
}

#[tokio::test]
async fn a_task_runs_is_stopped_and_goes() {
    let mut world = World::start(executor(), None);
    let mut manager = world.session().await;
    let mut task = world.task("steady");
    manager.assign(true, vec![put(&task)], Vec::new()).await;
    let status = manager.until(task.id, TaskState::Running).await;
    assert_eq!(status.message, "started");
    assert_eq!(status.container.unwrap().container_id, task.id.to_string());
    assert_eq!(world.executor.running(), [task.id]);

    task.desired_state = TaskState::Shutdown;
    manager.assign(false, vec![put(&task)], Vec::new()).await;
    let status = manager.until(task.id, TaskState::Shutdown).await;
    assert_eq!(status.container.unwrap().exit_code, 143);
    assert!(world.executor.assignment(task.id).is_some(), "a stopped task's logs stay");

    manager.assign(false, Vec::new(), vec![ItemKey::Task(task.id)]).await;
    soon(async {
        while world.executor.assignment(task.id).is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn only_a_node_that_leaves_says_goodbye() {
    for leaves in [false, true] {
        let mut world = World::start(executor(), None);
        let mut manager = world.session().await;
        let beat = soon(manager.end.receiver.recv()).await;
        assert_eq!(beat, Some(AgentMessage::Heartbeat), "the session is open");
        if leaves {
            world.agent.leave();
        }
        world.stop().await.unwrap();
        let mut last = None;
        while let Some(message) = manager.end.receiver.recv().await {
            last = Some(message);
        }
        assert_eq!(last == Some(AgentMessage::Goodbye), leaves, "{last:?}");
    }
}

#[tokio::test]
async fn a_failure_is_told() {
    let mut world = World::start(executor(), None);
    let mut manager = world.session().await;
    let task = world.task("fails");
    manager.assign(true, vec![put(&task)], Vec::new()).await;
    let status = manager.until(task.id, TaskState::Failed).await;
    assert_eq!(status.err, "task: non-zero exit (3)");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_new_session_reports_everything_and_a_complete_set_drops_the_rest() {
    let mut world = World::start(executor(), None);
    let mut manager = world.session().await;
    let (kept, gone) = (world.task("steady"), world.task("steady"));
    manager.assign(true, vec![put(&kept), put(&gone)], Vec::new()).await;
    manager.until(kept.id, TaskState::Running).await;
    drop(manager);

    let mut manager = world.session().await;
    manager.until(kept.id, TaskState::Running).await;
    assert_eq!(world.executor.running().len(), 2, "tasks run on without a manager");
    manager.assign(true, vec![put(&kept)], Vec::new()).await;
    soon(async {
        while world.executor.running() != [kept.id] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_lost_message_leads_to_a_new_session() {
    let mut world = World::start(executor(), None);
    let mut manager = world.session().await;
    manager.assign(true, Vec::new(), Vec::new()).await;
    manager.set += 1;
    manager.assign(false, Vec::new(), Vec::new()).await;
    world.session().await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_restarted_agent_resumes_its_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let shared = executor();
    let mut world = World::start(shared.clone(), Some(dir.path()));
    let mut manager = world.session().await;
    let (kept, died) = (world.task("steady"), world.task("steady"));
    manager.assign(true, vec![put(&kept), put(&died)], Vec::new()).await;
    manager.until(kept.id, TaskState::Running).await;
    soon(async {
        while shared.running().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    world.stop().await.unwrap();
    assert_eq!(shared.running().len(), 2, "the end of an agent is not the end of its tasks");

    shared.kill(died.id, Exit { code: 9, error: None });
    let mut world = World::start(shared.clone(), Some(dir.path()));
    let mut manager = world.session().await;
    // No assignments yet: what is reported comes from the journal and the executor.
    let status = manager.until(died.id, TaskState::Failed).await;
    assert_eq!(status.err, "task: non-zero exit (9)");
    manager.assign(true, vec![put(&kept)], Vec::new()).await;
    shared.kill(kept.id, Exit { code: 1, error: None });
    manager.until(kept.id, TaskState::Failed).await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn output_is_served_until_it_ends_or_is_cancelled() {
    let mut world = World::start(executor(), None);
    let mut manager = world.session().await;
    let task = world.task("prints");
    manager.assign(true, vec![put(&task)], Vec::new()).await;
    manager.until(task.id, TaskState::Running).await;
    let options = LogOptions { stdout: true, stderr: true, ..Default::default() };
    let request = LogRequest { id: 7, task: task.id, options };
    manager.end.sender.send(ManagerMessage::Logs(request)).await.unwrap();
    let mut lines = Vec::new();
    loop {
        let AgentMessage::Logs(chunk) = manager.next().await else { continue };
        assert_eq!(chunk.id, 7);
        lines.extend(chunk.entries.into_iter().map(|e| String::from_utf8(e.data).unwrap()));
        if let Some(end) = chunk.end {
            assert_eq!(end, "");
            break;
        }
    }
    assert_eq!(lines, ["hello\n", "oops\n"]);

    let unknown = LogRequest { id: 8, task: world.ids.next(), options: LogOptions::default() };
    manager.end.sender.send(ManagerMessage::Logs(unknown)).await.unwrap();
    let AgentMessage::Logs(chunk) = manager.next().await else { panic!("no answer") };
    assert!(chunk.end.unwrap().contains("not prepared"), "an error is told");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn the_node_beats_and_a_refusal_ends_it() {
    let mut world = World::start(executor(), None);
    let mut manager = world.session().await;
    while manager.beats < 3 {
        if let Some(AgentMessage::Heartbeat) = soon(manager.end.receiver.recv()).await {
            manager.beats += 1;
        }
    }
    let refused = ManagerMessage::Refused { reason: "node was removed".into() };
    manager.end.sender.send(refused).await.unwrap();
    let result = soon(world.running).await.unwrap();
    assert!(matches!(result, Err(AgentError::Refused(reason)) if reason == "node was removed"));
}

#[tokio::test]
async fn a_purge_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let shared = executor();
    let mut world = World::start(shared.clone(), Some(dir.path()));
    let mut manager = world.session().await;
    let task = world.task("steady");
    manager.assign(true, vec![put(&task)], Vec::new()).await;
    manager.until(task.id, TaskState::Running).await;
    let agent = world.agent.clone();
    world.stop().await.unwrap();
    agent.purge().await.unwrap();
    assert!(shared.assignment(task.id).is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the journal is empty");
}
