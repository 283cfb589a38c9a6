//! `uplink_xdp`: what it discards, and that it lets everything else pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ovs_ebpf_common::{
    Reason,
    abi::{GuardKey, GuardKind, SOURCE_CAPACITY, SourceCounters, UplinkValue},
};
use ovs_ebpf_tests::vectors::{self, Kind, Tunnel};

use crate::host::{DEVICES, Host, UPLINK};

/// An element of `guards` for a tunnel's traffic.
fn guard(tunnel: &Tunnel, address: IpAddr, kind: GuardKind, key: u32) -> GuardKey {
    GuardKey {
        address: match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        },
        key: key.to_be_bytes(),
        dst_port: tunnel.destination_port.unwrap_or(0).to_be_bytes(),
        protocol: if tunnel.kind == Kind::Vxlan { 17 } else { 47 },
        kind: kind as u8,
    }
}

/// Makes the tunnel's receiving end the only one that is known.
pub(crate) fn guard_receiving_end(host: &mut Host, tunnel: &Tunnel) {
    host.forget_guards();
    let key = tunnel.key.unwrap_or(0);
    for (address, kind, key) in [
        (tunnel.remote, GuardKind::Endpoint, 0),
        (tunnel.local, GuardKind::Remote, 0),
        (tunnel.local, GuardKind::Way, key),
    ] {
        host.guards.insert(guard(tunnel, address, kind, key), 1, 0).expect("guards");
    }
}

/// A host whose uplink has the filter, which knows of nothing yet.
pub(crate) fn filtering() -> Host {
    let mut host = Host::new();
    let mac = DEVICES.iter().find(|device| device.ifindex == UPLINK).expect("the uplink").mac;
    host.uplinks.insert(UPLINK, UplinkValue { mac, ..Default::default() }, 0).expect("uplinks");
    host
}

/// What becomes of the vector of this name, less its tunnel: see `tests/vectors/generate.py`.
fn expected(tunnel: &Tunnel, name: &str) -> Result<(), Reason> {
    let vxlan = tunnel.kind == Kind::Vxlan;
    Err(match name {
        "remote" | "remote_prefix" => Reason::UnknownRemote,
        "vni_less_1" | "vni_high" | "gre_no_key" | "gre_other_key" | "gre_key_0" => {
            Reason::WrongKey
        }
        "ip_checksum"
        | "total_length_more"
        | "payload_length_more"
        | "payload_length_zero"
        | "last_byte_lost"
        | "udp_length_more"
        | "no_vni_flag"
        | "gre_routing"
        | "truncated_inner_ethernet"
        | "truncated_vxlan_nothing" => Reason::Malformed,
        // Of GRE that is the inner frame's problem.
        "total_length_less" | "payload_length_less" | "truncated_tunnel_header" if vxlan => {
            Reason::Malformed
        }
        // Without a key that is too short to be judged.
        "truncated_inner_nothing" if tunnel.key.is_some() => Reason::Malformed,
        name if name.starts_with("flag_") || name.starts_with("reserved_byte_") => {
            Reason::Malformed
        }
        _ => return Ok(()),
    })
}

