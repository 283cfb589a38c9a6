//! What the tunnel's options and the way to its remote say.

use anyhow::Result;
use ovs_ebpf_tests::lab::{traffic::Stream, wait_until};

use super::{FAST, Gate, Packets, REPORTED, Still};
use crate::support::{At, has, shell};

/// Makes the tunnel port anew with these options.
fn vxlan(options: &str) -> String {
    format!(
        "ip link del vxlan0
         ip link add vxlan0 type vxlan dstport 4789 {options}
         ip link set vxlan0 master br-ex up"
    )
}

const PLAIN: &str = "id 42 local 192.0.2.1 remote 192.0.2.2";

fn option_stops(options: &str, reason: &str, packets: Packets) -> Result<()> {
    Gate::open()?.stops(
        (At::Tunnel("vxlan0"), reason),
        (&vxlan(options), &vxlan(PLAIN)),
        packets,
        Still::Both,
    )
}

#[test]
fn an_external_tunnel_stops_the_bypass() -> Result<()> {
    option_stops("external", "tunnel_external", Packets::Stop)
}

#[test]
fn offloads_that_are_off_stop_the_bypass() -> Result<()> {
    Gate::open()?.stops(
        (At::Tunnel("vxlan0"), "tunnel_option"),
        ("ethtool -K vxlan0 tx off", "ethtool -K vxlan0 tx on"),
        Packets::Arrive,
        Still::Both,
    )
}

#[test]
fn group_policy_stops_the_bypass() -> Result<()> {
    option_stops(&format!("{PLAIN} gbp"), "tunnel_gbp", Packets::ArriveInBetween)
}

#[test]
fn a_group_as_remote_stops_the_bypass() -> Result<()> {
    let options = "id 42 local 192.0.2.1 group 239.1.1.1 dev u0";
    option_stops(options, "tunnel_group", Packets::ArriveInBetween)
}

#[test]
fn a_tunnel_without_remote_stops_the_bypass() -> Result<()> {
    option_stops("id 42 local 192.0.2.9 nolearning", "no_remote", Packets::Stop)
}

#[test]
fn a_next_hop_that_does_not_answer_stops_the_bypass() -> Result<()> {
    Gate::open()?.stops(
        (At::Tunnel("vxlan0"), "no_neighbour"),
        ("ip route add 192.0.2.2/32 via 192.0.2.99", "ip route del 192.0.2.2/32"),
        Packets::Stop,
        Still::Sending,
    )
}

#[test]
fn a_remote_without_a_route_stops_the_bypass() -> Result<()> {
    Gate::open()?.stops(
        (At::Tunnel("vxlan0"), "no_route"),
        ("ip route add unreachable 192.0.2.2/32", "ip route del unreachable 192.0.2.2/32"),
        Packets::Stop,
        Still::Both,
    )
}

#[test]
fn a_remote_that_is_this_host_stops_the_bypass() -> Result<()> {
    // What the tunnel sends comes back to it meanwhile: it must not learn from that.
    Gate::open()?.stops(
        (At::Tunnel("vxlan0"), "remote_is_local"),
        (
            "ip link set vxlan0 type vxlan nolearning; ip addr add 192.0.2.2/32 dev lo",
            "ip addr del 192.0.2.2/32 dev lo",
        ),
        Packets::Stop,
        Still::Both,
    )
}

#[test]
fn an_uplink_that_is_down_stops_the_bypass() -> Result<()> {
    let gate = Gate::open()?;
    let traffic = gate.traffic()?;
    let peer = gate.lab.host(1);
    shell(peer, "ip link set u0 down");
    // The kernel itself takes notice of a lost carrier up to a second later (linkwatch).
    wait_until(REPORTED, "a tunnel that is not accelerated", || {
        let status = gate.loader.status().unwrap_or_else(|error| panic!("{error:#}"));
        (status["bridges"][0]["tunnels"][0]["accelerated"] == false).then_some(())
    });
    let before = gate.loader.fast_packets()?;
    gate.sends(100)?;
    assert_eq!((gate.loader.fast_packets()? - before).sent, 0);
    shell(peer, "ip link set u0 up");
    traffic.is_fast(&gate.loader, FAST);
    traffic.stop().map(|_| ())
}

#[test]
fn a_station_with_several_remotes_stays_on_the_slow_path() -> Result<()> {
    let gate = Gate::open()?;
    let station = gate.lab.container(1).mac().to_owned();
    // Without an entry of its own in the tunnel's table a station is behind the whole flood list.
    let unlearn = format!("bridge fdb del {station} dev vxlan0 dst 192.0.2.2 self");
    let flood = "00:00:00:00:00:00 dev vxlan0 dst 192.0.2.9";
    gate.stops(
        (At::Station(&station), "several_remotes"),
        (
            &format!(
                "ip link set vxlan0 type vxlan nolearning
                 bridge fdb append {flood}
                 {unlearn}"
            ),
            &format!("bridge fdb del {flood}"),
        ),
        Packets::Arrive,
        Still::Sending,
    )
}

#[test]
fn an_unknown_station_is_flooded_by_the_bridge() -> Result<()> {
    let gate = Gate::open()?;
    let (one, other) = (gate.lab.container(0), gate.lab.container(1));
    let silent = "02:00:00:00:02:77";
    shell(one, &format!("ip neigh add 10.0.0.77 lladdr {silent} dev eth0"));
    // Takes what is sent to that MAC without ever sending from it.
    shell(
        other,
        &format!(
            "ip addr add 10.0.0.77/32 dev lo
             ip link add link eth0 name silent type macvlan mode private
             echo 1 >/proc/sys/net/ipv6/conf/silent/disable_ipv6
             ip link set silent address {silent} arp off up"
        ),
    );
    let before = gate.loader.fast_packets()?;
    let stream = Stream::start(one, (other, "10.0.0.77".parse()?))?;
    wait_until(FAST, "packets to the unknown station", || (stream.arrived() >= 200).then_some(()));
    let meanwhile = gate.loader.fast_packets()? - before;
    assert_eq!((meanwhile.sent, stream.stop()?.lost), (0, 0));
    assert!(!has(&gate.loader, At::Station(silent), "fdb_local"));
    Ok(())
}
