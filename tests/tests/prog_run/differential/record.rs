//! Cases in files: `tests/vectors/differential/*.json`. Map entries are as the maps have them, byte
//! by byte.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use aya::Pod;
use ovs_ebpf_common::abi::{self, Program};
use ovs_ebpf_tests::{generate::Arrival, model::Tables};
use serde::{Deserialize, Serialize};

use super::compare::Case;

/// A case as it is written: bytes are hex.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// What differed when it was found.
    found: String,
    /// [`abi::VERSION`] of the entries.
    abi: u32,
    program: String,
    device: u32,
    gso_size: u32,
    frame: String,
    control: String,
    ports: Entries,
    fdb: Entries,
    #[serde(default)]
    doubts: Entries,
    tunnels: Entries,
    tunnel_index: Entries,
    tunnel_index6: Entries,
    #[serde(default)]
    guards: Entries,
    #[serde(default)]
    uplinks: Entries,
    #[serde(default)]
    security: Entries,
    #[serde(default)]
    allowed: Entries,
    #[serde(default)]
    stations: Entries,
}

type Entries = BTreeMap<String, String>;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/differential")
}

/// Every case on record, with its file's name.
///
/// # Panics
/// Where a file is not a record of this ABI.
pub(super) fn load_all() -> Vec<(String, Case)> {
    let mut paths: Vec<_> = fs::read_dir(directory())
        .map(|entries| entries.map(|entry| entry.expect("a file").path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths.into_iter().map(|path| (path.display().to_string(), load(&path))).collect()
}

fn load(path: &Path) -> Case {
    let name = path.display();
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let record: Record =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(record.abi, abi::VERSION, "{name}: the maps have changed; make its entries anew");
    let program = Program::ALL.into_iter().find(|program| program.name() == record.program);
    Case {
        program: program.unwrap_or_else(|| panic!("{name}: no program {:?}", record.program)),
        arrival: Arrival {
            device: record.device,
            gso_size: record.gso_size,
            frame: unhex(&record.frame),
        },
        tables: Tables {
            control: value(&record.control),
            ports: entries(&record.ports),
            fdb: entries(&record.fdb),
            doubts: entries(&record.doubts),
            tunnels: entries(&record.tunnels),
            tunnel_index: entries(&record.tunnel_index),
            tunnel_index6: entries(&record.tunnel_index6),
            guards: entries(&record.guards),
            uplinks: entries(&record.uplinks),
            security: entries(&record.security),
            allowed: entries(&record.allowed),
            stations: entries(&record.stations),
        },
    }
}

/// Writes a case, and says where.
pub(super) fn keep(case: &Case, found: &str) -> String {
    let Case { tables, program, arrival } = case;
    let record = Record {
        found: found.lines().next().unwrap_or_default().trim_end_matches(':').to_owned(),
        abi: abi::VERSION,
        program: program.name().to_owned(),
        device: arrival.device,
        gso_size: arrival.gso_size,
        frame: hex(&arrival.frame),
        control: hex(bytes(&tables.control)),
        ports: hex_entries(&tables.ports),
        fdb: hex_entries(&tables.fdb),
        doubts: hex_entries(&tables.doubts),
        tunnels: hex_entries(&tables.tunnels),
        tunnel_index: hex_entries(&tables.tunnel_index),
        tunnel_index6: hex_entries(&tables.tunnel_index6),
        guards: hex_entries(&tables.guards),
        uplinks: hex_entries(&tables.uplinks),
        security: hex_entries(&tables.security),
        allowed: hex_entries(&tables.allowed),
        stations: hex_entries(&tables.stations),
    };
    let mut hasher = DefaultHasher::new();
    arrival.frame.hash(&mut hasher);
    let name = format!("{}-{:08x}.json", record.program, hasher.finish() as u32);
    let path = directory().join(name);
    let text = serde_json::to_string_pretty(&record).expect("a record is JSON") + "\n";
    let written = fs::create_dir_all(directory()).and_then(|()| fs::write(&path, &text));
    match written {
        Ok(()) => format!("kept as {}: commit it with the correction", path.display()),
        Err(error) => format!("cannot be kept as {} ({error}):\n{text}", path.display()),
    }
}

fn hex_entries<K: Pod, V: Pod>(entries: &BTreeMap<K, V>) -> Entries {
    entries.iter().map(|(key, value)| (hex(bytes(key)), hex(bytes(value)))).collect()
}

fn entries<K: Pod + Ord, V: Pod>(entries: &Entries) -> BTreeMap<K, V> {
    entries.iter().map(|(key, entry)| (value(key), value(entry))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).expect("hex is ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("two hex digits")).collect()
}

fn bytes<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: the map types have no padding (their sizes are asserted), so that every byte is
    // initialised.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}

fn value<T: Pod>(text: &str) -> T {
    let bytes = unhex(text);
    assert_eq!(bytes.len(), size_of::<T>(), "{text}");
    // SAFETY: as long as the type, of which every bit pattern is valid.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}
