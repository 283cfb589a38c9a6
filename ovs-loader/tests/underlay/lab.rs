//! A host with two uplinks and a neighbour on each, as network namespaces.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use ovs_ebpf_common::Reason;
use ovs_loader::bridge::model::{IfIndex, Mac};
use ovs_loader::underlay::{Path, Resolution, Target, Underlay, Unresolved};

/// Longer than a neighbour takes to fail (3 s) and to be tried again (5 s).
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

/// The namespaces `host`, `left` and `right`:
///
/// ```text
/// left 192.0.2.2/25 -- 192.0.2.1/25 up0 [host] up1 192.0.2.129/25 -- 192.0.2.130/25 right
/// ```
pub(crate) struct Lab {
    id: String,
}

impl Lab {
    /// Builds the namespaces and runs a test body in `host`, on a thread of its own.
    pub(crate) fn run(body: impl AsyncFnOnce(&Self) + Send) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let lab = Self { id: format!("und-{}-{number}", std::process::id()) };
        for name in ["host", "left", "right"] {
            ip(&format!("netns add {}", lab.namespace(name)));
        }
        lab.wire("up0", "192.0.2.1/25", "left", "192.0.2.2/25");
        lab.wire("up1", "192.0.2.129/25", "right", "192.0.2.130/25");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(format!("/run/netns/{}", lab.namespace("host")))
                    .expect("the namespace was just made");
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime")
                    .block_on(body(&lab));
            });
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    fn wire(&self, uplink: &str, address: &str, peer: &str, peer_address: &str) {
        let (host, peer_ns) = (self.namespace("host"), self.namespace(peer));
        ip(&format!("-n {host} link add {uplink} type veth peer name eth0 netns {peer_ns}"));
        self.ip("host", &format!("addr add {address} dev {uplink}"));
        self.ip("host", &format!("link set {uplink} up"));
        self.ip(peer, &format!("addr add {peer_address} dev eth0"));
        self.ip(peer, "link set eth0 up");
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    /// Runs `ip` in a namespace and gives what it printed.
    pub(crate) fn ip(&self, namespace: &str, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.namespace(namespace)))
    }

    /// Runs many `ip` commands in a namespace, one a line.
    pub(crate) fn batch(&self, namespace: &str, commands: &str) {
        let mut child = Command::new("ip")
            .args(["-n", &self.namespace(namespace), "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("iproute2");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(commands.as_bytes()).expect("ip reads its batch");
        drop(input);
        assert!(child.wait().expect("a status").success(), "ip -batch failed");
    }

    /// One ping, answered or not: makes the sender resolve and announce itself.
    pub(crate) fn ping(&self, namespace: &str, address: &str) {
        let namespace = self.namespace(namespace);
        Command::new("ip")
            .args(["netns", "exec", &namespace, "ping", "-c1", "-W1", address])
            .output()
            .expect("ping is installed");
    }

    /// A device's index.
    pub(crate) fn index(&self, namespace: &str, device: &str) -> IfIndex {
        let line = self.ip(namespace, &format!("-o link show {device}"));
        line.split(':').next().and_then(|index| index.parse().ok()).expect("an index")
    }

    /// A device's MAC.
    pub(crate) fn mac(&self, namespace: &str, device: &str) -> Mac {
        let line = self.ip(namespace, &format!("-o link show {device}"));
        let mut words = line.split_whitespace().skip_while(|word| *word != "link/ether");
        mac(words.nth(1).expect("a MAC"))
    }

    /// The host's neighbour entry with its flags, as `ip -d` shows it; empty where there is none.
    pub(crate) fn neighbour(&self, address: &str) -> String {
        self.ip("host", &format!("-d neigh show {address}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in ["host", "left", "right"] {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(name)]).output();
        }
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors} (these tests need root)");
    String::from_utf8(output.stdout).expect("text")
}

pub(crate) fn mac(text: &str) -> Mac {
    let mut octets = text.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("hex"));
    Mac(std::array::from_fn(|_| octets.next().expect("six octets")))
}

/// A VXLAN tunnel's target.
pub(crate) fn vxlan(remote: &str) -> Target {
    Target {
        remote: remote.parse().expect("an address"),
        local: None,
        tos: 0,
        inherits_tos: false,
        protocol: 17,
        dst_port: 4789,
        link: None,
    }
}

/// An underlay that follows these targets.
pub(crate) async fn follow(targets: &[Target]) -> Underlay {
    let mut underlay = Underlay::open().await.expect("an underlay");
    underlay.set_targets(targets.iter().copied().collect()).await.expect("targets");
    underlay
}

/// Follows the changes until a target has a path as wanted.
pub(crate) async fn path(
    underlay: &mut Underlay,
    target: &Target,
    wanted: impl Fn(&Path) -> bool,
) -> Path {
    until(underlay, target, |found| found.clone().ok().filter(&wanted)).await
}

/// Follows the changes until a target has no path for this reason, with these words in the detail.
pub(crate) async fn unresolved(
    underlay: &mut Underlay,
    target: &Target,
    reason: Reason,
    detail: &str,
) -> Unresolved {
    until(underlay, target, |found| {
        let wanted = |unresolved: &Unresolved| {
            unresolved.why.reason == reason && unresolved.why.detail.contains(detail)
        };
        found.clone().err().filter(wanted)
    })
    .await
}

/// Panics with the last resolution if the wanted one does not come.
async fn until<T>(
    underlay: &mut Underlay,
    target: &Target,
    wanted: impl Fn(&Resolution) -> Option<T>,
) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = wanted(underlay.resolve(target).expect("one of the targets")) {
            return found;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, underlay.changed()).await {
            Ok(outcome) => outcome.expect("the underlay can be followed"),
            Err(_) => panic!("still {:?}", underlay.resolve(target)),
        }
    }
}
