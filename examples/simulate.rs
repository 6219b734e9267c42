//! Plays simulated clusters: `cargo run --release --example simulate -- --seed N --seeds M`.
//!
//! When something does not hold it prints the smallest script in which it does not hold, the
//! timeline of that, and the command that does it again.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Parser;
use swarm::sim::{Outcome, Script, Size, TRIES, World, coverage, draw, play, shrink};

/// So many seeds must meet everything that [`coverage::REQUIRED`] lists.
const ENOUGH: u64 = 300;

/// Plays simulated clusters from seeds, and looks for one in which an invariant does not hold.
#[derive(Parser)]
struct Options {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds to play.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Nodes beside the managers, at most.
    #[arg(long, default_value_t = Size::small().workers)]
    nodes: usize,
    /// Services, at most.
    #[arg(long, default_value_t = Size::small().services)]
    services: usize,
    /// Managers, at most.
    #[arg(long, default_value_t = Size::small().managers)]
    managers: usize,
    /// A script to play instead of drawn ones.
    #[arg(long)]
    script: Option<std::path::PathBuf>,
    /// Seeds that are played at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Seeds to leave out, such as those of bugs that are known: `--except 159,162`.
    #[arg(long, value_delimiter = ',')]
    except: Vec<u64>,
    /// Print the whole timeline.
    #[arg(long)]
    trace: bool,
    /// Show what fails as it is.
    #[arg(long)]
    no_shrink: bool,
    /// Print a digest of each seed: equal ones for runs in which the same happened.
    #[arg(long)]
    digests: bool,
    /// Print how often everything happened that shall be covered.
    #[arg(long)]
    coverage: bool,
}

impl Options {
    fn script(&self, seed: u64) -> Script {
        let (managers, workers) = (self.managers, self.nodes);
        let size = Size { managers, workers, services: self.services, ..Size::small() };
        draw(seed, &size)
    }

    fn play(&self, script: Script) -> Outcome {
        let world = World::new(script);
        play(if self.trace { world.traced() } else { world })
    }

    fn play_seed(&self, seed: u64) -> Outcome {
        let mut outcome = self.play(self.script(seed));
        if outcome.violation.is_none() && !self.trace {
            outcome.timeline.clear();
        }
        outcome
    }

    /// Plays every seed, on several threads; outcomes in the order of seeds.
    fn play_seeds(&self) -> BTreeMap<u64, Outcome> {
        let (next, end) = (AtomicU64::new(self.seed), self.seed + self.seeds);
        let (sender, outcomes) = mpsc::channel();
        let mut played = BTreeMap::new();
        let mut said = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if self.except.contains(&seed) {
                            continue;
                        }
                        if seed >= end || sender.send((seed, self.play_seed(seed))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            for (seed, outcome) in outcomes {
                played.insert(seed, outcome);
                if said.elapsed() > Duration::from_secs(10) {
                    said = Instant::now();
                    eprintln!("{} of {} seeds", played.len(), self.seeds);
                }
            }
        });
        played
    }

    /// Prints what fails: small, line by line, and how to see it again.
    fn explain(&self, script: &Script, outcome: &Outcome) {
        let Some(violation) = &outcome.violation else { return };
        let (mut script, mut outcome) = (script.clone(), outcome.clone());
        if !self.no_shrink {
            eprintln!("{violation}; looking for a smaller script");
            let again = |script: &Script| play(World::new(script.clone())).violation;
            (script, _) = shrink(&script, violation, TRIES, again);
            outcome = self.play(script.clone());
        }
        println!("{script}\n{outcome}");
        let what = match &self.script {
            Some(path) => format!("--script {}", path.display()),
            None => format!(
                "--seed {} --managers {} --nodes {} --services {}",
                script.seed, self.managers, self.nodes, self.services
            ),
        };
        println!("again: cargo run --release --example simulate -- {what}");
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(path) = &options.script {
        return play_file(&options, path);
    }
    let began = Instant::now();
    let played = options.play_seeds();
    let mut coverage = BTreeMap::new();
    for (seed, outcome) in &played {
        if options.digests {
            println!("{seed} {:016x}", outcome.digest);
        }
        if options.trace && outcome.violation.is_none() {
            outcome.timeline.iter().for_each(|line| println!("{line}"));
        }
        for (what, count) in &outcome.coverage {
            *coverage.entry(*what).or_default() += count;
        }
    }
    let failed: Vec<_> = played.iter().filter(|(_, o)| o.violation.is_some()).collect();
    if let Some((seed, outcome)) = failed.first() {
        options.explain(&options.script(**seed), outcome);
    }
    for (seed, outcome) in &failed {
        outcome.violation.iter().for_each(|violation| println!("seed {seed}: {violation}"));
    }
    if options.coverage {
        coverage.iter().for_each(|(what, count)| println!("{count:>9}  {what}"));
    }
    let missing = coverage::missing(&coverage);
    let too_little = options.coverage && options.seeds >= ENOUGH && !missing.is_empty();
    if too_little {
        println!("insufficient coverage rejects the run: never seen: {}", missing.join("; "));
    }
    let elapsed: f64 = played.values().map(|outcome| outcome.elapsed.as_secs_f64()).sum();
    eprintln!(
        "{} seeds, {:.1} simulated hours in {:.1} s, {} failed",
        played.len(),
        elapsed / 3_600.0,
        began.elapsed().as_secs_f64(),
        failed.len()
    );
    ExitCode::from(u8::from(!failed.is_empty() || too_little))
}

fn play_file(options: &Options, path: &std::path::Path) -> ExitCode {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
    let read = text.and_then(|text| text.parse::<Script>().map_err(|error| error.to_string()));
    let script = match read {
        Ok(script) => script,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let outcome = options.play(script.clone());
    if options.trace && outcome.violation.is_none() {
        outcome.timeline.iter().for_each(|line| println!("{line}"));
    }
    options.explain(&script, &outcome);
    if options.digests {
        println!("{} {:016x}", path.display(), outcome.digest);
    }
    ExitCode::from(u8::from(outcome.violation.is_some()))
}
