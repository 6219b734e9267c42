//! Pure: a persistent map with a small layer on top, for what a planner has staged.
//!
//! To write to a persistent map is to find the entry and to copy what other views have of the path to
//! it. A planner's working copy lives for one step, in which most of what it decides is written two
//! or three times; so what is staged goes to a hash map instead, that every reader asks first, at a
//! fraction of the price. That one is shared as a whole: who writes to it while another has it
//! copies it, which happens a few times in a step.
//!
//! | | committed | working copy |
//! |---|---|---|
//! | get | O(log n) | O(1) if it is staged |
//! | write | O(log n), and the copies | O(1) |
//! | a range | O(log n) to the first | besides, all that is staged is passed over |

use std::cmp::Ordering;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::id::IdMap;

/// A map whose staged entries, and staged removals, lie in a layer of their own.
#[derive(Clone)]
pub(super) struct Layered<K, V> {
    base: OrdMap<K, V>,
    /// What is staged: a value, or that there is none. Absent in what is committed.
    staged: Option<Arc<IdMap<K, Option<V>>>>,
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// To what is committed.
    Base,
    /// To what is staged.
    Staged,
}

impl<K, V> Default for Layered<K, V> {
    fn default() -> Self {
        Self { base: OrdMap::new(), staged: None }
    }
}

impl<K, V> From<OrdMap<K, V>> for Layered<K, V> {
    fn from(base: OrdMap<K, V>) -> Self {
        Self { base, staged: None }
    }
}

impl<K: Ord + Hash + Copy, V: Clone> Layered<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        match self.staged.as_ref().and_then(|staged| staged.get(key)) {
            Some(staged) => staged.as_ref(),
            None => self.base.get(key),
        }
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The first entry.
    pub(super) fn first(&self) -> Option<(&K, &V)> {
        match &self.staged {
            None => self.base.get_min().map(|(key, value)| (key, value)),
            Some(_) => self.iter().next(),
        }
    }

    /// How many entries there are: O(what is staged · log n).
    pub(super) fn len(&self) -> usize {
        let staged = self.staged.iter().flat_map(|staged| staged.iter());
        staged.fold(self.base.len(), |len, (key, value)| {
            let before = self.base.contains_key(key);
            len + usize::from(value.is_some()) - usize::from(before)
        })
    }

    /// Writes an entry, of which the writer knows whether it is there already: to write it in place
    /// then is half the price of writing the key as well.
    pub(super) fn write(&mut self, layer: Layer, there: bool, key: K, value: V) {
        if layer == Layer::Staged {
            self.staged().insert(key, Some(value));
            return;
        }
        self.uncover(&key);
        write(&mut self.base, there, key, value);
    }

    pub(super) fn remove(&mut self, layer: Layer, key: &K) {
        if layer == Layer::Staged {
            self.staged().insert(*key, None);
            return;
        }
        self.uncover(key);
        self.base.remove(key);
    }

    /// An entry to be changed and [written](Self::write) again; until then nobody may read it here,
    /// where nothing, or something `other`, may lie in its place. So it is not copied if no other view
    /// has it.
    pub(super) fn take(&mut self, layer: Layer, key: &K, other: impl FnOnce() -> V) -> Option<V> {
        if self.staged.as_ref().is_some_and(|staged| staged.contains_key(key)) {
            return self.staged().get_mut(key).and_then(Option::take);
        }
        match layer {
            Layer::Staged => self.base.get(key).cloned(),
            Layer::Base => self.base.get_mut(key).map(|value| std::mem::replace(value, other())),
        }
    }

    /// What is written below is not hidden by what was staged before.
    fn uncover(&mut self, key: &K) {
        if self.staged.is_some() {
            self.staged().remove(key);
        }
    }

    fn staged(&mut self) -> &mut IdMap<K, Option<V>> {
        Arc::make_mut(self.staged.get_or_insert_default())
    }

    /// Every entry, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let plain = self.staged.is_none().then(|| self.base.iter());
        let both = self.staged.as_ref().map(|staged| {
            let mut staged: Vec<_> = staged.iter().collect();
            staged.sort_unstable_by_key(|(key, _)| **key);
            overlaid(self.base.iter(), staged.into_iter())
        });
        plain.into_iter().flatten().chain(both.into_iter().flatten())
    }

    /// The entries of a range, in order.
    pub(super) fn range(&self, range: RangeInclusive<K>) -> impl Iterator<Item = (&K, &V)> {
        let staged = self.staged.iter().flat_map(|staged| staged.iter());
        let mut staged: Vec<_> = staged.filter(|(key, _)| range.contains(key)).collect();
        staged.sort_unstable_by_key(|(key, _)| **key);
        overlaid(self.base.range(range), staged.into_iter())
    }

    /// What differs between another version of this map and this one, in order of the keys:
    /// O(differences · log n) where one came from the other, with what is staged on both.
    pub(super) fn since<'a>(
        &'a self,
        old: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a V>, Option<&'a V>)>
    where
        V: PartialEq,
    {
        let written = old.base.diff(&self.base).map(|item| match item {
            DiffItem::Add(key, new) => (key, None, Some(new)),
            DiffItem::Update { old, new } => (new.0, Some(old.1), Some(new.1)),
            DiffItem::Remove(key, old) => (key, Some(old), None),
        });
        let staged = old.staged.is_some() || self.staged.is_some();
        let (plain, both) = match staged {
            false => (Some(written), None),
            true => (None, Some(self.since_in_both(old, written))),
        };
        let versions = plain.into_iter().flatten().chain(both.into_iter().flatten());
        versions.map(|(_, old, new)| (old, new)).filter(|(old, new)| old != new)
    }

    /// The same with what is staged, of which nothing is in what was written below.
    fn since_in_both<'a>(
        &'a self,
        old: &'a Self,
        written: impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)>,
    ) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
        let staged = |map: &'a Self, key: &K, below: Option<&'a V>| {
            let staged = map.staged.as_ref().and_then(|staged| staged.get(key));
            staged.map_or(below, Option::as_ref)
        };
        let written =
            written.map(|(key, was, is)| (key, staged(old, key, was), staged(self, key, is)));
        let mut both: Vec<_> = written.collect();
        let below = both.len();
        for layer in [&old.staged, &self.staged].into_iter().flatten() {
            for key in layer.keys() {
                if both[..below].binary_search_by_key(&key, |(key, ..)| key).is_err() {
                    both.push((key, old.get(key), self.get(key)));
                }
            }
        }
        both.sort_by_key(|(key, ..)| *key);
        both.dedup_by_key(|(key, ..)| *key);
        both.into_iter()
    }
}

