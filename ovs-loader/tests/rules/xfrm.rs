//! IPsec policies and the outer flows they cover.

use ovs_loader::rules::{HostRules, OuterFlow};

use crate::lab::{fresh, ifindex, in_namespace, sh, until};

const TEMPLATE: &str = "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode transport";

fn vxlan(remote: &str) -> OuterFlow {
    OuterFlow {
        local: Some("192.0.2.1".parse().expect("address")),
        remote: remote.parse().expect("address"),
        protocol: 17,
        dst_port: 4789,
        uplink: ifindex("v0"),
    }
}

fn gre(remote: &str) -> OuterFlow {
    OuterFlow { protocol: 47, dst_port: 0, ..vxlan(remote) }
}

/// What covers the VXLAN flow to 192.0.2.2 with these policies, each as `ip xfrm policy add` takes
/// it, separated by lines.
async fn covers(policies: &str) -> Option<String> {
    covers_flow(policies, &vxlan("192.0.2.2")).await
}

async fn covers_flow(policies: &str, flow: &OuterFlow) -> Option<String> {
    sh("ip xfrm policy flush");
    for policy in policies.lines().map(str::trim).filter(|line| !line.is_empty()) {
        sh(&format!("ip xfrm policy add {policy}"));
    }
    fresh().await.facts().xfrm_covers(flow)
}

#[test]
fn policies_out_and_in_appear_and_go() {
    in_namespace(async || {
        let flow = vxlan("192.0.2.2");
        let covered = |facts: &HostRules| facts.xfrm_covers(&flow).is_some();
        let mut rules = fresh().await;
        for selector in [
            "src 192.0.2.1 dst 192.0.2.2 dir out",
            "src 192.0.2.2 dst 192.0.2.1 dir in",
            "src 0.0.0.0/0 dst 192.0.2.0/24 proto udp dport 4789 dir out",
        ] {
            sh(&format!("ip xfrm policy add {selector} {TEMPLATE}"));
            until(&mut rules, selector, covered).await;
            sh(&format!("ip xfrm policy delete {selector}"));
            until(&mut rules, "no policy", |facts| !covered(facts)).await;
        }
    });
}

#[test]
fn the_covering_policy_is_told_in_words() {
    in_namespace(async || {
        let what = covers(&format!(
            "src 192.0.2.1 dst 192.0.2.0/24 proto udp dport 4789 dir out priority 7 {TEMPLATE}"
        ))
        .await;
        let words = "src 192.0.2.1/32 dst 192.0.2.0/24 proto udp dport 4789 dir out priority 7";
        assert_eq!(what.as_deref(), Some(words));
    });
}

#[test]
fn policies_for_other_flows_do_not_cover() {
    in_namespace(async || {
        for selector in [
            "src 192.0.2.1 dst 192.0.2.3 dir out",
            "src 192.0.2.4/30 dst 192.0.2.2 dir out",
            "src 192.0.2.2 dst 192.0.2.1 dir out",
            "src 192.0.2.1 dst 192.0.2.2 dir in",
            "src 192.0.2.1 dst 192.0.2.2 dir fwd",
            "src 192.0.2.1 dst 192.0.2.2 proto tcp dir out",
            "src 192.0.2.1 dst 192.0.2.2 proto gre dir out",
            "src 192.0.2.1 dst 192.0.2.2 proto udp dport 4790 dir out",
            "src 192.0.2.1 dst 192.0.2.2 dev v1 dir out",
        ] {
            assert_eq!(covers(&format!("{selector} {TEMPLATE}")).await, None, "{selector}");
        }
        assert_eq!(covers("src ::/0 dst ::/0 dir out action block").await, None);
    });
}

