//! A packet's whole way on the fast path, from the hook to the verdict; and what the loader tries out.

mod decap_probe;
mod port_ingress;
mod port_security;
mod uplink_ingress;
mod uplink_xdp;
