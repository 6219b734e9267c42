//! Plays simulated clusters: `cargo run --release --example simulate -- --seed N`.
//!
//! Prints the timeline of the first seed in which something does not hold, and how to play it again.

use clap::Parser;
use swarm::sim::{Size, World, draw, play};

/// Plays simulated clusters from seeds, and looks for one in which an invariant does not hold.
#[derive(Parser)]
struct Options {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds to play, one after the other.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Nodes beside the managers, at most.
    #[arg(long, default_value_t = Size::small().workers)]
    nodes: usize,
    /// Services, at most.
    #[arg(long, default_value_t = Size::small().services)]
    services: usize,
    /// Print the whole timeline.
    #[arg(long)]
    trace: bool,
}

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    let size = Size { workers: options.nodes, services: options.services, ..Size::small() };
    let began = std::time::Instant::now();
    let mut virtual_time = std::time::Duration::ZERO;
    let mut failed = 0;
    for seed in options.seed..options.seed + options.seeds {
        let world = World::new(draw(seed, &size));
        let outcome = play(if options.trace { world.traced() } else { world });
        virtual_time += outcome.elapsed;
        if options.trace {
            outcome.timeline.iter().for_each(|line| println!("{line}"));
        }
        if outcome.violation.is_some() {
            println!("{outcome}");
            failed += 1;
        }
    }
    let hours = virtual_time.as_secs_f64() / 3_600.0;
    println!(
        "{} seeds, {hours:.1} simulated hours in {:.1} s, {failed} failed",
        options.seeds,
        began.elapsed().as_secs_f64()
    );
    std::process::ExitCode::from(u8::from(failed > 0))
}
