//! One VXLAN device for all VLANs, as FRR and `bridge` make it: in metadata mode (`external`), where each
//! frame's VLAN says its VNI (`vlan_tunnel`) and its VNI its VLAN.

use std::{net::IpAddr, os::fd::AsFd as _};

use anyhow::{Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use ovs_ebpf_tests::{
    accelerated::{Accelerated, count, is_fast, share},
    lab::{
        Capture, Container, Host, Lab, Loader,
        traffic::{self, Datagrams},
        wait_until,
    },
    why::{At, has},
    wire::{ETHERNET, OUTER, comparable, on_the_wire},
};

use crate::support::{
    LIMIT, are_fast, at_once, datagrams_are_fast, exchange, fact, peer, until_reached,
};

/// Of each host's first and second container.
const VLANS: [(u16, u32); 2] = [(10, 1010), (20, 1020)];

const FLOOD: &str = "00:00:00:00:00:00";

/// Who says where stations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    /// Devices and bridges learn it.
    Learning,
    /// Somebody writes it into both tables, and the VNIs that are received into `vnifilter`, as FRR does.
    Written,
}

fn shell(host: &Host, script: &str) -> String {
    host.exec(&["sh", "-ec", script])
}

/// Two hosts with a container in each VLAN. `options` are for `ip link add … type vxlan external`.
fn lab(control: Control, options: &str) -> Result<Lab> {
    let lab = Lab::build_unjoined(&[2, 2])?;
    for (host, other) in [(0, 1), (1, 0)] {
        let (host, other) = (lab.host(host), lab.host(other));
        let (local, remote) = (host.underlay(), other.underlay());
        let (device, port) = match control {
            Control::Learning => ("", ""),
            Control::Written => ("vnifilter nolearning", "learning off"),
        };
        let mut script = format!(
            "ip link set br-ex type bridge vlan_filtering 1
             ip link add vxlan0 type vxlan dstport 4789 local {local} external {device} {options}
             ip link set vxlan0 master br-ex up
             bridge link set dev vxlan0 vlan_tunnel on {port}
             bridge vlan del dev vxlan0 vid 1\n"
        );
        for (number, (vlan, vni)) in VLANS.into_iter().enumerate() {
            let (port, far) = (host.container(number).port(), other.container(number).mac());
            script += &format!(
                "bridge vlan del dev {port} vid 1
                 bridge vlan add dev {port} vid {vlan} pvid untagged
                 bridge vlan add dev vxlan0 vid {vlan}
                 bridge vlan add dev vxlan0 vid {vlan} tunnel_info id {vni}
                 bridge fdb append {FLOOD} dev vxlan0 dst {remote} src_vni {vni} self\n"
            );
            if control == Control::Written {
                script += &format!(
                    "bridge vni add dev vxlan0 vni {vni}
                     bridge fdb add {far} dev vxlan0 dst {remote} src_vni {vni} self
                     bridge fdb add {far} dev vxlan0 master extern_learn vlan {vlan}\n"
                );
            }
        }
        shell(host, &script);
    }
    Ok(lab)
}

/// The containers of a VLAN on both hosts.
fn of_vlan(lab: &Lab, number: usize) -> [&Container; 2] {
    [0, 1].map(|host| lab.host(host).container(number))
}

/// Datagrams within a VLAN, both ways, and all of them fast wherever there is a daemon.
fn is_fast_both_ways(pair: &Accelerated, number: usize) -> Result<()> {
    let [one, other] = of_vlan(&pair.lab, number);
    until_reached(one, other);
    pair.until_fast(&[one.mac(), other.mac()])?;
    for (from, to) in [(one, other), (other, one)] {
        for address in [IpAddr::from(to.ipv4()), to.ipv6().into()] {
            // Of a VLAN that is cut off, whose stations look for one another.
            let but = "tunnel_unknown";
            datagrams_are_fast(pair, from, (to, address), pair.loaders.len(), but)?;
        }
    }
    Ok(())
}

/// Every kind of traffic within a VLAN, and nearly all of it fast wherever there is a daemon.
fn works(pair: &Accelerated, number: usize) -> Result<()> {
    is_fast_both_ways(pair, number)?;
    let [one, other] = of_vlan(&pair.lab, number);
    let counted = pair.counted(|| exchange(peer(one), peer(other)))?;
    ensure!(share(&counted) >= 0.9, "{counted:?}");
    for (from, to) in [(one, other), (other, one)] {
        ensure!(traffic::reaches(from, to, [239, 1, 2, 3].into())?, "a group");
    }
    Ok(())
}

