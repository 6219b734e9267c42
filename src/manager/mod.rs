//! The manager: everything that one member of the management group runs.

pub mod assign;
pub mod bootstrap;
mod builder;
pub mod common;
pub mod control;
mod deploy;
pub mod dispatcher;
pub mod group;
mod log_routes;
pub mod logs;
mod reports;
pub mod roles;
pub mod rotation;
pub mod secrets;
pub mod session;
#[cfg(test)]
mod session_tests;
pub mod tell;

pub use builder::{Manager, ManagerBuilder};
