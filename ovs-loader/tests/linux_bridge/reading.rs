//! Bridges, ports, stations and veth peers.

use std::time::Duration;

use ovs_loader::bridge::linux::LinuxBridges;
use ovs_loader::bridge::model::{
    Bridges, Changes, Device, FdbEntry, FdbKey, FdbKind, StpState, VethPeer,
};

use crate::host::{Host, bridge, index, mac, on_host, open, port, station, until};

const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";

fn two_ports(host: &Host) {
    host.ip("link add br-ex type bridge");
    for port in ["veth-a", "veth-b"] {
        host.ip(&format!("link add {port} type veth peer name {port}-peer"));
        host.ip(&format!("link set {port} master br-ex up"));
        host.ip(&format!("link set {port}-peer up"));
    }
    host.ip("link set br-ex up");
}

#[test]
fn a_bridge_made_before_is_there() {
    on_host(async |host| {
        two_ports(host);
        host.ip("link set br-ex type bridge ageing_time 12300 nf_call_iptables 1");
        let bridges = open().await;
        let found = bridge(bridges.bridges(), "br-ex").expect("the bridge");
        assert!(found.up && found.nf_call && !found.vlan_aware);
        assert_eq!(found.ageing, Duration::from_millis(123_000));
        assert_eq!(found.ports.len(), 2);
        assert_eq!(found.fdb[&FdbKey { vlan: 0, mac: found.mac }].kind, FdbKind::Local);
    });
}

#[test]
fn a_bridge_made_later_is_seen_and_so_is_its_end() {
    on_host(async |host| {
        let mut bridges = open().await;
        assert!(bridges.bridges().is_empty());
        two_ports(host);
        host.bridge(&format!("fdb add {A} dev veth-a master static"));
        let seen = until(&mut bridges, "the bridge, its ports and A", |bridges| {
            bridge(bridges, "br-ex").is_some_and(|found| found.up && found.ports.len() == 2)
                && station(bridges, "br-ex", A).is_some()
        })
        .await;
        assert!(seen.iter().any(|changes| changes.topology));
        host.ip("link del br-ex");
        until(&mut bridges, "no bridge", std::collections::BTreeMap::is_empty).await;
    });
}

#[test]
fn bridge_and_port_options_are_followed() {
    on_host(async |host| {
        two_ports(host);
        let mut bridges = open().await;
        until(&mut bridges, "forwarding", |bridges| {
            port(bridges, "veth-a").is_some_and(|a| a.stp == StpState::Forwarding && a.up)
        })
        .await;
        host.bridge("link set dev veth-a isolated on");
        until(&mut bridges, "isolated", |b| port(b, "veth-a").is_some_and(|a| a.isolated)).await;
        host.bridge("link set dev veth-a locked on");
        until(&mut bridges, "locked", |b| port(b, "veth-a").is_some_and(|a| a.locked)).await;
        host.bridge("link set dev veth-a state 0");
        until(&mut bridges, "disabled", |bridges| {
            port(bridges, "veth-a").is_some_and(|a| a.stp == StpState::Disabled)
        })
        .await;
        host.ip("link set veth-a mtu 1300");
        until(&mut bridges, "the MTU", |b| port(b, "veth-a").is_some_and(|a| a.mtu == 1300)).await;
        host.ip("link set veth-a-peer down");
        until(&mut bridges, "no carrier", |b| port(b, "veth-a").is_some_and(|a| !a.up)).await;
        host.ip("link set br-ex type bridge ageing_time 600");
        until(&mut bridges, "ageing", |bridges| {
            bridge(bridges, "br-ex").is_some_and(|b| b.ageing == Duration::from_secs(6))
        })
        .await;
        host.ip("link set br-ex down");
        until(&mut bridges, "down", |b| bridge(b, "br-ex").is_some_and(|b| !b.up)).await;
        host.ip("link set veth-a nomaster");
        until(&mut bridges, "no port", |bridges| port(bridges, "veth-a").is_none()).await;
    });
}

