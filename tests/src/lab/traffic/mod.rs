//! Load and probes between namespaces.

mod both_ways;
mod datagrams;
mod frames;
mod group;
mod iperf;
mod lockstep;
mod ping;
mod stream;
mod transfer;

pub use self::{
    both_ways::BothWays,
    datagrams::Datagrams,
    frames::send_frames,
    group::reaches,
    iperf::{Tcp, Udp, tcp, udp},
    lockstep::{LockstepTcp, LockstepUdp},
    ping::{Ping, ping},
    stream::{Stream, StreamReport},
    transfer::transfer,
};
