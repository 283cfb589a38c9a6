//! What passes a device, as raw frames.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    net::if_::if_nametoindex,
    sys::{
        socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt},
        time::TimeVal,
    },
};

use super::{Namespace, patience};

/// How long a wanted frame may take.
const LIMIT: Duration = Duration::from_secs(3);
/// The longest frame, a segment that is yet to be cut.
const FRAME: usize = 1 << 17;

/// A packet socket on a device: it sees frames in and out, before any TC program and after it
/// respectively.
#[derive(Debug)]
pub struct Capture(File);

impl Capture {
    /// Starts to capture.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn start(namespace: &Namespace, device: &str) -> Result<Self> {
        namespace.run_in(|| {
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
            .context("cannot open a packet socket")?;
            bind(&socket, device)?;
            setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).context("a receive buffer")?;
            let poll = TimeVal::new(0, 20_000);
            setsockopt(&socket, sockopt::ReceiveTimeout, &poll).context("a time limit")?;
            Ok(Self(File::from(socket)))
        })
    }

    /// The next frame that is wanted; others are thrown away.
    ///
    /// # Errors
    /// When there is none within 3 s.
    pub fn next(&mut self, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Vec<u8>> {
        let deadline = Instant::now() + patience(LIMIT);
        while Instant::now() < deadline {
            if let Some(frame) = self.read().filter(|frame| wanted(frame)) {
                return Ok(frame);
            }
        }
        bail!("no such frame within {LIMIT:?}")
    }

    /// The next frame, if there is one within 20 ms.
    pub fn read(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; FRAME];
        let length = self.0.read(&mut frame).ok()?;
        frame.truncate(length);
        Some(frame)
    }

    /// Sends a frame out of the device as it is, Ethernet header first.
    ///
    /// # Errors
    /// When the device is down.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.0.write_all(frame).context("cannot send a frame")
    }
}

/// `bind(2)` to a device of the calling thread's namespace.
fn bind(socket: &OwnedFd, device: &str) -> Result<()> {
    let index = if_nametoindex(device).with_context(|| format!("no device {device}"))?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address lives through the call and has the length that is given.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    nix::errno::Errno::result(bound).with_context(|| format!("cannot bind to {device}"))?;
    Ok(())
}