/// Writes an entry of a map, in place if it is there already.
fn write<K, V>(map: &mut OrdMap<K, V>, there: bool, key: K, value: V)
where
    K: Ord + Clone,
    V: Clone,
{
    if there && let Some(entry) = map.get_mut(&key) {
        *entry = value;
    } else {
        map.insert(key, value);
    }
}

/// Two layers, each in order, as one map: where both have a key, what is staged counts.
pub(super) fn overlaid<'a, K: Ord, V: 'a>(
    base: impl Iterator<Item = (K, &'a V)>,
    staged: impl Iterator<Item = (K, &'a Option<V>)>,
) -> impl Iterator<Item = (K, &'a V)> {
    let (mut base, mut staged) = (base.peekable(), staged.peekable());
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn both_layers_read_as_one_map() {
        let (mut map, mut plain) = (Layered::default(), BTreeMap::new());
        let mut versions = vec![(map.clone(), plain.clone())];
        // A sequence without a pattern, over few enough keys that they meet again.
        let mut state = 1_u32;
        for round in 0..5_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (key, value) = ((state >> 8) % 97, state >> 16);
            let layer = if state >> 30 == 0 { Layer::Base } else { Layer::Staged };
            match (state >> 26) & 3 {
                0 | 1 => {
                    map.write(layer, plain.contains_key(&key), key, value);
                    plain.insert(key, value);
                }
                2 => {
                    map.remove(layer, &key);
                    plain.remove(&key);
                }
                _ => {
                    let taken = map.take(layer, &key, || 0);
                    assert_eq!(taken.as_ref(), plain.get(&key));
                    taken.into_iter().for_each(|value| map.write(layer, true, key, value));
                }
            }
            assert_eq!(map.get(&key), plain.get(&key));
            assert_eq!(map.len(), plain.len());
            assert!(map.iter().eq(&plain));
            assert_eq!(map.first(), plain.first_key_value());
            let (from, to) = (value % 97, value % 97 + 20);
            assert!(map.range(from..=to).eq(plain.range(from..=to)));
            if round % 250 == 0 {
                versions.push((map.clone(), plain.clone()));
            }
        }
        for (old, before) in &versions {
            let mut keys: Vec<_> = before.keys().chain(plain.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            let both = keys.into_iter().map(|key| (before.get(key), plain.get(key)));
            assert!(map.since(old).eq(both.filter(|(old, new)| old != new)));
        }
    }
}
