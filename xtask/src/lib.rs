//! Set-up, builds, demo, tests and lints of ovs-ebpf.
