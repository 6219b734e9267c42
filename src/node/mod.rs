//! A node that serves the Docker API and becomes a manager or a worker when it is told to.
