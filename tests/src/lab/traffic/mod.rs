//! Load and probes between namespaces.

mod both_ways;
mod connections;
mod datagrams;
mod frames;
mod group;
mod iperf;
mod lockstep;
mod nuttcp;
mod ping;
mod sockperf;
mod stream;
mod transfer;

pub use self::{
    both_ways::BothWays,
    connections::{Connections, connections},
    datagrams::Datagrams,
    frames::send_frames,
    group::{Station, reaches},
    iperf::{Tcp, Udp, tcp, udp},
    lockstep::{LockstepTcp, LockstepUdp},
    nuttcp::{Flood, flood},
    ping::{Ping, ping},
    sockperf::{Exchanges, exchange},
    stream::{Stream, StreamReport},
    transfer::transfer,
};
