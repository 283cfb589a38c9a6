//! Frames that `BPF_PROG_TEST_RUN` refuses, sent through a veth instead.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use aya::programs::TcAttachType;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use ovs_ebpf_common::{Reason, abi::Program};
use ovs_ebpf_tests::vectors::{self, Expected};

use crate::host::{self, Host, PORT, UPLINK};
use crate::run::too_short;

#[test]
fn a_container_s_frame_without_a_whole_ip_header_is_left_to_the_bridge() {
    let vectors = vectors::encap_punt();
    let mut host = Host::sending(&vectors[0].tunnel);
    let frames = vectors.iter().map(|vector| (vector.frame.as_slice(), vector.reason.as_str()));
    check(&mut host, Program::PortIngress, PORT, frames);
}

#[test]
fn an_underlay_frame_without_a_whole_ip_header_is_left_to_the_kernel() {
    let vectors = vectors::decap();
    let mut host = Host::receiving(&vectors[0].tunnel);
    let frames = vectors.iter().filter_map(|vector| match &vector.expected {
        Expected::Reason(reason) => Some((vector.outer.as_slice(), reason.as_str())),
        Expected::Inner(_) => None,
    });
    check(&mut host, Program::UplinkIngress, UPLINK, frames);
}

/// Sends the frames that can't be tested otherwise to a device with the program attached, and
/// compares what each is counted under.
fn check<'a>(
    host: &mut Host,
    program: Program,
    ifindex: u32,
    frames: impl Iterator<Item = (&'a [u8], &'a str)>,
) {
    let device = format!("dev{ifindex}");
    host.program(program).attach(&device, TcAttachType::Ingress).expect("attach to ingress");
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
        .expect("a packet socket");
    let mut sent = 0;
    for (frame, reason) in frames.filter(|(frame, _)| too_short(frame)) {
        send(&socket, ifindex + 1, frame).expect("send");
        let deadline = Instant::now() + Duration::from_secs(5);
        let moved = loop {
            let moved = host.moved(program);
            if !moved.is_empty() {
                break moved;
            }
            assert!(Instant::now() < deadline, "{device} received nothing of {frame:02x?}");
            std::thread::yield_now();
        };
        let reason: Reason = host::reason(reason);
        assert_eq!(moved, [(2 + reason as usize, 1)], "{frame:02x?} should count as {reason:?}");
        sent += 1;
    }
    assert!(sent > 0, "no vector is that short");
}

/// Sends a frame out of a device.
fn send(socket: &OwnedFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    // SAFETY: pointers and lengths are those of `frame` and `address`, which outlive the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
