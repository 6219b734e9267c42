//! Pure: what happened since the proposal was written, and the report that comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_core::model::{
    NodeId, Service, ServiceId, ServiceMode, Task, TaskId, TaskState, UpdateState, defaults,
};
use swarm_core::store::{Event, Object, Snapshot};
use swarm_core::time::Timestamp;

use super::report::{Batch, Placement, Refused, Report, Stopped};
use crate::orchestrate;

/// What happened, in order.
#[derive(Default)]
pub(super) struct Log {
    /// The state that the proposal met.
    before: Snapshot,
    began: Timestamp,
    pub(super) commits: usize,
    batches: Vec<Batch>,
    batch: Batch,
    /// The batch in which each task got its node.
    placed: BTreeMap<TaskId, usize>,
    /// Told to stop, and in which batch.
    stopped: Vec<(Arc<Task>, usize)>,
    /// Where new tasks were made: in which slots, and for which nodes.
    made: BTreeSet<(ServiceId, u64, Option<NodeId>)>,
    touched: BTreeSet<TaskId>,
    /// The roll-out that there was.
    rolled: Option<UpdateState>,
}

impl Log {
    pub(super) fn new(before: &Snapshot, began: Timestamp) -> Self {
        Self { before: before.clone(), began, ..Self::default() }
    }

    /// Every task that something happened to.
    pub(super) fn touched(&self) -> &BTreeSet<TaskId> {
        &self.touched
    }

    pub(super) fn note(&mut self, event: &Event) {
        if let Some(Object::Service(service)) = &event.new
            && let Some(status) = &service.update_status
            && matches!(status.state, UpdateState::Updating | UpdateState::RollbackStarted)
        {
            self.rolled = Some(status.state);
        }
        let Object::Task(task) = event.object() else { return };
        let (old, new) = (event.old_task(), event.new_task());
        self.touched.insert(task.id);
        let number = self.batches.len() + 1;
        if old.is_none() {
            self.made.insert((task.service_id, task.slot, None));
            self.made.insert((task.service_id, task.slot, task.node_id));
        }
        let was_wanted = old.is_some_and(|old| old.is_wanted() && !old.status.state.is_terminal());
        if was_wanted && new.is_none_or(|new| !new.is_wanted()) {
            self.batch.stopped += 1;
            self.stopped.push((task.clone(), number));
        }
        let waits = |task: &Arc<Task>| task.status.state < TaskState::Assigned;
        let Some(new) = new.filter(|_| old.is_none_or(waits)) else { return };
        if !waits(new) {
            self.batch.placed += 1;
            self.placed.insert(new.id, number);
        } else if new.is_wanted() && !new.status.err.is_empty() {
            self.batch.refused += 1;
        }
    }

    /// What was noted since the last time happened together. The first batch is there in any case:
    /// it is what happens before any agent has answered.
    pub(super) fn close_batch(&mut self, now: Timestamp) {
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() || self.batches.is_empty() {
            self.batches.push(Batch { after: now.since(self.began).into(), ..batch });
        }
    }

    pub(super) fn report(self, view: &Snapshot, id: ServiceId, complete: bool) -> Report {
        let Some(service) = view.services.get(id) else {
            return Report { complete, commits: self.commits, ..Report::default() };
        };
        let mut report = Report {
            service: service.spec.name.clone(),
            stalled: service.stalled.clone(),
            update: self.update(service),
            update_status: service.update_status.clone().filter(|_| self.rolled.is_some()),
            commits: self.commits,
            complete,
            ..Report::default()
        };
        self.tasks(view, service, &mut report);
        for refused in &report.refused {
            *report.reasons.entry(refused.why.clone()).or_default() += 1;
        }
        report.stopped = self.stopped.iter().map(|stop| self.stop(view, stop)).collect();
        report.to_follow = to_follow(view, service);
        report.batches = self.batches;
        report
    }

