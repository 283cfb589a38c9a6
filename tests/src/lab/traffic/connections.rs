//! Connections that are made, used for one exchange, and ended: none of Debian's load generators does
//! that without a web server.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use crate::lab::{Namespace, patience};

/// How long a connection may take.
const LIMIT: Duration = Duration::from_secs(3);

/// Connections made one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Connections {
    /// How many.
    pub count: u64,
    /// How many a second.
    pub per_second: f64,
}

/// For so long: connects, sends a byte, waits for one and resets the connection, so that no port stays
/// taken.
///
/// # Errors
/// When a connection fails or takes longer than 3 s.
// A count of connections is far below 2^53.
#[allow(clippy::cast_precision_loss)]
pub fn connections(
    from: &Namespace,
    to: (&Namespace, IpAddr),
    duration: Duration,
) -> Result<Connections> {
    let (receiver, address) = to;
    let listener = receiver.run_in(|| TcpListener::bind((address, 0)));
    let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr().context("the listener's address")?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, &done));
        let made = from.run_in(|| {
            let (start, mut count) = (Instant::now(), 0);
            while start.elapsed() < duration {
                exchange(&address)?;
                count += 1;
            }
            let per_second = count as f64 / start.elapsed().as_secs_f64();
            io::Result::Ok(Connections { count, per_second })
        });
        done.store(true, Ordering::Release);
        // Wakes the server.
        let woken = receiver.run_in(|| TcpStream::connect(address));
        let served = server.join().expect("serving does not panic");
        let made = made.with_context(|| format!("a connection to {address}"))?;
        woken.context("the server's own connection")?;
        served.map(|()| made)
    })
}

fn exchange(address: &SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(address, patience(LIMIT))?;
    stream.set_read_timeout(Some(patience(LIMIT)))?;
    stream.write_all(&[0])?;
    stream.read_exact(&mut [0])?;
    let reset = linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &reset).map_err(io::Error::from)
}

fn serve(listener: &TcpListener, done: &AtomicBool) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().context("cannot accept")?;
        if done.load(Ordering::Acquire) {
            return Ok(());
        }
        stream.set_read_timeout(Some(patience(LIMIT))).context("the server's own connection")?;
        // A client that is gone tells its own side.
        let mut byte = [0];
        let _ = stream.read(&mut byte).and_then(|_| stream.write(&byte));
    }
}
