//! The manager: everything that one member of the management group runs.

pub mod assign;
pub mod bootstrap;
mod builder;
pub mod common;
pub mod control;
mod deploy;
pub mod dispatcher;
pub mod group;
pub mod logs;
pub mod roles;
pub mod rotation;
pub mod secrets;
pub mod session;
pub mod tell;

pub use builder::{Manager, ManagerBuilder};
