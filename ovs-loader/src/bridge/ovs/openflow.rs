//! The OpenFlow configuration of a bridge and its ports (`ovs-ofctl mod-port`, `set-frags`), which OVSDB does
//! not have: a port may be told not to receive or not to forward, a bridge to drop fragments.
//!
//! A minimal OpenFlow 1.3 connection to ovs-vswitchd's `<bridge>.mgmt` socket, which asks for these
//! and nothing else. It has to ask again and again: such a connection is told of changes only after it
//! has changed the switch's configuration (`ofconn_receives_async_msg`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tokio::io::Interest;
use tokio::net::UnixStream;

/// OpenFlow 1.3.
const VERSION: u8 = 4;
const HEADER_LEN: usize = 8;
/// Of `struct ofp_port`.
const PORT_LEN: usize = 64;
/// Of `struct ofp_multipart_reply`, header included, up to its body.
const BODY: usize = 16;

// `enum ofp_type`.
const HELLO: u8 = 0;
const ERROR: u8 = 1;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const GET_CONFIG_REQUEST: u8 = 7;
const GET_CONFIG_REPLY: u8 = 8;
const MULTIPART_REQUEST: u8 = 18;
const MULTIPART_REPLY: u8 = 19;

/// `OFPMP_PORT_DESC`.
const PORT_DESC: u16 = 13;
/// `OFPC_FRAG_DROP`, of the two bits `OFPC_FRAG_MASK`.
const FRAG_DROP: u16 = 1;
const FRAG_MASK: u16 = 3;
/// `OFPMPF_REPLY_MORE`.
const MORE: u16 = 1;

/// Bits of `ofp_port.config` that take frames away, in `ovs-ofctl mod-port`'s words.
const CONFIG: [(u32, &str); 3] = [(1 << 0, "down"), (1 << 2, "no-receive"), (1 << 5, "no-forward")];

/// The configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed or was closed.
    #[error("ovs-vswitchd's OpenFlow socket {}: {source}", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bridge does not speak OpenFlow 1.3.
    #[error("the bridge refuses OpenFlow 1.3: allow it among the Bridge's protocols")]
    Version,
    /// Something that no switch sends.
    #[error("ovs-vswitchd sent an OpenFlow message that is not understood: {0}")]
    Malformed(&'static str),
}

/// A connection to a bridge.
pub struct OpenFlow {
    path: PathBuf,
    stream: UnixStream,
    received: Vec<u8>,
    /// Of the latest request.
    transaction: u32,
}

/// What OpenFlow has set on a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configs {
    /// `ofp_port.config` by OpenFlow port number.
    ports: BTreeMap<u32, u32>,
    /// `ofp_switch_config.flags`.
    switch: u16,
}

/// What has arrived of an answer.
struct Answer {
    configs: Configs,
    has_ports: bool,
    has_switch: bool,
}

impl Configs {
    /// Whether `ovs-ofctl set-frags` has the bridge drop fragments.
    #[must_use]
    pub fn drops_fragments(&self) -> bool {
        self.switch & FRAG_MASK == FRAG_DROP
    }

    /// What `ovs-ofctl mod-port` has set on a port that keeps frames from it, by its OpenFlow port
    /// number: words of that command. Empty where nothing does, or where there is no such port.
    pub fn restrictions(&self, port: u32) -> impl Iterator<Item = &'static str> + use<> {
        let config = self.ports.get(&port).copied().unwrap_or(0);
        CONFIG.into_iter().filter(move |(bit, _)| config & bit != 0).map(|(_, word)| word)
    }
}

