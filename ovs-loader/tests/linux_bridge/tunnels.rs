//! vxlan devices: their options and their FDBs.

use std::net::IpAddr;
use std::time::Duration;

use ovs_ebpf_common::Reason;
use ovs_loader::bridge::by_station::ByStation;
use ovs_loader::bridge::model::{Encap, FlowLabel, Remote, Ttl, Tunnel, Why};

use crate::host::{Host, mac, on_host, open, tunnel, until};

const A: &str = "02:00:00:00:00:0a";

/// A bridge with one vxlan port of those options.
fn vxlan(host: &Host, options: &str) {
    host.ip("link add br-ex type bridge");
    host.ip(&format!("link add vxlan42 type vxlan {options}"));
    host.ip("link set vxlan42 master br-ex up");
    host.ip("link set br-ex up");
}

fn read(options: &'static str, check: impl FnOnce(&Tunnel) + Send + 'static) {
    on_host(async move |host| {
        vxlan(host, options);
        let bridges = open().await;
        check(tunnel(bridges.bridges(), "vxlan42").expect("the tunnel"));
    });
}

fn remote(address: &str) -> Remote {
    remote_with(address, "")
}

fn remote_with(address: &str, options: &str) -> Remote {
    Remote { options: options.to_owned(), ..Remote::plain(ip(address)) }
}

fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

fn reasons(tunnel: &Tunnel) -> Vec<Why> {
    tunnel.unsupported.clone()
}

#[test]
fn vxlan_options_are_read_as_set() {
    let options = "id 42 local 192.0.2.1 remote 192.0.2.2 dstport 4789 srcport 40000 50000 \
                   ttl 7 tos 0x10 df set ageing 77";
    read(options, |tunnel| {
        assert_eq!(
            *tunnel,
            Tunnel {
                encap: Encap::Vxlan,
                local: Some(ip("192.0.2.1")),
                remotes: vec![remote("192.0.2.2")],
                key_in: Some(42),
                key_out: Some(42),
                dst_port: 4789,
                source_ports: (40000, 50000),
                tos: Some(0x10),
                ect_1_inherits: false,
                ttl_behind_tag: None,
                ttl: Ttl::Fixed(7),
                df: true,
                flow_label: FlowLabel::Fixed(0),
                link: None,
                device: None,
                ageing: Some(Duration::from_secs(77)),
                unsupported: vec![],
                over_ipv6: None,
                fdb: ByStation::default(),
            }
        );
    });
}

#[test]
fn vxlan_defaults_are_the_namespaces() {
    on_host(async |host| {
        host.sysctl("net/ipv4/ip_default_ttl", "61");
        host.sysctl("net/ipv4/ip_local_port_range", "20000 30001");
        vxlan(host, "id 42 dstport 4789");
        let bridges = open().await;
        let found = tunnel(bridges.bridges(), "vxlan42").expect("the tunnel");
        assert_eq!((found.local, found.ttl), (None, Ttl::Route(61)));
        assert_eq!((found.tos, found.df), (Some(0), false));
        assert_eq!(found.source_ports, (20000, 30001));
        assert_eq!(found.ageing, Some(Duration::from_secs(300)));
        assert!(found.remotes.is_empty() && found.unsupported.is_empty());
    });
}

#[test]
fn vxlan_inherits_ttl_and_tos() {
    read("id 42 dstport 4789 ttl inherit tos inherit nolearning", |tunnel| {
        assert_eq!((tunnel.ttl, tunnel.tos, tunnel.ageing), (Ttl::Inherit, None, None));
    });
}

#[test]
fn external_is_unsupported_where_no_vlan_says_the_vni() {
    for options in ["external dstport 4789", "external vnifilter dstport 4789"] {
        read(options, |tunnel| {
            assert_eq!(reasons(tunnel), [Why::from(Reason::TunnelExternal)]);
            assert_eq!((tunnel.key_in, tunnel.key_out), (None, None));
        });
    }
}

#[test]
fn gbp_is_unsupported() {
    read("id 42 dstport 4789 gbp", |tunnel| {
        assert_eq!(reasons(tunnel), [Why::from(Reason::TunnelGbp)]);
    });
}

