//! Pure: names for services that come without one, as the engine invents them.

use swarm_core::id::IdSource;

const HOW: [&str; 24] = [
    "amazing", "bold", "brave", "busy", "clever", "cool", "eager", "elegant", "festive", "frosty",
    "gentle", "happy", "jolly", "keen", "kind", "lucid", "modest", "nifty", "quiet", "sharp",
    "stoic", "sweet", "vivid", "wise",
];
const WHO: [&str; 24] = [
    "austin", "babbage", "bohr", "curie", "dijkstra", "euler", "franklin", "gauss", "goodall",
    "hamilton", "hopper", "hypatia", "kepler", "lamport", "lovelace", "meitner", "newton",
    "noether", "pascal", "ritchie", "shannon", "swartz", "turing", "wozniak",
];

/// An invented name that `taken` does not know: two words, and a digit once those run short.
pub(super) fn invent(ids: &mut IdSource, taken: impl Fn(&str) -> bool) -> String {
    for attempt in 0u64.. {
        let how = HOW[usize::try_from(ids.below(24)).unwrap_or(0)];
        let who = WHO[usize::try_from(ids.below(24)).unwrap_or(0)];
        let name = match attempt {
            0..8 => format!("{how}_{who}"),
            _ => format!("{how}_{who}{}", ids.below(10 * attempt)),
        };
        if !taken(&name) {
            return name;
        }
    }
    unreachable!("the range of attempts has no end")
}
