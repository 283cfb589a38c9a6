//! Many changes at once.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::Duration;

use ovs_loader::bridge::model::Encap;
use tokio::time::timeout;

use crate::lab::{fresh, in_namespace, sh, until};

#[test]
fn a_storm_of_changes_ends_in_the_last_state() {
    in_namespace(async || {
        let mut rules = fresh().await;
        // More notifications in one transaction than a socket's buffer holds.
        let mut ruleset = String::from("add table ip t\nadd chain ip t big\n");
        for port in 10_000..15_000 {
            writeln!(ruleset, "add rule ip t big udp dport {port} drop").expect("String");
        }
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        fs::write(file.path(), ruleset).expect("write the ruleset");
        let load = format!("nft -f {}", file.path().display());

        let storm = thread::spawn(move || {
            sh(&load);
            sh("for i in $(seq 50); do
                    nft add table bridge t
                    nft 'add chain bridge t c { type filter hook forward priority 0; policy drop; }'
                    ip xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir out action block
                    nft delete table bridge t
                    ip xfrm policy flush
                done
                nft 'add table inet last'
                nft 'add chain inet last c { type filter hook input priority 0; }'
                nft 'add rule inet last c meta l4proto gre drop'");
        });
        while !storm.is_finished() {
            if let Ok(result) = timeout(Duration::from_millis(50), rules.changed()).await {
                result.expect("changed");
            }
        }
        storm.join().expect("the storm's commands");
        until(&mut rules, "last state", |facts| {
            !facts.firewall_rules_naming(Encap::Gre, 0).is_empty()
        })
        .await;
        assert_eq!(rules.facts().nft_bridge, None);
        assert!(rules.facts().xfrm.policies.is_empty());
        assert_eq!(rules.facts().firewall_rules_naming(Encap::Vxlan, 14_999).len(), 1);
    });
}
