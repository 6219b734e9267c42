//! Pure: the nodes by the value of a label, for the branches of placement preferences.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_core::model::Node;

use super::bits::Bits;
use super::constraint::label_of;

/// How many labels are kept.
const KEPT: usize = if cfg!(test) { 1 } else { 8 };
/// Labels with more values than this have no set of seats for each: the sets would be nearly empty.
const SETS: usize = if cfg!(test) { 2 } else { 64 };

/// The nodes by the value that they have for one label.
#[derive(Debug)]
pub(super) struct LabelValues {
    /// For each seat, the number of its value: values are numbered in their order.
    of: Vec<usize>,
    /// The seats of each value.
    seats: Vec<Vec<usize>>,
    /// The same as sets, where there are few values.
    sets: Option<Vec<Arc<Bits>>>,
}

/// Some of the seats.
#[derive(Clone, Debug)]
pub(super) enum Members {
    /// Every one.
    All,
    /// Many, as a set.
    Set(Arc<Bits>),
    /// Few, in order.
    List(Vec<usize>),
}

impl Members {
    pub(super) fn contains(&self, seat: usize) -> bool {
        match self {
            Self::All => true,
            Self::Set(set) => set.contains(seat),
            Self::List(list) => list.binary_search(&seat).is_ok(),
        }
    }
}

/// The labels that placement preferences asked about last. Right until a node has another value,
/// or nodes come or go; then forgotten.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(Vec<(String, Arc<LabelValues>)>);

impl Labels {
    /// The nodes by a label, whose value in order of seat is given. O(nodes) the first time.
    pub(super) fn find<'a>(
        &mut self,
        descriptor: &str,
        values: impl Iterator<Item = &'a str>,
    ) -> Arc<LabelValues> {
        let known = self.0.iter().position(|(known, _)| known == descriptor);
        let at = known.unwrap_or_else(|| {
            self.0.truncate(KEPT - 1);
            self.0.push((descriptor.to_owned(), Arc::new(LabelValues::of(values.collect()))));
            self.0.len() - 1
        });
        self.0[..=at].rotate_right(1);
        self.0[0].1.clone()
    }

    /// A node is another one than before.
    pub(super) fn renew(&mut self, old: &Node, new: &Node) {
        self.0.retain(|(descriptor, _)| label_of(old, descriptor) == label_of(new, descriptor));
    }

    /// The seats are others than before.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether every label is right about a seat, given the node of each: O(labels · log).
    pub(super) fn are_right<'a>(&self, seat: usize, node: impl Fn(usize) -> &'a Node) -> bool {
        self.0.iter().all(|(descriptor, values)| {
            values.are_right(seat, |seat| label_of(node(seat), descriptor).unwrap_or(""))
        })
    }
}

impl LabelValues {
    fn of(values: Vec<&str>) -> Self {
        let mut numbers: BTreeMap<&str, usize> = values.iter().map(|value| (*value, 0)).collect();
        numbers.values_mut().enumerate().for_each(|(number, slot)| *slot = number);
        let of: Vec<usize> = values.iter().map(|value| numbers[value]).collect();
        let mut seats = vec![Vec::new(); numbers.len()];
        of.iter().enumerate().for_each(|(seat, number)| seats[*number].push(seat));
        let sets = (numbers.len() <= SETS).then(|| {
            let set = |number| Arc::new(Bits::of(of.len(), |seat| of[seat] == number));
            (0..numbers.len()).map(set).collect()
        });
        Self { of, seats, sets }
    }

    /// Whether a seat is with those of its value, and with no others, and the value in its order.
    fn are_right<'a>(&self, seat: usize, value: impl Fn(usize) -> &'a str) -> bool {
        let Some(&number) = self.of.get(seat) else { return false };
        let first = |number: usize| self.seats.get(number)?.first().map(|seat| value(*seat));
        let listed = self.seats[number].binary_search(&seat).is_ok();
        let alone = |(of, set): (usize, &Arc<Bits>)| set.contains(seat) == (of == number);
        listed
            && first(number) == Some(value(seat))
            && number.checked_sub(1).is_none_or(|before| first(before) < first(number))
            && first(number + 1).is_none_or(|after| first(number) < Some(after))
            && self.sets.iter().all(|sets| sets.iter().enumerate().all(alone))
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    /// The number of a seat's value.
    pub(super) fn number(&self, seat: usize) -> usize {
        self.of[seat]
    }

    /// The seats of a value.
    pub(super) fn part(&self, number: usize) -> Members {
        match &self.sets {
            Some(sets) => Members::Set(sets[number].clone()),
            None => Members::List(self.seats[number].clone()),
        }
    }

    /// Some seats by the value that they have, in order of the values: O(seats).
    pub(super) fn divide(&self, members: &Members) -> BTreeMap<usize, Members> {
        match members {
            Members::Set(set) => {
                let next = |from| set.next_in(from, None, None, None);
                let seats = std::iter::successors(next(0), |seat| next(seat + 1));
                if self.sets.is_some() { self.sets_of(seats) } else { self.lists_of(seats) }
            }
            Members::List(list) => self.lists_of(list.iter().copied()),
            Members::All => self.lists_of(0..self.of.len()),
        }
    }

    fn sets_of(&self, seats: impl Iterator<Item = usize>) -> BTreeMap<usize, Members> {
        let mut parts: Vec<Option<Bits>> = vec![None; self.len()];
        for seat in seats {
            let part = parts[self.of[seat]].get_or_insert_with(|| Bits::none(self.of.len()));
            part.insert(seat);
        }
        let parts = parts.into_iter().enumerate();
        parts.filter_map(|(value, part)| Some((value, Members::Set(Arc::new(part?))))).collect()
    }

    fn lists_of(&self, seats: impl Iterator<Item = usize>) -> BTreeMap<usize, Members> {
        let mut parts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        seats.for_each(|seat| parts.entry(self.of[seat]).or_default().push(seat));
        parts.into_iter().map(|(value, part)| (value, Members::List(part))).collect()
    }
}
