//! Pure: which nodes changed, for whoever keeps something in order that depends on all of them.

/// The seats that changed, in order. Changes are counted; those that are too many are forgotten.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    /// The number of the first of `seats`.
    first: u64,
    seats: Vec<u32>,
}

impl Journal {
    /// A seat, of so many, changed.
    pub(super) fn note(&mut self, seat: u32, seats: usize) {
        // Who is behind by more changes than there are seats looks at all of them.
        if self.seats.len() > 2 * seats {
            self.first += seats as u64;
            self.seats.drain(..seats);
        }
        self.seats.push(seat);
    }

    /// Nothing from before can be followed any more: the seats are others.
    pub(super) fn forget(&mut self) {
        self.first = self.changes() + 1;
        self.seats.clear();
    }

    /// How many changes there have been.
    pub(super) fn changes(&self) -> u64 {
        self.first + self.seats.len() as u64
    }

    /// The seats that have changed after so many changes, some of them more than once; unknown, where
    /// that is long ago or the seats were others.
    pub(super) fn since(&self, changes: u64) -> Option<&[u32]> {
        let at = usize::try_from(changes.checked_sub(self.first)?).ok()?;
        self.seats.get(at..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_until_it_is_long_ago() {
        let mut journal = Journal::default();
        for seat in [3, 1, 3] {
            journal.note(seat, 4);
        }
        assert_eq!(journal.changes(), 3);
        assert_eq!(journal.since(0), Some(&[3, 1, 3][..]));
        assert_eq!(journal.since(3), Some(&[][..]));
        assert_eq!(journal.since(4), None, "that has not been");
        for _ in 0..7 {
            journal.note(2, 4);
        }
        assert_eq!((journal.changes(), journal.since(3)), (10, None), "longer ago than all seats");
        assert_eq!(journal.since(6), Some(&[2, 2, 2, 2][..]));
        journal.forget();
        assert_eq!(journal.since(10), None, "the seats are others");
        let now = journal.changes();
        journal.note(0, 9);
        assert_eq!(journal.since(now), Some(&[0][..]));
    }
}
