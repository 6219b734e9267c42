//! Pure: what clients did to registers and were told, and whether one register could have answered so.
//!
//! A register is a label of a service. Every write is a compare-and-set on the service's version and
//! writes a value that nobody else writes, so what was read with a value and the version that was
//! written to put all writes that happened in one order: a chain from the first value to the last. Given
//! that order the history is linearizable exactly if no operation that ended before another one began
//! saw more than that one.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

/// What a client was told of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Done,
    /// It did not, and never will.
    Refused,
    /// Nobody knows: it may still happen.
    Unknown,
}

/// What a client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    Read { version: u64, value: u64 },
    Wrote { value: u64, on_version: u64, on_value: u64, outcome: Outcome },
}

/// One operation, from its request to its answer.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub register: usize,
    pub client: usize,
    pub manager: &'static str,
    pub did: Did,
    pub start: Duration,
    pub end: Duration,
}

impl Op {
    fn value(&self) -> u64 {
        match self.did {
            Did::Read { value, .. } | Did::Wrote { value, .. } => value,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { register, client, manager, did, start, end } = self;
        write!(f, "{start:9.3?} to {end:9.3?} client {client} at {manager}, r{register}: ")?;
        match did {
            Did::Read { version, value } => write!(f, "read {value} at version {version}"),
            Did::Wrote { value, on_version, on_value, outcome } => {
                write!(f, "write {value} over {on_value} at version {on_version}: {outcome:?}")
            }
        }
    }
}

/// What must not be, and when it was noticed.
#[derive(Clone, Debug)]
pub struct Violation {
    pub at: Duration,
    /// Whose history shows it.
    pub register: Option<usize>,
    pub text: String,
}

impl Violation {
    fn of(op: &Op, text: &str) -> Self {
        Self { at: op.end, register: Some(op.register), text: format!("{text}: {op}") }
    }
}

/// The writes that happened, in their order: for each value its place, and the version that it was
/// written over.
struct Chain {
    place: HashMap<u64, usize>,
    over: Vec<u64>,
}

impl Chain {
    /// Follows the writes back from the value that was seen last to the one that was there first.
    fn new(first: u64, ops: &[Op]) -> Result<Self, Violation> {
        let mut writes = HashMap::new();
        let mut last = None;
        for op in ops {
            match op.did {
                Did::Wrote { value, on_version, on_value, .. } => {
                    writes.insert(value, (on_version, on_value));
                }
                Did::Read { version, .. } if last.is_none_or(|(seen, _)| version > seen) => {
                    last = Some((version, op));
                }
                Did::Read { .. } => {}
            }
        }
        let Some((_, last)) = last else { return Ok(Self::of(first, vec![])) };
        let (mut value, mut back) = (last.value(), Vec::new());
        while value != first {
            let Some((over, before)) = writes.get(&value) else {
                return Err(Violation::of(last, &format!("nobody wrote {value}, which led to")));
            };
            if back.len() > writes.len() {
                return Err(Violation::of(last, "values that were written over each other led to"));
            }
            back.push((value, *over));
            value = *before;
        }
        back.reverse();
        Ok(Self::of(first, back))
    }

    fn of(first: u64, rest: Vec<(u64, u64)>) -> Self {
        let places = rest.iter().enumerate().map(|(place, (value, _))| (*value, place + 1));
        let place = places.chain([(first, 0)]).collect();
        Self {
            place,
            over: [0].into_iter().chain(rest.into_iter().map(|(_, over)| over)).collect(),
        }
    }

    /// Whether an operation fits in, apart from when it was.
    fn admits(&self, op: &Op) -> Result<(), &'static str> {
        let place = self.place.get(&op.value()).copied();
        match (op.did, place) {
            (Did::Wrote { outcome: Outcome::Done, .. }, None) => {
                Err("an acknowledged write was lost")
            }
            (Did::Wrote { outcome: Outcome::Refused, .. }, Some(_)) => {
                Err("a write happened that was refused")
            }
            (Did::Read { .. }, None) => {
                Err("a value was read that nothing followed and that is gone")
            }
            (Did::Read { version, .. }, Some(place)) => {
                let next = self.over.get(place + 1);
                if version <= self.over[place] || next.is_some_and(|next| version > *next) {
                    return Err("a value has a version of another value");
                }
                Ok(())
            }
            (Did::Wrote { .. }, _) => Ok(()),
        }
    }
}

