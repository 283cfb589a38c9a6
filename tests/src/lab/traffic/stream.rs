//! A paced UDP stream whose every packet is accounted for.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};

use super::datagrams::BUFFER;
use crate::lab::{Namespace, patience};

/// How long packets may be on their way after the last was sent.
const TAIL: Duration = Duration::from_millis(500);
/// How long a second copy of a packet may be on its way when all have arrived.
const COPIES: Duration = Duration::from_millis(50);
/// Not all packets are sent yet.
const SENDING: u64 = u64::MAX;
/// Bytes of a packet, without headers.
const SIZE: usize = 64;

/// A running stream. Packets are sent at fixed times, not at fixed distances: a sender that was held
/// up catches up, so that the machine's load doesn't look like loss.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    sender: Option<JoinHandle<Result<u64>>>,
    receiver: Option<JoinHandle<Result<Received>>>,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamReport {
    /// Packets sent.
    pub sent: u64,
    /// Packets that never arrived.
    pub lost: u64,
    /// Arrivals of packets that had arrived before.
    pub duplicated: u64,
    /// Packets that arrived after one that was sent later.
    pub reordered: u64,
    /// The longest time between two arrivals.
    pub longest_gap: Duration,
}

#[derive(Debug, Default)]
struct Received {
    seen: HashSet<u64>,
    newest: Option<u64>,
    duplicated: u64,
    reordered: u64,
    longest_gap: Duration,
}

impl Stream {
    /// Starts a stream of 1000 packets per second.
    ///
    /// # Errors
    /// When its sockets can't be set up.
    pub fn start(from: &Namespace, to: (&Namespace, IpAddr)) -> Result<Self> {
        Self::paced(from, to, 1000)
    }

    /// Starts a stream of so many packets per second.
    ///
    /// # Errors
    /// When its sockets can't be set up.
    pub fn paced(from: &Namespace, to: (&Namespace, IpAddr), per_second: u32) -> Result<Self> {
        let (receiver, address) = to;
        let unspecified = match address {
            IpAddr::V4(_) => "0.0.0.0:0",
            IpAddr::V6(_) => "[::]:0",
        };
        let bind = |address: SocketAddr| UdpSocket::bind(address).context("cannot bind");
        let incoming = receiver.run_in(|| bind(SocketAddr::from((address, 0))))?;
        // What a receiver without a processor does not take in time was not lost on the way.
        setsockopt(&incoming, sockopt::RcvBufForce, &BUFFER).context("a receive buffer")?;
        incoming.set_read_timeout(Some(Duration::from_millis(20))).context("a time limit")?;
        let outgoing = from.run_in(|| bind(unspecified.parse().expect("an address")))?;
        let target = incoming.local_addr().context("the receiver's address")?;
        from.run_in(|| outgoing.connect(target))
            .with_context(|| format!("no route to {target}"))?;

        let (stop, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop_sender, sent_all) = (Arc::clone(&stop), Arc::new(AtomicU64::new(SENDING)));
        let (done, count) = (Arc::clone(&sent_all), Arc::clone(&arrived));
        let interval = Duration::from_secs(1) / per_second;
        Ok(Self {
            stop,
            arrived,
            sender: Some(thread::spawn(move || {
                let sent = send(&outgoing, interval, &stop_sender);
                sent_all.store(*sent.as_ref().unwrap_or(&0), Ordering::Release);
                sent
            })),
            receiver: Some(thread::spawn(move || receive(&incoming, &done, &count))),
        })
    }

    /// Packets that have arrived so far, to wait until the stream flows.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Ends the stream and accounts for its packets.
    ///
    /// # Errors
    /// When a socket failed.
    ///
    /// # Panics
    /// When one of its threads did.
    pub fn stop(mut self) -> Result<StreamReport> {
        self.stop.store(true, Ordering::Release);
        let sent = self.sender.take().expect("not stopped before").join().expect("no panic")?;
        let received =
            self.receiver.take().expect("not stopped before").join().expect("no panic")?;
        Ok(StreamReport {
            sent,
            lost: sent - received.seen.len() as u64,
            duplicated: received.duplicated,
            reordered: received.reordered,
            longest_gap: received.longest_gap,
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn send(socket: &UdpSocket, interval: Duration, stop: &AtomicBool) -> Result<u64> {
    let mut packet = [0; SIZE];
    let mut next = Instant::now();
    let mut number = 0_u64;
    while !stop.load(Ordering::Acquire) {
        packet[..8].copy_from_slice(&number.to_be_bytes());
        match socket.send(&packet) {
            Ok(_) => number += 1,
            // An ICMP error that came back for an earlier packet, which counts as lost.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) if error.kind() == io::ErrorKind::HostUnreachable => continue,
            Err(error) => return Err(error).context("cannot send"),
        }
        next += interval;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(number)
}

fn receive(socket: &UdpSocket, sent_all: &AtomicU64, arrived: &AtomicU64) -> Result<Received> {
    let mut received = Received::default();
    let mut last: Option<Instant> = None;
    let mut sent_at: Option<Instant> = None;
    let mut packet = [0; SIZE];
    loop {
        let result = socket.recv(&mut packet);
        let now = Instant::now();
        match result {
            Ok(SIZE) => {
                let number = u64::from_be_bytes(packet[..8].try_into().expect("8 bytes"));
                received.count(number);
                arrived.fetch_add(1, Ordering::Relaxed);
                if let Some(last) = last {
                    received.longest_gap = received.longest_gap.max(now - last);
                }
                last = Some(now);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("cannot receive"),
        }
        let sent = sent_all.load(Ordering::Acquire);
        if sent != SENDING {
            let missing = sent > received.seen.len() as u64;
            let tail = patience(if missing { TAIL } else { COPIES });
            if now > *sent_at.get_or_insert(now) + tail {
                return Ok(received);
            }
        }
    }
}

impl Received {
    fn count(&mut self, number: u64) {
        if !self.seen.insert(number) {
            self.duplicated += 1;
        } else if self.newest.is_some_and(|newest| number < newest) {
            self.reordered += 1;
        }
        self.newest = self.newest.max(Some(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_duplicates_and_reordering_are_told_apart() {
        let mut received = Received::default();
        for number in [0, 1, 4, 3, 3, 5] {
            received.count(number);
        }
        assert_eq!(received.seen.len(), 5);
        assert_eq!((received.duplicated, received.reordered), (1, 1));
    }
}
