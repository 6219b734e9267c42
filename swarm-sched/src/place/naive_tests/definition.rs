//! What placement is, said once and slowly: the definition that the scheduler is held against.
//!
//! Every task looks at every node, and every node is added up from its tasks each time. Nothing is
//! remembered, and nothing is shared with what is checked: not the filters, not what a node carries,
//! not the strategies, not the texts. What they are stands in SwarmKit (`manager/scheduler`), what is
//! ours in `docs/scheduling.md`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_core::model::*;
use swarm_core::scheduler::Overcommit;
use swarm_core::store::Snapshot;
use swarm_core::time::Timestamp;

use super::filters::{At, is_label, label, mounts, wanted};
use super::near::{self, Affinity};
use super::ranks::{STRATEGIES, rank};

/// The filters, in SwarmKit's order, ours last.
pub(super) const FILTERS: [&str; 9] = [
    "ready",
    "resource",
    "plugin",
    "constraint",
    "platform",
    "host port",
    "max replicas",
    "volume",
    "affinity",
];

/// All that placement looks at.
pub(super) struct Cluster {
    nodes: Vec<Arc<Node>>,
    tasks: Vec<Arc<Task>>,
    services: Vec<Arc<Service>>,
    networks: Vec<Arc<Network>>,
    strategy: Option<String>,
    now: Timestamp,
    overcommit: Overcommit,
}

/// What a task sees of a node.
pub(super) struct Look<'a> {
    pub(super) at: At<'a>,
    /// Which filters it passes.
    passes: [bool; FILTERS.len()],
    /// The tasks of the service there.
    own: i128,
    /// How often the service failed there lately.
    pub(super) failures: i128,
    rank: Vec<i128>,
}

/// How a task sees every node, and the label that bounds its service with the skew; or what of its
/// wishes cannot be read.
pub(super) type Looks<'a> = Result<(Vec<Look<'a>>, Option<(String, u64)>), String>;

/// A node with what is claimed there, or why there is none.
pub(super) type Decision = Result<(NodeId, Vec<GenericResource>), String>;

impl Look<'_> {
    /// The first filter that it does not pass.
    pub(super) fn refused(&self) -> Option<usize> {
        self.passes.iter().position(|passes| !passes)
    }

    /// Whether it would suit, had it other tasks.
    fn suits(&self) -> bool {
        let by_itself = ["ready", "plugin", "constraint", "platform", "volume"];
        let mut all = FILTERS.into_iter().zip(self.passes);
        all.all(|(filter, passes)| passes || !by_itself.contains(&filter))
    }
}

impl Cluster {
    pub(super) fn of(view: &Snapshot, now: Timestamp, overcommit: Overcommit) -> Self {
        let strategy = view.cluster().and_then(|it| it.spec.labels.get("swarm.strategy").cloned());
        Self {
            nodes: view.nodes.iter().cloned().collect(),
            tasks: view.tasks.iter().cloned().collect(),
            services: view.services.iter().cloned().collect(),
            networks: view.networks.iter().cloned().collect(),
            strategy,
            now,
            overcommit,
        }
    }

    /// The tasks that wait, in the order in which they get their nodes: those that matter more first,
    /// then service by service, version by version, global ones first, by slot.
    pub(super) fn waiting(&self) -> Vec<TaskId> {
        let waits = |task: &&Task| {
            let known = task.service_id.is_nil() || self.service(task).is_some();
            task.status.state == TaskState::Pending && wanted(task) && !promised(task) && known
        };
        let mut tasks: Vec<_> = self.tasks().filter(waits).collect();
        tasks.sort_by_key(|task| {
            let priority = self.label(task, "swarm.priority").and_then(|text| text.parse().ok());
            let group = (Reverse(priority.unwrap_or(0_i32)), task.service_id, task.spec_version);
            (group, task.node_id.is_none(), task.slot, task.node_id, task.id)
        });
        tasks.iter().map(|task| task.id).collect()
    }

    /// The strategy that a task is placed by.
    pub(super) fn strategy(&self, task: &Task) -> &str {
        let default = self.strategy.as_deref().unwrap_or("spread");
        self.label(task, "swarm.strategy").unwrap_or(default)
    }

