//! Bridge netfilter and the rulesets it hands frames to.

use std::fs;

use crate::lab::{fresh, in_namespace, sh, until};

const CALL_IPTABLES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
const CALL_IP6TABLES: &str = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";

fn set(path: &str, value: &str) {
    fs::write(path, value).unwrap_or_else(|error| panic!("{path} (br_netfilter): {error}"));
}

#[test]
fn sysctls_are_followed() {
    in_namespace(async || {
        set(CALL_IPTABLES, "0");
        set(CALL_IP6TABLES, "0");
        let mut rules = fresh().await;
        assert!(!rules.facts().br_netfilter.iptables && !rules.facts().br_netfilter.ip6tables);
        set(CALL_IPTABLES, "1");
        until(&mut rules, "iptables on", |facts| facts.br_netfilter.iptables).await;
        assert!(!rules.facts().br_netfilter.ip6tables);
        set(CALL_IP6TABLES, "1");
        until(&mut rules, "ip6tables on", |facts| facts.br_netfilter.ip6tables).await;
        set(CALL_IPTABLES, "0");
        until(&mut rules, "iptables off", |facts| !facts.br_netfilter.iptables).await;
    });
}

#[test]
fn frames_are_handed_over_by_a_sysctl_or_by_the_bridge_itself() {
    in_namespace(async || {
        set(CALL_IPTABLES, "0");
        set(CALL_IP6TABLES, "0");
        let mut rules = fresh().await;
        assert_eq!(rules.facts().br_netfilter_of(true), None, "nothing to hand over to");
        sh("nft add table ip filter
            nft 'add chain ip filter forward { type filter hook forward priority 0; policy drop; }'");
        until(&mut rules, "ruleset", |facts| facts.ip_ruleset.is_some()).await;
        assert_eq!(rules.facts().br_netfilter_of(false), None);
        assert_eq!(rules.facts().br_netfilter_of(true), Some("table ip filter, chain forward"));
        set(CALL_IPTABLES, "1");
        until(&mut rules, "handed over", |facts| facts.br_netfilter_of(false).is_some()).await;
    });
}

#[test]
fn rulesets_of_the_ip_families_appear_and_go() {
    in_namespace(async || {
        let mut rules = fresh().await;
        for family in ["ip", "ip6", "inet"] {
            sh(&format!(
                "nft add table {family} t
                 nft 'add chain {family} t c {{ type filter hook forward priority 0; }}'
                 nft add rule {family} t c counter"
            ));
            let place = format!("table {family} t, chain c");
            until(&mut rules, &place, |facts| facts.ip_ruleset.as_ref() == Some(&place)).await;
            sh(&format!("nft delete table {family} t"));
            until(&mut rules, "no ruleset", |facts| facts.ip_ruleset.is_none()).await;
        }
    });
}

#[test]
fn empty_chains_and_other_families_are_no_ip_ruleset() {
    in_namespace(async || {
        sh("nft add table inet t
            nft 'add chain inet t c { type filter hook input priority 0; }'
            nft add table arp t
            nft 'add chain arp t c { type filter hook input priority 0; policy drop; }'
            iptables-legacy -w -t filter -L
            ip6tables-legacy -w -t nat -L");
        assert_eq!(fresh().await.facts().ip_ruleset, None);
    });
}

#[test]
fn legacy_rules_appear_and_go() {
    in_namespace(async || {
        let mut rules = fresh().await;
        for (command, table) in [("iptables", "nat"), ("ip6tables", "filter")] {
            sh(&format!("{command}-legacy -w -t {table} -A OUTPUT -j ACCEPT"));
            let place = format!("{command} table {table}");
            until(&mut rules, &place, |facts| facts.ip_ruleset.as_ref() == Some(&place)).await;
            sh(&format!("{command}-legacy -w -t {table} -F"));
            until(&mut rules, "no ruleset", |facts| facts.ip_ruleset.is_none()).await;
        }
    });
}

#[test]
fn legacy_policies_appear_and_go() {
    in_namespace(async || {
        let mut rules = fresh().await;
        for command in ["iptables-legacy", "ip6tables-legacy"] {
            sh(&format!("{command} -w -P FORWARD DROP"));
            until(&mut rules, "policy drop", |facts| facts.ip_ruleset.is_some()).await;
            sh(&format!("{command} -w -P FORWARD ACCEPT"));
            until(&mut rules, "policy accept", |facts| facts.ip_ruleset.is_none()).await;
        }
    });
}
