//! What the tests of the daemon share.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail, ensure};
use ovs_ebpf_tests::lab::{Host, Loader, Namespace, binary};
pub(crate) use ovs_ebpf_tests::{
    lab::traffic::BothWays,
    why::{At, elements, has},
};
use serde_json::{Value, json};

/// Runs shell commands in a namespace; the first that fails ends the test.
pub(crate) fn shell(namespace: &Namespace, script: &str) -> String {
    namespace.exec(&["sh", "-ec", script])
}

/// Runs `ovs-loader` on a host, by default with what belongs to the host's own daemon, and gives what
/// it printed.
///
/// # Errors
/// With what it said, when it fails.
pub(crate) fn ovs_loader(host: &Host, arguments: &[&str]) -> Result<String> {
    let binary = binary()?;
    let bpffs = format!("OVS_EBPF_BPFFS={}", host.bpffs().display());
    let socket = format!("OVS_EBPF_SOCKET={}", host.files().join("control.sock").display());
    let state = format!("OVS_EBPF_STATE_DIR={}", host.state().display());
    let environment = ["env", &bpffs, &socket, &state, &*binary.to_string_lossy()];
    host.try_exec(&[&environment[..], arguments].concat())
}

/// All that a command could have changed on a host, line by line, without what changes by itself.
#[derive(Debug)]
pub(crate) struct State<'a> {
    host: &'a Host,
    lines: BTreeSet<String>,
}

impl<'a> State<'a> {
    pub(crate) fn of(host: &'a Host) -> Self {
        let shown = shell(
            host,
            "ip -d -o link | sed -E 's/[a-z_]+_timer +[0-9.]+//g'
             bridge -d -o link
             bridge fdb | grep permanent | grep -v -e ^33:33 -e ^01:00:5e
             ip -4 -o addr; ip rule; ip -4 route show table all; tc qdisc
             for device in u0 v1; do tc filter show dev $device ingress; done
             ip -d neigh | grep managed | cut -d ' ' -f 1-3 || true",
        );
        let mut lines: BTreeSet<_> = shown.lines().map(str::to_owned).collect();
        if let Ok(pins) = fs::read_dir(host.bpffs()) {
            lines.extend(pins.flatten().map(|pin| format!("pin {}", pin.path().display())));
        }
        Self { host, lines }
    }

    /// # Panics
    /// With the lines that differ, where the host is not as it was.
    #[track_caller]
    pub(crate) fn is_unchanged(&self) {
        let now = Self::of(self.host);
        let changed: Vec<_> = self.lines.symmetric_difference(&now.lines).collect();
        assert!(changed.is_empty(), "{changed:#?}");
    }
}

/// What the pinned map itself has of a station, whatever the daemon says of it: key and value.
pub(crate) fn in_map(loader: &Loader, mac: &str) -> Result<Option<Value>> {
    let map = pin(loader.bpffs(), "fdb")?;
    let dump =
        Command::new("bpftool").args(["map", "dump", "pinned", &map.to_string_lossy()]).output()?;
    ensure!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let dump: Value = serde_json::from_slice(&dump.stdout)?;
    let wanted = json!(self::mac(mac)?);
    Ok(elements(&dump).find(|entry| entry["key"]["mac"] == wanted).cloned())
}

/// The bytes of a MAC.
pub(crate) fn mac(text: &str) -> Result<Vec<u8>> {
    Ok(text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?)
}

/// The pin of this name somewhere below a directory.
fn pin(directory: &Path, name: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() && path.join(name).exists() {
            return Ok(path.join(name));
        }
    }
    bail!("no pin {name} in {}", directory.display())
}
