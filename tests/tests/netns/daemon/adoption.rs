//! What a daemon finds pinned.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::{
    maps::{MapData, MapInfo},
    programs::ProgramInfo,
};
use ovs_ebpf_common::abi::VERSION;
use ovs_ebpf_tests::lab::{Lab, Loader, binary};

use super::FOLLOWED;
use crate::support::{BothWays, shell};

fn version(bpffs: &Path) -> PathBuf {
    bpffs.join(format!("v{VERSION}"))
}

/// The pinned maps' ids by name.
fn maps(bpffs: &Path) -> Result<BTreeMap<String, u32>> {
    ["control", "ports", "fdb", "tunnels", "tunnel_index", "counters", "tunnel_counters", "events"]
        .into_iter()
        .map(|name| Ok((name.to_owned(), MapInfo::from_pin(version(bpffs).join(name))?.id())))
        .collect()
}

/// The pinned links' inodes by file name: a link that is made anew has another.
fn links(bpffs: &Path) -> Result<BTreeMap<String, u64>> {
    fs::read_dir(version(bpffs).join("links"))?
        .map(|entry| {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().context("a plain name")?;
            Ok((name, entry.metadata()?.ino()))
        })
        .collect()
}

/// The pinned programs' ids.
fn programs(bpffs: &Path) -> Result<Vec<u32>> {
    ["port_ingress", "uplink_ingress"]
        .into_iter()
        .map(|name| Ok(ProgramInfo::from_pin(version(bpffs).join(name))?.id()))
        .collect()
}

/// Host 1's daemon is killed while traffic is fast, and followed by another build of itself.
fn adopted_by(build: &dyn Fn(&Lab) -> Result<PathBuf>) -> Result<()> {
    let lab = Lab::pair()?;
    let mut first = Loader::start(lab.host(0))?;
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&first, FOLLOWED);
    let (bpffs, tunnels) = (first.bpffs().to_owned(), first.tunnels()?);
    let before = (maps(&bpffs)?, links(&bpffs)?, programs(&bpffs)?);
    let counted = first.fast_packets()?;
    first.kill_9()?;

    let mut second = Loader::spawn_binary(build(&lab)?, lab.host(0), None, &[])?;
    second.ready()?;
    let after = (maps(&bpffs)?, links(&bpffs)?, programs(&bpffs)?);
    assert_eq!(before.0, after.0, "the maps");
    assert_eq!(before.1, after.1, "the links");
    assert_eq!(before.1.len(), 2, "{:?}", before.1);
    assert!(before.2.iter().all(|id| !after.2.contains(id)), "each has the new program");
    assert_eq!(tunnels["tunnels"][0]["id"], second.tunnels()?["tunnels"][0]["id"]);
    let now = second.fast_packets()?;
    assert!(now.sent >= counted.sent && now.received >= counted.received, "{counted:?} {now:?}");
    traffic.is_fast(&second, FOLLOWED);
    traffic.arrived_whole()
}

#[test]
fn a_new_start_adopts_maps_links_and_counters() -> Result<()> {
    adopted_by(&|_| binary())
}

#[test]
fn another_build_of_the_same_abi_adopts_them_too() -> Result<()> {
    adopted_by(&|lab| {
        // Another file with other bytes: what runs is the same code at another place.
        let copy = lab.host(0).files().join("ovs-loader-other");
        let mut bytes = fs::read(binary()?)?;
        bytes.extend_from_slice(b"another build");
        fs::write(&copy, bytes)?;
        fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(copy)
    })
}

/// A pinned map that a daemon of this ABI would not have made is replaced, and its content not used.
fn is_replaced(name: &str, make: &str) -> Result<()> {
    let lab = Lab::pair()?;
    let directory = version(&lab.host(0).bpffs());
    fs::create_dir_all(&directory)?;
    shell(lab.host(0), &format!("bpftool map create {}/{name} {make}", directory.display()));
    let foreign = MapInfo::from_pin(directory.join(name))?.id();
    // While it is held its id is not given to another.
    let _held = MapData::from_pin(directory.join(name))?;
    let loader = Loader::start(lab.host(0))?;
    assert_ne!(foreign, MapInfo::from_pin(directory.join(name))?.id());
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    traffic.arrived_whole()
}

#[test]
fn a_pinned_map_with_another_value_size_is_replaced() -> Result<()> {
    is_replaced("ports", "type hash key 4 value 40 entries 4096 name ports flags 1")
}

#[test]
fn a_pinned_map_with_another_capacity_is_replaced() -> Result<()> {
    let mut first = None;
    let lab = Lab::pair()?;
    for capacity in [2048, 4096] {
        let configuration = format!("[accelerate]\nfdb_capacity = {capacity}\n");
        let mut loader = Loader::start_with(lab.host(0), &configuration)?;
        let fdb = MapInfo::from_pin(version(loader.bpffs()).join("fdb"))?;
        assert_eq!(fdb.max_entries(), capacity);
        assert_ne!(first.replace(fdb.id()), Some(fdb.id()));
        loader.kill_9()?;
    }
    Ok(())
}

#[test]
fn a_pin_that_is_no_map_is_replaced() -> Result<()> {
    let lab = Lab::pair()?;
    let mut loader = Loader::start(lab.host(0))?;
    loader.kill_9()?;
    let directory = version(&lab.host(0).bpffs());
    fs::remove_file(directory.join("fdb"))?;
    // A program where a map should be.
    fs::rename(directory.join("port_ingress"), directory.join("fdb"))?;
    let loader = Loader::start(lab.host(0))?;
    assert!(MapInfo::from_pin(directory.join("fdb"))?.id() > 0);
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    traffic.arrived_whole()
}

#[test]
fn what_other_versions_left_is_detached_once_this_one_is_attached() -> Result<()> {
    let lab = Lab::pair()?;
    let mut loader = Loader::start(lab.host(0))?;
    let bpffs = lab.host(0).bpffs();
    loader.kill_9()?;
    // As if two older and one newer ABI had made it.
    fs::rename(version(&bpffs), bpffs.join("v0"))?;
    let attached = attached(&lab)?;
    let mut loader = Loader::start(lab.host(0))?;
    let left: Vec<_> =
        fs::read_dir(&bpffs)?.map(|e| Ok(e?.file_name())).collect::<io::Result<_>>()?;
    assert_eq!(left, [format!("v{VERSION}").as_str()]);
    assert_eq!(attached, self::attached(&lab)?, "one program on each device, not two");
    loader.kill_9()?;
    fs::rename(version(&bpffs), bpffs.join("v99"))?;
    let loader = Loader::start(lab.host(0))?;
    assert!(!bpffs.join("v99").exists());
    let traffic = BothWays::start(lab.container(0), lab.container(1))?;
    traffic.is_fast(&loader, FOLLOWED);
    traffic.arrived_whole()
}

/// How many TCX programs host 1's port and uplink have.
fn attached(lab: &Lab) -> Result<Vec<usize>> {
    lab.host(0).run_in(|| {
        ["v1", "u0"]
            .into_iter()
            .map(|device| {
                let attach = aya::programs::TcAttachType::Ingress;
                Ok(aya::programs::SchedClassifier::query_tcx(device, attach)?.1.len())
            })
            .collect()
    })
}
