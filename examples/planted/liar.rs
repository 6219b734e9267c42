//! A planner that is lied to, or whose plan is altered.

use std::sync::Arc;

use swarm::core::control::{Ctx, Key, Plan, Planner};
use swarm::core::model::{Cluster, Node, Service, Task};
use swarm::core::store::{Change, Event, Object, Snapshot};
use swarm::core::time::Timestamp;

/// What is wrong.
#[derive(Clone, Copy)]
pub(crate) enum Lie {
    /// The planner sees a cluster with settings that are not so.
    Cluster(fn(&mut Cluster)),
    /// The planner sees services that are not so.
    Services(fn(&mut Service)),
    /// The planner sees tasks that are not so.
    Tasks(fn(&mut Task)),
    /// The planner sees nodes that are not so.
    Nodes(fn(&mut Node)),
    /// The plan is altered.
    Plan(fn(&Snapshot, &mut Plan, &mut Ctx<'_>)),
}

/// A planner around another one.
pub(crate) struct Liar {
    pub(crate) inner: Arc<dyn Planner>,
    pub(crate) lie: Lie,
}

impl Planner for Liar {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        self.inner.dirty(event, keys);
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        self.inner.keys(view, keys);
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let shown = shown(self.lie, view);
        let mut plan = self.inner.plan(&shown, key, ctx);
        for change in &mut plan.changes {
            unlie(change, &shown, view);
        }
        if let Lie::Plan(alter) = self.lie {
            alter(view, &mut plan, ctx);
        }
        plan
    }
}

/// The view with the lie in it.
fn shown(lie: Lie, view: &Snapshot) -> Snapshot {
    let mut shown = view.clone();
    let objects: Vec<Object> = match lie {
        Lie::Cluster(edit) => edited(view.clusters.iter(), edit),
        Lie::Services(edit) => edited(view.services.iter(), edit),
        Lie::Tasks(edit) => edited(view.tasks.iter(), edit),
        Lie::Nodes(edit) => edited(view.nodes.iter(), edit),
        Lie::Plan(_) => Vec::new(),
    };
    for object in objects {
        // Nobody asks whether what is may become what it is said to be; only whether there is room
        // for both where a name is another's by now.
        let truth = shown.get(object.id()).expect("what is edited is there");
        let gone = Change::Remove(object.id(), None);
        shown.stage(gone, Timestamp::ZERO).expect("what is there can be taken away");
        if shown.stage(Change::Create(object), Timestamp::ZERO).is_err() {
            shown.stage(Change::Create(truth), Timestamp::ZERO).expect("it was there before");
        }
    }
    shown
}

fn edited<'a, T>(objects: impl Iterator<Item = &'a Arc<T>>, edit: fn(&mut T)) -> Vec<Object>
where
    T: Clone + PartialEq + Into<Object> + 'a,
{
    let edited = objects.filter_map(|object| {
        let mut new = T::clone(object);
        edit(&mut new);
        (new != **object).then(|| new.into())
    });
    edited.collect()
}

/// What a plan carries along of a lie is put right: the bug is in the decision alone.
fn unlie(change: &mut Change, shown: &Snapshot, view: &Snapshot) {
    match change {
        Change::Update(Object::Service(service)) => {
            let (Some(lie), Some(truth)) =
                (shown.services.get(service.id), view.services.get(service.id))
            else {
                return;
            };
            let service = Arc::make_mut(service);
            if service.spec == lie.spec {
                service.spec = truth.spec.clone();
            }
            if service.endpoint == lie.endpoint {
                service.endpoint = truth.endpoint.clone();
            }
            if service.previous_spec == lie.previous_spec {
                service.previous_spec = truth.previous_spec.clone();
            }
            service.pending_delete = truth.pending_delete;
        }
        Change::Update(Object::Task(task)) => {
            let (Some(lie), Some(truth)) = (shown.tasks.get(task.id), view.tasks.get(task.id))
            else {
                return;
            };
            let task = Arc::make_mut(task);
            if task.spec == lie.spec {
                task.spec = truth.spec.clone();
            }
            if task.networks == lie.networks {
                task.networks = truth.networks.clone();
            }
            if task.endpoint == lie.endpoint {
                task.endpoint = truth.endpoint.clone();
            }
            if task.status == lie.status {
                task.status = truth.status.clone();
            }
        }
        _ => {}
    }
}
