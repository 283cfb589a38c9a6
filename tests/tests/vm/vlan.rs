//! Containers of two VLANs on two hosts, whose bridge is Open vSwitch's or the kernel's: access, trunk and
//! native ports, and tunnels that are trunks or of one VLAN.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, share},
    lab::{Container, Encap, Host, Lab, Loader, Namespace, traffic, wait_until},
    why::{At, elements, has},
};

use crate::support::{INTERVAL, LIMIT, Peer, datagrams_are_fast, exchange, fact};

/// Who forwards, over which tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ovs(Encap),
    Linux,
}

/// What VLANs a port is in.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Access(u16),
    /// 10 and 20 with tags, and nothing without.
    Trunk,
    /// 20 without tags, 10 with.
    Native,
}

impl Kind {
    fn lab(self) -> Result<Lab> {
        let lab = match self {
            Self::Ovs(encap) => Lab::build_ovs(encap, "options:key=42", &[2, 2])?,
            Self::Linux => Lab::build(Encap::Vxlan, &[2, 2])?,
        };
        for host in lab.hosts() {
            // Room for a tag beside the outer headers.
            host.ip("link set u0 mtu 1600\n")?;
            if self == Self::Linux {
                host.ip("link set br-ex type bridge vlan_filtering 1\n")?;
            }
        }
        Ok(lab)
    }

    /// The port of the tunnel to the other host.
    fn tunnel(self, host: usize) -> String {
        match self {
            Self::Ovs(Encap::Vxlan) => format!("vxlan-{}", 2 - host),
            Self::Ovs(Encap::Gre) => format!("gre-{}", 2 - host),
            Self::Linux => "vxlan0".to_owned(),
        }
    }

    fn set(self, host: &Host, port: &str, mode: Mode) -> Result<()> {
        match self {
            Self::Ovs(_) => {
                let words = match mode {
                    Mode::Access(vlan) => format!("tag={vlan}"),
                    Mode::Trunk => "trunks=10,20".to_owned(),
                    Mode::Native => "vlan_mode=native-untagged tag=20 trunks=10".to_owned(),
                };
                let clear = ["set", "port", port, "tag=[]", "trunks=[]", "vlan_mode=[]", "--"];
                let words: Vec<&str> = words.split(' ').collect();
                host.vsctl(&[&clear[..], &["set", "port", port], &words].concat()).map(drop)
            }
            Self::Linux => {
                let words: &[&str] = match mode {
                    Mode::Access(10) => &["10 pvid untagged"],
                    Mode::Access(_) => &["20 pvid untagged"],
                    Mode::Trunk => &["10", "20"],
                    Mode::Native => &["20 pvid untagged", "10"],
                };
                host.exec(&["bridge", "vlan", "del", "dev", port, "vid", "1-20"]);
                for words in words {
                    let words: Vec<&str> = words.split(' ').collect();
                    host.exec(
                        &[&["bridge", "vlan", "add", "dev", port, "vid"], &words[..]].concat(),
                    );
                }
                Ok(())
            }
        }
    }
}

/// One container as seen in a VLAN.
#[derive(Clone, Copy)]
struct Station<'a> {
    container: &'a Container,
    vlan: u16,
    addresses: [IpAddr; 2],
}

impl<'a> Station<'a> {
    fn of(container: &'a Container, vlan: u16) -> Self {
        Self { container, vlan, addresses: [container.ipv4().into(), container.ipv6().into()] }
    }

    /// With other addresses, in VLAN 10 too.
    fn second(container: &'a Container, number: u8) -> Result<Self> {
        let addresses = [format!("10.0.10.{number}").parse()?, format!("fd10::{number}").parse()?];
        Ok(Self { container, vlan: 10, addresses })
    }

