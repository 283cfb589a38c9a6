//! What this host's kernel cannot be made to send, from bytes as the kernel lays them out
//! (`linux/if_link.h`, `linux/if_tunnel.h`, `linux/neighbour.h`).

mod fdb;

use std::net::IpAddr;

use netlink_packet_core::Parseable;
use netlink_packet_route::link::{InfoVxlan, LinkMessage};
use ovs_ebpf_common::Reason;

use super::links;
use super::tunnel::{self, Defaults};
use crate::bridge::model::{Device, Encap, FlowLabel, Port, Remote, Ttl, Tunnel, Why};

const DEFAULTS: Defaults =
    Defaults { ttl: 64, source_ports: (100, 200), flow_label: FlowLabel::Flow };

const IFLA_IFNAME: u16 = 3;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;

/// An attribute: length, type, value, padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("short");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A link of that kind.
fn link(kind: &str, data: &[Vec<u8>], others: &[Vec<u8>]) -> LinkMessage {
    let mut bytes = vec![0; 16]; // struct ifinfomsg
    bytes[2..4].copy_from_slice(&1_u16.to_ne_bytes()); // ARPHRD_ETHER
    bytes[4..8].copy_from_slice(&7_u32.to_ne_bytes());
    bytes.extend(attribute(IFLA_IFNAME, b"port\0"));
    let info = [
        attribute(IFLA_INFO_KIND, format!("{kind}\0").as_bytes()),
        attribute(IFLA_INFO_DATA, &data.concat()),
    ];
    bytes.extend(attribute(IFLA_LINKINFO, &info.concat()));
    bytes.extend(others.concat());
    LinkMessage::parse(bytes.as_slice()).expect("a link")
}

/// A link of that kind as the port it would be.
fn port(kind: &str, data: &[Vec<u8>], others: &[Vec<u8>]) -> Port {
    links::Link::new(&link(kind, data, others)).port()
}

fn tunnel_of(port: Port) -> Tunnel {
    match port.device {
        Device::Tunnel(tunnel) => *tunnel,
        other => panic!("{other:?}"),
    }
}

fn remote(address: &str, options: &str) -> Remote {
    let address = address.parse().expect("an address");
    Remote { options: options.to_owned(), ..Remote::plain(address) }
}

mod gre {
    pub(super) const LINK: u16 = 1;
    pub(super) const IFLAGS: u16 = 2;
    pub(super) const OFLAGS: u16 = 3;
    pub(super) const IKEY: u16 = 4;
    pub(super) const OKEY: u16 = 5;
    pub(super) const LOCAL: u16 = 6;
    pub(super) const REMOTE: u16 = 7;
    pub(super) const TTL: u16 = 8;
    pub(super) const TOS: u16 = 9;
    pub(super) const PMTUDISC: u16 = 10;
    pub(super) const ENCAP_LIMIT: u16 = 11;
    pub(super) const FLOWINFO: u16 = 12;
    pub(super) const FLAGS: u16 = 13;
    pub(super) const ENCAP_TYPE: u16 = 14;
    pub(super) const COLLECT_METADATA: u16 = 18;
    pub(super) const IGNORE_DF: u16 = 19;
    pub(super) const FWMARK: u16 = 20;

    pub(super) const CSUM: [u8; 2] = [0x80, 0];
    pub(super) const KEY: [u8; 2] = [0x20, 0];
    pub(super) const SEQ: [u8; 2] = [0x10, 0];
}

