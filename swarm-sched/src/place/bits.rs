//! Pure: a set of seats, fast to intersect.

/// A set of small numbers: one bit for each, and above them one bit for each word that is not
/// empty, so that a search passes over 4,096 absent numbers at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
    /// Bit `i` says that `words[i]` is not 0.
    summary: Vec<u64>,
    count: usize,
}

impl Bits {
    /// An empty set for the numbers below `len`.
    pub(super) fn none(len: usize) -> Self {
        let words = len.div_ceil(64);
        Self { words: vec![0; words], summary: vec![0; words.div_ceil(64)], count: 0 }
    }

    /// The numbers below `len` of which something holds.
    pub(super) fn of(len: usize, holds: impl Fn(usize) -> bool) -> Self {
        let mut bits = Self::none(len);
        (0..len).filter(|number| holds(*number)).for_each(|number| bits.insert(number));
        bits
    }

    /// Makes it an empty set for the numbers below `len`: of one that had as many to choose from
    /// only the words that are not 0 are written.
    pub(super) fn clear(&mut self, len: usize) {
        if self.words.len() != len.div_ceil(64) {
            *self = Self::none(len);
            return;
        }
        for (words, summary) in self.words.chunks_mut(64).zip(&mut self.summary) {
            while *summary != 0 {
                words[summary.trailing_zeros() as usize] = 0;
                *summary &= *summary - 1;
            }
        }
        self.count = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn contains(&self, number: usize) -> bool {
        self.words[number / 64] & bit(number) != 0
    }

    pub(super) fn insert(&mut self, number: usize) {
        let word = &mut self.words[number / 64];
        self.count += usize::from(*word & bit(number) == 0);
        *word |= bit(number);
        self.summary[number / 4096] |= bit(number / 64);
    }

    pub(super) fn remove(&mut self, number: usize) {
        let word = &mut self.words[number / 64];
        self.count -= usize::from(*word & bit(number) != 0);
        *word &= !bit(number);
        if *word == 0 {
            self.summary[number / 4096] &= !bit(number / 64);
        }
    }

    /// The first number from `from` on that is in this set and in `one` and `two`, and not in
    /// `without`. Sets that are absent restrict nothing.
    pub(super) fn next_in(
        &self,
        from: usize,
        one: Option<&Self>,
        two: Option<&Self>,
        without: Option<&Self>,
    ) -> Option<usize> {
        let mut at = from / 64;
        let mut mask = !0 << (from % 64);
        loop {
            let next = self.next_word(at, one)?;
            if next != at {
                (at, mask) = (next, !0);
            }
            let word = |bits: Option<&Self>, absent| bits.map_or(absent, |bits| bits.words[at]);
            let found = self.words[at] & mask & word(one, !0) & word(two, !0) & !word(without, 0);
            if found != 0 {
                return Some(at * 64 + found.trailing_zeros() as usize);
            }
            (at, mask) = (at + 1, !0);
        }
    }

    /// The first word from `from` on that is empty in neither set.
    fn next_word(&self, from: usize, other: Option<&Self>) -> Option<usize> {
        let mut mask = !0 << (from % 64);
        for at in from / 64..self.summary.len() {
            let found = self.summary[at] & mask & other.map_or(!0, |other| other.summary[at]);
            if found != 0 {
                return Some(at * 64 + found.trailing_zeros() as usize);
            }
            mask = !0;
        }
        None
    }
}

fn bit(number: usize) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    const LEN: usize = 9_000;

    fn bits(numbers: &BTreeSet<usize>) -> Bits {
        Bits::of(LEN, |number| numbers.contains(&number))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_search_finds_what_a_set_has(
            sets in proptest::array::uniform4(proptest::collection::btree_set(0..LEN, 0..60)),
            common in proptest::collection::btree_set(0..LEN, 0..60),
            from in 0..LEN,
        ) {
            let [one, two, three, without] = sets;
            let with = |set: &BTreeSet<usize>| set.union(&common).copied().collect::<BTreeSet<_>>();
            let (one, two, three) = (with(&one), with(&two), with(&three));
            let expected = one.range(from..)
                .find(|n| two.contains(n) && three.contains(n) && !without.contains(n));
            let (two_bits, three_bits, not) = (bits(&two), bits(&three), bits(&without));
            let found = bits(&one).next_in(from, Some(&two_bits), Some(&three_bits), Some(&not));
            prop_assert_eq!(found, expected.copied());
        }

        #[test]
        fn what_was_put_in_and_not_taken_out_is_there(
            puts in proptest::collection::vec((0..LEN, any::<bool>()), 0..200)
        ) {
            let (mut bits_, mut set) = (Bits::none(LEN), BTreeSet::new());
            for (number, put) in puts {
                if put { bits_.insert(number); set.insert(number); }
                else { bits_.remove(number); set.remove(&number); }
                prop_assert_eq!(bits_.contains(number), put);
                prop_assert_eq!(bits_.is_empty(), set.is_empty());
            }
            prop_assert_eq!(&bits_, &bits(&set));
            bits_.clear(LEN);
            prop_assert_eq!(&bits_, &Bits::none(LEN));
            bits_.clear(1);
            prop_assert_eq!(bits_, Bits::none(1));
        }
    }
}
