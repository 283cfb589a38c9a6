//! What the demo prints.

use std::{
    fmt::{self, Write as _},
    path::Path,
};

use ovs_ebpf_tests::lab::{Lab, Loader};
use serde::Serialize;

use super::measure::Sample;

/// The result; as JSON, one stable object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    encap: &'static str,
    slow: Sample,
    fast: Sample,
    ratio: Ratio,
    fast_share: f64,
}

/// Fast over slow.
#[derive(Debug, Serialize)]
struct Ratio {
    tcp: f64,
    udp: f64,
}

impl Report {
    pub(super) fn new(encap: &'static str, slow: Sample, fast: Sample, fast_share: f64) -> Self {
        let ratio =
            Ratio { tcp: fast.tcp_gbps / slow.tcp_gbps, udp: fast.udp_kpps / slow.udp_kpps };
        Self { encap, slow, fast, ratio, fast_share }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { encap, slow, fast, ratio, fast_share } = self;
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        // Rounded down: only all packets are 100 %.
        let share = format!("{:.2} %", (fast_share * 1e4).floor() / 1e2);
        let gbps = |sample: &Sample| format!("{:.2} Gbit/s", sample.tcp_gbps);
        let kpps = |sample: &Sample| format!("{:.0} kpps", sample.udp_kpps);
        let times = |ratio: f64| format!("{ratio:>8.2} ×");
        let rows = [
            (format!("over {encap}"), "slow path".into(), "fast path".into(), "     ratio".into()),
            ("TCP, one flow".into(), gbps(slow), gbps(fast), times(ratio.tcp)),
            ("UDP, 64 bytes, received".into(), kpps(slow), kpps(fast), times(ratio.udp)),
            ("ping, lost".into(), percent(slow.ping_loss), percent(fast.ping_loss), String::new()),
            ("packets on the fast path".into(), "none".into(), share, String::new()),
        ];
        for (name, slow, fast, ratio) in rows {
            writeln!(f, "{name:<24}{slow:>16}{fast:>16}{ratio}")?;
        }
        Ok(())
    }
}

/// How to look around in a lab that is kept, and how to remove it.
pub(super) fn entering(lab: &Lab, loaders: &[Loader], binary: &Path) -> String {
    let mut text = String::from("\nThe hosts stay up. As root:\n");
    for (number, (host, loader)) in lab.hosts().iter().zip(loaders).enumerate() {
        let container = host.container(0);
        let shell = "nsenter --net=/run/netns";
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "  host {}        {shell}/{} bash\n  \
               its container {shell}/{} bash    # {}\n  \
               its daemon    {} --socket {} status",
            number + 1,
            host.name(),
            container.name(),
            container.ipv4(),
            binary.display(),
            loader.socket().display(),
        );
    }
    text + "Remove them:\n  cargo xtask demo --remove\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let slow = Sample { tcp_gbps: 10.0, udp_kpps: 200.0, ping_loss: 0.0 };
        let fast = Sample { tcp_gbps: 12.5, udp_kpps: 500.0, ping_loss: 0.0 };
        Report::new("vxlan", slow, fast, 0.99999)
    }

    #[test]
    fn the_table_shows_both_paths_side_by_side() {
        let expected = "\
over vxlan                     slow path       fast path     ratio
TCP, one flow               10.00 Gbit/s    12.50 Gbit/s    1.25 ×
UDP, 64 bytes, received         200 kpps        500 kpps    2.50 ×
ping, lost                         0.0 %           0.0 %
packets on the fast path            none         99.99 %
";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn the_json_object_has_the_documented_fields() {
        let expected = r#"{"encap":"vxlan","slow":{"tcp_gbps":10.0,"udp_kpps":200.0,"ping_loss":0.0},"fast":{"tcp_gbps":12.5,"udp_kpps":500.0,"ping_loss":0.0},"ratio":{"tcp":1.25,"udp":2.5},"fast_share":0.99999}"#;
        assert_eq!(serde_json::to_string(&report()).unwrap(), expected);
    }
}
