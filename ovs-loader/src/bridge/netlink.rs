//! Route netlink sockets: requests with their answers, and notifications.
//!
//! Thinner than a connection task with queues, because the truth depends on three things a queue
//! hides: which notification was lost (`ENOBUFS`), what the kernel said about a refused request
//! (extended acknowledgement), and that dropping a future half-way leaves nothing behind.

use std::io;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::{Interest, unix::AsyncFd};

/// Larger than any datagram the kernel builds for these requests: it fills dumps up to 32 KiB.
const DATAGRAM: usize = 64 * 1024;

/// `NLMSGERR_ATTR_MSG`: the kernel's own words on an error.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// One message of a datagram.
pub(crate) struct Frame<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
    flags: u16,
    sequence: u32,
}

/// A request the kernel refused, or a socket that failed.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The error number.
    pub(crate) error: io::Error,
    /// The kernel's own words on it, if it had any.
    pub(crate) words: Option<String>,
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self { error, words: None }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.words {
            Some(words) => write!(f, "{words} ({})", self.error),
            None => self.error.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

/// A socket for requests, one at a time. Meant to be opened for a job and dropped after it: a
/// request that was given up half-way takes its unread answers with it.
pub(crate) struct Requests {
    socket: AsyncFd<Socket>,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    /// A socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket: register(socket)?, sequence: 0, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Dumps a table. True if it changed meanwhile (`NLM_F_DUMP_INTR`), so that the answer may
    /// lack something.
    pub(crate) async fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        each: impl FnMut(Frame<'_>),
    ) -> Result<bool, Refused> {
        self.request(message, NLM_F_DUMP, each).await
    }

    /// [`Self::dump`] of a kind (`nlmsg_type`) that the netlink library does not know, with what
    /// follows the header.
    pub(crate) async fn dump_kind(
        &mut self,
        kind: u16,
        payload: &[u8],
        each: impl FnMut(Frame<'_>),
    ) -> Result<bool, Refused> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.message_type = kind;
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        header.sequence_number = self.sequence;
        header.length = (header.buffer_len() + payload.len()) as u32;
        let mut bytes = vec![0; header.buffer_len()];
        header.emit(&mut bytes);
        bytes.extend_from_slice(payload);
        self.exchange(&bytes, each).await
    }

    /// Begins to dump a table that may be long.
    pub(crate) fn begin_dump(mut self, message: RouteNetlinkMessage) -> io::Result<Dump> {
        let request = self.emit(message, NLM_F_DUMP);
        self.socket.get_ref().send_to(&request, &SocketAddr::new(0, 0), 0)?;
        Ok(Dump { requests: self })
    }

    /// Asks for one object.
    pub(crate) async fn get(
        &mut self,
        message: RouteNetlinkMessage,
        each: impl FnMut(Frame<'_>),
    ) -> Result<(), Refused> {
        self.request(message, NLM_F_ACK, each).await.map(drop)
    }

    /// Changes something. `flags` are those beside `NLM_F_REQUEST` and `NLM_F_ACK`.
    pub(crate) async fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Refused> {
        self.request(message, NLM_F_ACK | flags, |_| {}).await.map(drop)
    }

    async fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        each: impl FnMut(Frame<'_>),
    ) -> Result<bool, Refused> {
        let request = self.emit(message, flags);
        self.exchange(&request, each).await
    }

    /// A request with the next sequence number.
    fn emit(&mut self, message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
        self.sequence += 1;
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// Sends the request with the last sequence number, and reads its answers.
    async fn exchange(
        &mut self,
        request: &[u8],
        mut each: impl FnMut(Frame<'_>),
    ) -> Result<bool, Refused> {
        self.socket.get_ref().send_to(request, &SocketAddr::new(0, 0), 0)?;

        let mut interrupted = false;
        loop {
            let buffer = &mut self.buffer;
            buffer.clear();
            self.socket.async_io(Interest::READABLE, |socket| socket.recv(buffer, 0)).await?;
            if self.answers(&mut interrupted, &mut each)? {
                return Ok(interrupted);
            }
        }
    }

    /// Goes through the answers in the buffer. Gives whether there are no more.
    fn answers(
        &self,
        interrupted: &mut bool,
        each: &mut impl FnMut(Frame<'_>),
    ) -> Result<bool, Refused> {
        for frame in frames(&self.buffer) {
            if frame.sequence != self.sequence {
                continue;
            }
            *interrupted |= frame.flags & NLM_F_DUMP_INTR != 0;
            match libc::c_int::from(frame.kind) {
                libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                    return result(frame.payload).map(|()| true);
                }
                _ => each(frame),
            }
        }
        Ok(false)
    }
}

/// A dump under way. The kernel goes through its table only as far as is read.
pub(crate) struct Dump {
    requests: Requests,
}

impl Dump {
    /// Waits until there is something to read. Reads nothing yet, so it may be dropped at any time.
    pub(crate) async fn wait(&self) -> io::Result<()> {
        self.requests.socket.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// Reads the next datagram, if there is one, without waiting. Gives whether it was the last.
    pub(crate) fn read(&mut self, mut each: impl FnMut(Frame<'_>)) -> Result<bool, Refused> {
        let Requests { socket, buffer, .. } = &mut self.requests;
        buffer.clear();
        match socket.try_io(Interest::READABLE, |socket| socket.recv(buffer, 0)) {
            Ok(_) => self.requests.answers(&mut false, &mut each),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// What an `NLMSG_ERROR` or `NLMSG_DONE` says.
fn result(payload: &[u8]) -> Result<(), Refused> {
    let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    if code >= 0 {
        return Ok(());
    }
    // struct nlmsgerr: the code, the request's header (NETLINK_CAP_ACK cuts the rest), attributes.
    let words = payload.get(4 + 16..).and_then(|attributes| {
        NlasIterator::new(attributes)
            .filter_map(Result::ok)
            .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
            .map(|attribute| {
                String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned()
            })
    });
    Err(Refused { error: io::Error::from_raw_os_error(-code), words })
}

/// A socket that listens to multicast groups.
pub(crate) struct Notifications {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
}

/// Whether everything was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Every notification so far.
    All,
    /// As many as asked for; more are waiting.
    More,
    /// The kernel had to drop some (`ENOBUFS`).
    Overrun,
}

impl Notifications {
    /// Listens to `groups` (`RTNLGRP_*`) with a receive buffer of `buffer` bytes, beyond
    /// `net.core.rmem_max` too.
    pub(crate) fn open(groups: &[u32], buffer: usize) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &buffer)?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        Ok(Self { socket: register(socket)?, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Hears the notifications of other network namespaces too, of those that have an id in this
    /// one (`NETLINK_LISTEN_ALL_NSID`).
    pub(crate) fn listen_to_all_namespaces(&self) -> io::Result<()> {
        self.socket.get_ref().set_listen_all_namespaces(true)
    }

    /// Waits until there is something to hear. Hears nothing yet, so it may be dropped at any time.
    pub(crate) async fn wait(&self) -> io::Result<()> {
        self.socket.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// Hears what has arrived, up to `most` datagrams, without waiting.
    ///
    /// After an overrun the rest is thrown away: the kernel neither delivers nor reports anything
    /// more until the queue is empty (`NETLINK_S_CONGESTED`), so what is read anew must be read
    /// after that.
    pub(crate) fn hear(
        &mut self,
        most: usize,
        mut each: impl FnMut(Frame<'_>),
    ) -> io::Result<Heard> {
        let mut heard = 0;
        let mut overrun = false;
        while overrun || heard < most {
            let buffer = &mut self.buffer;
            buffer.clear();
            match self.socket.try_io(Interest::READABLE, |socket| socket.recv(buffer, 0)) {
                Ok(_) if overrun => {}
                Ok(_) => frames(&self.buffer).for_each(&mut each),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(if overrun { Heard::Overrun } else { Heard::All });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => overrun = true,
                Err(error) => return Err(error),
            }
            heard += 1;
        }
        Ok(Heard::More)
    }
}

fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, keeps it until it is dropped and always returns the
    // same one; it moves into the AsyncFd and is only borrowed from there.
    unsafe { AsyncFd::register(socket) }.map_err(|error| error.into_parts().1)
}

/// The messages of a datagram, up to the first that is cut short.
fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(datagram).ok()?;
        let frame = Frame {
            kind: message.message_type(),
            payload: message.payload(),
            flags: message.flags(),
            sequence: message.sequence_number(),
        };
        let next = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(next..).unwrap_or_default();
        Some(frame)
    })
}