#[test]
fn what_is_not_known_of_the_flow_may_match() {
    in_namespace(async || {
        for selector in [
            "src 192.0.2.1 dst 192.0.2.2 proto udp sport 5000 dir out",
            "src 192.0.2.1 dst 192.0.2.2 mark 1 dir out",
            "src 192.0.2.2 dst 192.0.2.1 dev v1 dir in",
        ] {
            assert!(covers(&format!("{selector} {TEMPLATE}")).await.is_some(), "{selector}");
        }
        let key = format!("src 192.0.2.1 dst 192.0.2.2 proto gre key 42 dir out {TEMPLATE}");
        assert!(covers_flow(&key, &gre("192.0.2.2")).await.is_some());
        let local = format!("src 192.0.2.1 dst 192.0.2.2 dir out {TEMPLATE}");
        let flow = OuterFlow { local: None, ..vxlan("192.0.2.2") };
        assert!(covers_flow(&local, &flow).await.is_some());
    });
}

#[test]
fn gre_and_the_uplink_device_are_selected_by() {
    in_namespace(async || {
        let policy = format!("src 192.0.2.1 dst 192.0.2.2 proto gre dir out {TEMPLATE}");
        assert!(covers_flow(&policy, &gre("192.0.2.2")).await.is_some());
        let policy = format!("src 192.0.2.1 dst 192.0.2.2 dev v0 dir out {TEMPLATE}");
        assert!(covers(&policy).await.is_some());
    });
}

#[test]
fn ipv6_prefixes_are_respected() {
    in_namespace(async || {
        let flow = OuterFlow {
            local: Some("2001:db8::1".parse().expect("address")),
            ..vxlan("2001:db8:0:8000::2")
        };
        let policy = |prefix| {
            format!(
                "src ::/0 dst 2001:db8::{prefix} dir out
                 tmpl src 2001:db8::1 dst 2001:db8::2 proto esp mode transport"
            )
            .replace('\n', " ")
        };
        assert!(covers_flow(&policy("/48"), &flow).await.is_some());
        assert_eq!(covers_flow(&policy("/49"), &flow).await, None);
    });
}

#[test]
fn the_first_policy_by_priority_decides() {
    in_namespace(async || {
        let secure = format!("src 192.0.2.0/24 dst 192.0.2.0/24 dir out priority 20 {TEMPLATE}");
        let pass = "src 192.0.2.1 dst 192.0.2.2 dir out priority";
        assert_eq!(covers(&format!("{pass} 10\n{secure}")).await, None);
        assert!(covers(&format!("{pass} 30\n{secure}")).await.is_some());
        // A bypass that may not match does not protect from what follows.
        let marked = "src 192.0.2.1 dst 192.0.2.2 mark 1 dir out priority 10";
        assert!(covers(&format!("{marked}\n{secure}")).await.is_some());
        // Each direction is decided on its own.
        let back = format!("src 192.0.2.2 dst 192.0.2.1 dir in priority 20 {TEMPLATE}");
        assert!(covers(&format!("{pass} 10\n{back}")).await.is_some());
    });
}

#[test]
fn a_policy_that_only_allows_does_not_cover_and_one_that_blocks_does() {
    in_namespace(async || {
        let selector = "src 192.0.2.1 dst 192.0.2.2 dir out";
        assert_eq!(covers(&format!("{selector} action allow")).await, None);
        assert!(covers(&format!("{selector} action block")).await.is_some());
    });
}

#[test]
fn default_block_covers_until_it_goes() {
    in_namespace(async || {
        let flow = vxlan("192.0.2.2");
        let mut rules = fresh().await;
        for direction in ["in", "out"] {
            sh(&format!("ip xfrm policy setdefault {direction} block"));
            until(&mut rules, direction, |facts| facts.xfrm_covers(&flow).is_some()).await;
            sh(&format!("ip xfrm policy setdefault {direction} accept"));
            until(&mut rules, "accept", |facts| facts.xfrm_covers(&flow).is_none()).await;
        }
        // A policy that allows the flow comes before the default.
        sh("ip xfrm policy setdefault out block
            ip xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir out");
        assert_eq!(fresh().await.facts().xfrm_covers(&flow), None);
        assert!(fresh().await.facts().xfrm_covers(&vxlan("192.0.2.3")).is_some());
    });
}