#[test]
fn udp_checksums_are_no_obstacle() {
    read("id 42 dstport 4789 udpcsum", |tunnel| assert_eq!(reasons(tunnel), []));
}

#[test]
fn proxy_rsc_remcsum_and_df_inherit_are_unsupported() {
    read("id 42 dstport 4789 proxy rsc remcsumtx remcsumrx l2miss l3miss df inherit", |tunnel| {
        let mut words: Vec<_> = reasons(tunnel).into_iter().map(|why| why.detail).collect();
        words.sort();
        assert_eq!(words, ["df inherit", "proxy", "remcsumrx", "remcsumtx", "rsc"]);
        assert!(tunnel.unsupported.iter().all(|why| why.reason == Reason::TunnelOption));
    });
}

#[test]
fn a_multicast_group_is_unsupported() {
    on_host(async |host| {
        host.ip("link add uplink type veth peer name uplink-peer");
        vxlan(host, "id 42 dstport 4789 group 239.1.1.1 dev uplink");
        let bridges = open().await;
        let found = tunnel(bridges.bridges(), "vxlan42").expect("the tunnel");
        assert_eq!(reasons(found), [Why::new(Reason::TunnelGroup, "239.1.1.1")]);
        assert!(found.link.is_some());
        // The flood entry's `via uplink` is the tunnel's own device.
        assert_eq!(found.remotes, [remote("239.1.1.1")]);
    });
}

#[test]
fn a_remote_that_is_appended_without_a_device_is_not_bound_to_the_tunnels() {
    on_host(async |host| {
        host.ip("link add uplink type veth peer name uplink-peer");
        vxlan(host, "id 42 dstport 4789 remote 192.0.2.2 dev uplink");
        host.bridge("fdb append 00:00:00:00:00:00 dev vxlan42 dst 192.0.2.3");
        host.bridge("fdb append 00:00:00:00:00:00 dev vxlan42 dst 192.0.2.4 via uplink");
        let bridges = open().await;
        let found = tunnel(bridges.bridges(), "vxlan42").expect("the tunnel");
        let bound: Vec<_> = found.remotes.iter().map(|to| (to.address, to.bound)).collect();
        let expected = [("192.0.2.2", true), ("192.0.2.3", false), ("192.0.2.4", true)];
        assert_eq!(bound, expected.map(|(address, bound)| (ip(address), bound)));
    });
}

#[test]
fn an_ipv6_underlay_has_to_do_without_udp_checksums() {
    read("id 42 dstport 4789 local 2001:db8::1 remote 2001:db8::2", |tunnel| {
        assert_eq!(tunnel.remotes, [remote("2001:db8::2")]);
        assert_eq!(reasons(tunnel).len(), 1);
        assert_eq!(reasons(tunnel)[0].reason, Reason::TunnelUdpChecksum);
    });
    let options = "id 42 dstport 4789 local 2001:db8::1 remote 2001:db8::2 flowlabel 0xfedcb \
                   udp6zerocsumtx udp6zerocsumrx";
    read(options, |tunnel| {
        assert_eq!(reasons(tunnel), []);
        assert_eq!((tunnel.ttl, tunnel.flow_label), (Ttl::Route(64), FlowLabel::Fixed(0xf_edcb)));
    });
    // With `-6` and without an address; the kernel does not tell that from IPv4.
    on_host(async |host| {
        host.ip("link add br0 type bridge");
        host.ip("-6 link add vxlan42 master br0 type vxlan id 42 dstport 4789");
        let bridges = open().await;
        let found = tunnel(bridges.bridges(), "vxlan42").expect("the tunnel");
        assert_eq!(reasons(found), []);
        let why = found.over_ipv6.as_ref().expect("its checksums");
        assert_eq!(why.reason, Reason::TunnelUdpChecksum);
    });
}

