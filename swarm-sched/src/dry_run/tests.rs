use std::collections::BTreeSet;

use proptest::prelude::*;
use swarm_core::control::{Controller, Ctx, Planner};
use swarm_core::id::IdSource;
use swarm_core::model::*;
use swarm_core::store::{Batch as Writes, Change, Epoch, MemoryStore, Snapshot, Store as _, Watch};
use swarm_core::time::{Nanos, Timestamp};

use std::collections::BTreeMap;
use swarm_core::model::Placement as Wanted;

use super::*;
use crate::place::StrategyScheduler;
use crate::world::{port, template};

const EPOCH: Epoch = Epoch(1);

fn planners() -> Vec<Arc<dyn Planner>> {
    crate::default_planners([], Arc::new(StrategyScheduler::default()))
}

/// A cluster with every planner, whose agents do as they are told when a test lets them.
struct Real {
    store: MemoryStore,
    watch: Watch,
    controller: Controller,
    ids: IdSource,
    now: Timestamp,
}

impl Real {
    fn new() -> Self {
        let store = MemoryStore::default();
        let watch = store.watch(Version(0));
        let controller = Controller::new(planners(), EPOCH, &store.snapshot());
        let now = Timestamp::from_secs(1_000_000);
        let mut real = Self { store, watch, controller, ids: IdSource::seeded(7), now };
        let ingress = Network { id: real.ids.next(), ..Network::default() };
        let spec = NetworkSpec { name: "ingress".into(), ingress: true, ..Default::default() };
        real.write(vec![Change::create(Network { spec, ..ingress })]);
        real
    }

    fn view(&self) -> Snapshot {
        self.store.snapshot()
    }

    fn write(&mut self, changes: Vec<Change>) {
        self.store.apply(&Writes::new(self.now, changes)).expect("a legal write");
    }

    fn node(&mut self, name: &str, edit: impl FnOnce(&mut Node)) -> NodeId {
        let mut node = Node { id: self.ids.next(), ..Node::default() };
        node.spec.name = name.to_owned();
        node.status.state = NodeState::Ready;
        node.description.get_or_insert_default().resources.memory_bytes = 8;
        edit(&mut node);
        let id = node.id;
        self.write(vec![Change::create(node)]);
        id
    }

    fn proposal(&mut self, name: &str, edit: impl FnOnce(&mut ServiceSpec)) -> Service {
        let mut service = Service { id: self.ids.next(), ..Service::default() };
        service.spec = spec(name, edit);
        service
    }

    fn create(&mut self, name: &str, edit: impl FnOnce(&mut ServiceSpec)) -> ServiceId {
        let service = self.proposal(name, edit);
        let id = service.id;
        self.write(vec![Change::create(service)]);
        self.run();
        id
    }

    /// As the API would write it.
    fn changed(&self, id: ServiceId, edit: impl FnOnce(&mut ServiceSpec)) -> Service {
        let mut service = Service::clone(self.view().services.get(id).expect("it exists"));
        service.previous_spec = Some(Box::new(service.spec.clone()));
        service.update_status = None;
        edit(&mut service.spec);
        service
    }

    fn dry_run(&self, proposed: &Service) -> Report {
        let mut ids = IdSource::seeded(99);
        let mut ctx = Ctx { now: self.now, ids: &mut ids, epoch: EPOCH };
        dry_run(&self.view(), proposed.clone(), &planners(), &mut ctx).expect("a legal proposal")
    }

    fn commit(&mut self, proposed: Service) {
        let known = self.view().services.get(proposed.id).is_some();
        self.write(vec![if known { Change::update(proposed) } else { Change::create(proposed) }]);
    }

    /// Planners alone, at this time.
    fn plan(&mut self) {
        for _ in 0..1_000 {
            while let Some(commit) = self.watch.try_next().expect("a history that reaches back") {
                self.controller.observe(&commit);
            }
            let step = self.controller.step(&self.view(), self.now, &mut self.ids);
            match step.batch {
                Some(batch) => _ = self.store.apply(&batch).expect("a legal plan"),
                None if self.controller.next_at().is_none_or(|at| at > self.now) => return,
                None => {}
            }
        }
        panic!("the planners never come to an end");
    }

