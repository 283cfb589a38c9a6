//! Asks a network whether anybody has an address, before a container gets it.
//!
//! The question is asked where the container will be: on its end of the veth pair, while that is still on
//! this host. So it takes the way that the container's own frames will take, through VLANs and tunnels
//! alike.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep_until, timeout_at};

use frame::Heard;
use socket::Socket;

use crate::bridge::model::{IfIndex, Mac};

mod frame;
mod socket;

/// When the question is asked, and asked again in case it was lost.
const QUESTIONS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(40)];
/// How long an answer may take in all: many round-trips in a data centre. RFC 5227 has seconds, which
/// nobody wants to wait for a container.
const WINDOW: Duration = Duration::from_millis(80);
/// How long a container may take until it answers for itself.
const START: Duration = Duration::from_secs(10);

/// Another station has an address, or asks for it at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is in use already: {} {station}", if *.probing {
    "it is being asked for by"
} else {
    "it belongs to"
})]
pub struct Clash {
    /// The address.
    pub address: IpAddr,
    /// The other station. Who asks may do so under a MAC of its own.
    pub station: Mac,
    /// It does not have it yet.
    pub probing: bool,
}

/// An address can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody has it.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// The device does not send or receive.
    #[error("cannot ask the network whether {address} is in use: {reason}")]
    Device {
        /// The address.
        address: IpAddr,
        /// What the system said.
        reason: io::Error,
    },
}

/// Asks on a device, which is up, whether anybody has these addresses, for 80 ms. If nobody has, tells
/// everybody that they are `mac`'s, and goes on to defend them against others that probe for them until
/// the device moves into its container, is deleted, or for 10 s.
///
/// # Errors
/// Somebody has one, or asks for one at the same time: of two, one gets it at most.
pub async fn claim(device: IfIndex, mac: Mac, addresses: &[IpAddr]) -> Result<(), Error> {
    let mut sockets = Vec::new();
    for address in addresses.iter().copied() {
        let socket = Socket::open(device, address);
        sockets.push((address, socket.map_err(|reason| Error::Device { address, reason })?));
    }
    let start = Instant::now();
    let questions = sockets.iter().map(|(address, socket)| ask(socket, *address, start));
    try_join_all(questions).await?;
    for (address, socket) in sockets {
        let sent = socket.send(&frame::announcement(address, mac));
        sent.map_err(|reason| Error::Device { address, reason })?;
        tokio::spawn(defend(socket, address, mac));
    }
    Ok(())
}

/// Asks for one address and listens to the end of the window.
async fn ask(socket: &Socket, address: IpAddr, start: Instant) -> Result<(), Error> {
    let failed = |reason| Error::Device { address, reason };
    let asker = asker().map_err(failed)?;
    let send = async {
        for after in QUESTIONS {
            sleep_until(start + after).await;
            socket.send(&frame::probe(address, asker))?;
        }
        std::future::pending::<io::Result<()>>().await
    };
    let listen = async {
        loop {
            let frame = socket.receive().await?;
            if let Some(heard) = frame::heard(&frame, address) {
                return Ok::<_, io::Error>(heard);
            }
        }
    };
    let heard = tokio::select! {
        failure = send => return failure.map_err(failed),
        heard = timeout_at(start + WINDOW, listen) => heard,
    };
    let Ok(heard) = heard else { return Ok(()) };
    let (station, probing) = match heard.map_err(failed)? {
        Heard::Owner(station) => (station, false),
        Heard::Rival(station) => (station, true),
    };
    Err(Clash { address, station, probing }.into())
}

/// Who asks: a MAC of its own for each question. Who has the address may have the very MAC that this
/// container would have, since both come from the address. Bridges would then take the owner for moved,
/// and none would carry its answer here.
fn asker() -> io::Result<Mac> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let digits: String = uuid.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    let random = u64::from_str_radix(&digits, 16).map_err(io::Error::other)?;
    let [_, _, first, rest @ ..] = random.to_be_bytes();
    // Locally administered, one station's.
    let mut mac = [first & 0xfc | 0x02, 0, 0, 0, 0, 0];
    mac[1..].copy_from_slice(&rest);
    Ok(Mac(mac))
}

/// Answers for a container that can't yet.
async fn defend(socket: Socket, address: IpAddr, mac: Mac) {
    let answering = async {
        loop {
            let frame = socket.receive().await?;
            if let Some(Heard::Rival(rival)) = frame::heard(&frame, address) {
                socket.send(&frame::defence(address, mac, rival))?;
            }
        }
    };
    // An error means that the device has gone: into its container, or for good.
    let _: Result<io::Result<()>, _> = tokio::time::timeout(START, answering).await;
}