    fn peer(&self) -> Peer<'_> {
        (self.container, self.addresses)
    }

    fn reaches(&self, other: &Self) -> bool {
        let ping = traffic::ping(self.container, other.addresses[0], 56, 1, INTERVAL);
        ping.is_ok_and(|ping| ping.received == 1)
    }

    /// Whether a daemon has it in its maps, in this VLAN.
    fn is_fast(&self, loader: &Loader) -> bool {
        let Ok(fdb) = loader.fdb() else { return false };
        elements(&fdb["entries"]).any(|entry| {
            entry["mac"] == self.container.mac()
                && entry["vlan"] == self.vlan
                && entry["accelerated"] == true
        })
    }
}

/// Gives a container's address to its VLAN device.
fn put_into_vlan(container: &Namespace, vlan: u16, addresses: [IpAddr; 2]) -> Result<()> {
    let [ipv4, ipv6] = addresses;
    // What the device says of itself would have no tag.
    container.try_exec(&["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1"])?;
    container.ip(&format!(
        "link add link eth0 name eth0.{vlan} up type vlan id {vlan}\n\
         addr add {ipv4}/24 dev eth0.{vlan}\naddr add {ipv6}/64 dev eth0.{vlan} nodad\n"
    ))
}

/// Waits until two stations have met and the first `programs` daemons, which see each of their packets, have
/// them; then sees that all between them is fast.
fn is_fast(
    pair: &Accelerated,
    one: &Station<'_>,
    other: &Station<'_>,
    programs: usize,
) -> Result<()> {
    wait_until(LIMIT, "an echo", || one.reaches(other).then_some(()));
    for loader in &pair.loaders[..programs] {
        wait_until(LIMIT, "both fast", || {
            (one.is_fast(loader) && other.is_fast(loader)).then_some(())
        });
    }
    let counted = pair.counted(|| exchange(one.peer(), other.peer()))?;
    ensure!(share(&counted) >= 0.9, "{counted:?}");
    for (from, to) in [(one, other), (other, one)] {
        for address in to.addresses {
            let to = (&**to.container, address);
            // What the other end's tunnel device says of itself.
            datagrams_are_fast(pair, from.container, to, programs, "vlan_untagged")?;
        }
    }
    Ok(())
}

/// How many programs see a packet between the two hosts: those of the hosts with a daemon.
fn across(pair: &Accelerated) -> usize {
    pair.loaders.len()
}

