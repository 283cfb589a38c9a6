//! `accelerate.xdp = "filter"`: where the filter is attached, where not, and whom it must not hurt.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Result;
use aya::Ebpf;
use aya::programs::Xdp;
use aya::programs::xdp::XdpMode;
use ovs_ebpf_common::abi::VERSION;
use ovs_ebpf_tests::accelerated::{Accelerated, LIMIT};
use ovs_ebpf_tests::lab::{Encap, Host, Lab, Loader, traffic, wait_until};
use ovs_ebpf_tests::why::elements;
use ovs_loader::datapath::OBJECT;
use serde_json::Value;

use crate::over_ipv6::{PLAIN, move_to_ipv6};
use crate::support::{ovs_loader, shell};

const FILTER: &str = "[accelerate]\nxdp = \"filter\"\n";

fn vxlan_pair() -> Result<Lab> {
    Lab::build(Encap::Vxlan, &[1, 1])
}

fn filtering(lab: Lab) -> Result<Accelerated> {
    let loader = Loader::start_with(lab.host(0), FILTER)?;
    Ok(Accelerated { loaders: vec![loader], lab })
}

/// Whether a device has a program in its driver.
fn has_xdp(host: &Host, device: &str) -> bool {
    shell(host, &format!("ip -d link show {device}")).contains("prog/xdp")
}

/// The reasons that stand against the filter on the uplink of this name.
fn against_uplink(status: &Value, name: &str) -> Vec<String> {
    let uplinks = elements(&status["xdp"]["uplinks"]).filter(|uplink| uplink["name"] == name);
    uplinks.flat_map(reasons).collect()
}

/// The reasons that stand against filtering, and what was found, of the one flow there is.
fn against_flow(loader: &Loader) -> Option<String> {
    let status = loader.status().expect("the daemon answers");
    let flow = elements(&status["xdp"]["flows"]).next()?.clone();
    let why = elements(&flow["why"]).next()?;
    assert_eq!(why["reason"], "xdp_shared", "{flow}");
    why["detail"].as_str().map(str::to_owned)
}

