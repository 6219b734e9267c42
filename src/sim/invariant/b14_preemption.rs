//! B14: who makes room for whom. Tasks stop for others only where the cluster allows it, and as many at
//! most as that says are on their way out together. Each matters less than the task that comes, and all
//! of them together no more; that task has their node, promised in the same commit, and is not there for
//! want of room that was taken for another. Of what is promised nothing is given away. At rest nobody
//! stops again for a slot for which others did, whatever fails again and again, so that there is an end
//! to it; and every promise is kept.
//!
//! A client may change a priority while a plan is on its way: what it was a moment ago counts as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{NodeId, Resources, Service, ServiceId, Task, TaskId, TaskState, Version};
use swarm_core::store::{Object, Snapshot};
use swarm_core::time::Timestamp;
use swarm_sched::place::PRIORITY_LABEL;

use super::{Invariant, PLAN_ON_ITS_WAY, Step, steps};
use crate::sim::World;

/// At rest, this is how long nobody has stopped again for a slot, and how old the youngest promise is.
const STILL: Duration = Duration::from_secs(240);

#[derive(Default)]
pub(super) struct Preemption {
    /// What each service's priority has been lately, and since when, by the true time.
    priorities: BTreeMap<ServiceId, Vec<(Timestamp, i64)>>,
    /// The slots, or nodes of global services, for whose tasks others were told to stop.
    served: BTreeSet<(ServiceId, Version, u64, Option<NodeId>)>,
    /// When that last happened for one for which it had happened before, by the true time.
    again: Option<Timestamp>,
}

impl Invariant for Preemption {
    fn name(&self) -> &'static str {
        "B14"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        steps(world).try_for_each(|step| self.check(world, &step))
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let state = world.state();
        let still = |at: Timestamp| world.now().since(at) >= STILL;
        for task in state.tasks.iter().filter(|task| task.is_promised() && still(task.updated_at)) {
            let there = task.room_from.iter().filter_map(|id| state.tasks.get(*id));
            if !there.into_iter().any(|task| occupies(task)) {
                return Err(format!("{} waits for nobody on a promised node", task.name()));
            }
        }
        match self.again.is_none_or(still) {
            true => Ok(()),
            false => Err("tasks still stop for others, again and again".to_owned()),
        }
    }
}

impl Preemption {
    fn check(&mut self, world: &World, step: &Step<'_>) -> Result<(), String> {
        let now = world.now();
        let (mut leaving, mut comes) = (BTreeMap::new(), Vec::new());
        for event in &step.commit.events {
            if let Some(Object::Service(service)) = &event.new {
                self.learn(service, now);
            }
            let (old, Some(new)) = (event.old_task(), event.new_task()) else { continue };
            let was = |is: fn(&Task) -> bool| old.is_some_and(|old| is(old));
            if new.preempted.is_some() && !was(|old| old.preempted.is_some()) {
                leaving.insert(new.id, (old.is_none_or(|old| old.is_wanted()), new));
            }
            if new.is_promised() && !was(Task::is_promised) {
                comes.push((old.is_some_and(|old| old.displaced) || new.displaced, new));
            }
            let placed = new.status.state == TaskState::Assigned
                && !was(|old| old.status.state >= TaskState::Assigned || old.is_promised());
            if placed {
                is_not_promised(step, new)?;
            }
        }
        if leaving.is_empty() && comes.is_empty() {
            return Ok(());
        }
        let Some(most) = world.script().preemption else {
            return Err("a task stops for another, unasked".to_owned());
        };
        let on_their_way = step.after.tasks.iter().filter(|task| is_leaving(task)).count();
        if on_their_way > most {
            return Err(format!("{on_their_way} tasks are on their way out, where {most} may be"));
        }
        for (displaced, task) in comes {
            if displaced {
                let name = task.name();
                return Err(format!("others stop for {name}, which comes after one that had to"));
            }
            let node = task.node_id.filter(|_| task.slot == 0);
            if !self.served.insert((task.service_id, task.spec_version, task.slot, node)) {
                self.again = Some(now);
            }
            self.make_room(step.after, task, &mut leaving, now)?;
        }
        match leaving.values().next() {
            Some((_, task)) => Err(format!("{} stops for no other", task.name())),
            None => Ok(()),
        }
    }

