//! Typed object ids: 25 characters of base 36, as Docker's clients expect them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const LEN: usize = 25;
/// How much of an id those that are [beside](IdSource::beside) it have in common.
const SHARED: usize = 4;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The id of an object of type `T`: 25 characters `[0-9a-z]`, about 129 random bits. Those of a task
/// begin as its service's do, see [`IdSource::beside`].
///
/// Ids of different types do not mix. The [`NIL`](Self::NIL) id (25 zeros) is never generated; it
/// stands for "not set" and its JSON is the empty string.
///
/// ```
/// use swarm_core::id::{Id, IdSource};
/// use swarm_core::model::Service;
/// let id: Id<Service> = IdSource::seeded(7).next();
/// assert_eq!(id.as_str().len(), 25);
/// assert_eq!(id.as_str().parse::<Id<Service>>().unwrap(), id);
/// ```
pub struct Id<T: ?Sized> {
    digits: [u8; LEN],
    of: PhantomData<fn() -> T>,
}

impl<T: ?Sized> Id<T> {
    /// The id that no object has.
    pub const NIL: Self = Self { digits: [b'0'; LEN], of: PhantomData };
    /// The smallest id, for ranges over ordered tables.
    pub const MIN: Self = Self::NIL;
    /// Larger than every id, for ranges over ordered tables.
    pub const MAX: Self = Self { digits: [0x7f; LEN], of: PhantomData };

    /// The 25 characters; for [`NIL`](Self::NIL) too.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits).expect("an id is ASCII by construction")
    }

    /// Whether this is the id that no object has.
    #[must_use]
    pub fn is_nil(&self) -> bool {
        *self == Self::NIL
    }

    /// The first eight characters as a number of the same order. Ids are random, so this alone tells
    /// nearly all of them apart.
    fn head(&self) -> u64 {
        u64::from_be_bytes(*self.digits.first_chunk().expect("an id is longer"))
    }

    /// The other characters, likewise.
    fn tail(&self) -> [u64; 3] {
        let (words, last) = self.digits[8..].as_chunks::<8>();
        [u64::from_be_bytes(words[0]), u64::from_be_bytes(words[1]), u64::from(last[0])]
    }

    /// The same characters as the id of another type: for an id that leaves the typed world, such
    /// as a container's label. Prefer typed references.
    #[must_use]
    pub fn cast<U: ?Sized>(self) -> Id<U> {
        Id { digits: self.digits, of: PhantomData }
    }
}

/// A hash map by id, or by what is made of ids. For look-ups alone: its order means nothing.
pub type IdMap<K, V> = std::collections::HashMap<K, V, std::hash::BuildHasherDefault<IdHasher>>;

/// Hashes what is random already, in a few instructions. Not for keys that a client can choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        // Odd, with its bits at random: the golden ratio. The rotation brings the high half, which
        // is the mixed one, down to where tables look.
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Where new ids come from: an argument of every decision, so that a seed fixes them.
pub struct IdSource<R = rand::rngs::StdRng>(R);

impl IdSource {
    /// Ids from the operating system's randomness.
    ///
    /// # Panics
    /// When the operating system cannot give random bytes.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::make_rng())
    }

    /// Ids that a seed determines, for simulation and tests.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(rand::SeedableRng::seed_from_u64(seed))
    }
}

impl<R: Rng> IdSource<R> {
    /// A new id. (Not an `Iterator`: the type of the id is the caller's choice.)
    #[allow(clippy::should_implement_trait)]
    pub fn next<T: ?Sized>(&mut self) -> Id<T> {
        loop {
            let mut digits = [0; LEN];
            self.draw(&mut digits);
            let id = Id { digits, of: PhantomData };
            if !id.is_nil() {
                return id;
            }
        }
    }

