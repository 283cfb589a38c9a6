//! What ovs-vswitchd prints, for people, on its control socket. A form that is not known is an error,
//! never a guess.

use crate::bridge::model::{FdbKey, Mac, Why};
use ovs_ebpf_common::Reason;

/// What is not in the form of Open vSwitch 2.17 to 3.x.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ovs-vswitchd's {command} has a form that this version does not know: {line:?}")]
pub struct Unknown {
    /// The command.
    pub command: &'static str,
    /// The line.
    pub line: String,
}

impl Unknown {
    fn new(command: &'static str, line: &str) -> Self {
        Self { command, line: line.to_owned() }
    }
}

/// Where `fdb/show` has a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Station {
    /// The station.
    pub key: FdbKey,
    /// Its OpenFlow port number; `None` is `LOCAL`, the bridge's own.
    pub port: Option<u16>,
    /// Set with `fdb/add`.
    pub fixed: bool,
}

/// The stations that `fdb/show` prints, sorted.
///
/// # Errors
/// Where one line is not understood.
pub fn stations(text: &str) -> Result<Vec<Station>, Unknown> {
    const COMMAND: &str = "fdb/show";
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    if title.split_whitespace().ne(["port", "VLAN", "MAC", "Age"]) {
        return Err(Unknown::new(COMMAND, title));
    }
    let mut stations = lines
        .map(|line| station(line).ok_or_else(|| Unknown::new(COMMAND, line)))
        .collect::<Result<Vec<_>, _>>()?;
    stations.sort_unstable();
    Ok(stations)
}

fn station(line: &str) -> Option<Station> {
    let mut words = line.split_whitespace();
    let (port, vlan, mac, age) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let port = match port {
        "LOCAL" => None,
        number => Some(number.parse().ok()?),
    };
    // Below 0 once the ageing time has been changed: a fixed entry ages then, in years.
    let fixed = age == "static";
    if words.next().is_some() || !(fixed || age.parse::<i64>().is_ok()) {
        return None;
    }
    Some(Station { key: FdbKey { vlan: vlan.parse().ok()?, mac: self::mac(mac)? }, port, fixed })
}

fn mac(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next().filter(|part| part.len() == 2)?, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(bytes))
}

