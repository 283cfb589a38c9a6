//! Without CAP_NET_ADMIN.

use ovs_loader::rules::{Error, Rules};

use crate::lab::in_namespace;

#[test]
fn unprivileged_is_told_the_capability() {
    in_namespace(async || {
        // Of this thread only: nix's setresuid would change the whole process (glibc).
        // SAFETY: a system call without pointers.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        assert_eq!(result, 0);
        let Err(error) = Rules::open().await else { panic!("opened without privileges") };
        assert!(matches!(error, Error::NotPermitted { .. }), "{error:?}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    });
}
