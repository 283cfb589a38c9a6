//! Detaching pinned links, which aya leaves to their last reference.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::bpf::bpf;

// Commands of bpf(2), from linux/bpf.h.
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_DETACH: libc::c_int = 34;

#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Detaches a pinned link at once, and removes its pin.
///
/// A pin that goes takes its link with it, but when the kernel gets to it (`bpf_link_put`): until then the
/// device refuses the same program (`EEXIST`).
pub(super) fn detach(pin: &Path) {
    match detach_now(pin) {
        Ok(()) => {}
        // The device is gone, or there is no link.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::ENOENT)) => {}
        Err(error) => tracing::debug!("{} is left to its pin: {error}", pin.display()),
    }
    remove(pin);
}

fn detach_now(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut get = ObjGet { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the kernel reads the path, which ends with a zero.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut get) }?;
    // SAFETY: the kernel has just made it for this call.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut detach = LinkDetach { link_fd: link.as_raw_fd() as u32 };
    // SAFETY: without pointers.
    unsafe { bpf(BPF_LINK_DETACH, &mut detach) }.map(drop)
}

/// Removes a pin, if it is there.
pub(super) fn remove(pin: &Path) {
    if let Err(error) = std::fs::remove_file(pin)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", pin.display());
    }
}
