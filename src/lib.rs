//! Docker Swarm mode as a library.
