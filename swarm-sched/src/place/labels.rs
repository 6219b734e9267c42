//! Pure: the nodes by the value of a label, for the branches of placement preferences.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_core::model::Node;

use super::bits::Bits;
use super::constraint::label_of;

/// How many labels are kept.
const KEPT: usize = if cfg!(test) { 1 } else { 8 };
/// How many divisions are kept: of 64 zones by racks, and four times as many.
const DIVISIONS: usize = if cfg!(test) { 3 } else { 256 };
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

/// Seats by the value of a label, in order of the values that occur.
type Parts = BTreeMap<usize, Members>;

/// The seats of one value of one label by those of another one.
#[derive(Clone, Debug)]
struct Division {
    of: Arc<Bits>,
    by: Arc<LabelValues>,
    parts: Arc<Parts>,
}

/// The labels that placement preferences asked about last. Right until a node has another value,
/// or nodes come or go; then forgotten.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels {
    known: Vec<(String, Arc<LabelValues>)>,
    /// By where in the memory both lie, which holds for as long as they are here.
    divisions: BTreeMap<(usize, usize), Division>,
}

impl Labels {
    /// The nodes by a label, whose value in order of seat is given. O(nodes) the first time.
    pub(super) fn find<'a>(
        &mut self,
        descriptor: &str,
        values: impl Iterator<Item = &'a str>,
    ) -> Arc<LabelValues> {
        let known = self.known.iter().position(|(known, _)| known == descriptor);
        let at = known.unwrap_or_else(|| {
            self.known.truncate(KEPT - 1);
            self.known.push((descriptor.to_owned(), Arc::new(LabelValues::of(values.collect()))));
            self.known.len() - 1
        });
        self.known[..=at].rotate_right(1);
        self.known[0].1.clone()
    }

    /// Some seats by their values. O(seats); for a set that was divided before O(log).
    pub(super) fn divide(&mut self, members: &Members, by: &Arc<LabelValues>) -> Arc<Parts> {
        let Members::Set(of) = members else { return Arc::new(by.divide(members)) };
        let key = (Arc::as_ptr(of) as usize, Arc::as_ptr(by) as usize);
        if self.divisions.len() >= DIVISIONS && !self.divisions.contains_key(&key) {
            self.divisions.clear();
        }
        let divide = || {
            let parts = Arc::new(by.divide(members));
            Division { of: of.clone(), by: by.clone(), parts }
        };
        self.divisions.entry(key).or_insert_with(divide).parts.clone()
    }

    /// A node is another one than before.
    pub(super) fn renew(&mut self, old: &Node, new: &Node) {
        let same = |label: &str| label_of(old, label) == label_of(new, label);
        if !self.known.iter().all(|(label, _)| same(label)) {
            self.known.retain(|(label, _)| same(label));
            self.divisions.clear();
        }
    }

    /// The seats are others than before.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.divisions.clear();
    }

    /// Whether every label is right about a seat, given the node of each, and every division:
    /// O(labels · log, and divisions).
    pub(super) fn are_right<'a>(&self, seat: usize, node: impl Fn(usize) -> &'a Node) -> bool {
        let labels = self.known.iter().all(|(descriptor, values)| {
            values.are_right(seat, |seat| label_of(node(seat), descriptor).unwrap_or(""))
        });
        labels && self.divisions.values().all(|division| division.is_right(seat))
    }
}

