//! Pure: which agents are in session, which have fallen silent, and what that means for the store.
//!
//! The one thing kept here and not in the store is when each agent was last heard: it is about
//! this leader's connections and dies with them. A new leader starts with twice the patience
//! (six heartbeats), so that a failover marks no healthy node down (SwarmKit: `manager/dispatcher`).
//! Times here are how long the manager has been up: a wall clock that is set must not silence a node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::model::{
    Node, NodeDescription, NodeId, NodeState, NodeStatus, TaskId, TaskState, TaskStatus, defaults,
};
use swarm_core::protocol::SessionId;
use swarm_core::store::{Change, Snapshot};
use swarm_core::time::Timestamp;

/// Sessions that one node may open within [`REGISTRATION_WINDOW`].
const REGISTRATIONS: usize = 3;
/// The window of the registration limit.
const REGISTRATION_WINDOW: Duration = Duration::from_secs(8);

/// Bytes that a task's message, and its error, have at most.
const LONGEST_WORDS: usize = 16 << 10;

/// A look at the deadlines that is planned.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    planned_at: Duration,
    /// How long to wait for it.
    pub pause: Duration,
}

/// Why a session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The node was removed, or never joined.
    #[error("node not found: it was removed from the swarm, or belongs to another one")]
    UnknownNode,
    /// More than three sessions in eight seconds.
    #[error("node opens sessions too quickly: wait a few seconds")]
    TooFast,
}

/// The sessions of one leader.
pub struct Dispatcher {
    nodes: BTreeMap<NodeId, Contact>,
    deadlines: BTreeSet<(Duration, NodeId)>,
}

struct Contact {
    session: Option<SessionId>,
    deadline: Duration,
    opened: Vec<Duration>,
}

/// The heartbeat period of the cluster.
#[must_use]
pub fn heartbeat(view: &Snapshot) -> Duration {
    let set = view.cluster().map(|cluster| cluster.spec.dispatcher.heartbeat_period.duration());
    set.filter(|period| !period.is_zero()).unwrap_or(defaults::HEARTBEAT_PERIOD)
}

impl Dispatcher {
    /// The dispatcher of a new leader: every node that was in session is given time to return.
    #[must_use]
    pub fn new(view: &Snapshot, now: Duration) -> Self {
        let mut dispatcher = Self { nodes: BTreeMap::new(), deadlines: BTreeSet::new() };
        let patience = heartbeat(view) * defaults::HEARTBEAT_GRACE_NEW_LEADER;
        for node in view.nodes.iter().filter(|node| node.status.state != NodeState::Down) {
            dispatcher.expect(node.id, now + patience);
        }
        dispatcher
    }

