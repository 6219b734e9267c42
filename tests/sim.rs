//! Whole clusters from seeds: a handful here, since this build is slow; `scripts/test` plays 300 in
//! a release build.

use swarm::sim::{Outcome, Size, World, draw, play};

fn played(seed: u64, size: &Size) -> Outcome {
    play(World::new(draw(seed, size)))
}

/// `cargo run --release --example simulate -- --seed N` makes a failing one small.
#[test]
fn some_seeds_hold() {
    for seed in 1..=4 {
        let outcome = played(seed, &Size::small());
        assert!(outcome.violation.is_none(), "{outcome}");
        assert!(outcome.events > 1_000, "seed {seed}: hardly anything happened");
    }
}

#[test]
fn a_seed_plays_the_same_way_twice_and_another_does_not() {
    let once = played(11, &Size::small());
    assert_eq!(once, played(11, &Size::small()));
    assert_ne!(once.digest, played(12, &Size::small()).digest);
}

/// A script that went through its text is the script: what it plays is the same to the bit.
#[test]
fn a_script_plays_as_its_text_does() {
    let script = draw(13, &Size::small());
    let read = script.to_string().parse().unwrap();
    let (drawn, read) = (play(World::new(script)), play(World::new(read)));
    assert_eq!(drawn.digest, read.digest);
}
