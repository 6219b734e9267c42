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
//! let report = lab.compare(&[Workload::named("uniform", 10, 1)?], 1, |_| {})?;
//! let run = |name| &report.of("uniform").find(|run| run.strategy == name).unwrap().quality;
//! assert!(run("tightest").packing < run("spread").packing);
//! # Ok::<(), swarm_sched::lab::Invalid>(())
//! ```
//!
//! | file | what it says |
//! |---|---|
//! | [`workload`], `draft`, [`sizes`], `dice` | what happens, with which sizes, drawn how |
//! | `check` | what is wrong with it, if anything is |
//! | `world` | the cluster of one run |
//! | [`measure`], [`speed`], [`bound`], [`growth`] | what is measured, with every definition |
//! | [`table`], [`page`] | the report as a text and as a web page |

pub mod bound;
mod check;
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

use serde::Serialize;
use swarm_core::control::Planner;
use swarm_core::model::Labels;
use swarm_core::scheduler::Scheduler;

pub use check::Invalid;
pub use dice::Dice;
pub use growth::Growth;
pub use measure::{Quality, Sample};
pub use speed::{Clock, Speed, no_clock};
pub use workload::{Event, Workload};

use crate::default_planners;
use crate::place::{STRATEGY_LABEL, Strategy, StrategyScheduler};
use measure::Probe;
use speed::Timed;
use world::World;

/// What is compared: a name, and how to make a scheduler that knows nothing yet.
pub struct Contender {
    name: String,
    /// The cluster's default, where the scheduler has strategies to choose from.
    strategy: Option<String>,
    make: Rc<dyn Fn() -> Arc<dyn Scheduler>>,
    /// What plans beside a manager's own planners, if anything does.
    planners: Option<Box<MakePlanners>>,
}

type MakePlanners = dyn Fn(Arc<dyn Scheduler>) -> Vec<Arc<dyn Planner>>;

impl Contender {
    /// A strategy that a scheduler has by this name.
    fn strategy(name: &str, make: impl Fn() -> StrategyScheduler + 'static) -> Self {
        let make = Rc::new(move || Arc::new(make()) as Arc<dyn Scheduler>);
        Self { name: name.to_owned(), strategy: Some(name.to_owned()), make, planners: None }
    }

    /// What makes it the default of a cluster.
    fn labels(&self) -> Labels {
        self.strategy.iter().map(|name| (STRATEGY_LABEL.to_owned(), name.clone())).collect()
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
    report_every: Duration,
    growth: Vec<usize>,
    /// What is wrong with a contender.
    invalid: Option<Invalid>,
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
#[derive(Clone, Debug, PartialEq, Serialize)]
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

/// Everything that was found out, of one seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
        let known = |name: &str| Contender::strategy(name, StrategyScheduler::default);
        let contenders = ["spread", "binpack", "random", "least-loaded"].map(known).into();
        let (report_every, growth) = (Duration::from_secs(20), Vec::new());
        Self { contenders, clock, samples: 60, report_every, growth, invalid: None }
    }

    /// Adds a strategy of one's own. Its maker is called once for each run.
    #[must_use]
    pub fn with<S: Strategy>(mut self, name: &str, make: impl Fn() -> S + 'static) -> Self {
        let label = name.to_owned();
        let make = move || StrategyScheduler::default().with(&label, make());
        self.contenders.push(Contender::strategy(name, make));
        self
    }

    /// Adds a scheduler of one's own: anything behind the trait, under any name. The cluster names
    /// no strategy to it, so that a [`StrategyScheduler`] places by its `spread`.
    #[must_use]
    pub fn with_scheduler(
        mut self,
        name: &str,
        make: impl Fn() -> Arc<dyn Scheduler> + 'static,
    ) -> Self {
        let (name, make) = (name.to_owned(), Rc::new(make));
        self.contenders.push(Contender { name, strategy: None, make, planners: None });
        self
    }

