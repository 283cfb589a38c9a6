//! ICMP and `ICMPv6` echoes.
//!
//! Not by ping(8): once it has a reply, it waits for the last ones no longer than two round trips, so that
//! a machine that stands still for a moment looks like one that loses packets.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, UdpSocket},
    os::fd::AsFd as _,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt},
    sys::time::TimeSpec,
};

use super::datagrams::BUFFER;
use crate::lab::{Namespace, patience};

/// How long the last replies may take.
const LIMIT: Duration = Duration::from_secs(1);
/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

/// What became of echo requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Requests sent, also those that the own host had no way for.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
}

impl Ping {
    /// The share of requests without a reply, 0 to 1.
    pub fn loss(self) -> f64 {
        1.0 - f64::from(self.received) / f64::from(self.sent.max(1))
    }
}

/// Sends `count` echo requests with `size` bytes of payload each, one per `interval`.
///
/// # Errors
/// When there is no socket or no route to begin with, and when a reply comes twice or is not what was
/// sent: lost packets are no error.
pub fn ping(
    from: &Namespace,
    to: impl Into<IpAddr>,
    size: u32,
    count: u32,
    interval: Duration,
) -> Result<Ping> {
    let to = to.into();
    let mut echoes = from
        .run_in(|| Echoes::open(to, size as usize))
        .with_context(|| format!("cannot send echoes to {to} in {}", from.name()))?;
    let mut next = Instant::now();
    for number in 0..count {
        echoes.receive_until(next)?;
        echoes.send(number)?;
        next += interval;
    }
    let deadline = Instant::now() + patience(LIMIT);
    while echoes.received() < count && echoes.receive(deadline)? {}
    Ok(Ping { sent: count, received: echoes.received() })
}

/// The echoes to one address.
struct Echoes {
    /// A raw one.
    socket: UdpSocket,
    /// Bytes before the reply's ICMP header are the IPv4 header's.
    is_v4: bool,
    request: Vec<u8>,
    /// By number, whether its reply has come.
    replies: Vec<bool>,
    buffer: Vec<u8>,
}

impl Echoes {
    fn open(to: IpAddr, size: usize) -> Result<Self> {
        static IDENTIFIER: AtomicU16 = AtomicU16::new(1);
        const REQUEST: u8 = 8;
        const REQUEST_V6: u8 = 128;

        let is_v4 = to.is_ipv4();
        let (family, protocol, kind) = if is_v4 {
            (AddressFamily::Inet, SockProtocol::Icmp, REQUEST)
        } else {
            (AddressFamily::Inet6, SockProtocol::IcmpV6, REQUEST_V6)
        };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        setsockopt(&socket, sockopt::SndBufForce, &BUFFER)?;
        // Any socket's: `send` and `recv` ask nothing of UDP.
        let socket = UdpSocket::from(socket);
        socket.connect((to, 0))?;

        let mut request = vec![kind, 0, 0, 0];
        request.extend(IDENTIFIER.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        request.extend([0; 2]);
        request.extend((0..=u8::MAX).cycle().take(size));
        Ok(Self { socket, is_v4, request, replies: Vec::new(), buffer: vec![0; 1 << 16] })
    }

    fn received(&self) -> u32 {
        self.replies.iter().map(|came| u32::from(*came)).sum()
    }

    fn send(&mut self, number: u32) -> Result<()> {
        self.request[6..HEADER].copy_from_slice(&sequence(number));
        if self.is_v4 {
            // Over IPv6 it covers addresses, and is the kernel's.
            self.request[2..4].fill(0);
            let checksum = checksum(&self.request);
            self.request[2..4].copy_from_slice(&checksum);
        }
        self.replies.push(false);
        match self.socket.send(&self.request) {
            Err(error) if !is_of_the_way(&error) => Err(error).context("cannot send an echo"),
            _ => Ok(()),
        }
    }

    fn receive_until(&mut self, deadline: Instant) -> Result<()> {
        while self.receive(deadline)? {}
        Ok(())
    }

    /// Takes what comes next, if something does before then.
    fn receive(&mut self, deadline: Instant) -> Result<bool> {
        let left = TimeSpec::from_duration(deadline.saturating_duration_since(Instant::now()));
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut ready, Some(left), None) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for echoes"),
        }
        match self.socket.recv(&mut self.buffer) {
            Ok(length) => self.take(length)?,
            Err(error) if is_of_the_way(&error) => {}
            Err(error) => return Err(error).context("cannot receive echoes"),
        }
        Ok(true)
    }

    /// Notes a packet, if it is a reply.
    fn take(&mut self, length: usize) -> Result<()> {
        const REPLY: u8 = 0;
        const REPLY_V6: u8 = 129;

        let header = if self.is_v4 { usize::from(self.buffer[0] & 0xf) * 4 } else { 0 };
        let Some(reply) = self.buffer.get(header..length) else { return Ok(()) };
        let kind = if self.is_v4 { REPLY } else { REPLY_V6 };
        if reply.len() < HEADER || reply[0] != kind || reply[4..6] != self.request[4..6] {
            return Ok(());
        }
        // More than 65,536 are numbered from the beginning again: the latest with this number is meant.
        let latest = (0..self.replies.len()).rev().take(1 << 16);
        let number = latest.into_iter().find(|number| reply[6..HEADER] == sequence(*number as u32));
        let number = number.context("a reply to an echo that was not sent")?;
        ensure!(!self.replies[number], "the reply to echo {number} came twice");
        ensure!(reply[HEADER..] == self.request[HEADER..], "the reply to echo {number} is another");
        self.replies[number] = true;
        Ok(())
    }
}

fn sequence(number: u32) -> [u8; 2] {
    (number as u16).to_be_bytes()
}

/// Whether an error says that the packet, or an earlier one, has not found its way. Those are lost.
fn is_of_the_way(error: &io::Error) -> bool {
    use ErrorKind::{
        ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable, WouldBlock,
    };
    matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | NetworkDown | NetworkUnreachable | WouldBlock
    )
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| {
        u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
    });
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
