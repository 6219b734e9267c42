//! A node that serves the Docker API and becomes a manager or a worker when it is told to.

mod address;
mod state;

pub use state::{Membership, StateDir};
