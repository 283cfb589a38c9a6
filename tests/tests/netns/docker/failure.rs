//! All or nothing: what fails leaves no veth, port, address, route or record.

use std::fs;

use anyhow::Result;
use ovs_ebpf_tests::lab::{Host, Lab, Namespace};

use super::{docker, inside, list, refused};
use crate::support::{State, shell};

/// A command that must fail with these words and change nothing on the host and in the container.
#[track_caller]
fn fails(host: &Host, container: &Namespace, words: &str, said: &[&str]) {
    let before = (State::of(host), inside(container));
    let complaint = refused(host, words, Some(container));
    for word in said {
        assert!(complaint.contains(word), "{words}: no {word:?} in: {complaint}");
    }
    before.0.is_unchanged();
    assert_eq!(inside(container), before.1, "{words}");
    assert!(list(host).expect("a list").is_empty(), "{words}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_made() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    let cases = [
        ("--ipaddress=10.0.0.500/24", "is no IP address"),
        ("--ipaddress=10.0.0.5/33", "no prefix length"),
        ("--ipaddress=10.0.0.5/24 --gateway=10.0.1.1", "outside of the container's network"),
        ("--gateway=10.0.0.1", "give --ipaddress too"),
        ("--macaddress=01:00:5e:00:00:01", "is not one station's address"),
        ("--macaddress=1:2:3", "is no MAC address"),
        ("--mtu=20", "MTU 20 is out of range"),
    ];
    for (options, words) in cases {
        fails(host, &web, &format!("add-port br-ex eth1 web {options}"), &[words]);
    }
    fails(host, &web, "add-port br-ex a-name-of-16-byt web", &["cannot name an interface"]);
    Ok(())
}

#[test]
fn what_the_kernel_refuses_half_way_is_taken_back() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    // Made by then: the bridge br-new, the veth pair, the first address.
    let words = "add-port br-new eth1 web --ipaddress=10.0.0.5/24 --ipaddress=::1/128";
    fails(host, &web, words, &["give eth1 the address ::1/128"]);
    docker(host, "add-port br-ex eth1 web --ipaddress=10.0.0.5/24", Some(&web))?;
    Ok(())
}

#[test]
fn a_default_route_that_is_there_is_an_error_that_names_it() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    shell(
        &web,
        "ip link add eth0 type veth peer name other; ip addr add 172.17.0.2/16 dev eth0
         ip link set eth0 up; ip route add default via 172.17.0.1",
    );
    let words = "add-port br-ex eth1 web --ipaddress=10.0.0.5/24 --gateway=10.0.0.1";
    fails(host, &web, words, &["default via 172.17.0.1 dev eth0", "10.0.0.1", "--gateway"]);
    // One that ours would win over is in nobody's way.
    shell(&web, "ip route del default; ip route add default via 172.17.0.1 metric 100");
    docker(host, words, Some(&web))?;
    assert!(shell(&web, "ip route get 192.0.2.9").contains("via 10.0.0.1 dev eth1"));
    Ok(())
}

#[test]
fn an_interface_that_is_there_is_an_error_that_names_it() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    shell(&web, "ip link add eth1 type veth peer name other");
    fails(host, &web, "add-port br-ex eth1 web", &["has an interface eth1 already"]);
    Ok(())
}

#[test]
fn what_is_no_container_is_named_with_what_to_do() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let before = State::of(host);
    let port = "add-port br-ex eth1 web";
    for (options, words) in [
        ("--pid=2147483647", "there is no process 2147483647"),
        ("--netns=/run/netns/no-such", "/run/netns/no-such"),
        ("--netns=/proc/self/comm", "/proc/self/comm"),
        ("--docker-socket=/nonexistent", "cannot ask Docker at /nonexistent"),
        ("--docker-socket=/nonexistent", "--pid"),
    ] {
        let said = refused(host, &format!("{port} {options}"), None);
        assert!(said.contains(words), "{said}");
    }
    let own = format!("{port} --netns=/run/netns/{}", host.name());
    let said = refused(host, &own, None);
    assert!(said.contains("this host's own network namespace"), "{said}");
    before.is_unchanged();
    Ok(())
}

#[test]
fn a_name_that_is_no_bridge_is_an_error() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    fails(host, &web, "add-port v1 eth1 web", &["v1 is not a bridge"]);
    Ok(())
}

#[test]
fn what_a_killed_process_has_left_is_taken_away_by_the_next() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    let before = State::of(host);
    docker(host, "add-port br-new eth1 web --ipaddress=10.0.0.5/24", Some(&web))?;
    // As on disk before the last step.
    let port = list(host)?[0]["port"].as_str().expect("a port").to_owned();
    let file = host.state().join(format!("attachments/{port}.json"));
    let complete = fs::read_to_string(&file)?;
    let half = complete.replace(r#""attached""#, r#"{"pending":{"creates_bridge":true}}"#);
    assert_ne!(half, complete, "{complete}");
    fs::write(&file, half)?;
    docker(host, "del-ports br-ex nobody", None)?;
    before.is_unchanged();
    assert!(list(host)?.is_empty());
    Ok(())
}

#[test]
fn a_damaged_record_is_named_and_nothing_is_changed() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let web = host.add_namespace("web")?;
    docker(host, "add-port br-ex eth1 web", Some(&web))?;
    fs::write(host.state().join("attachments/x.json"), "{")?;
    let before = State::of(host);
    for words in ["list", "del-port br-ex eth1 web", "add-port br-ex eth2 web"] {
        let said = refused(host, words, words.starts_with("add").then_some(&web));
        assert!(said.contains("attachments/x.json is not understood"), "{said}");
    }
    before.is_unchanged();
    Ok(())
}