    /// Planners and agents, for ten minutes.
    fn run(&mut self) {
        let end = self.now + Duration::from_secs(600);
        loop {
            self.plan();
            let view = self.view();
            let all: BTreeSet<TaskId> = view.tasks.iter().map(|task| task.id).collect();
            let answers = agents::answers(&view, ServiceId::NIL, &all, self.now);
            if !answers.is_empty() {
                self.write(answers);
                continue;
            }
            match self.controller.next_at().filter(|at| *at <= end) {
                Some(at) => self.now = at,
                None => break,
            }
        }
        self.now = end;
    }

    /// Where a service's tasks are that shall run.
    fn places(&self, service: ServiceId) -> BTreeSet<(u64, NodeId)> {
        let view = self.view();
        let placed = |task: &&Arc<Task>| {
            task.is_wanted()
                && (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
        };
        let tasks = view.tasks_of(service).filter(placed);
        tasks.filter_map(|task| Some((task.slot, task.node_id?))).collect()
    }
}

fn spec(name: &str, edit: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let mut spec = ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() };
    template(&mut spec, |task| task.container = Some(ContainerSpec::default()));
    edit(&mut spec);
    spec
}

fn replicas(spec: &mut ServiceSpec, number: u64) {
    let mode = ReplicatedMode { replicas: Some(number), ..Default::default() };
    spec.mode = ServiceMode::Replicated(mode);
}

fn image(spec: &mut ServiceSpec, image: &str) {
    template(spec, |task| task.container.get_or_insert_default().image = image.to_owned());
}

fn memory(spec: &mut ServiceSpec, bytes: i64) {
    template(spec, |task| {
        let wanted = Resources { memory_bytes: bytes, ..Default::default() };
        task.resources.get_or_insert_default().reservations = Some(wanted);
    });
}

fn update(spec: &mut ServiceSpec, parallelism: u64, delay: i64, order: UpdateOrder) {
    let delay = Nanos::from_secs(delay);
    let config = UpdateConfig { parallelism, delay, order: Some(order), ..Default::default() };
    spec.update_config = Some(config);
}

fn places(report: &Report, batches: impl Fn(usize) -> bool) -> BTreeSet<(u64, NodeId)> {
    let of = report.placements.iter().filter(|place| batches(place.batch));
    of.map(|place| (place.slot, place.node_id)).collect()
}

#[test]
fn a_new_service_says_where_its_tasks_go_and_which_find_no_node() {
    let mut real = Real::new();
    real.node("a", |_| {});
    real.node("b", |_| {});
    real.node("c", |node| node.spec.availability = Availability::Drain);
    let proposed = real.proposal("web", |spec| {
        replicas(spec, 5);
        memory(spec, 4);
    });
    let version = real.view().version();
    let report = real.dry_run(&proposed);
    let nodes: Vec<_> = report.placements.iter().map(|it| (it.slot, &*it.node)).collect();
    assert_eq!(nodes.len(), 4, "{report:#?}");
    assert_eq!(nodes.iter().filter(|(_, node)| *node == "a").count(), 2);
    let why =
        "no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks)";
    assert_eq!(report.refused.len(), 1);
    assert_eq!((report.refused[0].slot, &*report.refused[0].why), (5, why));
    assert_eq!(report.reasons, BTreeMap::from([(why.to_owned(), 1)]));
    assert_eq!((report.stopped.len(), report.batches.len(), report.complete), (0, 1, true));
    assert_eq!(real.view().version(), version, "nothing was written");
    assert!(real.view().services.is_empty() && real.view().tasks.is_empty());
}

#[test]
fn a_roll_out_says_in_which_batches_it_goes() {
    let mut real = Real::new();
    real.node("a", |_| {});
    let web = real.create("web", |spec| {
        replicas(spec, 5);
        memory(spec, 1);
        update(spec, 2, 10, UpdateOrder::StopFirst);
    });
    let report = real.dry_run(&real.changed(web, |spec| image(spec, "new")));
    let batches: Vec<_> =
        report.batches.iter().map(|it| (it.after.0, it.stopped, it.placed)).collect();
    let second = 1_000_000_000;
    assert_eq!(batches, [(0, 2, 2), (10 * second, 2, 2), (20 * second, 1, 1)], "{report:#?}");
    assert!(report.stopped.iter().all(|stop| stop.why == "replaced by a new task"));
    assert!(report.stopped.iter().all(|stop| stop.node == "a"));
    assert!(report.placements.iter().all(|it| it.up_to_date && it.batch > 0));
    assert_eq!(report.update.expect("a roll-out").parallelism, 2);
    assert_eq!(report.update_status.expect("a roll-out").state, UpdateState::Completed);
}

