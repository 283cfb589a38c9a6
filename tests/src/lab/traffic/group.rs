//! One datagram to a multicast group or to everyone.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::lab::{Container, Namespace, patience};

/// How long a datagram may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Who sends or receives.
#[derive(Clone, Copy, Debug)]
pub struct Station<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Its address.
    pub ipv4: Ipv4Addr,
}

impl<'a> From<&'a Container> for Station<'a> {
    fn from(container: &'a Container) -> Self {
        Self { namespace: container, ipv4: container.ipv4() }
    }
}

/// Whether a datagram from one container to a multicast group (which the receiver joins) or a
/// broadcast address reaches the other within 2 s.
///
/// # Errors
/// When a socket can't be set up or the datagram can't be sent.
pub fn reaches<'a>(
    from: impl Into<Station<'a>>,
    to: impl Into<Station<'a>>,
    group: Ipv4Addr,
) -> Result<bool> {
    let (from, to) = (from.into(), to.into());
    let receiver = to.namespace.run_in(|| receiver(group, to.ipv4))?;
    let address = receiver.local_addr().context("the receiver's address")?;
    let content = format!("from {}", from.namespace.name());
    send(from.namespace, from.ipv4, group, address.port(), content.as_bytes())?;
    let mut buffer = [0; 256];
    match receiver.recv_from(&mut buffer) {
        Ok((length, _)) => Ok(buffer[..length] == *content.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error).context("cannot receive"),
    }
}

fn receiver(group: Ipv4Addr, interface: Ipv4Addr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot bind")?;
    socket.set_read_timeout(Some(patience(LIMIT))).context("cannot set a time limit")?;
    if group.is_multicast() {
        socket.join_multicast_v4(&group, &interface).context("cannot join the group")?;
    }
    Ok(socket)
}

fn send(
    namespace: &Namespace,
    from: Ipv4Addr,
    group: Ipv4Addr,
    port: u16,
    content: &[u8],
) -> Result<()> {
    namespace.run_in(|| {
        let socket = UdpSocket::bind((from, 0)).context("cannot bind")?;
        socket.set_broadcast(true).context("cannot allow broadcast")?;
        let to = SocketAddr::from((group, port));
        socket.send_to(content, to).with_context(|| format!("cannot send to {to}"))?;
        Ok(())
    })
}
