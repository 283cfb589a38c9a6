//! A packet socket on one device.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{read, write};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::bridge::model::IfIndex;

/// More than any frame that is looked at.
const FRAME: usize = 256;

/// Frames of one protocol on one device, with their Ethernet header. It hears what the device receives, and
/// not what is sent there (`dev_queue_xmit_nit` knows only sockets for all protocols).
pub(super) struct Socket {
    socket: AsyncFd<OwnedFd>,
}

impl Socket {
    /// For ARP or IPv6, by the family of an address.
    pub(super) fn open(device: IfIndex, address: IpAddr) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        // Without a protocol it hears nothing yet: not what other devices receive.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        let protocol = if address.is_ipv6() { libc::ETH_P_IPV6 } else { libc::ETH_P_ARP };
        bind(&socket, device, protocol)?;
        // SAFETY: an OwnedFd keeps its descriptor until it is dropped and always gives the same one.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(|error| error.into_parts().1)?;
        Ok(Self { socket })
    }

    /// Sends a frame; what the queue has no room for is lost, as on any link.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        match write(self.socket.get_ref(), frame) {
            Ok(_) | Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::ENOBUFS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a frame, or the beginning of a long one.
    pub(super) async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; FRAME];
        let length = self
            .socket
            .async_io(Interest::READABLE, |socket| Ok(read(socket, &mut frame)?))
            .await?;
        frame.truncate(length);
        Ok(frame)
    }
}

fn bind(socket: &OwnedFd, device: IfIndex, protocol: libc::c_int) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(invalid)?,
        sll_protocol: u16::try_from(protocol).map_err(invalid)?.to_be(),
        sll_ifindex: i32::try_from(device).map_err(invalid)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = u32::try_from(size_of_val(&address)).map_err(invalid)?;
    // SAFETY: the address is an initialised sockaddr_ll that lives through the call, the length is its
    // own, and the descriptor is open.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if bound == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
