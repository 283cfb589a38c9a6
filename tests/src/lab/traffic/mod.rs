//! Load and probes between namespaces.

mod group;
mod iperf;
mod ping;
mod stream;
mod transfer;

pub use self::{
    group::reaches,
    iperf::{Tcp, Udp, tcp, udp},
    ping::{Ping, ping},
    stream::{Stream, StreamReport},
    transfer::transfer,
};
