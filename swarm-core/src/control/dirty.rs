//! Pure: the keys that a planner has to look at, each once, the smallest first.
//!
//! Every decision marks keys for most planners, and mostly in order, since keys are looked at in
//! order. So marks are only noted, and are put in order when the planner's turn comes: that costs a
//! pass where they are in order, and never more than a set for each. What a sweep marks is everything;
//! it lies in a set, that stays in order however few of it each step takes.

use std::collections::BTreeSet;

use super::Key;

/// The keys that a planner has to look at.
#[derive(Default)]
pub(super) struct Dirty {
    swept: BTreeSet<Key>,
    /// As they came; or, if that is said, each once and the smallest last.
    marked: Vec<Key>,
    in_order: bool,
}

impl Dirty {
    /// Marks keys, some of which may be marked already.
    pub(super) fn mark(&mut self, keys: impl IntoIterator<Item = Key>) {
        let before = self.marked.len();
        self.marked.extend(keys);
        self.in_order &= self.marked.len() == before;
    }

    /// Marks all there are.
    pub(super) fn sweep(&mut self, keys: Vec<Key>) {
        // One by one, each key would be looked for.
        self.swept.append(&mut keys.into_iter().collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.swept.is_empty() && self.marked.is_empty()
    }

    pub(super) fn pop_first(&mut self) -> Option<Key> {
        if !self.in_order {
            self.marked.sort();
            self.marked.dedup();
            self.marked.reverse();
            self.in_order = true;
        }
        match (self.swept.first(), self.marked.last()) {
            (Some(swept), marked) if marked.is_none_or(|marked| swept <= marked) => {
                self.marked.pop_if(|marked| *marked == *swept);
                self.swept.pop_first()
            }
            _ => self.marked.pop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::IdSource;

    #[test]
    fn each_key_comes_once_and_the_smallest_first() {
        let mut ids = IdSource::seeded(1);
        let keys: Vec<_> = (0..40).map(|_| Key::Service(ids.next())).collect();
        let (mut dirty, mut plain) = (Dirty::default(), BTreeSet::new());
        for _ in 0..5_000 {
            let some: Vec<_> = (0..ids.below(4)).map(|_| keys[ids.below(40) as usize]).collect();
            match ids.below(8) {
                0 => {
                    plain.extend(&some);
                    dirty.sweep(some);
                }
                1..3 => {
                    plain.extend(&some);
                    dirty.mark(some);
                }
                _ => assert_eq!(dirty.pop_first(), plain.pop_first()),
            }
            assert_eq!(dirty.is_empty(), plain.is_empty());
        }
    }
}
