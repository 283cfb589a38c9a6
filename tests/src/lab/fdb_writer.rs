//! Stations by the thousand, faster than `bridge` can name them.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt::SndBufForce,
};

/// Bytes of messages that are sent at once.
const CHUNK: usize = 64 * 1024;

// From linux/neighbour.h and linux/netlink.h.
const NTF_SELF: u8 = 0x02;
const NTF_MASTER: u8 = 0x04;
const NUD_REACHABLE: u16 = 0x02;
const NUD_NOARP: u16 = 0x40;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const REPLACE: u16 = 0x100 | 0x400;

/// Adds and removes static entries of bridges' and vxlan devices' forwarding tables, in the network
/// namespace of the thread that opened it.
#[derive(Debug)]
pub struct FdbWriter {
    socket: OwnedFd,
    messages: Vec<u8>,
}

impl FdbWriter {
    /// Opens a socket.
    ///
    /// # Errors
    /// Without root.
    pub fn open() -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)
                .context("cannot open a netlink socket")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("cannot bind it")?;
        setsockopt(&socket, SndBufForce, &(4 * CHUNK)).context("cannot make room in it")?;
        Ok(Self { socket, messages: Vec::with_capacity(CHUNK + 64) })
    }

    /// Has a bridge know a station behind one of its ports, by ifindex; with a remote, a vxlan port
    /// also where to send to it. Takes effect with [`Self::flush`] at the latest.
    ///
    /// # Errors
    /// See [`Self::flush`].
    pub fn add(&mut self, port: u32, mac: [u8; 6], remote: Option<Ipv4Addr>) -> Result<()> {
        self.message(libc::RTM_NEWNEIGH, REPLACE, port, mac, remote)
    }

    /// The reverse of [`Self::add`].
    ///
    /// # Errors
    /// See [`Self::flush`].
    pub fn remove(&mut self, port: u32, mac: [u8; 6], remote: Option<Ipv4Addr>) -> Result<()> {
        self.message(libc::RTM_DELNEIGH, 0, port, mac, remote)
    }

    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        port: u32,
        mac: [u8; 6],
        remote: Option<Ipv4Addr>,
    ) -> Result<()> {
        let length: u32 = if remote.is_some() { 48 } else { 40 };
        let bytes = &mut self.messages;
        // struct nlmsghdr
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((libc::NLM_F_REQUEST as u16 | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        // struct ndmsg
        bytes.extend([libc::AF_BRIDGE as u8, 0, 0, 0]);
        bytes.extend(port.to_ne_bytes());
        bytes.extend((NUD_REACHABLE | NUD_NOARP).to_ne_bytes());
        bytes.extend([NTF_MASTER | if remote.is_some() { NTF_SELF } else { 0 }, 0]);
        // struct nlattr
        bytes.extend(10u16.to_ne_bytes());
        bytes.extend(NDA_LLADDR.to_ne_bytes());
        bytes.extend(mac);
        bytes.extend([0; 2]);
        if let Some(remote) = remote {
            bytes.extend(8u16.to_ne_bytes());
            bytes.extend(NDA_DST.to_ne_bytes());
            bytes.extend(remote.octets());
        }
        if bytes.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Has the kernel dump all forwarding tables, and counts their entries.
    ///
    /// # Errors
    /// Where the kernel can't be asked.
    pub fn count(&mut self) -> Result<usize> {
        self.flush()?;
        let mut request = 28u32.to_ne_bytes().to_vec();
        request.extend(libc::RTM_GETNEIGH.to_ne_bytes());
        request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
        request.extend([0; 8]);
        request.extend([libc::AF_BRIDGE as u8]);
        request.extend([0; 11]);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())
            .context("cannot send to the kernel")?;
        let mut datagram = vec![0; CHUNK];
        let mut entries = 0;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut datagram, MsgFlags::empty())
                .context("cannot read the kernel's tables")?;
            let mut rest = &datagram[..length];
            while let (Some(size), Some(kind)) = (rest.first_chunk(), rest.get(4..6)) {
                if i32::from(u16::from_ne_bytes([kind[0], kind[1]])) == libc::NLMSG_DONE {
                    return Ok(entries);
                }
                entries += 1;
                let size = u32::from_ne_bytes(*size).next_multiple_of(4) as usize;
                rest = rest.get(size..).unwrap_or_default();
            }
        }
    }

    /// Sends what has not been sent yet. The kernel has done it when this returns.
    ///
    /// # Errors
    /// Where the kernel refused one of the entries.
    pub fn flush(&mut self) -> Result<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        send(self.socket.as_raw_fd(), &self.messages, MsgFlags::empty())
            .context("cannot send to the kernel")?;
        self.messages.clear();
        let mut answer = [0; 4096];
        match recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
            Err(nix::errno::Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error).context("cannot read the kernel's answer"),
            // The kernel answers to what it refuses only: struct nlmsgerr after the header.
            Ok(_) => {
                let code = answer[16..].first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                let error = io::Error::from_raw_os_error(-code);
                bail!("the kernel refused an FDB entry: {error}")
            }
        }
    }
}
