//! The comparison itself: that it is the same again for the same seed whatever the clock says, that
//! its cluster keeps the rules, and that strategies differ as they must.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use swarm_core::model::{Labels, TaskState};

use super::sizes::Size;
use super::*;
use crate::orchestrate::Rebalance;
use crate::place::{Candidate, FilterScheduler, Overcommit, PREEMPTION_LABEL, PRIORITY_LABEL};

/// Puts everything on the node with the least free memory.
struct Tightest;

impl Strategy for Tightest {
    type Score = i64;

    fn score(&self, candidate: &Candidate<'_>) -> i64 {
        candidate.load.free_memory()
    }
}

/// A clock that goes by the steps of a generator: no two answers take the same time.
fn erratic(seed: u64) -> Clock {
    let state = AtomicU64::new(seed);
    Arc::new(move || {
        let step = state.load(Ordering::Relaxed) % 977 + 1;
        Duration::from_nanos(state.fetch_add(step * seed, Ordering::Relaxed))
    })
}

fn workloads(names: &[&str], seed: u64) -> Vec<Workload> {
    let named = |name: &&str| Workload::named(name, 10, seed).expect("there is such a workload");
    names.iter().map(named).collect()
}

fn compare(clock: Clock, names: &[&str], seed: u64) -> Report {
    let lab = Lab::new(clock).with("tightest", || Tightest).samples(8);
    lab.compare(&workloads(names, seed), seed, |_| {}).expect("all is well with them")
}

fn quality<'a>(report: &'a Report, workload: &'a str, strategy: &str) -> &'a Quality {
    let run = report.of(workload).find(|run| run.strategy == strategy);
    &run.expect("every strategy ran").quality
}

#[test]
fn decisions_and_quality_are_those_of_the_seed_whatever_the_clock_says() {
    let names = ["uniform", "losses"];
    let still = compare(no_clock(), &names, 1);
    let measured = compare(erratic(3), &names, 1);
    assert!(measured.runs.iter().all(|run| run.speed.p99 > 0 && run.speed.per_second > 0.0));
    for (a, b) in still.runs.iter().zip(&measured.runs) {
        assert_eq!((&a.quality, &a.samples), (&b.quality, &b.samples), "{}", a.workload);
        let count = |run: &Run| (run.speed.answers, run.speed.decisions);
        assert_eq!(count(a), count(b), "{} by {}", a.workload, a.strategy);
        assert_eq!(a.speed.p99, 0, "without a clock there is nothing to measure");
    }
    let other = compare(no_clock(), &["uniform"], 2);
    assert_ne!(quality(&still, "uniform", "spread"), quality(&other, "uniform", "spread"));
}

#[test]
fn every_strategy_is_in_the_table_and_on_the_page() {
    let lab = Lab::new(erratic(1)).with("tightest", || Tightest).samples(4).growth(&[20, 40]);
    let mut seen = Vec::new();
    let report = lab.compare(&workloads(&["updates"], 1), 1, |progress| {
        seen.push((progress.done, progress.of, progress.workload.to_owned()));
    });
    let report = report.expect("all is well with it");
    assert_eq!(seen.len(), 15);
    assert_eq!(seen[0], (0, 15, "updates".to_owned()));
    assert_eq!(seen[14], (14, 15, "40 nodes".to_owned()));
    let (text, page) =
        (table::table(std::slice::from_ref(&report)), page::page(&report, "a <note>"));
    for name in ["spread", "binpack", "random", "least-loaded", "tightest"] {
        let rows = text.lines().filter(|line| line.trim().starts_with(&format!("{name} "))).count();
        assert_eq!(rows, 3, "one workload, and growth in two ways:\n{text}");
        assert!(page.contains(&format!("\"strategy\":\"{name}\"")), "{name}");
    }
    for foreign in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "the page needs something from elsewhere: {foreign}");
    }
    assert!(page.contains("a \\u003cnote>") && !page.contains("/*DATA*/"));
}

#[test]
fn samples_keep_what_must_hold_of_every_cluster() {
    let lab = Lab::new(no_clock()).with("tightest", || Tightest).samples(4);
    let report = lab.compare(&workloads(&["google", "alibaba", "labels"], 5), 5, |_| {});
    for run in report.expect("all is well with them").runs {
        let name = format!("{} by {}", run.workload, run.strategy);
        assert!(run.samples.iter().any(|sample| sample.tasks > 10), "{name} is empty");
        for sample in &run.samples {
            assert!(sample.filled <= 1.0 + 1e-9 && sample.filled <= sample.asked + 1e-9, "{name}");
            assert!(sample.volume <= sample.packed, "{name}: a bound is above a packing");
            assert!(sample.unplaceable <= sample.unplaced, "{name}: a bound is above what was");
            assert!(sample.unplaced <= sample.tasks && sample.used <= sample.loads.len(), "{name}");
            let parts = [sample.fragmentation, sample.stranded_cpus, sample.stranded_memory];
            assert!(parts.iter().all(|part| (0.0..=1.0).contains(part)), "{name}: {parts:?}");
            // What is placed needs at least its volume, when all of it is placed.
            assert!(sample.unplaced > 0 || sample.used >= sample.volume, "{name}");
        }
    }
}

