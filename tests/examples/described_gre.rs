//! A host whose programs are told of a GRE tunnel that its kernel has no device for: for the
//! benchmark on kernels without gretap. There is nothing behind the fast path, so stations and
//! neighbours have to be known to both ends.
//!
//! Runs in the host's network namespace, attaches the programs, prints a line and stays until its
//! standard input ends.

use std::{
    env,
    io::{self, Read as _},
    net::Ipv4Addr,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData},
    programs::{SchedClassifier, TcAttachType},
};
use nix::net::if_::if_nametoindex;
use ovs_ebpf_common::{
    abi::{
        Control, FdbFlags, FdbKey, FdbValue, PortValue, Program, TunnelFlags, TunnelIndexKey,
        TunnelIndexValue, TunnelKind, TunnelPath, TunnelValue,
    },
    wire::outer::{self, Outer},
};
use ovs_ebpf_tests::lab::KEY;
use ovs_loader::datapath::{self, OBJECT};

/// The bridge's number: no device is behind it.
const BRIDGE: u32 = 9;
/// The id of the only tunnel.
const TUNNEL: u32 = 1;
const UPLINK: &str = "u0";
const UPLINK_MTU: u32 = 1500;
const KIND: TunnelKind = TunnelKind::GreKeyIpv4;

/// What the arguments say.
struct Described {
    /// The name of the container's port, and the container's MAC.
    port: String,
    own: [u8; 6],
    /// The other container's MAC.
    other: [u8; 6],
    local: Ipv4Addr,
    remote: Ipv4Addr,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [port, own, other, local, remote] = &arguments[..] else {
        bail!("usage: described_gre PORT MAC REMOTE_MAC LOCAL REMOTE");
    };
    let described = Described {
        port: port.clone(),
        own: mac(own)?,
        other: mac(other)?,
        local: local.parse().context("the local address")?,
        remote: remote.parse().context("the remote address")?,
    };
    let _attached = attach(&described)?;
    println!("attached");
    io::stdin().read_to_end(&mut Vec::new()).context("standard input")?;
    Ok(())
}

fn attach(described: &Described) -> Result<Ebpf> {
    let (port, uplink) = (&*described.port, if_nametoindex(UPLINK).context(UPLINK)?);
    let port_index = if_nametoindex(port).with_context(|| port.to_owned())?;
    let mut ebpf = EbpfLoader::new()
        .override_global("DECAP_L3", &u8::from(datapath::decap_l3()?), true)
        .load(OBJECT)
        .context("the BPF object does not load")?;

    let mut control: Array<MapData, Control> = map(&mut ebpf, "control")?;
    control.set(0, Control { lease_deadline: u64::MAX, ..Control::default() }, 0)?;
    let mut ports: HashMap<MapData, u32, PortValue> = map(&mut ebpf, "ports")?;
    ports.insert(port_index, PortValue { bridge: BRIDGE, ..PortValue::default() }, 0)?;
    let mut fdb: HashMap<MapData, FdbKey, FdbValue> = map(&mut ebpf, "fdb")?;
    let at_port = FdbValue {
        target: port_index,
        flags: FdbFlags::PEER,
        mtu: UPLINK_MTU,
        ..FdbValue::default()
    };
    let behind_tunnel = FdbValue { target: TUNNEL, flags: FdbFlags::TUNNEL, ..FdbValue::default() };
    for (mac, value) in [(described.own, at_port), (described.other, behind_tunnel)] {
        fdb.insert(FdbKey { bridge: BRIDGE, vlan: 0, mac }, value, 0)?;
    }
    let mut tunnels: Array<MapData, TunnelValue> = map(&mut ebpf, "tunnels")?;
    tunnels.set(TUNNEL, tunnel(described, uplink), 0)?;
    let mut index: HashMap<MapData, TunnelIndexKey, TunnelIndexValue> =
        map(&mut ebpf, "tunnel_index")?;
    let key = TunnelIndexKey {
        remote: described.remote.octets(),
        local: described.local.octets(),
        key: KEY.to_be_bytes(),
        kind: KIND as u8,
        ..TunnelIndexKey::default()
    };
    let value =
        TunnelIndexValue { tunnel: TUNNEL, bridge: BRIDGE, uplink, ..TunnelIndexValue::default() };
    index.insert(key, value, 0)?;

    for (program, device) in [(Program::PortIngress, port), (Program::UplinkIngress, UPLINK)] {
        let name = program.name();
        let classifier = ebpf.program_mut(name).with_context(|| name.to_owned())?;
        let classifier: &mut SchedClassifier = classifier.try_into()?;
        classifier.load().with_context(|| format!("the kernel refuses {name}"))?;
        classifier
            .attach(device, TcAttachType::Ingress)
            .with_context(|| format!("cannot attach {name} to {device}"))?;
    }
    Ok(ebpf)
}

/// The tunnel's sending end. The kernel writes the next hop's MACs.
fn tunnel(described: &Described, uplink: u32) -> TunnelValue {
    let (header, checksum_seed) = outer::template(
        KIND,
        &Outer {
            destination_mac: [0; 6],
            source_mac: [0; 6],
            local: described.local.into(),
            remote: described.remote.into(),
            key: KEY,
            dst_port: 0,
            df: true,
            flow_label: 0,
        },
    );
    let mut next_hop = [0; 16];
    next_hop[..4].copy_from_slice(&described.remote.octets());
    let path = TunnelPath {
        header,
        checksum_seed,
        uplink,
        mtu: UPLINK_MTU - KIND.header_len() as u32,
        kind: KIND as u8,
        next_hop,
        next_hop_family: libc::AF_INET as u32,
        ..TunnelPath::default()
    };
    TunnelValue {
        flags: TunnelFlags::READY | TunnelFlags::TOS_INHERIT,
        ttl: 64,
        paths: [path, TunnelPath::default()],
        ..TunnelValue::default()
    }
}

fn map<T>(ebpf: &mut Ebpf, name: &str) -> Result<T>
where
    T: TryFrom<aya::maps::Map>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let map = ebpf.take_map(name).with_context(|| format!("the object has no map {name}"))?;
    T::try_from(map).with_context(|| format!("map {name}"))
}

/// Reads `02:00:00:00:01:01`.
fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .with_context(|| format!("{text} is no MAC"))?;
    bytes.try_into().ok().with_context(|| format!("{text} is no MAC"))
}
