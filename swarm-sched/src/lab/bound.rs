//! Pure: how few nodes could carry the same tasks, if all were known beforehand.
//!
//! Two bounds, one from each side. The *volume bound* is what the linear relaxation of the packing
//! gives: tasks may be cut into pieces, so that only the sums count; no packing can be better.
//! *Best fit decreasing* is a packing that a scheduler could have made if it had known all tasks
//! and moved them freely: the largest first, each on the fullest node that it fits on, and a new
//! node (the largest that is left) only where it fits on none. It is a heuristic, near the optimum
//! but not it, so a lucky scheduler may be better. It respects constraints on labels, which
//! the volume bound need not; neither knows affinities and topologies.

use super::sizes::{Size, part};

/// A task to pack.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What it reserves.
    pub size: Size,
    /// Which of the lists of suitable nodes is its own.
    pub class: usize,
}

/// A packing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// The nodes that carry something.
    pub nodes: usize,
    /// The tasks that it leaves. It begins with the large ones, so that there may be more of them
    /// than need be: [`unplaceable`] is the bound.
    pub unplaced: usize,
}

/// The fewest nodes that have the sum, were tasks divisible: for each of CPU and memory the largest
/// nodes first, and of the two counts the greater. All nodes when they are not enough.
#[must_use]
pub fn volume(nodes: &[Size], items: &[Item]) -> usize {
    let wanted: Size = items.iter().map(|item| item.size).sum();
    let count = |of: fn(&Size) -> i64| {
        let mut sizes: Vec<_> = nodes.iter().map(of).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let mut left = of(&wanted);
        sizes
            .iter()
            .take_while(|size| {
                let needed = left > 0;
                left -= **size;
                needed
            })
            .count()
    };
    count(|size| size.cpus).max(count(|size| size.memory))
}

/// The fewest tasks that any packing leaves, were tasks divisible: of all tasks on all nodes, or
/// of a class of tasks on the nodes that suit it, whichever is more.
#[must_use]
pub fn unplaceable(nodes: &[Size], suits: &[Vec<bool>], items: &[Item]) -> usize {
    let of_class = |(class, suits): (usize, &Vec<bool>)| {
        let suitable = nodes.iter().zip(suits).filter(|(_, suits)| **suits);
        let room = suitable.map(|(node, _)| *node).sum();
        let items: Vec<_> = items.iter().filter(|item| item.class == class).collect();
        left_over(room, &items)
    };
    let all = left_over(nodes.iter().copied().sum(), &items.iter().collect::<Vec<_>>());
    suits.iter().enumerate().map(of_class).fold(all, usize::max)
}

/// Of CPU and memory each, the smallest tasks first until nothing is left; of the two counts of those
/// that are left over, the greater.
fn left_over(room: Size, items: &[&Item]) -> usize {
    let count = |of: fn(&Size) -> i64| {
        let mut sizes: Vec<_> = items.iter().map(|item| of(&item.size)).collect();
        sizes.sort_unstable();
        let mut left = of(&room);
        let fits = |size: &&i64| {
            left -= **size;
            left >= 0
        };
        sizes.len() - sizes.iter().take_while(fits).count()
    };
    count(|size| size.cpus).max(count(|size| size.memory))
}

/// Best fit decreasing. `suits[class][node]` says whether a node suits a class of tasks.
#[must_use]
pub fn best_fit_decreasing(nodes: &[Size], suits: &[Vec<bool>], items: &[Item]) -> Packing {
    let all: Size = nodes.iter().copied().sum();
    let mut order: Vec<_> = items.iter().collect();
    order.sort_by(|a, b| b.size.share(all).total_cmp(&a.size.share(all)));
    // Nodes that are in use come first in this list, the others follow, the largest first.
    let mut seats: Vec<usize> = (0..nodes.len()).collect();
    seats.sort_by(|a, b| nodes[*b].share(all).total_cmp(&nodes[*a].share(all)));
    let (mut free, mut used) = (nodes.to_vec(), 0);
    let mut packing = Packing::default();
    for item in order {
        let fits = |seat: &usize| suits[item.class][*seat] && item.size.fits(free[*seat]);
        let left = |seat: usize| {
            let rest = free[seat].minus(item.size);
            part(rest.cpus, nodes[seat].cpus) + part(rest.memory, nodes[seat].memory)
        };
        let open = (0..used).filter(|at| fits(&seats[*at]));
        let best = open.min_by(|a, b| left(seats[*a]).total_cmp(&left(seats[*b])));
        let best = best.or_else(|| {
            let at = (used..seats.len()).find(|at| fits(&seats[*at]))?;
            seats[used..=at].rotate_right(1);
            used += 1;
            Some(used - 1)
        });
        match best {
            Some(at) => free[seats[at]] = free[seats[at]].minus(item.size),
            None => packing.unplaced += 1,
        }
    }
    packing.nodes = used;
    packing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(sizes: &[(i64, i64)]) -> Vec<Item> {
        sizes.iter().map(|&(cpus, memory)| Item { size: Size { cpus, memory }, class: 0 }).collect()
    }

    #[test]
    fn pieces_that_do_not_fit_together_need_more_than_their_volume() {
        let nodes = [Size { cpus: 10, memory: 10 }; 4];
        let tasks = items(&[(6, 1), (6, 1), (6, 1), (2, 1)]);
        assert_eq!(volume(&nodes, &tasks), 2);
        let packing = best_fit_decreasing(&nodes, &[vec![true; 4]], &tasks);
        assert_eq!((packing.nodes, packing.unplaced), (3, 0));
    }

    #[test]
    fn memory_counts_as_well_and_what_fits_nowhere_is_left() {
        let nodes = [Size { cpus: 10, memory: 4 }, Size { cpus: 10, memory: 8 }];
        let tasks = items(&[(1, 8), (1, 3), (1, 3)]);
        assert_eq!(volume(&nodes, &tasks), 2);
        let packing = best_fit_decreasing(&nodes, &[vec![true; 2]], &tasks);
        assert_eq!((packing.nodes, packing.unplaced), (2, 1));
        assert_eq!(
            unplaceable(&nodes, &[vec![true; 2]], &tasks),
            1,
            "3 and 3 leave 6 of 12 for a task of 8"
        );
        assert_eq!(unplaceable(&nodes, &[vec![true; 2]], &tasks[1..]), 0);
        assert_eq!(unplaceable(&nodes, &[vec![true, false]], &tasks[1..]), 1, "4 for 3 and 3");
    }

    #[test]
    fn a_task_goes_only_where_it_suits() {
        let nodes = [Size { cpus: 10, memory: 10 }, Size { cpus: 2, memory: 2 }];
        let mut tasks = items(&[(1, 1), (1, 1), (1, 1)]);
        tasks[0].class = 1;
        let suits = [vec![true, true], vec![false, true]];
        let packing = best_fit_decreasing(&nodes, &suits, &tasks);
        assert_eq!((packing.nodes, packing.unplaced), (2, 0), "one joins it, one is too many");
    }
}
