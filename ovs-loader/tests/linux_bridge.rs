//! The kernel's bridges as the library reads and changes them, against what `ip` and `bridge`
//! set and show. Each test has a network namespace of its own; it needs root.

#[path = "linux_bridge/host.rs"]
mod host;
#[path = "linux_bridge/provisioning.rs"]
mod provisioning;
#[path = "linux_bridge/reading.rs"]
mod reading;
#[path = "linux_bridge/tunnels.rs"]
mod tunnels;
