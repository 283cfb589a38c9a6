//! Frames on a wire: sent into one end of a veth and seen at one, with their VLAN tags.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Longer than any frame here.
const LONGEST: usize = 1 << 16;

/// A packet socket on a device.
pub(crate) struct Wire {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl Wire {
    /// A socket that sends frames out of a device and, where it is to listen, sees those that arrive.
    pub(crate) fn open(ifindex: u32, listens: bool) -> io::Result<Self> {
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: a system call without pointers.
        let socket = unsafe { libc::socket(libc::AF_PACKET, flags, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else has.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: if listens { (libc::ETH_P_ALL as u16).to_be() } else { 0 },
            sll_ifindex: ifindex.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        let this = Self { socket, address };
        if listens {
            this.listen()?;
        }
        Ok(this)
    }

    fn listen(&self) -> io::Result<()> {
        let (socket, on, (address, len)) =
            (self.socket.as_raw_fd(), 1 as libc::c_int, self.address());
        let (option, option_len) = ((&raw const on).cast(), size_of_val(&on) as libc::socklen_t);
        // SAFETY: pointers and lengths are those of `on` and the address, which outlive the calls.
        let failed = unsafe {
            libc::setsockopt(socket, libc::SOL_PACKET, PACKET_AUXDATA, option, option_len) < 0
                || libc::bind(socket, address, len) < 0
        };
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn address(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        ((&raw const self.address).cast(), size_of_val(&self.address) as libc::socklen_t)
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let (address, len) = self.address();
        // SAFETY: pointers and lengths are those of the frame and the address, which outlive the call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                address,
                len,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame that has arrived, with the tag that reception took out of it in its place; not
    /// those that leave.
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
        loop {
            let (mut frame, kind, tag) = self.receive()?;
            if kind == libc::PACKET_OUTGOING {
                continue;
            }
            if let Some(tag) = tag {
                frame.splice(12..12, tag);
            }
            return Some(frame);
        }
    }

    /// A frame, its `PACKET_*` type and its tag.
    fn receive(&self) -> Option<(Vec<u8>, u8, Option<[u8; 4]>)> {
        let mut frame = vec![0; LONGEST];
        let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        let mut from = self.address;
        let mut control = [0u64; 16];
        // SAFETY: all zero is a message without anything.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of_val(&from) as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: every pointer of the message is to something above that outlives the call, with its
        // length.
        let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        frame.truncate(usize::try_from(len).ok()?);
        // SAFETY: the message as the kernel has filled it.
        let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: either null or within the control buffer.
        let tag = unsafe { first.as_ref() }.and_then(|header| {
            assert_eq!((header.cmsg_level, header.cmsg_type), (libc::SOL_PACKET, PACKET_AUXDATA));
            // SAFETY: the kernel has put such a structure there, which may be unaligned.
            let data = unsafe { libc::CMSG_DATA(first).cast::<TpacketAuxdata>().read_unaligned() };
            (data.status & TP_STATUS_VLAN_VALID != 0).then(|| {
                let [a, b] = data.vlan_tpid.to_be_bytes();
                let [c, d] = data.vlan_tci.to_be_bytes();
                [a, b, c, d]
            })
        });
        Some((frame, from.sll_pkttype, tag))
    }
}

const PACKET_AUXDATA: libc::c_int = 8;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;

/// `struct tpacket_auxdata` (linux/if_packet.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct TpacketAuxdata {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}