    /// Adds a contender that the lab has already, with planners beside a manager's own: one that
    /// moves tasks, for example (`Rebalance` moves only what `spread` places). They get a scheduler of
    /// their own, so that what they ask is not in its speed, and growth leaves it out: it would be that
    /// of the other.
    #[must_use]
    pub fn with_planners(
        mut self,
        name: &str,
        of: &str,
        make: impl Fn(Arc<dyn Scheduler>) -> Vec<Arc<dyn Planner>> + 'static,
    ) -> Self {
        let Some(known) = self.contenders.iter().find(|it| it.name == of) else {
            let why =
                format!("{name:?} is to be {of:?} with more planners, which is not there yet");
            self.invalid.get_or_insert(Invalid(why));
            return self;
        };
        let (strategy, make_scheduler) = (known.strategy.clone(), known.make.clone());
        let (name, planners) = (name.to_owned(), Some(Box::new(make) as Box<MakePlanners>));
        self.contenders.push(Contender { name, strategy, make: make_scheduler, planners });
        self
    }

    /// How often each run is looked at, in equal steps of time (60 unless told, at least 2). What is
    /// decided does not depend on it.
    #[must_use]
    pub fn samples(self, samples: u32) -> Self {
        Self { samples, ..self }
    }

    /// How often nodes report their load to `least-loaded`, as percent of the larger part of CPU and
    /// memory that is reserved (every 20 s unless told, as agents do). In between it is out of date.
    #[must_use]
    pub fn report_every(self, report_every: Duration) -> Self {
        Self { report_every, ..self }
    }

    /// Also measures single decisions on clusters of so many nodes.
    #[must_use]
    pub fn growth(self, nodes: &[usize]) -> Self {
        Self { growth: nodes.to_vec(), ..self }
    }

    /// Plays every workload for every contender, and tells before each run how far it is. The seed is
    /// that of the ids that the planners draw; the workloads bring their own.
    ///
    /// # Errors
    /// What is wrong with a workload, a contender or a setting, before anything is played.
    pub fn compare(
        &self,
        workloads: &[Workload],
        seed: u64,
        mut progress: impl FnMut(Progress<'_>),
    ) -> Result<Report, Invalid> {
        self.check(workloads)?;
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
        let workloads = workloads.iter().map(about).collect();
        Ok(Report { seed, strategies, workloads, runs, growth })
    }

    fn check(&self, workloads: &[Workload]) -> Result<(), Invalid> {
        self.invalid.clone().map_or(Ok(()), Err)?;
        if self.samples < 2 || self.report_every.is_zero() {
            let why = "a run needs 2 samples at least, and a time between reports of load";
            return Err(Invalid(why.to_owned()));
        }
        check::unique("contenders", self.contenders.iter().map(|it| &it.name))?;
        check::unique("workloads", workloads.iter().map(|it| &it.name))?;
        workloads.iter().try_for_each(Workload::check)
    }

    fn run(&self, workload: &Workload, contender: &Contender, seed: u64) -> Run {
        let timed = Arc::new(Timed::new(contender.scheduler(), self.clock.clone()));
        let planners = contender.planners(timed.clone());
        let mut world = World::new(workload, contender.labels(), planners, seed);
        let (mut probe, mut samples) = (Probe::default(), Vec::new());
        for (at, moment) in self.moments(workload) {
            world.advance(at);
            match moment {
                Moment::Event(event) => world.play(event),
                Moment::Sample => samples.push(probe.sample(at.as_secs_f64(), &world.view())),
                Moment::Report => world.report_loads(&probe.reported(&world.view())),
            }
        }
        Run {
            strategy: contender.name.clone(),
            workload: workload.name.clone(),
            quality: Quality::of(&samples, world.moved()),
            speed: timed.speed(),
            samples,
        }
    }

    /// When what is done in a run: of the same time events first, reports last.
    fn moments<'a>(&self, workload: &'a Workload) -> Vec<(Duration, Moment<'a>)> {
        let length = workload.length;
        let event = |(at, event)| (at, Moment::Event(event));
        let mut moments: Vec<_> = workload.in_order().into_iter().map(event).collect();
        let samples = (1..=self.samples).map(|number| length * number / self.samples);
        moments.extend(samples.map(|at| (at, Moment::Sample)));
        let reports = (1..).map(|number| self.report_every * number);
        let reports = reports.take_while(|at| *at <= length);
        moments.extend(reports.map(|at| (at, Moment::Report)));
        moments.sort_by_key(|(at, _)| *at);
        moments
    }
}

/// What is done at a time of a run.
enum Moment<'a> {
    Event(&'a Event),
    Sample,
    Report,
}

#[cfg(test)]
mod tests;