#[test]
fn stations_come_move_and_go() {
    on_host(async |host| {
        two_ports(host);
        let mut bridges = open().await;
        let (a, b) = (index(bridges.bridges(), "veth-a"), index(bridges.bridges(), "veth-b"));
        let ifindex = bridge(bridges.bridges(), "br-ex").expect("the bridge").ifindex;
        // Drain what the set-up itself still causes.
        bridges.resync().await.expect("resync");

        host.bridge(&format!("fdb add {A} dev veth-a master dynamic"));
        let seen = until(&mut bridges, "A behind a", |bridges| {
            station(bridges, "br-ex", A) == Some(FdbEntry { port: a, kind: FdbKind::Dynamic })
        })
        .await;
        let key = FdbKey { vlan: 0, mac: mac(A) };
        assert!(
            seen.iter().any(|changes| changes.topology || changes.fdb.contains(&(ifindex, key)))
        );

        host.bridge(&format!("fdb replace {A} dev veth-b master static"));
        until(&mut bridges, "A behind b", |bridges| {
            station(bridges, "br-ex", A) == Some(FdbEntry { port: b, kind: FdbKind::Static })
        })
        .await;
        host.bridge(&format!("fdb add {B} dev veth-b master permanent"));
        until(&mut bridges, "B is local", |bridges| {
            station(bridges, "br-ex", B) == Some(FdbEntry { port: b, kind: FdbKind::Local })
        })
        .await;
        host.bridge(&format!("fdb del {A} dev veth-b master"));
        until(&mut bridges, "no A", |bridges| station(bridges, "br-ex", A).is_none()).await;
        host.ip("link set veth-b nomaster");
        until(&mut bridges, "no B", |bridges| station(bridges, "br-ex", B).is_none()).await;
    });
}

#[test]
fn a_learned_station_is_dynamic() {
    on_host(async |host| {
        two_ports(host);
        let mut bridges = open().await;
        let a = index(bridges.bridges(), "veth-a");
        host.ip(&format!("link set veth-a-peer address {A}"));
        host.ip("addr add 192.0.2.1/24 dev veth-a-peer");
        // The kernel announces an address it just got (arp_notify), which the bridge learns from.
        host.sysctl("net/ipv4/conf/veth-a-peer/arp_notify", "1");
        host.ip("link set veth-a-peer down");
        host.ip("link set veth-a-peer up");
        until(&mut bridges, "A learned", |bridges| {
            station(bridges, "br-ex", A) == Some(FdbEntry { port: a, kind: FdbKind::Dynamic })
        })
        .await;
    });
}

#[test]
fn a_resync_of_an_unchanged_bridge_finds_nothing() {
    on_host(async |host| {
        two_ports(host);
        host.ip("link add vxlan42 type vxlan id 42 dstport 4789 remote 192.0.2.2");
        host.ip("link set vxlan42 master br-ex up");
        for last in 1..=50 {
            host.bridge(&format!("fdb add 02:00:00:00:01:{last:02x} dev veth-a master static"));
        }
        let mut bridges = open().await;
        // Addresses and carriers settle for a moment after the set-up.
        let mut changes = bridges.resync().await.expect("resync");
        for _ in 0..20 {
            if changes == Changes::default() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            changes = bridges.resync().await.expect("resync");
        }
        assert_eq!(changes, Changes::default());
        assert!(bridge(bridges.bridges(), "br-ex").expect("the bridge").fdb.len() >= 50);
    });
}

