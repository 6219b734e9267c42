//! The core of the swarm orchestrator: the object model, the store, the control loop, and the
//! traits behind which everything else can be replaced.
//!
//! | module | what it is |
//! |---|---|
//! | [`model`] | every object of the cluster; its serde shape is the Docker Engine API's JSON |
//! | [`store`] | [`Store`](store::Store): snapshots, batches, watches; [`MemoryStore`](store::MemoryStore) |
//! | [`control`] | [`Planner`](control::Planner): decisions; the controller that orders them |
//! | [`scheduler`] | [`Scheduler`](scheduler::Scheduler): where tasks run |
//! | [`executor`] | [`Executor`](executor::Executor): what runs them |
//! | [`network`] | [`NetworkDriver`](network::NetworkDriver): how they reach each other |
//! | [`secret`] | [`SecretStore`](secret::SecretStore): where secrets live |
//! | [`template`] | templates in specifications, secrets and configs |
//! | [`protocol`] | what agents and managers say to each other |
//! | [`conformance`] | the test suites that implementations of the traits pass |

pub mod conformance;
pub mod control;
pub mod executor;
pub mod id;
pub mod json;
pub mod model;
pub mod network;
pub mod protocol;
pub mod scheduler;
pub mod secret;
pub mod store;
pub mod template;
pub mod time;
