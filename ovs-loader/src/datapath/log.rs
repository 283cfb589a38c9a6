//! Prints what the programs log of each packet, in builds with the feature `log`.

use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::time::interval;

/// How often the ring buffer is emptied.
const PERIOD: Duration = Duration::from_millis(50);

/// Prints in the background, as long as the runtime lives.
pub(super) fn follow(ebpf: &mut Ebpf) -> Result<(), aya_log::Error> {
    let mut logger = EbpfLogger::init(ebpf)?;
    tokio::spawn(async move {
        let mut ticks = interval(PERIOD);
        loop {
            ticks.tick().await;
            logger.flush();
        }
    });
    Ok(())
}
