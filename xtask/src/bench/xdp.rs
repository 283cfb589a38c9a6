//! What it costs to discard a packet: the filter on the uplink against nftables.

use anyhow::{Result, bail};

use crate::test::prog_run;

/// Frames of each run: a second or two.
const FRAMES: u32 = 2_000_000;

/// Builds the test that measures and runs it with more frames.
pub(super) fn run() -> Result<()> {
    if !prog_run::run("live::", &[("OVS_EBPF_LIVE_FRAMES", FRAMES.to_string())])? {
        bail!("the measurement failed: see above");
    }
    Ok(())
}
