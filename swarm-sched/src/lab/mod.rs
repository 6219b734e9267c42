//! Pure: which strategy places better, and what it costs: every strategy on the same clusters.
//!
//! A [`Workload`] is a cluster and what happens to it, drawn from a seed. The [`Lab`] plays it once
//! for each [`Contender`]: the planners of a manager, the controller and the store in memory are
//! the real ones, time is virtual, and agents do at once what they are told. So the decisions, and
//! every figure of [`Quality`], are the same for the same seed; only [`Speed`] is measured, by a
//! [`Clock`] that is passed in.
//!
//! ```
//! use swarm_sched::lab::{Lab, Workload, no_clock};
//! use swarm_sched::place::{Candidate, Strategy};
//!
//! struct Tightest;
//! impl Strategy for Tightest {
//!     type Score = i64;
//!     fn score(&self, candidate: &Candidate<'_>) -> i64 {
//!         candidate.load.free_memory()
//!     }
//! }
//!
//! let lab = Lab::new(no_clock()).with("tightest", || Tightest).samples(5);
//! let report = lab.compare(&[Workload::named("uniform", 10, 1).unwrap()], 1, |_| {});
//! let run = |name| &report.of("uniform").find(|run| run.strategy == name).unwrap().quality;
//! assert!(run("tightest").packing < run("spread").packing);
//! ```
//!
//! | file | what it says |
//! |---|---|
//! | [`workload`], `draft`, [`sizes`], `dice` | what happens, with which sizes, drawn how |
//! | `world` | the cluster of one run |
//! | [`measure`], [`speed`], [`bound`], [`growth`] | what is measured, with every definition |
//! | [`table`], [`page`] | the report as a text and as a web page |

pub mod bound;
mod dice;
mod draft;
pub mod growth;
pub mod measure;
pub mod page;
pub mod sizes;
pub mod speed;
pub mod table;
pub mod workload;
mod world;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::Planner;
use swarm_core::scheduler::Scheduler;

pub use dice::Dice;
pub use growth::Growth;
pub use measure::{Quality, Sample};
pub use speed::{Clock, Speed, no_clock};
pub use workload::{Event, Workload};

use crate::default_planners;
use crate::place::{Strategy, StrategyScheduler};
use measure::Probe;
use speed::Timed;
use world::World;

/// What is compared: a name, and how to make a scheduler that knows nothing yet.
pub struct Contender {
    name: String,
    /// The cluster's default.
    strategy: String,
    make: Rc<dyn Fn() -> Arc<dyn Scheduler>>,
    /// What plans beside a manager's own planners, if anything does.
    planners: Option<Box<MakePlanners>>,
}

type MakePlanners = dyn Fn(Arc<dyn Scheduler>) -> Vec<Arc<dyn Planner>>;

impl Contender {
    fn new(name: &str, make: impl Fn() -> Arc<dyn Scheduler> + 'static) -> Self {
        let (name, make) = (name.to_owned(), Rc::new(make));
        Self { strategy: name.clone(), name, make, planners: None }
    }

    fn scheduler(&self) -> Arc<dyn Scheduler> {
        (self.make)()
    }

    fn planners(&self, scheduler: Arc<dyn Scheduler>) -> Vec<Arc<dyn Planner>> {
        let more = self.planners.as_ref().map(|make| make(self.scheduler()));
        let mut planners = default_planners([], scheduler);
        planners.extend(more.into_iter().flatten());
        planners
    }
}

/// Compares strategies. [`new`](Self::new) has the four that come with the crate.
pub struct Lab {
    contenders: Vec<Contender>,
    clock: Clock,
    samples: u32,
    growth: Vec<usize>,
}

/// How far a comparison is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Runs that are done.
    pub done: usize,
    /// Runs there are.
    pub of: usize,
    /// The workload, or the size of the cluster, that comes next.
    pub workload: &'a str,
    /// The strategy that comes next.
    pub strategy: &'a str,
}

/// One strategy on one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The strategy.
    pub strategy: String,
    /// The workload's name.
    pub workload: String,
    /// How good it was: the same for the same seed.
    pub quality: Quality,
    /// How fast it was: different every time.
    pub speed: Speed,
    /// The cluster through time.
    pub samples: Vec<Sample>,
}

/// Everything that was found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The strategies, in the order of the columns.
    pub strategies: Vec<String>,
    /// The workloads: name, explanation, nodes, events.
    pub workloads: Vec<About>,
    /// Each strategy on each workload.
    pub runs: Vec<Run>,
    /// Each strategy on clusters of several sizes.
    pub growth: Vec<Growth>,
}

/// A workload, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// How many nodes it has.
    pub nodes: usize,
    /// How many things happen.
    pub events: usize,
}

impl Report {
    /// The runs of a workload.
    pub fn of<'a>(&'a self, workload: &'a str) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| run.workload == workload)
    }
}

