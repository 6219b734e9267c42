//! Pure: fill one node before the next, as Swarm v1's `binpack` (`scheduler/strategy/binpack.go`).

use std::cmp::Reverse;

use crate::place::{Candidate, Strategy};

/// Prefers the node that will be the fullest with the task on it, so that others stay empty for
/// what is large, or can be switched off. It goes by what tasks reserve, not by what they use, and
/// of equally full nodes it prefers the one with more tasks. What a task does not reserve counts
/// as full everywhere, as in v1; nodes that keep failing come last, as in spread.
#[derive(Clone, Copy, Debug, Default)]
pub struct BinPack;

impl Strategy for BinPack {
    type Score = (u32, Reverse<(i64, u64)>);

    fn score(&self, candidate: &Candidate<'_>) -> Self::Score {
        let wanted = candidate.demand.reservation();
        let (cpus, memory) = wanted.map_or((0, 0), |it| (it.nano_cpus, it.memory_bytes));
        let load = candidate.load;
        let weight = percent(cpus, load.free_cpus(), load.total_cpus())
            + percent(memory, load.free_memory(), load.total_memory());
        (candidate.faults(), Reverse((weight, load.active())))
    }

    fn newcomers_alike(&self) -> bool {
        true
    }
}

/// How full a node is with so much more of something, of 100.
fn percent(wanted: i64, free: i64, total: i64) -> i64 {
    if wanted <= 0 || total <= 0 {
        return 100;
    }
    let used = i128::from(total) - i128::from(free) + i128::from(wanted);
    i64::try_from(used * 100 / i128::from(total)).unwrap_or(i64::MAX)
}