#[test]
fn an_overrun_is_made_up_for() {
    on_host(async |host| {
        two_ports(host);
        let mut bridges = LinuxBridges::open_with_buffer(0).await.expect("open");
        // Far more than the smallest receive buffer holds.
        let batch: String = (0..2000)
            .map(|n| {
                format!(
                    "fdb add 02:00:00:01:{:02x}:{:02x} dev veth-a master static\n",
                    n >> 8,
                    n & 255
                )
            })
            .collect();
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), batch).expect("write");
        host.bridge(&format!("-batch {}", file.path().display()));
        let seen = until(&mut bridges, "all 2,000 stations", |bridges| {
            bridge(bridges, "br-ex").is_some_and(|b| {
                b.fdb.values().filter(|entry| entry.kind == FdbKind::Static).count() == 2000
            })
        })
        .await;
        assert!(seen.iter().any(|changes| changes.topology), "an overrun changes the topology");
    });
}

#[test]
fn what_changes_right_after_an_overrun_is_seen() {
    on_host(async |host| {
        two_ports(host);
        let mut bridges = LinuxBridges::open_with_buffer(0).await.expect("open");
        for round in 0..4 {
            let batch: String = (0..500)
                .map(|n| {
                    format!(
                        "fdb add 02:00:{round:02x}:01:{:02x}:{:02x} dev veth-a master static\n",
                        n >> 8,
                        n & 255
                    )
                })
                .collect();
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), batch).expect("write");
            host.bridge(&format!("-batch {}", file.path().display()));
            // Returns after the overrun was made up for, with nothing read after that.
            bridges.changed().await.expect("changes");
            let new = format!("02:00:{round:02x}:02:00:00");
            host.bridge(&format!("fdb add {new} dev veth-a master static"));
            until(&mut bridges, "the new station", |bridges| {
                station(bridges, "br-ex", &new).is_some()
            })
            .await;
        }
    });
}

/// Gives the bridge so many stations that the kernel tells of them in several datagrams.
fn many_stations(host: &Host) {
    let batch: String = (0..3000)
        .map(|n| {
            format!("fdb add 02:00:03:00:{:02x}:{:02x} dev veth-a master static\n", n >> 8, n & 255)
        })
        .collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), batch).expect("write");
    host.bridge(&format!("-batch {}", file.path().display()));
}

#[test]
fn what_changes_is_told_before_the_table_of_a_new_bridge_is_read() {
    on_host(async |host| {
        two_ports(host);
        many_stations(host);
        let mut bridges = open().await;
        host.ip("link add br-other type bridge");
        host.bridge(&format!("fdb add {A} dev veth-b master static"));
        let changes = tokio::time::timeout(Duration::from_secs(5), bridges.changed()).await;
        let changes = changes.expect("at once").expect("changes");
        assert!(changes.topology && changes.fdb.iter().any(|(_, key)| key.mac == mac(A)));
        let stations = |bridges: &Bridges, name: &str| bridge(bridges, name).map(|b| b.fdb.len());
        assert!(stations(bridges.bridges(), "br-ex").expect("the bridge") > 3000);
        assert_eq!(stations(bridges.bridges(), "br-other"), Some(0));
        // Its own address.
        until(&mut bridges, "its table", |all| stations(all, "br-other") > Some(0)).await;
    });
}

#[test]
fn what_becomes_stale_while_long_tables_are_read_is_read_too() {
    on_host(async |host| {
        two_ports(host);
        many_stations(host);
        let mut bridges = open().await;
        // Bridges come and go, some of them while the long table is read.
        let name = host.name().to_owned();
        let changes = std::thread::spawn(move || {
            let ip = |words: &str| {
                let words = words.split(' ');
                let status =
                    std::process::Command::new("ip").args(["-n", &name]).args(words).status();
                assert!(status.expect("ip").success());
            };
            for _ in 0..60 {
                ip("link add br-other type bridge");
                ip("link del br-other");
            }
        });
        while !changes.is_finished() {
            let resynced = tokio::time::timeout(Duration::from_secs(10), bridges.resync()).await;
            resynced.expect("an end").expect("a resync");
        }
        changes.join().expect("no panic");
        until(&mut bridges, "one bridge", |bridges| bridges.len() == 1).await;
        assert!(bridge(bridges.bridges(), "br-ex").expect("the bridge").fdb.len() >= 3000);
    });
}

