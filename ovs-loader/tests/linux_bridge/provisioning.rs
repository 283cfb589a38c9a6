//! Bridges, ports and tunnels made on request.

use std::net::IpAddr;

use ovs_loader::bridge::model::Encap;
use ovs_loader::bridge::provision::{
    Action, BridgeSpec, TunnelSpec, add_bridge, add_port, add_tunnel, del_bridge, del_port,
    del_tunnel, ensure,
};

use crate::host::{on_host, open, port, tunnel};

fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

fn vxlan(key: u32, remotes: &[&str]) -> TunnelSpec {
    TunnelSpec {
        name: None,
        encap: Encap::Vxlan,
        local: Some(ip("192.0.2.1")),
        remotes: remotes.iter().map(|remote| ip(remote)).collect(),
        key: Some(key),
        dst_port: None,
    }
}

fn spec() -> BridgeSpec {
    BridgeSpec {
        name: "br-ex".to_owned(),
        tunnel: Some(vxlan(42, &["192.0.2.2", "192.0.2.3"])),
        ports: vec!["veth-a".to_owned()],
    }
}

#[test]
fn a_bridge_is_made_whole_and_then_left_alone() {
    on_host(async |host| {
        host.ip("link add veth-a type veth peer name veth-a-peer");
        let done = ensure(&spec()).await.expect("ensure");
        let words: Vec<_> = done.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "created bridge br-ex",
                "created tunnel vxlan42 on br-ex",
                "added remote 192.0.2.2 to vxlan42",
                "added remote 192.0.2.3 to vxlan42",
                "added veth-a to br-ex",
                "brought veth-a up",
            ]
        );
        let shown = host.ip("-d link show vxlan42");
        assert!(shown.contains("vxlan id 42 local 192.0.2.1 "), "{shown}");
        assert!(shown.contains(" dstport 4789 "), "{shown}");
        assert!(shown.contains("master br-ex") && shown.contains(",UP"), "{shown}");
        let shown = host.bridge("fdb show dev vxlan42");
        for remote in ["192.0.2.2", "192.0.2.3"] {
            let entry = format!("00:00:00:00:00:00 dst {remote} self permanent");
            assert!(shown.contains(&entry), "{shown}");
        }
        assert!(host.ip("link show br-ex").contains(",UP"));
        assert_eq!(ensure(&spec()).await.expect("again"), []);
    });
}

#[test]
fn a_tunnel_over_ipv6_is_made_for_the_fast_path() {
    on_host(async |host| {
        host.ip("link add veth-a type veth peer name veth-a-peer");
        let mut wanted = spec();
        let spec = wanted.tunnel.as_mut().expect("a tunnel");
        spec.local = Some(ip("2001:db8::1"));
        spec.remotes = vec![ip("2001:db8::2")];
        ensure(&wanted).await.expect("ensure");
        let shown = host.ip("-d link show vxlan42");
        assert!(shown.contains(" udp6zerocsumtx udp6zerocsumrx "), "{shown}");
        let bridges = open().await;
        let found = tunnel(bridges.bridges(), "vxlan42").expect("the tunnel");
        assert_eq!(found.unsupported, []);
    });
}

#[test]
fn what_lacks_is_added_and_what_others_added_stays() {
    on_host(async |host| {
        host.ip("link add veth-a type veth peer name veth-a-peer");
        host.ip("link add br-ex type bridge");
        host.ip("link add mine type vxlan id 42 dstport 4789 local 192.0.2.1 remote 192.0.2.9");
        host.ip("link set mine master br-ex up");
        let done = ensure(&spec()).await.expect("ensure");
        assert!(
            !done.iter().any(|action| matches!(action, Action::TunnelAdded { .. })),
            "{done:?}"
        );
        assert!(done.contains(&Action::BroughtUp("br-ex".to_owned())));
        let bridges = open().await;
        let found = tunnel(bridges.bridges(), "mine").expect("the tunnel");
        let remotes: Vec<_> = found.remotes.iter().map(|to| to.address.to_string()).collect();
        assert_eq!(remotes, ["192.0.2.2", "192.0.2.3", "192.0.2.9"]);
    });
}

