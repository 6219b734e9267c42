//! The short forms in which a stack file may write things: one file for each grammar.

pub(crate) mod image;
pub(crate) mod ports;
pub(crate) mod volume;
pub(crate) mod words;
