//! What Open vSwitch does beside NORMAL forwarding stops the bypass, is named in Open vSwitch's words,
//! and keeps working; without it the bypass returns.
//!
//! The first host has the daemon.

use anyhow::{Context as _, Result, ensure};
use ovs_ebpf_tests::{
    lab::{
        Encap, FastPackets, Lab, Loader, counters,
        traffic::{BothWays, StreamReport},
        wait_until,
    },
    why::{At, detail, has},
};

use crate::support::{CHANCE, LIMIT, RATE, at_once, echo, fact, say, until_reached};

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

impl Against {
    /// What streams both ways lose by it without the daemon, there and back.
    fn losses_alone(&self, lab: &Lab) -> Result<[u64; 2]> {
        fact(&format!("alone: {}", self.words), || {
            let streams = BothWays::paced(lab.container(0), lab.container(1), RATE)?;
            streams.goes_on(u64::from(RATE) / 4);
            run(lab, self.appear)?;
            streams.goes_on(u64::from(RATE) / 2);
            run(lab, self.vanish)?;
            streams.goes_on(u64::from(RATE) / 2);
            Ok(streams.stop()?.map(|StreamReport { lost, .. }| lost))
        })
    }
}

/// Runs a command of Open vSwitch on the first host.
fn run(lab: &Lab, command: &str) -> Result<()> {
    let ovs = lab.host(0).ovs().context("a host with Open vSwitch")?;
    let mut words = command.split_whitespace();
    let program = words.next().context("no command")?;
    ovs.run(program, &words.collect::<Vec<_>>()).map(|_| ())
}

struct Gate {
    daemon: Loader,
    lab: Lab,
}

impl Gate {
    fn open(lab: Lab) -> Result<Self> {
        Ok(Self { daemon: Loader::start(lab.host(0))?, lab })
    }

    fn run(&self, command: &str) -> Result<()> {
        run(&self.lab, command)
    }

    /// Streams both ways between the first containers, once they are fast.
    fn streams(&self) -> Result<BothWays> {
        let streams = BothWays::paced(self.lab.container(0), self.lab.container(1), RATE)?;
        streams.is_fast(&self.daemon, LIMIT);
        Ok(streams)
    }

    /// Waits until the streams are fast again.
    fn returns(&self, after: &str) -> Result<()> {
        let before = self.daemon.fast_packets()?;
        at_once(&format!("the bypass is back after {after}"), || {
            let FastPackets { sent, received, .. } = self.daemon.fast_packets().ok()? - before;
            (sent > 0 && received > 0).then_some(())
        });
        Ok(())
    }

    /// Under streams both ways the bypass stops within a second and returns, while the packets go on: no
    /// more of them are lost than without the daemon.
    fn stops(&self, against: &Against, alone: [u64; 2]) -> Result<()> {
        let Against { at, reason, words, .. } = *against;
        fact(&format!("{reason}: {words}"), || {
            let streams = self.streams()?;
            ensure!(!has(&self.daemon, at, reason), "{reason} before its time");
            self.run(against.appear)?;
            at_once(&format!("{reason} at {at:?}: {words}"), || {
                detail(&self.daemon, at, reason)?.contains(words).then_some(())
            });
            // What was on its way.
            streams.goes_on(1);
            let before = self.daemon.fast_packets()?;
            streams.goes_on(u64::from(RATE) / 2);
            let meanwhile = self.daemon.fast_packets()? - before;
            assert_eq!((meanwhile.sent, meanwhile.received), (0, 0), "{meanwhile:?}");

            self.run(against.vanish)?;
            self.returns(words)?;
            assert!(!has(&self.daemon, at, reason), "{reason} after its time");
            streams.goes_on(u64::from(RATE) / 4);
            for (report, alone) in streams.stop()?.iter().zip(alone) {
                say(&format!("   lost {} of {}, alone {alone}", report.lost, report.sent));
                ensure!(report.duplicated == 0, "{report:?}");
                ensure!(report.lost <= alone + CHANCE, "{report:?}, alone {alone}");
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
            wait_until(LIMIT, "packets from the container", || {
                self.sent().is_ok_and(|now| now >= sent + 20).then_some(())
            });
            Ok(streams.arrived().0 == before)
        };
        at_once(&format!("nothing gets through: {appear}"), || {
            stopped().unwrap_or_else(|error| panic!("{error:#}")).then_some(())
        });
        ensure!(!echo(self.lab.container(0), self.lab.container(1)), "an echo gets through");
        at_once(reason, || has(&self.daemon, at, reason).then_some(()));
        self.run(vanish)?;
        self.returns(appear)?;
        streams.stop().map(|_| ())
    }

    /// Packets that the first container has sent.
    fn sent(&self) -> Result<u64> {
        Ok(counters::link(self.lab.host(0), "v1")?.rx_packets)
    }
}

#[test]
fn what_the_fast_path_lacks_stops_it_for_as_long_as_it_is_there() -> Result<()> {
    let lab = Lab::build_ovs(Encap::Gre, "options:key=42", &[2, 1])?;
    until_reached(lab.container(0), lab.container(1));
    let alone = BESIDE.iter().map(|against| against.losses_alone(&lab));
    let alone = alone.collect::<Result<Vec<_>>>()?;
    let gate = Gate::open(lab)?;
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
    BESIDE.iter().zip(alone).try_for_each(|(against, alone)| gate.stops(against, alone))
}
