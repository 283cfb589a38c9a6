//! Whole frames onto a device, as they are.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};

use crate::lab::Namespace;

/// How many frames are sent before the clock is looked at.
const BURST: usize = 64;
/// Bytes that may be on their way: a few dozen frames with what the kernel needs for them, so that
/// they don't take all the room of a queue that others share.
const ON_THE_WAY: usize = 16 << 10;

/// Sends frames out of a device of a namespace, in turn and again from the first, until there were
/// `count`; at most `per_second`. What the device has no room for is sent again.
///
/// # Errors
/// Without root, and where the device refuses a frame.
pub fn send_frames(
    namespace: &Namespace,
    device: &str,
    frames: &[Vec<u8>],
    count: usize,
    per_second: u32,
) -> Result<()> {
    let socket =
        namespace.run_in(|| packet_socket(device)).context("cannot open a packet socket")?;
    setsockopt(&socket, sockopt::SndBuf, &ON_THE_WAY).context("cannot set a send buffer")?;
    let started = Instant::now();
    for (number, frame) in frames.iter().cycle().take(count).enumerate() {
        if number.is_multiple_of(BURST) {
            let due = Duration::from_secs_f64(number as f64 / f64::from(per_second));
            thread::sleep(due.saturating_sub(started.elapsed()));
        }
        send(&socket, frame).with_context(|| format!("cannot send {frame:02x?}"))?;
    }
    Ok(())
}

fn send(socket: &OwnedFd, frame: &[u8]) -> io::Result<()> {
    loop {
        // SAFETY: the pointer and length are those of `frame`, which the call reads.
        let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOBUFS | libc::EAGAIN) => thread::yield_now(),
            _ => return Err(error),
        }
    }
}

/// A raw packet socket on a device of the calling thread's namespace, which receives nothing.
fn packet_socket(device: &str) -> io::Result<OwnedFd> {
    let index = nix::net::if_::if_nametoindex(device)?;
    let check = |result: i32| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    // SAFETY: a system call without pointers; the descriptor is new and owned from here on.
    let socket = unsafe {
        OwnedFd::from_raw_fd(check(libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            0,
        ))?)
    };
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: an address of its own kind with its length, which the call reads.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    })?;
    Ok(socket)
}
