//! What the daemon and the kernel keep.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use std::os::fd::{AsFd as _, AsRawFd as _};

/// Bytes that a process has in memory: now, and at most so far.
pub(super) fn resident(pid: u32) -> Result<(u64, u64)> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let field = |name| {
        let value = number_of(&status, name).map(|kib| kib * 1024);
        value.with_context(|| format!("{path} has no {name}"))
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// The processor's time that a process has had, in seconds.
pub(super) fn processor_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // After the program's name, which is in parentheses: user and kernel time are fields 14 and 15, in
    // hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks = fields.map(str::parse::<u32>).sum::<Result<u32, _>>();
    Ok(f64::from(ticks.with_context(|| format!("not what {path} has: {stat}"))?) / 100.0)
}

/// Bytes that the kernel says a pinned map takes.
pub(super) fn of_map(pin: &Path) -> Result<u64> {
    let map = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let info = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    number_of(&info, "memlock:").context("the kernel does not say what a map takes")
}

/// The first number of the line that begins with `name`.
fn number_of(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_name() {
        let status = "VmPeak:\t  1000 kB\nVmHWM:\t  700 kB\nVmRSS:\t     512 kB\n";
        assert_eq!(number_of(status, "VmRSS:"), Some(512));
        assert_eq!(number_of(status, "VmSwap:"), None);
    }
}
