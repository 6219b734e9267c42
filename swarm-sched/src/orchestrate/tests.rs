//! Scenarios: a store, a controller with the planners, agents that do as they are told, and a
//! clock that moves when there is nothing left to do.

mod global;
mod jobs;
mod matters;
mod nodes;
mod random;
mod rebalance;
mod replicated;
mod restart;
mod rollback;
mod together;
mod update;
mod world;
