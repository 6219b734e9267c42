//! The seeded world: a whole cluster in one process, with virtual time.
//!
//! Everything that decides in this library is a pure function, so managers, agents, links, clocks
//! and executors can live in one queue of events. A 64-bit seed draws a [`Script`]: what clients
//! ask for and what breaks. A [`World`] plays it, checks every [`Invariant`] after every event,
//! heals, and checks that what was asked for is there. The same seed plays the same way, to the
//! bit.
//!
//! What is real here: the planners, the controller, the dispatcher, the assignment sets, the
//! control API, the agents' whole state, the store's semantics. What stands in: consensus (one
//! log, see [`consensus`]), the network, clocks, and containers ([`machine`]).
//!
//! ```
//! use swarm::sim::{Size, World, draw};
//!
//! let script = draw(7, &Size::small());
//! let outcome = swarm::sim::play(World::new(script));
//! assert!(outcome.violation.is_none(), "{outcome}");
//! ```
//!
//! What fails is made smaller by [`shrink`]; a [`Script`] is text, to write scenarios and to keep
//! them.
//!
//! To test planners of your own, hand them to [`World::with`]; to test more, add an
//! [`Invariant`].

pub mod agent;
mod client;
pub mod consensus;
pub mod coverage;
pub mod dice;
mod draw;
mod expect;
mod fault;
pub mod host;
pub mod invariant;
mod link;
pub mod machine;
pub mod manager;
pub mod meddle;
mod run;
pub mod script;
mod sessions;
mod setup;
mod shrink;
mod situations;
mod text;
pub mod trace;
mod world;

pub use draw::{Size, draw};
pub use invariant::{Invariant, Violation};
pub use run::{Outcome, play};
pub use script::Script;
pub use shrink::{TRIES, shrink};
pub use text::ParseError;
pub use world::World;