/// What `ipgre_fill_info` sends for a plain gretap, with `changes` instead of its own.
fn gretap(changes: &[(u16, &[u8])]) -> Tunnel {
    let plain: [(u16, &[u8]); 14] = [
        (gre::LINK, &[0; 4]),
        (gre::IFLAGS, &[0; 2]),
        (gre::OFLAGS, &[0; 2]),
        (gre::IKEY, &[0; 4]),
        (gre::OKEY, &[0; 4]),
        (gre::LOCAL, &[192, 0, 2, 1]),
        (gre::REMOTE, &[192, 0, 2, 2]),
        (gre::TTL, &[0]),
        (gre::TOS, &[0]),
        (gre::PMTUDISC, &[1]),
        (gre::FWMARK, &[0; 4]),
        (gre::ENCAP_TYPE, &[0; 2]),
        (gre::IGNORE_DF, &[0]),
        (22, &[0]), // IFLA_GRE_ERSPAN_VER
    ];
    let changed = |kind| changes.iter().any(|(other, _)| *other == kind);
    let data: Vec<_> = plain
        .iter()
        .filter(|(kind, _)| !changed(*kind))
        .chain(changes)
        .map(|(kind, value)| attribute(*kind, value))
        .collect();
    tunnel_of(port("gretap", &data, &[]))
}

fn unsupported(changes: &[(u16, &[u8])]) -> Vec<Why> {
    gretap(changes).unsupported
}

#[test]
fn a_plain_gretap_has_no_key_and_inherits_the_ttl() {
    let found = gretap(&[]);
    assert_eq!((found.encap, found.dst_port, found.source_ports), (Encap::Gre, 0, (0, 0)));
    assert_eq!(found.local, Some(IpAddr::from([192, 0, 2, 1])));
    assert_eq!(found.remotes, [remote("192.0.2.2", "")]);
    assert_eq!((found.key_in, found.key_out), (None, None));
    assert_eq!((found.ttl, found.tos, found.df), (Ttl::Inherit, Some(0), true));
    assert_eq!(found.ttl_behind_tag, Some(DEFAULTS.ttl));
    assert_eq!((found.link, found.ageing), (None, None));
    assert_eq!(found.unsupported, []);
}

#[test]
fn gretap_keys_count_only_where_their_flag_is_set() {
    let keys: [(u16, &[u8]); 3] =
        [(gre::IKEY, &[0, 0, 1, 0]), (gre::OKEY, &[0, 1, 0, 0]), (gre::IFLAGS, &gre::KEY)];
    let found = gretap(&keys);
    assert_eq!((found.key_in, found.key_out), (Some(256), None));
    let found = gretap(&[keys[0], keys[1], (gre::OFLAGS, &gre::KEY)]);
    assert_eq!((found.key_in, found.key_out), (None, Some(65536)));
    assert_eq!(found.unsupported, []);
}

#[test]
fn gretap_ttl_tos_and_device_are_read() {
    let found = gretap(&[(gre::TTL, &[9]), (gre::TOS, &[0x10]), (gre::LINK, &3_u32.to_ne_bytes())]);
    assert_eq!((found.ttl, found.tos, found.link), (Ttl::Fixed(9), Some(0x10), Some(3)));
    assert_eq!(gretap(&[(gre::TOS, &[1])]).tos, None);
}

#[test]
fn gretap_without_local_or_remote_has_none() {
    let found = gretap(&[(gre::LOCAL, &[0; 4]), (gre::REMOTE, &[0; 4])]);
    assert_eq!((found.local, found.remotes), (None, vec![]));
}

#[test]
fn gretap_df_follows_pmtudisc_and_ignore_df() {
    let inherited = gretap(&[(gre::PMTUDISC, &[0])]);
    assert_eq!(inherited.unsupported, [Why::new(Reason::TunnelOption, "nopmtudisc")]);
    let never = gretap(&[(gre::PMTUDISC, &[0]), (gre::IGNORE_DF, &[1])]);
    assert_eq!((never.df, never.unsupported), (false, vec![]));
}