impl OpenFlow {
    /// Connects to `<rundir>/<bridge>.mgmt`.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(path).await;
        let stream = stream.map_err(|source| Error::Socket { path: path.to_owned(), source })?;
        let this = Self { path: path.to_owned(), stream, received: Vec::new(), transaction: 0 };
        this.send(HELLO, 0, &[])?;
        Ok(this)
    }

    /// Asks for the bridge's configuration and for all ports (`OFPMP_PORT_DESC`). May be dropped at any time:
    /// an answer that comes late is not taken for that of the next request.
    ///
    /// # Errors
    /// As [`Error`] says; the connection is of no use after that.
    pub async fn configs(&mut self) -> Result<Configs, Error> {
        let mut request = [0; 8];
        request[..2].copy_from_slice(&PORT_DESC.to_be_bytes());
        self.transaction = self.transaction.wrapping_add(1);
        self.send(GET_CONFIG_REQUEST, self.transaction, &[])?;
        self.send(MULTIPART_REQUEST, self.transaction, &request)?;
        let mut answer =
            Answer { configs: Configs::default(), has_ports: false, has_switch: false };
        loop {
            self.take_messages(&mut answer)?;
            if answer.has_ports && answer.has_switch {
                return Ok(answer.configs);
            }
            self.receive().await?;
        }
    }

    /// Sends a message, which is small enough for any socket buffer to take whole.
    fn send(&self, kind: u8, transaction: u32, body: &[u8]) -> Result<(), Error> {
        let len = HEADER_LEN + body.len();
        let mut message = Vec::with_capacity(len);
        message.extend_from_slice(&[VERSION, kind]);
        message.extend_from_slice(&(len as u16).to_be_bytes());
        message.extend_from_slice(&transaction.to_be_bytes());
        message.extend_from_slice(body);
        match self.stream.try_write(&message) {
            Ok(sent) if sent == len => Ok(()),
            Ok(_) => Err(self.failed(io::ErrorKind::WriteZero.into())),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Waits for more bytes.
    async fn receive(&mut self) -> Result<(), Error> {
        let mut chunk = [0; 4096];
        loop {
            let ready = self.stream.ready(Interest::READABLE).await;
            ready.map_err(|error| self.failed(error))?;
            match self.stream.try_read(&mut chunk) {
                Ok(0) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => {
                    self.received.extend_from_slice(&chunk[..read]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Works off every message that has arrived whole.
    fn take_messages(&mut self, answer: &mut Answer) -> Result<(), Error> {
        let received = std::mem::take(&mut self.received);
        let mut rest = received.as_slice();
        while let Some((message, after)) = split(rest)? {
            rest = after;
            self.take_message(message, answer)?;
        }
        self.received = rest.to_vec();
        Ok(())
    }

    fn take_message(&self, message: &[u8], answer: &mut Answer) -> Result<(), Error> {
        let transaction = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
        match message[1] {
            // A switch that can't agree answers with an error instead.
            HELLO if message[0] < VERSION => Err(Error::Version),
            ERROR => Err(Error::Version),
            ECHO_REQUEST => self.send(ECHO_REPLY, transaction, &message[HEADER_LEN..]),
            GET_CONFIG_REPLY if transaction == self.transaction => {
                let flags = message.get(HEADER_LEN..HEADER_LEN + 2);
                let flags = flags.ok_or(Error::Malformed("a short configuration"))?;
                answer.configs.switch = u16::from_be_bytes([flags[0], flags[1]]);
                answer.has_switch = true;
                Ok(())
            }
            MULTIPART_REPLY if transaction == self.transaction => {
                let body = message.get(HEADER_LEN..BODY);
                let body = body.ok_or(Error::Malformed("a short multipart reply"))?;
                for port in message[BODY..].chunks_exact(PORT_LEN) {
                    let (number, config) = port_config(port);
                    answer.configs.ports.insert(number, config);
                }
                answer.has_ports |= u16::from_be_bytes([body[2], body[3]]) & MORE == 0;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Socket { path: self.path.clone(), source }
    }
}

/// A message, and what follows it.
type Message<'a> = (&'a [u8], &'a [u8]);

/// The first message, if it has arrived whole.
fn split(bytes: &[u8]) -> Result<Option<Message<'_>>, Error> {
    let Some(&[_, _, high, low]) = bytes.first_chunk() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len < HEADER_LEN {
        return Err(Error::Malformed("a length shorter than a header"));
    }
    Ok(bytes.split_at_checked(len))
}

/// Port number and configuration of a `struct ofp_port`.
fn port_config(port: &[u8]) -> (u32, u32) {
    let word = |at: usize| u32::from_be_bytes([port[at], port[at + 1], port[at + 2], port[at + 3]]);
    (word(0), word(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a switch sends it.
    fn message(kind: u8, transaction: u32, body: &[u8]) -> Vec<u8> {
        let len = (HEADER_LEN + body.len()) as u16;
        [&[VERSION, kind][..], &len.to_be_bytes(), &transaction.to_be_bytes(), body].concat()
    }

    /// A reply about one port.
    fn reply(transaction: u32, flags: u8, number: u32, config: u32) -> Vec<u8> {
        let mut body = vec![0, 13, 0, flags, 0, 0, 0, 0];
        body.extend_from_slice(&number.to_be_bytes());
        body.extend_from_slice(&[0; 28]);
        body.extend_from_slice(&config.to_be_bytes());
        body.extend_from_slice(&[0; 28]);
        message(MULTIPART_REPLY, transaction, &body)
    }

    /// Asks a switch that says these bytes, five at a time.
    async fn ask(bytes: &[u8]) -> Result<Configs, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("br-ex.mgmt");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            for piece in bytes.chunks(5) {
                stream.writable().await.unwrap();
                assert_eq!(stream.try_write(piece).unwrap(), piece.len());
                tokio::task::yield_now().await;
            }
            stream
        };
        let asked = async { OpenFlow::open(&path).await?.configs().await };
        tokio::join!(asked, serve).0
    }

    #[tokio::test]
    async fn pieces_and_several_replies_are_put_together_and_other_answers_left_out() {
        let bytes = [
            message(HELLO, 0, &[]),
            reply(0, 0, 3, 1 << 2),
            message(ECHO_REQUEST, 9, b"alive"),
            message(GET_CONFIG_REPLY, 0, &[0, 0, 0xff, 0xff]),
            reply(1, 1, 1, 0),
            reply(1, 0, 2, 1 << 5 | 1 << 4 | 1 << 2),
            message(GET_CONFIG_REPLY, 1, &[0, 1, 0xff, 0xff]),
        ];
        let configs = ask(&bytes.concat()).await.unwrap();
        let words = |port| configs.restrictions(port).collect::<Vec<_>>();
        assert_eq!(words(1), [""; 0]);
        assert_eq!(words(2), ["no-receive", "no-forward"]);
        assert_eq!(words(3), [""; 0]);
        assert!(configs.drops_fragments());
    }

    #[tokio::test]
    async fn a_switch_that_refuses_the_version_is_an_error_with_advice() {
        assert!(matches!(ask(&message(ERROR, 0, &[0; 4])).await, Err(Error::Version)));
    }

    #[tokio::test]
    async fn a_length_shorter_than_a_header_is_an_error() {
        assert!(matches!(ask(&[4, 0, 0, 7]).await, Err(Error::Malformed(_))));
    }
}
