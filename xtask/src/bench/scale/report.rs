//! The figures, for people and as JSON.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use super::daemon::Daemon;
use crate::{bench::machine::HostInfo, test::run_costs::Costs};

/// Below this the daemon's own size outweighs its stations'.
const MANY: u32 = 100_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) host: HostInfo,
    /// In the virtual machine.
    pub(super) program_instructions: Vec<Costs>,
    pub(super) program_nanoseconds: Vec<Costs>,
    pub(super) daemon: Vec<Daemon>,
}

impl Report {
    pub(super) fn new(host: HostInfo) -> Self {
        let (program_instructions, program_nanoseconds) = (Vec::new(), Vec::new());
        Self { host, program_instructions, program_nanoseconds, daemon: Vec::new() }
    }

    pub(super) fn table(&self) -> String {
        let mut text = self.host.caption() + "\n";
        for (title, costs) in [
            ("instructions for each run", &self.program_instructions),
            ("nanoseconds for each run", &self.program_nanoseconds),
        ] {
            let header = [
                "stations",
                "tunnels",
                "port_ingress, known flow",
                "new flow",
                "uplink_ingress, known flow",
                "new flow",
            ];
            let rows = costs.iter().map(|costs| {
                let [one, other] = [costs.port_ingress, costs.uplink_ingress];
                let figures = [one.known_flow, one.new_flow, other.known_flow, other.new_flow];
                let sizes = [costs.stations, costs.tunnels].map(u64::from);
                sizes.into_iter().chain(figures).map(|figure| figure.to_string()).collect()
            });
            let _ = writeln!(text, "\n{title}\n{}", table(&header, rows));
        }
        let header = [
            "stations",
            "bridges",
            "tunnels",
            "kernel's dump [s]",
            "read [s]",
            "write [s]",
            "ready [s]",
            "of it on a processor",
            "daemon [bytes each]",
            "at most",
            "map [bytes each]",
            "lag p50 [ms]",
            "p99",
            "overruns",
        ];
        let rows = self.daemon.iter().map(row);
        let _ = writeln!(text, "\nthe daemon\n{}", table(&header, rows));
        text
    }
}

fn row(daemon: &Daemon) -> Vec<String> {
    let each = |bytes: f64| match daemon.layout.stations {
        ..MANY => "-".to_owned(),
        _ => format!("{bytes:.0}"),
    };
    let [now, most] = daemon.bytes_per_station();
    vec![
        daemon.layout.stations.to_string(),
        daemon.layout.bridges.to_string(),
        daemon.layout.tunnels.to_string(),
        format!("{:.2}", daemon.kernel_dump_seconds),
        format!("{:.2}", daemon.read_seconds),
        format!("{:.2}", daemon.write_seconds),
        format!("{:.2}", daemon.ready_seconds),
        format!("{:.2}", daemon.ready_processor_seconds),
        each(now),
        each(most),
        format!("{:.0}", daemon.map_bytes_per_station()),
        format!("{:.1}", daemon.lag.median_ms),
        format!("{:.1}", daemon.lag.p99_ms),
        daemon.overruns.to_string(),
    ]
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
