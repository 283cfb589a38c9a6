//! TCX programs on a device. They are seen through bpf(2) only and announce themselves to
//! nobody.

use std::io;

use crate::bpf::bpf;
use crate::bridge::model::IfIndex;

/// `BPF_PROG_QUERY` of bpf(2).
const BPF_PROG_QUERY: libc::c_int = 16;

/// Where TCX programs attach: `enum bpf_attach_type`.
#[derive(Clone, Copy)]
pub(super) enum Hook {
    /// `BPF_TCX_INGRESS`.
    Ingress = 46,
    /// `BPF_TCX_EGRESS`.
    Egress = 47,
}

/// `union bpf_attr`'s member `query`, as of kernel 6.6.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// As many programs as a hook can have: `BPF_MPROG_MAX`.
const MOST_PROGRAMS: usize = 64;

/// A network namespace's loopback device has always this index.
const LOOPBACK: IfIndex = 1;

/// Whether the kernel has TCX. Its version does not tell: TCX can be left out (`CONFIG_NET_XGRESS`).
pub(crate) fn is_supported() -> bool {
    let answer = query(LOOPBACK, Hook::Ingress);
    !answer.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

/// The ids of the TCX programs that a device of the calling thread's network namespace has on a hook,
/// in the order they run: none where the device is gone or the kernel older than TCX.
pub(super) fn programs(ifindex: IfIndex, hook: Hook) -> io::Result<Vec<u32>> {
    match query(ifindex, hook) {
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV | libc::ENOSYS)) =>
        {
            Ok(Vec::new())
        }
        result => result,
    }
}

fn query(ifindex: IfIndex, hook: Hook) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; MOST_PROGRAMS];
    let mut query = ProgQuery {
        target_ifindex: ifindex,
        attach_type: hook as u32,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MOST_PROGRAMS as u32,
        ..ProgQuery::default()
    };
    // SAFETY: the kernel writes to `ids`, whose length prog_cnt says.
    unsafe { bpf(BPF_PROG_QUERY, &mut query) }?;
    ids.truncate(query.prog_cnt as usize);
    Ok(ids)
}
