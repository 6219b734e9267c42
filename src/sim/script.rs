//! Pure: what happens to a simulated cluster and when: operations of clients and faults, as data.
//!
//! A seed draws a script ([`draw`](super::draw)), a person writes one (its text is what
//! [`Display`](std::fmt::Display) writes and [`FromStr`](std::str::FromStr) reads), and the shrinker
//! takes entries out of one that fails. The world adds only what is too small to script: the latency of
//! a message, the time that a container takes to start.

use std::time::Duration;

use swarm_core::model::{Availability, ServiceSpec, TaskState};

/// A whole scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// Decides everything that the script leaves open.
    pub seed: u64,
    /// How many managers there are; each is a node as well.
    pub managers: usize,
    /// How many nodes there are beside the managers.
    pub workers: usize,
    /// What happens, in order of time.
    pub entries: Vec<Entry>,
    /// When the faults end and everything heals, counted from the start.
    pub heal_at: Duration,
    /// Nodes that stay broken at `heal_at`: never a majority of the managers.
    pub lost: Vec<usize>,
    /// So many tasks move together at most, and then none for so long, if tasks move at all.
    pub rebalance: Option<(usize, Duration)>,
    /// So many tasks may be on their way out at the same time for others of higher priority, if the
    /// cluster lets tasks be stopped for others at all.
    pub preemption: Option<usize>,
    /// So many changes at most the store takes of the planners in one batch, if not any number.
    pub room: Option<usize>,
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When, counted from the start.
    pub at: Duration,
    /// What.
    pub action: Action,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A client asks the API for something.
    Ask(Request),
    /// Something breaks, for a while.
    Break(Fault),
    /// Something must be true now: see [`Wanted`].
    Expect(Wanted),
    /// Something must be true from now on for so long, after every event.
    Always(Wanted, Duration),
}

/// What clients ask for. Objects go by their names; nodes by their numbers, managers first.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Create a service. Networks, secrets and configs are named; ids are filled in.
    CreateService(Box<ServiceSpec>),
    /// Give a service another specification altogether, of the same mode; create it if it is not
    /// there. So does `docker stack deploy`.
    DeployService(Box<ServiceSpec>),
    /// Change a service's present specification.
    UpdateService(String, Vec<Edit>),
    /// Go back to a service's previous specification.
    RollBackService(String),
    /// Remove a service.
    RemoveService(String),
    /// Create an overlay network; the second word is its subnet, empty to have one allocated.
    CreateNetwork(String, String),
    /// Remove a network.
    RemoveNetwork(String),
    /// Create a secret.
    CreateSecret(String),
    /// Remove a secret.
    RemoveSecret(String),
    /// Create a config.
    CreateConfig(String),
    /// Remove a config.
    RemoveConfig(String),
    /// Change a node's availability.
    SetAvailability(usize, Availability),
    /// Set a label of a node, or take it away.
    LabelNode(usize, String, Option<String>),
    /// Remove a node by force. It comes back as a new node when its machine starts again.
    RemoveNode(usize),
    /// Set how many ended tasks a slot keeps.
    SetHistory(i64),
}

/// One change of a service's specification.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Another image: see [`Behaviour`](super::machine::Behaviour) for what images do.
    Image(String),
    /// Another number of replicas, or of completions of a job.
    Replicas(u64),
    /// Nothing but another run.
    Force,
    /// A flag of `docker service update` without its dashes, and its value.
    Flag(String, String),
}

/// What breaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// For how long. What has no duration, such as a leader change, ignores it.
    pub lasts: Duration,
}

/// The ways of breaking. Numbers are nodes, managers first.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultKind {
    /// The manager process of a node dies; what it had committed is on its disk.
    CrashManager(usize),
    /// The agent of a node dies; containers run on, the journal is on the disk.
    CrashAgent(usize),
    /// A machine loses power: manager, agent and containers.
    CrashMachine(usize),
    /// Every process of a machine stands still; containers run on.
    Pause(usize),
    /// Nothing goes between these nodes and the others.
    Partition(Vec<usize>),
    /// Nothing goes from the first node to the second; the other way works.
    OneWay(usize, usize),
    /// Every message of a node takes this much longer.
    Slow(usize, Duration),
    /// So many of a hundred messages of a node are lost, and with them what follows on their
    /// stream, until that is given up.
    Lossy(usize, u64),
    /// So many of a hundred messages of a node arrive twice.
    Repeating(usize, u64),
    /// So many of a hundred messages of a node are overtaken.
    Reordering(usize, u64),
    /// A node's wall clock jumps by so many milliseconds, and back when the fault ends.
    ClockJump(usize, i64),
    /// A node's wall clock runs at so many thousandths of its speed.
    ClockRate(usize, u64),
    /// The executor of a node begins work and does not end it.
    HangExecutor(usize),
    /// So many of a hundred pieces of a node's work fail for a moment.
    ExecutorErrors(usize, u64),
    /// So many of a hundred pieces of a node's work are done, and reported as failed for a moment.
    ExecutorLies(usize, u64),
    /// A node cannot pull images.
    PullFailure(usize),
    /// The largest containers of a node are killed for want of memory.
    OutOfMemory(usize),
    /// Another manager takes over, while everything is in flight.
    LeaderChange,
    /// Every stream between agents and managers breaks at the same time.
    MassReconnect,
    /// A manager's state is replaced by a snapshot: its watches lag.
    InstallSnapshot(usize),
}

/// How many of something there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// At least.
    pub least: u64,
    /// At most.
    pub most: u64,
}

impl From<u64> for Count {
    fn from(exactly: u64) -> Self {
        Self { least: exactly, most: exactly }
    }
}

/// What must be true when a hand-written scenario comes to it. The first word is a service's name.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// So many tasks of a service run, as the managers and the machines see it.
    Running(String, Count),
    /// So many tasks of a service run this image, and none runs another.
    RunningImage(String, String, Count),
    /// So many tasks of a service run on a node.
    RunningOn(String, usize, Count),
    /// So many tasks of a service run or shall run yet.
    Alive(String, Count),
    /// So many containers of a service run, whatever the managers know.
    Containers(String, Count),
    /// So many tasks of a service run on each node that runs any, the most first.
    Spread(String, Vec<u64>),
    /// So many tasks of a service, with those that ended, are in this state, with this in their
    /// error.
    Tasks(String, Count, TaskState, String),
    /// So many tasks of a job have completed in its present iteration.
    Completed(String, Count),
    /// A service's update is in this state, and its message has this in it.
    Update(String, String, String),
    /// Tasks of a service wait, and say so with this text.
    Waiting(String, String),
    /// A service lacks something that it cannot be given, and says so with this text.
    Stalled(String, String),
    /// A service is published on this port.
    Port(String, u16),
    /// No service of that name exists, and nothing is left of it.
    Gone(String),
    /// A node is in this state: `ready`, `down`, `unknown`, or `removed`.
    Node(usize, String),
}

impl Script {
    /// A script in which nothing happens.
    #[must_use]
    pub fn new(seed: u64, managers: usize, workers: usize) -> Self {
        let heal_at = Duration::ZERO;
        Self {
            seed,
            managers,
            workers,
            entries: Vec::new(),
            heal_at,
            lost: Vec::new(),
            rebalance: None,
            preemption: None,
            room: None,
        }
    }

    /// All nodes: managers first.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.managers + self.workers
    }

    /// Adds an entry.
    pub fn at(&mut self, at: Duration, action: Action) {
        self.entries.push(Entry { at, action });
    }
}