    /// A node opens a session. An older session of the same node is over from here on.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn open(
        &mut self,
        node: NodeId,
        view: &Snapshot,
        now: Duration,
        ids: &mut IdSource,
    ) -> Result<SessionId, Refusal> {
        if view.nodes.get(node).is_none() {
            return Err(Refusal::UnknownNode);
        }
        let grace = heartbeat(view) * defaults::HEARTBEAT_GRACE;
        let contact = self.expect(node, now + grace);
        contact.opened.retain(|at| now.saturating_sub(*at) < REGISTRATION_WINDOW);
        if contact.opened.len() >= REGISTRATIONS {
            return Err(Refusal::TooFast);
        }
        contact.opened.push(now);
        let session = ids.next();
        contact.session = Some(session);
        Ok(session)
    }

    /// Something was heard of a session; `false` when the session is over.
    pub fn heard(
        &mut self,
        node: NodeId,
        session: SessionId,
        view: &Snapshot,
        now: Duration,
    ) -> bool {
        if !self.is_current(node, session) {
            return false;
        }
        self.expect(node, now + heartbeat(view) * defaults::HEARTBEAT_GRACE);
        true
    }

    /// Whether a session is the node's latest.
    #[must_use]
    pub fn is_current(&self, node: NodeId, session: SessionId) -> bool {
        self.nodes.get(&node).is_some_and(|contact| contact.session == Some(session))
    }

    /// A node said goodbye: it is due at once.
    pub fn goodbye(&mut self, node: NodeId, session: SessionId, now: Duration) {
        if self.is_current(node, session) {
            self.expect(node, now);
        }
    }

    /// The nodes that have been silent for too long. Their sessions are over.
    fn expire(&mut self, now: Duration) -> Vec<NodeId> {
        let mut silent = Vec::new();
        while let Some(&(deadline, node)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            self.nodes.remove(&node);
            silent.push(node);
        }
        silent
    }

    /// Nobody's silence means anything: every node is given time to be heard.
    fn forgive(&mut self, view: &Snapshot, now: Duration) {
        let patience = heartbeat(view) * defaults::HEARTBEAT_GRACE;
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.expect(node, now + patience);
        }
    }

    /// Plans the next look at the deadlines: at the first of them, and once in every heartbeat
    /// period, so that a shorter period counts at once.
    #[must_use]
    pub fn next_look(&self, view: &Snapshot, now: Duration) -> Look {
        let period = heartbeat(view);
        let pause = self.next_deadline().map_or(period, |at| at.saturating_sub(now)).min(period);
        Look { planned_at: now, pause }
    }

    /// Looks at the deadlines: the nodes that have been silent for too long. `None` when this manager
    /// was paused since it planned to look, as a stopped process is: then every node is given time to
    /// be heard. (While a machine is suspended, this clock stands still.)
    pub fn look(&mut self, planned: &Look, view: &Snapshot, now: Duration) -> Option<Vec<NodeId>> {
        let late = now.saturating_sub(planned.planned_at).saturating_sub(planned.pause);
        if late > heartbeat(view) {
            self.forgive(view, now);
            return None;
        }
        Some(self.expire(now))
    }

    /// The store did not take the news that a node is silent: it is due again at `at`, unless it
    /// opened a session meanwhile.
    pub fn retry(&mut self, node: NodeId, at: Duration) {
        if !self.nodes.contains_key(&node) {
            self.expect(node, at);
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    fn expect(&mut self, node: NodeId, deadline: Duration) -> &mut Contact {
        let contact = self.nodes.entry(node).or_insert(Contact {
            session: None,
            deadline,
            opened: Vec::new(),
        });
        self.deadlines.remove(&(contact.deadline, node));
        self.deadlines.insert((deadline, node));
        contact.deadline = deadline;
        contact
    }
}

/// The node as it is once its session is open.
#[must_use]
pub fn ready(node: &Node, description: NodeDescription, addr: &str) -> Option<Change> {
    let addr = if addr.is_empty() { node.status.addr.clone() } else { addr.to_owned() };
    let status = NodeStatus { state: NodeState::Ready, addr, ..NodeStatus::default() };
    let description = Some(description);
    if node.status == status && node.description == description {
        return None;
    }
    Some(Change::update(Node { status, description, ..node.clone() }))
}

/// The node as it is once it has been silent for too long.
#[must_use]
pub fn down(node: &Node, now: Timestamp, why: &str) -> Option<Change> {
    if node.status.state == NodeState::Down {
        return None;
    }
    let mut node = node.clone();
    node.status.state = NodeState::Down;
    node.status.message = why.to_owned();
    node.status.down_since = Some(now);
    Some(Change::update(node))
}

/// What a node's report makes of the store: only its own tasks, only states that are an agent's
/// to report, and nothing that the store knows already.
#[must_use]
pub fn advances(view: &Snapshot, node: NodeId, statuses: Vec<(TaskId, TaskStatus)>) -> Vec<Change> {
    let own = |id: &TaskId, status: &TaskStatus| {
        let task = view.tasks.get(*id)?;
        let news = task.status.state.may_become(status.state)
            || (task.status.state == status.state && task.status != *status);
        (task.node_id == Some(node) && status.state > TaskState::Assigned && news).then_some(())
    };
    statuses
        .into_iter()
        .map(|(id, status)| (id, clipped(status)))
        .filter(|(id, status)| own(id, status).is_some())
        .map(|(id, status)| Change::Advance(id, Box::new(status)))
        .collect()
}

/// A report with words of any length would be too large to be written, for ever.
fn clipped(mut status: TaskStatus) -> TaskStatus {
    let clip = |text: &str| {
        let end = (0..=LONGEST_WORDS).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        (text.len() > LONGEST_WORDS).then(|| format!("{}…", &text[..end]))
    };
    if let Some(clipped) = clip(&status.message) {
        status.message = clipped.into();
    }
    if let Some(clipped) = clip(&status.err) {
        status.err = clipped;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_core::model::Task;
    use swarm_core::store::Object;

    const T0: Duration = Duration::from_secs(1_000);

    fn after(secs: u64) -> Duration {
        T0 + Duration::from_secs(secs)
    }

    fn view(nodes: &[Node]) -> Snapshot {
        Snapshot::from_objects(Default::default(), nodes.iter().cloned().map(Object::from))
    }

    fn node(ids: &mut IdSource, state: NodeState) -> Node {
        let mut node = Node { id: ids.next(), ..Default::default() };
        node.status.state = state;
        node
    }

    #[test]
    fn silence_for_three_heartbeats_ends_a_session_and_a_heartbeat_keeps_it() {
        let mut ids = IdSource::seeded(1);
        let node = node(&mut ids, NodeState::Down);
        let view = view(std::slice::from_ref(&node));
        let mut dispatcher = Dispatcher::new(&view, T0);
        let session = dispatcher.open(node.id, &view, T0, &mut ids).unwrap();
        assert_eq!(dispatcher.expire(after(14)), []);
        assert!(dispatcher.heard(node.id, session, &view, after(14)));
        assert_eq!(dispatcher.expire(after(28)), []);
        assert_eq!(dispatcher.expire(after(29)), [node.id]);
        assert!(!dispatcher.heard(node.id, session, &view, after(30)));
    }

    /// An agent whose manager died, just before a heartbeat, and that tries another dead one first.
    #[test]
    fn there_is_time_to_try_another_manager_before_a_node_is_taken_for_down() {
        use swarm_runtime::agent::backoff::{Backoff, PATIENCE};
        let period = heartbeat(&view(&[]));
        let pauses = Backoff::longest_after(0) + Backoff::longest_after(1);
        assert!(period + pauses + PATIENCE < period * defaults::HEARTBEAT_GRACE);
    }

    #[test]
    fn a_new_leader_is_patient_with_nodes_that_were_up() {
        let mut ids = IdSource::seeded(1);
        let up = node(&mut ids, NodeState::Ready);
        let gone = node(&mut ids, NodeState::Down);
        let mut dispatcher = Dispatcher::new(&view(&[up.clone(), gone]), T0);
        assert_eq!(dispatcher.next_deadline(), Some(after(30)));
        assert_eq!(dispatcher.expire(after(29)), []);
        assert_eq!(dispatcher.expire(after(30)), [up.id]);
    }

    #[test]
    fn nobody_is_silent_for_a_manager_that_was_paused() {
        let mut ids = IdSource::seeded(1);
        let node = node(&mut ids, NodeState::Ready);
        let view = view(std::slice::from_ref(&node));
        let mut dispatcher = Dispatcher::new(&view, T0);
        let session = dispatcher.open(node.id, &view, T0, &mut ids).unwrap();
        let planned = dispatcher.next_look(&view, T0);
        assert_eq!(planned.pause, Duration::from_secs(5));
        assert_eq!(dispatcher.look(&planned, &view, after(100)), None);
        let planned = dispatcher.next_look(&view, after(112));
        assert_eq!(planned.pause, Duration::from_secs(3));
        assert_eq!(dispatcher.look(&planned, &view, after(114)), Some(Vec::new()));
        assert!(dispatcher.is_current(node.id, session), "its session goes on");
        assert_eq!(dispatcher.expire(after(115)), [node.id]);
    }

    #[test]
    fn the_latest_session_of_a_node_counts_and_a_storm_of_them_is_refused() {
        let mut ids = IdSource::seeded(1);
        let node = node(&mut ids, NodeState::Ready);
        let view = view(std::slice::from_ref(&node));
        let mut dispatcher = Dispatcher::new(&view, T0);
        let first = dispatcher.open(node.id, &view, T0, &mut ids).unwrap();
        let second = dispatcher.open(node.id, &view, T0, &mut ids).unwrap();
        assert!(!dispatcher.heard(node.id, first, &view, T0));
        assert!(dispatcher.heard(node.id, second, &view, T0));
        dispatcher.open(node.id, &view, after(1), &mut ids).unwrap();
        let fourth = dispatcher.open(node.id, &view, after(2), &mut ids);
        assert_eq!(fourth, Err(Refusal::TooFast));
        assert!(dispatcher.open(node.id, &view, after(9), &mut ids).is_ok());
        let stranger = dispatcher.open(ids.next(), &view, T0, &mut ids);
        assert_eq!(stranger, Err(Refusal::UnknownNode));
    }

    #[test]
    fn a_node_reports_its_own_tasks_only_and_never_backward() {
        let mut ids = IdSource::seeded(1);
        let (mine, other): (NodeId, NodeId) = (ids.next(), ids.next());
        let mut task = |node, state| {
            let mut task = Task { id: ids.next(), node_id: Some(node), ..Default::default() };
            task.status.state = state;
            task
        };
        let own = task(mine, TaskState::Assigned);
        let ahead = task(mine, TaskState::Running);
        let foreign = task(other, TaskState::Assigned);
        let view = Snapshot::from_objects(
            Default::default(),
            [&own, &ahead, &foreign].map(|task| Object::from(task.clone())),
        );
        let status = TaskStatus::new(TaskState::Preparing, Timestamp::ZERO, "preparing");
        let reports = [&own, &ahead, &foreign].map(|task| (task.id, status.clone()));
        let changes = advances(&view, mine, reports.to_vec());
        assert_eq!(changes, [Change::Advance(own.id, Box::new(status.clone()))]);
        // What is reported in too many words is kept short, or no entry of the log would hold it.
        let err = "é".repeat(LONGEST_WORDS);
        let wordy = TaskStatus { err, ..status };
        let changes = advances(&view, mine, vec![(own.id, wordy)]);
        let Change::Advance(_, kept) = &changes[0] else { panic!("{changes:?}") };
        assert_eq!(kept.err, format!("{}…", "é".repeat(LONGEST_WORDS / 2)));
    }
}
