//! Tunnels with each of their options, changed live: what the fast path puts on the wire is, byte by byte,
//! what the bridge alone does, and all traffic passes.

use anyhow::{Result, bail, ensure};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, Counts, count, share},
    lab::{Capture, Encap, Host, Lab},
    why::{At, has},
};

use crate::support::{eventually, exchange, fact, peer, until_reached};
use crate::wire::{self, DF, ETHERNET, Flow, VLAN, in_a_vlan};

/// Congestion experienced (RFC 3168), and the field that says so.
const CE: u8 = 3;
/// The TOS bytes of the packets: DSCPs, with each ECN field.
const TOS: [u8; 6] = [0, 1, 0xb8, 0xb8 | 1, 0x48 | 2, 0x28 | CE];

/// Options of a pair of tunnels.
struct Row {
    /// Of the tunnel on either host, as whoever makes it wants them.
    options: [&'static str; 2],
    /// For which reason the fast path leaves such tunnels to the bridge.
    slow: Option<&'static str>,
}

const fn fast(options: &'static str) -> Row {
    Row { options: [options; 2], slow: None }
}

const fn each(first: &'static str, second: &'static str) -> Row {
    Row { options: [first, second], slow: None }
}

const fn slow(options: &'static str, reason: &'static str) -> Row {
    Row { options: [options; 2], slow: Some(reason) }
}

/// Another address of the first host's.
const SECOND_ADDRESS: &str = "192.0.2.101";

const OVS_GRE: &[Row] = &[
    fast("key=42"),
    fast("key=4294967295,tos=0x48,ttl=9"),
    fast("key=42,tos=inherit,ttl=inherit"),
    fast("key=42,df_default=false"),
    fast(""),
    each("in_key=1,out_key=2", "in_key=2,out_key=1"),
    each("out_key=5", "in_key=5"),
    each("key=42,local_ip=192.0.2.101", "key=42,remote_ip=192.0.2.101"),
    slow("key=42,seq=true", "tunnel_option"),
    slow("key=42,egress_pkt_mark=7", "tunnel_option"),
];

const OVS_VXLAN: &[Row] = &[
    fast("key=42"),
    fast("key=16777215,tos=0x48,ttl=9"),
    fast("key=42,tos=inherit,ttl=inherit,dst_port=8472"),
    fast("key=42,df_default=false"),
    fast(""),
    each("in_key=1,out_key=2", "in_key=2,out_key=1"),
    each("key=42,local_ip=192.0.2.101", "key=42,remote_ip=192.0.2.101"),
    slow("key=42,exts=gbp", "tunnel_gbp"),
    slow("key=42,egress_pkt_mark=7", "tunnel_option"),
];

const GRETAP: &[Row] = &[
    fast("key 42 ttl 9 tos 0x48"),
    fast("tos inherit ttl inherit"),
    fast("key 4294967295 tos 0x4a nopmtudisc ignore-df"),
    each("ikey 1 okey 2", "ikey 2 okey 1"),
    each("okey 5", "ikey 5"),
    slow("key 42 nopmtudisc", "tunnel_option"),
    slow("key 42 csum", "tunnel_checksum"),
    slow("key 42 seq", "tunnel_option"),
];

/// The port of the tunnel to the other host.
fn tunnel(encap: Encap, host: usize) -> &'static str {
    match encap {
        Encap::Gre => ["gre-2", "gre-1"][host],
        Encap::Vxlan => ["vxlan-2", "vxlan-1"][host],
    }
}

/// Sets the options of Open vSwitch's tunnels.
fn set_ovs(lab: &Lab, encap: Encap, row: &Row) -> Result<()> {
    for (at, (host, options)) in lab.hosts().iter().zip(row.options).enumerate() {
        let remote = format!("remote_ip={}", lab.host(1 - at).underlay());
        let all = match options {
            "" => remote,
            _ if options.contains("remote_ip=") => options.to_owned(),
            _ => format!("{remote},{options}"),
        };
        let options = format!("options={{{all}}}");
        host.vsctl(&["set", "interface", tunnel(encap, at), &options])?;
        takes_them(host)?;
    }
    Ok(())
}

/// What ovs-vswitchd could not do is in the database and nowhere else.
fn takes_them(host: &Host) -> Result<()> {
    let errors = host.vsctl(&["--columns=name,error", "find", "interface", "error!=[]"])?;
    ensure!(errors.is_empty(), "Open vSwitch in {} says:\n{errors}", host.name());
    Ok(())
}

