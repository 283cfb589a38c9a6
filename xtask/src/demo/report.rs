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
        writeln!(f, "container to container over {encap}   slow path   fast path   ratio")?;
        let mut row = |name: &str, slow: String, fast: String, ratio: String| {
            writeln!(f, "{name:<32}{slow:>12}{fast:>12}{ratio:>8}")
        };
        let times = |ratio: f64| format!("{ratio:.2}");
        row(
            "TCP, one flow",
            format!("{:.2} Gbit/s", slow.tcp_gbps),
            format!("{:.2} Gbit/s", fast.tcp_gbps),
            times(ratio.tcp),
        )?;
        row(
            "UDP, 64 bytes, received",
            format!("{:.0} kpps", slow.udp_kpps),
            format!("{:.0} kpps", fast.udp_kpps),
            times(ratio.udp),
        )?;
        row("ping, lost", percent(slow.ping_loss), percent(fast.ping_loss), String::new())?;
        row("packets on the fast path", percent(0.0), percent(*fast_share), String::new())
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