    fn update(&self, service: &Service) -> Option<swarm_core::model::UpdateConfig> {
        let config = match self.rolled? {
            UpdateState::Updating => &service.spec.update_config,
            _ => &service.spec.rollback_config,
        };
        Some(config.clone().unwrap_or_else(defaults::update_config))
    }

    /// Where the tasks are in the end that shall run: all of the service, and of others those that
    /// something happened to.
    fn tasks(&self, view: &Snapshot, service: &Service, report: &mut Report) {
        let mut own: Vec<_> = view.tasks_of(service.id).collect();
        own.sort_by_key(|task| (task.slot, task.node_id, task.created_at));
        let others = self.touched.iter().filter_map(|id| view.tasks.get(*id));
        let others = others.filter(|task| task.service_id != service.id);
        let open = |task: &&Arc<Task>| task.is_wanted() && !task.status.state.is_terminal();
        for task in own.into_iter().chain(others).filter(open) {
            let is_own = task.service_id == service.id;
            match (self.placement(view, task), is_own) {
                (Some(placement), true) => report.placements.push(placement),
                (Some(placement), false) if placement.batch > 0 => report.others.push(placement),
                (Some(_), false) => {}
                (None, _) => report.refused.push(Refused {
                    service: name_of(view, task),
                    slot: task.slot,
                    node_id: task.node_id,
                    why: why_it_waits(task),
                }),
            }
        }
    }

    fn placement(&self, view: &Snapshot, task: &Task) -> Option<Placement> {
        let node_id = task.node_id.filter(|_| task.status.state >= TaskState::Assigned)?;
        Some(Placement {
            service: name_of(view, task),
            slot: task.slot,
            node_id,
            node: name_of_node(view, node_id),
            task_id: self.before.tasks.get(task.id).map(|task| task.id),
            up_to_date: orchestrate::is_up_to_date(view, task),
            batch: self.placed.get(&task.id).copied().unwrap_or(0),
        })
    }

    fn stop(&self, view: &Snapshot, (task, batch): &(Arc<Task>, usize)) -> Stopped {
        let why = match task.preempted.as_ref().or(task.eviction.as_ref()) {
            Some(why) => why.as_str(),
            None if self.made.contains(&place(view, task)) => "replaced by a new task",
            None => "no longer asked for",
        };
        Stopped {
            service: name_of(view, task),
            slot: task.slot,
            node_id: task.node_id,
            node: task.node_id.map(|node| name_of_node(view, node)).unwrap_or_default(),
            task_id: task.id,
            why: why.to_owned(),
            batch: *batch,
        }
    }
}

/// What a task stands for: of a service the slot, or in the global modes the node.
fn place(view: &Snapshot, task: &Task) -> (ServiceId, u64, Option<NodeId>) {
    let service = view.services.get(task.service_id);
    let global = service.is_some_and(|service| service.spec.mode.is_global());
    (task.service_id, task.slot, task.node_id.filter(|_| global))
}

fn name_of(view: &Snapshot, task: &Task) -> String {
    let service = view.services.get(task.service_id);
    service.map_or(&task.annotations.name, |service| &service.spec.name).clone()
}

fn name_of_node(view: &Snapshot, node: NodeId) -> String {
    let known = view.nodes.get(node);
    known.map_or_else(|| node.to_string(), |node| node.display_name().to_owned())
}

fn why_it_waits(task: &Task) -> String {
    match &task.status.err {
        none if none.is_empty() => task.status.message.to_string(),
        err => err.clone(),
    }
}

/// Completions of the present run for which there is no task yet.
fn to_follow(view: &Snapshot, service: &Service) -> u64 {
    let ServiceMode::ReplicatedJob(job) = &service.spec.mode else { return 0 };
    let run = service.job_iteration();
    let counts = |task: &&Arc<Task>| task.job_iteration == run && task.is_wanted();
    let begun = view.tasks_of(service.id).filter(counts).count();
    job.total_completions().saturating_sub(u64::try_from(begun).unwrap_or(u64::MAX))
}
