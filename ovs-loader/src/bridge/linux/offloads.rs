//! What a tunnel's device does to frames by itself, where it was told that the NIC below is not to: `ethtool -K
//! vxlan0 tx off` is how one lives with NICs that break what is in tunnels.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use ovs_ebpf_common::Reason;

use crate::bridge::model::Why;

/// `linux/sockios.h`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// `linux/ethtool.h`: whether the device leaves checksums, and TCP segments, to the next one.
const QUESTIONS: [(u32, &str); 2] = [(0x16, "tx-checksumming"), (0x1e, "tcp-segmentation-offload")];

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// What stands against going around a tunnel's device, which may have an XDP program.
pub(super) fn around(device: &str, xdp: bool) -> impl Iterator<Item = Why> {
    let xdp = xdp.then(|| Why::new(Reason::IngressFilter, "an XDP program"));
    let off = off(device).map(|words| Why::new(Reason::TunnelOption, words));
    xdp.into_iter().chain(off)
}

/// The offload that a device of the calling thread's network namespace does without, in ethtool's words; `None`
/// too where it can't be asked, as when it is gone.
fn off(device: &str) -> Option<String> {
    let (_, words) =
        QUESTIONS.into_iter().find(|(question, _)| ask(device, *question).ok() == Some(0))?;
    Some(format!("{words} off (ethtool -k {device})"))
}

fn ask(device: &str, command: u32) -> io::Result<u32> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = Value { command, data: 0 };
    // SAFETY: zero is a value of every field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0.
    let name = request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1);
    for (to, from) in name.zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the kernel reads and writes the request and the value behind it during the call only
    // (`dev_ethtool`, `ethtool_get_one_feature`).
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } {
        0 => Ok(value.data),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_has_is_told_from_what_it_can_not_be_asked() {
        // The loopback has both, on every kernel.
        assert_eq!(off("lo"), None);
        assert!(ask("lo", QUESTIONS[0].0).is_ok_and(|has| has != 0));
        assert!(ask("nowhere", QUESTIONS[0].0).is_err());
        assert_eq!(off("nowhere"), None);
    }
}