#[test]
fn changed_options_are_seen() {
    on_host(async |host| {
        vxlan(host, "id 42 dstport 4789 remote 192.0.2.2");
        let mut bridges = open().await;
        host.ip("link set vxlan42 type vxlan ttl 9 ageing 20");
        until(&mut bridges, "the TTL", |bridges| {
            tunnel(bridges, "vxlan42").is_some_and(|tunnel| {
                tunnel.ttl == Ttl::Fixed(9) && tunnel.ageing == Some(Duration::from_secs(20))
            })
        })
        .await;
    });
}

#[test]
fn the_flood_list_is_followed() {
    on_host(async |host| {
        vxlan(host, "id 42 dstport 4789");
        let mut bridges = open().await;
        let flood = "fdb append 00:00:00:00:00:00 dev vxlan42 dst";
        host.bridge(&format!("{flood} 192.0.2.3"));
        host.bridge(&format!("{flood} 192.0.2.2"));
        host.bridge(&format!("{flood} 192.0.2.2 port 5000 vni 7"));
        let with_options = remote_with("192.0.2.2", "port 5000 vni 7");
        let all = [remote("192.0.2.2"), with_options.clone(), remote("192.0.2.3")];
        let seen = until(&mut bridges, "three remotes", |bridges| {
            tunnel(bridges, "vxlan42").is_some_and(|tunnel| tunnel.remotes == all)
        })
        .await;
        assert!(seen.iter().any(|changes| changes.topology));

        host.bridge("fdb del 00:00:00:00:00:00 dev vxlan42 dst 192.0.2.2");
        until(&mut bridges, "one of the three gone", |bridges| {
            tunnel(bridges, "vxlan42")
                .is_some_and(|tunnel| tunnel.remotes == [all[1].clone(), all[2].clone()])
        })
        .await;
        // A dump says the same as the notifications did.
        let before = tunnel(bridges.bridges(), "vxlan42").cloned();
        bridges.resync().await.expect("resync");
        assert_eq!(tunnel(bridges.bridges(), "vxlan42").cloned(), before);
    });
}

#[test]
fn a_stations_remote_is_followed() {
    on_host(async |host| {
        vxlan(host, "id 42 dstport 4789");
        let mut bridges = open().await;
        let is = |bridges: &_, wanted: &[Remote]| {
            tunnel(bridges, "vxlan42").and_then(|tunnel| tunnel.fdb.get(mac(A)))
                == (!wanted.is_empty()).then_some(wanted)
        };
        host.bridge(&format!("fdb add {A} dev vxlan42 dst 192.0.2.2 self"));
        until(&mut bridges, "A", |b| is(b, &[remote("192.0.2.2")])).await;
        // The kernel changes it in place and tells of the new remote only.
        host.bridge(&format!("fdb replace {A} dev vxlan42 dst 192.0.2.3 self"));
        until(&mut bridges, "A moved", |b| is(b, &[remote("192.0.2.3")])).await;
        // It takes no second remote for a unicast station.
        host.bridge(&format!("fdb append {A} dev vxlan42 dst 192.0.2.4 self"));
        assert_eq!(host.bridge("fdb show dev vxlan42").matches(A).count(), 1);
        host.bridge(&format!("fdb replace {A} dev vxlan42 dst 192.0.2.5 port 5000 self"));
        until(&mut bridges, "its port", |b| is(b, &[remote_with("192.0.2.5", "port 5000")])).await;
        host.bridge(&format!("fdb del {A} dev vxlan42 self"));
        until(&mut bridges, "no A", |b| is(b, &[])).await;
    });
}

#[test]
fn a_vxlan_device_brings_its_table_to_its_bridge() {
    on_host(async |host| {
        host.ip("link add br-ex type bridge");
        host.ip("link add vxlan42 type vxlan id 42 dstport 4789 remote 192.0.2.2");
        host.bridge(&format!("fdb add {A} dev vxlan42 dst 192.0.2.3 self"));
        let mut bridges = open().await;
        host.ip("link set vxlan42 master br-ex");
        until(&mut bridges, "the table", |bridges| {
            tunnel(bridges, "vxlan42").is_some_and(|tunnel| {
                tunnel.remotes == [remote("192.0.2.2")]
                    && tunnel.fdb.get(mac(A)) == Some(&[remote("192.0.2.3")])
            })
        })
        .await;
    });
}
