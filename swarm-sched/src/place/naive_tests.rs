//! The scheduler decides as its [`definition`] says, whatever it remembers from earlier views.
//!
//! Random clusters live through random histories ([`draw`], [`history`]). Now and then a planner with
//! the production scheduler is asked, and every task must be where the definition puts it, with the
//! same claims, or wait with the same words. The clusters are the same in every run, so that what they
//! have to meet is met in each; with a number in `PROPTEST_RNG_SEED` they are others.

mod coverage;
mod definition;
mod draw;
mod filters;
mod history;
mod near;
mod ranks;

use std::cell::RefCell;
use std::cmp::Reverse;

use proptest::prelude::{ProptestConfig, Strategy as _, any};
use proptest::test_runner::{RngSeed, TestCaseError, TestError, TestRunner};

use super::{Candidate, Strategy};
use coverage::Coverage;
use draw::Row;
use history::{History, World};

/// How many clusters each of the four tests plays.
const CLUSTERS: u32 = 1_000;

/// A strategy of one's own: the freest node, of those where the service did not fail at all.
struct Emptiest;

impl Strategy for Emptiest {
    type Score = (u32, Reverse<i64>, Reverse<u64>);

    fn score(&self, candidate: &Candidate<'_>) -> Self::Score {
        let (free, own) = (candidate.load.free_memory(), candidate.tasks_of_service());
        (candidate.failures, Reverse(free), Reverse(own))
    }

    fn newcomers_alike(&self) -> bool {
        true
    }
}

/// One that promises to prefer newcomers, and fills the other nodes.
struct Wide;

impl Strategy for Wide {
    type Score = (u32, bool, i64);

    fn score(&self, candidate: &Candidate<'_>) -> Self::Score {
        let own = candidate.tasks_of_service().cast_signed();
        let rank = if own == 0 { candidate.load.active().cast_signed() } else { -own };
        (candidate.faults(), own > 0, rank)
    }

    fn newcomers_first(&self) -> bool {
        true
    }
}

/// Plays histories, and says what they met.
fn play(part: u64) {
    let rows = |count| proptest::collection::vec(any::<Row>(), count);
    // What is made small first stands first.
    let history = (rows(15..45), rows(3..8), any::<[Row; 4]>(), any::<Row>());
    let history = history.prop_map(|(events, nodes, services, cluster)| History {
        events,
        nodes,
        services,
        cluster,
    });
    let coverage = RefCell::new(Coverage::default());
    let config = ProptestConfig::default();
    let seed = match config.rng_seed {
        RngSeed::Random => 0,
        RngSeed::Fixed(seed) => seed,
    };
    let config = ProptestConfig {
        cases: CLUSTERS,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(4 * seed + part),
        ..config
    };
    let played = TestRunner::new(config).run(&history, |history| {
        World::play(&history, &mut coverage.borrow_mut()).map_err(TestCaseError::fail)
    });
    if let Err(TestError::Fail(why, history)) = played {
        panic!("{why}\nin {history:?}");
    }
    let coverage = coverage.into_inner();
    println!("{CLUSTERS} clusters: {coverage}");
    assert_eq!(coverage.missing(), Vec::<String>::new(), "{coverage}");
}

// Four times, so that they run at the same time.

#[test]
fn a_thousand_clusters_are_as_defined() {
    play(0);
}

#[test]
fn so_are_a_thousand_more() {
    play(1);
}

#[test]
fn and_a_third_thousand() {
    play(2);
}

#[test]
fn and_a_fourth() {
    play(3);
}