#[test]
fn gretap_options_that_are_not_reproduced_are_named() {
    let option = |words| Why::new(Reason::TunnelOption, words);
    let checksum = |words| Why::new(Reason::TunnelChecksum, words);
    assert_eq!(unsupported(&[(gre::OFLAGS, &gre::CSUM)]), [checksum("ocsum")]);
    let both: [(u16, &[u8]); 2] = [(gre::OFLAGS, &gre::CSUM), (gre::IFLAGS, &gre::CSUM)];
    assert_eq!(unsupported(&both), [checksum("csum")]);
    assert_eq!(unsupported(&[(gre::IFLAGS, &gre::SEQ)]), [option("iseq")]);
    assert_eq!(unsupported(&[(gre::ENCAP_TYPE, &1_u16.to_ne_bytes())]), [option("encap fou")]);
    assert_eq!(unsupported(&[(gre::ENCAP_TYPE, &2_u16.to_ne_bytes())]), [option("encap gue")]);
    assert_eq!(unsupported(&[(gre::FWMARK, &5_u32.to_ne_bytes())]), [option("fwmark 0x5")]);
    assert_eq!(unsupported(&[(gre::COLLECT_METADATA, &[])]), [Reason::TunnelExternal.into()]);
    assert_eq!(
        unsupported(&[(gre::REMOTE, &[239, 1, 1, 1])]),
        [Why::new(Reason::TunnelGroup, "239.1.1.1")]
    );
}

