//! A packet's whole way on the fast path, from the hook to the verdict.

mod port_ingress;
mod uplink_ingress;
