//! `cargo xtask differential`: the model against the loaded programs, on other frames every time.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use clap::Args;

use super::prog_run;

/// Arguments of `cargo xtask differential`.
#[derive(Args)]
pub struct DifferentialArgs {
    /// Where the frames begin: the same seed gives the same frames [default: the time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many frames
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    frames: u64,
}

/// Runs the differential test alone, on the seed and for as many frames as asked for.
///
/// # Errors
/// When set-up or building fails, or model and programs differ.
pub fn run(args: &DifferentialArgs) -> Result<()> {
    let seed = args.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::from(now.subsec_nanos()) | now.as_secs() << 32
    });
    let environment =
        [("OVS_EBPF_SEED", seed.to_string()), ("OVS_EBPF_FRAMES", args.frames.to_string())];
    if !prog_run::run("differential::", &environment)? {
        bail!("the differential test failed; once more: --seed {seed} --frames {}", args.frames);
    }
    Ok(())
}
