//! The `cilium-model` path: its programs, and the devices they work with.

use std::{fs, net::Ipv4Addr};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    programs::{SchedClassifier, TcAttachType, tc},
    util::KernelVersion,
};
use ovs_ebpf_tests::lab::{Host, Lab};

use crate::ebpf::{self, Found, Options};

/// The package of its programs.
const PACKAGE: &str = "cilium-model";
/// From when on no qdisc is needed to attach them.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);
/// Its vxlan device.
const OVERLAY: &str = "overlay0";
/// Its programs, as the kernel shows them.
pub(super) const PROGRAMS: &[&str] = &["from_container", "from_overlay"];

/// Builds the programs and gives the object's path.
///
/// # Errors
/// Without a toolchain, and with the compiler's output.
pub(super) fn build() -> Result<std::path::PathBuf> {
    let toolchain = match ebpf::find() {
        Found::Ready(toolchain) => toolchain,
        Found::Missing(missing) => bail!("{missing}"),
    };
    let options = Options { package: PACKAGE, ..Options::host() };
    Ok(ebpf::build(&toolchain, &options, |_| ())?.path)
}

/// Joins two hosts. What is returned keeps the programs attached.
///
/// # Errors
/// When a device can't be made, or a program can't be loaded or attached.
pub(super) fn join(lab: &Lab) -> Result<Vec<Ebpf>> {
    let object = build()?;
    let object = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    let [one, other] = lab.hosts() else { bail!("two hosts can be joined") };
    Ok(vec![attach(one, other.underlay(), &object)?, attach(other, one.underlay(), &object)?])
}

fn attach(host: &Host, remote: Ipv4Addr, object: &[u8]) -> Result<Ebpf> {
    host.ip(&format!("link add {OVERLAY} up type vxlan external dstport 4789\n"))?;
    let port = host.container(0).port();
    let (overlay, port_index) = (ifindex(host, OVERLAY)?, ifindex(host, port)?);
    let mut ebpf = EbpfLoader::new()
        .override_global("REMOTE", &u32::from(remote), true)
        .override_global("OVERLAY", &overlay, true)
        .override_global("PORT", &port_index, true)
        .load(object)
        .context("cannot load the object of cilium-model")?;
    for (name, device) in [("from_container", port), ("from_overlay", OVERLAY)] {
        let program = ebpf.program_mut(name).context("the object lacks a program")?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load().with_context(|| format!("the kernel refuses {name}"))?;
        // Names are looked up where the thread is.
        host.run_in(|| {
            if KernelVersion::current()? < TCX {
                tc::qdisc_add_clsact(device)?;
            }
            program.attach(device, TcAttachType::Ingress)?;
            anyhow::Ok(())
        })
        .with_context(|| format!("cannot attach {name} to {device}"))?;
    }
    Ok(ebpf)
}

fn ifindex(host: &Host, device: &str) -> Result<u32> {
    let shown = host.try_exec(&["ip", "-o", "link", "show", "dev", device])?;
    let index = shown.split(':').next().and_then(|index| index.trim().parse().ok());
    index.with_context(|| format!("not what ip prints: {shown}"))
}