    pub(super) fn looks(&self, task: &Task) -> Looks<'_> {
        let strategy = self.strategy(task);
        if !STRATEGIES.contains(&strategy) {
            return Err(format!("there is no placement strategy {strategy:?}"));
        }
        let near = near::read(task, self.label(task, "swarm.affinity"))?;
        let priority = self.label(task, "swarm.priority");
        if let Some(text) = priority.filter(|text| text.parse::<i32>().is_err()) {
            let expected = "a whole number is expected";
            return Err(format!("swarm.priority={text} cannot be read: {expected}"));
        }
        let bound = self.label(task, "swarm.topology").map(|text| {
            let (label, skew) = text.rsplit_once(':').unwrap_or((text, "1"));
            let bound = skew.parse().ok().map(|skew| (label.to_owned(), skew));
            let bound = bound.filter(|(label, skew): &(_, u64)| is_label(label) && *skew > 0);
            let unreadable = "cannot be read: LABEL:SKEW is expected";
            bound.ok_or_else(|| format!("swarm.topology={text} {unreadable}"))
        });
        let looks = self.nodes.iter().map(|node| self.look(task, node, &near, strategy));
        Ok((looks.collect(), bound.transpose()?))
    }

    fn look<'a>(
        &'a self,
        task: &Task,
        node: &'a Node,
        near: &[Affinity],
        strategy: &str,
    ) -> Look<'a> {
        let at = self.at(node);
        let own = at.count(|other| other.service_id == task.service_id);
        let failures = self.failures(task, node.id);
        let misses =
            |soft| near.iter().filter(|it| it.soft == soft && !it.holds(self, &at)).count();
        let placement = task.spec.placement.as_ref().unwrap();
        let passes = [
            at.is_ready(),
            at.fits(task),
            at.has_plugins(task, &self.networks),
            at.meets(&placement.constraints),
            at.runs(&placement.platforms),
            at.has_ports(task),
            placement.max_replicas == 0 || own < i128::from(placement.max_replicas),
            mounts(task).all(|mount| mount.kind != MountType::Cluster),
            misses(false) == 0,
        ];
        let mut rank = rank(strategy, task, &at, failures);
        rank.insert(0, misses(true) as i128);
        Look { at, passes, own, failures, rank }
    }

    /// A node with the tasks that take something from it: placed and not ended, or promised.
    fn at<'a>(&'a self, node: &'a Node) -> At<'a> {
        let takes = |task: &&Task| {
            let state = task.status.state;
            let placed = state >= TaskState::Assigned && state <= TaskState::Running;
            task.node_id == Some(node.id) && (placed || promised(task))
        };
        let tasks = self.tasks().filter(takes).collect();
        At { node, tasks, overcommit: self.overcommit }
    }

    /// Where a task goes. One with a node is global: it goes there or nowhere.
    pub(super) fn decide(&self, task: &Task, looks: &Looks<'_>) -> Decision {
        let (looks, bound) = looks.as_ref().map_err(Clone::clone)?;
        let claims = |look: &Look<'_>| (look.at.node.id, look.at.claims(task).unwrap());
        if let Some(node) = task.node_id {
            let look = looks.iter().find(|look| look.at.node.id == node);
            let look = look.ok_or("no suitable node")?;
            return match look.refused() {
                None => Ok(claims(look)),
                Some(filter) => Err(words(filter, 1)),
            };
        }
        let bounds = bound.iter().map(|(label, skew)| (label.as_str(), Some(*skew)));
        let wishes = task.spec.placement.iter().flat_map(|placement| &placement.preferences);
        let wishes = wishes.filter_map(|wish| Some((&*wish.spread.as_ref()?.descriptor, None)));
        let levels: Vec<_> = bounds.chain(wishes).collect();
        if let Some(look) = choose(looks.iter().collect(), &levels) {
            return Ok(claims(look));
        }
        let mut counts = [0; FILTERS.len()];
        looks.iter().filter_map(Look::refused).for_each(|filter| counts[filter] += 1);
        Err(match bound {
            // What one node at least does not refuse, and yet it is not chosen.
            Some((label, skew)) if counts.iter().sum::<usize>() < looks.len() => {
                format!("no suitable node (a skew of {skew} over {label} would be exceeded)")
            }
            _ if looks.is_empty() => "no suitable node".to_owned(),
            _ => format!("no suitable node ({})", reasons(counts)),
        })
    }

    /// Writes down where a task went.
    pub(super) fn settle(&mut self, task: TaskId, node: NodeId, claims: Vec<GenericResource>) {
        let task = Arc::make_mut(self.tasks.iter_mut().find(|it| it.id == task).unwrap());
        (task.node_id, task.generic_resources) = (Some(node), claims);
        task.status.state = TaskState::Assigned;
    }

    pub(super) fn task(&self, id: TaskId) -> &Task {
        self.tasks().find(|task| task.id == id).unwrap()
    }

    pub(super) fn service(&self, task: &Task) -> Option<&Service> {
        let mut services = self.services.iter().map(|it| &**it);
        services.find(|service| service.id == task.service_id)
    }

    fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().map(|task| &**task)
    }

    fn label(&self, task: &Task, name: &str) -> Option<&str> {
        self.service(task)?.spec.labels.get(name).map(String::as_str)
    }

    /// Failures of this version of the service on a node within five minutes. One that several tasks
    /// of a slot tell of is one.
    fn failures(&self, task: &Task, node: NodeId) -> i128 {
        let mut known = BTreeSet::new();
        let same =
            |it: &&Task| it.service_id == task.service_id && it.spec_version == task.spec_version;
        for other in self.tasks().filter(same) {
            if matches!(other.status.state, TaskState::Failed | TaskState::Rejected)
                && other.node_id == Some(node)
            {
                known.insert((other.slot, other.ended_at.unwrap_or(other.status.timestamp)));
            }
            for told in other.failures.iter().filter(|told| told.node_id == node) {
                known.extend(told.at.iter().map(|at| (other.slot, *at)));
            }
        }
        let age = |at: Timestamp| self.now.as_nanos() - at.as_nanos();
        known.iter().filter(|(_, at)| age(*at) <= 300_000_000_000).count() as i128
    }
}

