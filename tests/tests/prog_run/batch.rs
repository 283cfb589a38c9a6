//! Many entries of the kernel's `fdb` at once, as the daemon writes and reads them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::maps::{Array, Map, MapData};
use ovs_ebpf_common::abi::{Control, FdbKey, FdbValue, VERSION};
use ovs_loader::cli::preflight::mount_bpffs;
use ovs_loader::datapath::{Datapath, Hook, Lock, TableError, Tables, remove_all};

use crate::host::BRIDGE;

/// More than two batches.
const ENTRIES: usize = 10_000;
const LEASE: Duration = Duration::from_secs(30);

/// Opened maps and their pins, which go with it.
pub(crate) struct Opened {
    datapath: Option<Datapath>,
    bpffs: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Opened {
    /// `test` names the directory, which is one test's alone.
    pub(crate) fn with_capacity(test: &str, capacity: u32) -> Self {
        let name = format!("batch-{}-{test}", std::process::id());
        let bpffs = Path::new("/sys/fs/bpf").join(name);
        mount_bpffs(&bpffs).expect("its file system, where nobody needed it before");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let datapath = runtime.block_on(async {
            let lock = Lock::take(&bpffs).expect("the directory's lock");
            Datapath::open(lock, capacity, Hook::Tcx, false).expect("the maps")
        });
        Self { datapath: Some(datapath), bpffs, runtime }
    }

    pub(crate) fn datapath(&mut self) -> &mut Datapath {
        self.datapath.as_mut().expect("until it is dropped")
    }

    fn tables(&mut self) -> &mut Tables {
        self.datapath().tables_mut()
    }

    fn control(&self) -> Array<MapData, Control> {
        let path = self.bpffs.join(format!("v{VERSION}/control"));
        let control = Map::Array(MapData::from_pin(path).expect("the pinned map"));
        control.try_into().expect("control")
    }

    /// How often the programs were told to ask the FDB again, from some number on.
    fn generation(&self) -> u64 {
        self.control().get(&0, 0).expect("control").generation
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _runtime = self.runtime.enter();
        drop(self.datapath.take());
        let _ = remove_all(&self.bpffs);
    }
}

fn entries(count: usize, target: u32) -> Vec<(FdbKey, FdbValue)> {
    let key = |n: u32| {
        let [_, a, b, c] = n.to_be_bytes();
        FdbKey { bridge: BRIDGE, vlan: 0, mac: [2, 0, 0, a, b, c] }
    };
    let value = FdbValue { target, ..FdbValue::default() };
    (0..count as u32).map(|n| (key(n), value)).collect()
}

fn keys(entries: &[(FdbKey, FdbValue)]) -> Vec<FdbKey> {
    entries.iter().map(|(key, _)| *key).collect()
}

fn sorted(mut entries: Vec<(FdbKey, FdbValue)>) -> Vec<(FdbKey, FdbValue)> {
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

#[test]
fn what_is_written_at_once_is_read_at_once_and_told_batch_by_batch() {
    let mut opened = Opened::with_capacity("written", 16_384);
    opened.tables().renew_lease(LEASE).expect("a write");
    let before = opened.generation();
    for target in [1, 2] {
        let entries = entries(ENTRIES, target);
        let written = opened.tables().set_fdb(&entries);
        written.outcome.expect("a write");
        assert_eq!(written.done, ENTRIES);
        assert_eq!(sorted(opened.tables().fdb().expect("the map")), entries);
    }
    assert_eq!(opened.generation(), before + 2 * 3);
}

#[test]
fn flows_that_a_program_has_had_forgotten_never_come_back() {
    type Write = fn(&mut Tables) -> Result<(), TableError>;
    let mut opened = Opened::with_capacity("forgotten", 16_384);
    let writes: [Write; 3] = [
        |tables| tables.renew_lease(LEASE),
        |tables| tables.set_vxlan_ports([4789u16.to_be(), 0, 0, 0]),
        |tables| tables.set_fdb(&entries(1, 1)).outcome,
    ];
    let mut seen = BTreeSet::from([0]);
    for write in writes.iter().cycle().take(9) {
        write(opened.tables()).expect("a write");
        assert!(seen.insert(opened.generation()), "{seen:?}");
        let control = opened.control().get(&0, 0).expect("control");
        opened.control().set(0, Control { generation: 0, ..control }, 0).expect("control");
    }
}

#[test]
fn a_map_that_gets_full_has_the_first_ones_and_those_can_be_replaced() {
    let room = 5_000;
    let mut opened = Opened::with_capacity("full", room as u32);
    let entries_of = |target| entries(ENTRIES, target);
    let written = opened.tables().set_fdb(&entries_of(1));
    written.outcome.expect("a full map is no error");
    assert_eq!(written.done, room);
    assert_eq!(sorted(opened.tables().fdb().expect("the map")), entries_of(1)[..room]);
    let written = opened.tables().set_fdb(&entries_of(2)[..room]);
    written.outcome.expect("a write");
    assert_eq!(written.done, room);
    assert_eq!(sorted(opened.tables().fdb().expect("the map")), entries_of(2)[..room]);
}

#[test]
fn keys_that_are_not_there_keep_no_other_from_being_removed() {
    let mut opened = Opened::with_capacity("removed", 16_384);
    let all = entries(ENTRIES, 1);
    // Every third one is missing.
    let there: Vec<_> =
        all.iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, e)| *e).collect();
    opened.tables().set_fdb(&there).outcome.expect("a write");
    let before = opened.generation();
    let (gone, rest) = all.split_at(ENTRIES - 10);
    let written = opened.tables().remove_fdb(&keys(gone));
    written.outcome.expect("a removal");
    assert_eq!(written.done, gone.len());
    let rest: Vec<_> = rest.iter().filter(|entry| there.contains(entry)).copied().collect();
    assert_eq!(sorted(opened.tables().fdb().expect("the map")), rest);
    assert_eq!(opened.generation(), before + 3);
}