    /// Whether those who leave for a task may have to; takes them out of those who leave.
    fn make_room(
        &self,
        view: &Snapshot,
        task: &Task,
        leaving: &mut BTreeMap<TaskId, (bool, &Arc<Task>)>,
        now: Timestamp,
    ) -> Result<(), String> {
        let against = |why: &str| Err(format!("for {} {why}", task.name()));
        let (_, worth) = self.priority(task.service_id, now);
        let mut weight = 0;
        for id in &task.room_from {
            let Some((was_wanted, victim)) = leaving.remove(id) else {
                return against("one shall stop that was not told to");
            };
            let (least, _) = self.priority(victim.service_id, now);
            weight += least;
            if least >= worth {
                return against("one stops that does not matter less");
            }
            if !was_wanted || victim.is_wanted() || victim.node_id != task.node_id {
                return against("one stops that holds nothing there, or was stopping anyway");
            }
        }
        if weight > worth {
            return against("others stop that matter more together");
        }
        match task.node_id.is_some_and(|node| is_enough(view, node)) {
            true => Ok(()),
            false => against("others stop, and there is no room without them"),
        }
    }

    fn learn(&mut self, service: &Service, now: Timestamp) {
        let priority = service.spec.labels.get(PRIORITY_LABEL);
        let priority = priority.and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
        let known = self.priorities.entry(service.id).or_default();
        if known.last().is_none_or(|(_, last)| *last != i64::from(priority)) {
            known.push((now, i64::from(priority)));
        }
    }

    /// The lowest and the highest priority that a service had lately.
    fn priority(&self, service: ServiceId, now: Timestamp) -> (i64, i64) {
        let known = self.priorities.get(&service).map_or(&[][..], Vec::as_slice);
        let over = |at: Timestamp| now.since(at) > PLAN_ON_ITS_WAY;
        let old = known.iter().take_while(|(since, _)| over(*since)).count();
        let recent = known[old.saturating_sub(1)..].iter().map(|(_, priority)| *priority);
        (recent.clone().min().unwrap_or(0), recent.max().unwrap_or(0))
    }
}

fn occupies(task: &Task) -> bool {
    let placed = (TaskState::Assigned..=TaskState::Running).contains(&task.status.state);
    task.node_id.is_some() && (placed || task.is_promised())
}

fn is_leaving(task: &Task) -> bool {
    task.preempted.is_some() && occupies(task) && !task.is_wanted()
}

fn reserved(task: &Task) -> Option<&Resources> {
    task.spec.resources.as_ref()?.reservations.as_ref()
}

/// How much more of processors and memory a node has than some of its tasks take.
fn left<'a>(
    view: &'a Snapshot,
    node: NodeId,
    of: impl Fn(&Task) -> bool + 'a,
) -> Option<(i64, i64)> {
    let has = &view.nodes.get(node)?.description.as_ref()?.resources;
    let tasks = view.tasks_on(node).filter(|task| occupies(task) && of(task));
    Some(
        tasks
            .filter_map(|task| reserved(task))
            .fold((has.nano_cpus, has.memory_bytes), |(cpus, memory), took| {
                (cpus - took.nano_cpus, memory - took.memory_bytes)
            }),
    )
}

/// Whether a node suffices for all that shall stay or come.
fn is_enough(view: &Snapshot, node: NodeId) -> bool {
    left(view, node, Task::is_wanted).is_none_or(|(cpus, memory)| cpus >= 0 && memory >= 0)
}

/// Whether a task that was given a node takes there nothing of what was promised to another.
fn is_not_promised(step: &Step<'_>, task: &Task) -> Result<(), String> {
    let before = &step.entry.before;
    let promised = |node: &NodeId| before.tasks_on(*node).any(|other| other.is_promised());
    let (Some(node), Some(takes)) = (task.node_id.filter(promised), reserved(task)) else {
        return Ok(());
    };
    // Others may have been promised what is there in the same commit, after that.
    let was_promised = |other: &Task| before.tasks.get(other.id).is_some_and(|it| it.is_promised());
    let counts = |other: &Task| !other.is_promised() || was_promised(other);
    let Some((cpus, memory)) = left(step.after, node, counts) else { return Ok(()) };
    match (takes.nano_cpus == 0 || cpus >= 0) && (takes.memory_bytes == 0 || memory >= 0) {
        true => Ok(()),
        false => Err(format!("{} is given room that is promised to another", task.name())),
    }
}