/// Whether a few echoes, for which nobody waits long, all go unanswered.
fn is_cut_off(from: &Container, to: &Container) -> bool {
    let to = to.ipv4().to_string();
    from.try_exec(&["ping", "-c3", "-i0.2", "-W1", &to]).is_err()
}

/// Whether no container of one VLAN reaches one of the other.
fn are_apart(lab: &Lab) -> Result<()> {
    let [[one, two], [other, another]] = [0, 1].map(|number| of_vlan(lab, number));
    for (from, to) in [(one, other), (one, another), (other, two), (another, two)] {
        ensure!(is_cut_off(from, to), "{} reaches {}", from.name(), to.name());
    }
    Ok(())
}

/// Whether nothing passes within a VLAN, nor between the two.
fn nothing_passes(pair: &Accelerated, number: usize) -> Result<()> {
    let [one, other] = of_vlan(&pair.lab, number);
    ensure!(is_cut_off(one, other) && is_cut_off(other, one), "it passes");
    are_apart(&pair.lab)
}

fn until_said(loader: &Loader, mac: &str, reason: &str, said: bool) {
    // What is not announced would be seen within 30 seconds.
    at_once(&format!("{reason} of {mac}: {said}"), || {
        (has(loader, At::Station(mac), reason) == said).then_some(())
    });
}

/// A daemon on either end and on both, and the VLANs apart all the time.
fn vlans_are_fast_and_stay_apart(control: Control) -> Result<Accelerated> {
    let mut pair = Accelerated { loaders: Vec::new(), lab: lab(control, "")? };
    let all_fast = |pair: &Accelerated, what: &str| {
        fact(what, || {
            works(pair, 0)?;
            is_fast_both_ways(pair, 1)?;
            are_apart(&pair.lab)
        })
    };
    fact("the bridge alone: if this fails, the lab is wrong", || {
        for number in 0..VLANS.len() {
            let [one, other] = of_vlan(&pair.lab, number);
            until_reached(one, other);
        }
        are_apart(&pair.lab)
    })?;
    pair.loaders.push(Loader::start(pair.lab.host(0))?);
    all_fast(&pair, "the first end is accelerated")?;
    ensure!(pair.loaders.remove(0).sigterm()?.success(), "the first daemon");
    pair.loaders.push(Loader::start(pair.lab.host(1))?);
    all_fast(&pair, "the second end is accelerated")?;
    pair.loaders.insert(0, Loader::start(pair.lab.host(0))?);
    all_fast(&pair, "both ends are accelerated")?;
    Ok(pair)
}

#[test]
fn vlans_over_one_learning_vxlan_device() -> Result<()> {
    let pair = vlans_are_fast_and_stay_apart(Control::Learning)?;
    let [host, other] = [0, 1].map(|host| pair.lab.host(host));
    fact("VNIs that change places take their VLANs' stations with them", || {
        shell(
            host,
            "bridge vlan del dev vxlan0 vid 10 tunnel_info id 1010
             bridge vlan del dev vxlan0 vid 20 tunnel_info id 1020
             bridge vlan add dev vxlan0 vid 10 tunnel_info id 1020
             bridge vlan add dev vxlan0 vid 20 tunnel_info id 1010
             ip link set vxlan0 type bridge_slave fdb_flush",
        );
        shell(other, "ip link set vxlan0 type bridge_slave fdb_flush");
        // By the kernel's own measure the first host's VLAN 10 is the second's VLAN 20 now.
        for (own, far) in [(0, 1), (1, 0)] {
            let (one, two) = (host.container(own), other.container(far));
            until_reached(one, two);
            pair.until_fast(&[one.mac(), two.mac()])?;
            let flow = Datagrams::open(one, (two, two.ipv4().into()))?;
            ensure!(flow.send(64, 1)? == 1, "the first");
            let counted = pair.counted(|| {
                ensure!(flow.send(1000, 32)? == 32, "from VLAN to VLAN");
                Ok(())
            })?;
            are_fast(&counted, 64);
            ensure!(is_cut_off(one, other.container(own)), "as before");
        }
        Ok(())
    })
}

