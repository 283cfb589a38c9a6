//! What grows with the tables and what does not: packets, loading, following, memory.

mod churn;
mod daemon;
mod memory;
mod report;

use std::path::Path;

use anyhow::Result;

use self::{daemon::Layout, report::Report};
use super::{machine::HostInfo, write};
use crate::{test::run_costs, vm::Series};

/// Stations behind so many tunnels, for the programs. Each table is the one before with more in it, or
/// spread over more tunnels.
const PROGRAM_SIZES: [(u32, u32); 6] =
    [(10, 1), (1_000, 1), (1_000, 100), (1_000, 1_000), (100_000, 1_000), (1_000_000, 1_000)];

/// The same for the daemon, with the bridges that they are on.
const LAYOUTS: [Layout; 5] = [
    Layout { stations: 10, bridges: 1, tunnels: 1 },
    Layout { stations: 1_000, bridges: 1, tunnels: 100 },
    Layout { stations: 100_000, bridges: 1, tunnels: 1_000 },
    Layout { stations: 100_000, bridges: 100, tunnels: 1_000 },
    Layout { stations: 1_000_000, bridges: 1_000, tunnels: 1_000 },
];

/// Measures and shows all.
///
/// # Errors
/// When a host can't be set up, the daemon does not start, or the virtual machine does not come up.
pub(super) fn run(loader: &Path, series: Series, json: Option<&Path>) -> Result<()> {
    let mut report = Report::new(HostInfo::ask(1));
    report.program_instructions = run_costs::in_machine(series, &PROGRAM_SIZES)?;
    report.program_nanoseconds = run_costs::here(&PROGRAM_SIZES)?;
    for layout in LAYOUTS {
        report.daemon.push(daemon::measure(layout, loader)?);
    }
    print!("{}", report.table());
    json.map_or(Ok(()), |json| write(json, &report))
}