#[test]
fn a_failure_takes_everything_back() {
    on_host(async |host| {
        let before = host.ip("-o link");
        // The bridge and the tunnel are made before it turns out that there is no interface a.
        let error = ensure(&spec()).await.expect_err("no interface a").to_string();
        assert!(
            error.starts_with("there is no interface veth-a in this network namespace"),
            "{error}"
        );
        assert_eq!(host.ip("-o link"), before);
    });
}

#[test]
fn a_failure_takes_back_what_was_added_to_an_existing_tunnel() {
    on_host(async |host| {
        host.ip("link add br-ex type bridge");
        host.ip("link add vxlan42 type vxlan id 42 dstport 4789 local 192.0.2.1 remote 192.0.2.9");
        host.ip("link set vxlan42 master br-ex");
        let (links, fdb) = (host.ip("-o link"), host.bridge("fdb show dev vxlan42"));
        ensure(&spec()).await.expect_err("no interface a");
        assert_eq!(host.bridge("fdb show dev vxlan42"), fdb);
        let flags = |text: &str| -> Vec<_> {
            text.lines().map(|line| (line.contains(",UP"), line.contains("master"))).collect()
        };
        assert_eq!(flags(&host.ip("-o link")), flags(&links));
    });
}

#[test]
fn ports_and_bridges_come_and_go() {
    on_host(async |host| {
        host.ip("link add veth-a type veth peer name veth-a-peer");
        assert_eq!(add_bridge("br-ex").await.expect("add").len(), 1);
        assert_eq!(add_bridge("br-ex").await.expect("add again"), []);
        assert_eq!(add_port("br-ex", "veth-a").await.expect("add").len(), 2);
        assert_eq!(add_port("br-ex", "veth-a").await.expect("add again"), []);
        assert!(host.bridge("link show").contains("veth-a@veth-a-peer"));
        add_bridge("br-2").await.expect("add");
        let error = add_port("br-2", "veth-a").await.expect_err("taken").to_string();
        assert!(error.starts_with("veth-a is a port of br-ex already"), "{error}");
        del_port("br-ex", "veth-a").await.expect("delete");
        let error = del_port("br-ex", "veth-a").await.expect_err("no port").to_string();
        assert!(error.starts_with("veth-a is not a port of br-ex"), "{error}");
        add_tunnel("br-ex", &vxlan(7, &["192.0.2.2"])).await.expect("add");
        let error = del_tunnel("br-2", "vxlan7").await.expect_err("elsewhere").to_string();
        assert!(error.starts_with("vxlan7 is not a port of br-2"), "{error}");
        del_tunnel("br-ex", "vxlan7").await.expect("delete");
        assert!(!host.ip("link").contains("vxlan7"));
        add_port("br-ex", "veth-a").await.expect("add");
        let error = del_tunnel("br-ex", "veth-a").await.expect_err("no tunnel").to_string();
        assert!(error.starts_with("veth-a is not a VXLAN or GRE tunnel"), "{error}");
        del_bridge("br-ex").await.expect("delete");
        assert!(!host.ip("link").contains("br-ex"));
    });
}

#[test]
fn what_does_not_exist_is_named_with_what_to_do() {
    on_host(async |host| {
        host.ip("link add veth-a type veth peer name veth-a-peer");
        let no_bridge = "there is no bridge br-ex: create it with `ovs-loader bridge add br-ex`";
        for error in [
            add_port("br-ex", "veth-a").await.expect_err("no bridge"),
            del_bridge("br-ex").await.expect_err("no bridge"),
            add_tunnel("br-ex", &vxlan(1, &[])).await.expect_err("no bridge"),
        ] {
            assert_eq!(error.to_string(), no_bridge);
        }
        let error = add_bridge("veth-a").await.expect_err("a veth").to_string();
        assert!(error.starts_with("veth-a is not a bridge"), "{error}");
        for name in ["", "a-name-of-16-byt", "a/b", "br%d", ".."] {
            let error = add_bridge(name).await.expect_err("a bad name").to_string();
            assert!(error.contains("cannot name an interface"), "{error}");
        }
    });
}

