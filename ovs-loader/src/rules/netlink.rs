//! Dumps, notifications and changes: the little of netlink that all the rules' sources and tc filters
//! share.
//!
//! A dump runs synchronously: the kernel answers within the calls, so there is nothing to await.

use std::io;

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NetlinkBuffer, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

/// Bytes of a netlink header (`struct nlmsghdr`).
const HEADER_LEN: usize = 16;
/// The kernel's largest dump datagram is 32 KiB, or one message where that is larger; an
/// attribute's 16-bit length keeps a message near 64 KiB.
const RECEIVE_LEN: usize = 128 * 1024;

/// A netlink socket that asks the kernel for dumps.
pub(crate) struct Dumper {
    socket: Socket,
    sequence: u32,
    /// What was read since this was set is one state of the kernel's, not parts of several.
    pub(super) consistent: bool,
}

impl Dumper {
    /// Opens a socket for a netlink protocol; `None` where the kernel lacks the protocol.
    pub(crate) fn open(protocol: isize) -> io::Result<Option<Self>> {
        let Some(mut socket) = open(protocol)? else { return Ok(None) };
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Some(Self { socket, sequence: 0, consistent: true }))
    }

    /// Asks for a dump: the bodies of all messages of the answer, without netlink headers.
    ///
    /// `kind` is the request's message type and `body` what follows the netlink header. A dump that
    /// a change interrupted (`NLM_F_DUMP_INTR`) leaves `consistent` false.
    pub(super) fn dump(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.request(kind, NLM_F_DUMP, body)
    }

    /// Asks for one object, which is not a dump.
    pub(super) fn get(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.request(kind, NLM_F_ACK, body)
    }

    /// Makes a change. `flags` are those of the request beside `NLM_F_REQUEST` and `NLM_F_ACK`.
    pub(crate) fn change(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.request(kind, NLM_F_ACK | flags, body).map(drop)
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = vec![0; HEADER_LEN + body.len()];
        let length = u32::try_from(request.len()).map_err(|_| malformed())?;
        let mut header = NetlinkBuffer::new(&mut request[..]);
        header.set_length(length);
        header.set_message_type(kind);
        header.set_flags(NLM_F_REQUEST | flags);
        header.set_sequence_number(self.sequence);
        request[HEADER_LEN..].copy_from_slice(body);
        self.socket.send(&request, 0)?;

        let mut messages = Vec::new();
        let mut buffer = Vec::with_capacity(RECEIVE_LEN);
        loop {
            buffer.clear();
            if self.socket.recv(&mut buffer, libc::MSG_TRUNC)? > buffer.len() {
                return Err(malformed());
            }
            let mut rest = &buffer[..];
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(|_| malformed())?;
                let length = message.length() as usize;
                // Of an earlier request that ended in an error.
                let foreign = message.sequence_number() != self.sequence;
                self.consistent &= foreign || message.flags() & NLM_F_DUMP_INTR == 0;
                match message.message_type() {
                    _ if foreign => {}
                    NLMSG_DONE | NLMSG_ERROR => {
                        let code = ne_u32(message.payload(), 0).unwrap_or(0).cast_signed();
                        return match code {
                            0.. => Ok(messages),
                            _ => Err(io::Error::from_raw_os_error(-code)),
                        };
                    }
                    _ => messages.push(message.payload().to_vec()),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// A netlink multicast group: says that something changed, not what.
pub(super) struct Watcher {
    socket: AsyncFd<Socket>,
}

impl Watcher {
    /// Joins a group of a netlink protocol; `None` where the kernel lacks the protocol.
    pub(super) fn join(protocol: isize, group: u32) -> io::Result<Option<Self>> {
        let Some(mut socket) = open(protocol)? else { return Ok(None) };
        socket.bind_auto()?;
        socket.add_membership(group)?;
        socket.set_non_blocking(true)?;
        // SAFETY: the socket owns its descriptor and is dropped together with the registration.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Some(Self { socket }))
    }

    /// Resolves when there was at least one notification since the last call, and takes all of
    /// them. Notifications lost to a full socket (`ENOBUFS`) count like received ones. Cancel-safe.
    pub(super) async fn notified(&self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            if drain(ready.get_inner())? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

/// Takes what a non-blocking socket has; whether that was anything.
fn drain(socket: &Socket) -> io::Result<bool> {
    let mut any = false;
    loop {
        // The content does not matter: a datagram's rest is discarded with it.
        match socket.recv(&mut Vec::with_capacity(HEADER_LEN), 0) {
            Ok(_) => any = true,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => any = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
            Err(error) => return Err(error),
        }
    }
}

fn open(protocol: isize) -> io::Result<Option<Socket>> {
    match Socket::new(protocol) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed netlink message")
}

/// The attributes in `bytes` as (type without flags, value); stops at the first malformed one.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes)
        .map_while(Result::ok)
        .map(|nla| (nla.kind(), &nla.into_inner()[NLA_HEADER_SIZE..usize::from(nla.length())]))
}

/// The value of the first attribute of a type.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Appends an attribute to a request, whose length is a multiple of 4 before and after.
///
/// # Panics
/// Where the value is longer than an attribute can be.
pub(crate) fn push_attribute(request: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(NLA_HEADER_SIZE + value.len()).expect("a short attribute");
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(value);
    request.resize(request.len().next_multiple_of(4), 0);
}

/// A string attribute's value, up to its terminating zero.
pub(super) fn string(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A `u32` in network byte order, as nf_tables attributes have it.
pub(super) fn be_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*value.first_chunk()?))
}

/// The `u32` in host byte order at `offset`.
pub(super) fn ne_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The `u16` in host byte order at `offset`.
pub(super) fn ne_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}