#[test]
fn what_waits_for_room_that_its_predecessor_holds_gets_it_in_the_next_batch() {
    let mut real = Real::new();
    real.node("a", |_| {});
    let web = real.create("web", |spec| {
        replicas(spec, 2);
        memory(spec, 4);
    });
    let report = real.dry_run(&real.changed(web, |spec| image(spec, "new")));
    assert_eq!((report.placements.len(), report.refused.len()), (2, 0), "{report:#?}");
    assert_eq!((report.batches[0].refused, report.batches[0].placed), (1, 0));
    assert!(report.complete);
}

#[test]
fn a_roll_out_that_cannot_end_says_what_it_waits_for_and_what_stays() {
    let mut real = Real::new();
    real.node("a", |_| {});
    let web = real.create("web", |spec| replicas(spec, 3));
    let report = real.dry_run(&real.changed(web, |spec| {
        template(spec, |task| {
            task.placement.get_or_insert_default().constraints = vec!["node.labels.x == y".into()];
        });
    }));
    let why = "no suitable node (scheduling constraints not satisfied on 1 node)";
    assert_eq!(report.refused.iter().map(|it| &*it.why).collect::<Vec<_>>(), [why]);
    assert_eq!(report.placements.iter().filter(|it| !it.up_to_date).count(), 2, "{report:#?}");
    let status = report.update_status.expect("a roll-out");
    assert_eq!(status.state, UpdateState::Updating);
    assert!(status.message.contains(why), "{}", status.message);
    assert!(report.complete, "it was followed to where it waits for ever");
}

#[test]
fn scaling_down_says_what_goes_and_who_gets_the_room() {
    let mut real = Real::new();
    real.node("a", |_| {});
    let web = real.create("web", |spec| {
        replicas(spec, 2);
        memory(spec, 4);
    });
    real.create("db", |spec| memory(spec, 3));
    let report = real.dry_run(&real.changed(web, |spec| replicas(spec, 1)));
    assert_eq!(report.stopped.len(), 1);
    assert_eq!((report.stopped[0].slot, &*report.stopped[0].why), (2, "no longer asked for"));
    let others: Vec<_> = report.others.iter().map(|it| (&*it.service, it.batch)).collect();
    assert_eq!(others, [("db", 2)], "once its node has room: {report:#?}");
    assert_eq!(places(&report, |batch| batch == 0).len(), 1, "the other one stays");
}

#[test]
fn a_port_that_is_taken_is_what_the_allocator_says() {
    let mut real = Real::new();
    real.node("a", |_| {});
    let publish = |spec: &mut ServiceSpec| {
        let ports = vec![port(80, 8080, PublishMode::Ingress)];
        spec.endpoint = Some(EndpointSpec { ports, ..Default::default() });
    };
    real.create("web", publish);
    let proposed = real.proposal("other", publish);
    let report = real.dry_run(&proposed);
    assert!(report.stalled.contains("8080"), "{report:#?}");
    assert_eq!(report.refused[0].why, report.stalled);
}

#[test]
fn jobs_and_global_services() {
    let mut real = Real::new();
    let a = real.node("a", |_| {});
    let b = real.node("b", |node| node.spec.availability = Availability::Pause);
    let everywhere =
        real.proposal("agent", |spec| spec.mode = ServiceMode::Global(Default::default()));
    let report = real.dry_run(&everywhere);
    assert_eq!(places(&report, |batch| batch == 1), BTreeSet::from([(0, a)]), "{report:#?}");
    assert!(report.placements.iter().all(|it| it.node_id != b));
    let mut job = real.proposal("job", |spec| {
        let (total_completions, max_concurrent) = (Some(10), Some(2));
        let mode = ReplicatedJobMode { total_completions, max_concurrent, ..Default::default() };
        spec.mode = ServiceMode::ReplicatedJob(mode);
    });
    job.job_status = Some(JobStatus::default());
    let report = real.dry_run(&job);
    assert_eq!((report.placements.len(), report.to_follow), (2, 8), "{report:#?}");
}

#[test]
fn a_proposal_that_cannot_be_written_is_refused() {
    let mut real = Real::new();
    real.create("web", |_| {});
    let (view, proposed) = (real.view(), real.proposal("web", |_| {}));
    let mut ctx = Ctx { now: real.now, ids: &mut real.ids, epoch: EPOCH };
    let refused = dry_run(&view, proposed, &planners(), &mut ctx);
    assert!(matches!(refused, Err(CommitError::NameTaken { .. })), "{refused:?}");
}

