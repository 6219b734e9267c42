//! The strategies that come with the crate. Each says in a few lines which suitable node is best;
//! filters, placement preferences, topology and affinities apply to every one of them.

mod binpack;
mod least_loaded;
mod random;
mod spread;

pub use binpack::BinPack;
pub use least_loaded::LeastLoaded;
pub use random::Random;
pub use spread::Spread;