    /// A new id that begins with the same four characters as another, and is random otherwise. In
    /// tables ordered by id, what is beside the same id lies together, so that a commit about many of
    /// them writes to one place. Four tell 1.7 million such places apart; the other 21 are 108 bits.
    pub fn beside<T: ?Sized, U: ?Sized>(&mut self, other: Id<U>) -> Id<T> {
        loop {
            let mut digits = other.digits;
            self.draw(&mut digits[SHARED..]);
            let id = Id { digits, of: PhantomData };
            if !id.is_nil() {
                return id;
            }
        }
    }

    /// Random characters: up to nine from each word, by which none is more likely than another by more
    /// than one in 180,000.
    fn draw(&mut self, digits: &mut [u8]) {
        for digits in digits.chunks_mut(9) {
            let mut word = self.0.next_u64();
            for digit in digits {
                // The word as a fraction of 1, times 36: a digit, and what is left.
                let product = u128::from(word) * 36;
                *digit = DIGITS[(product >> 64) as usize];
                word = product as u64;
            }
        }
    }

    /// A number below `bound` (which must not be 0), for tie-breaks and jitter.
    pub fn below(&mut self, bound: u64) -> u64 {
        use rand::RngExt as _;
        self.0.random_range(0..bound)
    }
}

/// The text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an object id: 25 characters of 0-9 and a-z are needed")]
pub struct InvalidId(pub String);

impl<T: ?Sized> FromStr for Id<T> {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() {
            return Ok(Self::NIL);
        }
        match <[u8; LEN]>::try_from(text.as_bytes()) {
            Ok(digits) if digits.iter().all(|d| d.is_ascii_digit() || d.is_ascii_lowercase()) => {
                Ok(Self { digits, of: PhantomData })
            }
            _ => Err(InvalidId(text.to_owned())),
        }
    }
}

impl<T: ?Sized> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: ?Sized> Copy for Id<T> {}
impl<T: ?Sized> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.head() == other.head() && self.tail() == other.tail()
    }
}
impl<T: ?Sized> Eq for Id<T> {}
impl<T: ?Sized> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T: ?Sized> Ord for Id<T> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        // The store does little else than compare ids: a few instructions, where comparing bytes
        // takes a call.
        self.head().cmp(&other.head()).then_with(|| self.tail().cmp(&other.tail()))
    }
}
impl<T: ?Sized> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Ids of tests differ in their last characters, others in all.
        let [second, third, last] = self.tail();
        state.write_u64(self.head() ^ second.rotate_left(21) ^ third.rotate_left(42) ^ last);
    }
}
impl<T: ?Sized> Default for Id<T> {
    fn default() -> Self {
        Self::NIL
    }
}
impl<T: ?Sized> fmt::Display for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
impl<T: ?Sized> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl<T: ?Sized> Serialize for Id<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_nil() { "" } else { self.as_str() })
    }
}
impl<'de, T: ?Sized> Deserialize<'de> for Id<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Service, Task};

    #[test]
    fn every_character_occurs_in_every_place() {
        let mut ids = IdSource::seeded(1);
        let mut seen = [[0_u32; 36]; LEN];
        for _ in 0..3_600 {
            for (place, digit) in ids.next::<Task>().digits.iter().enumerate() {
                let value = DIGITS.iter().position(|known| known == digit).expect("of base 36");
                seen[place][value] += 1;
            }
        }
        // A hundred are expected, plus or minus ten.
        assert!(seen.iter().flatten().all(|count| (50..150).contains(count)), "{seen:?}");
    }

    #[test]
    fn what_is_beside_an_id_begins_as_it_does_and_is_new() {
        let mut ids = IdSource::seeded(2);
        let service: Id<Service> = ids.next();
        let tasks: Vec<Id<Task>> = (0..1_000).map(|_| ids.beside(service)).collect();
        assert!(tasks.iter().all(|task| task.as_str()[..SHARED] == service.as_str()[..SHARED]));
        let mut different = tasks.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), tasks.len());
        assert!(!ids.beside::<Task, Service>(Id::NIL).is_nil());
    }
}
