//! Rules of the host firewall that name a tunnel's port or protocol.

use ovs_loader::bridge::model::Encap;
use ovs_loader::rules::HostRules;

use crate::lab::{fresh, in_namespace, sh, until};

/// What names VXLAN on port 4789 once the command has run on an empty ruleset.
async fn vxlan_after(command: &str) -> Vec<String> {
    sh("nft flush ruleset
        iptables-legacy -w -F
        iptables-legacy -w -X
        ip6tables-legacy -w -F
        nft add table inet t
        nft 'add chain inet t input { type filter hook input priority 0; }'
        nft 'add chain inet t forward { type filter hook forward priority 0; }'");
    sh(command);
    fresh().await.facts().firewall_rules_naming(Encap::Vxlan, 4789)
}

#[test]
fn nft_rules_that_name_the_port_are_found() {
    in_namespace(async || {
        for rule in [
            "udp dport 4789 drop",
            "ip saddr 192.0.2.2 udp dport 4789 counter accept",
            "udp dport { 53, 4789 } accept",
            "udp dport 4000-5000 accept",
            "udp dport { 100-200, 4700-4800 } accept",
            "udp dport >= 4789 accept",
            "udp dport vmap { 4789 : drop }",
            "meta l4proto { tcp, udp } th dport 4789 drop",
            "meta l4proto udp ip saddr 192.0.2.0/24 udp dport 4789 drop",
        ] {
            assert_eq!(
                vxlan_after(&format!("nft 'add rule inet t input {rule}'")).await,
                ["nftables table inet t, chain input names udp dport 4789"],
                "{rule}"
            );
        }
    });
}

#[test]
fn named_sets_and_chains_that_are_jumped_to_are_read() {
    in_namespace(async || {
        let found = vxlan_after(
            "nft 'add set inet t ports { type inet_service; flags interval; elements = { 4789 } }'
             nft add chain inet t tunnels
             nft 'add rule inet t tunnels udp dport @ports drop'
             nft add rule inet t input jump tunnels",
        )
        .await;
        assert_eq!(found, ["nftables table inet t, chain tunnels names udp dport 4789"]);
    });
}

#[test]
fn nft_rules_that_do_not_name_the_port_are_not_claimed() {
    in_namespace(async || {
        for rule in [
            "input udp dport 53 drop",
            "input udp sport 4789 drop",
            "input tcp dport 4789 drop",
            "input udp dport != 4789 drop",
            "input udp dport != { 53, 4789 } drop",
            "input udp dport { 4788, 4790 } drop",
            "input udp dport { 100-200, 4790-4800 } drop",
            "input udp dport { 100-200, 4700-4788 } drop",
            "input udp dport < 4789 drop",
            "input udp dport > 4789 drop",
            "input meta l4proto udp accept",
            "input udp length 4789 drop",
            "forward udp dport 4789 drop",
        ] {
            let found = vxlan_after(&format!("nft 'add rule inet t {rule}'")).await;
            assert!(found.is_empty(), "{rule}: {found:?}");
        }
    });
}

#[test]
fn gre_is_found_and_told_from_udp() {
    in_namespace(async || {
        for (table, rule) in [
            ("inet", "meta l4proto gre drop"),
            ("ip", "ip protocol gre drop"),
            ("inet", "ip protocol { gre, esp } drop"),
            ("ip6", "ip6 nexthdr gre drop"),
        ] {
            sh(&format!(
                "nft flush ruleset
                 nft add table {table} t
                 nft 'add chain {table} t output {{ type filter hook output priority 0; }}'
                 nft 'add rule {table} t output {rule}'"
            ));
            let rules = fresh().await;
            let place = format!("nftables table {table} t, chain output names protocol gre");
            assert_eq!(rules.facts().firewall_rules_naming(Encap::Gre, 0), [place], "{rule}");
            assert!(rules.facts().firewall_rules_naming(Encap::Vxlan, 4789).is_empty());
        }
        sh("nft flush ruleset
            nft add table ip t
            nft 'add chain ip t output { type filter hook output priority 0; }'
            nft 'add rule ip t output meta l4proto != gre drop'
            nft 'add rule ip t output ip protocol esp drop'");
        assert!(fresh().await.facts().firewall_rules_naming(Encap::Gre, 0).is_empty());
    });
}

#[test]
fn legacy_rules_that_name_the_port_are_found() {
    in_namespace(async || {
        for (command, chain, rule) in [
            ("iptables", "INPUT", "-p udp --dport 4789 -j DROP"),
            ("iptables", "OUTPUT", "-s 192.0.2.1 -p udp -m udp --dport 4000:5000 -j DROP"),
            ("iptables", "INPUT", "-p udp -m multiport --dports 53,4700:4800 -j DROP"),
            ("ip6tables", "INPUT", "-p udp --dport 4789 -j DROP"),
        ] {
            assert_eq!(
                vxlan_after(&format!("{command}-legacy -w -A {chain} {rule}")).await,
                [format!("{command} table filter, chain {chain} names udp dport 4789")],
                "{rule}"
            );
        }
        let found = vxlan_after(
            "iptables-legacy -w -N TUNNELS
             iptables-legacy -w -A INPUT -j TUNNELS
             iptables-legacy -w -A TUNNELS -p udp --dport 4789 -j DROP",
        )
        .await;
        assert_eq!(found, ["iptables table filter, chain TUNNELS names udp dport 4789"]);
    });
}

#[test]
fn legacy_rules_that_do_not_name_the_port_are_not_claimed() {
    in_namespace(async || {
        for rule in [
            "INPUT -p udp --dport 53 -j DROP",
            "INPUT -p udp --sport 4789 -j DROP",
            "INPUT -p tcp --dport 4789 -j DROP",
            "INPUT -p udp ! --dport 53 -j DROP",
            "INPUT -p udp -j DROP",
            "INPUT -p udp -m multiport --sports 4789 -j DROP",
            "INPUT -p udp -m multiport ! --dports 53,4789 -j DROP",
            "INPUT ! -p udp -j DROP",
            "FORWARD -p udp --dport 4789 -j DROP",
        ] {
            let found = vxlan_after(&format!("iptables-legacy -w -A {rule}")).await;
            assert!(found.is_empty(), "{rule}: {found:?}");
        }
        sh("iptables-legacy -w -A INPUT ! -p gre -j DROP");
        assert!(fresh().await.facts().firewall_rules_naming(Encap::Gre, 0).is_empty());
    });
}

#[test]
fn iptables_rules_in_nftables_are_found() {
    in_namespace(async || {
        for rule in ["-p udp --dport 4789 -j DROP", "-p udp -m multiport --dports 53,4789 -j DROP"]
        {
            assert_eq!(
                vxlan_after(&format!("iptables-nft -w -A INPUT {rule}")).await,
                ["nftables table ip filter, chain INPUT names udp dport 4789"],
                "{rule}"
            );
        }
    });
}

#[test]
fn warnings_appear_and_go() {
    in_namespace(async || {
        let mut rules = fresh().await;
        for (add, remove) in [
            (
                "nft add table ip t
                 nft 'add chain ip t c { type filter hook prerouting priority 0; }'
                 nft 'add rule ip t c meta l4proto gre drop'",
                "nft delete table ip t",
            ),
            (
                "iptables-legacy -w -A INPUT -p gre -j DROP",
                "iptables-legacy -w -D INPUT -p gre -j DROP",
            ),
        ] {
            sh(add);
            until(&mut rules, add, |facts| !facts.firewall_rules_naming(Encap::Gre, 0).is_empty())
                .await;
            sh(remove);
            until(&mut rules, remove, |facts| {
                facts.firewall_rules_naming(Encap::Gre, 0).is_empty()
            })
            .await;
        }
    });
}

#[test]
fn a_large_legacy_table_is_followed() {
    in_namespace(async || {
        let mut rules = fresh().await;
        sh("{ echo '*filter'
              for port in $(seq 1000 1300); do echo \"-A INPUT -p udp --dport $port -j DROP\"; done
              echo COMMIT
            } | iptables-legacy-restore -w");
        let names = |port| {
            move |facts: &HostRules| !facts.firewall_rules_naming(Encap::Vxlan, port).is_empty()
        };
        until(&mut rules, "large table", names(1300)).await;
        sh("iptables-legacy -w -A INPUT -p udp --dport 4789 -j DROP");
        until(&mut rules, "one more rule", names(4789)).await;
        sh("iptables-legacy -w -D INPUT -p udp --dport 4789 -j DROP");
        until(&mut rules, "rule gone", |facts| !names(4789)(facts)).await;
        assert!(names(1150)(rules.facts()));
    });
}
