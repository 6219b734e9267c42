use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use swarm_core::model::Placement as Wanted;
use swarm_core::model::*;

use super::*;
use crate::cluster::{EPOCH, Whole, image, memory, planners, replicas};
use crate::place::{PREEMPTION_LABEL, PRIORITY_LABEL};
use crate::world::{port, template};

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
    let mut real = Whole::new();
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
    let mut real = Whole::new();
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
    let mut real = Whole::new();
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
    let mut real = Whole::new();
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
    let mut real = Whole::new();
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
    let mut real = Whole::new();
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
    let mut real = Whole::new();
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
    let mut real = Whole::new();
    real.create("web", |_| {});
    let (view, proposed) = (real.view(), real.proposal("web", |_| {}));
    let mut ctx = Ctx::new(real.now, &mut real.ids, EPOCH);
    let refused = dry_run(&view, proposed, &planners(), &mut ctx);
    assert!(matches!(refused, Err(CommitError::NameTaken { .. })), "{refused:?}");
}

#[test]
fn a_report_is_json() {
    let mut real = Whole::new();
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
    priority: i32,
}

fn wish() -> impl Strategy<Value = Wish> {
    let order = prop_oneof![Just(UpdateOrder::StopFirst), Just(UpdateOrder::StartFirst)];
    let odds = prop::bool::weighted;
    (0..7_u64, 0..5_i64, odds(0.2), odds(0.3), 0..3_u64, 0..12_i64, order, -1..4).prop_map(
        |(replicas, memory, everywhere, label, parallelism, delay, order, priority)| Wish {
            replicas,
            memory,
            everywhere,
            label,
            parallelism,
            delay,
            order,
            priority,
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
        spec.labels.insert(PRIORITY_LABEL.to_owned(), self.priority.to_string());
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
        preemption in 0..3_u64,
    ) {
        let mut real = Whole::new();
        real.label(PREEMPTION_LABEL, &preemption.to_string());
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
        real.run();
        prop_assert_eq!(real.places(id), places(&report, |_| true), "{:#?}", report);
        // Of those that get a node at once the report has who keeps it.
        let assigned = |task: &Arc<Task>| task.status.state >= TaskState::Assigned;
        let had = |task: &Arc<Task>| before.tasks.get(task.id).is_some_and(assigned);
        let view = &real.view();
        let stays = |task: &Arc<Task>| {
            let now = view.tasks.get(task.id);
            now.is_some_and(|now| now.is_wanted() && !now.status.state.is_terminal())
        };
        let new = at_once.tasks_of(id).filter(|task| assigned(task) && !had(task) && stays(task));
        let new: BTreeSet<_> = new.filter_map(|task| Some((task.slot, task.node_id?))).collect();
        prop_assert_eq!(new, places(&report, |batch| batch == 1), "{:#?}", report);
    }
}
