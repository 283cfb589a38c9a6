//! Frames: the wire formats that the programs share with the loader, and the model of the programs,
//! which has its own. Neither may trip over any bytes, and both must read the same.
//!
//! The first byte of the input chooses the tables, the next the program and device, two more a
//! segment size; the rest is the frame.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use ovs_ebpf_common::{
    Reason,
    abi::{IndexKey, Program, TunnelKind},
    wire::{
        frame,
        outer::{self, CLASSIFY_LEN, CLASSIFY_LEN_IPV6},
        vlan,
    },
};
use ovs_ebpf_tests::{
    generate::{Device, Random, Scene},
    model::{Forwarded, Gso, Model, Received},
};

const DEVICES: [Device; 3] = [
    Device { ifindex: 10, mac: [0x02, 0, 0, 0, 0x02, 0x01] },
    Device { ifindex: 20, mac: [0x02, 0, 0, 0, 0x02, 0x02] },
    Device { ifindex: 30, mac: [0x02, 0, 0, 0, 0x01, 0x02] },
];

thread_local! {
    /// The tables of the input before and its first byte: most inputs have the same.
    static LAST: RefCell<Option<(u8, Model)>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    let [tables, hook, size @ ..] = bytes else { return };
    let Some((size, frame)) = size.split_first_chunk::<2>() else { return };
    let size = u32::from(u16::from_be_bytes(*size));
    let packet = Received {
        device: DEVICES[usize::from(hook >> 1) % DEVICES.len()].ifindex,
        for_host: hook & 0x80 == 0,
        tag: (hook & 0xe0 == 0x60).then_some([0x81, 0x00, *hook, 0x07]),
        gso: (size != 0).then_some(Gso { size, tunnelable: hook & 0x40 == 0 }),
        frame,
    };
    LAST.with_borrow_mut(|last| {
        let (_, model) = match last {
            Some(found) if found.0 == *tables => found,
            _ => last.insert((*tables, model(*tables))),
        };
        // A copy: what one input changes must not meet the next.
        let mut model = model.clone();
        if hook & 1 == 0 { port(&mut model, &packet) } else { uplink(&mut model, &packet) }
    });
});

fn model(seed: u8) -> Model {
    let mut tables = Scene::new(&mut Random::new(seed.into()), &DEVICES).tables;
    tables.control.lease_deadline = u64::MAX;
    Model::new(tables)
}

fn port(model: &mut Model, packet: &Received<'_>) {
    let outcome = model.run(Program::PortIngress, 1, packet);
    if packet.tag.is_none() {
        same_reading(packet.frame, outcome.as_ref().err().copied());
    }
    let Ok(Forwarded { frame, .. }) = outcome else { return };
    if frame != packet.frame {
        // What goes into a tunnel, the other end takes for a tunnel's, and takes whole; maybe with a tag
        // behind the MACs.
        let (macs, rest) = packet.frame.split_at(12);
        assert!(frame.ends_with(rest));
        let (kind, _) = read(&frame, &model.tables.control.vxlan_ports).expect("a tunnel's packet");
        let inner = &frame[kind.header_len()..];
        assert!(inner.starts_with(macs));
        assert!([0, vlan::LEN].contains(&(inner.len() - packet.frame.len())));
    }
}

fn uplink(model: &mut Model, packet: &Received<'_>) {
    let outcome = model.run(Program::UplinkIngress, 1, packet);
    if !packet.for_host || packet.tag.is_some() {
        assert_eq!(outcome, Err(Reason::NotTunnel));
        return;
    }
    match read(packet.frame, &model.tables.control.vxlan_ports) {
        Err(reason) => assert_eq!(outcome, Err(reason)),
        Ok((kind, key)) => {
            let inner = &packet.frame[kind.header_len()..];
            let tagged = matches!(inner.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
            let tag_len = if tagged { vlan::LEN } else { 0 };
            // The frame within is read before its tunnel is looked up.
            if inner.len() < tag_len + frame::MIN_LEN {
                assert_eq!(outcome, Err(Reason::Truncated));
                return;
            }
            let known = match &key {
                IndexKey::Ipv4(key) => model.tables.tunnel_index.get(key),
                IndexKey::Ipv6(key) => model.tables.tunnel_index6.get(key),
            };
            match known.map(|tunnel| tunnel.uplink == packet.device) {
                None => assert_eq!(outcome, Err(Reason::TunnelUnknown)),
                Some(false) => assert_eq!(outcome, Err(Reason::WrongUplink)),
                Some(true) => {
                    if !tagged {
                        same_reading(inner, outcome.as_ref().err().copied());
                    }
                    if let Ok(Forwarded { frame, .. }) = outcome {
                        let inner = [&inner[..12], &inner[12 + tag_len..]].concat();
                        // A congestion mark changes the ECN field, and IPv4's checksum with it.
                        let same = |(at, _): &(usize, _)| ![14, 15, 24, 25].contains(at);
                        let kept = |frame: &[u8]| -> Vec<(usize, u8)> {
                            frame.iter().copied().enumerate().filter(same).collect()
                        };
                        assert_eq!(kept(&frame), kept(&inner));
                    }
                }
            }
        }
    }
}

/// The outer headers as the programs read them.
fn read(frame: &[u8], vxlan_ports: &[u16; 4]) -> Result<(TunnelKind, IndexKey), Reason> {
    /// As many of the frame's bytes as asked for.
    fn start<const N: usize>(frame: &[u8]) -> Result<&[u8; N], Reason> {
        frame.first_chunk().ok_or(Reason::Truncated)
    }
    let not_tunnel = |_| Reason::NotTunnel;
    let first = start::<CLASSIFY_LEN>(frame).map_err(not_tunnel)?;
    let kind = if outer::is_ipv6(first) {
        let first = start::<CLASSIFY_LEN_IPV6>(frame).map_err(not_tunnel)?;
        outer::classify_ipv6(first, vxlan_ports)?
    } else {
        outer::classify(first, vxlan_ports)?
    };
    let len = frame.len() as u32;
    let key = match kind {
        TunnelKind::VxlanIpv4 => IndexKey::Ipv4(outer::accept_vxlan(start(frame)?, len)?.key),
        TunnelKind::GreIpv4 | TunnelKind::GreKeyIpv4 => {
            IndexKey::Ipv4(outer::accept_gre(kind, start(frame)?, len)?.key)
        }
        TunnelKind::VxlanIpv6 => IndexKey::Ipv6(outer::accept_vxlan_ipv6(start(frame)?, len)?.key),
        TunnelKind::GreIpv6 | TunnelKind::GreKeyIpv6 => {
            IndexKey::Ipv6(outer::accept_gre_ipv6(kind, start(frame)?, len)?.key)
        }
    };
    Ok((kind, key))
}

/// The overlay frame as the programs read it leads to the same as the model's reading did.
fn same_reading(frame: &[u8], left: Option<Reason>) {
    const UNREADABLE: [Reason; 4] =
        [Reason::Truncated, Reason::Multicast, Reason::VlanStacked, Reason::NotIp];
    let read = match frame.first_chunk() {
        Some(head) => frame::parse(head, frame.len() as u32).map(drop),
        None => Err(Reason::Truncated),
    };
    match left {
        Some(reason) if UNREADABLE.contains(&reason) => assert_eq!(read, Err(reason)),
        // Whence and where to are looked up first, whatever the frame carries.
        Some(_) => {}
        None => assert_eq!(read, Ok(())),
    }
}
