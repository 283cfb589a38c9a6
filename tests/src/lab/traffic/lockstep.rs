//! A sender and a receiver that take turns on one thread: while they work, one processor is never
//! idle and never waits, and every packet's whole way is in their time.
//!
//! Content is neither copied in nor out (`sendfile`, `MSG_TRUNC`) over TCP, where copying would
//! outweigh the way.

use std::{
    fs::File,
    io::Write as _,
    net::{IpAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        sendfile::sendfile64,
        socket::{MsgFlags, recv},
    },
};

use super::Datagrams;
use crate::lab::{Namespace, patience};

/// How long both ends may have nothing to do.
const STALL: Duration = Duration::from_secs(5);
/// Bytes given to TCP at once: a whole segment, before the network splits it.
const CHUNK: usize = 64 * 1024;

/// A TCP connection whose ends take turns.
#[derive(Debug)]
pub struct LockstepTcp {
    outgoing: TcpStream,
    incoming: TcpStream,
    content: File,
    buffer: Vec<u8>,
}

impl LockstepTcp {
    /// Connects.
    ///
    /// # Errors
    /// When that takes longer than 5 s.
    pub fn open(from: &Namespace, to: (&Namespace, IpAddr)) -> Result<Self> {
        let (receiver, address) = to;
        let listener = receiver.run_in(|| TcpListener::bind((address, 0)));
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr().context("the listener's address")?;
        let outgoing = from.run_in(|| TcpStream::connect_timeout(&address, patience(STALL)));
        let outgoing = outgoing.with_context(|| format!("cannot connect to {address}"))?;
        let (incoming, _) = listener.accept().context("cannot accept")?;
        for end in [&outgoing, &incoming] {
            end.set_nonblocking(true).context("cannot set a socket non-blocking")?;
        }
        let mut content = tempfile::tempfile_in("/dev/shm").context("a file in memory")?;
        content.write_all(&vec![0; CHUNK]).context("a file in memory")?;
        Ok(Self { outgoing, incoming, content, buffer: vec![0; CHUNK] })
    }

    /// Sends and receives so many bytes.
    ///
    /// # Errors
    /// When the connection fails or stands still for 5 s.
    pub fn send(&mut self, bytes: u64) -> Result<()> {
        let (mut sent, mut received) = (0, 0);
        while received < bytes {
            let before = (sent, received);
            if sent < bytes {
                sent += self.give(bytes - sent)?;
            }
            received += self.take()?;
            if before == (sent, received) {
                self.wait(sent < bytes)?;
            }
        }
        Ok(())
    }

    /// Gives TCP a chunk; 0 when it takes none now.
    fn give(&self, left: u64) -> Result<u64> {
        let length = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        let mut start = 0;
        match sendfile64(&self.outgoing, &self.content, Some(&mut start), length) {
            Ok(length) => Ok(length as u64),
            Err(Errno::EAGAIN) => Ok(0),
            Err(error) => Err(error).context("cannot send"),
        }
    }

    /// Takes all that has arrived.
    fn take(&mut self) -> Result<u64> {
        let mut taken = 0;
        loop {
            // Of the buffer only the length counts.
            match recv(self.incoming.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) => {
                    ensure!(length > 0, "the connection ended");
                    taken += length as u64;
                }
                Err(Errno::EAGAIN) => return Ok(taken),
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
    }

    /// Waits until either end can go on.
    fn wait(&self, sending: bool) -> Result<()> {
        let output = if sending { PollFlags::POLLOUT } else { PollFlags::empty() };
        let mut ready = [
            PollFd::new(self.outgoing.as_fd(), output),
            PollFd::new(self.incoming.as_fd(), PollFlags::POLLIN),
        ];
        let limit = PollTimeout::try_from(patience(STALL)).expect("a short time");
        ensure!(poll(&mut ready, limit).context("cannot poll")? > 0, "the connection stands still");
        Ok(())
    }
}

/// A flow of UDP datagrams whose ends take turns.
#[derive(Debug)]
pub struct LockstepUdp(Datagrams);

impl LockstepUdp {
    /// Datagrams sent before the receiver takes them: few enough for every queue on the way.
    const AT_ONCE: u32 = 16;

    /// Opens a flow.
    ///
    /// # Errors
    /// When its sockets can't be set up.
    pub fn open(from: &Namespace, to: (&Namespace, IpAddr)) -> Result<Self> {
        Ok(Self(Datagrams::open(from, to)?))
    }

    /// Sends and receives so many datagrams with `size` bytes of payload.
    ///
    /// # Errors
    /// When one is lost.
    pub fn send(&self, size: usize, count: u32) -> Result<()> {
        let mut content = vec![0; size];
        for first in (0..count).step_by(Self::AT_ONCE as usize) {
            let turn = (count - first).min(Self::AT_ONCE);
            for _ in 0..turn {
                self.0.outgoing.send(&content).context("cannot send")?;
            }
            for _ in 0..turn {
                self.0.incoming.recv(&mut content).context("a datagram is lost")?;
            }
        }
        Ok(())
    }
}
