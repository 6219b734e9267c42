//! Pure: a persistent map with a small layer on top, for what a planner has staged.
//!
//! Ids of nodes are random, as are those of tasks of different services: in a map of a million
//! entries a write may copy a leaf of its own and the branch above it, whose sixteen neighbours it
//! counts up, each in another place of the memory. A planner's working copy lives for one step: what
//! is staged on it goes to a small map instead, which looks the same to every reader. That one is
//! shared as a whole: who writes to it while another has it copies it, which happens a few times in a
//! step.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use imbl::OrdMap;

/// A map whose staged entries, and staged removals, lie in a layer of their own.
#[derive(Clone)]
pub(super) struct Layered<K, V> {
    base: OrdMap<K, V>,
    /// What is staged: a value, or that there is none. Absent in what is committed.
    staged: Option<Arc<BTreeMap<K, Option<V>>>>,
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// To what is committed.
    Base,
    /// To what is staged.
    Staged,
}

impl<K: Ord + Clone, V: Clone> Default for Layered<K, V> {
    fn default() -> Self {
        Self { base: OrdMap::new(), staged: None }
    }
}

impl<K: Ord + Clone, V: Clone> Layered<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        match self.staged.as_ref().and_then(|staged| staged.get(key)) {
            Some(staged) => staged.as_ref(),
            None => self.base.get(key),
        }
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn insert(&mut self, layer: Layer, key: K, value: V) {
        if layer == Layer::Staged {
            self.staged().insert(key, Some(value));
            return;
        }
        if self.staged.is_some() {
            self.staged().remove(&key);
        }
        self.base.insert(key, value);
    }

    pub(super) fn remove(&mut self, layer: Layer, key: &K) {
        if layer == Layer::Staged {
            self.staged().insert(key.clone(), None);
            return;
        }
        if self.staged.is_some() {
            self.staged().remove(key);
        }
        self.base.remove(key);
    }

    fn staged(&mut self) -> &mut BTreeMap<K, Option<V>> {
        Arc::make_mut(self.staged.get_or_insert_default())
    }

    /// The entries of a range, in order.
    pub(super) fn range(&self, range: RangeInclusive<K>) -> impl Iterator<Item = (&K, &V)> {
        let mut base = self.base.range(range.clone()).peekable();
        let staged = self.staged.as_ref().map(|map| map.range(range));
        let mut staged = staged.into_iter().flatten().peekable();
        std::iter::from_fn(move || {
            loop {
                let order = match (base.peek(), staged.peek()) {
                    (Some((base, _)), Some((staged, _))) => base.cmp(staged),
                    (Some(_), None) => Ordering::Less,
                    (None, _) => Ordering::Greater,
                };
                match order {
                    Ordering::Less => return base.next(),
                    Ordering::Equal => drop(base.next()),
                    Ordering::Greater => {}
                }
                if let (key, Some(value)) = staged.next()? {
                    return Some((key, value));
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layers_read_as_one_map() {
        let (mut map, mut plain) = (Layered::default(), BTreeMap::new());
        // A sequence without a pattern, over few enough keys that they meet again.
        let mut state = 1_u32;
        for _ in 0..5_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (key, value) = ((state >> 8) % 97, state >> 16);
            let layer = if state >> 30 == 0 { Layer::Base } else { Layer::Staged };
            if (state >> 28) & 1 == 0 {
                map.insert(layer, key, value);
                plain.insert(key, value);
            } else {
                map.remove(layer, &key);
                plain.remove(&key);
            }
            assert_eq!(map.get(&key), plain.get(&key));
            let (from, to) = (value % 97, value % 97 + 20);
            assert!(map.range(from..=to).eq(plain.range(from..=to)));
        }
    }
}
