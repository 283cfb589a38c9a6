//! `bpf(2)`, for what aya has no words for.

use std::io;

/// One call; gives what the kernel returns, such as a file descriptor.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// `attributes` must be laid out as the command's member of `union bpf_attr` (linux/bpf.h), and its pointers
/// be valid for what the command reads and writes there.
pub(crate) unsafe fn bpf<A>(command: libc::c_int, attributes: &mut A) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes the attributes, whose size it is told, during the call only; the
    // caller vouches for their layout and for what they point at.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<A>() as libc::c_uint,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