#[test]
fn strategies_differ_as_they_must() {
    let report = compare(no_clock(), &["uniform", "losses", "updates"], 1);
    let of = |workload, strategy| quality(&report, workload, strategy);
    let (spread, binpack) = (of("uniform", "spread"), of("uniform", "binpack"));
    assert!(spread.task_imbalance < of("uniform", "random").task_imbalance);
    assert!(spread.load_imbalance < binpack.load_imbalance);
    assert!(binpack.packing < 1.1 && spread.packing > 1.3, "{binpack:?} {spread:?}");
    assert!(spread.crowded < 1.0 && binpack.crowded > 10.0, "{binpack:?} {spread:?}");
    for strategy in &report.strategies {
        let losses = of("losses", strategy);
        assert!(losses.moved > 0, "{strategy} lost nodes");
        assert_eq!(of("uniform", strategy).moved, 0, "{strategy} lost nothing");
        assert!(of("uniform", strategy).full_at.is_some(), "115 % do not fit, by {strategy}");
        assert!(of("updates", strategy).moved > 0, "{strategy} rolled out");
    }
    for run in report.of("losses") {
        let lacking = run.samples.iter().filter(|sample| sample.loads.contains(&None)).count();
        assert!(
            (3..8).contains(&lacking),
            "one of ten nodes is lost, returns, and others are lost"
        );
    }
}

#[test]
fn a_planner_of_ones_own_moves_tasks_to_nodes_that_return() {
    let lab = Lab::new(no_clock()).samples(8).growth(&[20]).with_planners(
        "moving",
        "spread",
        |scheduler| vec![Arc::new(Rebalance::new(scheduler, 8, Duration::from_secs(5)))],
    );
    let report = lab.compare(&workloads(&["losses"], 1), 1, |_| {}).expect("all is well with it");
    let of = |strategy| quality(&report, "losses", strategy);
    assert!(of("moving").moved > of("spread").moved + 10, "{:?}", of("moving"));
    assert!(of("moving").task_imbalance < of("spread").task_imbalance, "{:?}", of("moving"));
    assert_eq!(report.growth.len(), 4, "it decides as spread does");
}

#[test]
fn a_scheduler_of_ones_own_may_have_any_name() {
    let more = Overcommit { cpus: 1_500, memory: 1_500 };
    let lab = Lab::new(no_clock())
        .samples(8)
        .with("tightest", || Tightest)
        .with_scheduler("spread, 1.5x", move || {
            Arc::new(StrategyScheduler::default().overcommit(more))
        })
        .with_scheduler("only the tightest", || Arc::new(FilterScheduler::new(Tightest)));
    let report = lab.compare(&workloads(&["uniform"], 1), 1, |_| {}).expect("all is well with it");
    let of = |strategy| quality(&report, "uniform", strategy);
    assert_eq!(of("spread, 1.5x").unplaced_end, 0, "115 % of the cluster are asked for");
    assert!(of("spread").unplaced_end > 0 && of("spread, 1.5x").filled > 1.1);
    assert_eq!(of("only the tightest"), of("tightest"));
}

#[test]
fn reports_of_load_change_decisions_and_looks_do_not() {
    let last = |samples: u32, seconds: u64, strategy: &str| {
        let lab = Lab::new(no_clock()).samples(samples).report_every(Duration::from_secs(seconds));
        let report = lab.compare(&workloads(&["alibaba"], 1), 1, |_| {});
        let runs = report.expect("all is well with it").runs;
        let run = runs.into_iter().find(|run| run.strategy == strategy).expect("it ran");
        run.samples.into_iter().next_back().expect("it was looked at")
    };
    assert_eq!(last(4, 20, "least-loaded"), last(60, 20, "least-loaded"));
    assert_ne!(last(4, 20, "least-loaded"), last(4, 90, "least-loaded"));
    assert_eq!(last(4, 20, "spread"), last(4, 90, "spread"));
}

