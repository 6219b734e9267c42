//! A placement strategy of one's own, compared with those that there are.
//! A node gets it by `parts.scheduler = Some(Arc::new(StrategyScheduler::default().with("headroom",
//! Headroom)))`, and a service by the label `swarm.strategy=headroom`.

use swarm_sched::conformance;
use swarm_sched::lab::{Lab, Workload, no_clock};
use swarm_sched::place::{Candidate, Strategy};

/// Fills the fullest node, but none beyond four fifths while there is another: the empty ones can
/// be switched off, and those in use have room for a burst.
struct Headroom;

impl Strategy for Headroom {
    type Score = (bool, i64);

    /// The lowest is the best, of the nodes that passed every filter.
    fn score(&self, node: &Candidate<'_>) -> Self::Score {
        let wanted = node.demand.reservation().map_or(0, |it| it.memory_bytes);
        let left = node.load.free_memory() - wanted;
        (left < node.load.total_memory() / 5, left)
    }

    /// Nothing but the node and the reservation counts: the order of nodes may be kept.
    fn newcomers_alike(&self) -> bool {
        true
    }
}

fn main() {
    conformance::strategy::suite(|| Headroom, |_, _| {});
    let workload = Workload::named("alibaba", 30, 1).expect("it comes with the lab");
    let lab = Lab::new(no_clock()).with("headroom", || Headroom);
    let report = lab.compare(&[workload], 1, |_| {}).expect("it can be played");
    for run in report.of("alibaba") {
        let (packing, balance) = (run.quality.packing, run.quality.load_imbalance);
        let name = &run.strategy;
        println!("{name}: {packing:.2} times the nodes of best fit, imbalance {balance:.2}");
    }
}
