//! The manager: everything that one member of the management group runs.

pub mod control;
pub mod logs;