#[test]
fn a_report_is_data_and_nothing_is_rounded() {
    let names = ["losses", "labels"];
    let reports: Vec<_> = [1, 2].map(|seed| compare(erratic(seed), &names, seed)).into();
    let text = serde_json::to_string(&reports).expect("it can be written");
    let read: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    for (report, read) in reports.iter().zip(read.as_array().expect("it is a list")) {
        assert_eq!(read["seed"], report.seed);
        let runs = read["runs"].as_array().expect("it has runs");
        assert_eq!((runs.len(), report.runs.len()), (10, 10), "five strategies, twice");
        for (run, read) in report.runs.iter().zip(runs) {
            let names = (read["strategy"].as_str(), read["workload"].as_str());
            assert_eq!(names, (Some(&*run.strategy), Some(&*run.workload)));
            let number = read["quality"]["loadImbalance"].as_f64().expect("it is a number");
            assert!((number - run.quality.load_imbalance).abs() < 1e-12, "{number}");
            assert_eq!(read["speed"]["p99"], run.speed.p99);
            assert_eq!(read["samples"].as_array().map(Vec::len), Some(8));
        }
    }
}

#[test]
fn of_several_seeds_the_table_has_the_middle_and_both_ends() {
    let report = compare(no_clock(), &["updates"], 1);
    let moved = |number| {
        let mut report = report.clone();
        for run in &mut report.runs {
            run.quality.moved = number;
            run.quality.full_at = (number > 100).then_some(0.5);
        }
        report
    };
    let cells = |numbers: &[u64], name: &str| {
        let reports: Vec<_> = numbers.iter().copied().map(moved).collect();
        let text = table::table(&reports);
        let line = text.lines().skip_while(|line| !line.starts_with("binpack"));
        let mut line = line.filter(|line| line.trim_start().starts_with(name));
        let cells: Vec<&str> = line.next().expect("there is a row").split_whitespace().collect();
        (cells[8].to_owned(), cells[13].to_owned())
    };
    let own = |full: &str, moved: &str| (full.to_owned(), moved.to_owned());
    assert_eq!(cells(&[107], "binpack"), own("50.0", "107"));
    assert_eq!(cells(&[105, 203, 104], "binpack"), own("50.0", "105"));
    assert_eq!(cells(&[4, 203, 8, 105], "binpack"), own("-", "56"), "half of 8 and 105");
    assert_eq!(cells(&[4, 203, 8, 105], "lowest"), own("50.0", "4"));
    assert_eq!(cells(&[4, 203, 8, 105], "highest"), own("-", "203"));
}

#[test]
fn services_grow_and_those_that_matter_more_take_their_room() {
    let service = |name, tasks, cores, priority: &str| {
        let mut spec = workload::service(name, tasks, Size::of(cores, 1.0));
        spec.labels.insert(PRIORITY_LABEL.to_owned(), priority.to_owned());
        Event::Deploy(Box::new(spec))
    };
    let workload = |name: &str, labels| Workload {
        name: name.to_owned(),
        nodes: ["a", "b", "c"].map(|name| workload::node(name, Size::of(8.0, 32.0))).into(),
        labels,
        // In no order.
        events: vec![
            (Duration::from_secs(60), Event::Scale("web".to_owned(), 24)),
            (Duration::from_secs(120), service("database", 2, 8.0, "100")),
            (Duration::ZERO, service("web", 6, 1.0, "0")),
        ],
        length: Duration::from_secs(300),
        ..Workload::default()
    };
    let preemption = [(PREEMPTION_LABEL.to_owned(), "30".to_owned())].into();
    let workloads = [workload("polite", Labels::new()), workload("pushing", preemption)];
    let report = Lab::new(no_clock()).samples(10).compare(&workloads, 1, |_| {});
    let report = report.expect("all is well with them");
    assert_eq!(quality(&report, "polite", "spread").unplaced_end, 2, "of the database");
    assert_eq!(quality(&report, "pushing", "spread").unplaced_end, 16, "of the web");
}

#[test]
fn every_update_is_rolled_out_to_its_end() {
    let workload = workloads(&["updates"], 1).remove(0);
    let planners = default_planners([], Arc::new(StrategyScheduler::default()));
    let mut world = World::new(&workload, Labels::new(), planners, 1);
    for (at, event) in &workload.events {
        world.advance(*at);
        world.play(event);
    }
    world.advance(workload.length + Duration::from_secs(600));
    let view = world.view();
    let wanted = view.tasks.iter().filter(|task| task.desired_state <= TaskState::Running);
    let images = wanted.map(|task| &task.spec.container.as_ref().expect("it has one").image);
    let (new, old): (Vec<_>, Vec<_>) = images.partition(|image| image.ends_with("-next"));
    assert!(new.len() > 50 && old.is_empty(), "{} new, {} old", new.len(), old.len());
}
