//! nftables in the bridge family and on the hooks of single devices.

use crate::lab::{fresh, in_namespace, sh, until};

#[test]
fn rule_in_a_bridge_chain_appears_and_goes() {
    in_namespace(async || {
        let mut rules = fresh().await;
        assert_eq!(rules.facts().nft_bridge, None);
        sh("nft add table bridge filter
            nft 'add chain bridge filter forward { type filter hook forward priority 0; }'
            nft add rule bridge filter forward counter");
        until(&mut rules, "bridge rule", |facts| {
            facts.nft_bridge.as_deref() == Some("table bridge filter, chain forward")
        })
        .await;
        sh("nft flush chain bridge filter forward");
        until(&mut rules, "no bridge rule", |facts| facts.nft_bridge.is_none()).await;
    });
}

#[test]
fn bridge_policy_drop_appears_and_goes() {
    in_namespace(async || {
        let mut rules = fresh().await;
        sh("nft add table bridge t
            nft 'add chain bridge t c { type filter hook prerouting priority 0; policy drop; }'");
        until(&mut rules, "policy drop", |facts| facts.nft_bridge.is_some()).await;
        sh("nft 'chain bridge t c { policy accept; }'");
        until(&mut rules, "policy accept", |facts| facts.nft_bridge.is_none()).await;
    });
}

#[test]
fn empty_dormant_and_unreachable_bridge_chains_are_no_ruleset() {
    in_namespace(async || {
        sh("nft add table bridge empty
            nft 'add chain bridge empty c { type filter hook forward priority 0; }'
            nft add chain bridge empty unreached
            nft add rule bridge empty unreached drop
            nft 'add table bridge asleep { flags dormant; }'
            nft 'add chain bridge asleep c { type filter hook forward priority 0; policy drop; }'
            nft add rule bridge asleep c drop");
        assert_eq!(fresh().await.facts().nft_bridge, None);
        sh("nft 'add table bridge asleep'");
        assert!(fresh().await.facts().nft_bridge.is_some(), "woken up");
    });
}

#[test]
fn netdev_hooks_appear_on_their_devices_and_go() {
    in_namespace(async || {
        let mut rules = fresh().await;
        sh("nft add table netdev t
            nft 'add chain netdev t in { type filter hook ingress devices = { v0, v1 } priority 0; }'
            nft 'add chain netdev t out { type filter hook egress device v1 priority 0; policy drop; }'");
        until(&mut rules, "egress hook", |facts| {
            facts.nft_netdev_of("v1") == Some("table netdev t, chain out")
        })
        .await;
        assert_eq!(rules.facts().nft_netdev_of("v0"), None, "no rule yet");
        sh("nft add rule netdev t in counter");
        until(&mut rules, "ingress hook", |facts| {
            facts.nft_netdev_of("v0") == Some("table netdev t, chain in")
                && facts.nft_netdev_of("v1")
                    == Some("table netdev t, chain in; table netdev t, chain out")
        })
        .await;
        assert_eq!(rules.facts().nft_netdev_of("v"), None);
        assert_eq!(rules.facts().nft_bridge, None);
        assert_eq!(rules.facts().ip_ruleset, None);
        sh("nft delete table netdev t");
        until(&mut rules, "no hooks", |facts| facts.nft_netdev.is_empty()).await;
    });
}

#[test]
fn inet_ingress_hook_counts_for_its_device() {
    in_namespace(async || {
        sh("nft add table inet t
            nft 'add chain inet t c { type filter hook ingress device v0 priority 0; }'
            nft add rule inet t c counter");
        let rules = fresh().await;
        assert_eq!(rules.facts().nft_netdev_of("v0"), Some("table inet t, chain c"));
        assert_eq!(rules.facts().nft_netdev_of("v1"), None);
        assert_eq!(rules.facts().ip_ruleset, None, "br_netfilter does not call ingress hooks");
    });
}
