//! B1: observed and desired states never go back, and each has its writer: planners up to `assigned`
//! and for what they give up, agents from `accepted` on; planners alone say what is desired.
//!
//! Of B2: the node of a task never changes once it has one, and a task without one never ran.

use swarm_core::model::{Task, TaskState};

use super::{Invariant, steps};
use crate::sim::World;
use crate::sim::consensus::Author;

pub(super) struct States;

impl Invariant for States {
    fn name(&self) -> &'static str {
        "B1"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            for event in &step.commit.events {
                let (Some(old), Some(new)) = (event.old_task(), event.new_task()) else { continue };
                if let Err(why) = moved(old, new, step.entry.author) {
                    return Err(format!(
                        "entry {}: {:?} make {} {}/{} of {}/{}: {why}",
                        step.entry.index,
                        step.entry.author,
                        new.name(),
                        new.desired_state,
                        new.status.state,
                        old.desired_state,
                        old.status.state
                    ));
                }
            }
        }
        Ok(())
    }
}

fn moved(old: &Task, new: &Task, author: Author) -> Result<(), &'static str> {
    let (from, to) = (old.status.state, new.status.state);
    if from != to && !from.may_become(to) {
        return Err("it goes back");
    }
    let given_up = matches!(to, TaskState::Orphaned | TaskState::Rejected);
    let legal = match author {
        Author::Planners => to <= TaskState::Assigned || given_up,
        Author::Dispatcher => to > TaskState::Assigned,
        Author::Client => to == TaskState::Orphaned,
    };
    if from != to && !legal {
        return Err("that is another's to say");
    }
    if new.desired_state < old.desired_state {
        return Err("what is desired goes back");
    }
    if new.desired_state != old.desired_state && author == Author::Dispatcher {
        return Err("an agent does not say what is desired");
    }
    if old.node_id.is_some() && new.node_id != old.node_id {
        return Err("its node changes");
    }
    if new.node_id.is_none() && (TaskState::Assigned..=TaskState::Running).contains(&to) {
        return Err("it has no node");
    }
    Ok(())
}
