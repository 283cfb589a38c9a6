//! The question whether anybody has an address, with the kernel's own stack behind a tunnel to answer it.

use std::{
    net::IpAddr,
    sync::{Barrier, mpsc},
    thread,
    time::Duration,
};

use anyhow::Result;
use nix::net::if_::if_nametoindex;
use ovs_ebpf_tests::lab::{Capture, Host, Lab, wait_until};
use ovs_loader::{
    bridge::model::Mac,
    plugin::probe::{Clash, Error, claim},
};
use tokio::runtime;

use crate::support::shell;

/// The stations for which is asked, `p1` on each host.
const OURS: [Mac; 2] = [Mac([2, 0, 0, 0, 9, 1]), Mac([2, 0, 0, 0, 9, 2])];
/// Nobody's addresses.
const FREE: [&str; 2] = ["10.0.0.90", "fd00::90"];

/// Two hosts, each with a veth pair as a container has it before it starts: one end on the bridge,
/// `p1` still on the host.
fn lab() -> Result<Lab> {
    let lab = Lab::pair()?;
    for (host, mac) in lab.hosts().iter().zip(OURS) {
        host.ip(&format!(
            "link add p0 type veth peer name p1 address {mac}\nlink set p0 master br-ex up\n"
        ))?;
        // It shall say nothing by itself.
        shell(host, "echo 1 > /proc/sys/net/ipv6/conf/p1/disable_ipv6; ip link set p1 up");
    }
    // The tunnels carry frames from here on.
    wait_until(Duration::from_secs(10), "the first echo", || {
        lab.container(0).try_exec(&["ping", "-c1", "-W1", "10.0.0.21"]).ok()
    });
    Ok(lab)
}

/// Asks on a host, then does something while the addresses are defended.
fn ask<T: Send>(
    host: &Host,
    mac: Mac,
    addresses: &[&str],
    then: impl AsyncFnOnce(Result<(), Error>) -> T + Send,
) -> T {
    let addresses: Vec<IpAddr> =
        addresses.iter().map(|text| text.parse().expect("an address")).collect();
    host.run_in(|| {
        let device = if_nametoindex("p1").expect("p1 is there");
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime
            .expect("a runtime")
            .block_on(async { then(claim(device, mac, &addresses).await).await })
    })
}

/// The other station and whether it asks too.
#[track_caller]
fn clash(result: Result<(), Error>) -> (Mac, bool) {
    match result {
        Err(Error::Clash(Clash { station, probing, .. })) => (station, probing),
        other => panic!("a clash wanted, not {other:?}"),
    }
}

#[test]
fn an_address_of_another_hosts_container_is_not_used_and_its_mac_is_named() -> Result<()> {
    let lab = lab()?;
    for address in ["10.0.0.21", "fd00::21"] {
        let result = ask(lab.host(0), OURS[0], &[FREE[0], address], async |result| result.err());
        let said = result.expect("a clash").to_string();
        let expected = format!("{address} is in use already: it belongs to 02:00:00:00:02:01");
        assert_eq!(said, expected);
    }
    Ok(())
}

#[test]
fn a_free_address_is_announced_so_that_neighbours_forget_who_had_it() -> Result<()> {
    let lab = lab()?;
    let other = lab.container(1);
    other.ip("neigh add 10.0.0.90 lladdr 02:00:00:00:00:99 nud stale dev eth0\n\
         neigh add fd00::90 lladdr 02:00:00:00:00:99 nud stale dev eth0\n")?;
    ask(lab.host(0), OURS[0], &FREE, async |result| result)?;
    for address in FREE {
        wait_until(Duration::from_secs(3), &format!("{address} at its new MAC"), || {
            let shown = other.exec(&["ip", "neigh", "show", address]);
            shown.contains(&OURS[0].to_string()).then_some(())
        });
    }
    Ok(())
}

#[test]
fn an_address_is_defended_until_its_container_can_do_so() -> Result<()> {
    let lab = lab()?;
    let hold = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            ask(lab.host(0), OURS[0], &FREE, async |claimed| {
                claimed.expect("it is free");
                hold.wait();
                // Defending takes a turn of the runtime every now and then.
                tokio::time::sleep(Duration::from_secs(1)).await;
            });
        });
        hold.wait();
        for address in FREE {
            let result = ask(lab.host(1), OURS[1], &[address], async |result| result);
            assert_eq!(clash(result), (OURS[0], false), "{address}");
        }
    });
    ask(lab.host(1), OURS[1], &FREE, async |result| result)?;
    Ok(())
}

#[test]
fn of_two_that_ask_at_once_one_gets_it_at_most_and_a_loser_knows_where_the_other_is() -> Result<()>
{
    let lab = lab()?;
    for address in FREE {
        let (sender, results) = mpsc::channel();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            for (index, mac) in OURS.into_iter().enumerate() {
                let (sender, host, start) = (sender.clone(), lab.host(index), &start);
                scope.spawn(move || {
                    start.wait();
                    let result = ask(host, mac, &[address], async |result| result);
                    sender.send((index, result)).expect("somebody listens");
                });
            }
        });
        drop(sender);
        // Who has heard of the other gives up at once, maybe before that one listens.
        let refused: Vec<_> =
            results.iter().filter_map(|(index, result)| Some((index, result.err()?))).collect();
        assert!(!refused.is_empty(), "both have {address}");
        for (index, error) in refused {
            let Error::Clash(Clash { station, probing: true, .. }) = error else {
                panic!("a clash wanted on host {index}, not {error}")
            };
            let table = lab.host(index).exec(&["bridge", "fdb", "show", "br", "br-ex"]);
            let line = table.lines().find(|line| line.starts_with(&station.to_string()));
            assert!(line.is_some_and(|line| line.contains("dev vxlan0")), "{station}: {table}");
        }
    }
    Ok(())
}

#[test]
fn the_question_is_asked_twice_in_case_it_is_lost() -> Result<()> {
    let lab = lab()?;
    let mut other = Capture::start(lab.container(1), "eth0")?;
    ask(lab.host(0), OURS[0], &["10.0.0.90"], async |result| result)?;
    let probe = |frame: &[u8]| {
        frame[12..14] == [0x08, 0x06] && frame[28..32] == [0; 4] && frame[38..42] == [10, 0, 0, 90]
    };
    other.next(probe)?;
    other.next(probe)?;
    Ok(())
}
