//! Two hosts in network namespaces with the kernel's own bridges and tunnels. Needs root.

mod accelerated;
mod cleanup;
mod interop;
mod slow_path;
mod stations;
mod traffic;
mod underlay;