/// Everything that one register's history shows which a single register could not have done, whose
/// value was `first` before.
pub fn check(first: u64, ops: &[Op]) -> Vec<Violation> {
    let chain = match Chain::new(first, ops) {
        Ok(chain) => chain,
        Err(broken) => return vec![broken],
    };
    let mut broken = Vec::new();
    for op in ops {
        if let Err(why) = chain.admits(op) {
            broken.push(Violation::of(op, why));
        }
    }
    let happened = ops.iter().filter_map(|op| Some((*chain.place.get(&op.value())?, op)));
    let mut begun: Vec<_> = happened.collect();
    begun.sort_by_key(|(_, op)| op.start);
    let unknown = |op: &Op| matches!(op.did, Did::Wrote { outcome: Outcome::Unknown, .. });
    let mut ended: Vec<_> = begun.iter().copied().filter(|(_, op)| !unknown(op)).collect();
    ended.sort_by_key(|(_, op)| op.end);
    let mut ended = ended.into_iter().peekable();
    let (mut seen, mut version_seen) = (None, 0);
    for (place, op) in begun {
        while let Some((earlier, past)) = ended.next_if(|(_, past)| past.end < op.start) {
            seen = seen.max(Some(earlier));
            if let Did::Read { version, .. } = past.did {
                version_seen = version_seen.max(version);
            }
        }
        match op.did {
            Did::Read { version, .. } => {
                if Some(place) < seen || version < version_seen {
                    broken.push(Violation::of(op, "a read was stale"));
                }
            }
            Did::Wrote { .. } if Some(place) <= seen => {
                broken.push(Violation::of(op, "a write was seen before it was begun"));
            }
            Did::Wrote { .. } => {}
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(start: u64, end: u64, did: Did) -> Op {
        let at = Duration::from_millis;
        Op { register: 0, client: 0, manager: "m1", did, start: at(start), end: at(end) }
    }

    fn read(start: u64, end: u64, version: u64, value: u64) -> Op {
        op(start, end, Did::Read { version, value })
    }

    fn write(start: u64, end: u64, over: (u64, u64), value: u64, outcome: Outcome) -> Op {
        op(start, end, Did::Wrote { value, on_version: over.0, on_value: over.1, outcome })
    }

    fn told(ops: &[Op]) -> Vec<String> {
        check(1, ops).into_iter().map(|broken| broken.text).collect()
    }

    fn finds(what: &str, ops: &[Op]) {
        let told = told(ops);
        assert!(told.iter().any(|text| text.contains(what)), "{what}: {told:?}");
    }

    use Outcome::{Done, Refused, Unknown};

    #[test]
    fn what_a_register_does_is_in_order() {
        let ops = [
            read(0, 1, 10, 1),
            write(2, 9, (10, 1), 2, Done),
            read(3, 4, 10, 1),
            read(3, 5, 12, 2),
            write(4, 5, (10, 1), 3, Refused),
            write(6, 7, (10, 1), 4, Unknown),
            write(10, 11, (12, 2), 5, Unknown),
            read(20, 21, 12, 2),
            // Nobody heard of it, and it happened late.
            read(30, 31, 15, 5),
            read(32, 33, 16, 5),
        ];
        assert_eq!(told(&ops), [""; 0]);
        assert_eq!(told(&[write(0, 1, (10, 1), 2, Unknown)]), [""; 0]);
    }

    #[test]
    fn a_lost_write_and_one_that_was_refused_and_happened_are_found() {
        let done = write(0, 1, (10, 1), 2, Done);
        finds("acknowledged write was lost", &[done, read(2, 3, 10, 1)]);
        let both = [done, write(0, 1, (10, 1), 3, Done), read(2, 3, 11, 3)];
        finds("acknowledged write was lost", &both);
        let refused = write(0, 1, (10, 1), 2, Refused);
        finds("that was refused", &[refused, read(2, 3, 11, 2)]);
    }

    #[test]
    fn a_stale_read_and_one_of_the_future_are_found() {
        let done = write(0, 1, (10, 1), 2, Done);
        finds("a read was stale", &[done, read(2, 3, 10, 1), read(4, 5, 11, 2)]);
        finds("a read was stale", &[read(0, 1, 12, 1), read(2, 3, 11, 1)]);
        finds("before it was begun", &[read(0, 1, 11, 2), write(2, 3, (10, 1), 2, Unknown)]);
    }

    #[test]
    fn values_from_nowhere_with_wrong_versions_and_vanished_ones_are_found() {
        finds("nobody wrote 7", &[read(0, 1, 11, 7)]);
        let done = write(0, 1, (10, 1), 2, Done);
        finds("version of another", &[done, read(0, 3, 9, 2), read(4, 5, 11, 2)]);
        let unknown = write(0, 1, (10, 1), 3, Unknown);
        finds("that is gone", &[done, unknown, read(0, 1, 11, 3), read(2, 3, 12, 2)]);
    }
}