#[test]
fn vlans_over_one_vxlan_device_with_vnifilter() -> Result<()> {
    let pair = vlans_are_fast_and_stay_apart(Control::Written)?;
    let (host, loader) = (pair.lab.host(0), &pair.loaders[0]);
    let [_, far] = of_vlan(&pair.lab, 0);
    fact("a mapping that goes takes its VLAN off the fast path, and no other", || {
        let mapping = "dev vxlan0 vid 10 tunnel_info id 1010";
        shell(host, &format!("bridge vlan del {mapping}"));
        until_said(loader, far.mac(), "vni_unmapped", true);
        nothing_passes(&pair, 0)?;
        is_fast_both_ways(&pair, 1)?;
        shell(host, &format!("bridge vlan add {mapping}"));
        until_said(loader, far.mac(), "vni_unmapped", false);
        is_fast_both_ways(&pair, 0)?;
        are_apart(&pair.lab)
    })
}

#[test]
fn changes_of_one_vxlan_device_for_all_vlans_are_followed() -> Result<()> {
    let pair = Accelerated::start_on(lab(Control::Written, "")?, &[0, 1])?;
    let [host, other] = [0, 1].map(|host| pair.lab.host(host));
    let loader = &pair.loaders[0];
    let [near, far] = of_vlan(&pair.lab, 0);
    (0..VLANS.len()).try_for_each(|number| is_fast_both_ways(&pair, number))?;
    for (what, off, on) in [
        (
            "a VNI that vnifilter loses",
            "bridge vni delete dev vxlan0 vni 1010",
            "bridge vni add dev vxlan0 vni 1010",
        ),
        (
            "a VLAN that leaves untagged",
            "bridge vlan add dev vxlan0 vid 10 untagged",
            "bridge vlan add dev vxlan0 vid 10",
        ),
    ] {
        fact(what, || {
            shell(host, off);
            until_said(loader, far.mac(), "vni_unmapped", true);
            nothing_passes(&pair, 0)?;
            is_fast_both_ways(&pair, 1)?;
            shell(host, on);
            until_said(loader, far.mac(), "vni_unmapped", false);
            is_fast_both_ways(&pair, 0)?;
            are_apart(&pair.lab)
        })?;
    }

    fact("a VLAN that gets another VNI", || {
        let vni_on_the_wire = || -> Result<Vec<u8>> {
            let mut capture = Capture::start(other, "u0")?;
            let flow = Datagrams::open(near, (far, far.ipv4().into()))?;
            Ok(on_the_wire(&mut capture, &flow, 100)?[OUTER - 4..OUTER - 1].to_vec())
        };
        ensure!(vni_on_the_wire()? == [0, 0x03, 0xf2], "VNI 1010 before");
        for (number, (host, remote)) in [(host, other), (other, host)].into_iter().enumerate() {
            let (address, mac) = (remote.underlay(), remote.container(0).mac());
            shell(
                host,
                &format!(
                    "bridge vni add dev vxlan0 vni 1011
                     bridge vlan del dev vxlan0 vid 10 tunnel_info id 1010
                     bridge vlan add dev vxlan0 vid 10 tunnel_info id 1011
                     bridge fdb append {FLOOD} dev vxlan0 dst {address} src_vni 1011 self
                     bridge fdb add {mac} dev vxlan0 dst {address} src_vni 1011 self"
                ),
            );
            if number == 0 {
                wait_until(LIMIT, "apart", || is_cut_off(near, far).then_some(()));
                nothing_passes(&pair, 0)?;
            }
        }
        is_fast_both_ways(&pair, 0)?;
        ensure!(vni_on_the_wire()? == [0, 0x03, 0xf3], "VNI 1011");
        are_apart(&pair.lab)
    })?;

    fact("a station that gets another remote", || {
        // The same host by another of its addresses, so that what arrives can be seen.
        other.ip("addr add 192.0.2.22/24 dev u0\n")?;
        let mut capture = Capture::start(other, "u0")?;
        let flow = Datagrams::open(near, (far, far.ipv4().into()))?;
        let replace = |address: &str| {
            let mac = far.mac();
            let entry = format!("{mac} dev vxlan0 dst {address} src_vni 1011 self");
            shell(host, &format!("bridge fdb replace {entry}"));
        };
        for (address, last) in [("192.0.2.22", 22), ("192.0.2.2", 2)] {
            replace(address);
            wait_until(LIMIT, address, || {
                let frame = on_the_wire(&mut capture, &flow, 100).expect("it arrives");
                (frame[ETHERNET + 19] == last).then_some(())
            });
            let frame = fast_on_the_wire(&pair, &mut capture, &flow);
            ensure!(frame[ETHERNET + 19] == last, "{frame:02x?}");
        }
        is_fast_both_ways(&pair, 0)
    })?;

    fact("what a port does not say is refused", || {
        shell(host, "bridge link set dev vxlan0 vlan_tunnel off");
        wait_until(LIMIT, "tunnel_external", || {
            has(loader, At::Tunnel("vxlan0"), "tunnel_external").then_some(())
        });
        ensure!(!is_fast(loader, far.mac()), "{} is fast", far.mac());
        nothing_passes(&pair, 0)?;
        // The bridge has forgotten the mappings.
        shell(
            host,
            "bridge link set dev vxlan0 vlan_tunnel on
             bridge vlan add dev vxlan0 vid 10 tunnel_info id 1011
             bridge vlan add dev vxlan0 vid 20 tunnel_info id 1020",
        );
        is_fast_both_ways(&pair, 0)?;
        is_fast_both_ways(&pair, 1)
    })
}

