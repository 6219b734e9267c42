//! The agent: runs on every node what its manager assigns.
//!
//! | file | what it is |
//! |---|---|
//! | [`step`] | pure: the next step of one task |
//! | [`state`] | pure: all tasks, assignments, reports, the journal's content |
//! | [`backoff`] | pure: how soon the next session opens |
//! | [`assemble`] | pure: what an executor and a network driver need for one task |
//! | [`journal`] | what survives a restart of the agent |
//! | [`link`] | how an agent reaches a manager |
//! | [`shell`] | carries out what `state` decides |

pub mod assemble;
pub mod backoff;
mod hands;
pub mod journal;
pub mod link;
mod logs;
mod networks;
mod session;
pub mod shell;
pub mod state;
pub mod step;

pub use hands::purge;
pub use link::{Connection, Link, LinkError};
pub use shell::{Agent, AgentBuilder, AgentError, REPORT_AFTER, REPORTS};
pub use step::Timing;
