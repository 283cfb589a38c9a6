//! `ovs-loader docker`: containers as ports of Linux bridges.

mod attach;
mod daemon;
mod engine;
mod failure;
mod ovs;
mod secured;
mod vlan;

use std::time::Duration;

use anyhow::Result;
use ovs_ebpf_tests::lab::{Host, Namespace};
use serde_json::Value;

use crate::support::{elements, ovs_loader, shell};

/// How soon the daemon has done what a container's change asks for.
const SOON: Duration = Duration::from_secs(10);

/// `ovs-loader docker …`, with `--netns` of the container if one is given.
fn docker(host: &Host, words: &str, container: Option<&Namespace>) -> Result<String> {
    let netns = container.map(|namespace| format!("--netns=/run/netns/{}", namespace.name()));
    let rundir = host.files().join("ovs").display().to_string();
    let mut arguments = vec!["docker", "--ovs-rundir", &rundir];
    arguments.extend(words.split_whitespace());
    arguments.extend(netns.as_deref());
    ovs_loader(host, &arguments)
}

/// What `ovs-loader docker …` complains of.
#[track_caller]
fn refused(host: &Host, words: &str, container: Option<&Namespace>) -> String {
    match docker(host, words, container) {
        Ok(said) => panic!("{words} should have failed, but said: {said}"),
        Err(error) => format!("{error:#}"),
    }
}

/// All that a command could have changed in a container, without what changes by itself.
fn inside(container: &Namespace) -> String {
    shell(container, "ip -d link; ip addr | sed 's/ tentative//'; ip route; ip -6 route")
}

/// The attachments of `ovs-loader docker list --json`.
fn list(host: &Host) -> Result<Vec<Value>> {
    let listing: Value = serde_json::from_str(&docker(host, "list --json", None)?)?;
    Ok(elements(&listing["attachments"]).cloned().collect())
}
