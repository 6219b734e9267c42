//! Plants bugs in a cluster and says after how many simulated seeds each was found: how strong the
//! oracle is. `cargo run --release --example planted`
//!
//! A bug of a planner is a [`Liar`]: a planner that is shown a false view, or whose plan is altered.
//! So this is also how to test planners of one's own.

mod bugs;
mod liar;

use clap::Parser;
use swarm::sim::{Size, World, draw, invariant, play};

use bugs::Bug;

/// Plants bugs and looks for them.
#[derive(Parser)]
struct Options {
    /// Seeds to play for each bug, at most.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// Only the bugs whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    let bugs: Vec<Bug> =
        bugs::all().into_iter().filter(|b| b.name.contains(&options.only)).collect();
    println!("| planted bug | found by | seeds |\n|---|---|---|");
    let found = bugs.iter().filter(|bug| {
        let (by, after) =
            find(bug, options.seeds).unwrap_or(("**nothing**".to_owned(), options.seeds));
        println!("| {} | {by} | {after} |", bug.name);
        !by.contains("nothing")
    });
    let found = found.count();
    println!("\n{found} of {} bugs found within {} seeds each", bugs.len(), options.seeds);
    std::process::ExitCode::from(u8::from(found < bugs.len()))
}

/// The invariant that finds a bug, and after how many seeds.
fn find(bug: &Bug, seeds: u64) -> Option<(String, u64)> {
    (1..=seeds).find_map(|seed| {
        let script = draw(seed, &Size::small());
        let world = World::with(script, bug.planners(), invariant::all());
        let violation = play(world.meddled(bug.meddle.clone())).violation?;
        Some((violation.invariant, seed))
    })
}
