//! The definition of the strategies, in a few lines each.

use swarm_core::model::*;

use super::filters::{At, label, reserved};

/// The strategies: those of the crate and two of the test's own.
pub(super) const STRATEGIES: [&str; 6] =
    ["spread", "binpack", "random", "least-loaded", "emptiest", "wide"];

/// How good a node is for a task, whose service failed there so often: the smallest is the best.
pub(super) fn rank(strategy: &str, task: &Task, at: &At<'_>, failures: i128) -> Vec<i128> {
    let faults = if failures < 5 { 0 } else { failures };
    let own = at.count(|other| other.service_id == task.service_id);
    let all = at.count(|_| true);
    match strategy {
        "spread" => vec![faults, own, all],
        "binpack" => {
            let (cpus, memory) =
                reserved(task).map_or((0, 0), |wanted| (wanted.nano_cpus, wanted.memory_bytes));
            let full = |(total, used): (i128, i128), more: i64| match more {
                1.. if total > 0 => (used + i128::from(more)) * 100 / total,
                _ => 100,
            };
            vec![faults, -(full(at.cpus(), cpus) + full(at.memory(), memory)), -all]
        }
        "random" => {
            let wait = |nth| -draw(task.service_id, at.node.id, nth).ln();
            let through: f64 = (0..=own as u64).map(wait).sum();
            vec![faults, (through * 1e6) as i128]
        }
        "least-loaded" => {
            let load = label(at.node, "engine.labels.load").parse::<u64>().unwrap_or(u64::MAX);
            vec![faults, (i128::from(load) + own).min(u64::MAX.into()), all]
        }
        "emptiest" => vec![failures, at.memory().1 - at.memory().0, -own],
        _ => vec![faults, own.min(1), if own == 0 { all } else { -own }],
    }
}

/// A random number in (0, 1] for the nth task of a service on a node, by the seed 0: FNV-1a of all
/// of them, mixed as in `SplitMix64`, of which the upper 53 bits count.
fn draw(service: ServiceId, node: NodeId, nth: u64) -> f64 {
    let text = format!("{service}{node}");
    let bytes = [&[0; 8], text.as_bytes(), &nth.to_le_bytes()].concat();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    ((hash >> 11) + 1) as f64 / 2_f64.powi(53)
}