/// Makes gretap tunnels anew.
fn set_gretap(lab: &Lab, row: &Row) -> Result<()> {
    for (at, (host, options)) in lab.hosts().iter().zip(row.options).enumerate() {
        let (local, remote) = (host.underlay(), lab.host(1 - at).underlay());
        let device = tunnel(Encap::Gre, at);
        host.ip(&format!(
            "link del {device}\n\
             link add {device} type gretap local {local} remote {remote} {options}\n\
             link set {device} master br-ex up\n"
        ))?;
        carry_the_vlan(host, device);
    }
    Ok(())
}

/// Has a port of a bridge that looks at tags carry the VLAN of tagged flows, with its tag.
fn carry_the_vlan(host: &Host, port: &str) {
    host.exec(&["bridge", "vlan", "add", "dev", port, "vid", &VLAN.to_string()]);
}

/// Every flow's packets with each of these TOS bytes.
fn frames(lab: &Lab, flows: &[Flow], tos: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut capture = Capture::start(lab.host(0), "u0")?;
    let packets = flows.iter().flat_map(|flow| tos.iter().map(move |tos| (flow, *tos)));
    packets.map(|(flow, tos)| flow.on_the_wire(&mut capture, tos)).collect()
}

/// Compares what the bridge alone has sent with what the fast path does.
fn are_the_same(flows: &[Flow], alone: &[Vec<u8>], fast: &[Vec<u8>]) -> Result<()> {
    let packets = flows.iter().flat_map(|flow| TOS.map(|tos| (flow, tos)));
    for (((flow, tos), alone), fast) in packets.zip(alone).zip(fast) {
        let mut alone = flow.comparable(alone);
        if tos & CE == CE && !is_tagged_within_gre(&alone) {
            // The one field in which they differ: docs/decisions/0003-ecn-on-encapsulation.md
            alone[ETHERNET + 1] |= CE;
        }
        let fast = flow.comparable(fast);
        let at = alone.iter().zip(&fast).position(|(alone, fast)| alone != fast);
        if at.is_some() || alone.len() != fast.len() {
            let name = &flow.name;
            bail!("{name}, TOS {tos:#04x}: byte {at:?} of\n{fast:02x?}, alone\n{alone:02x?}");
        }
    }
    Ok(())
}

fn is_tagged_within_gre(frame: &[u8]) -> bool {
    const GRE: u8 = 47;
    let outer = wire::outer_len(frame).expect("a tunnel's");
    frame[ETHERNET + 9] == GRE && frame[outer + 12..][..2] == [0x81, 0x00]
}

/// Goes through the rows, without the daemons and with them. Gives the hosts as they are then.
fn are_on_the_wire_as_alone(
    lab: Lab,
    encap: Encap,
    rows: &[Row],
    set: impl Fn(&Lab, &Row) -> Result<()>,
    flows: &[Flow],
) -> Result<Accelerated> {
    let mut alone = Vec::new();
    for row in rows {
        fact(&format!("alone: {:?}", row.options), || {
            set(&lab, row)?;
            until_reached(lab.container(0), lab.container(1));
            alone.push(frames(&lab, flows, &TOS)?);
            Ok(())
        })?;
    }
    let pair = Accelerated::start_on(lab, &[0, 1])?;
    for (row, alone) in rows.iter().zip(alone) {
        fact(&format!("{:?}", row.options), || {
            set(&pair.lab, row)?;
            let (one, other) = (pair.lab.container(0), pair.lab.container(1));
            if row.slow.is_none() {
                pair.meet(one, other)?;
            } else {
                until_reached(one, other);
            }
            eventually(|| {
                let mut sent = Vec::new();
                // Stations prove themselves by the bridge with their first packets.
                frames(&pair.lab, flows, &[0])?;
                let counted = pair.counted(|| {
                    sent = frames(&pair.lab, flows, &TOS)?;
                    Ok(())
                })?;
                let fast = count(&counted, "sent") + count(&counted, "received");
                match row.slow {
                    None => {
                        ensure!(fast >= 2 * sent.len() as u64, "{counted:?}");
                        ensure!(are_all_fast(&counted), "{counted:?}");
                        are_the_same(flows, &alone, &sent)
                    }
                    Some(reason) => {
                        ensure!(fast == 0, "{counted:?}");
                        is_named(&pair, encap, reason)
                    }
                }
            })?;
            let counted = pair.counted(|| exchange(peer(one), peer(other)))?;
            let least = if row.slow.is_none() { 0.9 } else { 0.0 };
            ensure!(share(&counted) >= least, "{counted:?}");
            Ok(())
        })?;
    }
    Ok(pair)
}

