//! Plans that are no larger than the store takes.

use swarm_core::control::{Ctx, Key, Planner};
use swarm_core::model::*;
use swarm_core::store::{Change, Epoch};

use super::Place;
use crate::allocate::Allocate;
use crate::cluster::{Whole, replicas};

/// Asks again for as long as it is asked for; how many changes each plan has.
fn sizes(whole: &mut Whole, planner: &dyn Planner, key: Key) -> Vec<usize> {
    let mut sizes = Vec::new();
    for _ in 0..100 {
        let (view, now) = (whole.view(), whole.now);
        let mut ctx = Ctx { room: 3, ..Ctx::new(now, &mut whole.ids, Epoch(1)) };
        let plan = planner.plan(&view, &key, &mut ctx);
        sizes.push(plan.changes.len());
        whole.write(plan.changes);
        if plan.again_at != Some(now) {
            return sizes;
        }
    }
    panic!("it never comes to an end");
}

#[test]
fn tasks_are_refused_and_placed_as_many_at_a_time_as_there_is_room_for() {
    let mut whole = Whole::new();
    let service = whole.create("ten", |spec| replicas(spec, 10));
    let waiting = |whole: &Whole, text: &str| {
        whole.view().tasks_of(service).filter(|task| task.status.err == text).count()
    };
    assert_eq!(waiting(&whole, "no suitable node"), 10);
    let pause = |node: &mut Node| node.spec.availability = Availability::Pause;
    let node = whole.node("a", pause);
    assert_eq!(sizes(&mut whole, &Place::default(), Key::Cluster), [3, 3, 3, 1]);
    let text = "no suitable node (1 node not available for new tasks)";
    assert_eq!(waiting(&whole, text), 10);
    let mut node = Node::clone(whole.view().nodes.get(node).unwrap());
    node.spec.availability = Availability::Active;
    whole.write(vec![Change::update(node)]);
    assert_eq!(sizes(&mut whole, &Place::default(), Key::Service(service)), [3, 3, 3, 1]);
    assert_eq!(whole.places(service).len(), 10);
}

#[test]
fn tasks_are_allocated_as_many_at_a_time_as_there_is_room_for() {
    let mut whole = Whole::new();
    let service = whole.proposal("ten", |spec| replicas(spec, 10));
    let task = |whole: &mut Whole, slot| {
        let (id, service_id) = (whole.ids.next(), service.id);
        let spec = service.spec.task.clone();
        let desired_state = TaskState::Running;
        Change::create(Task { id, service_id, slot, spec, desired_state, ..Task::default() })
    };
    let id = service.id;
    let tasks: Vec<_> = (1..=10).map(|slot| task(&mut whole, slot)).collect();
    whole.commit(service);
    whole.write(tasks);
    assert_eq!(sizes(&mut whole, &Allocate::default(), Key::Service(id)).iter().max(), Some(&3));
    let pending = |task: &&std::sync::Arc<Task>| task.status.state == TaskState::Pending;
    assert_eq!(whole.view().tasks_of(id).filter(pending).count(), 10);
}
