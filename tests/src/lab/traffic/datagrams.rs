//! UDP datagrams whose content is checked one by one.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};

use crate::lab::{Namespace, patience};

/// How long a datagram may take.
const LIMIT: Duration = Duration::from_secs(2);
/// Bytes of the buffers on both ends.
pub(super) const BUFFER: usize = 4 << 20;

/// A connected pair of UDP sockets: one flow, for as long as it lives.
#[derive(Debug)]
pub struct Datagrams {
    pub(super) outgoing: UdpSocket,
    pub(super) incoming: UdpSocket,
}

impl Datagrams {
    /// Opens a flow.
    ///
    /// # Errors
    /// When its sockets can't be set up.
    pub fn open(from: &Namespace, to: (&Namespace, IpAddr)) -> Result<Self> {
        let (receiver, address) = to;
        let unspecified = match address {
            IpAddr::V4(_) => "0.0.0.0:0",
            IpAddr::V6(_) => "[::]:0",
        };
        let bind = |address: SocketAddr| UdpSocket::bind(address).context("cannot bind");
        let incoming = receiver.run_in(|| bind(SocketAddr::from((address, 0))))?;
        incoming.set_read_timeout(Some(patience(LIMIT))).context("cannot set a time limit")?;
        let outgoing = from.run_in(|| bind(unspecified.parse().expect("an address")))?;
        setsockopt(&incoming, sockopt::RcvBufForce, &BUFFER).context("a receive buffer")?;
        setsockopt(&outgoing, sockopt::SndBufForce, &BUFFER).context("a send buffer")?;
        let target = incoming.local_addr().context("the receiver's address")?;
        from.run_in(|| outgoing.connect(target))
            .with_context(|| format!("no route to {target}"))?;
        Ok(Self { outgoing, incoming })
    }

    /// The sending socket, to set options.
    pub fn sender(&self) -> &UdpSocket {
        &self.outgoing
    }

    /// Sends `count` datagrams with `size` bytes of payload, and counts those that arrive as they
    /// were sent.
    ///
    /// # Errors
    /// When one can't be sent.
    pub fn send(&self, size: usize, count: u32) -> Result<u32> {
        /// As many as fit into the sockets' buffers and the queues between them.
        const AT_ONCE: u32 = 16;
        let content = |number: u32| -> Vec<u8> {
            let mut word = number.wrapping_mul(0x9e37_79b9) | 1;
            let mut next = || {
                word ^= word << 13;
                word ^= word >> 17;
                word ^= word << 5;
                word.to_le_bytes()[0]
            };
            (0..size).map(|_| next()).collect()
        };
        let (mut arrived, mut buffer) = (0, vec![0; size + 1]);
        for first in (0..count).step_by(AT_ONCE as usize) {
            let mut expected: Vec<Vec<u8>> =
                (first..count.min(first + AT_ONCE)).map(content).collect();
            for content in &expected {
                self.outgoing.send(content).context("cannot send")?;
            }
            while !expected.is_empty() {
                let Ok(length) = self.incoming.recv(&mut buffer) else { break };
                if let Some(at) = expected.iter().position(|content| *content == buffer[..length]) {
                    expected.swap_remove(at);
                    arrived += 1;
                }
            }
        }
        Ok(arrived)
    }
}
