//! What can go wrong with addresses, in words that `docker` prints.

use std::net::IpAddr;

use super::subnet::{Range, Share, Subnet};
use crate::state;

/// An address or a pool can't be given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Docker, or who pretends to be it, asks for what is none.
    #[error("{0}")]
    Request(String),
    /// An option that is not known.
    #[error(
        "the address driver ovs-ebpf has no option {0}: write --ipam-opt share=K/N on host K of N"
    )]
    Option(String),
    /// The range is not the subnet's.
    #[error("{range} is not within {subnet}: give an --ip-range that is part of the --subnet")]
    Range {
        /// What `--ip-range` says.
        range: Subnet,
        /// What `--subnet` says.
        subnet: Subnet,
    },
    /// No address is left for the share.
    #[error("share={share} of {range} has no address: make the subnet larger or the shares fewer")]
    NoShare {
        /// The share.
        share: Share,
        /// Of what.
        range: Range,
    },
    /// Every default subnet collides.
    #[error(
        "every default subnet overlaps a route or a network of this host: choose one with --subnet"
    )]
    NoDefault,
    /// There is no such pool.
    #[error(
        "the address pool {0} is not known on this host: has its state been deleted? Remove the \
         network with `docker network rm` and create it again"
    )]
    NoPool(String),
    /// Not an address of the network.
    #[error("{address} is no station's address in {subnet}: choose one from {stations}")]
    Outside {
        /// What was asked for.
        address: IpAddr,
        /// The network's subnet.
        subnet: Subnet,
        /// What there is to choose from.
        stations: Range,
    },
    /// Given out already.
    #[error(
        "{address} of {subnet} is taken already on this host: `docker network inspect` shows by whom"
    )]
    Taken {
        /// What was asked for.
        address: IpAddr,
        /// The network's subnet.
        subnet: Subnet,
    },
    /// No address is left.
    #[error(
        "all addresses of this host from {range} in {subnet} are given out: remove containers, ask \
         for a free one of the subnet with --ip, or create the network with a larger share"
    )]
    Exhausted {
        /// This host's.
        range: Range,
        /// The network's subnet.
        subnet: Subnet,
    },
    /// The host's routes can't be read.
    #[error("cannot read the host's routes, which a default subnet must not overlap: {0}")]
    Routes(String),
    /// What is written down.
    #[error(transparent)]
    State(#[from] state::Error),
}