/// What of `bridge/dump-flows` does other than NORMAL, if anything: nothing where every flow of the
/// first table has that one action and one of them takes every packet.
///
/// Hidden flows are among them: those that keep a controller reachable are NORMAL too, and those of
/// the last table are no packet's that NORMAL forwards.
///
/// # Errors
/// Where one line is not understood.
pub fn other_flows(text: &str) -> Result<Option<Why>, Unknown> {
    const COMMAND: &str = "bridge/dump-flows";
    let mut takes_all = false;
    // The least in its own order, so that the same table always gives the same words.
    let mut other: Option<String> = None;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let unknown = || Unknown::new(COMMAND, line);
        if line.starts_with("table_id=") {
            continue;
        }
        let (_, flow) = line.split_once("n_bytes=").ok_or_else(unknown)?;
        let (_, flow) = flow.split_once(", ").ok_or_else(unknown)?;
        let (rule, actions) = flow.split_once("actions=").ok_or_else(unknown)?;
        let rule = rule.trim().trim_end_matches(',');
        if actions != "NORMAL" {
            let words = format!("{rule} actions={actions}");
            if other.as_ref().is_none_or(|other| words < *other) {
                other = Some(words);
            }
        }
        let conditions = rule.split(',').filter(|part| !part.is_empty());
        takes_all |= conditions.filter(|part| !part.starts_with("priority=")).count() == 0;
    }
    let missing = (!takes_all).then(|| "no flow takes every packet".to_owned());
    Ok(other.or(missing).map(|words| Why::new(Reason::OvsFlows, words.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stations_are_read_with_their_ports() {
        let text = " port  VLAN  MAC                Age
LOCAL     0  aa:55:aa:55:00:00   12
    3    10  00:00:00:00:00:01  static
65530     0  02:00:00:00:00:0a    0
    1     0  02:00:00:00:00:0b  -2147478402
";
        let station =
            |vlan, mac, port, fixed| Station { key: FdbKey { vlan, mac: Mac(mac) }, port, fixed };
        assert_eq!(
            stations(text).unwrap(),
            [
                station(0, [2, 0, 0, 0, 0, 10], Some(65530), false),
                station(0, [2, 0, 0, 0, 0, 11], Some(1), false),
                station(0, [0xaa, 0x55, 0xaa, 0x55, 0, 0], None, false),
                station(10, [0, 0, 0, 0, 0, 1], Some(3), true),
            ]
        );
        assert_eq!(stations(" port  VLAN  MAC                Age\n"), Ok(vec![]));
    }

    #[test]
    fn another_form_of_the_fdb_is_an_error() {
        for line in [
            "    3     0  00:00:00:00:00:01",
            "    3     0  00:00:00:00:00:01  soon",
            "    3     0  00:00:00:00:00:01  static  more",
            " eth0     0  00:00:00:00:00:01    1",
            "    3     0  00:00:00:00:00        1",
            "    3     0  00:00:00:00:00:1      1",
            "    3     x  00:00:00:00:00:01     1",
        ] {
            let text = format!(" port  VLAN  MAC                Age\n{line}\n");
            assert_eq!(stations(&text).unwrap_err().line, line);
        }
        assert!(stations("").is_err());
        assert!(stations("{\"entries\":[]}").is_err());
    }

    const NORMAL: &str = "duration=7s, n_packets=3, n_bytes=210, priority=0,actions=NORMAL\n";
    const HIDDEN: &str =
        "table_id=254, duration=7s, n_packets=0, n_bytes=0, priority=2,recirc_id=0,actions=drop\n";

    fn other(text: &str) -> String {
        other_flows(text).unwrap().map_or(String::new(), |why| why.detail)
    }

    #[test]
    fn a_bridge_of_normal_alone_has_no_other_flows() {
        assert_eq!(other(&format!("{NORMAL}{HIDDEN}")), "");
        // The default priority is not printed.
        assert_eq!(other("duration=7s, n_packets=3, n_bytes=210, ,actions=NORMAL\n"), "");
        // What keeps a controller reachable.
        let hidden = "duration=7s, n_packets=0, n_bytes=0, priority=180000,arp,actions=NORMAL\n";
        assert_eq!(other(&format!("{hidden}{NORMAL}")), "");
    }

    #[test]
    fn every_other_flow_is_named_as_ovs_prints_it() {
        let line = |rule| format!("duration=1s, n_packets=0, n_bytes=0, {rule}\n");
        for (rule, words) in [
            ("priority=9,tcp,tp_dst=80,actions=drop", "priority=9,tcp,tp_dst=80 actions=drop"),
            ("priority=9,in_port=1,actions=output:2", "priority=9,in_port=1 actions=output:2"),
            ("priority=9,actions=NORMAL,output:2", "priority=9 actions=NORMAL,output:2"),
            ("priority=9,actions=dec_ttl,NORMAL", "priority=9 actions=dec_ttl,NORMAL"),
            ("ip,actions=resubmit(,1)", "ip actions=resubmit(,1)"),
        ] {
            assert_eq!(other(&format!("{}{NORMAL}", line(rule))), words);
            assert_eq!(other(&format!("{NORMAL}{}", line(rule))), words);
        }
    }

    #[test]
    fn packets_that_no_flow_takes_are_not_normals() {
        assert_eq!(other(""), "no flow takes every packet");
        assert_eq!(other(HIDDEN), "no flow takes every packet");
        let only_ip = "duration=1s, n_packets=0, n_bytes=0, priority=9,ip,actions=NORMAL\n";
        assert_eq!(other(only_ip), "no flow takes every packet");
    }

    #[test]
    fn another_form_of_flows_is_an_error() {
        assert!(other_flows("cookie=0x0, priority=0 actions=NORMAL").is_err());
        assert!(other_flows("duration=7s, n_packets=3, n_bytes=210, priority=0").is_err());
    }
}
