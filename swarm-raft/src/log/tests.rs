//! The log on its own.
