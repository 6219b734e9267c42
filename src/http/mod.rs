//! The swarm part of the Docker Engine HTTP API.

mod local;

pub use local::{
    InitRequest, JoinRequest, LocalNode, LocalState, LocalStatus, RemoteManager, UnlockRequest,
};
