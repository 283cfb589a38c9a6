//! Two hosts in network namespaces with the kernel's own bridges and tunnels. Needs root.

mod addresses;
mod cleanup;
mod daemon;
mod docker;
mod ecn;
mod filter;
mod gate;
mod hostile;
mod interop;
mod local;
mod managed;
mod mistakes;
mod network;
mod over_ipv6;
mod security;
mod slow_path;
mod stations;
mod support;
mod traffic;
mod transitions;
mod underlay;

use ovs_ebpf_tests::accelerated;
