//! A network namespace with a veth pair, and waiting for facts.

use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use ovs_loader::rules::{HostRules, Rules};
use tokio::time::timeout;

/// Within this, a change of the host's rules is to be a fact.
const LIVE: Duration = Duration::from_secs(1);

/// Runs a test on a thread in a network namespace of its own, with the veth pair v0 and v1.
pub(crate) fn in_namespace(test: impl AsyncFnOnce() + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("unshare: run as root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .expect("make mounts private");
        sh("ip link add v0 type veth peer name v1");
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("tokio runtime")
            .block_on(test());
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a shell command, which must succeed.
pub(crate) fn sh(command: &str) {
    let output = Command::new("sh").args(["-ec", command]).output().expect("sh");
    assert!(
        output.status.success(),
        "`{command}` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The rules as a daemon that starts now reads them.
pub(crate) async fn fresh() -> Rules {
    Rules::open().await.expect("open the host's rules")
}

/// The ifindex of a device of this namespace.
pub(crate) fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).expect("device")
}

/// Waits until the facts are so.
pub(crate) async fn until(rules: &mut Rules, what: &str, is_so: impl Fn(&HostRules) -> bool) {
    let wait = async {
        while !is_so(rules.facts()) {
            rules.changed().await.expect("changed");
        }
    };
    let in_time = timeout(LIVE, wait).await.is_ok();
    assert!(in_time, "not within {LIVE:?}: {what}; facts: {:#?}", rules.facts());
}