/// Whether no datagram has passed the bridge. What neighbours ask meanwhile, of one or of all, may have, or have
/// been fast too.
fn are_all_fast(counted: &Counts) -> bool {
    counted.keys().all(|name| ["sent", "received", "not_ip", "multicast"].contains(&name.as_str()))
}

/// Whether both daemons say why they leave their tunnel alone.
fn is_named(pair: &Accelerated, encap: Encap, reason: &str) -> Result<()> {
    for (host, daemon) in pair.loaders.iter().enumerate() {
        ensure!(has(daemon, At::Tunnel(tunnel(encap, host)), reason), "{reason} is not said");
    }
    Ok(())
}

/// Datagrams between the first containers, both ways, with and without a tag.
fn flows(lab: &Lab) -> Result<Vec<Flow>> {
    let [one, other] = [0, 1].map(|host| peer(lab.container(host)));
    let [tagged, other_tagged] = in_a_vlan(lab)?;
    let ways = [(one, other), (other, one), (tagged, other_tagged), (other_tagged, tagged)];
    let flows = ways.into_iter().map(|(from, to)| wire::flows(from, to));
    Ok(flows.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn on_open_vswitch(encap: Encap, rows: &[Row]) -> Result<()> {
    let lab = Lab::build_ovs(encap, "", &[2, 2])?;
    lab.host(0).ip(&format!("addr add {SECOND_ADDRESS}/24 dev u0\n"))?;
    let flows = flows(&lab)?;
    let set = |lab: &Lab, row: &Row| set_ovs(lab, encap, row);
    let pair = are_on_the_wire_as_alone(lab, encap, rows, set, &flows)?;
    fact("several tunnels to one remote, by their keys", || several_tunnels(&pair, encap))
}

/// A second tunnel to the same remote, for the second containers: VLANs keep the two apart.
fn several_tunnels(pair: &Accelerated, encap: Encap) -> Result<()> {
    let kind = if encap == Encap::Gre { "gre" } else { "vxlan" };
    set_ovs(&pair.lab, encap, &fast("key=42"))?;
    for (at, host) in pair.lab.hosts().iter().enumerate() {
        let (tunnel, remote) = (tunnel(encap, at), pair.lab.host(1 - at).underlay());
        let commands = format!(
            "set port {tunnel} tag=5 -- set port v1 tag=5 -- set port v2 tag=7 -- \
             add-port br-ex second tag=7 -- set interface second type={kind} \
             options:remote_ip={remote} options:key=43 options:ttl=9 options:df_default=false"
        );
        host.vsctl(&commands.split_whitespace().collect::<Vec<_>>())?;
        takes_them(host)?;
    }
    for (container, key, ttl, df) in [(0, 42, 64, DF), (1, 43, 9, 0)] {
        let [one, other] = [0, 1].map(|host| pair.lab.host(host).container(container));
        pair.meet(one, other)?;
        let counted = pair.counted(|| exchange(peer(one), peer(other)))?;
        ensure!(share(&counted) >= 0.9, "key {key}: {counted:?}");
        let mut capture = Capture::start(pair.lab.host(0), "u0")?;
        let frame = Flow::open(one, other, other.ipv4().into())?.on_the_wire(&mut capture, 0)?;
        let outer = wire::outer_len(&frame).expect("a tunnel's");
        // A GRE key is the header's last word, a VNI the three bytes before its last.
        let has = match encap {
            Encap::Gre => frame[outer - 1],
            Encap::Vxlan => frame[outer - 2],
        };
        assert_eq!((has, frame[ETHERNET + 8], frame[ETHERNET + 6]), (key, ttl, df));
    }
    Ok(())
}

#[test]
fn the_options_of_open_vswitch_s_gre_are_on_the_wire_as_without_the_fast_path() -> Result<()> {
    on_open_vswitch(Encap::Gre, OVS_GRE)
}

#[test]
fn the_options_of_open_vswitch_s_vxlan_are_on_the_wire_as_without_the_fast_path() -> Result<()> {
    on_open_vswitch(Encap::Vxlan, OVS_VXLAN)
}

#[test]
fn the_options_of_gretap_are_on_the_wire_as_without_the_fast_path() -> Result<()> {
    let lab = Lab::build(Encap::Gre, &[1, 1])?;
    for host in lab.hosts() {
        host.ip("link set br-ex type bridge vlan_filtering 1\n")?;
        carry_the_vlan(host, host.container(0).port());
    }
    let flows = flows(&lab)?;
    are_on_the_wire_as_alone(lab, Encap::Gre, GRETAP, set_gretap, &flows).map(drop)
}
