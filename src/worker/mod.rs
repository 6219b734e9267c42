//! The worker: an agent with its executor, in session with a manager.
