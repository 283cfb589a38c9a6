//! Two hosts in network namespaces with the kernel's own bridges and tunnels. Needs root.

mod slow_path;
