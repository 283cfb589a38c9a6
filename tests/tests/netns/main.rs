//! Two hosts in network namespaces with the kernel's own bridges and tunnels. Needs root.

mod cleanup;
mod daemon;
mod gate;
mod mistakes;
mod slow_path;
mod support;
mod transitions;
