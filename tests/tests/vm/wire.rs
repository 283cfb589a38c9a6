//! Datagrams between the first containers of two hosts, as they cross the underlay.

use std::{net::IpAddr, os::fd::AsFd as _};

use anyhow::{Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use ovs_ebpf_tests::lab::{Capture, Lab, Namespace, traffic::Datagrams};

pub(crate) use ovs_ebpf_tests::wire::{ETHERNET, IPV4};

use crate::support::Peer;

const UDP: usize = 8;
/// Bytes in each datagram.
const PAYLOAD: usize = 301;
/// Their time to live, which is nobody's default.
const TTL: i32 = 33;
/// Don't Fragment, in the upper byte of the fragment field.
pub(crate) const DF: u8 = 0x40;
/// The VLAN of those with a tag.
pub(crate) const VLAN: u16 = 10;

/// Datagrams from one container to another, of one socket.
#[derive(Debug)]
pub(crate) struct Flow {
    /// For messages.
    pub(crate) name: String,
    datagrams: Datagrams,
    to: IpAddr,
}

impl Flow {
    pub(crate) fn open(from: &Namespace, to: &Namespace, address: IpAddr) -> Result<Self> {
        let datagrams = Datagrams::open(from, (to, address))?;
        let socket = datagrams.sender().as_fd();
        match address {
            IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4Ttl, &TTL)?,
            IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6Ttl, &TTL)?,
        }
        let name = format!("{} to {address}", from.name());
        Ok(Self { name, datagrams, to: address })
    }

    /// Sends one with this TOS or traffic class, which has to arrive, and gives it as it passed the
    /// captured uplink.
    pub(crate) fn on_the_wire(&self, capture: &mut Capture, tos: u8) -> Result<Vec<u8>> {
        let socket = self.datagrams.sender().as_fd();
        match self.to {
            IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4Tos, &tos.into())?,
            IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6TClass, &tos.into())?,
        }
        let arrived = self.datagrams.send(PAYLOAD, 1)?;
        ensure!(arrived == 1, "{}, TOS {tos:#04x}: nothing arrives", self.name);
        let port = self.datagrams.sender().peer_addr()?.port().to_be_bytes();
        capture.next(|frame| {
            outer_len(frame).is_some_and(|outer| {
                frame.len() >= outer + ETHERNET + IPV4 + UDP + PAYLOAD
                    && frame[frame.len() - PAYLOAD - UDP + 2..][..2] == port
            })
        })
    }

    /// A frame of this flow without what may differ from packet to packet: identification and checksum
    /// of each IPv4 header, and the inner UDP checksum, which is complete in what ovs-vswitchd has sent
    /// itself, and the receiver's to complete in all else.
    pub(crate) fn comparable(&self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        let udp = frame.len() - PAYLOAD - UDP;
        frame[udp + 6..udp + UDP].fill(0);
        let inner = self.to.is_ipv4().then_some(udp - IPV4);
        for header in [ETHERNET].into_iter().chain(inner) {
            for field in [4, 10] {
                frame[header + field..][..2].fill(0);
            }
        }
        frame
    }
}

/// Bytes in front of the inner Ethernet header, of what crosses an IPv4 underlay in a tunnel.
pub(crate) fn outer_len(frame: &[u8]) -> Option<usize> {
    const VXLAN: usize = 8;
    if frame.get(12..14)? != [8, 0] {
        return None;
    }
    match frame.get(ETHERNET + 9)? {
        17 => Some(ETHERNET + IPV4 + UDP + VXLAN),
        // Checksum, key and sequence number (RFC 2890) have four bytes each.
        47 => {
            let options = (frame.get(ETHERNET + IPV4)? & 0xb0).count_ones() as usize;
            Some(ETHERNET + IPV4 + 4 + 4 * options)
        }
        _ => None,
    }
}

/// A flow to each address of a container.
pub(crate) fn flows((from, _): Peer<'_>, (to, addresses): Peer<'_>) -> Result<Vec<Flow>> {
    addresses.into_iter().map(|address| Flow::open(from, to, address)).collect()
}

/// The first two hosts' first containers in a VLAN: on a device `eth0.10` that they get.
pub(crate) fn in_a_vlan(lab: &Lab) -> Result<[Peer<'_>; 2]> {
    let ends: [Peer<'_>; 2] = [
        (lab.container(0), ["10.0.10.1".parse()?, "fd10::1".parse()?]),
        (lab.container(1), ["10.0.10.2".parse()?, "fd10::2".parse()?]),
    ];
    for (container, [ipv4, ipv6]) in ends {
        container.ip(&format!(
            "link add link eth0 name eth0.{VLAN} up type vlan id {VLAN}\n\
             addr add {ipv4}/24 dev eth0.{VLAN}\naddr add {ipv6}/64 dev eth0.{VLAN} nodad\n"
        ))?;
    }
    Ok(ends)
}
