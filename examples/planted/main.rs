//! Plants bugs in a cluster and says after how many simulated seeds each was found: how strong the
//! oracle is. `cargo run --release --example planted`
//!
//! A bug of a planner is a [`Liar`](liar::Liar): a planner that is shown a false view, or whose plan
//! is altered. So this is also how to test planners of one's own. One of what a scheduler remembers is
//! a [`Forgetful`](forgetful::Forgetful) one.

mod bugs;
mod forgetful;
mod liar;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use clap::Parser;
use swarm::sim::{Script, Size, TRIES, Violation, World, draw, play, shrink};

use bugs::Bug;

/// Seeds of [`Options::quick`].
const QUICK: u64 = 3;

/// Plants bugs and looks for them.
#[derive(Parser)]
struct Options {
    /// Seeds to play for each bug, at most.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// Only the bugs whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only the bugs that are known to be found at once, each within three seeds: whether the
    /// invariants still see anything.
    #[arg(long)]
    quick: bool,
    /// Bugs that are played at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Print the smallest script in which each was found.
    #[arg(long)]
    show: bool,
}

impl Options {
    fn bugs(&self) -> Vec<Bug> {
        let wanted = |bug: &Bug| bug.name.contains(&self.only) && (bug.quick || !self.quick);
        bugs::all().into_iter().filter(wanted).collect()
    }

    fn seeds(&self) -> u64 {
        if self.quick { QUICK } else { self.seeds }
    }
}

/// A script in which a bug was found, and what did not hold in it.
type Find = Option<(Script, Violation)>;

fn main() -> ExitCode {
    let options = Options::parse();
    let bugs = options.bugs();
    if bugs.is_empty() {
        eprintln!(
            "no planted bug has {:?} in its name; without --only all are played",
            options.only
        );
        return ExitCode::FAILURE;
    }
    println!("| planted bug | as in | found by | seeds |\n|---|---|---|---|");
    let (next, mut finds) = (AtomicUsize::new(0), BTreeMap::new());
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            let (sender, next, bugs, seeds) = (sender.clone(), &next, &bugs, options.seeds());
            scope.spawn(move || {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send((bug.name, bug.find(seeds))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut shown = bugs.iter().peekable();
        for (name, find) in receiver {
            finds.insert(name, find);
            while let Some((bug, find)) = shown.peek().and_then(|b| Some((*b, finds.get(b.name)?)))
            {
                options.print(bug, find);
                shown.next();
            }
        }
    });
    let found = finds.values().flatten().count();
    println!("\n{found} of {} bugs found within {} seeds each", bugs.len(), options.seeds());
    ExitCode::from(u8::from(found < bugs.len()))
}

impl Options {
    /// A row of the table.
    fn print(&self, bug: &Bug, find: &Find) {
        let Some((script, violation)) = find else {
            println!("| {} | {} | **nothing** | {} |", bug.name, bug.history, self.seeds());
            return;
        };
        let (by, seed) = (&violation.invariant, script.seed);
        println!("| {} | {} | {by} | {seed} |", bug.name, bug.history);
        if self.show {
            let (script, violation) = shrink(script, violation, TRIES, |script| bug.play(script));
            println!("\n{violation}, after:\n\n{script}");
        }
    }
}

impl Bug {
    /// The first script in which it is found, and by which invariant.
    fn find(&self, seeds: u64) -> Find {
        let mut scripts = (1..=seeds).map(|seed| draw(seed, &Size::small()));
        scripts.find_map(|script| {
            let violation = self.play(&script)?;
            // What fails without the bug says nothing of it.
            let sound = play(World::new(script.clone())).violation.is_none();
            sound.then_some((script, violation))
        })
    }

    /// What does not hold when a cluster with this bug plays a script.
    fn play(&self, script: &Script) -> Option<Violation> {
        let (planners, invariants) = self.world();
        let world = World::with(script.clone(), planners, invariants);
        play(world.meddled(self.meddle.clone())).violation
    }
}
