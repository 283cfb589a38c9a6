//! Rules of the host that a packet on the fast path would go around.

use anyhow::Result;
use ovs_ebpf_tests::lab::wait_until;

use super::{FAST, Gate, Packets, REPORTED, Still};
use crate::support::{At, elements, shell};

#[test]
fn an_ipsec_policy_on_the_outer_flow_stops_the_bypass() -> Result<()> {
    let policy = "src 192.0.2.1 dst 192.0.2.2 proto udp dport 4789 dir out";
    Gate::open()?.stops(
        (At::Tunnel("vxlan0"), "xfrm_policy"),
        (
            &format!("ip xfrm policy add {policy} action block"),
            &format!("ip xfrm policy delete {policy}"),
        ),
        Packets::Stop,
        Still::Both,
    )
}

#[test]
fn an_ipsec_policy_with_a_template_stops_the_bypass() -> Result<()> {
    let policy = "src 192.0.2.0/24 dst 192.0.2.0/24 dir out";
    Gate::open()?.stops(
        (At::Tunnel("vxlan0"), "xfrm_policy"),
        (
            &format!("ip xfrm policy add {policy} tmpl proto esp mode transport"),
            &format!("ip xfrm policy delete {policy}"),
        ),
        Packets::Stop,
        Still::Both,
    )
}

const NFT_BRIDGE: &str = "nft add table bridge t
    nft 'add chain bridge t c { type filter hook forward priority 0; }'
    nft 'add rule bridge t c ip protocol udp counter accept'";

#[test]
fn nftables_in_the_bridge_family_stops_the_bypass() -> Result<()> {
    let gate = Gate::open()?;
    gate.stops(
        (At::Bridge, "nft_bridge"),
        (NFT_BRIDGE, "nft delete table bridge t"),
        Packets::Arrive,
        Still::Both,
    )
}

#[test]
fn a_rule_in_the_bridge_family_sees_every_packet() -> Result<()> {
    let gate = Gate::open()?;
    let traffic = gate.traffic()?;
    shell(gate.host(), &NFT_BRIDGE.replace("accept", "drop"));
    wait_until(REPORTED, "packets dropped by the rule", || {
        let before = traffic.arrived();
        std::thread::sleep(std::time::Duration::from_millis(100));
        (traffic.arrived() == before).then_some(())
    });
    shell(gate.host(), "nft delete table bridge t");
    traffic.is_fast(&gate.loader, FAST);
    traffic.stop().map(|_| ())
}

fn nft_netdev(device: &str, hook: &str) -> String {
    format!(
        "nft add table netdev t
         nft 'add chain netdev t c {{ type filter hook {hook} device {device} priority 0; }}'
         nft 'add rule netdev t c counter accept'"
    )
}

#[test]
fn a_netdev_hook_on_a_port_stops_the_bypass() -> Result<()> {
    let gate = Gate::open()?;
    for hook in ["ingress", "egress"] {
        gate.stops(
            (At::Port("v1"), "nft_netdev"),
            (&nft_netdev("v1", hook), "nft delete table netdev t"),
            Packets::Arrive,
            Still::Both,
        )?;
    }
    Ok(())
}

#[test]
fn a_netdev_hook_on_the_uplink_stops_the_bypass() -> Result<()> {
    Gate::open()?.stops(
        (At::Tunnel("vxlan0"), "nft_netdev"),
        (&nft_netdev("u0", "ingress"), "nft delete table netdev t"),
        Packets::Arrive,
        Still::Both,
    )
}

/// A new namespace hands frames over where the module is loaded.
const BR_NETFILTER_OFF: &str = "echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables
    echo 0 >/proc/sys/net/bridge/bridge-nf-call-ip6tables";

const BR_NETFILTER: &str = "nft add table ip t
    nft 'add chain ip t c { type filter hook forward priority 0; }'
    nft 'add rule ip t c counter accept'
    echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables";

