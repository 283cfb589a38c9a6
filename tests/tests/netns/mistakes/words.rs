//! Names of what is not there.

use anyhow::Result;
use ovs_ebpf_tests::lab::{Lab, Loader, wait_until};

use super::complaint;
use crate::gate::FAST;
use crate::support::{BothWays, State, elements};

#[test]
fn a_bridge_or_port_that_does_not_exist_is_named_with_what_to_do() -> Result<()> {
    let lab = Lab::pair()?;
    let before = State::of(lab.host(0));
    let tunnel = ["tunnel", "add", "br-no", "t", "--type", "vxlan", "--key", "7"];
    let tunnel = [&tunnel[..], &["--remote", "192.0.2.2"]].concat();
    let cases: [(&[&str], [&str; 2]); 7] = [
        (&["port", "add", "br-no", "v1"], ["br-no", "ovs-loader bridge add br-no"]),
        (&["port", "add", "br-ex", "v-no"], ["v-no", "ip link"]),
        (&["port", "del", "br-ex", "v-no"], ["v-no", "ip link"]),
        (&["port", "del", "br-ex", "u0"], ["u0", "br-ex"]),
        (&["bridge", "del", "br-no"], ["br-no", "bridge"]),
        (&tunnel, ["br-no", "ovs-loader bridge add br-no"]),
        (&["tunnel", "del", "br-ex", "t-no"], ["t-no", "ip link"]),
    ];
    for (arguments, words) in cases {
        let said = complaint(lab.host(0), arguments);
        assert!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    }
    before.is_unchanged();
    Ok(())
}

#[test]
fn the_daemon_names_the_bridges_it_knows() -> Result<()> {
    let lab = Lab::pair()?;
    let loader = Loader::start(lab.host(0))?;
    for command in [&["accelerate", "br-no", "off"][..], &["fdb", "show", "br-no"]] {
        let error = format!("{:#}", loader.cli(command).expect_err("no such bridge"));
        assert!(error.contains("br-no") && error.contains("br-ex"), "{error}");
    }
    Ok(())
}

#[test]
fn without_a_daemon_every_question_says_how_to_start_one() -> Result<()> {
    let lab = Lab::pair()?;
    let questions: [&[&str]; 5] = [
        &["status"],
        &["stats"],
        &["fdb", "show"],
        &["tunnel", "show"],
        &["accelerate", "br-ex", "off"],
    ];
    let socket = lab.host(0).files().join("none.sock").to_string_lossy().into_owned();
    for question in questions {
        let arguments = [&["--socket", &*socket], question].concat();
        let said = complaint(lab.host(0), &arguments);
        assert!(said.contains("no ovs-loader daemon") && said.contains("ovs-loader run"), "{said}");
    }
    Ok(())
}

#[test]
fn without_gretap_the_error_names_the_module_and_vxlan_stays_fast() -> Result<()> {
    let lab = Lab::pair()?;
    let loader = Loader::start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FAST);
    let gre = ["tunnel", "add", "br-ex", "gre1", "--type", "gre", "--key", "7"];
    let gre = [&gre[..], &["--local", "192.0.2.1", "--remote", "192.0.2.3"]].concat();
    if lab.host(0).try_exec(&["ip", "link", "add", "probe", "type", "gretap"]).is_ok() {
        // This kernel has it: there is nothing to miss.
        loader.cli(&gre)?;
        wait_until(FAST, "the GRE tunnel", || {
            let tunnels = loader.tunnels().ok()?;
            elements(&tunnels["tunnels"]).any(|tunnel| tunnel["encap"] == "gre").then_some(())
        });
        return traffic.stop().map(|_| ());
    }
    let said = complaint(lab.host(0), &gre);
    assert!(said.contains("ip_gre"), "{said}");
    traffic.is_fast(&loader, FAST);
    traffic.arrived_whole()
}

#[test]
fn a_configured_gre_bridge_without_gretap_is_named_and_the_others_are_fast() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let has_gretap = host.try_exec(&["ip", "link", "add", "probe", "type", "gretap"]).is_ok();
    let loader = Loader::start_with(
        host,
        "[[bridge]]\nname = \"br-gre\"\ntunnel = \"gre\"\nkey = 7\nlocal = \"192.0.2.1\"\nremotes = [\"192.0.2.3\"]\n",
    )?;
    let log = loader.log();
    assert!(log.contains("br-gre"), "{log}");
    // A kernel that has it makes the bridge; another names the module and leaves nothing behind.
    assert_eq!(log.contains("ip_gre"), !has_gretap, "{log}");
    assert_eq!(host.try_exec(&["ip", "link", "show", "br-gre"]).is_ok(), has_gretap, "{log}");
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FAST);
    traffic.arrived_whole()
}
