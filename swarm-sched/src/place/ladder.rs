//! Pure: the nodes by how many tasks they have.

use std::collections::BTreeMap;

use super::bits::Bits;

/// Which nodes have how many active tasks: one set of seats for each number that occurs. A node
/// whose number changes moves from one set to another: O(log of the numbers that occur).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ladder {
    rungs: BTreeMap<u64, Bits>,
    seats: usize,
}

impl Ladder {
    /// The ladder of nodes with these numbers, in order of seat.
    pub(super) fn of(numbers: impl ExactSizeIterator<Item = u64>) -> Self {
        let mut ladder = Self { rungs: BTreeMap::new(), seats: numbers.len() };
        numbers.enumerate().for_each(|(seat, number)| ladder.put(seat, number));
        ladder
    }

    /// A node's number changed.
    pub(super) fn climb(&mut self, seat: usize, from: u64, to: u64) {
        if from == to {
            return;
        }
        if let Some(rung) = self.rungs.get_mut(&from) {
            rung.remove(seat);
            if rung.is_empty() {
                self.rungs.remove(&from);
            }
        }
        self.put(seat, to);
    }

    fn put(&mut self, seat: usize, number: u64) {
        let seats = self.seats;
        self.rungs.entry(number).or_insert_with(|| Bits::none(seats)).insert(seat);
    }

    /// Whether a seat is on the rung of this number, and on no other: O(rungs).
    pub(super) fn is_right(&self, seat: usize, number: u64) -> bool {
        self.rungs.contains_key(&number)
            && self.rungs.iter().all(|(rung, seats)| seats.contains(seat) == (*rung == number))
    }

    /// The first rung from this number on.
    pub(super) fn rung(&self, from: u64) -> Option<(u64, &Bits)> {
        // Most often it is this one, and looking for one is cheaper than opening a range.
        let here = self.rungs.get(&from).map(|rung| (from, rung));
        here.or_else(|| self.rungs.range(from..).next().map(|(number, rung)| (*number, rung)))
    }
}