impl Division {
    /// Whether a seat is where it belongs: in the part of its value if it is divided at all.
    fn is_right(&self, seat: usize) -> bool {
        let number = self.by.number(seat);
        let right = |(value, part): (&usize, &Members)| part.contains(seat) == (*value == number);
        match self.of.contains(seat) {
            true => self.parts.contains_key(&number) && self.parts.iter().all(right),
            false => self.parts.values().all(|part| !part.contains(seat)),
        }
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
    fn divide(&self, members: &Members) -> Parts {
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

    fn sets_of(&self, seats: impl Iterator<Item = usize>) -> Parts {
        let mut parts: Vec<Option<Bits>> = vec![None; self.len()];
        for seat in seats {
            let part = parts[self.of[seat]].get_or_insert_with(|| Bits::none(self.of.len()));
            part.insert(seat);
        }
        let parts = parts.into_iter().enumerate();
        parts.filter_map(|(value, part)| Some((value, Members::Set(Arc::new(part?))))).collect()
    }

    fn lists_of(&self, seats: impl Iterator<Item = usize>) -> Parts {
        let mut parts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        seats.for_each(|seat| parts.entry(self.of[seat]).or_default().push(seat));
        parts.into_iter().map(|(value, part)| (value, Members::List(part))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEATS: usize = 12;

    /// Two zones, a seat here and a seat there, and two racks, of which `b` is in one zone alone.
    fn labels() -> (Labels, Arc<LabelValues>, Arc<LabelValues>, Vec<Node>) {
        let node = |seat: usize| {
            let mut node = Node::default();
            let rack = if seat.is_multiple_of(6) { "b" } else { "a" };
            for (label, value) in [("zone", ["x", "y"][seat % 2]), ("rack", rack)] {
                node.spec.labels.insert(label.to_owned(), value.to_owned());
            }
            node
        };
        let nodes: Vec<_> = (0..SEATS).map(node).collect();
        let by = |label: &str| {
            let values = nodes.iter().map(|node| label_of(node, label).unwrap());
            Arc::new(LabelValues::of(values.collect()))
        };
        let (zones, racks) = (by("node.labels.zone"), by("node.labels.rack"));
        (Labels::default(), zones, racks, nodes)
    }

    #[test]
    fn a_part_has_those_seats_of_a_set_that_have_its_value() {
        let (mut labels, zones, racks, nodes) = labels();
        for zone in 0..2 {
            let parts = labels.divide(&zones.part(zone), &racks);
            let again = labels.divide(&zones.part(zone), &racks);
            assert!(Arc::ptr_eq(&parts, &again), "it is divided once");
            let rack = |seat: usize| label_of(&nodes[seat], "node.labels.rack").unwrap();
            let of =
                |value| (0..SEATS).filter(move |seat| seat % 2 == zone && rack(*seat) == value);
            let expected: Vec<_> = [(0, "a"), (1, "b")]
                .into_iter()
                .map(|(number, value)| (number, of(value).collect::<Vec<_>>()))
                .filter(|(_, seats)| !seats.is_empty())
                .collect();
            let seats = |part: &Members| (0..SEATS).filter(|seat| part.contains(*seat)).collect();
            let found: Vec<_> = parts.iter().map(|(value, part)| (*value, seats(part))).collect();
            assert_eq!(found, expected, "no part is empty");
            let listed =
                racks.divide(&Members::List((0..SEATS).filter(|it| it % 2 == zone).collect()));
            let listed: Vec<_> = listed.iter().map(|(value, part)| (*value, seats(part))).collect();
            assert_eq!(listed, expected);
        }
        assert!((0..SEATS).all(|seat| labels.are_right(seat, |seat| &nodes[seat])));
    }

    #[test]
    fn a_wrong_part_is_found_and_a_changed_label_forgets_them() {
        let (mut labels, zones, racks, nodes) = labels();
        let right =
            |labels: &Labels| (0..SEATS).all(|seat| labels.are_right(seat, |seat| &nodes[seat]));
        let plants: [fn(&mut Parts); 3] = [
            |parts| drop(parts.remove(&1)),
            |parts| drop(parts.insert(0, Members::List((0..SEATS).collect()))),
            |parts| drop(parts.insert(7, Members::List(vec![2]))),
        ];
        for plant in plants {
            labels.divide(&zones.part(0), &racks);
            assert!(right(&labels));
            let division = labels.divisions.values_mut().next().unwrap();
            plant(Arc::make_mut(&mut division.parts));
            assert!(!right(&labels));
            labels.clear();
        }
        labels.find("node.labels.zone", nodes.iter().map(|node| node.spec.labels["zone"].as_str()));
        labels.divide(&zones.part(0), &racks);
        let mut moved = nodes[0].clone();
        moved.spec.labels.insert("other".to_owned(), "value".to_owned());
        labels.renew(&nodes[0], &moved);
        assert_eq!(labels.divisions.len(), 1, "nobody asked for that label");
        moved.spec.labels.insert("zone".to_owned(), "y".to_owned());
        labels.renew(&nodes[0], &moved);
        assert!(labels.divisions.is_empty() && labels.known.is_empty());
    }
}
