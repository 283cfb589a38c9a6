//! The host's rules as `nft`, `ip xfrm`, `tc`, `iptables-legacy` and sysctls make them, each in a
//! network namespace of its own: facts appear within a second and go again. Needs root.

#[path = "rules/cost.rs"]
mod cost;
#[path = "rules/firewall.rs"]
mod firewall;
#[path = "rules/ip_ruleset.rs"]
mod ip_ruleset;
#[path = "rules/lab.rs"]
mod lab;
#[path = "rules/nft_hooks.rs"]
mod nft_hooks;
#[path = "rules/privileges.rs"]
mod privileges;
#[path = "rules/storm.rs"]
mod storm;
#[path = "rules/tc.rs"]
mod tc;
#[path = "rules/xfrm.rs"]
mod xfrm;
