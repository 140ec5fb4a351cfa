//! How others reach the daemon: the control socket for the command line, HTTP for Prometheus.

pub mod protocol;