/// A datagram as it crosses the underlay that is, of all packets, the one that the fast path sent.
fn fast_on_the_wire(pair: &Accelerated, capture: &mut Capture, flow: &Datagrams) -> Vec<u8> {
    wait_until(LIMIT, "nothing but a datagram, and that fast", || {
        let mut frame = Vec::new();
        let sent = pair.counted(|| {
            frame = on_the_wire(capture, flow, 100)?;
            Ok(())
        });
        let sent = sent.expect("it arrives");
        (count(&sent, "sent") == 1 && count(&sent, "revalidation") == 0).then_some(frame)
    })
}

/// Switches both hosts' bridges and waits until the first containers are fast, or not.
fn accelerate(pair: &Accelerated, on: bool) -> Result<()> {
    for loader in &pair.loaders {
        loader.accelerate("br-ex", on)?;
        wait_until(LIMIT, "the switch", || {
            let fast = of_vlan(&pair.lab, 0).map(|container| is_fast(loader, container.mac()));
            (fast == [on; 2]).then_some(())
        });
    }
    Ok(())
}

#[test]
fn outer_headers_of_one_vxlan_device_for_all_vlans_are_the_kernels() -> Result<()> {
    // Options and a sender's TOS; then the TOS, the fragmentation and the TTL outside. Metadata says
    // whether to fragment, and the bridge's says nothing.
    for (options, tos, seen) in [
        ("", 0, [0, 0, 64]),
        ("ttl 9 tos inherit df set srcport 20000 20008", 0xb8 | 2, [0xb8 | 2, 0, 9]),
        ("tos 0x40 df inherit", 0x20 | 1, [0x40 | 1, 0, 64]),
    ] {
        fact(&format!("options \"{options}\""), || {
            let lab = lab(Control::Written, options)?;
            let pair = Accelerated::start_on(lab, &[0, 1])?;
            let [from, to] = of_vlan(&pair.lab, 0);
            until_reached(from, to);
            pair.until_fast(&[from.mac(), to.mac()])?;
            let mut capture = Capture::start(pair.lab.host(1), "u0")?;
            let flow = Datagrams::open(from, (to, to.ipv4().into()))?;
            setsockopt(&flow.sender().as_fd(), sockopt::Ipv4Tos, &tos)?;
            ensure!(flow.send(100, 1)? == 1, "the first");
            accelerate(&pair, false)?;
            let slow = on_the_wire(&mut capture, &flow, 100)?;
            accelerate(&pair, true)?;
            let fast = fast_on_the_wire(&pair, &mut capture, &flow);
            ensure!(comparable(&slow) == comparable(&fast), "{slow:02x?} but {fast:02x?}");
            let ip = &fast[ETHERNET..];
            ensure!([ip[1], ip[6] & 0x40, ip[8]] == seen, "{ip:02x?}");
            ensure!(fast[OUTER - 8..OUTER] == [8, 0, 0, 0, 0, 0x03, 0xf2, 0], "{fast:02x?}");
            Ok(())
        })?;
    }
    Ok(())
}
