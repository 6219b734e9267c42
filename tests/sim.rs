//! Whole clusters from seeds: a handful here, since this build is slow; `scripts/test` plays 300 in
//! a release build.

use swarm::sim::{Outcome, Size, World, draw, play};

/// Small enough for this build.
fn size() -> Size {
    let lasts = std::time::Duration::from_secs(180);
    Size { services: 4, requests: 12, faults: 10, lasts, ..Size::small() }
}

fn played(seed: u64) -> Outcome {
    play(World::new(draw(seed, &size())))
}

/// `cargo run --release --example simulate -- --seed N` makes a failing one small.
#[test]
fn some_seeds_hold() {
    for seed in 1..=4 {
        let outcome = played(seed);
        assert!(outcome.violation.is_none(), "{outcome}");
        assert!(outcome.events > 1_000, "seed {seed}: hardly anything happened");
    }
}

#[test]
fn a_seed_plays_the_same_way_twice_and_another_does_not() {
    let once = played(11);
    assert_eq!(once, played(11));
    assert_ne!(once.digest, played(12).digest);
}

/// A script that went through its text is the script: what it plays is the same to the bit.
#[test]
fn a_script_plays_as_its_text_does() {
    let script = draw(13, &size());
    let read = script.to_string().parse().unwrap();
    let (drawn, read) = (play(World::new(script)), play(World::new(read)));
    assert_eq!(drawn.digest, read.digest);
}