impl Lab {
    /// `spread`, `binpack`, `random` and `least-loaded`, timed by this clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let known = |name: &str| Contender::new(name, || Arc::new(StrategyScheduler::default()));
        let contenders = ["spread", "binpack", "random", "least-loaded"].map(known).into();
        Self { contenders, clock, samples: 60, growth: Vec::new() }
    }

    /// Adds a strategy of one's own. Its maker is called once for each run.
    #[must_use]
    pub fn with<S: Strategy>(self, name: &str, make: impl Fn() -> S + 'static) -> Self {
        let label = name.to_owned();
        let make = move || StrategyScheduler::default().with(&label, make());
        self.with_scheduler(name, move || Arc::new(make()))
    }

    /// Adds a scheduler of one's own: anything behind the trait.
    #[must_use]
    pub fn with_scheduler(
        mut self,
        name: &str,
        make: impl Fn() -> Arc<dyn Scheduler> + 'static,
    ) -> Self {
        self.contenders.push(Contender::new(name, make));
        self
    }

    /// Adds a strategy that the lab has already, with planners beside a manager's own: one that
    /// moves tasks, for example. They get a scheduler of their own, so that what they ask is not in
    /// its speed, and growth leaves it out: it would be the strategy's.
    #[must_use]
    pub fn with_planners(
        mut self,
        name: &str,
        strategy: &str,
        make: impl Fn(Arc<dyn Scheduler>) -> Vec<Arc<dyn Planner>> + 'static,
    ) -> Self {
        let known = |it: &&Contender| it.name == strategy;
        let scheduler = self.contenders.iter().find(known).map(|it| it.make.clone());
        self.contenders.push(Contender {
            name: name.to_owned(),
            strategy: strategy.to_owned(),
            // What is not known is refused to every task, as in a cluster.
            make: scheduler.unwrap_or_else(|| Rc::new(|| Arc::new(StrategyScheduler::default()))),
            planners: Some(Box::new(make)),
        });
        self
    }

    /// How often each run is looked at, in equal steps of time (60 unless told, at least 2).
    #[must_use]
    pub fn samples(self, samples: u32) -> Self {
        Self { samples: samples.max(2), ..self }
    }

    /// Also measures single decisions on clusters of so many nodes.
    #[must_use]
    pub fn growth(self, nodes: &[usize]) -> Self {
        Self { growth: nodes.to_vec(), ..self }
    }

    /// Plays every workload for every contender, and tells before each run how far it is. The seed is
    /// that of the ids that the planners draw; the workloads bring their own.
    pub fn compare(
        &self,
        workloads: &[Workload],
        seed: u64,
        mut progress: impl FnMut(Progress<'_>),
    ) -> Report {
        let schedulers: Vec<_> =
            self.contenders.iter().filter(|it| it.planners.is_none()).collect();
        let of = workloads.len() * self.contenders.len() + self.growth.len() * schedulers.len();
        let mut done = 0;
        let mut tell = |workload: &str, strategy: &str| {
            progress(Progress { done, of, workload, strategy });
            done += 1;
        };
        let mut runs = Vec::new();
        for workload in workloads {
            for contender in &self.contenders {
                tell(&workload.name, &contender.name);
                runs.push(self.run(workload, contender, seed));
            }
        }
        let mut growth = Vec::new();
        for nodes in &self.growth {
            let start = growth::cluster(*nodes, seed);
            // Those that look at every node take longer the more there are.
            let decisions = (1_000_000 / nodes.max(&1)).clamp(20, 200);
            for contender in &schedulers {
                tell(&format!("{nodes} nodes"), &contender.name);
                growth.push(growth::measure(contender, &start, decisions, (&self.clock, seed)));
            }
        }
        let about = |workload: &Workload| About {
            name: workload.name.clone(),
            about: workload.about.clone(),
            nodes: workload.nodes.len(),
            events: workload.events.len(),
        };
        let strategies = self.contenders.iter().map(|contender| contender.name.clone()).collect();
        Report { seed, strategies, workloads: workloads.iter().map(about).collect(), runs, growth }
    }

    fn run(&self, workload: &Workload, contender: &Contender, seed: u64) -> Run {
        let timed = Arc::new(Timed::new(contender.scheduler(), self.clock.clone()));
        let planners = contender.planners(timed.clone());
        let mut world = World::new(workload, &contender.strategy, planners, seed);
        let (mut probe, mut samples) = (Probe::default(), Vec::new());
        let mut events = workload.events.iter().peekable();
        for number in 1..=self.samples {
            let until = workload.length * number / self.samples;
            while let Some((at, event)) = events.next_if(|(at, _)| *at <= until) {
                world.advance(*at);
                world.play(event);
            }
            world.advance(until);
            samples.push(probe.sample(seconds(until), &world.view()));
            world.report_loads(&probe.reported());
        }
        Run {
            strategy: contender.name.clone(),
            workload: workload.name.clone(),
            quality: Quality::of(&samples, world.moved()),
            speed: timed.speed(),
            samples,
        }
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests;
