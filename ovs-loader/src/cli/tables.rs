//! Reports as tables for people: no lines, no colours, the same on a terminal and in a pipe.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use comfy_table::{Cell, CellAlignment, Table, presets};
use ovs_ebpf_common::Reason;

use crate::api::report::{
    BridgeStatus, FdbReport, PortSecurity, Stats, Status, Traffic, TunnelReport, Why, XdpStatus,
};
use crate::docker::Listing;
use crate::plugin::Tunnel;
use crate::plugin::list::{Listed, Listing as NetworkListing};

pub(super) fn status(status: &Status) -> String {
    let mut text = String::new();
    for warning in &status.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    xdp_status(&mut text, &status.xdp);
    if status.bridges.is_empty() {
        text.push_str("no bridges on this host\n");
    }
    for bridge in &status.bridges {
        bridge_status(&mut text, bridge);
    }
    text
}

fn xdp_status(text: &mut String, xdp: &XdpStatus) {
    for uplink in &xdp.uplinks {
        let state = yes_or_why(uplink.filtered, &uplink.why);
        let _ = writeln!(text, "uplink {}: filtered by XDP: {state}", uplink.name);
    }
    for flow in &xdp.flows {
        let port = flow.dst_port.map(|port| format!(" on UDP port {port}")).unwrap_or_default();
        let state = yes_or_why(flow.filtered, &flow.why);
        let _ = writeln!(text, "{}{port}: filtered by XDP: {state}", flow.encap);
    }
}

fn bridge_status(text: &mut String, bridge: &BridgeStatus) {
    let state = yes_or_why(bridge.accelerated, &bridge.why);
    let fdb = bridge.fdb;
    let _ = writeln!(text, "{} ({}): accelerated: {state}", bridge.name, bridge.kind);
    let _ = writeln!(text, "  FDB: {} of {} entries accelerated", fdb.accelerated, fdb.entries);
    if !bridge.ports.is_empty() {
        // A column that says nothing of any port is none.
        let secured = bridge.ports.iter().any(|port| port.security.is_some());
        let mut header = vec!["port", "container", "device", "accelerated"];
        header.extend(secured.then_some("secured"));
        let mut ports = table(&header);
        for port in &bridge.ports {
            let mut row = vec![
                port.name.clone(),
                or_dash(port.container.as_ref()),
                port.device.clone(),
                yes_or_why(port.accelerated, &port.why),
            ];
            row.extend(secured.then(|| or_dash(port.security.as_ref().map(security))));
            ports.add_row(row);
        }
        text.push_str(&indented(&ports));
    }
    if !bridge.tunnels.is_empty() {
        let mut tunnels =
            table(&["tunnel", "type", "key", "local", "remote", "uplink", "mtu", "accelerated"]);
        for tunnel in &bridge.tunnels {
            tunnels.add_row([
                tunnel.name.clone(),
                tunnel.encap.clone(),
                or_dash(tunnel.key),
                or_dash(tunnel.local),
                or_dash(tunnel.remote),
                or_dash(tunnel.uplink.as_ref()),
                or_dash(tunnel.mtu),
                yes_or_why(tunnel.accelerated, &tunnel.why),
            ]);
        }
        text.push_str(&indented(&tunnels));
    }
}

pub(super) fn fdb(report: &FdbReport) -> String {
    let mut rows =
        table(&["bridge", "mac", "vlan", "kind", "port", "container", "remote", "accelerated"]);
    for entry in &report.entries {
        rows.add_row([
            entry.bridge.clone(),
            entry.mac.clone(),
            if entry.vlan == 0 { "-".to_owned() } else { entry.vlan.to_string() },
            entry.kind.clone(),
            entry.port.clone(),
            or_dash(entry.container.as_ref()),
            or_dash(entry.remote),
            yes_or_why(entry.accelerated, &entry.why),
        ]);
    }
    lines(&rows)
}

pub(super) fn tunnels(report: &TunnelReport) -> String {
    let mut rows = table(&[
        "bridge",
        "tunnel",
        "type",
        "key",
        "remote",
        "tx pkts",
        "tx bytes",
        "rx pkts",
        "rx bytes",
        "accelerated",
    ]);
    for tunnel in &report.tunnels {
        let status = &tunnel.status;
        rows.add_row([
            Cell::new(&tunnel.bridge),
            Cell::new(&status.name),
            Cell::new(&status.encap),
            Cell::new(or_dash(status.key)),
            Cell::new(or_dash(status.remote)),
            number(tunnel.tx.packets),
            number(tunnel.tx.bytes),
            number(tunnel.rx.packets),
            number(tunnel.rx.bytes),
            Cell::new(yes_or_why(status.accelerated, &status.why)),
        ]);
    }
    lines(&rows)
}