#[test]
fn a_tunnel_name_of_another_tunnel_is_an_error() {
    on_host(async |host| {
        host.ip("link add br-ex type bridge");
        host.ip("link add vxlan42 type vxlan id 7 dstport 4789");
        add_tunnel("br-ex", &vxlan(42, &[])).await.expect("a name of its own");
        assert!(host.ip("-d link show vxlan42-2").contains("vxlan id 42 "));
        del_tunnel("br-ex", "vxlan42-2").await.expect("delete");
        let spec = TunnelSpec { name: Some("vxlan42".to_owned()), ..vxlan(42, &[]) };
        let error = add_tunnel("br-ex", &spec).await.expect_err("another key").to_string();
        assert_eq!(
            error,
            "vxlan42 exists and is vxlan key 7 port 4789, not vxlan key 42 port 4789 \
             local 192.0.2.1: choose another name, or delete it with `ip link del vxlan42`"
        );
    });
}

#[test]
fn a_description_without_sense_changes_nothing() {
    on_host(async |host| {
        let before = host.ip("-o link");
        let bad = [
            (TunnelSpec { key: None, ..vxlan(1, &[]) }, "VXLAN needs a key"),
            (vxlan(1 << 24, &[]), "key 16777216 is no VNI"),
            (vxlan(1, &["239.1.1.1"]), "remote 239.1.1.1"),
            (vxlan(1, &["192.0.2.1"]), "remote 192.0.2.1 is the local address"),
            (vxlan(1, &["2001:db8::1"]), "both IPv4 and IPv6"),
            (TunnelSpec { encap: Encap::Gre, ..vxlan(1, &[]) }, "GRE needs a remote"),
        ];
        for (tunnel, words) in bad {
            let spec = BridgeSpec { tunnel: Some(tunnel), ..spec() };
            let error = ensure(&spec).await.expect_err("no sense").to_string();
            assert!(error.starts_with("tunnel of br-ex: ") && error.contains(words), "{error}");
        }
        assert_eq!(host.ip("-o link"), before);
    });
}

#[test]
fn gre_is_isolated_or_the_missing_module_is_named() {
    on_host(async |host| {
        let before = host.ip("-o link");
        let tunnel = TunnelSpec { encap: Encap::Gre, ..vxlan(42, &["192.0.2.2", "192.0.2.3"]) };
        let spec = BridgeSpec { tunnel: Some(tunnel), ports: vec![], ..spec() };
        match ensure(&spec).await {
            Ok(_) => {
                let bridges = open().await;
                for name in ["gre-1", "gre-2"] {
                    assert!(port(bridges.bridges(), name).is_some_and(|p| p.isolated && p.up));
                    let found = tunnel_of(&bridges, name);
                    assert_eq!((found.key_in, found.key_out), (Some(42), Some(42)));
                }
                assert_eq!(ensure(&spec).await.expect("again"), []);
            }
            Err(error) => {
                assert_eq!(
                    error.to_string(),
                    "the kernel has no gretap: load module ip_gre (modprobe ip_gre), or install \
                     the kernel package that has it"
                );
                assert_eq!(host.ip("-o link"), before);
            }
        }
    });
}

fn tunnel_of<'a>(
    bridges: &'a ovs_loader::bridge::linux::LinuxBridges,
    name: &str,
) -> &'a ovs_loader::bridge::model::Tunnel {
    tunnel(bridges.bridges(), name).expect("the tunnel")
}