#[test]
fn a_change_is_not_lost_when_the_wait_for_it_is_dropped() {
    on_host(async |host| {
        two_ports(host);
        let mut bridges = open().await;
        host.bridge(&format!("fdb add {A} dev veth-a master static"));
        host.ip("link set veth-b mtu 1300");
        let mut topology = false;
        let mut fdb = false;
        for round in 0..2000 {
            // Every other wait is dropped at its first pause.
            let most = Duration::from_millis(if round % 2 == 0 { 0 } else { 20 });
            if let Ok(changes) = tokio::time::timeout(most, bridges.changed()).await {
                let changes = changes.expect("changes");
                topology |= changes.topology;
                fdb |= changes.topology || !changes.fdb.is_empty();
            }
            if topology && fdb && port(bridges.bridges(), "veth-b").is_some_and(|b| b.mtu == 1300) {
                break;
            }
        }
        assert!(topology && fdb);
        assert!(station(bridges.bridges(), "br-ex", A).is_some());
        assert_eq!(port(bridges.bridges(), "veth-b").expect("veth-b").mtu, 1300);
    });
}

fn peer(bridges: &LinuxBridges, name: &str) -> Option<VethPeer> {
    match port(bridges.bridges(), name)?.device {
        Device::Veth(peer) => peer,
        _ => None,
    }
}

#[test]
fn a_veth_peer_in_the_same_namespace_is_known() {
    on_host(async |host| {
        two_ports(host);
        host.ip(&format!("link set veth-a-peer address {A}"));
        let bridges = open().await;
        let known = VethPeer { mac: mac(A), mtu: 1500, other_namespace: false, xdp: false };
        assert_eq!(peer(&bridges, "veth-a"), Some(known));
    });
}

#[test]
fn a_veth_peer_in_another_namespace_is_known_and_followed() {
    on_host(async |host| {
        two_ports(host);
        let container = Host::new();
        host.ip(&format!("link set veth-a-peer address {A} netns {}", container.name()));
        let mut bridges = open().await;
        let mut known = VethPeer { mac: mac(A), mtu: 1500, other_namespace: true, xdp: false };
        assert_eq!(peer(&bridges, "veth-a"), Some(known));

        // Nothing in the bridge's namespace hears of this. More than once, since a late event of
        // the set-up has the links read again, too.
        for last in 1..=4 {
            let address = format!("02:00:00:00:02:{last:02x}");
            container.ip(&format!("link set veth-a-peer address {address}"));
            known.mac = mac(&address);
            until(&mut bridges, "the new MAC", |bridges| {
                port(bridges, "veth-a").is_some_and(|a| a.device == Device::Veth(Some(known)))
            })
            .await;
        }
        container.ip("link set veth-a-peer mtu 1400");
        known.mtu = 1400;
        until(&mut bridges, "the new MTU", |bridges| {
            port(bridges, "veth-a").is_some_and(|a| a.device == Device::Veth(Some(known)))
        })
        .await;
    });
}

#[test]
fn devices_are_told_apart() {
    on_host(async |host| {
        two_ports(host);
        host.ip("tuntap add tap0 mode tap");
        host.ip("link set tap0 master br-ex");
        host.ip("link add link veth-b-peer name macvlan0 type macvlan mode passthru");
        host.ip("link set macvlan0 master br-ex");
        let bridges = open().await;
        assert!(matches!(
            port(bridges.bridges(), "veth-a").expect("veth-a").device,
            Device::Veth(Some(_))
        ));
        assert_eq!(port(bridges.bridges(), "tap0").expect("tap0").device, Device::Ethernet);
        assert_eq!(port(bridges.bridges(), "macvlan0").expect("macvlan0").device, Device::Ethernet);
    });
}
