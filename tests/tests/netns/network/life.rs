//! Networks and containers come and go.

use anyhow::Result;
use ovs_ebpf_tests::lab::{Engine, Lab};

use super::{docker, run, serve};
use crate::support::State;

/// A network over both hosts of a pair, as it is typed on each.
const CREATE: &str =
    "network create -d ovs-ebpf --internal --subnet 10.5.0.0/24 -o remotes=192.0.2.1,192.0.2.2";

#[test]
fn containers_of_two_hosts_are_in_one_network() -> Result<()> {
    let lab = Lab::pair()?;
    let engines = [Engine::start(lab.host(0))?, Engine::start(lab.host(1))?];
    let before: Vec<_> = lab.hosts().iter().map(State::of).collect();
    let loaders = [serve(lab.host(0))?, serve(lab.host(1))?];
    for (engine, address) in engines.iter().zip(["10.5.0.11", "10.5.0.12"]) {
        docker(engine, &format!("{CREATE} web"))?;
        run(engine, "web", &format!("--network web --ip {address}"))?;
    }
    engines[0].exec("web", &["ping", "-c3", "-W5", "10.5.0.12"])?;
    for engine in &engines {
        docker(engine, "rm -f web")?;
        docker(engine, "network rm web")?;
    }
    drop(loaders);
    before.iter().for_each(State::is_unchanged);
    Ok(())
}
