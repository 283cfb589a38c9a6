//! Stations that are joined to one host's bridge in different ways, and what passes between them.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use ovs_ebpf_common::abi::FdbFlags;
use ovs_ebpf_tests::lab::{Encap, Host, Lab, Namespace, traffic, wait_until};

use crate::accelerated::{Accelerated, INTERVAL, LIMIT, assert_fast, count, is_fast, share};
use crate::support::in_map;

/// A station, in whatever way it is joined.
struct Station {
    namespace: Namespace,
    device: &'static str,
    address: Ipv4Addr,
}

impl Station {
    fn mac(&self) -> String {
        let shown = self.namespace.exec(&["ip", "-br", "link", "show", "dev", self.device]);
        shown.split_whitespace().nth(2).unwrap_or_else(|| panic!("no MAC in {shown}")).to_owned()
    }
}

/// Gives a device of a namespace the address 10.0.0.50 and brings it up.
fn station(namespace: Namespace, device: &'static str) -> Result<Station> {
    let address = Ipv4Addr::new(10, 0, 0, 50);
    namespace.ip(&format!("addr add {address}/24 dev {device}\nlink set {device} up\n"))?;
    Ok(Station { namespace, device, address })
}

fn veth_in_another_namespace(host: &Host) -> Result<Station> {
    let container = host.container(1);
    Ok(Station { namespace: (**container).clone(), device: "eth0", address: container.ipv4() })
}

fn veth_in_the_same_namespace(host: &Host) -> Result<Station> {
    // Else the host answers for the address on its bridge too, with the bridge's MAC.
    host.exec(&["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1"]);
    host.ip("link add near up mtu 1450 type veth peer name near-in mtu 1450\nlink set near master br-ex\n")?;
    station((**host).clone(), "near-in")
}

/// What a virtual machine has: the frames of a tap device of the host's are those of another one in a
/// namespace of its own.
fn tap(host: &Host) -> Result<Station> {
    let guest = host.add_namespace("guest")?;
    let (outside, inside) = (open_tap(host, "tap0")?, open_tap(&guest, "tap1")?);
    host.ip("link set tap0 mtu 1450 up master br-ex\n")?;
    guest.ip("link set tap1 mtu 1450\n")?;
    let station = station(guest, "tap1")?;
    for (from, to) in [(&outside, &inside), (&inside, &outside)] {
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        // Until the devices go with the lab.
        thread::spawn(move || carry(from, to));
    }
    Ok(station)
}

fn carry(mut from: File, mut to: File) {
    let mut frame = vec![0; 1 << 16];
    while let Ok(len) = from.read(&mut frame) {
        // What the other end has no room for is lost, as on a wire.
        let _ = to.write(&frame[..len]);
    }
}

fn open_tap(namespace: &Namespace, name: &str) -> Result<File> {
    namespace.run_in(|| {
        let tun = open("/dev/net/tun", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
        let tun = tun.context("cannot open /dev/net/tun (CONFIG_TUN)")?;
        // SAFETY: all zero is a request without anything.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *place = byte.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the request lives through the call.
        let made = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        nix::errno::Errno::result(made).with_context(|| format!("cannot make {name}"))?;
        // SAFETY: a descriptor that nobody else has any more.
        Ok(unsafe { File::from_raw_fd(tun.into_raw_fd()) })
    })
}

/// A container in a container: its MAC is not that of the veth's end.
fn macvlan_behind_a_veth(host: &Host) -> Result<Station> {
    let inner = host.add_namespace("inner")?;
    host.container(1).ip(&format!(
        "link add link eth0 name mv0 mtu 1450 netns {} type macvlan mode bridge\n",
        inner.name()
    ))?;
    station(inner, "mv0")
}

fn bridge_within_a_container(host: &Host) -> Result<Station> {
    let inner = host.add_namespace("inner")?;
    host.container(1).ip(&format!(
        "addr flush dev eth0\nlink add br0 up type bridge\nlink set eth0 master br0\n\
         link add p0 up mtu 1450 master br0 type veth peer name eth0 mtu 1450 netns {}\n",
        inner.name()
    ))?;
    station(inner, "eth0")
}

type Join = fn(&Host) -> Result<Station>;

/// How a station is joined, and whether frames may be handed to the other end of its port's veth.
const WAYS: [(&str, Join, bool); 5] = [
    ("a veth in another namespace", veth_in_another_namespace, true),
    ("a veth in the same namespace", veth_in_the_same_namespace, false),
    ("a tap", tap, false),
    ("a macvlan child behind a veth", macvlan_behind_a_veth, false),
    ("a bridge within a container", bridge_within_a_container, false),
];

#[test]
fn a_station_is_reached_fast_however_it_is_joined() -> Result<()> {
    for (way, join, peer) in WAYS {
        check(join, peer).context(way)?;
    }
    Ok(())
}

fn check(join: Join, peer: bool) -> Result<()> {
    let local = Accelerated::start_on(Lab::build(Encap::Vxlan, &[2, 1])?, &[0])?;
    let host = local.lab.host(0);
    let (one, far) = (host.container(0), local.lab.container(1));
    let station = join(host)?;
    let echo = |from: &Namespace, to| {
        traffic::ping(from, to, 56, 1, INTERVAL).is_ok_and(|ping| ping.received == 1)
    };
    let loader = &local.loaders[0];
    let mac = station.mac();
    for other in [one, far] {
        wait_until(LIMIT, "an echo", || echo(other, station.address).then_some(()));
        wait_until(LIMIT, "both fast", || {
            (is_fast(loader, &mac) && is_fast(loader, other.mac())).then_some(())
        });
    }
    let entry = in_map(loader, &mac)?.context("not in the map")?;
    let flags = entry["value"]["flags"].as_u64().context("no flags")?;
    ensure!((flags & u64::from(FdbFlags::PEER) != 0) == peer, "flags {flags:#x}");

    let counted = local.counted(|| {
        let ping = traffic::ping(one, station.address, 56, 20, INTERVAL)?;
        ensure!(ping.received == 20, "{ping:?}");
        Ok(())
    })?;
    assert_fast(&counted, 40);
    let counted = local.counted(|| {
        traffic::transfer(one, (&station.namespace, station.address.into()), 5_000_000)?;
        traffic::transfer(&station.namespace, (one, one.ipv4().into()), 5_000_000)
    })?;
    ensure!(share(&counted) >= 0.98 && count(&counted, "received") == 0, "{counted:?}");
    // And from behind the tunnel, which no bridge on the way may garble.
    traffic::transfer(far, (&station.namespace, station.address.into()), 1_000_000)?;
    traffic::transfer(&station.namespace, (far, far.ipv4().into()), 1_000_000)
}
