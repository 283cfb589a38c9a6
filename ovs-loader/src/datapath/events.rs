//! What the programs tell of: stations that appear or move where no netlink message says so.

use std::io;

use aya::maps::{MapData, RingBuf};
use ovs_ebpf_common::abi::Event;
use tokio::io::unix::AsyncFd;

/// The reader of the `events` ring buffer.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    /// Takes the ring buffer, with what is in it. To be called within a tokio runtime.
    ///
    /// # Errors
    /// Where it can't be watched.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring buffer owns its descriptor and is dropped together with the registration.
        Ok(Self { ring: unsafe { AsyncFd::register(ring) }? })
    }

    /// Waits for the next event. Cancelling it loses none.
    ///
    /// An event says that the bridge is about to learn: ask the bridge for its table
    /// [`EVENT_INTERVAL`](ovs_ebpf_common::abi::EVENT_INTERVAL) later. It also comes, again and again,
    /// while a station that the bridge has learned is not in the `fdb` map for another reason.
    ///
    /// # Errors
    /// Where the ring buffer can't be watched.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            // Not a `match`: the record is given back to the ring before readiness is cleared.
            if let Some(record) = ready.get_inner_mut().next() {
                if let Some(event) = Event::from_bytes(&record) {
                    return Ok(event);
                }
                continue;
            }
            ready.clear_ready();
        }
    }
}