#[test]
fn each_thing_out_of_the_ordinary_meets_its_verdict() {
    let mut host = filtering();
    let mut seen = std::collections::BTreeMap::<_, usize>::new();
    for vector in vectors::decap() {
        guard_receiving_end(&mut host, &vector.tunnel);
        let labels = ["vxlan_42_", "gre_42_", "gre_", "vxlan6_42_", "gre6_42_", "gre6_"];
        let name = labels.iter().find_map(|label| vector.name.strip_prefix(label));
        let expected = expected(&vector.tunnel, name.expect("the tunnel's label"));
        let verdict = host.filter(UPLINK, &vector.outer);
        assert_eq!(verdict, expected, "{}: {}", vector.name, vector.description);
        *seen.entry(verdict).or_default() += 1;
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn what_a_tunnel_sends_passes() {
    let mut host = filtering();
    for vector in vectors::encap() {
        guard_receiving_end(&mut host, &vector.tunnel);
        assert_eq!(host.filter(UPLINK, &vector.outer), Ok(()), "{}", vector.name);
    }
}

#[test]
fn a_udp_length_of_zero_is_all_there_is_over_ipv6_and_nothing_over_ipv4() {
    let mut host = filtering();
    for vector in vectors::encap().into_iter().filter(|one| one.tunnel.kind == Kind::Vxlan) {
        guard_receiving_end(&mut host, &vector.tunnel);
        let ipv6 = vector.tunnel.remote.is_ipv6();
        let udp = if ipv6 { 54 } else { 34 };
        let mut frame = vector.outer.clone();
        frame[udp + 4..udp + 6].fill(0);
        let expected = if ipv6 { Ok(()) } else { Err(Reason::Malformed) };
        assert_eq!(host.filter(UPLINK, &frame), expected, "{}", vector.name);
    }
}

/// A frame from a source that is no remote, discarded as long as nothing speaks for it.
pub(crate) fn unwanted() -> (Tunnel, Vec<u8>) {
    let mut vectors = vectors::decap().into_iter();
    let vector = vectors.find(|vector| vector.name == "vxlan_42_remote").expect("in the file");
    (vector.tunnel, vector.outer)
}

#[test]
fn nothing_is_discarded_without_a_lease_or_on_another_device_or_at_another_endpoint() {
    let (tunnel, frame) = unwanted();
    let mut host = filtering();
    guard_receiving_end(&mut host, &tunnel);
    assert_eq!(host.filter(UPLINK, &frame), Err(Reason::UnknownRemote));
    host.set_lease(1);
    assert_eq!(host.filter(UPLINK, &frame), Ok(()));
    host.set_lease(u64::MAX);
    assert_eq!(host.filter(DEVICES[0].ifindex, &frame), Ok(()));
    let endpoint = guard(&tunnel, tunnel.remote, GuardKind::Endpoint, 0);
    for other in [
        GuardKey { dst_port: 8472u16.to_be_bytes(), ..endpoint },
        GuardKey { protocol: 47, ..endpoint },
        guard(&tunnel, Ipv4Addr::new(192, 0, 2, 77).into(), GuardKind::Endpoint, 0),
    ] {
        host.guards.remove(&endpoint).ok();
        host.guards.insert(other, 1, 0).expect("guards");
        assert_eq!(host.filter(UPLINK, &frame), Ok(()), "{other:?}");
    }
}

#[test]
fn a_frame_in_several_buffers_is_judged_by_its_first() {
    let (tunnel, frame) = unwanted();
    let mut host = filtering();
    guard_receiving_end(&mut host, &tunnel);
    // As a jumbo frame has it: the lengths agree with 9,014 bytes.
    let jumbo = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        frame.resize(9014, 0x5a);
        frame[16..18].copy_from_slice(&9000u16.to_be_bytes());
        frame[38..40].copy_from_slice(&8980u16.to_be_bytes());
        ovs_ebpf_tests::model::set_ipv4_checksum(&mut frame[14..34]);
        frame
    };
    assert_eq!(host.filter(UPLINK, &jumbo(&frame)), Err(Reason::UnknownRemote));
    let mut known = jumbo(&frame);
    let IpAddr::V4(local) = tunnel.local else { panic!("{} is IPv6", tunnel.local) };
    known[26..30].copy_from_slice(&local.octets());
    ovs_ebpf_tests::model::set_ipv4_checksum(&mut known[14..34]);
    assert_eq!(host.filter(UPLINK, &known), Ok(()));
    known.truncate(9013);
    assert_eq!(host.filter(UPLINK, &known), Err(Reason::Malformed));
}

#[test]
fn sources_are_counted_by_reason_and_never_fill_more_than_their_map() {
    let (tunnel, frame) = unwanted();
    let mut host = filtering();
    guard_receiving_end(&mut host, &tunnel);
    let from = |source: u32| {
        let mut frame = frame.clone();
        frame[26..30].copy_from_slice(&source.to_be_bytes());
        ovs_ebpf_tests::model::set_ipv4_checksum(&mut frame[14..34]);
        frame
    };
    let count = |host: &mut Host, frame: &[u8]| host.filter(UPLINK, frame).expect_err("discarded");
    let source = 0xc633_6401;
    for _ in 0..3 {
        assert_eq!(count(&mut host, &from(source)), Reason::UnknownRemote);
    }
    let mut malformed = from(source);
    malformed[42] = 0;
    assert_eq!(count(&mut host, &malformed), Reason::Malformed);
    let key: [u8; 16] = Ipv4Addr::from(source).to_ipv6_mapped().octets();
    let counted = host.sources.get(&key, 0).expect("known");
    assert_eq!(counted, SourceCounters { unknown_remote: 3, wrong_key: 0, malformed: 1 });

    for number in 0..3 * SOURCE_CAPACITY as u32 {
        count(&mut host, &from(0x0a00_0000 + number));
    }
    let known: Vec<_> = host.sources.keys().collect::<Result<_, _>>().expect("sources");
    assert!(known.len() <= SOURCE_CAPACITY, "{}", known.len());
    let last = from(0x0a00_0000 + 3 * SOURCE_CAPACITY as u32 - 1);
    let last = Ipv4Addr::from(u32::from_be_bytes([last[26], last[27], last[28], last[29]]));
    let last = last.to_ipv6_mapped().octets();
    assert!(known.contains(&last), "the last is there: {}", Ipv6Addr::from(last));
}
