//! Load and probes between namespaces.

mod both_ways;
mod datagrams;
mod group;
mod iperf;
mod lockstep;
mod ping;
mod stream;
mod transfer;

pub use self::{
    both_ways::BothWays,
    datagrams::Datagrams,
    group::reaches,
    iperf::{Tcp, Udp, tcp, udp},
    lockstep::{LockstepTcp, LockstepUdp},
    ping::{Ping, ping},
    stream::{Stream, StreamReport},
    transfer::transfer,
};