#[test]
fn a_report_is_json() {
    let mut real = Real::new();
    real.node("a", |_| {});
    let proposed = real.proposal("web", |_| {});
    let report = real.dry_run(&proposed);
    let json = serde_json::to_string(&report).unwrap();
    assert!(json.contains(r#""Node":"a","UpToDate":true,"Batch":1"#), "{json}");
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[derive(Clone, Debug)]
struct Wish {
    replicas: u64,
    memory: i64,
    everywhere: bool,
    label: bool,
    parallelism: u64,
    delay: i64,
    order: UpdateOrder,
}

fn wish() -> impl Strategy<Value = Wish> {
    let order = prop_oneof![Just(UpdateOrder::StopFirst), Just(UpdateOrder::StartFirst)];
    let odds = prop::bool::weighted;
    (0..7_u64, 0..5_i64, odds(0.2), odds(0.3), 0..3_u64, 0..12_i64, order).prop_map(
        |(replicas, memory, everywhere, label, parallelism, delay, order)| Wish {
            replicas,
            memory,
            everywhere,
            label,
            parallelism,
            delay,
            order,
        },
    )
}

impl Wish {
    fn apply(&self, spec: &mut ServiceSpec) {
        match self.everywhere {
            true => spec.mode = ServiceMode::Global(Default::default()),
            false => replicas(spec, self.replicas),
        }
        memory(spec, self.memory);
        update(spec, self.parallelism, self.delay, self.order);
        if self.label {
            template(spec, |task| {
                let constraints = vec!["node.labels.disk == ssd".to_owned()];
                task.placement = Some(Wanted { constraints, ..Default::default() });
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 500, ..Default::default() })]

    /// Over random clusters, for a new service and for a changed one: what is said to happen at once
    /// is what the planners then write, and what is said to come of it is what comes of it.
    #[test]
    fn what_it_says_is_what_happens(
        nodes in prop::collection::vec((1..12_i64, any::<bool>(), 0..8_u8), 1..6),
        services in prop::collection::vec(wish(), 0..4),
        proposal in wish(),
        changed in prop::option::of(0..4_usize),
    ) {
        let mut real = Real::new();
        for (number, (room, ssd, odd)) in nodes.iter().enumerate() {
            real.node(&format!("n{number}"), |node| {
                node.description.get_or_insert_default().resources.memory_bytes = *room;
                if *ssd {
                    node.spec.labels.insert("disk".into(), "ssd".into());
                }
                match odd {
                    0 => node.spec.availability = Availability::Drain,
                    1 => node.status.state = NodeState::Down,
                    _ => {}
                }
            });
        }
        let ids: Vec<_> = services
            .iter()
            .enumerate()
            .map(|(number, wish)| real.create(&format!("s{number}"), |spec| wish.apply(spec)))
            .collect();
        let proposed = match changed.and_then(|nth| Some((ids.get(nth)?, &services[nth]))) {
            Some((id, old)) => real.changed(*id, |spec| {
                Wish { everywhere: old.everywhere, ..proposal.clone() }.apply(spec);
                image(spec, "new");
            }),
            None => real.proposal("new", |spec| proposal.apply(spec)),
        };
        let (id, before) = (proposed.id, real.view());
        let report = real.dry_run(&proposed);
        prop_assert_eq!(real.view().version(), before.version());
        prop_assert!(report.complete);

        real.commit(proposed);
        real.plan();
        let at_once = &real.view();
        let stopped = before.tasks.iter().filter(|old| {
            let new = at_once.tasks.get(old.id);
            old.is_wanted() && !old.status.state.is_terminal() && new.is_none_or(|new| !new.is_wanted())
        });
        let said = report.stopped.iter().filter(|stop| stop.batch == 1).map(|stop| stop.task_id);
        prop_assert_eq!(
            stopped.map(|task| task.id).collect::<BTreeSet<_>>(),
            said.collect::<BTreeSet<_>>()
        );
        let assigned = |task: &Arc<Task>| task.status.state >= TaskState::Assigned;
        let had = |task: &Arc<Task>| before.tasks.get(task.id).is_some_and(assigned);
        let new = at_once.tasks_of(id).filter(|task| assigned(task) && !had(task));
        let new: BTreeSet<_> = new.filter_map(|task| Some((task.slot, task.node_id?))).collect();
        prop_assert_eq!(new, places(&report, |batch| batch == 1), "{:#?}", report);
        real.run();
        prop_assert_eq!(real.places(id), places(&report, |_| true), "{:#?}", report);
    }
}
