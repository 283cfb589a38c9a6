//! The results for people.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use comfy_table::{CellAlignment, Table, presets};

use super::{
    measure::Measure,
    path::DataPath,
    report::{Figure, Figures, Ratio, Report},
};

/// All results: a table of the measures, with half of the quartiles' distance, and what explains them.
pub(super) fn table(report: &Report) -> Result<String, fmt::Error> {
    let mut text = String::new();
    let host = &report.host;
    let emulated = if host.emulated { ", emulated: compare ratios only" } else { "" };
    writeln!(
        text,
        "Linux {} on {} × {}{emulated}; medians of {} rounds ± half the distance of the quartiles",
        host.kernel, host.processors, host.processor, host.rounds
    )?;
    let paths: BTreeSet<DataPath> =
        report.measures.values().flat_map(|figures| figures.paths.keys().copied()).collect();
    let mut table = empty("", &paths);
    for (measure, figures) in &report.measures {
        let name = format!("{} [{}]", measure.title(), figures.unit);
        let row = cells(name, &paths, |path| figures.paths.get(&path).map(shown));
        table.add_row(row);
        let counted = |figure: &Figure| figure.instructions_per_unit;
        if figures.paths.values().any(|figure| counted(figure).is_some()) {
            let row = cells(format!("  instructions/{}", unit(*measure)), &paths, |path| {
                figures.paths.get(&path).and_then(counted).map(number)
            });
            table.add_row(row);
        }
        if let Some(latencies) = report.details.latency_us.get(measure) {
            let row = cells("  p50, p99 [µs]".to_owned(), &paths, |path| {
                let latency = latencies.get(&path)?;
                Some(format!("{:.0}, {:.0}", latency.p50, latency.p99))
            });
            table.add_row(row);
        }
    }
    segmented(&mut table, &paths, &report.details.segmented_uplink);
    let bytes = &report.details.uplink_packet_bytes;
    table.add_row(cells("packet on the uplink, TCP [bytes]".to_owned(), &paths, |path| {
        bytes.get(&path).map(|bytes| number(*bytes))
    }));
    align(&mut table);
    writeln!(text, "{table}")?;
    if !report.details.ratios.is_empty() {
        writeln!(text, "\nratios: medians of the rounds' own (first to third quartile)")?;
        writeln!(text, "{}\n", ratios(report))?;
    }
    for (path, programs) in &report.details.program_ns {
        for (program, ns) in programs {
            writeln!(text, "{path}: {program} takes {ns:.0} ns")?;
        }
    }
    for (path, share) in &report.details.fast_share {
        writeln!(text, "{path}: {:.2} % of packets on the fast path", share * 100.0)?;
    }
    for note in &report.details.notes {
        writeln!(text, "note: {note}")?;
    }
    Ok(text)
}

/// A row for each measure, a column for each path with what it is compared with.
fn ratios(report: &Report) -> Table {
    let ratios = &report.details.ratios;
    let pairs: BTreeSet<(DataPath, DataPath)> = (ratios.values().flatten())
        .flat_map(|(path, rivals)| rivals.keys().map(|rival| (*path, *rival)))
        .collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let names = pairs.iter().map(|(path, rival)| format!("{path} : {rival}"));
    table.set_header(std::iter::once(String::new()).chain(names));
    for (measure, of_measure) in ratios {
        let shown = pairs.iter().map(|(path, rival)| {
            match of_measure.get(path).and_then(|rivals| rivals.get(rival)) {
                Some(Ratio { median, p25, p75 }) => format!("{median:.2} ({p25:.2}–{p75:.2})"),
                None => "-".to_owned(),
            }
        });
        table.add_row(std::iter::once(measure.title().to_owned()).chain(shown));
    }
    align(&mut table);
    table
}

fn segmented(table: &mut Table, paths: &BTreeSet<DataPath>, figures: &Figures) {
    let name = format!("TCP, 1 flow, uplink without TSO [{}]", figures.unit);
    table.add_row(cells(name, paths, |path| figures.paths.get(&path).map(shown)));
}

/// What an instruction count is for.
fn unit(measure: Measure) -> &'static str {
    match measure {
        Measure::Tcp1 | Measure::Tcp8 => "KB",
        Measure::Rr1 | Measure::Rr32 => "transaction",
        Measure::Udp64 | Measure::Udp512 | Measure::Udp1400 => "packet",
        Measure::Connect => "connection",
    }
}

fn empty(name: &str, paths: &BTreeSet<DataPath>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(cells(name.to_owned(), paths, |path| Some(path.to_string())));
    table
}

fn cells(
    name: String,
    paths: &BTreeSet<DataPath>,
    cell: impl Fn(DataPath) -> Option<String>,
) -> Vec<String> {
    let cells = paths.iter().map(|path| cell(*path).unwrap_or_else(|| "-".into()));
    std::iter::once(name).chain(cells).collect()
}

fn align(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn shown(figure: &Figure) -> String {
    let spread = (figure.p75 - figure.p25) / 2.0 / figure.median * 100.0;
    format!("{} ±{spread:.0} %", number(figure.median))
}

/// Three digits or all before the point.
fn number(value: f64) -> String {
    match value.abs() {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
