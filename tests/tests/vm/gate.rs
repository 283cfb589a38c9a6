//! What Open vSwitch does beside NORMAL forwarding stops the bypass, is named in Open vSwitch's words,
//! and keeps working; without it the bypass returns.
//!
//! The first host has the daemon.

use anyhow::{Context as _, Result, ensure};
use ovs_ebpf_tests::{
    lab::{Encap, Lab, Loader, counters, traffic::BothWays, wait_until},
    why::{At, detail, has},
};

use crate::support::{LIMIT, RATE, SECOND, echo, fact, until_reached};

/// What stands against the bypass, how it is reported, and the commands of Open vSwitch that bring it
/// and take it away.
struct Against {
    at: At<'static>,
    reason: &'static str,
    /// Part of what is found.
    words: &'static str,
    appear: &'static str,
    vanish: &'static str,
}

/// What is done beside forwarding.
const BESIDE: [Against; 5] = [
    Against {
        at: At::Bridge,
        reason: "ovs_flows",
        words: "udp",
        appear: "ovs-ofctl add-flow br-ex priority=9,udp,actions=mod_nw_tos:32,NORMAL",
        vanish: "ovs-ofctl --strict del-flows br-ex priority=9,udp",
    },
    Against {
        at: At::Bridge,
        reason: "ovs_mirror",
        words: "mirror m0",
        appear: "ovs-vsctl -- --id=@p get port v2 -- --id=@m create mirror name=m0 select-all=true \
                 output-port=@p -- set bridge br-ex mirrors=@m",
        vanish: "ovs-vsctl clear bridge br-ex mirrors",
    },
    Against {
        at: At::Bridge,
        reason: "ovs_sampling",
        words: "sFlow",
        appear: "ovs-vsctl -- --id=@s create sflow agent=lo target=\"127.0.0.1\" sampling=64 -- \
                 set bridge br-ex sflow=@s",
        vanish: "ovs-vsctl clear bridge br-ex sflow",
    },
    Against {
        at: At::Port("v1"),
        reason: "policing",
        words: "ingress_policing_rate=900000",
        appear: "ovs-vsctl set interface v1 ingress_policing_rate=900000",
        vanish: "ovs-vsctl set interface v1 ingress_policing_rate=0",
    },
    Against {
        at: At::Port("v1"),
        reason: "qos",
        words: "linux-htb",
        appear: "ovs-vsctl -- --id=@q create qos type=linux-htb other-config:max-rate=900000000 -- \
                 set port v1 qos=@q",
        vanish: "ovs-vsctl clear port v1 qos",
    },
];

struct Gate {
    daemon: Loader,
    lab: Lab,
}

impl Gate {
    fn open(encap: Encap, options: &str, containers: &[u8]) -> Result<Self> {
        let lab = Lab::build_ovs(encap, options, containers)?;
        until_reached(lab.container(0), lab.container(1));
        let daemon = Loader::start(lab.host(0))?;
        Ok(Self { daemon, lab })
    }

    /// Runs a command of Open vSwitch on the first host.
    fn run(&self, command: &str) -> Result<()> {
        let ovs = self.lab.host(0).ovs().context("a host with Open vSwitch")?;
        let mut words = command.split_whitespace();
        let program = words.next().context("no command")?;
        ovs.run(program, &words.collect::<Vec<_>>()).map(|_| ())
    }

    /// Streams both ways between the first containers, once they are fast.
    fn streams(&self) -> Result<BothWays> {
        let streams = BothWays::paced(self.lab.container(0), self.lab.container(1), RATE)?;
        streams.is_fast(&self.daemon, LIMIT);
        Ok(streams)
    }

    /// Under streams both ways the bypass stops within a second and returns, while the packets go on.
    fn stops(&self, against: &Against) -> Result<()> {
        let Against { at, reason, words, .. } = *against;
        fact(&format!("{reason}: {words}"), || {
            let streams = self.streams()?;
            ensure!(!has(&self.daemon, at, reason), "{reason} before its time");
            self.run(against.appear)?;
            wait_until(SECOND, &format!("{reason} at {at:?}: {words}"), || {
                detail(&self.daemon, at, reason)?.contains(words).then_some(())
            });
            // What was on its way.
            streams.goes_on(1);
            let before = self.daemon.fast_packets()?;
            streams.goes_on(u64::from(RATE) / 2);
            let meanwhile = self.daemon.fast_packets()? - before;
            assert_eq!((meanwhile.sent, meanwhile.received), (0, 0), "{meanwhile:?}");

            self.run(against.vanish)?;
            streams.is_fast(&self.daemon, SECOND);
            assert!(!has(&self.daemon, at, reason), "{reason} after its time");
            // Setting policing or QoS up costs packets of its own; a stream that is held up, many.
            for report in streams.stop()? {
                assert_eq!(report.duplicated, 0, "{report:?}");
                ensure!(report.lost <= u64::from(RATE) / 5, "{report:?}");
            }
            Ok(())
        })
    }

    /// What drops the first container's packets drops those that are fast within a second.
    fn drops(&self, at: At<'_>, reason: &str, appear: &str, vanish: &str) -> Result<()> {
        let streams = self.streams()?;
        self.run(appear)?;
        let stopped = || -> Result<bool> {
            let ((before, _), sent) = (streams.arrived(), self.sent()?);
            wait_until(SECOND, "packets from the container", || {
                self.sent().is_ok_and(|now| now >= sent + 20).then_some(())
            });
            Ok(streams.arrived().0 == before)
        };
        wait_until(SECOND, "nothing gets through", || {
            stopped().unwrap_or_else(|error| panic!("{error:#}")).then_some(())
        });
        ensure!(!echo(self.lab.container(0), self.lab.container(1)), "an echo gets through");
        wait_until(SECOND, reason, || has(&self.daemon, at, reason).then_some(()));
        self.run(vanish)?;
        streams.is_fast(&self.daemon, SECOND);
        streams.stop().map(|_| ())
    }

    /// Packets that the first container has sent.
    fn sent(&self) -> Result<u64> {
        Ok(counters::link(self.lab.host(0), "v1")?.rx_packets)
    }
}

#[test]
fn what_the_fast_path_lacks_stops_it_for_as_long_as_it_is_there() -> Result<()> {
    let gate = Gate::open(Encap::Gre, "options:key=42", &[2, 1])?;
    let rule = format!("br-ex priority=9,dl_src={}", gate.lab.container(0).mac());
    fact("a rule drops", || {
        let add = format!("ovs-ofctl add-flow {rule},actions=drop");
        gate.drops(At::Bridge, "ovs_flows", &add, &format!("ovs-ofctl --strict del-flows {rule}"))
    })?;
    fact("a port receives nothing", || {
        let [no_receive, receive] =
            ["no-receive", "receive"].map(|word| format!("ovs-ofctl mod-port br-ex v1 {word}"));
        gate.drops(At::Port("v1"), "ovs_port_config", &no_receive, &receive)
    })?;
    BESIDE.iter().try_for_each(|against| gate.stops(against))
}
