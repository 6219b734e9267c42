//! Network drivers of the swarm orchestrator: engine-local bridges, ports and load balancing.