fn promised(task: &Task) -> bool {
    task.status.state == TaskState::Pending && !task.room_from.is_empty() && wanted(task)
}

/// The best node that passes everything, in the branch of each level that has the fewest tasks of
/// the service and such a node at all. On a bounded level no branch gets so many more tasks than the
/// one with the fewest, of those that suit.
fn choose<'a, 'b>(
    looks: Vec<&'a Look<'b>>,
    levels: &[(&str, Option<u64>)],
) -> Option<&'a Look<'b>> {
    let Some(((name, skew), rest)) = levels.split_first() else {
        let suit = looks.into_iter().filter(|look| look.refused().is_none());
        return suit.min_by_key(|look| (&look.rank, look.at.node.id));
    };
    let mut branches: BTreeMap<&str, Vec<&Look<'_>>> = BTreeMap::new();
    for look in looks {
        branches.entry(label(look.at.node, name)).or_default().push(look);
    }
    let tasks = |branch: &[&Look<'_>]| branch.iter().map(|look| look.own).sum::<i128>();
    let suiting = branches.values().filter(|branch| branch.iter().any(|look| look.suits()));
    let fewest = suiting.map(|branch| tasks(branch)).min().unwrap_or(0);
    let mut branches: Vec<_> = branches.into_values().collect();
    branches.sort_by_key(|branch| tasks(branch));
    let mut allowed = branches
        .into_iter()
        .filter(|branch| skew.is_none_or(|skew| tasks(branch) + 1 - fewest <= i128::from(skew)));
    allowed.find_map(|branch| choose(branch, rest))
}

/// Why nodes were refused, the most frequent reason first.
fn reasons(counts: [usize; FILTERS.len()]) -> String {
    let mut counts: Vec<_> = counts.into_iter().enumerate().filter(|(_, it)| *it > 0).collect();
    counts.sort_by_key(|(filter, nodes)| (Reverse(*nodes), *filter));
    let texts: Vec<_> = counts.into_iter().map(|(filter, nodes)| words(filter, nodes)).collect();
    texts.join("; ")
}

fn words(filter: usize, nodes: usize) -> String {
    let nodes = if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
    match FILTERS[filter] {
        "ready" => format!("{nodes} not available for new tasks"),
        "resource" => format!("insufficient resources on {nodes}"),
        "plugin" => format!("missing plugin on {nodes}"),
        "constraint" => format!("scheduling constraints not satisfied on {nodes}"),
        "platform" => format!("unsupported platform on {nodes}"),
        "host port" => format!("host-mode port already in use on {nodes}"),
        "max replicas" => "max replicas per node limit exceed".to_owned(),
        "volume" => format!("cannot fulfill requested CSI volume mounts on {nodes}"),
        _ => format!("affinity not satisfied on {nodes}"),
    }
}
