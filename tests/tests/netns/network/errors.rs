//! Mistakes, in the words that `docker` prints.

use anyhow::Result;
use ovs_ebpf_tests::lab::{Engine, Lab, wait_until};

use super::{SOON, docker, list, refused, serve};
use crate::support::{State, shell};

#[test]
fn each_bad_option_is_named_with_what_to_write_instead_and_leaves_nothing() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    let _loader = serve(host)?;
    shell(host, "ip link add nic0 type veth peer name nic1; ip link add br-plain type bridge");
    shell(host, "ip addr add 198.51.100.1/24 dev nic0");
    docker(&engine, "network create -d ovs-ebpf -o remotes=192.0.2.2 -o key=7 seven")?;
    wait_until(SOON, "the bridge that is up", || {
        let shown = shell(host, "ip -o link show type bridge | grep ob-");
        shown.contains("state UP").then_some(())
    });
    let before = State::of(host);
    for (options, said) in [
        ("-o tunel=gre", "there is no option tunel: did you mean tunnel?"),
        ("-o zebra=1", "there is no option zebra: there are bridge, flat, gateway, key"),
        ("-o com.docker.network.driver.mtu=1400", "write -o mtu=N"),
        ("-o tunnel=gre", "tunnel without remotes: add the other hosts' addresses"),
        ("-o key=5", "key without remotes"),
        ("-o remotes=192.0.2.2 -o tunnel=ipip", "tunnel=ipip: write tunnel=vxlan or tunnel=gre"),
        ("-o remotes=192.0.2.2 -o key=16777216", "key=16777216: write a number from 0 to 16777215"),
        ("-o remotes=192.0.2.2 -o key=7", "key=7: network seven has it already"),
        ("-o remotes=192.0.2.2,192.0.2.2", "remotes has 192.0.2.2 twice"),
        ("-o remotes=host-b", "remotes has \"host-b\", which is not one host's address"),
        ("-o remotes=224.0.0.1", "which is not one host's address"),
        ("-o remotes=192.0.2.2,2001:db8::2", "write those of one family"),
        ("-o remotes=203.0.113.9", "there is no way to 203.0.113.9"),
        ("-o vlan=4095", "vlan=4095: write a number from 1 to 4094"),
        ("-o vlan=5", "a bridge that is made for the network has no VLANs"),
        ("-o vlan=5 -o bridge=br-plain", "br-plain does not filter VLANs"),
        ("-o mtu=67", "mtu=67: write a number from 68 to 65535"),
        ("-o mtu=many", "mtu=many: write a number"),
        ("-o mtu=1200 --ipv6 --subnet fd00:5::/64", "IPv6 needs an MTU of 1280"),
        ("-o bridge=u0", "u0 is not a bridge"),
        ("-o bridge=a-name-of-16-byt", "cannot name an interface"),
        ("-o flat=eth7", "there is no interface eth7"),
        ("-o flat=nic0", "it has this host's address 198.51.100.1/24, which would be cut off"),
        ("-o flat=nic1 -o remotes=192.0.2.2", "on this host's LAN or in tunnels"),
        ("-o gateway=router", "gateway=router: write host"),
    ] {
        let error = refused(&engine, &format!("network create -d ovs-ebpf {options} bad"));
        assert!(error.contains(said), "{options}: {error}");
    }
    before.is_unchanged();
    assert_eq!(list(host)?.len(), 1);
    Ok(())
}

#[test]
fn a_kernel_without_the_tunnels_module_is_named_and_nothing_is_left() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let engine = Engine::start(host)?;
    let _loader = serve(host)?;
    let before = State::of(host);
    let create = "network create -d ovs-ebpf -o remotes=192.0.2.2 -o tunnel=gre -o key=7 gre";
    match docker(&engine, create) {
        // This kernel has it.
        Ok(_) => {
            assert_eq!(list(host)?[0]["tunnel"]["encap"], "gre");
            docker(&engine, "network rm gre")?;
        }
        Err(error) => {
            let said = format!("{error:#}");
            assert!(said.contains("the kernel has no gretap: load module ip_gre"), "{said}");
        }
    }
    before.is_unchanged();
    assert!(list(host)?.is_empty());
    Ok(())
}