/// What `ip6gre_fill_info` sends for an ip6gretap with `encaplimit none`, with `changes` instead of its
/// own.
fn ip6gretap(changes: &[(u16, &[u8])]) -> Tunnel {
    let plain: [(u16, &[u8]); 9] = [
        (gre::IFLAGS, &gre::KEY),
        (gre::IKEY, &[0, 0, 0, 7]),
        (gre::LOCAL, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        (gre::REMOTE, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
        (gre::TTL, &[64]),
        (gre::ENCAP_LIMIT, &[4]),
        (gre::FLOWINFO, &[0; 4]),
        (gre::FLAGS, &[1, 0, 0, 0]),
        (gre::FWMARK, &[0; 4]),
    ];
    let changed = |kind| changes.iter().any(|(other, _)| *other == kind);
    let own = plain.iter().filter(|(kind, _)| !changed(*kind));
    let data: Vec<_> = own.chain(changes).map(|(kind, value)| attribute(*kind, value)).collect();
    tunnel_of(port("ip6gretap", &data, &[]))
}

#[test]
fn ip6gretap_is_gre_over_ipv6() {
    let found = ip6gretap(&[]);
    assert_eq!((found.encap, found.key_in, found.key_out), (Encap::Gre, Some(7), None));
    assert_eq!(found.local, Some("2001:db8::1".parse().expect("an address")));
    assert_eq!(found.remotes, [remote("2001:db8::2", "")]);
    assert_eq!((found.ttl, found.tos), (Ttl::Fixed(64), Some(0)));
    assert_eq!(found.unsupported, []);
}

#[test]
fn ip6gretap_traffic_class_flow_label_and_hop_limit_are_read() {
    // `ip link … tclass 0x1c flowlabel 0xfedcb`.
    let found = ip6gretap(&[(gre::FLOWINFO, &[0x01, 0xcf, 0xed, 0xcb]), (gre::TTL, &[0])]);
    assert_eq!((found.tos, found.flow_label), (Some(0x1c), FlowLabel::Fixed(0xf_edcb)));
    assert_eq!(found.ttl, Ttl::Inherit);
    assert_eq!(ip6gretap(&[(gre::FLAGS, &[3, 0, 0, 0])]).tos, None);
    assert_eq!(ip6gretap(&[(gre::LOCAL, &[0; 16])]).local, None);
}

#[test]
fn ip6gretap_options_that_are_not_reproduced_are_named() {
    for (flags, words) in [
        (0x00, "encaplimit 4: set encaplimit none"),
        (0x05, "flowlabel inherit"),
        (0x11, "dscp inherit"),
        (0x21, "fwmark inherit"),
    ] {
        let found = ip6gretap(&[(gre::FLAGS, &[flags, 0, 0, 0])]).unsupported;
        assert_eq!(found, [Why::new(Reason::TunnelOption, words)], "{flags:#x}");
    }
}

#[test]
fn a_vxlan_device_over_ipv6_must_do_without_udp_checksums_both_ways() {
    let local = InfoVxlan::Local6("2001:db8::1".parse().expect("an address"));
    let how = "make the device with udp6zerocsumtx udp6zerocsumrx, on all hosts";
    for (send, receive, missing) in [
        (false, false, "noudp6zerocsumtx noudp6zerocsumrx"),
        (true, false, "noudp6zerocsumrx"),
        (false, true, "noudp6zerocsumtx"),
    ] {
        let info =
            [local.clone(), InfoVxlan::UDPZeroCsumTX(send), InfoVxlan::UDPZeroCsumRX(receive)];
        let why = Why::new(Reason::TunnelUdpChecksum, format!("{missing}: {how}"));
        assert_eq!(tunnel::vxlan(&info, DEFAULTS).unsupported, [why]);
    }
    let info = [local, InfoVxlan::UDPZeroCsumTX(true), InfoVxlan::UDPZeroCsumRX(true)];
    let found = tunnel::vxlan(&info, DEFAULTS);
    assert_eq!((found.ttl, found.flow_label), (Ttl::Route(64), FlowLabel::Fixed(0)));
    assert_eq!(found.unsupported, []);
    // `ip -6 link add … type vxlan` with a flood list alone: the kernel does not say that it is IPv6's.
    let either = [InfoVxlan::UDPZeroCsumTX(true), InfoVxlan::UDPZeroCsumRX(false)];
    let found = tunnel::vxlan(&either, DEFAULTS);
    assert_eq!(found.unsupported, []);
    assert_eq!(found.over_ipv6.map(|why| why.reason), Some(Reason::TunnelUdpChecksum));
    let labelled = [InfoVxlan::Label(0x12345), InfoVxlan::LabelPolicy(1)];
    let found = tunnel::vxlan(&labelled, DEFAULTS);
    assert_eq!(found.flow_label, FlowLabel::Fixed(0x12345));
    assert_eq!(found.unsupported, [Why::new(Reason::TunnelOption, "flowlabel inherit")]);
}

#[test]
fn a_tunnel_whose_underlay_is_in_another_namespace_is_unsupported() {
    let id = attribute(IFLA_LINK_NETNSID, &3_i32.to_ne_bytes());
    let found = tunnel_of(port("gretap", &[attribute(gre::PMTUDISC, &[1])], &[id]));
    assert_eq!(found.unsupported, [Why::new(Reason::TunnelOption, "link-netnsid 3")]);
}

#[test]
fn vlan_filtering_is_read_and_its_protocol_has_to_be_802_1q() {
    const IFLA_BR_VLAN_FILTERING: u16 = 7;
    const IFLA_BR_VLAN_PROTOCOL: u16 = 8;
    let why = Why::new(Reason::VlanFiltering, "vlan_protocol 802.1ad");
    for (on, protocol, why) in
        [(0, 0x8100_u16, vec![]), (1, 0x8100, vec![]), (0, 0x88a8, vec![]), (1, 0x88a8, vec![why])]
    {
        let data = [
            attribute(IFLA_BR_VLAN_FILTERING, &[on]),
            attribute(IFLA_BR_VLAN_PROTOCOL, &protocol.to_be_bytes()),
        ];
        let bridge = &links::bridges(&[link("bridge", &data, &[])], DEFAULTS)[&7];
        assert_eq!(bridge.vlan_aware, on == 1);
        assert_eq!(bridge.unsupported, why);
    }
}

#[test]
fn gpe_is_unsupported() {
    let found = tunnel::vxlan(&[InfoVxlan::Gpe], DEFAULTS);
    assert_eq!(found.unsupported, [Reason::TunnelGpe.into()]);
}

#[test]
fn an_empty_source_port_range_is_the_namespaces() {
    // udp_flow_src_port: min >= max.
    let found = tunnel::vxlan(&[InfoVxlan::PortRange((5000, 5000))], DEFAULTS);
    assert_eq!(found.source_ports, DEFAULTS.source_ports);
    let found = tunnel::vxlan(&[InfoVxlan::PortRange((5000, 5001))], DEFAULTS);
    assert_eq!(found.source_ports, (5000, 5001));
}

#[test]
fn other_encapsulations_are_named_by_their_kind() {
    assert_eq!(port("geneve", &[], &[]).device, Device::Other("geneve".to_owned()));
    assert_eq!(port("new-kind", &[], &[]).device, Device::Other("new-kind".to_owned()));
    assert_eq!(port("bond", &[], &[]).device, Device::Ethernet);
}

const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;
const IFLA_VXLAN_DF: u16 = 29;
const IFLA_VXLAN_VNIFILTER: u16 = 30;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_VLAN_TUNNEL: u16 = 29;

/// A vxlan device with these options on a bridge, with `vlan_tunnel on` or off.
fn on_bridge(vlan_tunnel: bool, options: &[(u16, &[u8])]) -> Port {
    let data: Vec<_> = options.iter().map(|(kind, value)| attribute(*kind, value)).collect();
    let flags = attribute(IFLA_BRPORT_VLAN_TUNNEL, &[u8::from(vlan_tunnel)]);
    let info = [
        attribute(IFLA_INFO_KIND, b"vxlan\0"),
        attribute(IFLA_INFO_DATA, &data.concat()),
        attribute(IFLA_INFO_SLAVE_KIND, b"bridge\0"),
        attribute(IFLA_INFO_SLAVE_DATA, &flags),
    ];
    port("vxlan", &[], &[attribute(IFLA_LINKINFO, &info.concat())])
}

#[test]
fn metadata_mode_takes_its_vnis_from_a_port_with_vlan_tunnel_alone() {
    let id: (u16, &[u8]) = (IFLA_VXLAN_ID, &[0; 4]);
    let external: (u16, &[u8]) = (IFLA_VXLAN_COLLECT_METADATA, &[1]);
    let vnifilter: (u16, &[u8]) = (IFLA_VXLAN_VNIFILTER, &[1]);
    let by_vlan = on_bridge(true, &[id, external, vnifilter]);
    assert_eq!((by_vlan.vlans.vnis.is_some(), &by_vlan.unsupported), (true, &vec![]));
    let found = tunnel_of(by_vlan);
    assert_eq!((found.key_in, found.key_out, found.unsupported), (None, None, vec![]));

    let otherwise = on_bridge(false, &[id, external]);
    assert_eq!(otherwise.vlans.vnis, None);
    assert_eq!(tunnel_of(otherwise).unsupported, [Reason::TunnelExternal.into()]);

    let plain = on_bridge(true, &[(IFLA_VXLAN_ID, &[42, 0, 0, 0])]);
    assert_eq!(plain.vlans.vnis, None);
    assert_eq!(plain.unsupported, [Why::new(Reason::PortVlan, "vlan_tunnel on")]);
    assert_eq!(tunnel_of(plain).key_in, Some(42));

    // The device's own id would be sent in place of the bridge's.
    let found = tunnel_of(on_bridge(true, &[external, (IFLA_VXLAN_ID, &[42, 0, 0, 0])]));
    assert_eq!(found.unsupported, [Why::new(Reason::TunnelOption, "id 42")]);
    assert_eq!(found.key_out, None);
}

#[test]
fn the_devices_df_is_not_asked_in_metadata_mode() {
    // VXLAN_DF_SET and VXLAN_DF_INHERIT.
    for df in [1, 2] {
        let options: [(u16, &[u8]); 2] =
            [(IFLA_VXLAN_DF, &[df]), (IFLA_VXLAN_COLLECT_METADATA, &[1])];
        let found = tunnel_of(on_bridge(true, &options));
        assert_eq!((found.df, found.unsupported), (false, vec![]));
    }
    assert!(tunnel_of(on_bridge(false, &[(IFLA_VXLAN_DF, &[1])])).df);
}