fn reasons(of: &Value) -> Vec<String> {
    elements(&of["why"]).map(|why| why["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_filter_outlives_a_killed_daemon_and_leaves_with_one_that_ends() -> Result<()> {
    let mut pair = filtering(vxlan_pair()?)?;
    pair.meet(pair.lab.container(0), pair.lab.container(1))?;
    let host = pair.lab.host(0);
    let status = pair.loaders[0].status()?;
    assert_eq!(status["xdp"]["uplinks"][0]["filtered"], true, "{status}");
    assert_eq!(status["xdp"]["flows"][0]["filtered"], true, "{status}");
    assert!(has_xdp(host, "u0") && !has_xdp(host, "v1"));
    let pin = format!("{}/v{VERSION}/links/uplink_xdp-*", host.bpffs().display());
    let link = || shell(host, &format!("bpftool link show pinned {pin} | head -1"));
    let before = link();
    pair.loaders[0].kill_9()?;
    assert!(has_xdp(host, "u0"));
    let mut next = Loader::start_with(host, FILTER)?;
    assert!(has_xdp(host, "u0"));
    // The same link with another program in it: `7: xdp  prog 12`.
    let id = |link: &str| link.split(':').next().map(str::to_owned);
    assert_eq!(id(&before), id(&link()));
    assert_ne!(before, link());
    assert!(next.sigterm()?.success());
    assert!(!has_xdp(host, "u0"));
    // Nor is it where the configuration does not ask for it any more.
    let mut filter = Loader::start_with(host, FILTER)?;
    assert!(has_xdp(host, "u0"));
    filter.kill_9()?;
    let _off = Loader::start(host)?;
    assert!(!has_xdp(host, "u0"));
    Ok(())
}

#[test]
fn another_program_on_the_uplink_stays_and_is_named() -> Result<()> {
    let lab = vxlan_pair()?;
    let host = lab.host(0);
    let mut foreign = Ebpf::load(OBJECT)?;
    let program: &mut Xdp = foreign.program_mut("uplink_xdp").expect("in the object").try_into()?;
    program.load()?;
    host.run_in(|| program.attach("u0", XdpMode::Driver).map(drop))?;
    let before = shell(host, "ip -d link show u0 | grep -o 'prog/xdp.*'");
    let pair = filtering(lab)?;
    let status = pair.loaders[0].status()?;
    assert_eq!(against_uplink(&status, "u0"), ["xdp_taken"], "{status}");
    pair.meet(pair.lab.container(0), pair.lab.container(1))?;
    drop(pair.loaders);
    assert_eq!(before, shell(pair.lab.host(0), "ip -d link show u0 | grep -o 'prog/xdp.*'"));
    Ok(())
}

#[test]
fn a_driver_without_xdp_and_the_port_of_a_bridge_are_refused_with_the_reason() -> Result<()> {
    let lab = vxlan_pair()?;
    let host = lab.host(0);
    // The underlay's address on a bridge over the NIC.
    shell(
        host,
        "ip link add br-up up type bridge
         ip addr flush dev u0
         ip link set u0 master br-up
         ip addr add 192.0.2.1/24 dev br-up",
    );
    let pair = filtering(lab)?;
    pair.meet(pair.lab.container(0), pair.lab.container(1))?;
    let status = pair.loaders[0].status()?;
    assert_eq!(against_uplink(&status, "br-up"), ["xdp_unsupported"], "{status}");
    drop(pair.loaders);

    // And an address on the port of a bridge.
    let host = pair.lab.host(0);
    shell(
        host,
        "ip addr add 192.0.2.1/24 dev u0; ip addr del 192.0.2.1/24 dev br-up; ip route get 192.0.2.2 | grep u0",
    );
    let loader = Loader::start_with(host, FILTER)?;
    let status = loader.status()?;
    assert_eq!(against_uplink(&status, "u0"), ["xdp_port"], "{status}");
    assert!(!has_xdp(host, "u0"));
    let check: Value = serde_json::from_str(&ovs_loader(
        host,
        &["check", "--json", "--config", &host.files().join("config.toml").to_string_lossy()],
    )?)?;
    assert_eq!(against_uplink(&check, "u0"), ["xdp_port"], "{check}");
    Ok(())
}

#[test]
fn other_tunnels_on_the_same_port_stop_the_filter_wherever_their_devices_are() -> Result<()> {
    let pair = filtering(vxlan_pair()?)?;
    pair.meet(pair.lab.container(0), pair.lab.container(1))?;
    let (host, loader) = (pair.lab.host(0), &pair.loaders[0]);
    let elsewhere = host.add_namespace("overlay")?;
    let discarded = || loader.stats().map(|stats| stats["discarded"].clone());
    assert_eq!(against_flow(loader), None);

    let wait = |what: Option<&str>| {
        wait_until(LIMIT, &format!("{what:?}, but {:?}", against_flow(loader)), || {
            let found = against_flow(loader);
            let is = match (&found, what) {
                (Some(found), Some(what)) => found.contains(what),
                (found, what) => found.is_none() == what.is_none(),
            };
            is.then_some(())
        });
    };
    // An overlay as Docker makes it: with its device in another namespace.
    shell(
        host,
        &format!(
            "ip link add vx7 type vxlan id 7 dstport 4789
             ip link set vx7 netns {0}
             nsenter --net=/run/netns/{0} ip addr add 10.7.0.1/24 dev vx7
             nsenter --net=/run/netns/{0} ip link set vx7 up
             nsenter --net=/run/netns/{0} bridge fdb append 00:00:00:00:00:00 dev vx7 dst 192.0.2.2",
            elsewhere.name()
        ),
    );
    wait(Some("vx7 in the network namespace"));
    let other = pair.lab.host(1);
    shell(
        other,
        "ip link add vx7 up type vxlan id 7 local 192.0.2.2 remote 192.0.2.1 dstport 4789
         ip addr add 10.7.0.2/24 dev vx7",
    );
    let ping = traffic::ping(other, Ipv4Addr::new(10, 7, 0, 1), 56, 20, Duration::from_millis(10))?;
    assert_eq!(ping.loss(), 0.0, "{ping:?}");
    assert_eq!(discarded()?, serde_json::json!({}));
    shell(host, &format!("nsenter --net=/run/netns/{} ip link del vx7", elsewhere.name()));
    wait(None);
    // Now nobody wants that any more.
    let ping = traffic::ping(other, Ipv4Addr::new(10, 7, 0, 1), 56, 5, Duration::from_millis(10))?;
    assert_eq!(ping.received, 0);
    assert!(discarded()?["wrong_key"].as_u64() >= Some(1), "{}", discarded()?);

    // A device of this namespace that is no bridge's.
    shell(host, "ip link add vx8 up type vxlan id 8 dstport 4789");
    wait(Some("vx8"));
    shell(host, "ip link set vx8 down");
    wait(None);
    // A bridge that is not accelerated.
    loader.accelerate("br-ex", false)?;
    wait_until(LIMIT, "no flow", || {
        let status = loader.status().expect("the daemon answers");
        elements(&status["xdp"]["flows"]).next().is_none().then_some(())
    });
    Ok(())
}

#[test]
fn a_new_remote_is_let_in_as_soon_as_the_bridge_knows_it() -> Result<()> {
    let lab = Lab::build(Encap::Vxlan, &[1, 1, 1])?;
    let host = lab.host(0);
    // What was learned of it goes too.
    shell(
        host,
        "ip link set vxlan0 type vxlan nolearning
         bridge fdb show dev vxlan0 | grep 'dst 192.0.2.3' | while read mac rest; do
             bridge fdb del $mac dev vxlan0 dst 192.0.2.3 self
         done",
    );
    let pair = filtering(lab)?;
    pair.meet(pair.lab.container(0), pair.lab.container(1))?;
    let (one, third) = (pair.lab.container(0), pair.lab.container(2));
    let ping = |count| traffic::ping(third, one.ipv4(), 56, count, Duration::from_millis(10));
    assert_eq!(ping(3)?.received, 0);
    let stats = pair.loaders[0].stats()?;
    assert!(stats["discarded"]["unknown_remote"].as_u64() >= Some(1), "{stats}");
    assert_eq!(stats["sources"][0]["address"], "192.0.2.3", "{stats}");
    let shown = pair.loaders[0].cli(&["stats"])?;
    assert!(shown.contains("192.0.2.3"), "{shown}");
    shell(pair.lab.host(0), "bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst 192.0.2.3");
    wait_until(LIMIT, "an echo", || ping(1).is_ok_and(|ping| ping.received == 1).then_some(()));
    assert_eq!(ping(100)?.loss(), 0.0);
    Ok(())
}

#[test]
fn over_ipv6_strangers_and_wrong_keys_are_discarded_and_nobody_else() -> Result<()> {
    let lab = vxlan_pair()?;
    move_to_ipv6(&lab, PLAIN)?;
    let pair = filtering(lab)?;
    let (one, other, attacker) = (pair.lab.container(0), pair.lab.container(1), pair.lab.host(1));
    pair.meet(one, other)?;
    assert_eq!(against_flow(&pair.loaders[0]), None);
    let discarded = || pair.loaders[0].stats().map(|stats| stats["discarded"].clone());
    let asks = |id: u32, local: &str| {
        let script = format!(
            "ip addr add {local}/64 dev u0 nodad || true
             ip link add vx{id} up type vxlan id {id} local {local} remote 2001:db8::1 dstport 4789 \
                 udp6zerocsumtx udp6zerocsumrx
             ip addr add 10.{id}.0.2/24 dev vx{id}
             ping -n -c 2 -i 0.2 -W 1 10.{id}.0.1 || true"
        );
        shell(attacker, &script);
    };
    assert_eq!(discarded()?, serde_json::json!({}));
    asks(43, "2001:db8::9");
    assert!(discarded()?["unknown_remote"].as_u64() >= Some(1), "{}", discarded()?);
    assert_eq!(discarded()?["wrong_key"], Value::Null);
    asks(44, "2001:db8::2");
    assert!(discarded()?["wrong_key"].as_u64() >= Some(1), "{}", discarded()?);
    let stats = pair.loaders[0].stats()?;
    let sources: Vec<_> = elements(&stats["sources"]).map(|one| one["address"].clone()).collect();
    assert!(sources.contains(&"2001:db8::9".into()), "{stats}");
    for address in [IpAddr::from(one.ipv4()), one.ipv6().into()] {
        assert_eq!(traffic::ping(other, address, 56, 50, Duration::from_millis(10))?.loss(), 0.0);
    }
    Ok(())
}
