//! Content over TCP that is checked at its end.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::lab::{Namespace, patience};

/// How long the connection may stand still.
const STALL: Duration = Duration::from_secs(20);
const CHUNK: usize = 256 * 1024;

/// Sends so many bytes of pseudo-random content over one TCP connection and compares length and hash
/// at the receiver.
///
/// # Errors
/// When the connection fails or stands still for 20 s, or other content arrives.
pub fn transfer(from: &Namespace, to: (&Namespace, IpAddr), bytes: u64) -> Result<()> {
    let (receiver, address) = to;
    let listener = receiver
        .run_in(|| TcpListener::bind((address, 0)))
        .with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr().context("the listener's address")?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| from.run_in(|| send(address, bytes)));
        // Waits no longer than the sender: its connection is made or has failed.
        let received = receive(&listener);
        let sent = sender.join().expect("sending does not panic")?;
        let received = received?;
        ensure!(sent == received, "sent {sent:?}, received {received:?}");
        Ok(())
    })
}

fn send(address: SocketAddr, bytes: u64) -> Result<Digest> {
    let mut stream = TcpStream::connect_timeout(&address, patience(STALL))
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_write_timeout(Some(patience(STALL))).context("cannot set a time limit")?;
    let mut random = Random(bytes ^ 0x9e37_79b9_7f4a_7c15);
    let (mut digest, mut chunk) = (Digest::default(), vec![0; CHUNK]);
    let mut left = bytes;
    while left > 0 {
        random.fill(&mut chunk);
        let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        stream.write_all(&chunk[..length]).context("cannot send")?;
        digest.add(&chunk[..length]);
        left -= length as u64;
    }
    Ok(digest)
}

fn receive(listener: &TcpListener) -> Result<Digest> {
    let mut stream = accept(listener)?;
    stream.set_read_timeout(Some(patience(STALL))).context("cannot set a time limit")?;
    let (mut digest, mut chunk) = (Digest::default(), vec![0; CHUNK]);
    loop {
        match stream.read(&mut chunk).context("cannot receive")? {
            0 => return Ok(digest),
            length => digest.add(&chunk[..length]),
        }
    }
}

/// `TcpListener::accept` with a time limit.
fn accept(listener: &TcpListener) -> Result<TcpStream> {
    use std::os::fd::AsFd as _;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(patience(STALL)).expect("a short time");
    ensure!(poll(&mut ready, limit).context("cannot poll")? > 0, "nobody connects");
    Ok(listener.accept().context("cannot accept")?.0)
}

/// Length and 64-bit FNV-1a hash of a content.
#[derive(Debug, PartialEq, Eq)]
struct Digest {
    bytes: u64,
    hash: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self { bytes: 0, hash: 0xcbf2_9ce4_8422_2325 }
    }
}

impl Digest {
    fn add(&mut self, content: &[u8]) {
        self.bytes += content.len() as u64;
        for byte in content {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn fill(&mut self, content: &mut [u8]) {
        for word in content.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }
}