#[test]
fn bridge_netfilter_with_a_ruleset_stops_the_bypass() -> Result<()> {
    let gate = Gate::open()?;
    shell(gate.host(), BR_NETFILTER_OFF);
    gate.stops(
        (At::Bridge, "br_netfilter"),
        (BR_NETFILTER, BR_NETFILTER_OFF),
        Packets::Arrive,
        Still::Both,
    )
}

#[test]
fn bridge_netfilter_without_a_ruleset_does_not_matter() -> Result<()> {
    let gate = Gate::open()?;
    shell(gate.host(), "nft flush ruleset; echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables");
    gate.traffic()?.arrived_whole()
}

const EGRESS_FILTER: &str = "tc qdisc add dev v1 clsact
    tc filter add dev v1 egress protocol ip u32 match u32 0 0 flowid 1:1";

/// A classic filter that lets every packet pass stops the bypass. Its qdisc is there before: to make
/// or remove one costs packets on the slow path too.
fn filter_stops(at: At<'_>, reason: &str, device: &str, hook: &str) -> Result<()> {
    let gate = Gate::open()?;
    shell(gate.host(), &format!("tc qdisc add dev {device} clsact"));
    gate.stops(
        (at, reason),
        (
            &format!("tc filter add dev {device} {hook} protocol ip u32 match u32 0 0 flowid 1:1"),
            &format!("tc filter del dev {device} {hook}"),
        ),
        Packets::Arrive,
        Still::Both,
    )
}

#[test]
fn an_egress_filter_on_a_port_stops_the_bypass() -> Result<()> {
    filter_stops(At::Port("v1"), "egress_filter", "v1", "egress")
}

#[test]
fn a_classic_ingress_filter_on_a_port_stops_the_bypass() -> Result<()> {
    filter_stops(At::Port("v1"), "ingress_filter", "v1", "ingress")
}

#[test]
fn a_classic_ingress_filter_on_the_uplink_stops_the_bypass() -> Result<()> {
    filter_stops(At::Tunnel("vxlan0"), "ingress_filter", "u0", "ingress")
}

#[test]
fn a_firewall_rule_on_the_tunnels_port_is_warned_of_and_does_not_stop_the_bypass() -> Result<()> {
    let gate = Gate::open()?;
    shell(gate.host(), BR_NETFILTER_OFF);
    let traffic = gate.traffic()?;
    let warned = || {
        let status = gate.loader.status().unwrap_or_else(|error| panic!("{error:#}"));
        elements(&status["warnings"]).any(|warning| warning.to_string().contains("4789"))
    };
    assert!(!warned());
    shell(
        gate.host(),
        "nft add table inet t
         nft 'add chain inet t input { type filter hook input priority 0; }'
         nft 'add rule inet t input udp dport 4789 counter accept'",
    );
    wait_until(REPORTED, "a warning", || warned().then_some(()));
    traffic.is_fast(&gate.loader, FAST);
    shell(gate.host(), "nft delete table inet t");
    wait_until(REPORTED, "no warning", || (!warned()).then_some(()));
    traffic.arrived_whole()
}

#[test]
fn a_setting_lets_the_bypass_go_around_its_rules_and_no_others() -> Result<()> {
    let netdev = nft_netdev("v1", "ingress");
    let rules = [
        ("bypass_nft_bridge", NFT_BRIDGE),
        ("bypass_nft_netdev", netdev.as_str()),
        ("bypass_br_netfilter", BR_NETFILTER),
        ("bypass_egress_filters", EGRESS_FILTER),
    ];
    for (setting, rule) in rules {
        let gate = Gate::configured(&format!("[accelerate]\n{setting} = true\n"))?;
        shell(gate.host(), rule);
        // Reported by now, if it were.
        std::thread::sleep(REPORTED);
        gate.traffic()?.arrived_whole()?;
    }
    Ok(())
}
