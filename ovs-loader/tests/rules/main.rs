//! The host's rules as `nft`, `ip xfrm`, `tc`, `iptables-legacy` and sysctls make them, each in a
//! network namespace of its own: facts appear within a second and go again. Needs root.

mod cost;
mod firewall;
mod ip_ruleset;
mod lab;
mod nft_hooks;
mod privileges;
mod storm;
mod tc;
mod xfrm;
