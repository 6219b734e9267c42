//! Plants bugs in a cluster and says after how many simulated seeds each was found: how strong the
//! oracle is. `cargo run --release --example planted`
//!
//! A bug of a planner is a [`Liar`]: a planner that is shown a false view, or whose plan is altered.
//! So this is also how to test planners of one's own.

mod bugs;
mod liar;

use clap::Parser;
use swarm::sim::{Script, Size, TRIES, Violation, World, draw, invariant, play, shrink};

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
    /// Print the smallest script in which each was found.
    #[arg(long)]
    show: bool,
}

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    let bugs: Vec<Bug> =
        bugs::all().into_iter().filter(|b| b.name.contains(&options.only)).collect();
    println!("| planted bug | found by | seeds |\n|---|---|---|");
    let found = bugs.iter().filter(|bug| {
        let Some((script, violation)) = find(bug, options.seeds) else {
            println!("| {} | **nothing** | {} |", bug.name, options.seeds);
            return false;
        };
        println!("| {} | {} | {} |", bug.name, violation.invariant, script.seed);
        if options.show {
            let (script, violation) = shrink(&script, &violation, TRIES, |script| bug.play(script));
            println!("\n{violation}, after:\n\n{script}");
        }
        true
    });
    let found = found.count();
    println!("\n{found} of {} bugs found within {} seeds each", bugs.len(), options.seeds);
    std::process::ExitCode::from(u8::from(found < bugs.len()))
}

/// The first script in which a bug is found, and by which invariant.
fn find(bug: &Bug, seeds: u64) -> Option<(Script, Violation)> {
    let mut scripts = (1..=seeds).map(|seed| draw(seed, &Size::small()));
    scripts.find_map(|script| bug.play(&script).map(|violation| (script, violation)))
}

impl Bug {
    /// What does not hold when a cluster with this bug plays a script.
    fn play(&self, script: &Script) -> Option<Violation> {
        let world = World::with(script.clone(), self.planners(), invariant::all());
        play(world.meddled(self.meddle.clone())).violation
    }
}
