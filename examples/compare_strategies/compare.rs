//! Every placement strategy on the same clusters, an embedder's own among them: a table on standard
//! output, and one page of plots for a browser.
//!
//! `cargo run --release --example compare_strategies -- --help`

// The rules of the crate whose example this is, that time is an argument, are for decisions.
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use swarm_core::control::Planner;
use swarm_core::scheduler::Scheduler;
use swarm_sched::lab::{Clock, Lab, Progress, Workload, page, table, workload};
use swarm_sched::orchestrate::Rebalance;
use swarm_sched::place::{Candidate, Strategy};

/// A strategy of one's own: of the nodes that suit, the one whose CPU and memory are left in the
/// ratio that is nearest to the ratio of what it has, so that neither is stranded; keeps the tasks
/// of a service apart first.
struct Balanced;

impl Strategy for Balanced {
    type Score = (u64, u64);

    fn score(&self, candidate: &Candidate<'_>) -> Self::Score {
        let load = candidate.load;
        let wanted = candidate.demand.reservation();
        let (cpus, memory) = wanted.map_or((0, 0), |it| (it.nano_cpus, it.memory_bytes));
        let left = |free: i64, wanted: i64, total: i64| {
            i128::from(free - wanted) * 1_000_000 / i128::from(total.max(1))
        };
        let cpus = left(load.free_cpus(), cpus, load.total_cpus());
        let memory = left(load.free_memory(), memory, load.total_memory());
        let apart = u64::try_from((cpus - memory).abs()).unwrap_or(u64::MAX);
        (candidate.tasks_of_service(), apart)
    }

    // Where the service has no task, only the node and what is reserved count.
    fn newcomers_alike(&self) -> bool {
        true
    }
}

/// Compares placement strategies on reproducible workloads.
#[derive(Parser)]
struct Flags {
    /// How many nodes each workload has: 10 at least.
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// Decisions and all figures of quality are the same for the same seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many seeds from that one on: the table has medians, lowest and highest; growth and the page
    /// are of the first.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    seeds: u64,
    /// Where everything goes that was found out, unrounded, as JSON: a list with a report for each seed.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the page goes.
    #[arg(long, default_value = "target/compare_strategies.html")]
    out: PathBuf,
    /// Fewer nodes, fewer sizes: some seconds.
    #[arg(long)]
    quick: bool,
    /// Only this workload (repeatable): uniform, google, alibaba, bursts, losses, updates, labels.
    #[arg(long = "workload")]
    workloads: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    let nodes = if flags.quick { flags.nodes.min(30) } else { flags.nodes };
    let all = workload::NAMES.map(str::to_owned).to_vec();
    let names = if flags.workloads.is_empty() { all } else { flags.workloads };
    let sizes: &[usize] = if flags.quick { &[100, 1_000] } else { &[100, 1_000, 10_000, 100_000] };

    let start = Instant::now();
    let clock: Clock = Arc::new(processor_time);
    let mut lab = Lab::new(clock)
        .with("balanced", || Balanced)
        .with_planners("spread, moving", "spread", moving)
        .growth(sizes);
    let mut reports = Vec::new();
    for seed in flags.seed..flags.seed.saturating_add(flags.seeds) {
        let named = |name: &String| Workload::named(name, nodes, seed);
        let workloads = names.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        reports.push(lab.compare(&workloads, seed, |progress| show(seed, progress))?);
        // Once is enough: its times do not go by what is drawn.
        lab = lab.growth(&[]);
    }
    eprintln!("\r{:80}\rtook {:.1} s", "", start.elapsed().as_secs_f64());

    print!("{}", table::table(&reports));
    let build = if cfg!(debug_assertions) { "debug build: speeds mean nothing" } else { "release" };
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let note =
        format!("{build}, {system}, processor time of the scheduler in each answer, one thread");
    if let Some(folder) = flags.out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&flags.out, page::page(&reports[0], &note))?;
    println!("\nplots: {}", flags.out.display());
    if let Some(path) = flags.json {
        let mut file = BufWriter::new(File::create(&path)?);
        serde_json::to_writer(&mut file, &reports)?;
        file.flush()?;
        println!("data: {}", path.display());
    }
    Ok(())
}

/// Swarm's strategy, with tasks that move to where there is less to do: four at a time.
fn moving(scheduler: Arc<dyn Scheduler>) -> Vec<Arc<dyn Planner>> {
    vec![Arc::new(Rebalance::new(scheduler, 4, Duration::from_secs(10)))]
}

/// Processor time of this thread: what else the machine does counts less than in wall time.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// A line that is written over.
fn show(seed: u64, progress: Progress<'_>) {
    let Progress { done, of, workload, strategy } = progress;
    let filled = 20 * done / of;
    let bar = format!("{}{}", "█".repeat(filled), "░".repeat(20 - filled));
    eprint!("\r{bar} {done:>3} of {of}  {:40}", format!("seed {seed}, {workload}, {strategy}"));
    let _ = std::io::stderr().flush();
}
