//! The manager: everything that one member of the management group runs.

pub mod assign;
pub mod bootstrap;
pub mod control;
pub mod dispatcher;
pub mod logs;
pub mod secrets;
pub mod session;