fn vlans_stay_apart_and_are_fast(kind: Kind) -> Result<()> {
    let mut pair = Accelerated { loaders: Vec::new(), lab: kind.lab()? };
    let hosts = [pair.lab.host(0), pair.lab.host(1)];
    for (number, host) in hosts.into_iter().enumerate() {
        kind.set(host, host.container(0).port(), Mode::Access(10))?;
        let mode = if number == 0 { Mode::Trunk } else { Mode::Native };
        kind.set(host, host.container(1).port(), mode)?;
        kind.set(host, &kind.tunnel(number), Mode::Trunk)?;
    }
    let [first, second] = hosts.map(|host| Station::of(host.container(0), 10));
    let [tagged, native] = hosts.map(|host| Station::of(host.container(1), 20));
    // Neighbours on the first host, in VLAN 10: one without a tag, one with.
    let plain = Station::second(first.container, 1)?;
    let beside = Station::second(tagged.container, 2)?;
    tagged.container.ip("addr flush dev eth0\n")?;
    put_into_vlan(tagged.container, 20, tagged.addresses)?;
    put_into_vlan(beside.container, 10, beside.addresses)?;
    let [ipv4, ipv6] = plain.addresses;
    let addresses = format!("addr add {ipv4}/24 dev eth0\naddr add {ipv6}/64 dev eth0 nodad\n");
    plain.container.ip(&addresses)?;
    let apart = |what| {
        fact(what, || {
            for (one, other) in [(&first, &native), (&second, &tagged), (&first, &tagged)] {
                ensure!(!one.reaches(other) && !other.reaches(one), "VLANs 10 and 20 meet");
            }
            Ok(())
        })
    };

    fact("the bridge alone: if this fails, the lab is wrong", || {
        for (one, other) in [(&first, &second), (&tagged, &native), (&plain, &beside)] {
            wait_until(LIMIT, "an echo", || one.reaches(other).then_some(()));
            exchange(one.peer(), other.peer())?;
        }
        Ok(())
    })?;
    for (host, what) in [(hosts[0], "the first end"), (hosts[1], "both ends")] {
        pair.loaders.push(Loader::start(host)?);
        eprintln!("-- {what}");
        fact("one VLAN, without tags at either end", || {
            is_fast(&pair, &first, &second, across(&pair))
        })?;
        fact("another, with tags at one end", || is_fast(&pair, &tagged, &native, across(&pair)))?;
        apart("and never between them")?;
    }
    fact("a port without and one with tags on one host", || is_fast(&pair, &plain, &beside, 1))?;

    for (number, host) in hosts.into_iter().enumerate() {
        kind.set(host, &kind.tunnel(number), Mode::Access(10))?;
    }
    fact("a tunnel of one VLAN carries that", || is_fast(&pair, &first, &second, across(&pair)))?;
    fact("and no other", || {
        ensure!(!tagged.reaches(&native) && !native.reaches(&tagged), "VLAN 20 passes");
        Ok(())
    })?;
    kind.set(hosts[0], first.container.port(), Mode::Access(20))?;
    fact("a container that is put into another VLAN leaves its own", || {
        wait_until(Duration::from_secs(1), "apart", || (!first.reaches(&second)).then_some(()));
        let moved = Station { vlan: 20, ..first };
        is_fast(&pair, &moved, &tagged, 1)
    })?;
    fact("what the fast path does not do is said", || said(kind, &pair))
}

/// Changes what stands against the bypass, and looks for it in `status`.
fn said(kind: Kind, pair: &Accelerated) -> Result<()> {
    let (host, loader) = (pair.lab.host(0), &pair.loaders[0]);
    let port = host.container(0).port();
    let held = "bridge vlan set dev v1 vid 20 state blocking";
    let facts: &[(&str, At<'_>, &str)] = match kind {
        Kind::Ovs(_) => &[("set port v1 vlan_mode=dot1q-tunnel", At::Port(port), "port_vlan")],
        Kind::Linux => &[
            (held, At::Port(port), "port_vlan"),
            ("bridge link set dev v1 vlan_tunnel on", At::Port(port), "port_vlan"),
            ("ip link set br-ex type bridge vlan_protocol 802.1ad", At::Bridge, "vlan_filtering"),
        ],
    };
    for (command, at, reason) in facts {
        ensure!(!has(loader, *at, reason), "{reason} before {command}");
        let words: Vec<&str> = command.split(' ').collect();
        match kind {
            Kind::Ovs(_) => host.vsctl(&words)?,
            Kind::Linux => host.exec(&words),
        };
        wait_until(LIMIT, reason, || has(loader, *at, reason).then_some(()));
        if *command == held {
            let free = held.replace("blocking", "forwarding");
            host.exec(&free.split(' ').collect::<Vec<_>>());
            wait_until(LIMIT, "forwarding again", || (!has(loader, *at, reason)).then_some(()));
        }
    }
    Ok(())
}

#[test]
fn vlans_on_open_vswitch_over_vxlan_stay_apart_and_are_fast() -> Result<()> {
    vlans_stay_apart_and_are_fast(Kind::Ovs(Encap::Vxlan))
}

#[test]
fn vlans_on_open_vswitch_over_gre_stay_apart_and_are_fast() -> Result<()> {
    vlans_stay_apart_and_are_fast(Kind::Ovs(Encap::Gre))
}

#[test]
fn vlans_on_a_linux_bridge_stay_apart_and_are_fast() -> Result<()> {
    vlans_stay_apart_and_are_fast(Kind::Linux)
}