pub(super) fn attachments(listing: &Listing) -> String {
    let mut rows =
        table(&["bridge", "interface", "container", "port", "addresses", "vlan", "attached"]);
    for one in &listing.attachments {
        rows.add_row([
            one.bridge.clone(),
            one.interface.clone(),
            one.container.clone(),
            one.port.clone(),
            or_dash((!one.addresses.is_empty()).then(|| one.addresses.join(" "))),
            or_dash(one.vlan),
            match (one.attached, one.by_ovs_docker) {
                (true, false) => "yes".to_owned(),
                (true, true) => "yes, by ovs-docker".to_owned(),
                (false, false) => "no: waits for its container".to_owned(),
                (false, true) => "no: left by ovs-docker".to_owned(),
            },
        ]);
    }
    lines(&rows)
}

pub(super) fn networks(listing: &NetworkListing) -> String {
    let mut rows = table(&[
        "network",
        "bridge",
        "tunnel",
        "key",
        "remotes",
        "vlan",
        "mtu",
        "subnets",
        "containers",
    ]);
    for one in &listing.networks {
        let tunnel = one.tunnel.as_ref();
        let list = |all: &[String]| or_dash((!all.is_empty()).then(|| all.join(" ")));
        rows.add_row([
            one.name.clone().unwrap_or_else(|| one.id.short().to_owned()),
            one.bridge.clone(),
            or_dash(tunnel.map(|tunnel| tunnel.encap.name())),
            match tunnel {
                Some(Tunnel { key: None, .. }) => "waits for Docker".to_owned(),
                tunnel => or_dash(tunnel.and_then(|tunnel| tunnel.key)),
            },
            list(&tunnel.map_or_else(Vec::new, |tunnel| texts(&tunnel.remotes))),
            or_dash(one.vlan),
            one.mtu.to_string(),
            list(&one.subnets),
            list(&one.endpoints.iter().map(Listed::shown).collect::<Vec<_>>()),
        ]);
    }
    lines(&rows)
}

fn texts<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

pub(super) fn stats(stats: &Stats) -> String {
    let mut fast = table(&["fast path", "packets", "bytes"]);
    let mut program = |name: &str, traffic: Traffic| {
        fast.add_row([Cell::new(name), number(traffic.packets), number(traffic.bytes)]);
    };
    program("port_ingress", stats.fast.port_ingress);
    program("uplink_ingress", stats.fast.uplink_ingress);

    let mut text = lines(&fast);
    if let Some(share) = stats.fast_share {
        let percent = share * 100.0;
        let _ = writeln!(text, "share of the fast path: {percent:.2} %");
    }
    reasons(&mut text, "left to the bridge", &stats.reasons);
    reasons(&mut text, "discarded", &stats.discarded);
    if !stats.sources.is_empty() {
        let mut sources = table(&["discarded from", "unknown remote", "wrong key", "malformed"]);
        for source in stats.sources.iter().take(SOURCES) {
            sources.add_row([
                Cell::new(source.address),
                number(source.unknown_remote),
                number(source.wrong_key),
                number(source.malformed),
            ]);
        }
        text.push('\n');
        text.push_str(&lines(&sources));
        if let Some(more) = stats.sources.len().checked_sub(SOURCES).filter(|more| *more > 0) {
            let _ = writeln!(text, "and {more} more: see --json");
        }
    }
    text
}

/// How many sources are shown.
const SOURCES: usize = 20;

/// Appends what counted under each reason, the most first.
fn reasons(text: &mut String, title: &str, counts: &BTreeMap<String, u64>) {
    let mut counts: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    if counts.is_empty() {
        return;
    }
    counts.sort_by(|(a, x), (b, y)| y.cmp(x).then(a.cmp(b)));
    let mut rows = table(&[title, "packets", "because"]);
    for (name, count) in counts {
        let help = Reason::ALL.iter().find(|reason| reason.name() == name.as_str());
        let help = help.map_or("", |reason| reason.help());
        rows.add_row([Cell::new(name), number(*count), Cell::new(help)]);
    }
    text.push('\n');
    text.push_str(&lines(&rows));
}

/// Whether a port is limited, and how many packets that has cost it.
fn security(security: &PortSecurity) -> String {
    let mut text = yes_or_why(security.enforced, &security.why);
    if security.discarded > 0 {
        let _ = write!(text, ", {} discarded", security.discarded);
    }
    text
}

/// `yes`, or the reasons why not; what is so in part has both.
fn yes_or_why(yes: bool, why: &[Why]) -> String {
    let mut text = if yes { "yes" } else { "no" }.to_owned();
    for (index, why) in why.iter().enumerate() {
        text.push_str(if index == 0 { ": " } else { "; " });
        text.push_str(&why.help);
        if !why.detail.is_empty() {
            let _ = write!(text, ": {}", why.detail);
        }
    }
    text
}

fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn number(value: u64) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table
}

/// The table's lines without trailing blanks.
fn lines(table: &Table) -> String {
    table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

fn indented(table: &Table) -> String {
    table.lines().fold(String::new(), |text, line| text + " " + line.trim_end() + "\n")
}
