//! A durable, replicated Store over openraft: log, snapshots and encryption at rest.
