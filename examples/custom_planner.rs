//! A control loop of one's own: an autoscaler, run here in virtual time beside the default
//! planners. A node gets it by `config.parts.planners.push(Arc::new(Autoscaler))`. It remembers
//! nothing: its signal and its timer are fields in the store, so a new leader goes on from there.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use swarm::core::control::{Controller, Ctx, Key, Plan, Planner};
use swarm::core::id::IdSource;
use swarm::core::model::{ReplicatedMode, Service, ServiceMode};
use swarm::core::store::{Batch, Change, Epoch, Event, MemoryStore, Object, Snapshot, Store as _};
use swarm::core::time::Timestamp;
use swarm::sched::{default_planners, place::SpreadScheduler};

/// Whoever measures writes requests per second into this label; a task takes a hundred.
const LOAD: &str = "autoscale.load";
/// Growing is urgent, shrinking is not: one task at a time.
const SHRINKS_EVERY: Duration = Duration::from_secs(60);

struct Autoscaler;

impl Planner for Autoscaler {
    fn name(&self) -> &'static str {
        "autoscaler"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        if let Object::Service(service) = event.object() {
            keys.push(Key::Service(service.id));
        }
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        keys.extend(view.services.iter().map(|service| Key::Service(service.id)));
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut plan = Plan::none();
        let Key::Service(id) = *key else { return plan };
        let Some(service) = view.services.get(id) else { return plan };
        let load = service.spec.labels.get(LOAD).and_then(|load| load.parse::<u64>().ok());
        let (Some(load), Some(present)) = (load, service.spec.mode.replicas()) else { return plan };
        let wanted = load.div_ceil(100).max(1);
        let shrinks_at = service.updated_at + SHRINKS_EVERY;
        if wanted < present && ctx.now < shrinks_at {
            plan.look_again(shrinks_at);
        } else if wanted != present {
            let replicas = Some(wanted.max(present - 1));
            let mut service = Service::clone(service);
            service.spec.mode =
                ServiceMode::Replicated(ReplicatedMode { replicas, ..Default::default() });
            plan.because(*key, format!("{load} requests per second want {wanted} tasks"));
            plan.changes.push(Change::update(service));
        }
        plan
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (store, mut ids, mut now) = (MemoryStore::default(), IdSource::seeded(1), Timestamp::ZERO);
    let mut planners = default_planners([], Arc::new(SpreadScheduler::default()));
    planners.push(Arc::new(Autoscaler));
    let mut watch = store.watch(store.snapshot().version());
    let mut controller = Controller::new(planners, Epoch(1), &store.snapshot());
    let id = ids.next();
    store.apply(&Batch::new(now, vec![Change::create(Service { id, ..Default::default() })]))?;
    for load in [450, 120] {
        let mut service = Service::clone(store.snapshot().services.get(id).ok_or("it is there")?);
        service.spec.labels.insert(LOAD.into(), load.to_string());
        store.apply(&Batch::new(now, vec![Change::update(service)]))?;
        let end = now + Duration::from_secs(600);
        while now < end {
            while let Some(commit) = watch.try_next()? {
                controller.observe(&commit);
            }
            let step = controller.step(&store.snapshot(), now, &mut ids);
            if let Some(batch) = step.batch {
                controller.committed(store.apply_owned(batch)?);
                continue;
            }
            let (seconds, tasks) = (now.since(Timestamp::ZERO).as_secs(), store.snapshot());
            println!("{seconds:>4} s: {} tasks for load {load}", tasks.tasks_of(id).count());
            now = controller.next_at().unwrap_or(end).clamp(now, end);
        }
    }
    Ok(())
}
